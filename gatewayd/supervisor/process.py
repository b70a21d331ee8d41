"""
Keeps a process running: starts it, watches it, and starts it again when it ends. That of a replica, or a
worker's.

              report "ready"
    starting ────────────────> ready
       ^  │ report "failed",     │
       │  │ exit, deadline       │ exit
       │  v                      v
       └─────── waiting <────────┘         stop() from anywhere: stopping, then stopped
          delay

Reactor thread only. The process reports on descriptor 3, first of all that it is ready (see
``executor/__main__.py``); its stdout and stderr go to our log, line by line. It leads a process group, which
ends with it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.backoff import Backoff
from gatewayd.executor.priorities import entry_of
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.supervisor.output import write_entry
from gatewayd.waiters import Waiters

log = Logger()

ProcessState = Literal["starting", "ready", "waiting", "stopping", "stopped"]

STDIN, STDOUT, STDERR, REPORT = 0, 1, 2, 3
_PIPES: Final[Mapping[int, int | str]] = {STDIN: "w", STDOUT: "r", STDERR: "r", REPORT: "r"}
_LAST_LINES: Final = 20
_LINE_LIMIT_BYTES: Final = 64 * 1024
# The limit on logging one process's output, in pieces of 256 bytes. Logging a line takes about 40 us of the
# reactor thread, so this is 4 % of it; without a limit, a process that prints in a loop takes all of it.
_PIECES_PER_S: Final = 1000
_PIECE_BYTES: Final = 256
# How long to wait, after the exit, for output that is still in the pipes, and for the rest of the process
# group to end after SIGTERM. The pipes may stay open: child processes in sessions of their own inherit them.
_LINGER_S: Final = 0.5
# The first restart is quick, because most crashes happen once; a class that never loads is tried four times a
# minute. A process that was ready for ``STABLE_S`` ends a series of failures.
RESTART_BACKOFF: Final = Backoff(first_s=0.1, ceiling_s=15.0, low=0.8, high=1.2)
STABLE_S: Final = 10.0


class DelayedCall(Protocol):
    """The part of Twisted's ``IDelayedCall`` that is used here."""

    def cancel(self) -> None: ...


class ProcessReactor(Protocol):
    """The parts of ``IReactorTime`` and ``IReactorProcess`` that are used here."""

    def seconds(self) -> float: ...
    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Any: ...
    def spawnProcess(
        self,
        processProtocol: Any,
        executable: Any,
        args: Any = ...,
        env: Any = ...,
        *,
        childFDs: Any = ...,
    ) -> Any: ...


@attrs.frozen
class ReplicaStatus:
    """
    The state of one replica. ``error`` is why it does not serve; ``last_words`` are why its last process
    ended or could not start, also when a next one serves.

    ``runtime_name`` is its name in logs and metrics; ``monitoring`` is the ``host:port`` of its metrics, None
    without. ``placement`` is the engine that runs it, and ``node`` the machine, None for this one.
    """

    deployment: str
    shard: int
    replica: int
    state: ProcessState
    address: str | None
    pid: int | None
    restarts: int
    error: str | None
    runtime_name: str = ""
    monitoring: str | None = None
    last_words: str | None = None
    placement: str = "local"
    node: str | None = None


