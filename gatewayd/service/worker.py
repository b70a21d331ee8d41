"""
``python -m gatewayd.service.worker [name]``: one of the workers of a gateway that has several.

It serves clients at sockets that it inherits, and calls executors whose addresses the master sends; the
messages are in ``worker_messages.py``. It drains on SIGTERM. When standard input ends, the master has gone
without a word, and its executors with it: what is under way is refused, and the process ends.

Its log is the master's; the name is shown by ``ps``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd import __version__
from gatewayd.config import FlowConfig
from gatewayd.crowd import Crowd
from gatewayd.errors import ConfigError, Draining
from gatewayd.health import Health
from gatewayd.offload import Offload
from gatewayd.service import worker_messages as messages
from gatewayd.service.gateway import GatewayServer
from gatewayd.service.loaded import keep_what_was_loaded
from gatewayd.service.logs import Reopening
from gatewayd.service.reactor import install_reactor
from gatewayd.service.signals import ReactorStop, StopSignals
from gatewayd.status import ServiceIdentity, status_of
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.supervisor.scaling import pause_s
from gatewayd.telemetry.logs.forms import fields_of, level_of, message_of, namespace_of, traceback_of
from gatewayd.telemetry.logs.from_logging import let_through, take_over
from gatewayd.telemetry.logs.levels import Levels
from gatewayd.telemetry.logs.settings import LogSettings

log = Logger()

REPORT_FD: Final = 3
# What is kept for a master that does not read: it is stopped, or has more to do than it can.
_MOST_UNSENT_BYTES: Final = 1 << 22
# Without the master there are no executors; what waits for them is refused.
_ORPHANED_GRACE_S: Final = 1.0


def main() -> int:
    """Serve until the master stops us. Returns the exit code: 1 if the worker cannot start."""
    os.setpgid(0, 0)  # signals to the master's group are for the master
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals = StopSignals((signal.SIGTERM,))
    signals.install()
    Reopening().install()  # the master has the files
    line, rest = _first_line(0)
    if not line:
        return 0
    start = messages.from_line(line)
    assert isinstance(start, messages.Start), start
    lifeline = _own_descriptors(start)
    install_reactor()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    reports = Reports(reactor, REPORT_FD)
    try:
        return _serve(start, reactor, lifeline, rest, reports, signals)
    finally:
        reports.finish()


def _serve(
    start: messages.Start, reactor: Any, lifeline: int, rest: bytes, reports: Reports, signals: StopSignals
) -> int:
    globalLogBeginner.beginLoggingTo([reports], redirectStandardIO=False)
    if start.version != __version__:
        reports.send(
            messages.Failed(
                "ConfigError",
                f"gatewayd {__version__} is installed, and the service runs {start.version}: restart it",
            )
        )
        return 1
    flow = messages.unpacked(start.flow)
    reports.levels = LogSettings.of(flow.gateway, os.environ).levels()
    for namespace, level in start.log_levels.items():
        reports.levels.set(level, namespace)
    take_over(reports.levels)
    stop = ReactorStop(signals, reactor)
    worker = Worker(flow, start, reactor, reports, stop.stop)
    try:
        worker.start()
    except ConfigError as error:
        reports.send(messages.Failed(type(error).__name__, str(error)))
        return 1
    reactor.addReader(_Lifeline(lifeline, rest, worker))
    reactor.addSystemEventTrigger("before", "shutdown", worker.stop)
    reactor.callWhenRunning(stop.take_back)
    reactor.run()
    return worker.exit_code


def _first_line(descriptor: int) -> tuple[bytes, bytes]:
    """The first line, and what came after it; nothing if there is no whole line."""
    found = b""
    while b"\n" not in found:
        more = os.read(descriptor, 1 << 16)
        if not more:
            return b"", b""
        found += more
    line, _, rest = found.partition(b"\n")
    return line, rest


def _own_descriptors(start: messages.Start) -> int:
    """Keep what we inherit from processes that a gateway class starts. Returns standard input's copy."""
    lifeline, null = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sockets = [each for listener in start.sockets for each in listener]
    for descriptor in (REPORT_FD, *sockets, *([] if start.crowd is None else [start.crowd])):
        os.set_inheritable(descriptor, False)
    os.set_blocking(lifeline, False)
    return lifeline


