"""
The interchangeable replicas of a Deployment, or of one of its shards: which exist, and which is called next.

What is known of one replica is in ``replica.py``, how one of them is chosen in ``balancing.py``.
Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from gatewayd.clocks import Clock
from gatewayd.messages.discovery import DEFAULT, DRY_RUN, Told, united
from gatewayd.messages.generations import NAMED, Generation
from gatewayd.pool.balancing import Balancer, Health, choose
from gatewayd.pool.events import Decisions
from gatewayd.pool.replica import ExecutorChannel, Replica
from gatewayd.rpc.link import State
from gatewayd.waiters import Waiters

log = Logger()


class ReplicaGone(Exception):
    """The replica that somebody waits for serves no more."""


@attrs.frozen
class ReplicaLimits:
    """What one replica is trusted with (config PoolLimits)."""

    max_in_flight: int
    eject_after_failures: int
    eject_s: float


class ReplicaSet:
    """
    The replicas by address.

    ``connect(address, host, on_state)`` opens a channel; ``host`` is as in ``add``.
    """

    def __init__(
        self,
        deployment: str,
        limits: ReplicaLimits,
        *,
        connect: Callable[[str, str | None, Callable[[State], None]], ExecutorChannel],
        balancer: Balancer,
        clock: Clock,
        decisions: Decisions,
    ) -> None:
        self.deployment = deployment
        self.why_empty = "no replica is running"
        # Zero replicas may be wanted now, or the first one is on its way (``Pool.rest``).
        self.rests = False
        # A call begins to wait for the first one.
        self.on_needed: Callable[[], None] = _nothing
        # The connection to an address was lost, or cannot be made.
        self.on_out_of_reach: Callable[[str], None] = _nothing_at
        self._limits = limits
        self._connect = connect
        self._balancer = balancer
        self._clock = clock
        self._decisions = decisions
        self._closed = False
        self._replicas: dict[str, Replica] = {}
        self._fit: tuple[Replica, ...] = ()
        self._told: Told | None = None
        self._generation: Generation | None = None  # the Flow's
        self._heard = False
        self._why_foreign = ""
        self._on_change: list[Callable[[], None]] = []
        self._on_outage: list[Callable[[], None]] = []
        self._known: dict[str, Waiters[None]] = {}  # by address: who waits for it

    # -- what is known -------------------------------------------------------------------------------

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return tuple(self._replicas.values())

    @property
    def connected(self) -> bool:
        """Whether at least one replica is; while none is, waiting longer is mostly pointless."""
        return bool(self._fit) or any(
            replica.state == "ready" and not replica.foreign for replica in self._replicas.values()
        )

    @property
    def expected(self) -> bool:
        """Whether none is connected because none was needed: the first one starts when it is."""
        return self.rests and not self.connected

    @property
    def labels(self) -> Mapping[str, str]:
        """What errors call each replica, by its address."""
        return {replica.address: replica.label for replica in self._replicas.values()}

    @property
    def reachable(self) -> Collection[str]:
        """The addresses that a connection exists to, or may soon."""
        return [
            replica.address
            for replica in self._replicas.values()
            if replica.state != "failed" and not replica.foreign
        ]

    @property
    def told(self) -> Told | None:
        """What the replicas tell of themselves; None while none of them has."""
        return self._told

    @property
    def heard(self) -> bool:
        """Whether some replica has said what it binds, even one that is not called."""
        return self._heard

    @property
    def why_foreign(self) -> str:
        """Why none of the replicas is called; empty while one of them may be."""
        return self._why_foreign

    def rest(self, rests: bool, told: Told | None = None) -> None:
        """
        Whether it is right that there is no replica.

        What the last one has told is remembered then; ``told`` is that of the replicas before these.
        """
        if rests != self.rests or told is not None:
            self.rests = rests
            if told is not None and self._told is None:
                self._told, self._heard = told, True
            self.changed()

    def speak(self, generation: Generation | None) -> None:
        """Call those only that speak ``generation``, which is the Flow's, or do not say what they speak."""
        if generation != self._generation:
            self._generation = generation
            self.changed()

    def serves(self, endpoint: str) -> bool:
        """Whether some replica binds ``endpoint``; True while no replica has said what it binds."""
        if endpoint == DRY_RUN and self.expected:
            return False  # it starts none, and fails for none
        told = self._told
        return told is None or endpoint in told.bound or DEFAULT in told.bound

    def streams(self, endpoint: str) -> bool:
        """Whether ``endpoint`` streams, or what answers those that no replica binds; False while unknown."""
        told = self._told
        if told is None or not told.streaming:
            return False
        return endpoint in told.streaming or (endpoint not in told.bound and DEFAULT in told.streaming)

    def pick(self, tried: Collection[str]) -> Replica | None:
        """The best replica that is not in ``tried``, if it has a free slot; see ``balancing.choose``."""
        fit = self._fit
        if fit and not tried:
            replica = fit[0] if len(fit) == 1 else self._balancer.pick(fit)
            if replica.in_flight < self._limits.max_in_flight:
                return replica
        candidates = [
            replica for replica in self._replicas.values() if not replica.foreign and not replica.held_back
        ]
        return choose(candidates, tried, self._limits.max_in_flight, self._balancer)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every change of a replica, and of which there are."""
        self._on_change.append(callback)

    def before_change(self, callback: Callable[[], None]) -> None:
        """As ``on_change``, before requests that wait are served."""
        self._on_change.insert(0, callback)

    def on_outage(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every change that leaves no replica connected."""
        self._on_outage.append(callback)

    # -- coming and going ----------------------------------------------------------------------------

    def add(self, address: str, host: str | None = None) -> None:
        """A replica listens at ``address``, or will; ``host`` is the name that it was resolved from."""
        if address in self._replicas or self._closed:
            return
        health = Health(self._limits.eject_after_failures, self._limits.eject_s)
        label = address if host is None else f"{host}:{address.rpartition(':')[2]}"
        replica = Replica(address, label, health, self._clock, self._decisions, self)
        self._replicas[address] = replica
        replica.channel = self._connect(address, host, replica.state_changed)
        self._decisions.replica("added", replica.label)
        self.changed()

    def not_found(self, why: str) -> None:
        """Where its replicas are could not be found out; those that are known stay."""
        self._decisions.count("not resolved")
        self.why_empty = why

    def remove(self, address: str) -> None:
        """The replica is gone: its calls in flight fail, and are retried elsewhere."""
        if replica := self._taken_out(address):
            replica.close()
            self.changed()
        self._tell_gone(address)

    def retire(self, address: str) -> Deferred[None]:
        """Send nothing more to the replica; its calls in flight may finish. Fires when they have."""
        replica = self._taken_out(address)
        if replica is None:
            return succeed(None)
        left = replica.leave()
        self.changed()
        self._tell_gone(address)
        return left

    def known(self, address: str) -> Deferred[None]:
        """
        Fires when the replica is connected, and has said what it binds.

        Fails with ReplicaGone if it is removed before that.
        """
        waiting = self._known.setdefault(address, Waiters()).wait()
        self._tell_known()
        return waiting

    def close(self) -> None:
        """Close every channel: calls in flight fail. Nothing can be added any more."""
        self._closed = True
        for replica in self.replicas:
            replica.close()
        self._replicas.clear()
        self._fit = ()

    def _taken_out(self, address: str) -> Replica | None:
        replica = self._replicas.pop(address, None)
        if replica is not None:
            self._decisions.replica("removed", replica.label)
            # Before its calls fail: their slots must not go to requests in the queue.
            self._update()
        return replica

    # -- for replicas --------------------------------------------------------------------------------

    def changed(self) -> None:
        """A replica came, went, or is in another state."""
        if self._closed:
            return
        self._update()
        for callback in self._on_change:
            callback()
        if self._known:
            self._tell_known()
        if not self.connected:
            for callback in self._on_outage:
                callback()

    def out_of_reach(self, replica: Replica) -> None:
        """It may be dead: whoever has placed it can find out."""
        if not self._closed:
            self.on_out_of_reach(replica.address)

    def may_eject(self, replica: Replica) -> bool:
        """Never the last one that is fit."""
        return any(other is not replica for other in self._fit)

    def _tell_known(self) -> None:
        for address, waiters in tuple(self._known.items()):
            replica = self._replicas.get(address)
            if replica is not None and (replica.fit or replica.foreign) and replica.told is not None:
                del self._known[address]
                waiters.fire(None)

    def _tell_gone(self, address: str) -> None:
        waiters = self._known.pop(address, None)
        if waiters is not None:
            waiters.fail(ReplicaGone())

    def _update(self) -> None:
        every = self._replicas.values()
        for replica in every:
            self._judge(replica)
        self._fit = tuple(replica for replica in every if replica.fit)
        told = united(each.told for each in every if each.told is not None and not each.foreign)
        if told is not None or not self.rests:
            self._told = told
            self._heard = any(each.told is not None for each in every)
        foreign = [each for each in every if each.foreign]
        self._why_foreign = self._why(foreign[0]) if foreign and len(foreign) == len(every) else ""

    def _judge(self, replica: Replica) -> None:
        """Whether it speaks the Flow's generation of documents."""
        told = None if replica.told is None else replica.told.generation
        foreign = None not in (told, self._generation) and told != self._generation
        if foreign and not replica.foreign:
            log.warn(
                "{deployment}: {address} is not called: {why}",
                deployment=self.deployment,
                address=replica.label,
                why=self._why(replica),
            )
        replica.foreign = foreign
        # Whatever the others speak: a new process behind an address may speak another generation.
        replica.held_back = replica.unheard

    def _why(self, foreign: Replica) -> str:
        assert foreign.told is not None
        assert foreign.told.generation is not None
        assert self._generation is not None
        return (
            f"it speaks {NAMED[foreign.told.generation]}, and the Flow {NAMED[self._generation]} "
            "(docarray in the Flow file says which, or the executors that told it first)"
        )


def _nothing() -> None:
    """Nobody wants to know."""


def _nothing_at(address: str) -> None:
    """Nobody wants to know."""