class SupervisedProcess:
    """
    Keeps one process running, which is called ``name``: Python with these ``arguments``.

    ``first_line()`` is written to its standard input, which then stays open. ``descriptors`` maps those that
    it inherits besides to ours. ``on_up(address)`` and ``on_down()`` are called alternately, ``on_up`` first,
    ``on_failed(error)`` whenever the process fails to start or ends by itself, and ``on_report(event)`` for
    each of its reports but ``ready``. ``environment`` is the complete environment of the process. ``dice`` is
    called once for each restart. ``kill_group`` is ``os.killpg``. What it prints (executor/priorities.py)
    goes to ``output`` with these ``fields``. Each process waits for ``before_start()``, but for a first one
    whose start says that it needn't.
    """

    def __init__(
        self,
        reactor: ProcessReactor,
        name: str,
        arguments: Sequence[str],
        first_line: Callable[[], bytes],
        *,
        descriptors: Mapping[int, int] = {},
        environment: Mapping[str, str],
        timeout_ready_s: float,
        backoff: Backoff,
        dice: Callable[[], float],
        kill_group: Callable[[int, int], None],
        on_up: Callable[[str], None],
        on_down: Callable[[], None],
        on_failed: Callable[[str], None],
        on_report: Callable[[Mapping[str, Any]], None] = lambda event: None,
        output: Logger = log,
        before_start: Callable[[], Deferred[None]] | None = None,
        fields: Mapping[str, str] = {},
    ) -> None:
        self.name = name
        self.output = output
        self.fields = fields
        self.state: ProcessState = "stopped"
        self.restarts = 0
        self.error: str | None = None  # why the last process ended or could not start; None while one serves
        self.last_words: str | None = None  # the same, kept
        self._reactor = reactor
        self._arguments = [sys.executable, *arguments]
        self._first_line = first_line
        self._descriptors = {**_PIPES, **descriptors}
        self._environment = dict(environment)
        self._timeout_ready_s = timeout_ready_s
        self._backoff = backoff
        self._dice = dice
        self._kill_group = kill_group
        self._on_up = on_up
        self._on_down = on_down
        self._on_failed = on_failed
        self._on_report = on_report
        self._before_start = before_start
        self._preparing: Deferred[None] | None = None
        self._process: _ProcessEvents | None = None
        self._address: str | None = None
        self.monitoring: str | None = None  # where it serves its metrics now
        self._timer: DelayedCall | None = None  # the deadline, the delay, or the end of the grace
        self._has_exited = False
        self._ready_at_s = 0.0
        self._is_up = False
        self._failures = 0
        self._stopped: Waiters[None] = Waiters()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def runs(self) -> bool:
        """Whether there is a process that has not exited; the output of one that has may still be read."""
        return self._process is not None and not self._has_exited

    @property
    def address(self) -> str | None:
        """Where it serves now, if that is an address of its own."""
        return self._address

    def start(self, *, prepared: bool = False) -> None:
        """Start the process for the first time; at once, if what comes before is done."""
        if prepared:
            self._spawn()
        else:
            self._prepare()

    def write_line(self, line: bytes) -> None:
        """Write to its standard input; nothing happens where none runs."""
        if self._process is not None and not self._has_exited:
            self._process.write_line(line)

    def stop(self, grace_s: float | None) -> Deferred[None]:
        """
        Send SIGTERM, and SIGKILL after ``grace_s``, None for never.

        Fires when the process and its children have ended.
        """
        done = self._stopped.wait()
        if self._process is None:
            self._set_timer(None)
            self._set_stopped()
            if self._preparing is not None:
                self._preparing.cancel()
        elif self.state != "stopping":
            self.state = "stopping"
            self._process.terminate()
            self._set_timer(
                None if grace_s is None else self._reactor.callLater(grace_s, self._kill_after_grace, grace_s)
            )
        return done

    def reported(self, event: Mapping[str, Any]) -> None:
        """The process reports that it serves, why it cannot, or something else."""
        if event.get("event") != "ready":
            if event.get("event") == "failed":
                self.error = str(event.get("error"))
            self._on_report(event)
        elif self.state == "starting" and not self._has_exited:
            self._set_timer(None)
            self.state = "ready"
            self.error = None
            self._ready_at_s = self._reactor.seconds()
            self._is_up = True
            self._address = event.get("address")
            self.monitoring = event.get("monitoring")
            if self._address is not None:
                log.info("{replica} serves at {address}", replica=self.name, address=self._address)
            self._on_up(self._address or "")

    def exited(self) -> None:
        """The process has exited; its last output, even its "ready", may still be in the pipes."""
        self._has_exited = True
        self._set_timer(None)
        self._address = self.monitoring = None
        if self._is_up:
            self._is_up = False
            self._on_down()

    def ended(self, cause: str, last_lines: list[str]) -> None:
        """The process has exited, and all its output has been read."""
        was, self._process = self.state, None
        self._set_timer(None)
        if was == "stopping":
            self._set_stopped()
            return
        if was == "ready" and self._reactor.seconds() - self._ready_at_s >= STABLE_S:
            self._failures = 0
        if was == "ready" or self.error is None:
            self.error = "\n".join([cause, *last_lines])
            last = next((line.strip() for line in reversed(last_lines) if line.strip()), None)
            why = cause if last is None else f"{cause}; its last output: {last}"
        else:
            # What it reported itself ends with the most telling line.
            why = self.error.strip().rpartition("\n")[2] or cause
        self._schedule_restart("ended" if was == "ready" else "could not start", why)

    def _prepare(self) -> None:
        if self._before_start is None:
            self._spawn()
            return
        self.state = "waiting"
        self._preparing = preparing = self._before_start()
        preparing.addBoth(self._prepared)

    def _prepared(self, result: Failure | None) -> None:
        self._preparing = None
        if isinstance(result, Failure):
            if result.check(CancelledError):
                return  # it is being stopped
            log.failure("before the start of {replica}", failure=result, replica=self.name)
        self._spawn()

    def _spawn(self) -> None:
        self.state = "starting"
        self._has_exited = False
        process = _ProcessEvents(self, self._reactor, self._kill_group)
        try:
            # Without path, uid and gid Twisted uses posix_spawn. A fork would copy gRPC's locks, held by
            # threads that do not exist in the copy.
            self._reactor.spawnProcess(
                process,
                sys.executable,
                self._arguments,
                env={"PYTHONUNBUFFERED": "1", **self._environment},
                childFDs=self._descriptors,
            )
        except OSError as error:
            self.error = str(error)
            self._schedule_restart("could not start", f"the process cannot be made: {error}")
            return
        self._process = process
        self.error = None
        log.info("{replica} starts as process {pid}", replica=self.name, pid=process.pid)
        process.write_line(self._first_line())
        self._set_timer(self._reactor.callLater(self._timeout_ready_s, self._not_ready))

    def _schedule_restart(self, what: str, why: str) -> None:
        self._failures += 1
        self.state = "waiting"
        self.last_words = self.error
        delay_s = self._backoff.delay_s(self._failures, self._dice())
        log.error(
            "{replica} {what} ({why}); next start in {delay_s:.1f} s\n{error}",
            replica=self.name,
            what=what,
            why=why,
            delay_s=delay_s,
            error=self.error,
        )
        self._set_timer(self._reactor.callLater(delay_s, self._restart))
        self._on_failed(self.error or why)

    def _restart(self) -> None:
        self._timer = None
        self.restarts += 1
        self._prepare()

    def _not_ready(self) -> None:
        self._timer = None
        self.error = f"not ready {self._timeout_ready_s} s after its start (timeout_ready)"
        if self._process is not None:
            self._process.kill()

    def _kill_after_grace(self, grace_s: float) -> None:
        self._timer = None
        log.warn(
            "{replica} has not stopped within {grace_s} s and is killed",
            replica=self.name,
            grace_s=grace_s,
        )
        if self._process is not None:
            self._process.kill()

    def _set_stopped(self) -> None:
        self.state = "stopped"
        self._stopped.fire(None)

    def _set_timer(self, timer: DelayedCall | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer


class ReplicaProcess(SupervisedProcess):
    """Keeps the executor of one replica running. The keywords are those of ``SupervisedProcess``."""

    def __init__(self, reactor: ProcessReactor, spec: ExecutorSpec, **keywords: Any) -> None:
        # The name is shown by ps.
        arguments = ["-m", "gatewayd.executor", spec.runtime_name]
        output = Logger(namespace=f"executor.{spec.deployment}")
        self._spec = spec
        super().__init__(
            reactor,
            spec.runtime_name,
            arguments,
            lambda: self._spec.to_line(),
            output=output,
            fields={"deployment": spec.deployment},
            **keywords,
        )

    @property
    def deployment(self) -> str:
        return self._spec.deployment

    def stop(self, grace_s: float | None, *, leave: bool = False) -> Deferred[None]:
        """As ``SupervisedProcess.stop``, whether or not this gateway ends: its processes end with it."""
        return super().stop(grace_s)

    def out_of_reach(self) -> None:
        """The end of a process of this machine is told by the system itself."""

    def set_log_level(self, level: str) -> None:
        """The least level that the executor writes from now on, in this process and those after it."""
        self._spec = attrs.evolve(self._spec, log_level=level)
        self.write_line(json.dumps({"log_level": level}).encode() + b"\n")

    @property
    def status(self) -> ReplicaStatus:
        """A snapshot."""
        return ReplicaStatus(
            self._spec.deployment,
            self._spec.shard,
            self._spec.replica,
            self.state,
            self.address,
            self.pid,
            self.restarts,
            self.error,
            self._spec.runtime_name,
            self.monitoring,
            self.last_words,
        )


class _ProcessEvents(ProcessProtocol):
    """Turns Twisted's events of one process into lines, reports and a single end."""

    def __init__(
        self, process: SupervisedProcess, reactor: ProcessReactor, kill_group: Callable[[int, int], None]
    ) -> None:
        self._process = process
        self._reactor = reactor
        self._kill_group = kill_group
        self._group: int | None = None  # its number is the process's own, and outlives it
        self._left_behind = False
        self._partial = {STDOUT: b"", STDERR: b"", REPORT: b""}
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._linger: DelayedCall | None = None
        self._is_over = False
        self._pieces = 0  # logged since the second began
        self._left_out = 0
        self._second: DelayedCall | None = None

    @property
    def pid(self) -> int | None:
        pid: int | None = getattr(self.transport, "pid", None)
        return pid

    def write_line(self, line: bytes) -> None:
        """Write to its standard input, which stays open until this process ends."""
        transport: Any = self.transport
        with contextlib.suppress(KeyError):  # it has closed it, or is about to end
            transport.writeToChild(STDIN, line)

    def terminate(self) -> None:
        """Send SIGTERM to the process alone; stopping its children is up to it."""
        self._signal("TERM")

    def kill(self) -> None:
        """Send SIGKILL to the process and its children."""
        if not self._signal_group(signal.SIGKILL):  # it does not lead its group yet
            self._signal("KILL")

    def _signal(self, name: str) -> None:
        transport: Any = self.transport
        try:
            transport.signalProcess(name)
        except ProcessExitedAlready:
            log.debug("{replica} has already exited", replica=self._process.name)

    def _signal_group(self, number: int) -> bool:
        """Whether there is such a group."""
        if self._group is None:
            return False
        try:
            self._kill_group(self._group, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def connectionMade(self) -> None:
        self._group = self.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._partial[childFD] + data).split(b"\n")
        if len(rest) > _LINE_LIMIT_BYTES and childFD != REPORT:
            lines, rest = [*lines, rest], b""
        self._partial[childFD] = rest
        for line in lines:
            self._line(childFD, line)

    def processExited(self, reason: Failure) -> None:
        self._process.exited()
        self._left_behind = self._signal_group(signal.SIGTERM)
        self._linger = self._reactor.callLater(_LINGER_S, self._lingered, reason)

    def processEnded(self, reason: Failure) -> None:
        if self._linger is not None and not self._left_behind:
            self._linger.cancel()
            self._linger = None
            self._over(reason)

    def _lingered(self, reason: Failure) -> None:
        self._linger = None
        if self._left_behind and self._signal_group(signal.SIGKILL):
            log.warn("{replica} left processes behind; they are killed", replica=self._process.name)
        self._over(reason)
        transport: Any = self.transport
        transport.loseConnection()
        transport.closeChildFD(REPORT)

    def _over(self, reason: Failure) -> None:
        if self._is_over:
            return
        self._is_over = True
        for descriptor, rest in self._partial.items():
            if rest:
                self._line(descriptor, rest)
        if self._second is not None:
            self._second.cancel()
            self._second_over()
        self._process.ended(_cause(reason), list(self._last_lines))

    def _line(self, descriptor: int, line: bytes) -> None:
        if descriptor == REPORT:
            self._process.reported(json.loads(line))
            return
        entry = entry_of(line.decode("utf-8", "replace").rstrip("\r"))
        if descriptor == STDERR:
            self._last_lines.extend(entry.message.split("\n"))
            self._last_lines.extend((entry.traceback or "").splitlines())
        if self._pieces >= _PIECES_PER_S:
            self._left_out += 1
            return
        if self._second is None:
            self._second = self._reactor.callLater(1.0, self._second_over)
        self._pieces += 1 + len(line) // _PIECE_BYTES
        write_entry(self._process.output, self._process.name, entry, self._process.fields)

    def _second_over(self) -> None:
        self._second = None
        self._pieces, left_out, self._left_out = 0, self._left_out, 0
        if left_out:
            log.warn(
                "{replica}: {count} more lines in this second are left out of the log",
                replica=self._process.name,
                count=left_out,
            )


def _cause(reason: Failure) -> str:
    """``exit code 1`` or ``killed by SIGSEGV``."""
    number = getattr(reason.value, "signal", None)
    if number is not None:
        return f"killed by {signal.Signals(number).name}"
    return f"exit code {getattr(reason.value, 'exitCode', 0)}"
