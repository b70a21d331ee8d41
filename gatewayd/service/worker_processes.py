"""
The processes of a gateway's workers: made, told of changes, and replaced one after the other.

    new ── serves, is connected as the old one is ──> takes its place ──> the old one retires, drains, ends

Each worker is told what serves now (``Served``) when it starts, and each change after that. What their
processes report goes to the ``Master``. Reactor thread only.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger

from gatewayd import __version__
from gatewayd.backoff import Backoff
from gatewayd.config import FlowConfig
from gatewayd.config.shares import of_slot, share_of
from gatewayd.crowd import Crowd, shared_memory
from gatewayd.executor.by_value import own_path
from gatewayd.protocols.port import LAST_WORDS_S, PortReport
from gatewayd.service import worker_messages as messages
from gatewayd.service.changes import missing, not_connected
from gatewayd.service.repeating import repeat
from gatewayd.status import OWN_IDENTITY
from gatewayd.supervisor.process import ProcessState, SupervisedProcess
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.telemetry.failures import FailedRequest
from gatewayd.waiters import Waiters

# Under the name of the part that users know.
log = Logger("gatewayd.service.workers")

# Of restarts. The first of a series is quick: clients wait in the backlog meanwhile.
BACKOFF: Final = Backoff(first_s=0.02, ceiling_s=15.0, low=0.8, high=1.2)
_READY_LIMIT_S: Final = 60.0
# After the grace periods, for connections to be closed and threads to end.
_PATIENCE_S: Final = 10.0
# How long a worker that was replaced serves on: an HTTP client that is silent for longer finds its connection
# closed. By feel.
_RETIRING_S: Final = 2.0
# What one that serves waits for connections as the one that it is to replace has them, by feel.
_CONNECTION_LIMIT_S: Final = 15.0
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
class Served:
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
    ) -> Served:
        own = attrs.evolve(flow, gateway=share_of(flow.gateway), warnings=())
        return cls(own, sockets, None if replicas is None else set(replicas))

    def calls(self, replica: ReplicaId) -> bool:
        return self.replicas is None or replica in self.replicas


class Master(Protocol):
    """Who is told what the workers report."""

    def listens(self, ports: tuple[PortReport, ...]) -> None:
        """One more worker listens."""
        ...

    def serves(self) -> None:
        """One more worker serves."""
        ...

    def measured(self, worker: Worker, number: int, figures: str) -> None:
        """The figures of one worker."""
        ...

    def out_of_reach(self, replica: ReplicaId) -> None:
        """A worker has lost its connection to ``replica``, or cannot make one."""

    def gave_up(self, worker: Worker, replica: ReplicaId | None) -> None:
        """The worker's calls of ``replica`` have ended; None is for all replicas, as it has ended itself."""
        ...

    def lost(self, worker: Worker) -> None:
        """A worker has ended, or is about to."""
        ...

    def failed(self, error: str) -> None:
        """A worker cannot serve."""
        ...


