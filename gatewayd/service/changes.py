"""
What a reload has to do: the difference between the Flow that serves and the one that is to serve (pure).

Executors are compared process by process: what a process was started with decides whether it may stay. What
only says how it is called (``needs``, ``when``, ``retries``) makes another graph over the same processes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import attrs

from gatewayd.config.keys import GATEWAY
from gatewayd.config.model import DeploymentConfig, FlowConfig, GatewayConfig, Listener
from gatewayd.errors import ConfigError
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.supervisor.replica_id import ReplicaId, replicas_of, started_of

# Settings that take effect without a new front: those of the graph, of TLS, and of the server's own doings.
_OF_GRAPH: Final = frozenset({"pool", "timeout_send_s", "retries", "compression", "docarray"})
_OF_TLS: Final = frozenset(
    {"ssl_certfile", "ssl_keyfile", "ssl_certificates", "ssl_client_ca", "ssl_client_auth"}
)
_OF_SERVER: Final = frozenset(
    {
        *("name", "grace_period_s", "floating_grace_period_s", "drain_delay_s", "reload"),
        *("ssl_reload_interval_s", "ssl_expiry_warning_days", "log_level", "log_levels"),
    }
)
# These are of the graph and of the front.
_OF_BOTH: Final = frozenset({"forward_headers", "forward_headers_max_bytes", "auth", "tracing"})
# What a process cannot change while it runs, and why.
_OF_PROCESS: Final[Mapping[str, str]] = {
    "env": "the environment of a process that runs stays as it is",
    "workers": "the service's process has its workers from its start on",
    "custom": "a gateway class is loaded once (gateway.uses, uses_with, py_modules)",
    **dict.fromkeys(
        ("admin_port", "admin_host", "admin_keys", "monitoring", "port_monitoring"),
        "the ports for operators are opened once",
    ),
    "log_format": "the log is set up when the gateway starts",
    "grpc_server": "a port cannot pass from one gRPC server to another",
}
# What Flow files call them.
_KEYS: Final[Mapping[str, str]] = {
    **{key.field: key.name for key in GATEWAY.keys},
    **{"custom": "uses", "listeners": "protocol and port"},
}


@attrs.frozen
class Start:
    """Replicas of one ``deployment`` that are to be started."""

    deployment: DeploymentConfig
    replicas: tuple[ReplicaId, ...]


@attrs.frozen
class Changes:
    """
    What is to be done, and what it is to whoever asked.

    ``starts`` are started before anything else changes; ``replicas`` are those that the new graph calls, and
    ``ends`` those that only the old one does. ``added``, ``changed``, ``removed`` and ``kept`` are names of
    executors; ``kept`` ones have all their processes. ``rolled`` are replicas to be replaced one by one, by
    name, because their code has changed. ``settings`` names the gateway's keys and ports that changed,
    ``graph`` says whether there is a new graph, ``front`` whether all ports are to be opened anew.
    ``sources`` has for each listener the index of the old one whose sockets it takes, None for one that has
    to be bound.
    ``outdated`` names executors whose code has changed though their processes stay, since a new one could not
    listen beside the old. ``refusals`` keep all of it from being done.
    """

    starts: tuple[Start, ...] = ()
    replicas: frozenset[ReplicaId] = frozenset()
    ends: frozenset[ReplicaId] = frozenset()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    rolled: Mapping[str, tuple[ReplicaId, ...]] = attrs.field(factory=dict)
    settings: tuple[str, ...] = ()
    graph: bool = False
    front: bool = False
    sources: tuple[int | None, ...] = ()
    outdated: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def started(self) -> tuple[ReplicaId, ...]:
        """Those of ``starts``."""
        return tuple(each for start in self.starts for each in start.replicas)

    @property
    def nothing(self) -> bool:
        """Whether all is as it was."""
        return not (self.graph or self.settings or self.rolled)


def changes_between(
    old: FlowConfig,
    new: FlowConfig,
    running: Collection[ReplicaId],
    incarnation: int,
    edited: Collection[ReplicaId] = (),
    *,
    counted: Collection[ReplicaId] | None = None,
) -> Changes:
    """
    What leads from ``old``, whose replicas are ``running``, to ``new``.

    New replicas get the ``incarnation``. ``edited`` are those whose code has changed since their processes
    were started. How many replicas a scaled executor has is that of ``counted``, or else of ``running``.
    """
    were = {each.name: each for each in started_of(old.deployments)}
    are = {each.name: each for each in started_of(new.deployments)}
    present = {(each.deployment, each.shard, each.replica): each for each in running}
    starts, kept = [], set()
    for name, deployment in are.items():
        before = were.get(name)
        wanted = []
        stays = before is not None and _is_alike(before, old, deployment, new)
        for each in replicas_of(deployment, incarnation, counted or running, stays=stays):
            there = present.get((name, each.shard, each.replica))
            if there is not None and before is not None and _alike(before, old, deployment, new, each):
                kept.add(there)
            else:
                wanted.append(each)
        if wanted:
            starts.append(Start(deployment, tuple(wanted)))
    started = frozenset(each for start in starts for each in start.replicas)
    ends = frozenset(running) - kept
    settings = _different(old.gateway, new.gateway)
    graph = bool(started or ends or settings & (_OF_GRAPH | _OF_BOTH)) or old.deployments != new.deployments
    edited = kept.intersection(edited)
    stuck = frozenset(each for each in edited if fixed_place(old, each) is not None)
    if graph or settings or edited != stuck:
        # Code that waits for a restart keeps nothing else from being taken up. By itself it is refused.
        edited -= stuck
    else:
        stuck = frozenset()
    outdated = tuple(sorted({each.deployment for each in stuck}))
    if graph and edited:
        # With a new graph their processes are made anew beside the old: all changes take effect at once.
        return attrs.evolve(_with_code(old, new, running, incarnation, edited), outdated=outdated)
    return _described(
        old,
        new,
        Changes(
            starts=tuple(starts),
            replicas=started | kept,
            ends=ends,
            rolled={
                name: tuple(sorted((e for e in edited if e.deployment == name), key=attrs.astuple))
                for name in sorted({each.deployment for each in edited})
            },
            graph=graph,
            outdated=outdated,
        ),
        settings,
    )


def _with_code(
    old: FlowConfig,
    new: FlowConfig,
    running: Collection[ReplicaId],
    incarnation: int,
    edited: Collection[ReplicaId],
) -> Changes:
    left = [each for each in running if each not in edited]
    found = changes_between(old, new, left, incarnation, counted=running)
    again = attrs.evolve(found, ends=found.ends.union(edited))
    return _described(old, new, again, _different(old.gateway, new.gateway))


def _is_alike(before: DeploymentConfig, old: FlowConfig, after: DeploymentConfig, new: FlowConfig) -> bool:
    """Whether an executor that needs no replica now need not show that it can start."""
    return _alike(before, old, after, new, ReplicaId(after.name, 0, 0))


def _alike(
    before: DeploymentConfig, old: FlowConfig, after: DeploymentConfig, new: FlowConfig, replica: ReplicaId
) -> bool:
    """Whether a process that was started for one would be started alike for the other."""
    if replica.shard >= before.shards or replica.replica >= before.most_replicas:
        return False
    if (before.placement, before.ray) != (after.placement, after.ray):
        return False
    specs = [
        # How many others there are is told to a process, but does not make it another one.
        attrs.evolve(ExecutorSpec.of(each, replica.shard, replica.replica, flow.base_dir), replicas=1)
        for each, flow in ((before, old), (after, new))
    ]
    return specs[0] == specs[1]


def _different(old: GatewayConfig, new: GatewayConfig) -> frozenset[str]:
    return frozenset(
        field.name
        for field in attrs.fields(GatewayConfig)
        if getattr(old, field.name) != getattr(new, field.name)
    )


def _described(old: FlowConfig, new: FlowConfig, changes: Changes, settings: frozenset[str]) -> Changes:
    before, after = {each.name: each for each in old.deployments}, {e.name: e for e in new.deployments}
    touched = {each.deployment.name.partition("/")[0] for each in changes.starts}
    touched |= {each.deployment.partition("/")[0] for each in changes.ends}
    both = [name for name in after if name in before]
    changed = tuple(name for name in both if name in touched or before[name] != after[name])
    tls_stays = (old.gateway.tls is None) == (new.gateway.tls is None)
    of_front = settings - _OF_GRAPH - _OF_SERVER - {"listeners"} - (_OF_TLS if tls_stays else frozenset())
    sources = sources_of(old.gateway.listeners, new.gateway.listeners)
    if "host" in settings:
        sources = (None,) * len(sources)
    return attrs.evolve(
        changes,
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=changed,
        kept=tuple(name for name in both if name not in changed and name not in changes.rolled),
        settings=(
            *sorted(_KEYS.get(name, name) for name in settings - {"listeners"}),
            *(_ports(old.gateway.listeners, new.gateway.listeners) if "listeners" in settings else ()),
        ),
        front=bool(of_front),
        sources=sources,
        refusals=tuple(_refusals(old, new, changes, settings, front=bool(of_front), sources=sources)),
    )


def sources_of(old: tuple[Listener, ...], new: tuple[Listener, ...]) -> tuple[int | None, ...]:
    """
    For each new listener, the index of the old one whose sockets it takes; None for one that has to be bound.

    That is the same one, or one at the same port; those at a port of the system's choice are told apart by
    their order.
    """
    free = dict(enumerate(old))
    found: list[int | None] = [None] * len(new)
    for alike in (_same, _at_one_port):
        for index, listener in enumerate(new):
            if found[index] is None:
                match = next((number for number, each in free.items() if alike(each, listener)), None)
                if match is not None:
                    found[index] = match
                    del free[match]
    return tuple(found)


def _ports(old: tuple[Listener, ...], new: tuple[Listener, ...]) -> tuple[str, ...]:
    """What becomes of each port that is another one, for people."""
    sources = sources_of(old, new)
    found = []
    for listener, source in zip(new, sources, strict=True):
        if source is None:
            found.append(f"{_port(listener)} added")
        elif old[source] != listener:
            found.append(f"{_port(old[source])} is now {'+'.join(listener.protocols)}")
    found += [f"{_port(each)} removed" for index, each in enumerate(old) if index not in sources]
    return tuple(found) or ("ports in another order",)


def _port(listener: Listener) -> str:
    number = f"port {listener.port}" if listener.port else "a free port"
    return f"{number} ({'+'.join(listener.protocols)})"


def _same(one: Listener, other: Listener) -> bool:
    return one == other


def _at_one_port(one: Listener, other: Listener) -> bool:
    return one.port == other.port != 0


def _refusals(
    old: FlowConfig,
    new: FlowConfig,
    changes: Changes,
    settings: frozenset[str],
    *,
    front: bool,
    sources: tuple[int | None, ...],
) -> Iterator[str]:
    if old.ray != new.ray:
        yield (
            "with.ray cannot be changed while the gateway serves: the connection to a cluster is made once; "
            "restart it for that, or put the key back"
        )
    for name in sorted(settings & _OF_PROCESS.keys()):
        yield (
            f"gateway.{_KEYS.get(name, name)} cannot be changed while the gateway serves: "
            f"{_OF_PROCESS[name]}; restart it for that, or put the key back"
        )
    recorded = (old.gateway.record, new.gateway.record)
    if old.gateway.workers == 1 and "record" in settings and all(recorded):
        paths = {each.path for each in recorded if each is not None}
        if len(paths) == 1:
            yield (
                f"gateway.record cannot be changed while the gateway writes to {paths.pop()}, where requests "
                "that are under way are recorded; name another path, or restart it for that"
            )
    if new.gateway.grpc_server == "grpcio":
        before, after = old.gateway.listeners, new.gateway.listeners
        passed = [
            after[index].port
            for index, source in enumerate(sources)
            if source is not None
            and "grpc" in (*before[source].protocols, *after[index].protocols)
            and (front or before[source] != after[index])
        ]
        if passed:
            of_ports = sorted(settings - _OF_GRAPH - _OF_SERVER)
            named = ", ".join(f"gateway.{_KEYS.get(name, name)}" for name in of_ports)
            yield (
                f"{named} cannot be changed while the gateway serves gRPC with grpc_server: grpcio, whose "
                "port cannot be handed on; restart it for that, or set grpc_server: gatewayd"
            )
    yield from _taken_ports(old, changes)


def _taken_ports(old: FlowConfig, changes: Changes) -> Iterator[str]:
    """Ports and sockets of executors at which a process that ends later still listens."""
    were = {each.name: each for each in started_of(old.deployments)}
    taken = {place for each in changes.ends for place in _places_of(were[each.deployment], each)}
    refused = [
        (start.deployment.name, place)
        for start in changes.starts
        for each in start.replicas
        for place in _places_of(start.deployment, each)
        if place in taken
    ]
    refused += [
        (name, place)
        for name, group in changes.rolled.items()
        for each in group
        for place in _places_of(were[name], each)
    ]
    for name, place in sorted(set(refused)):
        yield (
            f"executors.{name}: its new process cannot listen at {place} beside the old one; leave host, "
            "port and port_monitoring out, so that each process finds a place of its own, or restart the "
            "gateway"
        )


def not_up(replicas: Iterable[ReplicaId]) -> ConfigError:
    """These had started, and cannot be called now that they are to be."""
    return ConfigError(
        "\n".join(
            f"executors.{each.deployment}: the new process of replica {each.replica} had started, and cannot "
            "be called any more; the log says why if it has ended"
            for each in sorted(replicas, key=attrs.astuple)
        )
    )


def missing(
    old: FlowConfig, now: Mapping[tuple[str, int], int], new: FlowConfig, then: Mapping[tuple[str, int], int]
) -> tuple[str, ...]:
    """
    The executors of both Flows that what serves is connected to ``now``, and what is to serve is not yet.

    ``now`` and ``then`` are how many replicas are connected, by Deployment and shard.
    """
    were = {each.name: _called_as(each) for each in old.deployments}
    same = {each.name for each in new.deployments if were.get(each.name) == _called_as(each)}
    return tuple(
        sorted({key[0] for key, count in then.items() if not count and now.get(key) and key[0] in same})
    )


def not_connected(names: Iterable[str], limit_s: float) -> str:
    """Why what is to serve does not: its executors cannot be reached."""
    return (
        f"no new connection to {', '.join(names)} could be made within {limit_s:g} s, though there are "
        "connections that serve; reload again when the machine and the executors have less to do"
    )


def _called_as(deployment: DeploymentConfig) -> tuple[object, ...]:
    return deployment.executor, deployment.shards, deployment.external, deployment.addresses


def fixed_place(flow: FlowConfig, replica: ReplicaId) -> str | None:
    """Where a replica has to listen, so that it cannot have a second process; None if it can."""
    deployment = next(each for each in started_of(flow.deployments) if each.name == replica.deployment)
    return next(_places_of(deployment, replica), None)


def _places_of(deployment: DeploymentConfig, replica: ReplicaId) -> Iterator[str]:
    """Where a replica listens as far as the Flow says it; elsewhere it is any free place."""
    spec = ExecutorSpec.of(deployment, replica.shard, replica.replica, ".")
    if spec.socket is not None:
        yield f"unix:{spec.socket}"
    elif spec.port:
        yield f"{spec.host}:{spec.port}"
    if spec.monitoring_port:
        yield f"port {spec.monitoring_port}"
