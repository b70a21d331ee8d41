"""
The Deployments of a Flow and the executors that answer for them.

``Pool.send`` is all that the dispatcher knows of executors. Addresses come from what watches executors that
run elsewhere (``watching.py``), or from the supervisor (``replica_up``, ``replica_down``).
"""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

import attrs
from twisted.internet.defer import Deferred, maybeDeferred

from gatewayd.bridge import Bridge
from gatewayd.clocks import Clock, Connector
from gatewayd.config import DeploymentConfig, GatewayConfig
from gatewayd.config.graph import in_order
from gatewayd.config.heads import AFTER, BEFORE, head_executors
from gatewayd.messages.discovery import Endpoints, Told, of_flow
from gatewayd.messages.formats import DocumentFormat, format_of
from gatewayd.messages.generations import NAMED, Generation
from gatewayd.messages.headers import SECRET_HEADER
from gatewayd.messages.request import Answer, Call
from gatewayd.offload import Offload
from gatewayd.pool.attempts import AttemptRules
from gatewayd.pool.balancing import Balancer, LeastInFlight, RoundRobin
from gatewayd.pool.dns import resolver
from gatewayd.pool.events import Decisions
from gatewayd.pool.replica import ExecutorChannel, Replica
from gatewayd.pool.replica_set import ReplicaLimits, ReplicaSet
from gatewayd.pool.retry import RetryBudget, RetryPolicy
from gatewayd.pool.roots import trusted_roots
from gatewayd.pool.sender import Sender
from gatewayd.pool.services import following
from gatewayd.pool.shards import Shards
from gatewayd.pool.slots import Slots
from gatewayd.pool.streaming import ExecutorStream
from gatewayd.pool.subset import subset
from gatewayd.pool.watching import Watch, Watcher, addresses_and_names
from gatewayd.rpc.channel import Channel, ChannelSettings, State
from gatewayd.rpc.turns import Line, Turns
from gatewayd.tls.credentials import TlsFiles, UnusableTlsFile
from gatewayd.tls.files import load_credentials
from gatewayd.tls.outgoing import CallTls
from gatewayd.tls.renewal import Renewal, Watched
from gatewayd.waiters import Waiters

Connect = Callable[[str, ChannelSettings, Callable[[State], None]], ExecutorChannel]


@attrs.frozen
class ReplicaState:
    """
    One replica as it is now. ``name`` is the address as the Flow file has it, ``address`` what is called.

    ``endpoints`` is None while they are not known. ``failures`` counts those in a row.
    """

    name: str
    address: str
    shard: int
    state: State
    ejected: bool
    in_flight: int
    failures: int
    endpoints: tuple[str, ...] | None


@attrs.frozen
class PartState:
    """
    A Deployment, or a shard of it, or a head, as it is now.

    ``decisions`` and ``retries`` (by gRPC status) are counted from the start on.
    """

    deployment: str
    shard: int
    queued: int
    in_flight: int
    connected: int
    retry_budget: float
    decisions: Mapping[str, int]
    retries: Mapping[str, int]


