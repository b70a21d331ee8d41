"""
The master of a gateway with several workers: it owns their sockets, and starts, replaces and stops them.

    start() ── all listen ──> serve() ── all serve ──> replace() ... ── stop() ──> all have drained

No request passes through here. Each worker is told what serves now when it starts, and each change after that
(``worker_processes.py``). One that ends is started again, and loses what it had; connections that wait to be
accepted stay with the sockets. Reactor thread only.
"""

from __future__ import annotations

import os
import random
import socket
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.logger import Logger

from gatewayd.backoff import Backoff
from gatewayd.bridge import Offloading
from gatewayd.config import FlowConfig
from gatewayd.errors import ConfigError, Draining
from gatewayd.health import Health, Phase, parts_of
from gatewayd.offload import Offload
from gatewayd.pool.replica_set import ReplicaGone
from gatewayd.protocols.binding import bound_sockets
from gatewayd.protocols.port import PortReport
from gatewayd.service import worker_messages as messages
from gatewayd.service.announcing import announce, announce_ready
from gatewayd.service.changes import Changes, not_up
from gatewayd.service.executors import Executors
from gatewayd.service.reserved import Reserved, reserve
from gatewayd.service.strangers import warning_for
from gatewayd.service.worker_figures import WorkerFigures
from gatewayd.service.worker_processes import (
    BACKOFF,
    NotReplaced,
    Served,
    Worker,
    WorkerProcesses,
    WorkerStatus,
    close_all,
)
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.supervisor.scaling import Load, PartKey
from gatewayd.telemetry.failures import FailedRequest, last_of
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading
from gatewayd.waiters import Waiters

log = Logger()


