"""
What an executor's process measures where it has ``monitoring``, by the reference's names (spec executor.md).

Loaded only there, with prometheus_client. The library's values may be changed on any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Summary, start_http_server

from gatewayd.errors import BadRequest
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.messages.counting import count_up_to
from gatewayd.messages.headers import Headers

if TYPE_CHECKING:
    from gatewayd.executor.answers import Outlet

# Counting stops there: it is work for each document.
_MOST_DOCUMENTS: Final = 1_000_000
_NAMESPACE: Final = "jina"


class Registry(CollectorRegistry):
    """One executor's metrics. Users may add their own, as they do to the library's registry."""

    def __init__(self) -> None:
        super().__init__()
        self._summaries: dict[str, Summary] = {}
        self._making = threading.Lock()  # methods run on the event loop and in a thread

    def summary(self, name: str, documentation: str, *labels: str) -> Summary:
        """The summary ``jina_<name>``, made at its first use."""
        with self._making:
            found = self._summaries.get(name)
            if found is None:
                found = Summary(name, documentation, labels, namespace=_NAMESPACE, registry=self)
                self._summaries[name] = found
            return found

    def counter(self, name: str, documentation: str, *labels: str) -> Counter:
        """A new counter ``jina_<name>``."""
        return Counter(name, documentation, labels, namespace=_NAMESPACE, registry=self)


def timer(
    registry: Registry, runtime_name: str, name: str, documentation: str | None
) -> AbstractContextManager[None]:
    """Times a block, as the summary ``jina_<name>``; its documentation is that of the first use."""
    summary = registry.summary(name, documentation or f"Time spent in {name}", "runtime_name")
    timing: AbstractContextManager[None] = summary.labels(runtime_name).time()
    return timing


def serve_metrics(executor: Any, spec: ExecutorSpec) -> str:
    """Serve them over HTTP, in a thread of the library's. Returns ``host:port``. Raises OSError."""
    assert spec.monitoring_port is not None
    host = "127.0.0.1" if spec.socket is not None else spec.host
    server, _ = start_http_server(spec.monitoring_port, host, executor.runtime_args.metrics_registry)
    return f"[{host}]:{server.server_port}" if ":" in host else f"{host}:{server.server_port}"


class RequestMetrics:
    """Counts the requests of one executor."""

    def __init__(self, registry: Registry, class_name: str, runtime_name: str) -> None:
        own = ("runtime_name",)
        each = ("executor_endpoint", "executor", "runtime_name")
        self._class_name, self._runtime_name = class_name, runtime_name
        seconds = registry.summary("receiving_request_seconds", "Time spent processing request", *own)
        successful = registry.counter("successful_requests", "Number of successful requests", *own)
        failed = registry.counter("failed_requests", "Number of failed requests", *own)
        # They are there from the start on, with zeros.
        self._seconds = seconds.labels(runtime_name)
        self._successful = successful.labels(runtime_name)
        self._failed = failed.labels(runtime_name)
        self._documents = registry.counter(
            "document_processed", "Number of Documents that have been processed by the executor", *each
        )
        self._received = registry.summary("received_request_bytes", "The size in bytes of the request", *each)
        # Its name in the reference's earlier releases, which older dashboards have.
        self._size = registry.summary("request_size_bytes", "The size in bytes of the request", *each)
        self._sent = registry.summary(
            "sent_response_bytes", "The size in bytes of the response sent to the gateway", *each
        )
        self._calls = registry.summary(
            "process_request_seconds", "Time spent when calling the executor request method", *each
        )

    @classmethod
    def of(cls, executor: Any, spec: ExecutorSpec) -> RequestMetrics:
        """Those of one that has a ``Registry``."""
        return cls(executor.runtime_args.metrics_registry, type(executor).__name__, spec.runtime_name)

    def timer(self, endpoint: str) -> Callable[[], AbstractContextManager[object]]:
        """Makes what times one call of the method that answers ``endpoint``."""
        timing: Callable[[], AbstractContextManager[object]]
        timing = self._calls.labels(endpoint, self._class_name, self._runtime_name).time
        return timing

    def watching(
        self,
        endpoint: str,
        data: Sequence[bytes],
        messages: Sequence[bytes],
        done: Callable[[Any], object],
    ) -> Callable[[Any], object]:
        """
        ``done``, and before it the figures of one request.

        ``data`` are the documents in each of its ``messages``, serialised.
        """
        labels = endpoint, self._class_name, self._runtime_name
        for message in messages:
            self._received.labels(*labels).observe(len(message))
            self._size.labels(*labels).observe(len(message))
        with suppress(BadRequest):  # what is malformed, or what Python has serialised
            count = sum(count_up_to(bytes(each), _MOST_DOCUMENTS) for each in data)
            self._documents.labels(*labels).inc(count)
        began_s = time.monotonic()

        def answered(handled: Any) -> object:
            """``handled`` is a ``handling.Handled``, or an exception."""
            if isinstance(handled, BaseException) or handled.failed:
                self._failed.inc()
            else:
                self._seconds.observe(time.monotonic() - began_s)
                self._successful.inc()
                self._sent.labels(*labels).observe(len(handled.message))
            return done(handled)

        return answered

    def watching_stream(self, endpoint: str, size: int, outlet: Outlet) -> Outlet:
        """``outlet``, and before it the figures of one stream, whose request has ``size`` bytes."""
        labels = endpoint, self._class_name, self._runtime_name
        self._received.labels(*labels).observe(size)
        self._size.labels(*labels).observe(size)
        self._documents.labels(*labels).inc()
        return _Watched(self, labels, outlet)

    def stream_ended(self, labels: tuple[str, str, str], seconds: float, sent: int, failed: bool) -> None:
        """``sent`` are the bytes of all its answers."""
        if failed:
            self._failed.inc()
            return
        self._seconds.observe(seconds)
        self._successful.inc()
        self._sent.labels(*labels).observe(sent)


class _Watched:
    """An ``Outlet`` that measures what passes."""

    def __init__(self, metrics: RequestMetrics, labels: tuple[str, str, str], outlet: Outlet) -> None:
        self._metrics, self._labels, self._outlet = metrics, labels, outlet
        self._began_s = time.monotonic()
        self._sent = 0

    async def send(self, message: bytes) -> None:
        self._sent += len(message)
        await self._outlet.send(message)

    def finished(self, failure: BaseException | None, headers: Headers) -> None:
        seconds = time.monotonic() - self._began_s
        self._metrics.stream_ended(self._labels, seconds, self._sent, failure is not None)
        self._outlet.finished(failure, headers)
