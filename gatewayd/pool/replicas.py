"""
The interchangeable replicas of a Deployment: who there is, who is well, and who gets the next call.

What becomes of one request is in ``sending.py``. Everything here is on the reactor thread. Time, dice
and channels are passed in.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.pool.balancing import Balancer, Health
from gatewayd.pool.channel import CallError, State
from gatewayd.pool.retry import RetryBudget, RetryPolicy
from gatewayd.pool.sending import Sending
from gatewayd.request import Answer, Call

log = Logger()

_PROBE_TIMEOUT_S = 1.0


class Channel(Protocol):
    """What is needed of pool.channel.Channel."""

    def call(self, call: Call, timeout_s: float | None) -> Deferred[Answer]: ...
    def endpoints(self, timeout_s: float) -> Deferred[tuple[str, ...]]: ...
    def close(self) -> Deferred[None]: ...


class Timer(Protocol):
    """The part of Timer that is used here."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """The part of IReactorTime that is used here."""

    def seconds(self) -> float: ...
    def callLater(self, delay: float, callable: Callable[..., object], *args: Any) -> Timer: ...


@attrs.frozen
class ReplicaRules:
    """How the replicas of one Deployment are treated; seconds, counts (config PoolLimits)."""

    timeout_s: float | None
    connect_timeout_s: float
    queue_timeout_s: float
    max_in_flight: int
    max_queued: int
    eject_after_failures: int
    eject_s: float
    retry: RetryPolicy


class Room:
    """How many calls the whole gateway may have under way; sets that wait are told when there is room."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: dict[Callable[[], None], None] = {}  # a set that keeps order

    def take(self) -> bool:
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def give(self) -> None:
        self._free += 1
        if self._waiting:
            tell = next(iter(self._waiting))
            del self._waiting[tell]
            tell()

    def when_free(self, tell: Callable[[], None]) -> None:
        self._waiting[tell] = None


class Replica:
    """One address that answers for the set."""

    __slots__ = ("address", "channel", "discovery", "endpoints", "health", "in_flight", "probe", "state")

    def __init__(self, address: str, health: Health) -> None:
        self.address = address
        self.channel: Channel
        self.endpoints: tuple[str, ...] | None = None
        self.health = health
        self.in_flight = 0
        self.probe: Timer | None = None
        self.discovery: Timer | None = None
        self.state: State = "connecting"


