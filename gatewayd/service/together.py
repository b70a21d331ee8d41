"""
Several Flows in one process: what they may not contradict each other in, and what their events are as one.

Each Flow has its own ports, executors, admin site and reloads. The process has one log, one environment and
one main thread of signals: what says something of these has to be the same in all of them, or be left to the
first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from gatewayd.binding import addresses_of
from gatewayd.config import FlowConfig
from gatewayd.config.model import GatewayConfig
from gatewayd.errors import ConfigError
from gatewayd.supervisor.replica_id import started_of

Event = Mapping[str, object]

# What a Flow file says of the process's one log.
_OF_THE_LOG: Final = ("log_level", "log_levels", "log_format")
_DEFAULTS: Final = GatewayConfig()
# Addresses at which every other one of the machine is taken as well.
_ALL_ADDRESSES: Final = frozenset({"0.0.0.0", "::"})


@attrs.frozen
class FlowFile:
    """
    One of the Flows of a process. ``file`` is its name as the user gave it, ``path`` the same from the root
    on; both are empty for one written in Python.

    ``read()`` reads it again for a reload, and raises ConfigError; None if it cannot be read again.
    """

    flow: FlowConfig
    file: str = ""
    path: str = ""
    read: Callable[[], FlowConfig] | None = None


def check_together(flows: Sequence[tuple[str, FlowConfig]]) -> None:
    """
    Raises ConfigError with all that keeps these Flows, each with its file, from sharing a process.

    May look up host names.
    """
    if len(flows) > 1:
        problems = [*_alone(flows), *_contradictions(flows), *_collisions(flows)]
        if problems:
            raise ConfigError("\n".join(problems))


def environment_of(flows: Sequence[FlowConfig]) -> dict[str, str]:
    """What the process's environment gets: the variables of all gateways."""
    return {name: value for flow in flows for name, value in flow.gateway.env.items()}


def _alone(flows: Sequence[tuple[str, FlowConfig]]) -> Iterator[str]:
    """What a Flow can have only in a process that serves nothing else."""
    for file, flow in flows:
        if flow.gateway.workers > 1:
            yield (
                f"{file}: gateway.workers: {flow.gateway.workers}: a master of workers serves one Flow; give "
                "this one a process of its own (another twistd gateway), or set workers: 1"
            )
    classes = [file for file, flow in flows if flow.gateway.custom is not None]
    for file in classes[1:]:
        yield (
            f"{file}: gateway.uses: {classes[0]} has a gateway class already, and modules of the same name "
            "would be one module in one process; give this Flow a process of its own"
        )


def _contradictions(flows: Sequence[tuple[str, FlowConfig]]) -> Iterator[str]:
    (first, leading), *others = flows
    for file, flow in others:
        for name in _OF_THE_LOG:
            said, leads = getattr(flow.gateway, name), getattr(leading.gateway, name)
            if said not in (leads, getattr(_DEFAULTS, name)):
                yield (
                    f"{file}: gateway.{name}: the log is the process's, and its first Flow file, {first}, "
                    f"says of it; leave {name} out here, or say there the same"
                )
    variables: dict[str, tuple[str, str]] = {}
    for file, flow in flows:
        for name, value in flow.gateway.env.items():
            other, said = variables.setdefault(name, (file, value))
            if said != value:
                yield (
                    f"{file}: gateway.env.{name}: {other} gives it another value, and both are served by one "
                    "process, which has one environment; use another name, or give the Flows a process each"
                )


@attrs.frozen
class _Place:
    """Where something of a Flow listens: ``key`` of ``file`` says so."""

    file: str
    key: str
    host: str
    port: int

    def collides(self, other: _Place) -> bool:
        if self.port != other.port:
            return False
        mine, others = set(addresses_of(self.host)), set(addresses_of(other.host))
        return bool(mine & others or (mine | others) & _ALL_ADDRESSES)


def _collisions(flows: Sequence[tuple[str, FlowConfig]]) -> Iterator[str]:
    """Conflicts within one Flow are its own ``conflicts``."""
    taken: dict[int, list[_Place]] = {}
    for file, flow in flows:
        mine = list(_places_of(file, flow))
        for place in mine:
            for other in taken.get(place.port, ()):
                if place.collides(other):
                    yield (
                        f"{file}: {place.key}: {place.host}:{place.port} is {other.key} of {other.file}; "
                        "give one of them another port (0 picks a free one)"
                    )
                    break
        for place in mine:
            taken.setdefault(place.port, []).append(place)


def _places_of(file: str, flow: FlowConfig) -> Iterator[_Place]:
    gateway = flow.gateway
    for listener in gateway.listeners:
        if listener.port:
            yield _Place(file, "gateway.port", gateway.host, listener.port)
    if gateway.admin_port:
        yield _Place(file, "gateway.admin_port", gateway.admin_host, gateway.admin_port)
    if gateway.monitoring and gateway.port_monitoring:
        yield _Place(file, "gateway.port_monitoring", gateway.host, gateway.port_monitoring)
    for each in started_of(flow.deployments):
        for key, ports in (("port", each.ports), ("port_monitoring", each.monitoring_ports)):
            for port in ports:
                if port:
                    yield _Place(file, f"executors.{each.name}.{key}", each.host or "127.0.0.1", port)


class EventsOfAll:
    """
    Makes of the events of several Flows those of one service, as systemd is told of it.

    It listens when all do, is ready when all are, and reloads as long as one does. What came of reloads that
    ran at the same time is said when the last of them has ended, with the files of those that failed.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._files = tuple(files)
        self._ports: dict[int, list[object]] = {}
        self._open = False
        self._ready: set[int] = set()
        self._reloading: set[int] = set()
        self._not_reloaded: list[str] = []

    def of(self, index: int, event: Event) -> Event | None:
        """What ``event`` of the Flow number ``index`` is to the service; None if it is nothing yet."""
        file = self._files[index]
        match event.get("event"):
            case "listening":
                ports = event.get("ports")
                self._ports[index] = ports if isinstance(ports, list) else []
                self._open = self._open or bool(event.get("open"))
                if len(self._ports) < len(self._files):
                    return None
                every = [port for _, ports in sorted(self._ports.items()) for port in ports]
                return {"event": "listening", "ports": every, "open": self._open}
            case "ready":
                self._ready.add(index)
                return event if self.all_ready else None
            case "reloading":
                first = not self._reloading
                self._reloading.add(index)
                return event if first else None
            case "reloaded" | "not_reloaded" as what:
                self._reloading.discard(index)
                if what == "not_reloaded":
                    self._not_reloaded.append(f"{file}: {event.get('error')}")
                if self._reloading:
                    return None
                errors, self._not_reloaded = self._not_reloaded, []
                if errors:
                    return {"event": "not_reloaded", "error": "; ".join(errors)}
                return {**event, "event": "reloaded"}
            case "failed":
                return {**event, "error": f"{file}: {event.get('error')}"}
        return event

    @property
    def all_ready(self) -> bool:
        """Whether every Flow has been ready once."""
        return len(self._ready) == len(self._files)
