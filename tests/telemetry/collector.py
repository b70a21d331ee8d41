"""A collector of traces that records: OTLP over gRPC and over HTTP, with OpenTelemetry's own messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import attrs
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanProto
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.telemetry.otlp_servers import Service, grpc_server, http_server
from tests.waiting import until

_KINDS: Final = {
    SpanProto.SPAN_KIND_INTERNAL: "internal",
    SpanProto.SPAN_KIND_SERVER: "server",
    SpanProto.SPAN_KIND_CLIENT: "client",
}


@attrs.frozen
class Recorded:
    """A span as it arrived; ids are hexadecimal, a parent of none is empty."""

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    attributes: Mapping[str, Any]
    error: str | None
    links: tuple[str, ...]
    began_ns: int
    ended_ns: int
    state: str


class Collector:
    """What has arrived; ``port`` is where. ``metadata`` are the headers of the last message."""

    def __init__(self) -> None:
        self.port = 0
        self.metadata: dict[str, str] = {}
        self._lock = threading.Lock()
        self._spans: list[Recorded] = []

    @property
    def spans(self) -> list[Recorded]:
        with self._lock:
            return list(self._spans)

    def take(self, message: ExportTraceServiceRequest, metadata: Mapping[str, str]) -> None:
        found = [
            _recorded(span, {each.key: each.value.string_value for each in of.resource.attributes})
            for of in message.resource_spans
            for scope in of.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self.metadata = dict(metadata)
            self._spans += found

    def trace(self, trace_id: str, count: int) -> list[Recorded]:
        """The spans of one trace, when so many have come."""

        def found() -> list[Recorded]:
            return [span for span in self.spans if span.trace_id == trace_id]

        until(
            lambda: len(found()) >= count,
            what=lambda: f"{count} spans: {[(span.service, span.name) for span in found()]}",
        )
        return found()


def tree(spans: list[Recorded], root: str) -> Any:
    """``(service, name, [children])`` of what is below the span ``root``, in order of beginning."""
    below = sorted((span for span in spans if span.parent_id == root), key=lambda span: span.began_ns)
    return [(span.service, span.name, tree(spans, span.span_id)) for span in below]


_SERVICE: Final = Service(
    "/v1/traces",
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@contextmanager
def over_grpc() -> Iterator[Collector]:
    collector = Collector()
    with grpc_server(_SERVICE, collector.take) as collector.port:
        yield collector


@contextmanager
def over_http() -> Iterator[Collector]:
    collector = Collector()
    with http_server(_SERVICE, collector.take) as collector.port:
        yield collector


COLLECTORS: Final[Mapping[str, Callable[[], Any]]] = {"grpc": over_grpc, "http": over_http}


def _recorded(span: SpanProto, resource: Mapping[str, str]) -> Recorded:
    return Recorded(
        span.name,
        resource["service.name"],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _KINDS[span.kind],
        {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes},
        span.status.message if span.status.code == Status.STATUS_CODE_ERROR else None,
        tuple(link.span_id.hex() for link in span.links),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.trace_state,
    )
