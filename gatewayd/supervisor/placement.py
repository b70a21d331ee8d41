"""
Where replicas run: the interface between the supervisor and what starts, watches and stops them.

    Supervisor ── place(order) ──> Placement ── makes ──> PlacedReplica
        ^                                                   │
        └──────── order.on_up, on_down, on_failed ──────────┘

The supervisor keeps a ``PlacedReplica`` for each ``ReplicaId``, whichever engine it runs on; each executor
names its own (``placement``). Executors that are not started here are not placed but watched
(``pool/watching.py``). Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred, succeed

from gatewayd.backoff import Backoff
from gatewayd.config.model import DeploymentConfig
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.supervisor.environment import inherited
from gatewayd.supervisor.process import ProcessReactor, ReplicaProcess, ReplicaStatus


@attrs.frozen
class Order:
    """
    One replica to be placed: what it runs, and who is told of it.

    ``on_up(address)`` and ``on_down()`` are called alternately, ``on_up`` first, and ``on_failed(error)``
    whenever it fails to start or ends by itself; it is started again then. ``before_start()`` is waited for
    before each start, but for a first one that is ``prepared``. ``code()`` is the digest of the code that it
    starts with, None if that is not known.
    """

    deployment: DeploymentConfig
    spec: ExecutorSpec
    on_up: Callable[[str], None]
    on_down: Callable[[], None]
    on_failed: Callable[[str], None]
    before_start: Callable[[], Deferred[None]] | None = None
    code: Callable[[], str | None] = lambda: None


class PlacedReplica(Protocol):
    """One replica, kept running until it is stopped."""

    @property
    def status(self) -> ReplicaStatus:
        """A snapshot."""
        ...

    def start(self, *, prepared: bool = False) -> None:
        """Start it for the first time, without waiting for it."""
        ...

    def stop(self, grace_s: float | None, *, leave: bool = False) -> Deferred[None]:
        """
        End it, and by force after ``grace_s``, None for never. Fires when nothing is left of it.

        With ``leave`` this gateway ends, but nobody has asked for the end of the replica: one that may
        outlive its gateway is only let go.
        """
        ...

    def out_of_reach(self) -> None:
        """The gateway has lost its connection, or can make none. Its engine may find out that it is dead."""
        ...

    def set_log_level(self, level: str) -> None:
        """The least level that its executor writes from now on."""
        ...


class Placement(Protocol):
    """An engine that runs replicas."""

    def place(self, order: Order) -> PlacedReplica:
        """A replica that is not started yet."""
        ...

    def close(self) -> Deferred[None]:
        """Fires when nothing is left of what the engine needed here; all replicas have been stopped."""
        ...


@attrs.frozen
class LocalProcesses:
    """
    Replicas as processes of this machine.

    ``environment`` is that of this process, of which an executor inherits what its Flow says.
    """

    reactor: ProcessReactor
    environment: Mapping[str, str]
    backoff: Backoff
    dice: Callable[[], float]
    kill_group: Callable[[int, int], None]

    def place(self, order: Order) -> ReplicaProcess:
        """Its address is what ``spec`` says: a socket, a port, or a free port."""
        executor = order.deployment.executor
        return ReplicaProcess(
            self.reactor,
            order.spec,
            environment={**inherited(self.environment, executor.env_inherit), **executor.env},
            timeout_ready_s=order.deployment.timeout_ready_s,
            backoff=self.backoff,
            dice=self.dice,
            kill_group=self.kill_group,
            on_up=order.on_up,
            on_down=order.on_down,
            on_failed=order.on_failed,
            before_start=order.before_start,
        )

    def close(self) -> Deferred[None]:
        """Processes leave nothing."""
        return succeed(None)