class Worker:
    """The gateway in a worker, led by the messages of its master. Reactor thread only."""

    def __init__(
        self,
        flow: FlowConfig,
        start: messages.Start,
        reactor: Any,
        reports: Reports,
        end: Callable[[], None],
    ) -> None:
        """``end()`` stops the reactor."""
        self.exit_code = 0
        self._end = end
        self._has_listened = False
        self._is_retired = False
        self._is_stopping = False
        self._start = start
        self._reactor = reactor
        self._reports = reports
        self._whole: messages.WholeService | None = None
        self._grace_s: float | None = None  # the Flow's
        self._identity = ServiceIdentity(start.uid, start.started)
        self._connected: tuple[messages.Part, ...] = ()  # what the master knows of it
        self._loaded = messages.Loaded((), ())  # the same
        self._scaled = [each for each in flow.deployments if each.scaling is not None]
        self._gateway = GatewayServer(
            flow,
            reactor,
            _NoExecutors(),
            announces=False,
            place=None if start.crowd is None else Crowd(start.crowd).place(start.slot),
            sockets=[[socket.socket(fileno=each) for each in listener] for listener in start.sockets],
            status=self._status,
            on_health=self._tell_connected,
            name=start.name,
        )

        self._gateway.changeable.out_of_reach = self._tell_out_of_reach

    def start(self) -> None:
        """
        Listen, or, where executors serve already, connect to them first. Raises ConfigError.

        Meanwhile connections are accepted by the other workers, or wait.
        """
        for each in self._start.replicas:
            self._gateway.replica_up(each.id, each.address)
        if self._start.executors_ready:
            self._reactor.callWhenRunning(self._finish_start)
        else:
            self._listen()

    def _listen(self) -> None:
        self._gateway.start()
        self._has_listened = True
        if self._is_retired:
            self._gateway.retire()
        self._reports.send(messages.Listening(tuple(self._gateway.port_reports)))
        self._reports.send(messages.Ready())

    def received(self, message: object) -> None:
        """The master says so."""
        match message:
            case messages.ReplicaUp(one):
                self._gateway.replica_up(one.id, one.address)
            case messages.GiveUp():
                self._give_up(message)
            case messages.ReplicaDown():
                self._gateway.replica_down(message.id)
            case messages.ExecutorsReady():
                self._finish_start()
            case messages.Retire():
                self._is_retired = True
                self._gateway.retire()
            case messages.ReopenLogs():
                self._gateway.reopen_logs()
            case messages.SetLogLevel(level, namespace):
                self._reports.levels.set(level, namespace)
                let_through(self._reports.levels)
            case messages.WholeService():
                self._whole = message
            case messages.Measure(number):
                self._tell_figures(number, self._gateway.offload)
            case _:
                raise ValueError(f"the master sends {message!r}")

    def abandoned(self) -> None:
        """The master has gone."""
        self._grace_s = _ORPHANED_GRACE_S
        self._end()

    def stop(self) -> Deferred[None]:
        """Let what is under way finish, and tell what was counted until then."""
        self._is_stopping = True
        stopped = Deferred.fromCoroutine(self._gateway.stop(self._grace_s))
        # The threads have ended, and nobody waits for this one.
        return stopped.addCallback(lambda _: self._tell_figures(messages.UNASKED, maybeDeferred))

    def _tell_figures(self, number: int, offload: Offload) -> None:
        def tell(text: str) -> None:
            self._reports.send(messages.Measured(number, text, self._gateway.failures))

        def failed(failure: Failure) -> None:
            # What is cancelled is told at the end.
            if not failure.check(CancelledError):
                log.failure("figures could not be told", failure=failure)

        self._gateway.read().addCallback(lambda reading: offload(reading.as_text)).addCallback(
            tell
        ).addErrback(failed)

    def _give_up(self, message: messages.GiveUp) -> None:
        async def give_up() -> None:
            await self._gateway.changeable.all_known(but=message.id)
            await self._gateway.changeable.give_up(message.id)
            self._reports.send(messages.GivenUp(*attrs.astuple(message)))

        Deferred.fromCoroutine(give_up()).addErrback(
            lambda failure: log.failure("a replica could not be given up", failure=failure)
        )

    def _finish_start(self) -> None:
        async def finish() -> None:
            try:
                if not self._has_listened:
                    await self._gateway.connect()
                    if self._is_stopping:
                        return
                    self._listen()
                serves = await self._gateway.serve()
            except (Draining, CancelledError):
                return
            except ConfigError as error:
                self._reports.send(messages.Failed(type(error).__name__, str(error)))
                self.exit_code = 1
                self._end()
                return
            if serves:
                self._reports.send(messages.Serving())
                keep_what_was_loaded()
                if self._scaled:
                    self._tell_load()

        Deferred.fromCoroutine(finish()).addErrback(
            lambda failure: log.failure("the start failed", failure=failure)
        )

    def _tell_out_of_reach(self, replica: ReplicaId) -> None:
        self._reports.send(messages.OutOfReach(*attrs.astuple(replica)))

    def _tell_load(self) -> None:
        """The master decides how many replicas there are, and knows no request."""
        pause = pause_s(each.scaling for each in self._scaled if each.scaling is not None)
        self._reactor.callLater(pause, self._tell_load)
        serving, scaled = self._gateway.changeable, {each.name for each in self._scaled}
        parts = [(each.name, shard) for each in self._scaled for shard in range(each.shards)]
        loads = serving.loads(parts)
        found = messages.Loaded(
            tuple(messages.PartLoad(*key, load.in_flight, load.queued) for key, load in loads.items()),
            tuple(
                messages.ReplicaLoad(
                    replica.deployment, replica.shard, replica.replica, replica.incarnation, in_flight
                )
                for replica, in_flight in serving.in_flight().items()
                if in_flight and replica.deployment in scaled
            ),
        )
        if found != self._loaded and not self._reports.behind:
            self._loaded = found
            self._reports.send(found)

    def _tell_connected(self, health: Health) -> None:
        found = tuple(
            messages.Part(each.deployment, each.shard, each.connected, each.why) for each in health.parts
        )
        if found != self._connected:
            self._connected = found
            self._reports.send(messages.Connected(found))

    def _status(self) -> Mapping[str, Mapping[str, str]]:
        whole = self._whole
        return status_of(self._identity, None if whole is None else (whole.serving, whole.workers))


