"""
Reads the figures of a gateway's parts, when they are asked for.

Nothing here costs a request anything: the parts have these numbers for their own work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gatewayd.access.shared_rates import SharedRates
from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.pool.pool import Pool, ReplicaState
from gatewayd.protocols import told
from gatewayd.protocols.port import PortReport
from gatewayd.service.front import Held
from gatewayd.service.scaling import ScaledPart
from gatewayd.supervisor.process import ReplicaStatus
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading

# The pool's counters that have a metric of their own.
_PICKED, _RETRIED = "picked", "retried"

# A deployment, a shard, and an address.
ReplicaKey = tuple[str, int, str]


def read_pool(reading: Reading, pool: Pool, numbers: Mapping[ReplicaKey, int]) -> None:
    """
    The edges of the graph, and the replicas at their ends.

    ``numbers`` are those of replicas whose processes are started here: these go by their number, which stays
    when they are started again, and others by their address.
    """
    for part in pool.parts():
        labels = part.deployment, str(part.shard)
        reading.set(table.CONNECTED, part.connected, *labels)
        reading.set(table.RETRY_BUDGET, part.retry_budget, *labels)
        reading.set(table.ATTEMPTS, part.decisions.get(_PICKED, 0), *labels)
        for event, count in part.decisions.items():
            if event not in (_PICKED, _RETRIED):
                reading.set(table.EVENTS, count, *labels, event.replace(" ", "_"))
        for reason, count in part.retries.items():
            reading.set(table.RETRIES, count, *labels, reason)
    for name, replicas in pool.states().items():
        for each in replicas:
            labels3 = _labels_of(name, each, numbers)
            reading.set(table.REPLICA_CONNECTED, each.state == "ready", *labels3)
            reading.set(table.REPLICA_EJECTED, each.ejected, *labels3)
    reading.set(table.CALLS_LIMIT, pool.slots.limit)
    reading.set(table.GENERATION, pool.endpoints().generation or 0)


def read_under_way(reading: Reading, pools: Iterable[Pool], numbers: Mapping[ReplicaKey, int]) -> None:
    """What waits and what is called, in the pool of the graph that serves and those of earlier ones."""
    pools = tuple(pools)
    for pool in pools:
        for part in pool.parts():
            labels = part.deployment, str(part.shard)
            reading.add(table.QUEUED, part.queued, *labels)
            reading.add(table.IN_FLIGHT, part.in_flight, *labels)
        for name, replicas in pool.states().items():
            for each in replicas:
                reading.add(table.REPLICA_IN_FLIGHT, each.in_flight, *_labels_of(name, each, numbers))
    # Several may share theirs.
    for slots in {id(pool.slots): pool.slots for pool in pools}.values():
        reading.add(table.CALLS, slots.limit - slots.free)


def _labels_of(name: str, replica: ReplicaState, numbers: Mapping[ReplicaKey, int]) -> tuple[str, str, str]:
    number = numbers.get((name, replica.shard, replica.address))
    return name, str(replica.shard), replica.name if number is None else str(number)


def read_ports(reading: Reading, ports: Iterable[PortReport], held: Sequence[Held]) -> None:
    """
    Connections, and the bytes that are held for them.

    What is ``held`` now comes first, then that of earlier fronts, which it may share. ``ports`` are those of
    all of them.
    """
    now = held[0]
    for buffers in {id(each.buffers): each.buffers for each in held}.values():
        reading.add(table.HELD, buffers.held_bytes, "requests")
    reading.set(table.HELD_LIMIT, now.buffers.limit_bytes, "requests")
    on_loop: dict[tuple[int, int], Buffers] = {}
    for port in ports:
        if port.connections is not None:
            reading.add(table.CONNECTIONS, port.connections, "+".join(port.protocols), str(port.port))
        if "grpc" in port.protocols:
            found = [each.on_loop[port.port] for each in held if port.port in each.on_loop]
            on_loop.update({(port.port, id(each)): each for each in found})
    for (number, _), buffers in on_loop.items():
        reading.add(table.HELD, buffers.held_bytes, f"grpc {number}")
        reading.set(table.HELD_LIMIT, now.buffers.limit_bytes, f"grpc {number}")
    reading.set(table.CONNECTIONS_LIMIT, now.admission.most)
    if isinstance(now.rates, SharedRates):
        reading.set(table.RATES_STORE_LOST, not now.rates.store.up)
        for by, count in now.rates.decided.items():
            reading.set(table.RATES_DECIDED, count, by)


def read_errors(reading: Reading) -> None:
    """What clients were told, over every protocol."""
    for (protocol, error), count in told.counts().items():
        reading.set(table.ERRORS_TOLD, count, protocol, error)


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


def read_scaled(reading: Reading, parts: Iterable[ScaledPart]) -> None:
    """Executors whose replicas come and go with the load."""
    for each in parts:
        labels = each.deployment, str(each.shard)
        reading.set(table.WANTED, each.wanted, *labels)
        reading.set(table.SCALED, each.ups, *labels, "up")
        reading.set(table.SCALED, each.downs, *labels, "down")
