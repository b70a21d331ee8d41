"""
What a process does for one Flow: its executors, its gateway, its administration and its reloads.

The process itself (its signals, log, state as systemd sees it, and end) is ``GatewayService``'s, which has
one or several of these and calls them in the order of ``check_ports``, ``start_executors``, ``start``,
``tell_when_ready``, ``stop``.

As thin as that: everything that loads gRPC is imported when it starts, because twistd forks (to become a
daemon) between making a service and starting it, and gRPC must not be there yet.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.clocks import ServiceReactor
from gatewayd.config import DeploymentConfig, FlowConfig
from gatewayd.config.model import LOCAL
from gatewayd.errors import ConfigError, Draining
from gatewayd.service.together import Event, FlowFile
from gatewayd.status import status_of
from gatewayd.waiters import Waiters

if TYPE_CHECKING:
    from gatewayd.service.administration import Administration
    from gatewayd.service.gateway import GatewayServer
    from gatewayd.service.reloading import Reloaded, Reloading
    from gatewayd.service.roster import Roster
    from gatewayd.service.scaling import Autoscaler
    from gatewayd.service.watching import Watch
    from gatewayd.service.workers import Workers
    from gatewayd.supervisor.placement import Placement
    from gatewayd.supervisor.replica_id import ReplicaId
    from gatewayd.supervisor.supervisor import Supervisor

log = Logger()

# For clients that have just connected to a port whose sockets systemd holds. By feel: they may be slow.
_RETIRING_S: Final = 1.0
# For executors of a start that was broken off: they have no calls to finish.
_LOADING_GRACE_S: Final = 2.0


class Process(Protocol):
    """The process, as its Flows know it."""

    def tell(self, served: ServedFlow, event: Event) -> None:
        """An event of the Flow: see ``GatewayService``."""
        ...

    def fail(self, served: ServedFlow, error: ConfigError) -> None:
        """The Flow cannot start: the process stops in order, with exit code 1."""
        ...

    def reloaded(self, served: ServedFlow) -> None:
        """The Flow serves something else."""
        ...

    def level_of_executor(self, deployment: str) -> str:
        """From which level on its lines are logged."""
        ...

    def set_log_level(self, level: str, namespace: str = "") -> None:
        """As ``GatewayService.set_log_level``."""
        ...


class ServedFlow:
    """One Flow of ``process``. Reactor thread only."""

    def __init__(
        self, file: FlowFile, reactor: ServiceReactor, process: Process, *, warns_of_strangers: bool
    ) -> None:
        self.name = file.file
        self.path = file.path
        # What executors on other machines know this gateway by, as long as it runs.
        self._secret = secrets.token_urlsafe(24)
        self.flow = with_secret(file.flow, self._secret)  # that of the start
        self._reactor = reactor
        self._process = process
        self._read = None if file.read is None else partial(_read_with_secret, file.read, self._secret)
        self._warns_of_strangers = warns_of_strangers
        self._sockets: Sequence[Sequence[socket.socket]] = ()
        self._one_failed: Waiters[None] = Waiters()  # a replica that has never served
        self._reloading: Reloading | None = None
        self._scaler: Autoscaler | None = None
        self._watch: Watch | None = None
        self._code: Mapping[str, str] = {}
        self._seen: Mapping[str, object] = {}
        self._reload_when_ready: Waiters[Reloaded] = Waiters()
        self._gateway: GatewayServer | Workers | None = None
        self._draining: GatewayServer | Workers | None = None
        self._supervisor: Supervisor | None = None
        self._administration: Administration | None = None
        self._stopped = False

    @property
    def serving(self) -> FlowConfig:
        """What serves now."""
        return self.flow if self._gateway is None else self._gateway.flow

    @property
    def can_reload(self) -> bool:
        """Whether there is something to be read again."""
        return self._read is not None

    @property
    def workers(self) -> Workers | None:
        """Its worker processes, if it has any."""
        from gatewayd.service.workers import Workers

        return self._gateway if isinstance(self._gateway, Workers) else None

    def check_ports(self, sockets: Sequence[Sequence[socket.socket]]) -> None:
        """``sockets`` are those that systemd holds, for each listener. Raises PortTaken."""
        from gatewayd.protocols.binding import check_operators_ports, check_ports

        settings = self.flow.gateway
        self._sockets = sockets
        to_bind = [one for one, given in zip(settings.listeners, sockets, strict=True) if not given]
        self._look_at_files()
        check_ports(settings.host, to_bind)
        check_operators_ports(settings)

    def start_executors(self) -> None:
        """Raises ConfigError if they cannot be started at all."""
        self._supervisor = self._started_executors()

    def start(self) -> None:
        """
        Listen, or be about to: clients of sockets that systemd holds wait for executors.

        Raises ConfigError; then the process has to end.
        """
        supervisor = self._supervisor
        assert supervisor is not None
        settings = self.flow.gateway
        make = self._one_process if settings.workers == 1 else self._several
        gateway = self._gateway = make(supervisor)
        try:
            if not self._accepts_late:
                gateway.start()
            if settings.measures:
                from gatewayd.service.administration import Administration
                from gatewayd.service.log_levels import log_level_action

                self._administration = Administration(self.flow, self._reactor, gateway, supervisor)
                if self._administration.site is not None:
                    action = log_level_action(
                        self._process.set_log_level,
                        lambda: {each.deployment for each in supervisor.states()},
                        settings.log_levels,
                    )
                    self._administration.site.actions.add(action)
                self._administration.start()
        except ConfigError:
            self._gateway = None
            raise

    def tell_when_ready(self) -> None:
        """The reactor runs: become ready as soon as the executors serve."""
        if self._gateway is not None and self._supervisor is not None:
            self._tell_when_ready(self._gateway, self._supervisor)

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

    def _scales(self, gateway: GatewayServer | Workers, supervisor: Supervisor, roster: Roster) -> None:
        """The start is over."""
        from gatewayd.service.scaling import Autoscaler

        if self._stopped:
            return
        scaler = self._scaler = Autoscaler(gateway.changeable, roster, supervisor, self._reactor)
        scaler.update()
        if self._administration is not None:
            self._administration.scaled = scaler.parts

    def _can_reload(self, gateway: GatewayServer | Workers, supervisor: Supervisor, roster: Roster) -> None:
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
            roster,
            clock=self._reactor,
            offload=gateway.offload,
            on_event=self._tell,
            on_reloaded=partial(self._reloaded, watch),
        )
        watch.update()
        if self._administration is not None:
            self._administration.steer(self.reload, reloading.replace)
        if len(self._reload_when_ready):
            reloading.reload().addCallbacks(self._reload_when_ready.fire, self._reload_failed)

    def _reloaded(self, watch: Watch) -> None:
        watch.update()
        if self._scaler is not None:
            self._scaler.update()
        self._process.reloaded(self)

    def set_executors_levels(self) -> None:
        """The levels of the log have changed."""
        if self._supervisor is not None:
            self._supervisor.set_log_levels(self._process.level_of_executor)

    def set_log_level(self, level: str, namespace: str) -> None:
        """The level of the log was set by hand, for other processes too."""
        self.set_executors_levels()
        if self._gateway is not None:
            self._gateway.set_log_level(level, namespace)

    def reopen_logs(self) -> None:
        """Open its files anew: somebody has moved them."""
        if self._gateway is not None:
            self._gateway.reopen_logs()

    def _reload_failed(self, failure: Failure) -> None:
        assert failure.value is not None
        self._reload_when_ready.fail(failure.value)

    def _look_at_files(self) -> None:
        """What they hold before executors start, to tell later what has been edited since."""
        from gatewayd.service.watching import is_watched, look
        from gatewayd.supervisor.code import digests_of

        flow = self.flow
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

    def _one_process(self, supervisor: Supervisor) -> GatewayServer:
        from gatewayd.service.gateway import GatewayServer
        from gatewayd.supervisor.replica_id import all_replicas_of

        gateway = GatewayServer(
            self.flow,
            self._reactor,
            supervisor,
            replicas=all_replicas_of(self.flow.deployments),
            warns_of_strangers=self._warns_of_strangers,
            on_listening=self._listening,
            sockets=self._sockets,
            status=self._status,
        )
        gateway.changeable.out_of_reach = supervisor.out_of_reach
        return gateway

    def _status(self) -> Mapping[str, Mapping[str, str]]:
        scaled = () if self._scaler is None else self._scaler.parts()
        if not scaled:
            return status_of()
        return status_of(replicas=(sum(each.serving for each in scaled), sum(each.wanted for each in scaled)))

    def _several(self, supervisor: Supervisor) -> Workers:
        from gatewayd.service.workers import Workers
        from gatewayd.supervisor.replica_id import all_replicas_of

        return Workers(
            self.flow,
            self._reactor,
            supervisor,
            replicas=all_replicas_of(self.flow.deployments),
            warns_of_strangers=self._warns_of_strangers,
            on_listening=self._listening,
            on_failed=lambda error: self._process.fail(self, error),
            sockets=self._sockets,
            out_of_reach=supervisor.out_of_reach,
        )

    def _listening(self, ports: Sequence[int], is_open: bool) -> None:
        self._tell({"event": "listening", "ports": list(ports), "open": is_open})

    def stop(self) -> Deferred[None]:
        """Fires when all of it has ended. It may be in the middle of its start."""
        self._stopped = True
        self._reload_when_ready.fail(Draining())
        return self._all_ended().addBoth(self._all_stopped)

    def _all_ended(self) -> Deferred[None]:
        if self._gateway is None:
            supervisor = self._supervisor
            return succeed(None) if supervisor is None else supervisor.stop(_LOADING_GRACE_S)
        self._draining, self._gateway = self._gateway, None
        stopping = Deferred.fromCoroutine(self._drain(self._draining))
        for part in (self._scaler, self._reloading, self._watch):
            if part is not None:
                part.stop()
        return stopping

    async def _drain(self, gateway: GatewayServer | Workers) -> None:
        if any(self._sockets) and not self.flow.gateway.drain_delay_s:
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
        return result

    def _tell(self, event: Event) -> None:
        self._process.tell(self, event)

    def replicas(self) -> tuple[int, int]:
        """How many replicas serve, and how many there are."""
        return (0, 0) if self._supervisor is None else self._supervisor.serving()

    def under_way(self) -> int | None:
        """The requests that a stop waits for; None if that is not known, or it does not stop."""
        return None if self._draining is None else self._draining.under_way()

    def _started_executors(self) -> Supervisor:
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

        flow = self.flow
        started = started_of(flow.deployments)
        supervisor = Supervisor(
            self._reactor,
            started,
            on_up=up,
            on_down=down,
            on_failed=failed,
            base_dir=flow.base_dir,
            sockets=SocketFolder.create() if any(map(is_private, started)) else None,
            log_level=self._process.level_of_executor,
            code=self._code,
            digest=None if self._read is None else self._digest_of,
            placements={"ray": self._ray()},
        )
        supervisor.start()
        return supervisor

    def _ray(self) -> Placement:
        """Where replicas run that are on Ray, also those that a reload adds: nothing is there until then."""
        from gatewayd.supervisor.process import RESTART_BACKOFF
        from gatewayd.supervisor.ray import RayPlacement

        flow = self.flow
        return RayPlacement(
            self._reactor,
            flow.ray,
            flow.name,
            self._secret,
            detached=any(each.ray is not None and each.ray.detached for each in flow.deployments),
            base_dir=flow.base_dir,
            environment=os.environ,
            backoff=RESTART_BACKOFF,
            dice=random.random,
            kill_group=os.killpg,
        )

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

    def _tell_when_ready(self, gateway: GatewayServer | Workers, supervisor: Supervisor) -> None:
        from gatewayd.service.roster import Roster

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
                self._process.fail(self, error)
            else:
                if serves:
                    self._tell({"event": "ready"})
                    roster = Roster(gateway.flow, supervisor)
                    self._scales(gateway, supervisor, roster)
                    self._can_reload(gateway, supervisor, roster)

        Deferred.fromCoroutine(starting()).addErrback(
            lambda failure: log.failure("the start failed", failure=failure)
        )


def with_secret(flow: FlowConfig, secret: str) -> FlowConfig:
    """``flow``, whose calls to executors on a network carry ``secret``."""
    if all(each.placement == LOCAL for each in flow.deployments):
        return flow
    return attrs.evolve(
        flow,
        deployments=tuple(
            each if each.placement == LOCAL else attrs.evolve(each, secret=secret)
            for each in flow.deployments
        ),
    )


def _read_with_secret(read: Callable[[], FlowConfig], secret: str) -> FlowConfig:
    return with_secret(read(), secret)
