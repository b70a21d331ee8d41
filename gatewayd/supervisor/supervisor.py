"""
Runs the executors of a Flow: each replica of each Deployment that is not external, wherever it is placed.

A replica serves at a socket that only this user can reach, unless the Flow names its host or its port: those
may be meant for other callers as well.

``on_up`` and ``on_down`` pass addresses to the pool; the service waits for ``ready`` and calls ``stop``. A
reload adds replicas beside those that run, and ends others (``add``, ``start``, ``end``).
Reactor thread only.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection, Iterable, Mapping

import attrs
from twisted.internet.defer import Deferred, gatherResults, succeed

from gatewayd.backoff import Backoff
from gatewayd.config.model import LOCAL, DeploymentConfig
from gatewayd.errors import Draining
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.supervisor.placement import LocalProcesses, Order, PlacedReplica, Placement
from gatewayd.supervisor.process import RESTART_BACKOFF, ProcessReactor, ReplicaStatus
from gatewayd.supervisor.replica_id import ReplicaId, is_private, replicas_of
from gatewayd.supervisor.sockets import SocketFolder
from gatewayd.waiters import Waiters

Up = Callable[[ReplicaId, str], None]
Down = Callable[[ReplicaId], None]


class NotStarted(Exception):
    """A replica that was to start beside others could not: ``replica`` is its runtime name, ``error`` why."""

    def __init__(self, replica: str, error: str) -> None:
        self.replica = replica
        self.error = error
        super().__init__(f"{replica} cannot start: {error}")


class Supervisor:
    """
    Starts, watches, restarts and stops replicas of executors.

    ``on_up(replica, address)`` is called whenever a replica starts to serve, and ``on_down(replica)`` when
    its process has ended. ``on_failed(name, error)`` is called for each failed start of a replica that has
    never served, with its runtime name. Relative paths and modules of the Flow start at ``base_dir``.
    ``log_level`` gives the least level of what the executors of a deployment write to the log (a name of
    Twisted's). ``sockets`` is removed when all have stopped; without it every replica gets a port.

    ``digest(deployment, base_dir)`` is asked for the executor's code on disk before each process starts, so
    that ``code_of`` can tell later what it runs. Those of ``deployments`` are of ``code``, by their names, at
    first.

    ``placements`` are the engines by the names that Deployments give; without ``local`` among them, replicas
    of that one are processes of this machine.
    """

    def __init__(
        self,
        reactor: ProcessReactor,
        deployments: Iterable[DeploymentConfig],
        on_up: Up,
        on_down: Down,
        *,
        on_failed: Callable[[str, str], None] | None = None,
        base_dir: str = ".",
        sockets: SocketFolder | None = None,
        log_level: Callable[[str], str] = lambda deployment: "info",
        code: Mapping[str, str] = {},
        digest: Callable[[DeploymentConfig, str], Deferred[str]] | None = None,
        environment: Mapping[str, str] = os.environ,
        backoff: Backoff = RESTART_BACKOFF,
        dice: Callable[[], float] = random.random,
        kill_group: Callable[[int, int], None] = os.killpg,
        placements: Mapping[str, Placement] = {},
    ) -> None:
        self.sockets = sockets
        self._log_level = log_level
        self._on_up = on_up
        self._on_down = on_down
        self._on_failed = on_failed
        local = LocalProcesses(reactor, environment, backoff, dice, kill_group)
        self._placements: Mapping[str, Placement] = {LOCAL: local, **placements}
        self._never_up: set[ReplicaId] = set()
        self._waiting: Waiters[None] = Waiters()
        self._starts: list[_Start] = []
        self._stopping = False
        self._replicas: dict[ReplicaId, PlacedReplica] = {}
        self._digest = digest
        self._code: dict[ReplicaId, str] = {}
        for deployment in deployments:
            if not deployment.external:
                self.add(deployment, replicas_of(deployment), base_dir)
        self._code.update({each: code[each.deployment] for each in self._replicas if each.deployment in code})

    def add(self, deployment: DeploymentConfig, replicas: Iterable[ReplicaId], base_dir: str) -> None:
        """Keep processes for ``replicas`` of a ``deployment``, from their start on."""
        for replica in replicas:
            self._never_up.add(replica)
            order = self._order_of(deployment, replica, base_dir)
            self._replicas[replica] = self._placements[deployment.placement].place(order)

    def start(self, replicas: Collection[ReplicaId] | None = None) -> None:
        """Start the processes of ``replicas``, or all, without waiting for them; none after ``stop``."""
        if self._stopping:
            return
        for replica in self._replicas if replicas is None else replicas:
            self._replicas[replica].start(prepared=replica in self._code)

    def code_of(self, replica: ReplicaId) -> str | None:
        """The digest of the code with which its last process started; None if that is not known."""
        return self._code.get(replica)

    def ready(self) -> Deferred[None]:
        """
        Fires when every replica has served once. Each call returns a Deferred of its own.

        A replica that cannot start is retried without end, so this may never fire; ``states()`` and the log
        say why. Errbacks with Draining if ``stop`` is called first.
        """
        if not self._never_up:
            return succeed(None)
        return self._waiting.wait()

    def started(self, replicas: Collection[ReplicaId]) -> Deferred[None]:
        """
        Fires when all ``replicas``, just added, have served once.

        Errbacks with NotStarted as soon as the start of one fails, or with Draining if ``stop`` is called.
        """
        missing = self._never_up.intersection(replicas)
        if not missing:
            return succeed(None)
        start = _Start(missing)
        self._starts.append(start)
        return start.done.wait()

    def states(self) -> tuple[ReplicaStatus, ...]:
        """The state of every replica: those of the Flow in its order, with what a reload added last."""
        return tuple(replica.status for replica in self._replicas.values())

    def serving(self) -> tuple[int, int]:
        """
        How many replicas serve, and how many there are.

        One that has an old and a new process for a while is one, and one that is ended on purpose is none.
        """
        found: dict[tuple[str, int, int], bool] = {}
        for each in self.states():
            if each.state not in ("stopping", "stopped"):
                key = (each.deployment, each.shard, each.replica)
                found[key] = found.get(key, False) or each.state == "ready"
        return sum(found.values()), len(found)

    def end(self, replicas: Iterable[ReplicaId], grace_s: float) -> Deferred[None]:
        """
        Send SIGTERM to ``replicas`` alone, and SIGKILL after ``grace_s``; they are forgotten then.

        Fires when they have ended. Nothing happens to those that are not there.
        """
        ending = []
        for replica in tuple(replicas):
            process = self._replicas.get(replica)
            if process is not None:
                self._never_up.discard(replica)
                ending.append(process.stop(grace_s).addCallback(self._forget, replica))
        self._check_ready()
        return gatherResults(ending).addCallback(lambda _: None)

    def out_of_reach(self, replica: ReplicaId) -> None:
        """The gateway's connection to ``replica`` was lost, or cannot be made: it may be dead."""
        placed = self._replicas.get(replica)
        if placed is not None:
            placed.out_of_reach()

    def set_log_levels(self, log_level: Callable[[str], str]) -> None:
        """The least level that the executors of each deployment write from now on."""
        self._log_level = log_level
        for replica, process in self._replicas.items():
            process.set_log_level(log_level(replica.deployment))

    def stop(self, grace_s: float) -> Deferred[None]:
        """Send SIGTERM to all, and SIGKILL after ``grace_s``. Fires when all have ended."""
        self._stopping = True
        self._waiting.fail(Draining())
        starts, self._starts = self._starts, []
        for start in starts:
            start.done.fail(Draining())
        stopping = [replica.stop(grace_s, leave=True) for replica in self._replicas.values()]
        return gatherResults(stopping).addCallback(self._ended)

    def _order_of(self, deployment: DeploymentConfig, replica: ReplicaId, base_dir: str) -> Order:
        spec = ExecutorSpec.of(deployment, replica.shard, replica.replica, base_dir)
        spec = attrs.evolve(spec, log_level=self._log_level(deployment.name))
        if self.sockets is not None and is_private(deployment) and not spec.port:
            spec = attrs.evolve(spec, socket=self.sockets.socket_for(deployment.name))
        return Order(
            deployment,
            spec,
            on_up=lambda address: self._up(replica, address),
            on_down=lambda: self._on_down(replica),
            on_failed=lambda error: self._failed(replica, spec.runtime_name, error),
            before_start=self._look_at_code(deployment, replica, base_dir),
            code=lambda: self._code.get(replica),
        )

    def _look_at_code(
        self, deployment: DeploymentConfig, replica: ReplicaId, base_dir: str
    ) -> Callable[[], Deferred[None]] | None:
        digest = self._digest
        if digest is None:
            return None

        def found(code: str) -> None:
            self._code[replica] = code

        return lambda: digest(deployment, base_dir).addCallback(found)

    def _ended(self, _: object) -> Deferred[None]:
        if self.sockets is not None:
            self.sockets.remove()
        closing = [placement.close() for placement in self._placements.values()]
        return gatherResults(closing).addCallback(lambda _: None)

    def _forget(self, _: None, replica: ReplicaId) -> None:
        if not self._stopping:
            self._replicas.pop(replica, None)
            self._code.pop(replica, None)

    def _up(self, replica: ReplicaId, address: str) -> None:
        self._on_up(replica, address)
        self._never_up.discard(replica)
        self._check_ready()

    def _check_ready(self) -> None:
        if not self._never_up:
            self._waiting.fire(None)
        for start in tuple(self._starts):
            if not start.missing & self._never_up:
                self._starts.remove(start)
                start.done.fire(None)

    def _failed(self, replica: ReplicaId, name: str, error: str) -> None:
        if replica not in self._never_up:
            return
        if self._on_failed is not None:
            self._on_failed(name, error)
        for start in tuple(self._starts):
            if replica in start.missing:
                self._starts.remove(start)
                start.done.fail(NotStarted(name, error))


@attrs.define(eq=False)
class _Start:
    """Replicas that somebody waits for."""

    missing: set[ReplicaId]
    done: Waiters[None] = attrs.field(factory=Waiters)
