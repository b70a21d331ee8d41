"""
The gateway as a Twisted service: what twistd starts and stops.

Deliberately thin: everything that loads gRPC is imported when the service starts, because twistd forks
(to become a daemon) between making a service and starting it, and gRPC must not be there yet.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.clocks import ServiceReactor
from gatewayd.config import DeploymentConfig, FlowConfig
from gatewayd.errors import ConfigError, Draining
from gatewayd.service.loaded import keep_what_was_loaded, loading
from gatewayd.service.logs import Reopening
from gatewayd.service.signals import ReactorStop, ReloadSignal, StopSignals
from gatewayd.service.systemd.environment import Systemd
from gatewayd.service.systemd.notifying import Notifier
from gatewayd.telemetry.logs.observer import Logs
from gatewayd.telemetry.logs.settings import LogSettings
from gatewayd.waiters import Waiters

if TYPE_CHECKING:
    from gatewayd.service.administration import Administration
    from gatewayd.service.commands import CommandSocket
    from gatewayd.service.gateway import GatewayServer
    from gatewayd.service.reloading import Reloaded, Reloading
    from gatewayd.service.watching import Watch
    from gatewayd.service.workers import Workers
    from gatewayd.supervisor.replica_id import ReplicaId
    from gatewayd.supervisor.supervisor import Supervisor

log = Logger()

Event = Mapping[str, object]


# Replaces the workers, one by one.
REPLACING: Final = signal.SIGUSR2
# For clients that have just connected to a port whose sockets systemd holds. By feel: they may be slow.
_RETIRING_S: Final = 1.0
# For executors of a start that was broken off: they have no calls to finish.
_LOADING_GRACE_S: Final = 2.0


class GatewayService(Service):
    """
    Serves one Flow on one reactor.

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
    started again all the same. Each reload has the events of ``Reloading``.

    ``read()`` reads the Flow again, for ``reload`` and for SIGHUP, which comes as ``reload_signal``. Without
    it there is no reload.
    """

    def __init__(
        self,
        flow: FlowConfig,
        reactor: ServiceReactor,
        *,
        on_event: Callable[[Event], None] | None = None,
        signals: StopSignals | None = None,
        reopening: Reopening | None = None,
        logs: Logs | None = None,
        systemd: Systemd | None = None,
        reload_signal: ReloadSignal | None = None,
        read: Callable[[], FlowConfig] | None = None,
        daemon: bool = False,
        warns_of_strangers: bool = True,
    ) -> None:
        self._flow = flow
        self._reactor = reactor
        self._on_event: Callable[[Event], None] = on_event if on_event is not None else lambda event: None
        # twistd lets the process die of the signal that stopped it; a service manager wants to see exit code
        # 0 after an orderly stop.
        self._signals = signals if signals is not None else StopSignals()
        self._signals.install()
        self._reopening = reopening if reopening is not None else Reopening()
        self._reopening.install()
        self.logs = logs
        self._logs_as = flow.gateway  # the settings of its levels
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
        self._sockets: Sequence[Sequence[socket.socket]] = ()
        self._one_failed: Waiters[None] = Waiters()  # a replica that has never served
        self._stop = ReactorStop(self._signals, reactor)
        self._reload_signal = reload_signal
        self._read = read
        self._reloading: Reloading | None = None
        self._watch: Watch | None = None
        self._commands: CommandSocket | None = None
        self._code: Mapping[str, str] = {}
        self._seen: Mapping[str, object] = {}
        self._reload_when_ready: Waiters[Reloaded] = Waiters()
        self._daemon = daemon
        self._warns_of_strangers = warns_of_strangers
        self._gateway: GatewayServer | Workers | None = None
        self._draining: GatewayServer | Workers | None = None
        self._supervisor: Supervisor | None = None
        self._administration: Administration | None = None
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
        from gatewayd.protocols.binding import check_operators_ports, check_ports

        if self._notifier is not None:
            self._notifier.start()
        settings = self._flow.gateway
        self._sockets = self._systemd.sockets.for_listeners(settings.listeners)
        self._systemd.sockets.refuse_rest()
        to_bind = [one for one, given in zip(settings.listeners, self._sockets, strict=True) if not given]
        self._look_at_files()
        try:
            check_ports(settings.host, to_bind)
            check_operators_ports(settings)
            supervisor = self._supervisor = self._start_executors()
        except ConfigError as error:
            self._refuse(error)
        make: Callable[[Supervisor], GatewayServer | Workers]
        make = self._one_process() if settings.workers == 1 else self._several()
        if self._signals.received is not None:
            return  # the reactor stops as soon as it runs
        try:
            gateway = self._gateway = make(supervisor)
            if not self._accepts_late:
                gateway.start()
            if settings.measures:
                from gatewayd.service.administration import Administration
                from gatewayd.service.log_levels import log_level_action

                self._administration = Administration(self._flow, self._reactor, gateway, supervisor)
                if self._administration.site is not None:
                    action = log_level_action(
                        self.set_log_level,
                        lambda: {each.deployment for each in supervisor.states()},
                        settings.log_levels,
                    )
                    self._administration.site.actions.add(action)
                self._administration.start()
        except ConfigError as error:
            self._gateway = None
            self._refuse(error)
        # Before the log says that it is ready: its reader may ask something. That waits for the start.
        if self._read is not None:
            self._reactor.callWhenRunning(self._take_commands)
        # After the signal handlers: a reader of "ready" may send a signal.
        self._reactor.callWhenRunning(self._tell_when_ready, gateway, supervisor)

    def reload(self) -> Deferred[Reloaded]:
        """
        Serve what the Flow file says now; during the start, when that is over.

        Fails with NotReloaded, whose text is for whoever asked, or with Draining if the service is stopped.
        """
        from gatewayd.service.reloading import NotReloaded

        if self._read is None:
            return fail(NotReloaded("a Flow that is written in Python has no file to be read again"))
        if self._stopped:
            return fail(Draining())
        if self._reloading is None:
            return self._reload_when_ready.wait()
        return self._reloading.reload()

    def _reload_unasked(self) -> None:
        # The log says what comes of it.
        self.reload().addErrback(lambda failure: None)

    def _take_commands(self) -> None:
        from gatewayd.service.commands import CommandSocket
        from gatewayd.service.reloading import NotReloaded

        if not self._stopped:
            commands = {"reload": lambda: self.reload().addCallback(str)}
            self._commands = CommandSocket(self._reactor, commands, (NotReloaded, Draining))
            self._commands.start()

    def _can_reload(self, gateway: GatewayServer | Workers, supervisor: Supervisor) -> None:
        """The start is over."""
        from gatewayd.service.reloading import Reloading
        from gatewayd.service.watching import Watch

        if self._read is None or self._stopped:
            return
        watch = self._watch = Watch(
            lambda: gateway.flow,
            self._reload_unasked,
            seen=self._seen,
            clock=self._reactor,
            offload=gateway.offload,
        )
        reloading = self._reloading = Reloading(
            self._read,
            gateway.changeable,
            supervisor,
            clock=self._reactor,
            offload=gateway.offload,
            on_event=self._tell,
            on_reloaded=partial(self._reloaded, gateway, watch),
        )
        watch.update()
        if self._administration is not None:
            self._administration.steer(self.reload, reloading.replace)
        if len(self._reload_when_ready):
            reloading.reload().addCallbacks(self._reload_when_ready.fire, self._reload_failed)

    def _reloaded(self, gateway: GatewayServer | Workers, watch: Watch) -> None:
        watch.update()
        old, new = self._logs_as, gateway.flow.gateway
        if self.logs is not None and (old.log_level, old.log_levels) != (new.log_level, new.log_levels):
            self._logs_as = new
            # What was set by hand meanwhile ends with that; workers were replaced.
            self.logs.replace_levels(LogSettings.of(new, os.environ).levels())
            if self._supervisor is not None:
                self._supervisor.set_log_levels(self._executors_level)

    def _reload_failed(self, failure: Failure) -> None:
        assert failure.value is not None
        self._reload_when_ready.fail(failure.value)

    def _look_at_files(self) -> None:
        """What they hold before executors start, to tell later what has been edited since."""
        from gatewayd.service.watching import is_watched, look
        from gatewayd.supervisor.code import digests_of

        flow = self._flow
        if self._read is not None:
            self._code = digests_of(flow.deployments, flow.base_dir)
            self._seen = look(flow)
        elif is_watched(flow):
            log.warn("reload: has no effect for a Flow that is written in Python; gatewayd serve has it")

    def _digest_of(self, deployment: DeploymentConfig, base_dir: str) -> Deferred[str]:
        from gatewayd.supervisor.code import digest_of

        gateway = self._gateway if self._gateway is not None else self._draining
        if gateway is None:
            return fail(CancelledError())  # the start was broken off
        return gateway.offload(digest_of, deployment, base_dir)

    def _one_process(self) -> Callable[[Supervisor], GatewayServer]:
        from gatewayd.service.gateway import GatewayServer
        from gatewayd.supervisor.replica_id import all_replicas_of

        # Without a handler the signal would end the process, and what is under way.
        self._on_replacing(
            lambda: log.warn("SIGUSR2 replaces workers, of which there are none (gateway.workers)")
        )
        return lambda supervisor: GatewayServer(
            self._flow,
            self._reactor,
            supervisor,
            replicas=all_replicas_of(self._flow.deployments),
            warns_of_strangers=self._warns_of_strangers,
            on_listening=self._listening,
            sockets=self._sockets,
        )

    def _several(self) -> Callable[[Supervisor], Workers]:
        from gatewayd.service.workers import Workers
        from gatewayd.supervisor.replica_id import all_replicas_of

        def make(supervisor: Supervisor) -> Workers:
            workers = Workers(
                self._flow,
                self._reactor,
                supervisor,
                replicas=all_replicas_of(self._flow.deployments),
                warns_of_strangers=self._warns_of_strangers,
                on_listening=self._listening,
                on_failed=self._fail,
                sockets=self._sockets,
            )
            self._on_replacing(lambda: self._replace(workers))
            return workers

        return make

    def _on_replacing(self, act: Callable[[], object]) -> None:
        self._reactor.callWhenRunning(
            signal.signal, REPLACING, lambda number, frame: self._reactor.callFromThread(act)
        )

    def _listening(self, ports: Sequence[int], is_open: bool) -> None:
        self._tell({"event": "listening", "ports": list(ports), "open": is_open})

    def _replace(self, workers: Workers) -> None:
        from gatewayd.service.workers import NotReplaced

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
        self._tell({"event": "failed", "kind": type(error).__name__, "error": str(error)})
        if self._daemon:
            raise error
        # Not an Exception: twistd would print its traceback, and this is not a bug.
        raise SystemExit(1)

    def reopen_logs(self) -> None:
        """Open the files of the log anew: somebody has moved them. Reactor thread."""
        if self.logs is not None:
            self.logs.reopen()
        if self._gateway is not None:
            self._gateway.reopen_logs()

    def set_log_level(self, level: str, namespace: str = "") -> None:
        """
        Log what is at least of this level from now on, in all processes of the service. Reactor thread.

        It holds for ``namespace`` and all below it, such as ``gatewayd.pool``, or ``executor.NAME`` for what
        the executor writes; empty for all that has no level of its own. Raises ValueError for what is no
        level, or where the log is not gatewayd's (twistd's ``--logger``).
        """
        if self.logs is None:
            raise ValueError("the log is written by twistd's --logger, which has no levels")
        self.logs.set_level(level, namespace)
        log.info("the log's level is {least} from now on for {what}", least=level, what=namespace or "all")
        if self._supervisor is not None:
            self._supervisor.set_log_levels(self._executors_level)
        if self._gateway is not None:
            self._gateway.set_log_level(level, namespace)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopped = True
        self._reload_when_ready.fail(Draining())
        if self._notifier is not None:
            self._notifier.stopping()
        return self._all_ended().addBoth(self._all_stopped)

    def _all_ended(self) -> Deferred[None]:
        if self._gateway is None:
            supervisor = self._supervisor
            return succeed(None) if supervisor is None else supervisor.stop(_LOADING_GRACE_S)
        self._draining, self._gateway = self._gateway, None
        stopping = Deferred.fromCoroutine(self._drain(self._draining))
        for part in (self._reloading, self._watch, self._commands):
            if part is not None:
                part.stop()
        return stopping

    async def _drain(self, gateway: GatewayServer | Workers) -> None:
        if any(self._sockets) and not self._flow.gateway.drain_delay_s:
            # The next process accepts from them: whoever has connected to this one may still ask.
            gateway.retire()
            over: Deferred[None] = Deferred()
            self._reactor.callLater(_RETIRING_S, over.callback, None)
            await over
        if self._administration is not None:
            await self._administration.leave()
        await gateway.stop()
        if self._administration is not None:
            await self._administration.stop()

    def _all_stopped(self, result: Any) -> Any:
        self._draining = None
        if self._notifier is not None:
            self._notifier.stop()
        return result

    def _tell(self, event: Event) -> None:
        if self._notifier is not None:
            self._notifier.happened(event)
        self._on_event(event)

    def _replicas(self) -> tuple[int, int]:
        """How many replicas serve, and how many there are."""
        return (0, 0) if self._supervisor is None else self._supervisor.serving()

    def _under_way(self) -> int | None:
        return None if self._draining is None else self._draining.under_way()

    def _start_executors(self) -> Supervisor:
        """
        Their half second of imports runs beside the gateway's own.

        If the gateway cannot start, the executors end with this process. Raises ConfigError if they cannot be
        started at all.
        """
        from gatewayd.supervisor.replica_id import is_private, started_of
        from gatewayd.supervisor.sockets import SocketFolder
        from gatewayd.supervisor.supervisor import Supervisor

        # The reactor does not run yet: at the first event the gateway is there, or the start was broken off.
        def up(replica: ReplicaId, address: str) -> None:
            if self._gateway is not None:
                self._gateway.replica_up(replica, address)
            self._tell(
                {
                    "event": "up",
                    "deployment": replica.deployment,
                    "shard": replica.shard,
                    "replica": replica.replica,
                }
            )

        def down(replica: ReplicaId) -> None:
            if self._gateway is not None:
                self._gateway.replica_down(replica)

        def failed(replica: str, error: str) -> None:
            self._tell({"event": "failed", "kind": "replica", "replica": replica, "error": error})
            self._one_failed.fire(None)

        flow = self._flow
        started = started_of(flow.deployments)
        supervisor = Supervisor(
            self._reactor,
            started,
            on_up=up,
            on_down=down,
            on_failed=failed,
            base_dir=flow.base_dir,
            sockets=SocketFolder.create() if any(map(is_private, started)) else None,
            log_level=self._executors_level,
            code=self._code,
            digest=None if self._read is None else self._digest_of,
        )
        supervisor.start()
        return supervisor

    @property
    def _accepts_late(self) -> bool:
        """
        Clients of sockets that systemd holds wait until executors serve, rather than get an error.

        The process before this one had executors, and the next one is to be no worse.
        """
        return any(self._sockets)

    async def _settled(self, supervisor: Supervisor) -> None:
        """All executors serve, or one could not start: others may serve meanwhile. Raises Draining."""
        first: Deferred[None] = Deferred()
        for each in (supervisor.ready(), self._one_failed.wait()):
            each.addBoth(lambda result: None if first.called else first.callback(result))
        await first

    def _executors_level(self, deployment: str) -> str:
        return "info" if self.logs is None else self.logs.levels.of_executor(deployment)

    def _tell_when_ready(self, gateway: GatewayServer | Workers, supervisor: Supervisor) -> None:
        async def starting() -> None:
            try:
                if self._accepts_late:
                    await self._settled(supervisor)
                    gateway.start()
                await supervisor.ready()
                serves = await gateway.serve()
            except (Draining, CancelledError):
                return  # it is stopped
            except ConfigError as error:
                self._fail(error)
            else:
                if serves:
                    self._tell({"event": "ready"})
                    keep_what_was_loaded()
                    self._can_reload(gateway, supervisor)

        Deferred.fromCoroutine(starting()).addErrback(
            lambda failure: log.failure("the start failed", failure=failure)
        )

    def _fail(self, error: ConfigError) -> None:
        """As ``_refuse``, while the reactor runs: stop in order, with exit code 1."""
        log.critical("the gateway cannot start: {error}", error=error)
        self._tell({"event": "failed", "kind": type(error).__name__, "error": str(error)})
        # twistd and the reactor know no exit code. Registered last, it runs first, when all else has ended.
        atexit.register(os._exit, 1)
        self._stop.stop()
