"""Executors with spans of their own."""

from __future__ import annotations

from gatewayd import Executor, dynamic_batching, requests


class Traced(Executor):
    @requests(on="/work")
    def work(self, docs, tracing_context, **kwargs):
        with self.tracer.start_as_current_span("inside", context=tracing_context):
            pass

    @requests(on="/await")
    async def await_it(self, docs, **kwargs):
        # OpenTelemetry's current span is that of the method.
        with self.tracer.start_as_current_span("inside"):
            pass

    @requests(on="/raise")
    def fail(self, **kwargs):
        raise ValueError("boom")

    @requests(on="/batched")
    @dynamic_batching(preferred_batch_size=2, timeout=10_000)
    def batched(self, docs, tracing_context, **kwargs):
        with self.tracer.start_as_current_span("inside", context=tracing_context):
            pass