class Workers:
    """
    A gateway as its workers serve it, with the interface of ``GatewayServer``.

    ``on_listening(ports, whether strangers can use it)`` is called once, when all listen, and ``on_failed``
    with why a worker cannot serve, before all of them have. ``sockets`` are those that the process inherits,
    for each listener; for one that has none, one is bound. ``dice`` is called once for each restart.
    ``replicas`` are as GatewayServer's. ``offload`` is that of threads of its own, unless it is given.
    ``out_of_reach`` is told of a replica to which a worker has lost its connection, or cannot make one.
    """

    def __init__(
        self,
        flow: FlowConfig,
        reactor: Any,
        executors: Executors,
        *,
        replicas: Collection[ReplicaId] | None = None,
        warns_of_strangers: bool = True,
        on_listening: Callable[[Sequence[int], bool], None] = lambda ports, is_open: None,
        on_failed: Callable[[ConfigError], None] = lambda error: None,
        sockets: Sequence[Sequence[socket.socket]] = (),
        environment: Mapping[str, str] = os.environ,
        backoff: Backoff = BACKOFF,
        dice: Callable[[], float] = random.random,
        kill_group: Callable[[int, int], None] = os.killpg,
        offload: Offload | None = None,
        out_of_reach: Callable[[ReplicaId], None] = lambda replica: None,
    ) -> None:
        self._flow = flow
        self._processes = WorkerProcesses(
            Served.of(flow, [], replicas),
            reactor,
            self,
            environment=environment,
            backoff=backoff,
            dice=dice,
            kill_group=kill_group,
        )
        self._reactor = reactor
        self._executors = executors
        self._warns_of_strangers = warns_of_strangers
        self._on_listening = on_listening
        self._on_failed = on_failed
        self._given = sockets
        self._ports: tuple[PortReport, ...] = ()
        self._has_served = False
        self._has_failed = False
        self._replacing = False
        self._serving: Waiters[None] = Waiters()
        self._tell_out_of_reach = out_of_reach
        self._offloading = Offloading(reactor)
        self._offload = self._offloading.offload if offload is None else offload
        self._figures = WorkerFigures(reactor, self._offload, lambda: self._processes.everyone)
        self._given_up: dict[ReplicaId, _GivenUp] = {}
        self.needed: Callable[[], None] = lambda: None  # nothing rests

    @property
    def flow(self) -> FlowConfig:
        """What serves now."""
        return self._flow

    @property
    def changeable(self) -> Workers:
        """What a reload changes."""
        return self

    def states(self) -> tuple[WorkerStatus, ...]:
        """The workers that are to serve, the one that has done so for the longest time first."""
        return tuple(worker.status for worker in self._processes.workers)

    def under_way(self) -> int | None:
        """The workers know."""
        return None

    @property
    def health(self) -> Health:
        """How the service is now: a replica is connected if some worker that serves is connected to it."""
        connected: dict[tuple[str, int], int] = {}
        why: dict[tuple[str, int], str] = {}
        for worker in self._processes.workers:
            for part in worker.connected if worker.serves() else ():
                key = (part.deployment, part.shard)
                if part.why:
                    why[key] = part.why
                connected[key] = max(connected.get(key, 0), part.connected)
        phase: Phase = "serving" if self._has_served else "starting"
        if self._processes.stopping:
            phase = "draining" if self._flow.gateway.drain_delay_s and self._has_served else "stopping"
        optional = [each.name for each in self._flow.deployments if each.floating and not each.collected]
        return Health(
            phase,
            self._has_served,
            parts_of(connected, optional, why),
            (sum(map(Worker.serves, self._processes.workers)), len(self._processes.workers)),
        )

    @property
    def offload(self) -> Offload:
        """Runs pure functions in a pool thread."""
        return self._offload

    @property
    def processes(self) -> Mapping[str, int]:
        """The master and its workers, by the names that their figures have."""
        running = {worker.name: worker.process.pid for worker in self._processes.everyone}
        return {"master": os.getpid(), **{name: pid for name, pid in running.items() if pid is not None}}

    @property
    def failures(self) -> tuple[FailedRequest, ...]:
        """The requests that failed last, as far as the workers have told."""
        return last_of(worker.failures for worker in self._processes.everyone)

    def read(self) -> Deferred[Reading]:
        """The figures of all workers now. One that doesn't answer soon has the counts that it told last."""
        return self._figures.read().addCallback(self._with_processes)

    def _with_processes(self, whole: Reading) -> Reading:
        for worker in self._processes.workers:
            whole.set(table.WORKER_SERVES, worker.serves(), worker.name)
            whole.set(table.WORKER_RESTARTS, worker.process.restarts, worker.name)
        return whole

    def start(self) -> None:
        """
        Bind, and start the workers, without waiting for them.

        Raises ConfigError; then nothing is bound.
        """
        for warning in self._flow.warnings:
            log.warn("{warning}", warning=warning)
        gateway = self._flow.gateway
        try:
            for index, listener in enumerate(gateway.listeners):
                given = self._given[index] if self._given else ()
                self._processes.served.sockets.append(list(given) or bound_sockets(gateway.host, listener))
        except ConfigError:
            self._processes.close_sockets()
            raise
        self._processes.start(gateway.workers)

    def replica_up(self, replica: ReplicaId, address: str) -> None:
        """A replica's process serves at ``address``."""
        self._processes.addresses[replica] = address
        self._processes.tell_of(replica, messages.ReplicaUp(messages.ReplicaAddress.of(replica, address)))

    def replica_down(self, replica: ReplicaId) -> None:
        """A replica's process has ended, or is about to."""
        self._processes.addresses.pop(replica, None)
        self._processes.tell_of(replica, messages.ReplicaDown(*attrs.astuple(replica)))

    async def serve(self) -> bool:
        """
        Every executor has served once: have all workers finish their start.

        Returns whether they serve. Raises Draining if it is stopped meanwhile.
        """
        if self._processes.stopping:
            return False
        self._processes.executors_ready = True
        self._processes.tell(messages.ExecutorsReady())
        if not self._processes.every(Worker.serves):
            await self._serving.wait()
        self._has_served = True
        announce_ready(self._ports)
        return True

    async def replace_all(self) -> None:
        """
        Replace the workers one after the other: each new one serves before an old one drains.

        Does nothing while that happens already, or before the start is over. Raises NotReplaced; all that
        serve then go on.
        """
        if self._replacing or self._processes.stopping or not self._has_served:
            log.warn("the workers cannot be replaced now: they are being started, replaced or stopped")
            return
        self._replacing = True
        try:
            for old in tuple(self._processes.workers):
                await self._processes.replace(old)
        finally:
            self._replacing = False
        if not self._processes.stopping:
            log.info("all workers are replaced")

    # -- changes ---------------------------------------------------------------------------------------

    def reserve(self, flow: FlowConfig, changes: Changes) -> Deferred[Reserved]:
        """Bind what ``flow`` listens at besides what is bound already. Fails with PortTaken."""
        return self._offload(reserve, flow.gateway, changes.sources)

    async def change(
        self, flow: FlowConfig, changes: Changes, generation: int, reserved: Reserved
    ) -> Deferred[None]:
        """
        Replace the workers by others that serve ``flow``, one after the other; its replicas serve already.

        Until the last one is replaced, both Flows serve. What is returned has fired. Raises ConfigError; then
        no worker serves ``flow`` any more. Raises Draining if the service is stopped meanwhile.
        """
        if self._replacing:
            raise ConfigError("the workers are just being replaced (SIGUSR2); reload when that is over")
        self._check_up(changes.started)
        if not (changes.graph or changes.settings):
            self._flow = flow
            return succeed(None)
        before = self._processes.served
        sockets = [
            reserved.take(index) if source is None else before.sockets[source]
            for index, source in enumerate(changes.sources)
        ]
        after = self._processes.served = Served.of(flow, sockets, changes.replicas)
        self._replacing = True
        set_before = self._processes.log_levels
        if _log_levels_of(flow) != _log_levels_of(self._flow):
            self._processes.log_levels = {}  # the new settings hold for all
        try:
            await self._replace_each(before, after, changes.started)
        except BaseException:
            self._processes.served, self._processes.log_levels = before, set_before
            close_all(after.sockets, before.sockets)
            raise
        finally:
            self._replacing = False
        self._flow = flow
        close_all(before.sockets, after.sockets)
        announce(self._ports[index] for index, source in enumerate(changes.sources) if source is None)
        return succeed(None)

    def _check_up(self, replicas: Collection[ReplicaId]) -> None:
        """Raises ConfigError if a process of theirs has ended."""
        if gone := [each for each in replicas if each not in self._processes.addresses]:
            raise not_up(gone)

    async def _replace_each(self, before: Served, after: Served, started: Collection[ReplicaId]) -> None:
        try:
            for old in tuple(self._processes.workers):
                await self._processes.replace(old)
                self._check_up(started)
        except (NotReplaced, ConfigError) as error:
            # Those that serve the new graph already give way again.
            self._processes.served = before
            problems = [str(error)]
            for new in tuple(self._processes.workers):
                if new.served is after:
                    problems += await self._processes.replace_back(new)
            raise ConfigError("\n".join(problems)) from error
        if self._processes.stopping:
            raise Draining

    @property
    def addresses(self) -> Mapping[ReplicaId, str]:
        """Where the replicas serve that are up."""
        return self._processes.addresses

    def loads(self, parts: Collection[PartKey]) -> Mapping[PartKey, Load]:
        """What all workers together have under way at ``parts``, as they told last."""
        found: dict[PartKey, Load] = {}
        for worker in self._processes.everyone:
            for each in worker.loaded.parts:
                key = each.deployment, each.shard
                if key in parts:
                    found[key] = found.get(key, Load()) + Load(each.in_flight, each.queued)
        return found

    def in_flight(self) -> Mapping[ReplicaId, int]:
        """What all workers together have under way at each replica, as they told last."""
        found: Counter[ReplicaId] = Counter()
        for worker in self._processes.everyone:
            for each in worker.loaded.replicas:
                found[each.id] += each.in_flight
        return found

    def rest(self, deployment: str, shard: int, rests: bool) -> None:
        """With workers one replica is wanted at least: the config refuses ``min: 0``."""

    def admit(self, replica: ReplicaId, old: ReplicaId | None = None) -> None:
        """Have the workers call ``replica``, too, when it is up."""
        if self._processes.served.replicas is not None:
            self._processes.served.replicas.add(replica)

    def known(self, replica: ReplicaId) -> Deferred[None]:
        """Nothing is waited for here: a worker gives up no replica before it knows the others."""
        return succeed(None) if replica in self._processes.addresses else fail(ReplicaGone())

    def give_up(self, replica: ReplicaId) -> Deferred[None]:
        """Have the workers call ``replica`` no more. Fires when what it has is answered."""
        if self._processes.served.replicas is not None:
            self._processes.served.replicas.discard(replica)
        if replica not in self._processes.addresses:
            return succeed(None)
        # One that is started again meanwhile hears of the others alone.
        running = {worker for worker in self._processes.everyone if worker.process.runs}
        if not running:
            return succeed(None)
        self._processes.tell(messages.GiveUp(*attrs.astuple(replica)))
        giving = self._given_up[replica] = _GivenUp(running)
        return giving.done.wait()

    def out_of_reach(self, replica: ReplicaId) -> None:
        """Whoever has placed it may know more."""
        self._tell_out_of_reach(replica)

    def gave_up(self, worker: Worker, replica: ReplicaId | None) -> None:
        """The worker's calls of ``replica`` have ended; None is for all replicas, as it has ended itself."""
        for each, giving in tuple(self._given_up.items()):
            if replica in (None, each):
                giving.workers.discard(worker)
                if not giving.workers:
                    del self._given_up[each]
                    giving.done.fire(None)

    # -- the end ---------------------------------------------------------------------------------------

    def retire(self) -> None:
        """Another service accepts from the same sockets: have clients leave, and serve on until ``stop``."""
        self._processes.stopping = True
        self._processes.close_sockets()
        for worker in self._processes.everyone:
            # One that ends from now on is not started again: its sockets are no longer ours to hand on.
            if not worker.retire():
                worker.process.stop(0.0)

    def reopen_logs(self) -> None:
        """Have the workers open the files anew that they write by themselves."""
        self._processes.tell(messages.ReopenLogs())

    def set_log_level(self, level: str, namespace: str) -> None:
        """Log what is at least of this level from now on, in all workers."""
        self._processes.log_levels[namespace] = level
        self._processes.tell(messages.SetLogLevel(level, namespace))

    async def stop(self) -> None:
        """Returns when everything has ended: the workers after what they had, then the executors."""
        began = self._reactor.seconds()
        self._processes.stopping = True
        self._processes.close_sockets()
        self._serving.fail(Draining())
        everyone = self._processes.everyone
        self._processes.give_up_beginning()
        await gatherResults([worker.process.stop(worker.patience_s) for worker in everyone])
        left_s = max(1.0, self._flow.gateway.grace_period_s - (self._reactor.seconds() - began))
        await self._executors.stop(left_s)
        self._processes.close_crowd()
        self._offloading.stop()
        log.info("stopped")

    # -- called by the workers -------------------------------------------------------------------------

    def listens(self, ports: tuple[PortReport, ...]) -> None:
        """One more worker listens."""
        if self._ports:
            self._ports = ports
        if self._ports or not self._processes.every(Worker.listens):
            return
        self._ports = ports
        announce(ports)
        gateway = self._flow.gateway
        warning = warning_for(gateway, identifies=gateway.auth is not None)
        if warning is not None and self._warns_of_strangers:
            log.warn("{warning}", warning=warning)
        self._on_listening([port.port for port in ports], warning is not None)

    def serves(self) -> None:
        """One more worker serves."""
        if self._processes.every(Worker.serves):
            self._serving.fire(None)

    def measured(self, worker: Worker, number: int, figures: str) -> None:
        """The figures of one worker."""
        self._figures.told(worker, number, figures)

    def lost(self, worker: Worker) -> None:
        """A worker has ended, or is about to."""
        self._figures.lost(worker)

    def failed(self, error: str) -> None:
        """A worker cannot serve; before all have, that is a mistake of the Flow's, or of the machine's."""
        if not (self._has_served or self._has_failed or self._processes.stopping):
            self._has_failed = True
            self._on_failed(ConfigError(error))


@attrs.define(eq=False)
class _GivenUp:
    """A replica that is called no more, and the workers that may have calls of it."""

    workers: set[Worker]
    done: Waiters[None] = attrs.field(factory=Waiters)


def _log_levels_of(flow: FlowConfig) -> tuple[object, object]:
    return flow.gateway.log_level, flow.gateway.log_levels