class WorkerProcesses:
    """
    The workers of a service that serves ``served``.

    ``workers`` are those that are to serve, ``beginning`` is one that is to replace another, and ``retiring``
    one that was replaced. ``dice`` is called once for each restart.
    """

    def __init__(
        self,
        served: Served,
        reactor: Any,
        master: Master,
        *,
        environment: Mapping[str, str],
        backoff: Backoff = BACKOFF,
        dice: Callable[[], float] = random.random,
        kill_group: Callable[[int, int], None] = os.killpg,
    ) -> None:
        self.served = served  # by workers which start now
        self.addresses: dict[ReplicaId, str] = {}
        self.executors_ready = False
        self.log_levels: dict[str, str] = {}  # those that were set since the start
        self.workers: list[Worker] = []
        self.beginning: Worker | None = None
        self.retiring: Worker | None = None
        self.connections: Waiters[None] = Waiters()  # fired when those of a worker have changed
        self.stopping = False
        self._reactor = reactor
        self._master = master
        self._environment = {**environment, "PYTHONPATH": os.pathsep.join(own_path())}
        self._backoff = backoff
        self._dice = dice
        self._kill_group = kill_group
        self._count = 0
        self._shared: int | None = None  # the descriptor of the crowd's memory
        self._crowd: Crowd | None = None

    @property
    def everyone(self) -> list[Worker]:
        """All that there are."""
        others = (self.beginning, self.retiring)
        return [*self.workers, *(each for each in others if each is not None)]

    def every(self, are: Callable[[Worker], bool]) -> bool:
        """Whether that is so of all that are to serve."""
        return all(map(are, self.workers))

    def start(self, count: int) -> None:
        """Start so many."""
        # Without the shared counts, connections are spread less evenly.
        with contextlib.suppress(AttributeError, OSError):
            self._shared = shared_memory(count + 1)
            self._crowd = Crowd(self._shared)
        for _ in range(count):
            self.workers.append(self._new())
        for worker in self.workers:
            worker.process.start()

    def lost(self, worker: Worker) -> None:
        """Its process has ended, or is about to."""
        if self._crowd is not None:
            self._crowd.leave(worker.slot)
        self.connections.fire(None)
        self.tell_whole()

    # -- told ------------------------------------------------------------------------------------------

    def tell(self, message: messages.ToWorker) -> None:
        """Tell all."""
        line = messages.to_line(message)
        for worker in self.everyone:
            worker.process.write_line(line)

    def tell_of(self, replica: ReplicaId, message: messages.ToWorker) -> None:
        """Tell those that call ``replica``."""
        line = messages.to_line(message)
        for worker in self.everyone:
            if worker.served.calls(replica):
                worker.process.write_line(line)

    def tell_whole(self) -> None:
        """How many there are, and how many serve."""
        serving = sum(map(Worker.serves, self.workers))
        self.tell(messages.WholeService(len(self.workers), serving))

    # -- replaced --------------------------------------------------------------------------------------

    async def replace(self, old: Worker) -> None:
        """
        Start another in the place of ``old``, which drains when the other serves.

        Raises NotReplaced; then ``old`` stays. Does nothing when the service stops.
        """
        if self.stopping:
            return
        new = self.beginning = self._new()
        log.info("{new} is to replace {old}", new=new.name, old=old.name)
        serving = new.first_serving.wait()
        new.process.start()
        try:
            await serving
            await self._reach_as_much(new, old)
        except (NotReplaced, CancelledError):
            await new.process.stop(0.0)
            self._master.gave_up(new, None)  # it may have been told before it listened
            raise
        finally:
            self.beginning = None
        self.workers[self.workers.index(old)] = new
        self.retiring = old
        self.tell_whole()
        if old.retire():
            over: Deferred[None] = Deferred()
            self._reactor.callLater(_RETIRING_S, over.callback, None)
            await over
        await old.process.stop(old.patience_s)
        self.retiring = None

    async def _reach_as_much(self, new: Worker, old: Worker) -> None:
        """Wait until ``new`` is connected to what ``old`` is connected to. Raises NotReplaced."""
        clock: Any = self._reactor
        until_s = clock.seconds() + _CONNECTION_LIMIT_S
        while lacking := new.lacks(old):
            try:
                await self.connections.wait().addTimeout(until_s - clock.seconds(), clock)
            except TimeoutError:
                raise NotReplaced(f"{new.name}: {not_connected(lacking, _CONNECTION_LIMIT_S)}") from None
            if self.stopping or not new.serves():
                raise NotReplaced(f"{new.name} has ended")

    async def replace_back(self, new: Worker) -> list[str]:
        """
        Replace one that serves what is given up. Returns what is wrong then.

        It ends in any case: the executors that it calls end, too. Without another that serves, one is tried
        again and again.
        """
        try:
            await self.replace(new)
        except NotReplaced as error:
            if self.stopping:
                return []
            again = self._new()
            self.workers[self.workers.index(new)] = again
            self.retiring = new
            again.process.start()
            new.retire()
            self.tell_whole()
            await new.process.stop(new.patience_s)
            self.retiring = None
            return [
                f"{new.name} has ended, as it served the new Flow, and {again.name} is started until it "
                f"serves the old one: {error}"
            ]
        return []

    def give_up_beginning(self) -> None:
        """The service stops: what is to replace another is not waited for."""
        if self.beginning is not None:
            self.beginning.first_serving.fail(NotReplaced("the service stops"))
            self.connections.fire(None)

    def close_sockets(self) -> None:
        """Ours alone: the workers close theirs when they drain."""
        for served in {self.served, *(worker.served for worker in self.everyone)}:
            close_all(served.sockets)
        self.served.sockets = []

    def close_crowd(self) -> None:
        """Let the shared counts go, when all have ended."""
        if self._crowd is not None and self._shared is not None:
            self._crowd.close()
            os.close(self._shared)
            self._crowd = self._shared = None

    # -- made ------------------------------------------------------------------------------------------

    def _new(self) -> Worker:
        self._count += 1
        taken = {each.slot for each in self.everyone}
        slot = next(number for number in range(self.served.flow.gateway.workers + 1) if number not in taken)
        served = self.served
        worker = Worker(f"worker-{self._count}", slot, served, self, self._master)
        worker.process = SupervisedProcess(
            self._reactor,
            worker.name,
            ["-P", "-m", "gatewayd.service.worker", worker.name],
            lambda: self._first_line(worker.name, slot, served),
            descriptors=self._descriptors(served),
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

    def _first_line(self, name: str, slot: int, served: Served) -> bytes:
        """What a new process of this worker is to know."""
        flow = served.flow
        numbers = iter(self._descriptors(served))
        sockets = tuple(tuple(next(numbers) for _ in listener) for listener in served.sockets)
        return messages.to_line(
            messages.Start(
                version=__version__,
                name=name,
                flow=messages.packed(attrs.evolve(flow, gateway=of_slot(flow.gateway, slot))),
                sockets=sockets,
                replicas=tuple(
                    messages.ReplicaAddress.of(replica, address)
                    for replica, address in self.addresses.items()
                    if served.calls(replica)
                ),
                executors_ready=self.executors_ready,
                crowd=next(numbers, None),
                slot=slot,
                uid=OWN_IDENTITY.uid,
                started=OWN_IDENTITY.started,
                log_levels=self.log_levels,
            )
        )

    def _descriptors(self, served: Served) -> Mapping[int, int]:
        """Those of the sockets, and at last the crowd's: ours by a worker's."""
        ours = [each.fileno() for listener in served.sockets for each in listener]
        if self._shared is not None:
            ours.append(self._shared)
        return dict(enumerate(ours, _FIRST_SOCKET))


class Worker:
    """One worker: its process, which may be started again, and what that has reported."""

    process: SupervisedProcess

    def __init__(
        self, name: str, slot: int, served: Served, processes: WorkerProcesses, master: Master
    ) -> None:
        self.name = name
        self.slot = slot
        self.served = served
        self.first_serving: Waiters[None] = Waiters()
        self._processes = processes
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

    @property
    def patience_s(self) -> float | None:
        """How long it may take to drain, None for no limit."""
        gateway = self.served.flow.gateway
        if gateway.floating_grace_period_s is None:
            return None
        grace_s = max(gateway.grace_period_s, gateway.floating_grace_period_s)
        return gateway.drain_delay_s + grace_s + LAST_WORDS_S + _PATIENCE_S

    def lacks(self, other: Worker) -> tuple[str, ...]:
        """The executors that ``other`` is connected to, and this one is not."""
        now, then = (
            {(part.deployment, part.shard): part.connected for part in each.connected}
            for each in (other, self)
        )
        return missing(other.served.flow, now, self.served.flow, then)

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
                self._processes.tell_whole()
                self._master.listens(ports)
            case messages.Serving():
                self._serves = True
                self.first_serving.fire(None)
                self._processes.tell_whole()
                self._master.serves()
            case messages.Connected(parts):
                self.connected = parts
                self._processes.connections.fire(None)
            case messages.Loaded() as loaded:
                self.loaded = loaded
            case messages.Measured(number, found, failures):
                self.failures = failures
                self._master.measured(self, number, found)
            case messages.OutOfReach() as gone:
                self._master.out_of_reach(gone.id)
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
        self._processes.lost(self)
        self._master.lost(self)

    def failed(self, error: str) -> None:
        """Its process has ended by itself, and is started again after a while."""
        self._master.gave_up(self, None)  # ``down`` has said so only if it had listened
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


def close_all(
    sockets: Iterable[Sequence[socket.socket]], but: Sequence[Sequence[socket.socket]] = ()
) -> None:
    """Close those that are not among the others."""
    for listener in sockets:
        for each in listener if listener not in but else ():
            each.close()
