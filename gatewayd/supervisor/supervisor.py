"""
Runs the executors of a Flow: a process for each replica of each Deployment that is not external.

A replica serves at a socket that only this user can reach, unless the Flow names its host or its port: those
may be meant for other callers as well.

``on_up`` and ``on_down`` pass addresses to the pool; the service waits for ``ready`` and calls ``stop``.
Reactor thread only.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Mapping

import attrs
from twisted.internet.defer import Deferred, gatherResults, succeed

from gatewayd.backoff import Backoff
from gatewayd.config.model import DeploymentConfig
from gatewayd.errors import Draining
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.supervisor.environment import inherited
from gatewayd.supervisor.process import RESTART_BACKOFF, ProcessReactor, ReplicaProcess, ReplicaStatus
from gatewayd.supervisor.sockets import SocketFolder
from gatewayd.waiters import Waiters

Up = Callable[[str, int, int, str], None]
Down = Callable[[str, int, int], None]


class Supervisor:
    """
    Starts, watches, restarts and stops executor processes.

    ``on_up(deployment, shard, replica, address)`` is called whenever a replica starts to serve, and
    ``on_down(deployment, shard, replica)`` when its process has ended. ``on_failed(name, error)`` is called
    for each failed start of a replica that has never served, with its runtime name. Relative paths and
    modules of the Flow start at ``base_dir``. ``log_level`` gives the least level of what the executors of a
    deployment write to the log (a name of Twisted's). ``sockets`` is removed when all have stopped; without
    it every replica gets a port.
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
        environment: Mapping[str, str] = os.environ,
        backoff: Backoff = RESTART_BACKOFF,
        dice: Callable[[], float] = random.random,
        kill_group: Callable[[int, int], None] = os.killpg,
    ) -> None:
        self._sockets = sockets
        self._never_up: set[tuple[str, int, int]] = set()
        self._waiting: Waiters[None] = Waiters()
        self._replicas: list[ReplicaProcess] = []
        for deployment in deployments:
            if deployment.external:
                continue
            for shard in range(deployment.shards):
                for replica in range(deployment.replicas):
                    key = (deployment.name, shard, replica)
                    self._never_up.add(key)
                    spec = ExecutorSpec.of(deployment, shard, replica, base_dir)
                    spec = attrs.evolve(spec, log_level=log_level(deployment.name))
                    if sockets is not None and deployment.host is None and not spec.port:
                        spec = attrs.evolve(spec, socket=sockets.socket_for(deployment.name))
                    self._replicas.append(
                        ReplicaProcess(
                            reactor,
                            spec,
                            environment={
                                **inherited(environment, deployment.executor.env_inherit),
                                **deployment.executor.env,
                            },
                            timeout_ready_s=deployment.timeout_ready_s,
                            backoff=backoff,
                            dice=dice,
                            kill_group=kill_group,
                            on_up=self._when_up(on_up, key),
                            on_down=self._when_down(on_down, key),
                            on_failed=self._when_failed(on_failed, key, spec.runtime_name),
                        )
                    )

    def start(self) -> None:
        """Start every process, without waiting for them."""
        for replica in self._replicas:
            replica.start()

    def ready(self) -> Deferred[None]:
        """
        Fires when every replica has served once. Each call returns a Deferred of its own.

        A replica that cannot start is retried without end, so this may never fire; ``states()`` and the log
        say why. Errbacks with Draining if ``stop`` is called first.
        """
        if not self._never_up:
            return succeed(None)
        return self._waiting.wait()

    def states(self) -> tuple[ReplicaStatus, ...]:
        """The state of every replica, in the order of the Flow."""
        return tuple(replica.status for replica in self._replicas)

    def set_log_levels(self, log_level: Callable[[str], str]) -> None:
        """The least level that the executors of each deployment write from now on."""
        for replica in self._replicas:
            replica.set_log_level(log_level(replica.deployment))

    def stop(self, grace_s: float) -> Deferred[None]:
        """Send SIGTERM to all, and SIGKILL after ``grace_s``. Fires when all have ended."""
        self._waiting.fail(Draining())
        return gatherResults([replica.stop(grace_s) for replica in self._replicas]).addCallback(self._ended)

    def _ended(self, _: object) -> None:
        if self._sockets is not None:
            self._sockets.remove()

    def _when_up(self, on_up: Up, key: tuple[str, int, int]) -> Callable[[str], None]:
        def up(address: str) -> None:
            on_up(*key, address)
            self._never_up.discard(key)
            if not self._never_up:
                self._waiting.fire(None)

        return up

    def _when_down(self, on_down: Down, key: tuple[str, int, int]) -> Callable[[], None]:
        return lambda: on_down(*key)

    def _when_failed(
        self, on_failed: Callable[[str, str], None] | None, key: tuple[str, int, int], name: str
    ) -> Callable[[str], None]:
        def failed(error: str) -> None:
            if on_failed is not None and key in self._never_up:
                on_failed(name, error)

        return failed
