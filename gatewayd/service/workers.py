"""
The master of a gateway with several workers: it owns their sockets, and starts, replaces and stops them.

    start() ── all listen ──> serve() ── all serve ──> replace() ... ── stop() ──> all have drained

No request passes through here. Each worker is told what serves now (``_Graph``) when it starts, and each
change after that. One that ends is started again, and loses what it had; connections that wait to be accepted
stay with the sockets. Reactor thread only.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, succeed
from twisted.logger import Logger

from gatewayd import __version__
from gatewayd.backoff import Backoff
from gatewayd.bridge import Offloading
from gatewayd.config import FlowConfig
from gatewayd.config.shares import of_slot, share_of
from gatewayd.crowd import Crowd, shared_memory
from gatewayd.errors import ConfigError, Draining
from gatewayd.executor.by_value import own_path
from gatewayd.health import Health, Phase, parts_of
from gatewayd.offload import Offload
from gatewayd.pool.replica_set import ReplicaGone
from gatewayd.protocols.binding import bound_sockets
from gatewayd.protocols.port import LAST_WORDS_S, PortReport
from gatewayd.service import worker_messages as messages
from gatewayd.service.announcing import announce, announce_ready
from gatewayd.service.changes import Changes, not_up
from gatewayd.service.executors import Executors
from gatewayd.service.repeating import repeat
from gatewayd.service.reserved import Reserved, reserve
from gatewayd.service.strangers import warning_for
from gatewayd.service.worker_figures import WorkerFigures
from gatewayd.status import OWN_IDENTITY
from gatewayd.supervisor.process import ProcessState, SupervisedProcess
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.supervisor.scaling import Load, PartKey
from gatewayd.telemetry.failures import FailedRequest, last_of
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading
from gatewayd.waiters import Waiters

log = Logger()

# The first of a series is quick: clients wait in the backlog meanwhile.
_BACKOFF: Final = Backoff(first_s=0.02, ceiling_s=15.0, low=0.8, high=1.2)
_READY_LIMIT_S: Final = 60.0
# After the grace periods, for connections to be closed and threads to end.
_PATIENCE_S: Final = 10.0
# How long a worker that was replaced serves on: an HTTP client that is silent for longer finds its connection
# closed. By feel.
_RETIRING_S: Final = 2.0
_FIRST_SOCKET: Final = 4  # the descriptors before it are standard ones and the reports'


class NotReplaced(Exception):
    """A new worker could not start, and the old one stays. ``str(error)`` says why."""


@attrs.frozen
class WorkerStatus:
    """One worker now. ``restarts`` counts those of its name, ``error`` is why its last process ended."""

    name: str
    state: ProcessState
    serves: bool
    pid: int | None
    restarts: int
    error: str | None


@attrs.define(eq=False)
class _Graph:
    """
    What a worker serves: its Flow, with its share of limits, at these sockets, which are ours as well.

    ``replicas`` are those that it calls, None for all.
    """

    flow: FlowConfig
    sockets: list[list[socket.socket]] = attrs.field(factory=list)
    replicas: set[ReplicaId] | None = None

    @classmethod
    def of(
        cls,
        flow: FlowConfig,
        sockets: list[list[socket.socket]],
        replicas: Collection[ReplicaId] | None = None,
    ) -> _Graph:
        own = attrs.evolve(flow, gateway=share_of(flow.gateway), warnings=())
        return cls(own, sockets, None if replicas is None else set(replicas))

    def calls(self, replica: ReplicaId) -> bool:
        return self.replicas is None or replica in self.replicas


class Workers:
    """
    A gateway as its workers serve it, with the interface of ``GatewayServer``.

    ``on_listening(ports, whether strangers can use it)`` is called once, when all listen, and ``on_failed``
    with why a worker cannot serve, before all of them have. ``sockets`` are those that the process inherits,
    for each listener; for one that has none, one is bound. ``dice`` is called once for each restart.
    ``replicas`` are as GatewayServer's. ``offload`` is that of threads of its own, unless it is given.
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
        backoff: Backoff = _BACKOFF,
        dice: Callable[[], float] = random.random,
        kill_group: Callable[[int, int], None] = os.killpg,
        offload: Offload | None = None,
    ) -> None:
        self._flow = flow
        self._graph = _Graph.of(flow, [], replicas)  # that of workers which start now
        self._addresses: dict[ReplicaId, str] = {}
        self._executors_ready = False
        self._reactor = reactor
        self._executors = executors
        self._warns_of_strangers = warns_of_strangers
        self._on_listening = on_listening
        self._on_failed = on_failed
        self._environment = {**environment, "PYTHONPATH": os.pathsep.join(own_path())}
        self._backoff = backoff
        self._dice = dice
        self._kill_group = kill_group
        self._given = sockets
        self._shared: int | None = None  # the descriptor of the crowd's memory
        self._crowd: Crowd | None = None
        self._workers: list[_Worker] = []  # those that are to serve
        self._beginning: _Worker | None = None  # one that is to replace another
        self._retiring: _Worker | None = None  # one that was replaced
        self._count = 0
        self._log_levels: dict[str, str] = {}  # those that were set since the start
        self._ports: tuple[PortReport, ...] = ()
        self._has_served = False
        self._has_failed = False
        self._stopping = False
        self._replacing = False
        self._serving: Waiters[None] = Waiters()
        self._offloading = Offloading(reactor)
        self._offload = self._offloading.offload if offload is None else offload
        self._figures = WorkerFigures(reactor, self._offload, self._everyone)
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
        return tuple(worker.status for worker in self._workers)

    def under_way(self) -> int | None:
        """The workers know."""
        return None

    @property
    def health(self) -> Health:
        """How the service is now: a replica is connected if some worker that serves is connected to it."""
        connected: dict[tuple[str, int], int] = {}
        why: dict[tuple[str, int], str] = {}
        for worker in self._workers:
            for part in worker.connected if worker.serves() else ():
                key = (part.deployment, part.shard)
                if part.why:
                    why[key] = part.why
                connected[key] = max(connected.get(key, 0), part.connected)
        phase: Phase = "serving" if self._has_served else "starting"
        if self._stopping:
            phase = "draining" if self._flow.gateway.drain_delay_s and self._has_served else "stopping"
        optional = [each.name for each in self._flow.deployments if each.floating and not each.collected]
        return Health(
            phase,
            self._has_served,
            parts_of(connected, optional, why),
            (sum(map(_Worker.serves, self._workers)), len(self._workers)),
        )

    @property
    def offload(self) -> Offload:
        """Runs pure functions in a pool thread."""
        return self._offload

    @property
    def processes(self) -> Mapping[str, int]:
        """The master and its workers, by the names that their figures have."""
        running = {worker.name: worker.process.pid for worker in self._everyone()}
        return {"master": os.getpid(), **{name: pid for name, pid in running.items() if pid is not None}}

    @property
    def failures(self) -> tuple[FailedRequest, ...]:
        """The requests that failed last, as far as the workers have told."""
        return last_of(worker.failures for worker in self._everyone())

    def read(self) -> Deferred[Reading]:
        """The figures of all workers now. One that doesn't answer soon has the counts that it told last."""
        return self._figures.read().addCallback(self._with_processes)

    def _with_processes(self, whole: Reading) -> Reading:
        for worker in self._workers:
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
                self._graph.sockets.append(list(given) or bound_sockets(gateway.host, listener))
        except ConfigError:
            self._close_sockets()
            raise
        self._share_counts(gateway.workers + 1)
        for _ in range(gateway.workers):
            self._workers.append(self._new())
        for worker in self._workers:
            worker.process.start()

    def replica_up(self, replica: ReplicaId, address: str) -> None:
        """A replica's process serves at ``address``."""
        self._addresses[replica] = address
        self._tell_of(replica, messages.ReplicaUp(messages.ReplicaAddress.of(replica, address)))

    def replica_down(self, replica: ReplicaId) -> None:
        """A replica's process has ended, or is about to."""
        self._addresses.pop(replica, None)
        self._tell_of(replica, messages.ReplicaDown(*attrs.astuple(replica)))

    async def serve(self) -> bool:
        """
        Every executor has served once: have all workers finish their start.

        Returns whether they serve. Raises Draining if it is stopped meanwhile.
        """
        if self._stopping:
            return False
        self._executors_ready = True
        self._tell(messages.ExecutorsReady())
        if not self._all(_Worker.serves):
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
        if self._replacing or self._stopping or not self._has_served:
            log.warn("the workers cannot be replaced now: they are being started, replaced or stopped")
            return
        self._replacing = True
        try:
            for old in tuple(self._workers):
                await self._replace(old)
        finally:
            self._replacing = False
        if not self._stopping:
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
        before = self._graph
        sockets = [
            reserved.take(index) if source is None else before.sockets[source]
            for index, source in enumerate(changes.sources)
        ]
        after = self._graph = _Graph.of(flow, sockets, changes.replicas)
        self._replacing = True
        set_before = self._log_levels
        if _log_levels_of(flow) != _log_levels_of(self._flow):
            self._log_levels = {}  # the new settings hold for all
        try:
            await self._replace_each(before, after, changes.started)
        except BaseException:
            self._graph, self._log_levels = before, set_before
            _close(after.sockets, before.sockets)
            raise
        finally:
            self._replacing = False
        self._flow = flow
        _close(before.sockets, after.sockets)
        announce(self._ports[index] for index, source in enumerate(changes.sources) if source is None)
        return succeed(None)

    def _check_up(self, replicas: Collection[ReplicaId]) -> None:
        """Raises ConfigError if a process of theirs has ended."""
        if gone := [each for each in replicas if each not in self._addresses]:
            raise not_up(gone)

    async def _replace_each(self, before: _Graph, after: _Graph, started: Collection[ReplicaId]) -> None:
        try:
            for old in tuple(self._workers):
                await self._replace(old)
                self._check_up(started)
        except (NotReplaced, ConfigError) as error:
            # Those that serve the new graph already give way again.
            self._graph = before
            problems = [str(error)]
            for new in tuple(self._workers):
                if new.graph is after:
                    problems += await self._replace_back(new)
            raise ConfigError("\n".join(problems)) from error
        if self._stopping:
            raise Draining

    async def _replace_back(self, new: _Worker) -> list[str]:
        """
        Replace one that serves what is given up. Returns what is wrong then.

        It ends in any case: the executors that it calls end, too. Without another that serves, one is tried
        again and again.
        """
        try:
            await self._replace(new)
        except NotReplaced as error:
            if self._stopping:
                return []
            again = self._new()
            self._workers[self._workers.index(new)] = again
            self._retiring = new
            again.process.start()
            new.retire()
            self._tell_whole()
            await new.process.stop(self._patience_s)
            self._retiring = None
            return [
                f"{new.name} has ended, as it served the new Flow, and {again.name} is started until it "
                f"serves the old one: {error}"
            ]
        return []

    @property
    def addresses(self) -> Mapping[ReplicaId, str]:
        """Where the replicas serve that are up."""
        return self._addresses

    def loads(self, parts: Collection[PartKey]) -> Mapping[PartKey, Load]:
        """What all workers together have under way at ``parts``, as they told last."""
        found: dict[PartKey, Load] = {}
        for worker in self._everyone():
            for each in worker.loaded.parts:
                key = each.deployment, each.shard
                if key in parts:
                    found[key] = found.get(key, Load()) + Load(each.in_flight, each.queued)
        return found

    def in_flight(self) -> Mapping[ReplicaId, int]:
        """What all workers together have under way at each replica, as they told last."""
        found: Counter[ReplicaId] = Counter()
        for worker in self._everyone():
            for each in worker.loaded.replicas:
                found[each.id] += each.in_flight
        return found

    def rest(self, deployment: str, shard: int, rests: bool) -> None:
        """With workers one replica is wanted at least: the config refuses ``min: 0``."""

    def admit(self, replica: ReplicaId, old: ReplicaId | None = None) -> None:
        """Have the workers call ``replica``, too, when it is up."""
        if self._graph.replicas is not None:
            self._graph.replicas.add(replica)

    def known(self, replica: ReplicaId) -> Deferred[None]:
        """Nothing is waited for here: a worker gives up no replica before it knows the others."""
        return succeed(None) if replica in self._addresses else fail(ReplicaGone())

    def give_up(self, replica: ReplicaId) -> Deferred[None]:
        """Have the workers call ``replica`` no more. Fires when what it has is answered."""
        if self._graph.replicas is not None:
            self._graph.replicas.discard(replica)
        if replica not in self._addresses:
            return succeed(None)
        # One that is started again meanwhile hears of the others alone.
        running = {worker for worker in self._everyone() if worker.process.pid is not None}
        if not running:
            return succeed(None)
        self._tell(messages.GiveUp(*attrs.astuple(replica)))
        giving = self._given_up[replica] = _GivenUp(running)
        return giving.done.wait()

    def gave_up(self, worker: _Worker, replica: ReplicaId | None) -> None:
        """The worker's calls of ``replica`` have ended; None is for all replicas, as it has ended itself."""
        for each, giving in tuple(self._given_up.items()):
            if replica in (None, each):
                giving.workers.discard(worker)
                if not giving.workers:
                    del self._given_up[each]
                    giving.done.fire(None)

    # -- the end ---------------------------------------------------------------------------------------

    async def _replace(self, old: _Worker) -> None:
        if self._stopping:
            return
        new = self._beginning = self._new()
        log.info("{new} is to replace {old}", new=new.name, old=old.name)
        serving = new.first_serving.wait()
        new.process.start()
        try:
            await serving
        except (NotReplaced, CancelledError):
            await new.process.stop(0.0)
            raise
        finally:
            self._beginning = None
        self._workers[self._workers.index(old)] = new
        self._retiring = old
        self._tell_whole()
        if old.retire():
            over: Deferred[None] = Deferred()
            self._reactor.callLater(_RETIRING_S, over.callback, None)
            await over
        await old.process.stop(self._patience_s)
        self._retiring = None

    def retire(self) -> None:
        """Another service accepts from the same sockets: have clients leave, and serve on until ``stop``."""
        self._stopping = True
        self._close_sockets()
        for worker in self._everyone():
            # One that ends from now on is not started again: its sockets are no longer ours to hand on.
            if not worker.retire():
                worker.process.stop(0.0)

    def reopen_logs(self) -> None:
        """Have the workers open the files anew that they write by themselves."""
        self._tell(messages.ReopenLogs())

    def set_log_level(self, level: str, namespace: str) -> None:
        """Log what is at least of this level from now on, in all workers."""
        self._log_levels[namespace] = level
        self._tell(messages.SetLogLevel(level, namespace))

    async def stop(self) -> None:
        """Returns when everything has ended: the workers after what they had, then the executors."""
        began = self._reactor.seconds()
        self._stopping = True
        self._close_sockets()
        self._serving.fail(Draining())
        everyone = self._everyone()
        if self._beginning is not None:
            self._beginning.first_serving.fail(NotReplaced("the service stops"))
        await gatherResults([worker.process.stop(self._patience_s) for worker in everyone])
        left_s = max(1.0, self._flow.gateway.grace_period_s - (self._reactor.seconds() - began))
        await self._executors.stop(left_s)
        self._close_crowd()
        self._offloading.stop()
        log.info("stopped")

    # -- called by the workers -------------------------------------------------------------------------

    def listens(self, ports: tuple[PortReport, ...]) -> None:
        """One more worker listens."""
        self._tell_whole()
        if self._ports:
            self._ports = ports
        if self._ports or not self._all(_Worker.listens):
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
        self._tell_whole()
        if self._all(_Worker.serves):
            self._serving.fire(None)

    def measured(self, worker: _Worker, number: int, figures: str) -> None:
        """The figures of one worker."""
        self._figures.told(worker, number, figures)

    def lost(self, worker: _Worker) -> None:
        """A worker has ended, or is about to."""
        if self._crowd is not None:
            self._crowd.leave(worker.slot)
        self._figures.lost(worker)
        self._tell_whole()

    def failed(self, error: str) -> None:
        """A worker cannot serve; before all have, that is a mistake of the Flow's, or of the machine's."""
        if not (self._has_served or self._has_failed or self._stopping):
            self._has_failed = True
            self._on_failed(ConfigError(error))

    def first_line(self, name: str, slot: int, graph: _Graph) -> bytes:
        """What a new process of this worker is to know."""
        flow = graph.flow
        numbers = iter(self._descriptors(graph))
        sockets = tuple(tuple(next(numbers) for _ in listener) for listener in graph.sockets)
        return messages.to_line(
            messages.Start(
                version=__version__,
                name=name,
                flow=messages.packed(attrs.evolve(flow, gateway=of_slot(flow.gateway, slot))),
                sockets=sockets,
                replicas=tuple(
                    messages.ReplicaAddress.of(replica, address)
                    for replica, address in self._addresses.items()
                    if graph.calls(replica)
                ),
                executors_ready=self._executors_ready,
                crowd=next(numbers, None),
                slot=slot,
                uid=OWN_IDENTITY.uid,
                started=OWN_IDENTITY.started,
                log_levels=self._log_levels,
            )
        )

    # -- inside ----------------------------------------------------------------------------------------

    @property
    def _patience_s(self) -> float | None:
        """How long a worker may take to drain, None for no limit."""
        gateway = self._flow.gateway
        if gateway.floating_grace_period_s is None:
            return None
        grace_s = max(gateway.grace_period_s, gateway.floating_grace_period_s)
        return gateway.drain_delay_s + grace_s + LAST_WORDS_S + _PATIENCE_S

    def _new(self) -> _Worker:
        self._count += 1
        taken = {each.slot for each in self._everyone()}
        slot = next(number for number in range(self._flow.gateway.workers + 1) if number not in taken)
        graph = self._graph
        worker = _Worker(f"worker-{self._count}", slot, graph, self)
        worker.process = SupervisedProcess(
            self._reactor,
            worker.name,
            ["-P", "-m", "gatewayd.service.worker", worker.name],
            lambda: self.first_line(worker.name, slot, graph),
            descriptors=self._descriptors(graph),
            environment=self._environment,
            timeout_ready_s=_READY_LIMIT_S,
            backoff=self._backoff,
            dice=self._dice,
            kill_group=self._kill_group,
            on_up=lambda address: None,
            on_down=worker.down,
            on_failed=worker.failed,
            on_report=worker.reported,
        )
        return worker

    def _descriptors(self, graph: _Graph) -> Mapping[int, int]:
        """Those of the sockets, and at last the crowd's: ours by a worker's."""
        ours = [each.fileno() for listener in graph.sockets for each in listener]
        if self._shared is not None:
            ours.append(self._shared)
        return dict(enumerate(ours, _FIRST_SOCKET))

    def _all(self, are: Callable[[_Worker], bool]) -> bool:
        return all(map(are, self._workers))

    def _tell(self, message: messages.ToWorker) -> None:
        line = messages.to_line(message)
        for worker in self._everyone():
            worker.process.write_line(line)

    def _tell_of(self, replica: ReplicaId, message: messages.ToWorker) -> None:
        line = messages.to_line(message)
        for worker in self._everyone():
            if worker.graph.calls(replica):
                worker.process.write_line(line)

    def _everyone(self) -> list[_Worker]:
        others = (self._beginning, self._retiring)
        return [*self._workers, *(each for each in others if each is not None)]

    def _tell_whole(self) -> None:
        serving = sum(map(_Worker.serves, self._workers))
        self._tell(messages.WholeService(len(self._workers), serving))

    def _share_counts(self, slots: int) -> None:
        # Without it, connections are spread less evenly.
        with contextlib.suppress(AttributeError, OSError):
            self._shared = shared_memory(slots)
            self._crowd = Crowd(self._shared)

    def _close_sockets(self) -> None:
        """Ours alone: the workers close theirs when they drain."""
        for graph in {self._graph, *(worker.graph for worker in self._everyone())}:
            _close(graph.sockets)
        self._graph.sockets = []

    def _close_crowd(self) -> None:
        if self._crowd is not None and self._shared is not None:
            self._crowd.close()
            os.close(self._shared)
            self._crowd = self._shared = None