class ReplicaSet:
    """
    Sends calls to whichever replica is best.

    ``connect(address, on_state)`` opens a channel. ``counters`` are shared by the pool, keyed by
    (decision, Deployment).
    """

    def __init__(
        self,
        deployment: str,
        rules: ReplicaRules,
        *,
        connect: Callable[[str, Callable[[State], None]], Channel],
        balancer: Balancer,
        budget: RetryBudget,
        room: Room,
        clock: Clock,
        dice: random.Random,
        counters: Counter[tuple[str, str]],
    ) -> None:
        self.deployment = deployment
        self.rules = rules
        self.clock = clock
        self.dice = dice
        self.budget = budget
        self.room = room
        self._connect = connect
        self._balancer = balancer
        self._counters = counters
        self._replicas: dict[str, Replica] = {}
        self._waiting: deque[Sending] = deque()
        self._serving = False

    # -- who there is --------------------------------------------------------------------------------

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return tuple(self._replicas.values())

    def add(self, address: str) -> None:
        """A replica listens at ``address``, or will."""
        if address in self._replicas:
            return
        replica = Replica(address, Health(self.rules.eject_after_failures, self.rules.eject_s))
        self._replicas[address] = replica
        replica.channel = self._connect(address, lambda state: self._state_changed(replica, state))
        self.count("added")
        self._serve_waiting()

    def remove(self, address: str) -> None:
        """The replica is gone: what it has under way fails and is tried elsewhere."""
        replica = self._replicas.pop(address, None)
        if replica is not None:
            for timer in (replica.probe, replica.discovery):
                if timer is not None:
                    timer.cancel()
            replica.probe = replica.discovery = None
            self.count("removed")
            replica.channel.close().addErrback(self._log_failure, "closing the channel to {address}", address)

    def close(self) -> None:
        for address in list(self._replicas):
            self.remove(address)

    def serves(self, endpoint: str) -> bool:
        """Whether some replica binds ``endpoint``; True while none has told what it binds."""
        known = False
        for replica in self._replicas.values():
            if replica.endpoints is not None:
                known = True
                if endpoint in replica.endpoints or "/default" in replica.endpoints:
                    return True
        return not known

    # -- sending -------------------------------------------------------------------------------------

    def send(self, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        """
        Get an answer from one of the replicas.

        Fails with a NetworkError that names every address that was tried, or with Overloaded.
        ``timeout_s`` bounds everything: waiting, tries and pauses.
        """
        self.budget.earn()
        sending = Sending(self, call, timeout_s)
        sending.begin()
        return sending.answer

    def pick(self, tried: set[str]) -> Replica | None:
        """
        The best replica with room: one that wasn't tried yet, is connected, and isn't ejected.

        Each of these wishes is given up, the last first, rather than give none at all.
        """
        limit = self.rules.max_in_flight
        best: list[Replica] = []
        best_rank = 99
        for replica in self._replicas.values():
            if replica.in_flight >= limit:
                continue
            rank = 0 if replica.state == "ready" else 1 if replica.state == "connecting" else 2
            if replica.health.ejected:
                rank += 3
            if replica.address in tried:
                rank += 6
            if rank < best_rank:
                best_rank = rank
                best = [replica]
            elif rank == best_rank:
                best.append(replica)
        if not best:
            return None
        return best[0] if len(best) == 1 else self._balancer.pick(best)

    def untried(self, tried: set[str]) -> bool:
        """Whether some replica is left that was not tried."""
        return any(address not in tried for address in self._replicas)

    def wait(self, sending: Sending) -> bool:
        """Queue up for a replica with room; False when the queue is full."""
        if len(self._waiting) >= self.rules.max_queued:
            return False
        self._waiting.append(sending)
        return True

    def leave(self, sending: Sending) -> None:
        self._waiting.remove(sending)

    def released(self, replica: Replica) -> None:
        """A call to ``replica`` ended: somebody else may have its place."""
        replica.in_flight -= 1
        self.room.give()
        if self._waiting:
            self._serve_waiting()

    def nobody_waits(self) -> bool:
        return not self._waiting

    def _serve_waiting(self) -> None:
        # A call can fail at once and come back here; the loop below then goes on by itself.
        if self._serving:
            return
        self._serving = True
        try:
            while self._waiting and self._waiting[0].try_now():
                self._waiting.popleft().go()
        finally:
            self._serving = False

    def take_room(self) -> bool:
        if self.room.take():
            return True
        self.room.when_free(self._serve_waiting)
        return False

    # -- what is learnt of a replica -----------------------------------------------------------------

    def succeeded(self, replica: Replica) -> None:
        health = replica.health
        if health.failures or health.ejected:
            self._restore(replica)

    def failed(self, replica: Replica, error: CallError) -> None:
        # A refusal is the executor's own word; only silence and lost connections are held against it.
        if error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"):
            pause_s = replica.health.failed()
            if pause_s is not None and self._replicas.get(replica.address) is replica:
                self.count("ejected")
                log.warn(
                    "{deployment}: {address} ejected for {pause_s} s: {failures} failures, the last {error}",
                    deployment=self.deployment,
                    address=replica.address,
                    pause_s=pause_s,
                    failures=replica.health.failures,
                    error=str(error),
                )
                replica.probe = self.clock.callLater(pause_s, self._probe, replica)

    def _probe(self, replica: Replica) -> None:
        replica.probe = None

        def alive(endpoints: tuple[str, ...]) -> None:
            replica.endpoints = endpoints
            self._restore(replica)

        def dead(failure: Failure) -> None:
            failure.trap(CallError, CancelledError)
            if self._replicas.get(replica.address) is replica and replica.health.ejected:
                replica.probe = self.clock.callLater(replica.health.probe_failed(), self._probe, replica)

        replica.channel.endpoints(_PROBE_TIMEOUT_S).addCallbacks(alive, dead).addErrback(
            self._log_failure, "probing {address}", replica.address
        )

    def _restore(self, replica: Replica) -> None:
        if replica.health.ejected:
            self.count("restored")
            log.info("{deployment}: {address} is back", deployment=self.deployment, address=replica.address)
        if replica.probe is not None:
            replica.probe.cancel()
            replica.probe = None
        replica.health.succeeded()
        self._serve_waiting()

    def _state_changed(self, replica: Replica, state: State) -> None:
        if self._replicas.get(replica.address) is not replica:
            return
        was, replica.state = replica.state, state
        if state == "ready":
            self.count("connected")
            log.info(
                "{deployment}: connected to {address}", deployment=self.deployment, address=replica.address
            )
            # A new process behind the address may bind other endpoints, and has done nothing wrong yet.
            self._discover(replica)
            self._restore(replica)
        elif was == "ready":
            self.count("lost")
            log.warn("{deployment}: lost {address}", deployment=self.deployment, address=replica.address)

    def _discover(self, replica: Replica) -> None:
        replica.discovery = None

        def learnt(endpoints: tuple[str, ...]) -> None:
            replica.endpoints = endpoints

        def failed(failure: Failure) -> None:
            failure.trap(CallError, CancelledError)
            if self._replicas.get(replica.address) is replica and replica.state == "ready":
                # Until it answers, the executor is called for every endpoint, as is right.
                replica.discovery = self.clock.callLater(1.0, self._discover, replica)

        replica.channel.endpoints(_PROBE_TIMEOUT_S).addCallbacks(learnt, failed).addErrback(
            self._log_failure, "discovering the endpoints of {address}", replica.address
        )

    def _log_failure(self, failure: Failure, what: str, address: str) -> None:
        if not failure.check(CancelledError):
            log.failure(what, failure=failure, address=address)

    def count(self, decision: str) -> None:
        self._counters[decision, self.deployment] += 1
