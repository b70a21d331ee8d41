"""
Every metric of ours: names, kinds, labels, and how the values of several processes are united (pure).

The names follow Prometheus: a base unit at the end; counters are shown with ``_total``. Labels take few
values: what clients send is among them only if it is one of the names that the Flow knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import attrs

Kind = Literal["counter", "gauge", "histogram"]

# From a fast executor's millisecond to the longest that clients wait.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# The reactor's turns are short where all is well.
_LAG_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_BYTES: Final = tuple(float(1 << power) for power in range(8, 28, 2))


@attrs.frozen
class Metric:
    """
    One family. A histogram has the upper ``bounds`` of its buckets, without the infinite one.

    ``united`` says what becomes of two processes' values with the same labels.
    """

    name: str
    kind: Kind
    doc: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    united: Literal["sum", "max"] = "sum"

    def samples(self) -> Iterator[str]:
        """The names that its samples have."""
        if self.kind == "counter":
            yield f"{self.name}_total"
        elif self.kind == "gauge":
            yield self.name
        else:
            yield from (f"{self.name}_{suffix}" for suffix in ("bucket", "count", "sum"))


_REQUEST: Final = ("protocol", "endpoint")
_PART: Final = ("deployment", "shard")
_REPLICA: Final = ("deployment", "shard", "replica")

INFO: Final = Metric("gatewayd_info", "gauge", "1, with the version of gatewayd.", ("version",), united="max")
READY: Final = Metric("gatewayd_ready", "gauge", "Whether /readyz is answered with 200.", united="max")
GENERATION: Final = Metric(
    "gatewayd_documents_generation", "gauge",
    "Which documents the Flow speaks: 1 (docarray 0.21), 2 (0.30 and later), 0 while that is not known.",
    united="max",
)  # fmt: skip

# -- requests
REQUESTS: Final = Metric(
    "gatewayd_requests", "counter", "Requests that were dispatched, by how they ended.",
    (*_REQUEST, "outcome"),
)  # fmt: skip
ERRORS_TOLD: Final = Metric(
    "gatewayd_errors_told", "counter",
    "Errors that clients were told of, by class; also of requests that were refused before their dispatch.",
    ("protocol", "error"),
)  # fmt: skip
LEFT_OUT: Final = Metric(
    "gatewayd_left_out_requests", "counter",
    "Requests that are missing in a recording (record) or in the file of the access log (access_log).",
    ("file",),
)  # fmt: skip
REQUESTS_UNDER_WAY: Final = Metric(
    "gatewayd_requests_under_way", "gauge", "Requests that are dispatched and have not ended."
)
REQUEST_SECONDS: Final = Metric(
    "gatewayd_request_duration_seconds", "histogram", "Time from a request's dispatch to its end.",
    _REQUEST, _SECONDS,
)  # fmt: skip
REQUEST_BYTES: Final = Metric(
    "gatewayd_request_size_bytes", "histogram", "Bytes of documents and parameters in requests.",
    _REQUEST, _BYTES,
)  # fmt: skip
RESPONSE_BYTES: Final = Metric(
    "gatewayd_response_size_bytes", "histogram", "Bytes of documents and parameters in responses.",
    _REQUEST, _BYTES,
)  # fmt: skip
STREAM_ANSWERS: Final = Metric(
    "gatewayd_stream_answers", "counter",
    "Answers in streams that have ended, however they did: one document each, of endpoints that stream.",
    _REQUEST,
)  # fmt: skip
STREAM_FIRST_SECONDS: Final = Metric(
    "gatewayd_stream_first_answer_seconds", "histogram",
    "Time from the dispatch of a request to the first answer of its stream, of streams that had one.",
    _REQUEST, _SECONDS,
)  # fmt: skip
STREAM_GAP_SECONDS: Final = Metric(
    "gatewayd_stream_gap_seconds", "histogram",
    "The mean time between two answers of a stream, from its first to its end, of those that came to it.",
    _REQUEST, _SECONDS,
)  # fmt: skip
STREAMS_UNDER_WAY: Final = Metric(
    "gatewayd_streams_under_way", "gauge", "Those of the requests under way that are answered with a stream."
)

# -- the edges of the graph
CALL_SECONDS: Final = Metric(
    "gatewayd_deployment_duration_seconds", "histogram",
    "Time in which an executor's part of an answered request was done, with waiting and retries.",
    ("deployment",), _SECONDS,
)  # fmt: skip
CALL_ERRORS: Final = Metric(
    "gatewayd_deployment_errors", "counter", "Requests for which the executor raised, streams among them.",
    ("deployment",),
)  # fmt: skip
QUEUED: Final = Metric(
    "gatewayd_deployment_queued", "gauge", "Calls that wait for a slot or a connection.", _PART
)
IN_FLIGHT: Final = Metric("gatewayd_deployment_in_flight", "gauge", "Calls that replicas work on.", _PART)
ATTEMPTS: Final = Metric(
    "gatewayd_deployment_attempts", "counter", "Calls that were sent to a replica.", _PART
)
RETRIES: Final = Metric(
    "gatewayd_deployment_retries", "counter",
    "Calls that were tried again, by the gRPC status of the failure before.", (*_PART, "reason"),
)  # fmt: skip
EVENTS: Final = Metric(
    "gatewayd_deployment_events", "counter",
    "Decisions about calls and replicas, such as queued, ejected, restored, lost.", (*_PART, "event"),
)  # fmt: skip
RETRY_BUDGET: Final = Metric(
    "gatewayd_deployment_retry_budget", "gauge", "Retries that are allowed now.", _PART
)
CONNECTED: Final = Metric(
    "gatewayd_deployment_connected_replicas", "gauge", "Replicas that can be called.", _PART, united="max"
)
WANTED: Final = Metric(
    "gatewayd_deployment_wanted_replicas", "gauge",
    "Replicas that are wanted now, of executors that are scaled with their load.", _PART, united="max",
)  # fmt: skip
SCALED: Final = Metric(
    "gatewayd_deployment_scalings", "counter", "Decisions to have more replicas, or fewer.",
    (*_PART, "direction"),
)  # fmt: skip

# -- replicas
REPLICA_CONNECTED: Final = Metric(
    "gatewayd_replica_connected", "gauge", "Whether there is a connection to the replica.", _REPLICA,
    united="max",
)  # fmt: skip
REPLICA_EJECTED: Final = Metric(
    "gatewayd_replica_ejected", "gauge", "Whether the replica is left out after failures.", _REPLICA,
    united="max",
)  # fmt: skip
REPLICA_IN_FLIGHT: Final = Metric(
    "gatewayd_replica_in_flight", "gauge", "Calls that the replica works on.", _REPLICA
)
REPLICA_UP: Final = Metric(
    "gatewayd_replica_up", "gauge", "Whether the replica's process serves; of those started here.", _REPLICA
)
REPLICA_RESTARTS: Final = Metric(
    "gatewayd_replica_restarts", "counter", "How often the replica's process was started again.", _REPLICA
)
REPLICA_MEMORY: Final = Metric(
    "gatewayd_replica_memory_bytes", "gauge", "Memory of the replica's process (resident).", _REPLICA
)
REPLICA_CPU: Final = Metric(
    "gatewayd_replica_cpu_seconds", "counter", "CPU time of the replica's process.", _REPLICA
)

# -- connections and limits
CONNECTIONS: Final = Metric(
    "gatewayd_connections", "gauge", "Open connections of clients.", ("protocols", "port")
)
CONNECTIONS_LIMIT: Final = Metric(
    "gatewayd_connections_limit", "gauge", "Connections that clients may open (max_connections)."
)
RATES_DECIDED: Final = Metric(
    "gatewayd_rates_decided", "counter",
    "Requests that have a rate, by what decided: the store that gateways share (store), without it this "
    "gateway's own share (gateway), or nothing, so that they were refused (refused).",
    ("by",),
)  # fmt: skip
RATES_STORE_LOST: Final = Metric(
    "gatewayd_rates_store_lost", "gauge", "Whether the store that rates are counted in cannot be used.",
    united="max",
)  # fmt: skip
HELD: Final = Metric(
    "gatewayd_held_bytes", "gauge", "Bytes of requests and unsent answers that are held.", ("buffer",)
)
HELD_LIMIT: Final = Metric(
    "gatewayd_held_bytes_limit", "gauge", "Bytes that may be held (max_buffered_bytes).", ("buffer",)
)
CALLS: Final = Metric("gatewayd_calls_in_flight", "gauge", "Calls to all executors under way.")
CALLS_LIMIT: Final = Metric(
    "gatewayd_calls_in_flight_limit", "gauge", "Calls that may be under way (pool.max_in_flight)."
)

# -- the processes of the gateway itself
LAG: Final = Metric(
    "gatewayd_reactor_lag_seconds", "histogram", "How late the reactor is for what is due.", ("process",),
    _LAG_SECONDS,
)  # fmt: skip
CROSSINGS: Final = Metric(
    "gatewayd_bridge_crossings", "counter", "What was handed from one thread to another.",
    ("process", "to"),
)  # fmt: skip
WAKEUPS: Final = Metric(
    "gatewayd_bridge_wakeups", "counter", "How often a thread was woken for that.", ("process", "to")
)
PROCESS_MEMORY: Final = Metric(
    "gatewayd_process_memory_bytes", "gauge", "Memory of a process of the gateway (resident).", ("process",)
)
PROCESS_CPU: Final = Metric(
    "gatewayd_process_cpu_seconds", "counter", "CPU time of a process of the gateway.", ("process",)
)
WORKER_SERVES: Final = Metric("gatewayd_worker_serves", "gauge", "Whether a worker serves.", ("process",))
WORKER_RESTARTS: Final = Metric(
    "gatewayd_worker_restarts", "counter", "How often a worker's process was started again.", ("process",)
)
SILENT: Final = Metric(
    "gatewayd_silent_processes", "gauge",
    "Workers and executors that did not answer in time: their figures are missing here, or older.", ("kind",),
)  # fmt: skip

METRICS: Final = tuple(each for each in tuple(globals().values()) if isinstance(each, Metric))
BY_NAME: Final = {each.name: each for each in METRICS}
