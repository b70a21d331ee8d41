"""
Reads the figures of a gateway's parts, when they are asked for.

Nothing here costs a request anything: the parts have these numbers for their own work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.pool.pool import Pool
from gatewayd.protocols import told
from gatewayd.protocols.admission import Admission
from gatewayd.protocols.port import PortReport
from gatewayd.supervisor.process import ReplicaStatus
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading

# The pool's counters that have a metric of their own.
_PICKED, _RETRIED = "picked", "retried"

ReplicaKey = tuple[str, int, int]


def read_pool(reading: Reading, pool: Pool, addresses: Mapping[ReplicaKey, str]) -> None:
    """
    The edges of the graph, and the replicas at their ends.

    ``addresses`` are those of replicas whose processes are started here: they go by their number, which stays
    when they are started again, and others by their address.
    """
    for part in pool.parts():
        labels = part.deployment, str(part.shard)
        reading.set(table.QUEUED, part.queued, *labels)
        reading.set(table.IN_FLIGHT, part.in_flight, *labels)
        reading.set(table.CONNECTED, part.connected, *labels)
        reading.set(table.RETRY_BUDGET, part.retry_budget, *labels)
        reading.set(table.ATTEMPTS, part.decisions.get(_PICKED, 0), *labels)
        for event, count in part.decisions.items():
            if event not in (_PICKED, _RETRIED):
                reading.set(table.EVENTS, count, *labels, event.replace(" ", "_"))
        for reason, count in part.retries.items():
            reading.set(table.RETRIES, count, *labels, reason)
    numbers = {(name, shard, address): str(at) for (name, shard, at), address in addresses.items()}
    for name, replicas in pool.states().items():
        for each in replicas:
            number = numbers.get((name, each.shard, each.address), each.name)
            labels3 = name, str(each.shard), number
            reading.set(table.REPLICA_CONNECTED, each.state == "ready", *labels3)
            reading.set(table.REPLICA_EJECTED, each.ejected, *labels3)
            reading.set(table.REPLICA_IN_FLIGHT, each.in_flight, *labels3)
    reading.set(table.CALLS, pool.slots.limit - pool.slots.free)
    reading.set(table.CALLS_LIMIT, pool.slots.limit)


def read_ports(reading: Reading, ports: Iterable[PortReport], buffers: Buffers, admission: Admission) -> None:
    """Connections, and the bytes that are held for them."""
    reading.set(table.HELD, buffers.held_bytes, "requests")
    reading.set(table.HELD_LIMIT, buffers.limit_bytes, "requests")
    for port in ports:
        if port.connections is not None:
            reading.set(table.CONNECTIONS, port.connections, "+".join(port.protocols), str(port.port))
        if "grpc" in port.protocols:
            reading.set(table.HELD, port.held_bytes, f"grpc {port.port}")
            reading.set(table.HELD_LIMIT, buffers.limit_bytes, f"grpc {port.port}")
    reading.set(table.CONNECTIONS_LIMIT, admission.most)


def read_errors(reading: Reading) -> None:
    """What clients were told, over every protocol."""
    for error, count in told.counts().items():
        reading.set(table.ERRORS_TOLD, count, error)


def read_bridge(reading: Reading, bridge: Bridge, process: str) -> None:
    """What crosses between threads."""
    for to, (carried, wakeups) in bridge.crossings.items():
        reading.set(table.CROSSINGS, carried, process, to)
        reading.set(table.WAKEUPS, wakeups, process, to)


def read_replicas(reading: Reading, replicas: Iterable[ReplicaStatus]) -> None:
    """The processes of executors, as the supervisor knows them."""
    for each in replicas:
        labels = each.deployment, str(each.shard), str(each.replica)
        reading.set(table.REPLICA_UP, each.state == "ready", *labels)
        reading.set(table.REPLICA_RESTARTS, each.restarts, *labels)