class _NoExecutors:
    """The executors are the master's."""

    def stop(self, _grace_s: float) -> Deferred[None]:
        return succeed(None)


@implementer(IReadDescriptor)
class _Lifeline:
    """The messages of the master, until it has gone."""

    def __init__(self, descriptor: int, rest: bytes, worker: Worker) -> None:
        self._descriptor = descriptor
        self._partial = rest
        self._worker = worker
        self._lines(b"")

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> Any:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return None
        if not data:
            return EOFError()  # the reactor forgets us, and calls connectionLost
        self._lines(data)
        return None

    def connectionLost(self, reason: object) -> None:
        self._worker.abandoned()

    def logPrefix(self) -> str:
        return "master"

    def _lines(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._worker.received(messages.from_line(line))


@implementer(IWriteDescriptor, ILogObserver)
class Reports:
    """
    What goes to the master, without waiting for it. Reactor thread only, but for what observes the log.

    What it does not read is kept, up to a limit, above which log events are dropped. Those that ``levels`` do
    not admit are not sent.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._reactor = reactor
        self._descriptor = descriptor
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._is_lost = False
        self.levels = Levels()

    @property
    def behind(self) -> bool:
        """Whether the master has not read all yet: what is only true now can be told later."""
        return bool(self._unsent)

    def send(self, message: messages.FromWorker) -> None:
        """Send a message; nothing happens if the master has gone."""
        if not self._is_lost:
            line = messages.to_line(message)
            self._unsent.append(line)
            self._unsent_bytes += len(line)
            if len(self._unsent) == 1:
                self.doWrite()
            if self._unsent:
                self._reactor.addWriter(self)

    def __call__(self, event: LogEvent) -> None:
        """Observe the log, on any thread."""
        level, namespace = level_of(event), namespace_of(event)
        if not self.levels.admits(namespace, level):
            return
        text, traceback = message_of(event), traceback_of(event)
        if text or traceback:
            logged = messages.Logged(level, namespace, text, traceback, fields_of(event))
            if self._is_here():
                self._log(logged)
            else:
                self._reactor.callFromThread(self._log, logged)

    def _log(self, logged: messages.Logged) -> None:
        if self._unsent_bytes < _MOST_UNSENT_BYTES:
            self.send(logged)

    def _is_here(self) -> bool:
        from twisted.python.threadable import ioThread, isInIOThread

        return ioThread is None or bool(isInIOThread())

    def finish(self) -> None:
        """After the reactor has ended: send what is left, waiting for the master."""
        if not self._is_lost:
            os.set_blocking(self._descriptor, True)
            with contextlib.suppress(BrokenPipeError):
                for data in self._unsent:
                    _write_all(self._descriptor, data)
        self._unsent.clear()

    def fileno(self) -> int:
        return self._descriptor

    def doWrite(self) -> Any:
        while self._unsent:
            data = self._unsent.popleft()
            try:
                sent = os.write(self._descriptor, data)
            except BlockingIOError:
                sent = 0
            except BrokenPipeError as error:
                self.connectionLost(error)
                return error
            self._unsent_bytes -= sent
            if sent < len(data):
                self._unsent.appendleft(data[sent:])
                return None
        self._reactor.removeWriter(self)
        return None

    def connectionLost(self, reason: object) -> None:
        self._is_lost = True
        self._unsent.clear()
        self._unsent_bytes = 0

    def logPrefix(self) -> str:
        return "reports"


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    sys.exit(main())
