"""
The gateway as a Twisted service: what twistd starts and stops. It serves one Flow, or several.

What belongs to the process is here: its signals, its log, its state as systemd sees it, the socket of its
commands, and its end. What belongs to one Flow is ``ServedFlow``'s.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.clocks import ServiceReactor
from gatewayd.errors import ConfigError, Draining
from gatewayd.service.loaded import keep_what_was_loaded, loading
from gatewayd.service.logs import Reopening
from gatewayd.service.served_flow import ServedFlow
from gatewayd.service.signals import ReactorStop, ReloadSignal, StopSignals
from gatewayd.service.systemd.environment import Systemd
from gatewayd.service.systemd.notifying import Notifier
from gatewayd.service.together import Event, EventsOfAll, FlowFile, check_together
from gatewayd.telemetry.logs.observer import Logs
from gatewayd.telemetry.logs.settings import LogSettings

if TYPE_CHECKING:
    from gatewayd.config import FlowConfig
    from gatewayd.service.commands import CommandSocket
    from gatewayd.service.workers import Workers

log = Logger()

# Replaces the workers, one by one.
REPLACING: Final = signal.SIGUSR2


class GatewayService(Service):
    """
    Serves one Flow, or several, on one reactor.

    A start that fails (a port is taken) is logged, on the terminal with ``-n``, and ends the process with
    code 1. SIGTERM and SIGINT, or those of ``signals``, stop it in order with exit code 0, at any moment.
    One of several workers serves in processes of its own; SIGUSR2 has them replaced one by one. SIGUSR1, or
    ``reopening``, has the files of ``logs`` opened anew. ``systemd`` is told of the state, and may have
    opened sockets for the ports.

    With ``daemon`` the ConfigError itself is raised: twistd's first process waits on the terminal until its
    child has started or raised an Exception.

    The log warns of a gateway that strangers can use (``strangers.py``), unless ``warns_of_strangers`` is
    false.

    ``on_event`` is called during the start with ``{"event": "listening", "ports": [...], "open": whether
    strangers can use it}``, for each replica
    ``{"event": "up", "deployment": ..., "shard": ..., "replica": ...}``, at last ``{"event": "ready"}``;
    or ``{"event": "failed", "kind": ..., "replica": ..., "error": text}``, after which a replica is
    started again all the same. Each reload has the events of ``Reloading``. Of several Flows, what is said is
    that of all of them (``EventsOfAll``).

    SIGHUP, which comes as ``reload_signal``, has all Flows read again that can be. Without ``read`` of a
    FlowFile there is no reload of it. A Flow that fails to start ends the process, whatever the others do;
    one whose executors are not up yet keeps it from being ready, and the others serve. All stop at the same
    time, each within its own grace period.
    """

    def __init__(
        self,
        flows: Sequence[FlowFile],
        reactor: ServiceReactor,
        *,
        on_event: Callable[[Event], None] | None = None,
        signals: StopSignals | None = None,
        reopening: Reopening | None = None,
        logs: Logs | None = None,
        systemd: Systemd | None = None,
        reload_signal: ReloadSignal | None = None,
        daemon: bool = False,
        warns_of_strangers: bool = True,
    ) -> None:
        """The ``flows`` have been checked by ``check_together``; the first one's settings of the log hold."""
        self._reactor = reactor
        self._on_event: Callable[[Event], None] = on_event if on_event is not None else lambda event: None
        # twistd lets the process die of the signal that stopped it; a service manager wants to see exit code
        # 0 after an orderly stop.
        self._signals = signals if signals is not None else StopSignals()
        self._signals.install()
        self._reopening = reopening if reopening is not None else Reopening()
        self._reopening.install()
        self.logs = logs
        self._logs_as = flows[0].flow.gateway  # the settings of its levels
        self._systemd = systemd if systemd is not None else Systemd()
        self._notifier = (
            None
            if self._systemd.sender is None
            else Notifier(
                self._systemd.sender,
                reactor,
                watchdog_s=self._systemd.watchdog_s,
                replicas=self._replicas,
                under_way=self._under_way,
            )
        )
        self._flows = [
            ServedFlow(
                each if len(flows) == 1 else self._checked_with_others(each),
                reactor,
                self,
                warns_of_strangers=warns_of_strangers,
            )
            for each in flows
        ]
        self._events = EventsOfAll([each.name for each in self._flows])
        self._stop = ReactorStop(self._signals, reactor)
        self._reload_signal = reload_signal
        self._commands: CommandSocket | None = None
        self._daemon = daemon
        self._stopped = False

    @loading()
    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        if self.logs is not None:
            self.logs.begin()
        self._reopening.connect(lambda: self._reactor.callFromThread(self.reopen_logs))
        # Twisted takes the signals over when the reactor starts.
        self._reactor.callWhenRunning(self._stop.take_back)
        if self._reload_signal is not None:
            signalled = partial(self._reactor.callFromThread, self._reload_unasked)
            self._reactor.callWhenRunning(self._reload_signal.connect, signalled)
        if self._notifier is not None:
            self._notifier.start()
        try:
            self._check_ports()
            self._for_each(ServedFlow.start_executors)
        except ConfigError as error:
            self._refuse(error)
        # Without a handler the signal would end the process, and what is under way.
        self._reactor.callWhenRunning(
            signal.signal,
            REPLACING,
            lambda number, frame: self._reactor.callFromThread(self._replace_workers),
        )
        if self._signals.received is not None:
            return  # the reactor stops as soon as it runs
        try:
            self._for_each(ServedFlow.start)
        except ConfigError as error:
            self._refuse(error)
        # Before the log says that it is ready: its reader may ask something. That waits for the start.
        if any(each.can_reload for each in self._flows):
            self._reactor.callWhenRunning(self._take_commands)
        # After the signal handlers: a reader of "ready" may send a signal.
        for each in self._flows:
            self._reactor.callWhenRunning(each.tell_when_ready)

    def reload(self, file: str | None = None) -> Deferred[str]:
        """
        Serve what the Flow files say now, or the one named ``file``; during the start, when that is over.

        All are read at the same time, and none waits for another: one that is refused keeps none from being
        taken up. Fires with a text that says what has changed. Fails with NotReloaded, whose text is for
        whoever asked and says what was taken up all the same; or with Draining if the service is stopped.
        """
        those = [each for each in self._flows if file in (None, each.name)]
        if len(those) == 1 == len(self._flows):
            return those[0].reload().addCallback(str)
        return Deferred.fromCoroutine(self._reloaded_all(those))

    async def _reloaded_all(self, those: Sequence[ServedFlow]) -> str:
        from gatewayd.service.reloading import NotReloaded

        ended: list[tuple[bool, Any]] = await DeferredList(
            [each.reload() for each in those], consumeErrors=True
        )
        done, refused = [], []
        for each, (was_done, result) in zip(those, ended, strict=True):
            if was_done:
                done.append(f"{each.name}: {result}")
            elif result.check(NotReloaded):
                refused.append(f"{each.name}: {result.value}")
            else:
                result.raiseException()
        if refused:
            raise NotReloaded("\n".join((*refused, *(f"reloaded all the same: {each}" for each in done))))
        return "; ".join(done)

    def _reload_unasked(self) -> None:
        # The log says what comes of it.
        self.reload().addErrback(lambda failure: None)

    def _checked_with_others(self, file: FlowFile) -> FlowFile:
        """What it is read again as may contradict the other Flows no more than at the start."""
        read = file.read

        def checked() -> FlowConfig:
            assert read is not None
            new = read()
            check_together(
                [(each.name, new if each.name == file.file else each.serving) for each in self._flows]
            )
            return new

        return file if read is None else FlowFile(file.flow, file.file, file.path, checked)

    def _take_commands(self) -> None:
        from gatewayd.service.commands import CommandSocket
        from gatewayd.service.reloading import NotReloaded

        if not self._stopped:
            commands = {"reload": self.reload}
            for each in self._flows:
                if each.can_reload:
                    commands[f"reload {each.path}"] = partial(self.reload, each.name)
            self._commands = CommandSocket(self._reactor, commands, (NotReloaded, Draining))
            self._commands.start()

    # -- of its Flows ----------------------------------------------------------------------------------

    def tell(self, served: ServedFlow, event: Event) -> None:
        """One of the Flows has an event."""
        if len(self._flows) == 1:
            of_all: Event | None = event
        else:
            of_all = self._events.of(self._flows.index(served), event)
            if event["event"] == "ready":
                log.info("{file} is served", file=served.name)
        if of_all is None:
            return
        if self._notifier is not None:
            self._notifier.happened(of_all)
        self._on_event(of_all)
        if of_all["event"] == "ready":
            keep_what_was_loaded()

    def fail(self, served: ServedFlow, error: ConfigError) -> None:
        """As ``_refuse``, while the reactor runs: stop in order, with exit code 1."""
        if len(self._flows) > 1:
            error = ConfigError(f"{served.name}: {error}")
        log.critical("the gateway cannot start: {error}", error=error)
        self._failed(error)
        # twistd and the reactor know no exit code. Registered last, it runs first, when all else has ended.
        atexit.register(os._exit, 1)
        self._stop.stop()

    def reloaded(self, served: ServedFlow) -> None:
        """One of the Flows serves something else. The first one says what is logged."""
        old, new = self._logs_as, served.serving.gateway
        changed = (old.log_level, old.log_levels) != (new.log_level, new.log_levels)
        if served is self._flows[0] and self.logs is not None and changed:
            self._logs_as = new
            # What was set by hand meanwhile ends with that; workers were replaced.
            self.logs.replace_levels(LogSettings.of(new, os.environ).levels())
            for each in self._flows:
                each.set_executors_levels()

    def level_of_executor(self, deployment: str) -> str:
        """From which level on its lines are logged."""
        return "info" if self.logs is None else self.logs.levels.of_executor(deployment)

    def _for_each(self, act: Callable[[ServedFlow], None]) -> None:
        """Raises ConfigError that names the file, where there are several."""
        for each in self._flows:
            try:
                act(each)
            except ConfigError as error:
                if len(self._flows) == 1:
                    raise
                raise ConfigError(f"{each.name}: {error}") from error

    def _check_ports(self) -> None:
        """Raises ConfigError for one that is taken."""
        listeners = [each.flow.gateway.listeners for each in self._flows]
        # All at once: a socket is for the port with its number, in whatever file, before it is for a name.
        given = iter(self._systemd.sockets.for_listeners([one for those in listeners for one in those]))
        self._systemd.sockets.refuse_rest()
        sockets = dict(zip(self._flows, [[next(given) for _ in those] for those in listeners], strict=True))
        self._for_each(lambda each: each.check_ports(sockets[each]))

    def _replicas(self) -> tuple[int, int]:
        """How many replicas serve, and how many there are."""
        counts = [each.replicas() for each in self._flows]
        return sum(serve for serve, _ in counts), sum(there for _, there in counts)

    def _under_way(self) -> int | None:
        counts = [count for each in self._flows if (count := each.under_way()) is not None]
        return sum(counts) if counts else None

    # -- of the process --------------------------------------------------------------------------------

    def _replace_workers(self) -> None:
        # Several Flows have none.
        workers = self._flows[0].workers
        if workers is not None:
            self._replace(workers)
        elif not self._stopped:
            log.warn("SIGUSR2 replaces workers, of which there are none (gateway.workers)")

    def _replace(self, workers: Workers) -> None:
        from gatewayd.service.worker_processes import NotReplaced

        def failed(failure: Failure) -> None:
            failure.trap(NotReplaced)
            log.error(
                "no further worker is replaced, and those that serve go on: {error}", error=failure.value
            )

        Deferred.fromCoroutine(workers.replace_all()).addErrback(failed).addErrback(
            lambda failure: log.failure("the workers could not be replaced", failure=failure)
        )

    def _refuse(self, error: ConfigError) -> NoReturn:
        log.critical("the gateway cannot start: {error}", error=error)
        self._failed(error)
        if self._daemon:
            raise error
        # Not an Exception: twistd would print its traceback, and this is not a bug.
        raise SystemExit(1)

    def _failed(self, error: ConfigError) -> None:
        event = {"event": "failed", "kind": type(error).__name__, "error": str(error)}
        if self._notifier is not None:
            self._notifier.happened(event)
        self._on_event(event)

    def reopen_logs(self) -> None:
        """Open the files of the log anew: somebody has moved them. Reactor thread."""
        if self.logs is not None:
            self.logs.reopen()
        for each in self._flows:
            each.reopen_logs()

    def set_log_level(self, level: str, namespace: str = "") -> None:
        """
        Log what is at least of this level from now on, in all processes of the service. Reactor thread.

        It holds for ``namespace`` and all below it, such as ``gatewayd.pool``, or ``executor.NAME`` for what
        the executors of that name write; empty for all that has no level of its own. Raises ValueError for
        what is no level, or where the log is not gatewayd's (twistd's ``--logger``).
        """
        if self.logs is None:
            raise ValueError("the log is written by twistd's --logger, which has no levels")
        self.logs.set_level(level, namespace)
        log.info("the log's level is {least} from now on for {what}", least=level, what=namespace or "all")
        for each in self._flows:
            each.set_log_level(level, namespace)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopped = True
        if self._notifier is not None:
            self._notifier.stopping()
        stopping = [each.stop() for each in self._flows]
        if self._commands is not None:
            self._commands.stop()
        if len(stopping) == 1:
            return stopping[0].addBoth(self._all_stopped)
        return (
            DeferredList(stopping, consumeErrors=True).addCallback(_first_failure).addBoth(self._all_stopped)
        )

    def _all_stopped(self, result: Any) -> Any:
        if self._notifier is not None:
            self._notifier.stop()
        return result


def _first_failure(results: list[tuple[bool, Any]]) -> Any:
    """None if all went well."""
    return next((result for done, result in results if not done), None)