class Pool:
    """
    Sends calls to Deployments by name.

    ``connect(address, settings, on_state)`` opens a channel, and ``watch`` makes what tells the addresses of
    external executors; tests pass their own. ``counters`` counts every decision, by (decision, Deployment);
    with a pool ``before``, it goes on with its counts, and shares its slots, and its turns to connect, if it
    may have as many. ``format`` is that of the Flow's documents, as far as it is known.
    """

    def __init__(
        self,
        gateway: GatewayConfig,
        deployments: Sequence[DeploymentConfig],
        *,
        connect: Connect,
        watch: Watch,
        clock: Clock,
        dice: random.Random,
        offload: Offload = maybeDeferred,
        before: Pool | None = None,
    ) -> None:
        self.counters: Counter[tuple[str, str]] = Counter() if before is None else before.counters
        self._before = {} if before is None else before._retries()
        self.slots = Slots(gateway.pool.max_in_flight)
        if before is not None and before.slots.limit == self.slots.limit:
            self.slots = before.slots  # until those of before have ended, the calls of both are under way
        self.turns = Turns(gateway.pool.max_connecting)
        if before is not None and before.turns.limit == self.turns.limit:
            self.turns = before.turns
        self.probes = Turns(gateway.pool.max_connecting)
        self._gateway = gateway
        self._connect = connect
        self._clock = clock
        self._dice = dice
        self._deployments: dict[str, Sender | Shards] = {}
        self._senders: dict[tuple[str, int], Sender] = {}  # by Deployment and shard
        self._discovered: Waiters[None] = Waiters()
        self._deciding: dict[Deferred[None], frozenset[str]] = {}  # those that are waited for
        self._watchers: list[Watcher] = []
        everything = (each for one in deployments for each in (one, *head_executors(one)))
        self._roots = trusted_roots() if any(each.tls for each in everything) else None
        self._renewals: list[Renewal] = []
        self._offload = offload
        for deployment in deployments:
            self._deployments[deployment.name] = self._build(deployment)
            for each in (deployment, *head_executors(deployment)):
                self._follow(each, watch)
        self._order = in_order(deployments)
        self._floating = frozenset(each.name for each in deployments if each.floating)
        # Which documents the executors speak; None while none has told it.
        self.generation: Generation | None = gateway.docarray
        self._said: tuple[Told | None, ...] = (None,) * len(self._deployments)
        self._endpoints = self._endpoints_of(self._said)
        self.format: DocumentFormat = format_of(self.generation)
        self._serves = {name: each.serves for name, each in self._deployments.items()}
        self._awaited = {each.name for each in deployments if not each.external}
        for (name, _), sender in self._senders.items():
            sender.is_awaited = name not in self._floating
        for sender in self._senders.values():
            sender.replicas.speak(self.generation)
            sender.replicas.before_change(self._settle_generation)
            sender.replicas.on_change(self._replicas_changed)
        if before is not None:
            self._rest_as(before, deployments)
        # The Deployments of which it is not known yet what they bind, and may soon be.
        self.undecided: frozenset[str] = self._find_undecided()

    @classmethod
    def over(
        cls,
        bridge: Bridge,
        gateway: GatewayConfig,
        deployments: Sequence[DeploymentConfig],
        reactor: Connector,
        before: Pool | None = None,
    ) -> Pool:
        """A pool that connects to real executors."""

        def connect(address: str, settings: ChannelSettings, on_state: Callable[[State], None]) -> Channel:
            return Channel(reactor, address, settings, on_state, bridge.offload)

        choose = partial(subset, size=gateway.pool.subset, gateway=_identity(gateway))
        return cls(
            gateway,
            deployments,
            connect=connect,
            watch=addresses_and_names(
                resolver(reactor),
                reactor,
                gateway.pool.dns_refresh_s,
                choose,
                following(reactor, choose),
            ),
            clock=reactor,
            dice=random.Random(),
            offload=bridge.offload,
            before=before,
        )

    def send(self, deployment: str, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        """
        Get the answer of a Deployment; ``timeout_s`` is what is left of the client's deadline.

        Fails with ExecutorNetworkError, Overloaded or Draining. Cancelling the Deferred cancels the call.
        """
        return self._deployments[deployment].send(call, timeout_s)

    def stream(self, deployment: str, call: Call, timeout_s: float | None) -> ExecutorStream:
        """
        The answers of a Deployment to the SingleDocumentRequestProto that is the only message of ``call``.

        ``timeout_s`` is what is left of the client's deadline, and bounds all of them. Raises BadRequest for
        shards that cannot stream.
        """
        return ExecutorStream(self._deployments[deployment].for_stream(call.endpoint), call, timeout_s)

    def serves(self, deployment: str, endpoint: str) -> bool:
        """Whether the Deployment binds ``endpoint``; True while its endpoints are not known."""
        return self._serves[deployment](endpoint)

    def endpoints(self) -> Endpoints:
        """
        The endpoints that the executors of the Flow bind, as far as they are known now.

        It is the same value as before while nothing else is known.
        """
        told = tuple([each.told for each in self._deployments.values()])
        if any(new is not old for new, old in zip(told, self._said, strict=True)):
            self._said = told
            self._endpoints = self._endpoints_of(told)
        return self._endpoints

    def _endpoints_of(self, told: Sequence[Told | None]) -> Endpoints:
        known = dict(zip(self._deployments, told, strict=True))
        return of_flow(known, self._order, self._floating, self.generation)

    def _settle_generation(self) -> None:
        """The executors that tell it first say what the Flow speaks, as long as one of them is there."""
        if self._gateway.docarray is not None:
            return
        spoken = [each for sender in self._senders.values() for each in sender.replicas.generations]
        if spoken and self.generation not in spoken:
            self.generation = spoken[0]
            self._endpoints = self._endpoints_of(self._said)
            for sender in self._senders.values():
                sender.told_generation(spoken[0])
            for sender in self._senders.values():
                sender.replicas.speak(self.generation)

    def _every_replica(self) -> Iterator[tuple[str, Replica]]:
        for (name, _), sender in self._senders.items():
            for replica in sender.replicas.replicas:
                yield name, replica

    def disagreement(self) -> str:
        """Which executors speak another generation of documents than the Flow, in words; empty if none."""
        speakers: dict[Generation, str] = {}
        foreign = []
        for name, replica in self._every_replica():
            if replica.told is not None and replica.told.generation is not None:
                who = f"{name} ({replica.label})"
                speakers.setdefault(replica.told.generation, who)
                if replica.foreign:
                    foreign.append(f"{who} speaks {NAMED[replica.told.generation]}")
        if not foreign or self.generation is None:
            return ""
        said = self._gateway.docarray
        other = (
            f"the Flow file says docarray: {said.value}, which is"
            if said is not None
            else (f"{speakers[self.generation]} speaks")
        )
        return (
            "executors of one Flow have to speak the same generation of documents: "
            f"{other} {NAMED[self.generation]}, and {', '.join(foreign)}; run all of them with the same "
            "generation of docarray, or serve them in two Flows"
        )

    def foreign(self) -> Mapping[tuple[str, int], str]:
        """Why nothing is called of a Deployment and shard, where that is for the generation of documents."""
        return {
            key: sender.replicas.why_foreign
            for key, sender in self._senders.items()
            if sender.replicas.why_foreign
        }

    def told(self) -> Mapping[str, Told | None]:
        """What the executors of each Deployment tell of themselves; None while they have not."""
        return {name: each.told for name, each in self._deployments.items()}

    def streams(self, deployment: str, endpoint: str) -> bool:
        """Whether the Deployment answers ``endpoint`` with a stream; False while that is not known."""
        return self._deployments[deployment].streams(endpoint)

    def reached(self) -> frozenset[str]:
        """The Deployments whose endpoints are known now."""
        return frozenset(name for name, each in self._deployments.items() if each.heard)

    def discovered(self, others: Collection[str] = ()) -> Deferred[None]:
        """
        Fires when the endpoints of all Deployments that are not external are known.

        Of external ones, those of ``others`` are waited for as well, from now on.
        """
        self._awaited.update(name for name in others if name in self._deployments)
        discovered = self._discovered.wait()
        self._check_discovered()
        return discovered

    def decided(self, names: frozenset[str]) -> Deferred[None]:
        """Fires when none of ``names`` is ``undecided``, which may be now."""

        def forget(deciding: Deferred[None]) -> None:
            del self._deciding[deciding]

        deciding: Deferred[None] = Deferred(forget)
        self._deciding[deciding] = names
        self._check_decided()
        return deciding

    def _find_undecided(self) -> frozenset[str]:
        return frozenset([name for name, each in self._deployments.items() if each.undecided])

    def _check_decided(self) -> None:
        for deciding, names in tuple(self._deciding.items()):
            # The callbacks of one may cancel another.
            if not names & self.undecided and self._deciding.pop(deciding, None) is not None:
                deciding.callback(None)

    def _replicas_changed(self) -> None:
        self.format = format_of(self.generation)
        self.undecided = self._find_undecided()
        self._check_discovered()
        if self._deciding:
            self._check_decided()

    def _check_discovered(self) -> None:
        if len(self._discovered) and self._awaited <= self.reached():
            self._discovered.fire(None)

    def replica_up(self, deployment: str, address: str, shard: int = 0) -> None:
        """
        An executor listens at ``address`` now.

        ``deployment`` may also be an executor before or after shards (``config.heads``).
        """
        self._senders[deployment, shard].replicas.add(address)

    def replica_down(self, deployment: str, address: str, shard: int = 0) -> None:
        """The executor at ``address`` is gone for good; another address may take its place."""
        self._senders[deployment, shard].replicas.remove(address)

    def replica_retired(self, deployment: str, address: str, shard: int = 0) -> Deferred[None]:
        """Send nothing more to ``address``. Fires when the calls that it has have ended."""
        return self._senders[deployment, shard].replicas.retire(address)

    def replica_known(self, deployment: str, address: str, shard: int = 0) -> Deferred[None]:
        """
        Fires when ``address`` is connected and has told its endpoints; cancel it to wait no more.

        Fails with ReplicaGone if it is down before that.
        """
        return self._senders[deployment, shard].replicas.known(address)

    def rest(self, deployment: str, shard: int, rests: bool) -> None:
        """
        Say whether it is right that there is no replica, because no call needs one.

        Calls then wait for the first one as they wait for a slot, and ``on_needed`` is told of them. What the
        last one bound is remembered, and dry runs leave the Deployment out.
        """
        self._senders[deployment, shard].replicas.rest(rests)

    def on_needed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when a call begins to wait for the first replica of a Deployment that rests."""
        for sender in self._senders.values():
            sender.replicas.on_needed = callback

    def on_out_of_reach(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(address)`` when a connection was lost, and when one cannot be made."""
        for sender in self._senders.values():
            sender.replicas.on_out_of_reach = callback

    def expected(self) -> frozenset[tuple[str, int]]:
        """The Deployments and shards that have no replica, because none was needed."""
        return frozenset(key for key, sender in self._senders.items() if sender.replicas.expected)

    def _rest_as(self, before: Pool, deployments: Sequence[DeploymentConfig]) -> None:
        for deployment in deployments:
            for shard in range(deployment.shards):
                was = before._senders.get((deployment.name, shard))
                if deployment.scaling is not None and was is not None and was.replicas.expected:
                    if self.generation is None:
                        self.generation = before.generation
                        self.format = format_of(self.generation)
                    self._senders[deployment.name, shard].replicas.rest(True, was.told)

    def states(self) -> Mapping[str, tuple[ReplicaState, ...]]:
        """Every Deployment's replicas, shard after shard."""
        found: dict[str, tuple[ReplicaState, ...]] = {}
        for (name, shard), sender in self._senders.items():
            found[name] = found.get(name, ()) + tuple(
                ReplicaState(
                    replica.label,
                    replica.address,
                    shard,
                    replica.state,
                    replica.health.ejected,
                    replica.in_flight,
                    replica.health.failures,
                    None if replica.told is None else tuple(replica.told.bound),
                )
                for replica in sender.replicas.replicas
            )
        return found

    def parts(self) -> tuple[PartState, ...]:
        """Every Deployment, shard after shard, and its heads."""
        decided: dict[str, dict[str, int]] = {}
        for (decision, name), count in self.counters.items():
            decided.setdefault(name, {})[decision] = count
        return tuple(
            PartState(
                name,
                shard,
                sender.queue.size,
                sum(replica.in_flight for replica in sender.replicas.replicas),
                _connected(sender),
                sender.budget.left,
                decided.get(sender.decisions.deployment, {}),
                dict(sender.decisions.retries),
            )
            for (name, shard), sender in self._senders.items()
        )

    def _retries(self) -> dict[tuple[str, int], Counter[str]]:
        return {key: sender.decisions.retries for key, sender in self._senders.items()}

    def connected(self) -> Mapping[tuple[str, int], int]:
        """How many replicas are connected, by Deployment and shard; those of heads, too."""
        return {key: _connected(sender) for key, sender in self._senders.items()}

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every change of a replica, and of which there are."""
        for sender in self._senders.values():
            sender.replicas.on_change(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Undo ``on_change``."""
        for sender in self._senders.values():
            sender.replicas.forget(callback)

    def waiting(self) -> Mapping[str, int]:
        """How many requests wait for a slot or a connection, by Deployment."""
        total: Counter[str] = Counter()
        for (name, _), sender in self._senders.items():
            total[name] += sender.queue.size
        return total

    def followed(self) -> Mapping[str, int]:
        """How many Services of Kubernetes are followed, by how it is done, in words."""
        return Counter(watcher.how for watcher in self._watchers if watcher.how)

    def close(self) -> None:
        """Close every channel; requests in flight fail with Draining."""
        for renewal in self._renewals:
            renewal.stop()
        for watcher in self._watchers:
            watcher.close()
        for sender in self._senders.values():
            sender.close()

    # -- building ------------------------------------------------------------------------------------

    def _build(self, deployment: DeploymentConfig) -> Sender | Shards:
        if deployment.external or deployment.shards < 2:
            return self._sender(deployment)
        shards = [self._sender(deployment, index) for index in range(deployment.shards)]
        heads = head_executors(deployment)
        extras = {head.name.rpartition("/")[2]: self._sender(head) for head in heads}
        return Shards(
            deployment.name,
            shards,
            before=extras.get(BEFORE),
            after=extras.get(AFTER),
            polling=deployment.polling,
            clock=self._clock,
            offload=self._offload,
            decisions=Decisions(deployment.name, self.counters, self._clock.seconds),
            format=lambda: self.format,
        )

    def _sender(self, deployment: DeploymentConfig, shard: int = 0) -> Sender:
        limits, name = self._gateway.pool, deployment.name
        line = self.turns.line(lambda: sender.queue.size > 0)
        settings = _settings(self._gateway, deployment, self._call_tls(deployment), line)
        decisions = Decisions(
            f"{name}/shard-{shard}" if deployment.shards > 1 and not deployment.external else name,
            self.counters,
            self._clock.seconds,
        )
        decisions.retries = self._before.get((name, shard), decisions.retries)

        def connect(address: str, host: str | None, on_state: Callable[[State], None]) -> ExecutorChannel:
            own = settings if host is None else attrs.evolve(settings, host=host)
            return self._connect(address, own, on_state)

        replicas = ReplicaSet(
            name,
            ReplicaLimits(limits.max_in_flight_per_replica, limits.eject_after_failures, limits.eject_s),
            connect=connect,
            balancer=_balancer(self._gateway, self._dice),
            clock=self._clock,
            decisions=decisions,
            probes=self.probes.line(lambda: sender.queue.size > 0),
        )
        sender = self._senders[name, shard] = Sender(
            replicas,
            _rules(self._gateway, deployment),
            max_queued=limits.max_queued,
            slots=self.slots,
            budget=RetryBudget(limits.retry_budget, limits.max_in_flight_per_replica),
            clock=self._clock,
            dice=self._dice,
            decisions=decisions,
        )
        return sender

    def _call_tls(self, deployment: DeploymentConfig) -> CallTls:
        files = deployment.tls_files
        if not deployment.tls or files == TlsFiles(()):
            return CallTls(self._roots)
        watched = Watched.of(files)
        try:
            credentials = load_credentials(files)
        except UnusableTlsFile as error:
            raise UnusableTlsFile(error.setting, error.reason, f"executor {deployment.name}") from error
        tls = CallTls(self._roots, credentials)
        renewal = Renewal(
            watched,
            credentials,
            tls.renew,
            clock=self._clock,
            offload=self._offload,
            interval_s=self._gateway.ssl_reload_interval_s,
            warning_days=self._gateway.ssl_expiry_warning_days,
        )
        renewal.start()
        self._renewals.append(renewal)
        return tls

    def _follow(self, deployment: DeploymentConfig, watch: Watch) -> None:
        """Have an external Deployment's replicas told."""
        if not deployment.external:
            return
        replicas = self._senders[deployment.name, 0].replicas
        for watcher in watch(deployment, replicas):
            self._watchers.append(watcher)
            replicas.on_outage(watcher.refresh_soon)
            watcher.start()


def _identity(gateway: GatewayConfig) -> str:
    """What this gateway is called among others: the same after a restart."""
    ports = ",".join(str(listener.port) for listener in gateway.listeners)
    return f"{socket.gethostname()}:{ports}"


def _connected(sender: Sender) -> int:
    """The replicas that can be called."""
    return sender.replicas.connections


def _settings(
    gateway: GatewayConfig, deployment: DeploymentConfig, tls: CallTls, line: Line
) -> ChannelSettings:
    return ChannelSettings(
        tls=deployment.tls,
        tls_name=deployment.tls_server_name,
        call_tls=tls,
        compression=deployment.compression or gateway.compression,
        metadata=tuple(deployment.grpc_metadata.items()),
        credentials=() if deployment.secret is None else ((SECRET_HEADER, deployment.secret),),
        forwarded=gateway.forwarded,
        max_message_bytes=gateway.pool.max_executor_message_bytes,
        connect_timeout_s=gateway.pool.connect_timeout_s,
        # Executors that we start allow any number (executor/runtime.py).
        max_pings=gateway.pool.max_pings if deployment.external else 0,
        line=line,
    )


def _rules(gateway: GatewayConfig, deployment: DeploymentConfig) -> AttemptRules:
    limits = gateway.pool
    timeout_s = gateway.timeout_send_s if deployment.timeout_send_s is None else deployment.timeout_send_s
    retries = gateway.retries if deployment.retries is None else deployment.retries
    return AttemptRules(
        timeout_s=timeout_s if timeout_s is not None and timeout_s > 0 else None,
        connect_timeout_s=limits.connect_timeout_s,
        queue_timeout_s=limits.queue_timeout_s,
        retry=RetryPolicy(retries, deployment.idempotent),
    )


def _balancer(gateway: GatewayConfig, dice: random.Random) -> Balancer:
    return RoundRobin() if gateway.pool.balancing == "round_robin" else LeastInFlight(dice)
