"""
OpenTelemetry's protocol (OTLP), by OpenTelemetry's own packages: where a collector is, and what sends to it.

The packages come with the extra ``tracing``. They are imported when something is to be sent, in the process
that sends it: their gRPC must not be there before a daemon forks, and a gateway without traces does without.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal

import attrs

import gatewayd

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

Protocol = Literal["grpc", "http"]

# Those of OTLP itself (opentelemetry.io/docs/specs/otlp).
PORTS: Final[Mapping[Protocol, int]] = {"grpc": 4317, "http": 4318}
# How long one message to a collector may take, retries included.
_TIMEOUT_S: Final = 5
# What is kept while the collector does not answer; older spans are dropped for younger ones.
_MOST_KEPT: Final = 4096
_BATCH: Final = 512
_DELAY_MS: Final = 1000
# Of one message with metrics: gRPC's servers take 4 MB.
_MOST_POINTS: Final = 4000
_SILENCE_S: Final = 60.0

# What the reference passes on of a Kubernetes pod: K8S_POD_NAME is k8s.pod.name, and so on.
_OF_KUBERNETES: Final = ("NAMESPACE", "DEPLOYMENT", "STATEFULSET", "CLUSTER", "NODE", "POD")


@attrs.frozen
class Collector:
    """
    Where spans go. ``host`` may have a scheme: with ``https://`` they go over TLS.

    ``port`` None is the protocol's own. ``headers`` may log us in.
    """

    host: str = "localhost"
    port: int | None = None
    protocol: Protocol = "grpc"
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def url(self) -> str:
        """Where spans are sent: the collector's address with its scheme; for HTTP with the path of traces."""
        return self.url_for("traces")

    def url_for(self, signal: Literal["traces", "metrics"]) -> str:
        """As ``url``, for one of OTLP's kinds of data."""
        scheme, separator, host = self.host.rpartition("://")
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        path = f"/v1/{signal}" if self.protocol == "http" else ""
        return f"{scheme if separator else 'http'}://{host}:{self.port or PORTS[self.protocol]}{path}"


def resource(name: str, instance: str = "", namespace: str | None = None) -> Resource:
    """
    Who sends: the service's ``name``, which of its processes, and the Flow it belongs to.

    OTEL_RESOURCE_ATTRIBUTES adds to it, and so do the variables K8S_POD_NAME and the like.
    """
    from opentelemetry.sdk.resources import Resource

    found = {
        "service.name": name,
        "service.version": gatewayd.__version__,
        **({"service.instance.id": instance} if instance else {}),
        **({"service.namespace": namespace} if namespace else {}),
    }
    for each in _OF_KUBERNETES:
        if value := os.environ.get(f"K8S_{each}_NAME"):
            found[f"k8s.{each.lower()}.name"] = value
    return Resource.create(found)


def span_processor(collector: Collector) -> BatchSpanProcessor:
    """
    What sends spans, from a thread of its own, in batches and with retries. It starts now; ``shutdown`` it.
    """
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(
        _exporter(collector),
        max_queue_size=_MOST_KEPT,
        max_export_batch_size=_BATCH,
        schedule_delay_millis=_DELAY_MS,
    )


def say_less() -> None:
    """
    Have the SDK log errors only, in a process that is ours.

    Of each span that finds no room it makes a warning, which costs more than the span, and throws most of
    them away. That spans cannot be sent, the exporters say.
    """
    logging.getLogger("opentelemetry.sdk").setLevel(logging.ERROR)


def metric_exporter(collector: Collector) -> MetricExporter:
    """What sends metrics, on the thread that calls it, with retries for a few seconds."""
    headers, url = dict(collector.headers), collector.url_for("metrics")
    if collector.protocol == "http":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHttp

        return OverHttp(endpoint=url, headers=headers, timeout=_TIMEOUT_S)
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGrpc

    return OverGrpc(
        endpoint=url,
        insecure=not url.startswith("https:"),
        headers=tuple(headers.items()),
        timeout=_TIMEOUT_S,
        max_export_batch_size=_MOST_POINTS,
    )


class Sparse(logging.Filter):
    """
    Of the packages' own messages one of each logger and level in a minute; all others' messages pass.

    A collector that is down is worth a line now and then, not one for each batch.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._lock = threading.Lock()
        self._said_s: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != "opentelemetry" and not record.name.startswith("opentelemetry."):
            return True
        now_s, kind = self._seconds(), (record.name, record.levelno)
        with self._lock:
            if now_s - self._said_s.get(kind, float("-inf")) < _SILENCE_S:
                return False
            self._said_s[kind] = now_s
            return True


def _exporter(collector: Collector) -> SpanExporter:
    headers = dict(collector.headers)
    if collector.protocol == "http":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

        return OverHttp(endpoint=collector.url, headers=headers, timeout=_TIMEOUT_S)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

    return OverGrpc(
        endpoint=collector.url,
        insecure=not collector.url.startswith("https:"),
        headers=tuple(headers.items()),
        timeout=_TIMEOUT_S,
    )
