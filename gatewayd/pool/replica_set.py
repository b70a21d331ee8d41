"""
The interchangeable replicas of a Deployment, or of one of its shards: which exist, and which is called next.

What is known of one replica is in ``replica.py``, how one of them is chosen in ``balancing.py``. There may be
ten thousand, of which each changes several times while they connect: what is known of all is counted on with
each change, never gathered anew. Reactor thread only.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import count
from operator import attrgetter
from typing import Final

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
from gatewayd.rpc.turns import Line
from gatewayd.waiters import Waiters

log = Logger()

_NUMBER: Final = attrgetter("number")


class ReplicaGone(Exception):
    """The replica that somebody waits for serves no more."""


@attrs.frozen
class ReplicaLimits:
    """What one replica is trusted with (config PoolLimits)."""

    max_in_flight: int
    eject_after_failures: int
    eject_s: float


@attrs.define(eq=False)
class _Telling:
    """What some replicas tell of themselves, all of them the same; ``serving`` counts those not foreign."""

    told: Told
    replicas: int = 0
    serving: int = 0


@attrs.frozen
class _Counted:
    """One replica as the set has counted it."""

    fit: bool = False
    connected: bool = False
    foreign: bool = False
    failed: bool = False
    telling: _Telling | None = None


_NOT_COUNTED: Final = _Counted()


class ReplicaSet:
    """
    The replicas by address.

    ``connect(address, host, on_state)`` opens a channel; ``host`` is as in ``add``. Probes of replicas wait
    for their turn in ``probes``.
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
        probes: Line,
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
        self._probes = probes
        self._closed = False
        self._numbers = count()
        self._replicas: dict[str, Replica] = {}
        self._labels: dict[str, str] = {}
        self._counted: dict[Replica, _Counted] = {}
        self._fit: list[Replica] = []  # in the order of their numbers
        self._connected = 0
        self._foreign = 0
        self._failed = 0
        self._tellings: list[_Telling] = []  # in the order in which they were told; mostly one
        self._was_connected = False
        self._told: Told | None = None
        self._united: list[Told] | None = None  # what that was made of
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
        return self._connected > 0

    @property
    def connections(self) -> int:
        """How many replicas are connected, and not foreign."""
        return self._connected

    @property
    def generations(self) -> Iterable[Generation]:
        """Those that replicas have told, the first one told first; also of replicas that are not called."""
        return (each.told.generation for each in self._tellings if each.told.generation is not None)

    @property
    def expected(self) -> bool:
        """Whether none is connected because none was needed: the first one starts when it is."""
        return self.rests and not self.connected

    @property
    def labels(self) -> Mapping[str, str]:
        """What errors call each replica, by its address."""
        return self._labels

    @property
    def reachable(self) -> Iterable[str]:
        """The addresses that a connection exists to, or may soon."""
        return (
            replica.address
            for replica in self._replicas.values()
            if replica.state != "failed" and not replica.foreign
        )

    @property
    def told(self) -> Told | None:
        """What the replicas tell of themselves; None while none of them has."""
        return self._told

    @property
    def heard(self) -> bool:
        """Whether some replica has said what it binds, even one that is not called."""
        return self._heard

    @property
    def undecided(self) -> bool:
        """
        Whether no replica has said what it binds, and one soon may: until then none is called.

        Not where all cannot be reached, or are called though they do not say it.
        """
        if self._heard or self._fit or self.rests:
            return False
        return not self._replicas or self._failed < len(self._replicas)

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
            self._united = None
            if told is not None and self._told is None:
                self._told, self._heard = told, True
            self._update()
            self._tell()

    def speak(self, generation: Generation | None) -> None:
        """Call those only that speak ``generation``, which is the Flow's, or do not say what they speak."""
        if generation != self._generation:
            self._generation = generation
            for replica in self._replicas.values():
                self._count(replica)
            self._update()
            self._tell()

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

    def forget(self, callback: Callable[[], None]) -> None:
        """Undo ``on_change``; it may be called once more if that happens while all are called."""
        self._on_change.remove(callback)

    def before_change(self, callback: Callable[[], None]) -> None:
        """As ``on_change``, before requests that wait are served."""
        self._on_change.insert(0, callback)

    def on_outage(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the last replica that was connected is so no more."""
        self._on_outage.append(callback)

    # -- coming and going ----------------------------------------------------------------------------

    def add(self, address: str, host: str | None = None) -> None:
        """A replica listens at ``address``, or will; ``host`` is the name that it was resolved from."""
        if address in self._replicas or self._closed:
            return
        health = Health(self._limits.eject_after_failures, self._limits.eject_s)
        label = address if host is None else f"{host}:{address.rpartition(':')[2]}"
        number, decisions = next(self._numbers), self._decisions
        replica = Replica(number, address, label, health, self._clock, decisions, self, self._probes)
        self._replicas[address] = replica
        self._labels[address] = label
        replica.channel = self._connect(address, host, replica.state_changed)
        self._decisions.replica("added", replica.label)
        self.changed(replica)

    def not_found(self, why: str) -> None:
        """Where its replicas are could not be found out; those that are known stay."""
        self._decisions.count("not resolved")
        self.why_empty = why

    def remove(self, address: str) -> None:
        """The replica is gone: its calls in flight fail, and are retried elsewhere."""
        if replica := self._taken_out(address):
            replica.close()
            self._tell()
        self._tell_gone(address)

    def retire(self, address: str) -> Deferred[None]:
        """Send nothing more to the replica; its calls in flight may finish. Fires when they have."""
        replica = self._taken_out(address)
        if replica is None:
            return succeed(None)
        left = replica.leave()
        self._tell()
        self._tell_gone(address)
        return left

    def known(self, address: str) -> Deferred[None]:
        """
        Fires when the replica is connected, and has said what it binds.

        Fails with ReplicaGone if it is removed, or all are closed, before that.
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
        self._labels.clear()
        self._counted.clear()
        self._fit.clear()
        self._connected = self._foreign = self._failed = 0
        for address in tuple(self._known):
            self._tell_gone(address)

    def _taken_out(self, address: str) -> Replica | None:
        replica = self._replicas.pop(address, None)
        if replica is not None:
            self._decisions.replica("removed", replica.label)
            # Before its calls fail: their slots must not go to requests in the queue.
            del self._labels[address]
            self._replace(replica, _NOT_COUNTED)
            del self._counted[replica]
            self._update()
        return replica

    # -- for replicas --------------------------------------------------------------------------------

    def changed(self, replica: Replica) -> None:
        """A replica came, or is in another state."""
        # One that is leaving counts no more.
        if not self._closed and self._replicas.get(replica.address) is replica:
            self._count(replica)
            self._update()
            self._tell()

    def out_of_reach(self, replica: Replica) -> None:
        """It may be dead: whoever has placed it can find out."""
        if not self._closed:
            self.on_out_of_reach(replica.address)

    def may_eject(self, replica: Replica) -> bool:
        """Never the last one that is fit."""
        return len(self._fit) > (replica in self._counted and self._counted[replica].fit)

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

    def _tell(self) -> None:
        """Tell everybody of a change."""
        if self._closed:
            return
        for callback in tuple(self._on_change):
            callback()
        if self._known:
            self._tell_known()
        was, self._was_connected = self._was_connected, self.connected
        if was and not self._was_connected:
            for callback in self._on_outage:
                callback()

    def _count(self, replica: Replica) -> None:
        """Count a replica as it is now."""
        self._judge(replica)
        telling = None if replica.told is None else self._telling(replica.told)
        if telling is not None:
            replica.told = telling.told  # thousands tell the same: keep it once
        self._replace(
            replica,
            _Counted(
                replica.fit,
                replica.state == "ready" and not replica.foreign,
                replica.foreign,
                replica.state == "failed",
                telling,
            ),
        )

    def _replace(self, replica: Replica, now: _Counted) -> None:
        was = self._counted.get(replica, _NOT_COUNTED)
        self._counted[replica] = now
        if now.fit and not was.fit:
            insort(self._fit, replica, key=_NUMBER)
        elif was.fit and not now.fit:
            del self._fit[bisect_left(self._fit, replica.number, key=_NUMBER)]
        self._connected += now.connected - was.connected
        self._foreign += now.foreign - was.foreign
        self._failed += now.failed - was.failed
        for each, sign in ((was, -1), (now, 1)):
            if each.telling is not None:
                each.telling.replicas += sign
                each.telling.serving += 0 if each.foreign else sign
        if was.telling is not None and not was.telling.replicas:
            self._tellings.remove(was.telling)

    def _telling(self, told: Told) -> _Telling:
        for each in self._tellings:
            if each.told is told or each.told == told:
                return each
        self._tellings.append(_Telling(told))
        return self._tellings[-1]

    def _update(self) -> None:
        """What follows from what is counted."""
        serving = [each.told for each in self._tellings if each.serving]
        told = self._told if serving == self._united else united(serving)
        # What the last replica has told is, as a rule, what the next one will tell: without it, an endpoint
        # of an executor that is started again would be served as others bind it, or not at all.
        if told is not None or (self._replicas and not self.rests):
            self._told, self._united = told, serving
            self._heard = bool(self._tellings)
        self._why_foreign = ""
        if self._foreign and self._foreign == len(self._replicas):
            self._why_foreign = self._why(next(iter(self._replicas.values())))

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