@attrs.define(eq=False)
class _GivenUp:
    """A replica that is called no more, and the workers that may have calls of it."""

    workers: set[_Worker]
    done: Waiters[None] = attrs.field(factory=Waiters)


class _Worker:
    """One worker: its process, which may be started again, and what that has reported."""

    process: SupervisedProcess

    def __init__(self, name: str, slot: int, graph: _Graph, master: Workers) -> None:
        self.name = name
        self.slot = slot
        self.graph = graph
        self.first_serving: Waiters[None] = Waiters()
        self._master = master
        self._has_listened = False
        self._is_retired = False
        self._listens = False
        self._serves = False
        self.connected: tuple[messages.Part, ...] = ()
        self.loaded = messages.Loaded((), ())
        self.figures: str | None = None
        self.failures: tuple[FailedRequest, ...] = ()  # those of a process that has ended, too

    @property
    def status(self) -> WorkerStatus:
        process = self.process
        return WorkerStatus(
            self.name, process.state, self._serves, process.pid, process.restarts, process.error
        )

    def listens(self) -> bool:
        return self._listens

    def serves(self) -> bool:
        return self._serves

    def tell(self, message: messages.ToWorker) -> None:
        self.process.write_line(messages.to_line(message))

    def retire(self) -> bool:
        """Another takes its place, and it is not started again. Returns whether it runs."""
        self._is_retired = True
        self.tell(messages.Retire())
        return self.process.pid is not None

    def reported(self, event: Mapping[str, Any]) -> None:
        """A line of the worker's."""
        match messages.from_event(event):
            case messages.Listening(ports):
                self._listens = self._has_listened = True
                self._master.listens(ports)
            case messages.Serving():
                self._serves = True
                self.first_serving.fire(None)
                self._master.serves()
            case messages.Connected(parts):
                self.connected = parts
            case messages.Loaded() as loaded:
                self.loaded = loaded
            case messages.Measured(number, found, failures):
                self.failures = failures
                self._master.measured(self, number, found)
            case messages.GivenUp() as given_up:
                self._master.gave_up(self, given_up.id)
            case messages.Failed(_, error):
                self._cannot_serve(error)
            case messages.Logged() as logged:
                repeat(self.name, logged)

    def down(self) -> None:
        """Its process has ended."""
        self._listens = self._serves = False
        self.connected = ()
        self.loaded = messages.Loaded((), ())
        self._master.gave_up(self, None)
        self._master.lost(self)

    def failed(self, error: str) -> None:
        """Its process has ended by itself, and is started again after a while."""
        if self._is_retired:
            self.first_serving.fail(NotReplaced(f"{self.name}: {error}"))
            self.process.stop(0.0)
        elif not self._has_listened:
            self._cannot_serve(f"{self.name} cannot start: {error}")
        else:
            self.first_serving.fail(NotReplaced(f"{self.name}: {error}"))

    def _cannot_serve(self, error: str) -> None:
        self.first_serving.fail(NotReplaced(f"{self.name}: {error}"))
        self._master.failed(error)


def _log_levels_of(flow: FlowConfig) -> tuple[object, object]:
    return flow.gateway.log_level, flow.gateway.log_levels


def _close(sockets: Iterable[Sequence[socket.socket]], but: Sequence[Sequence[socket.socket]] = ()) -> None:
    """Close those that are not among the others."""
    for listener in sockets:
        for each in listener if listener not in but else ():
            each.close()
