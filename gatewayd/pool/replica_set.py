"""
The interchangeable replicas of a Deployment (or of one of its shards): who gets the next call.

What becomes of one request is in ``attempts.py``, what is known of one replica in ``replica.py``.
Everything here is on the reactor thread. Time, dice and channels are passed in.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Collection

import attrs
from twisted.internet.defer import Deferred

from gatewayd.clocks import Clock
from gatewayd.messages.request import Answer, Call
from gatewayd.pool.attempts import Sending
from gatewayd.pool.balancing import Balancer, Health
from gatewayd.pool.events import Decisions
from gatewayd.pool.replica import Channel, Replica
from gatewayd.pool.retry import RetryBudget, RetryPolicy
from gatewayd.pool.slots import Room
from gatewayd.rpc.channel import State

# What may be called, best first; see _rank.
_WAIT_FOR = 4
_NOBODY = 99


@attrs.frozen
class ReplicaRules:
    """
    How the replicas of one Deployment are treated; seconds, counts (config PoolLimits).

    ``timeout_s`` bounds one call, None for no bound. ``connect_timeout_s`` is what one request, over all
    its tries, waits for connections: with every replica down it is answered a little later than that.
    """

    timeout_s: float | None
    connect_timeout_s: float
    queue_timeout_s: float
    max_in_flight: int
    max_queued: int
    eject_after_failures: int
    eject_s: float
    retry: RetryPolicy


class ReplicaSet:
    """
    Sends calls to whichever replica is best.

    ``connect(address, host, on_state)`` opens a channel; ``host`` is as in ``add``.
    """

    def __init__(
        self,
        deployment: str,
        rules: ReplicaRules,
        *,
        connect: Callable[[str, str | None, Callable[[State], None]], Channel],
        balancer: Balancer,
        budget: RetryBudget,
        room: Room,
        clock: Clock,
        dice: random.Random,
        decisions: Decisions,
    ) -> None:
        self.deployment = deployment
        self.rules = rules
        self.clock = clock
        self.dice = dice
        self.budget = budget
        self.room = room
        self.decisions = decisions
        self.closed = False
        self.why_empty = "no replica is running"
        self._connect = connect
        self._balancer = balancer
        self._replicas: dict[str, Replica] = {}
        self._fit: tuple[Replica, ...] = ()
        self._endpoints: frozenset[str] | None = None
        # Those who take any replica, in order of arrival, and those who have tried some already. Where one
        # of the first finds no place, none behind it does.
        self._waiting: OrderedDict[Sending, None] = OrderedDict()
        self._picky: dict[Sending, None] = {}
        self._serving = False
        self._on_outage: list[Callable[[], None]] = []

    # -- who there is --------------------------------------------------------------------------------

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return tuple(self._replicas.values())

    @property
    def out(self) -> bool:
        """Whether no replica is connected, so that waiting longer has little sense."""
        return not self._fit and not any(replica.state == "ready" for replica in self._replicas.values())

    @property
    def waiting(self) -> int:
        """Requests that wait for room or for a connection."""
        return len(self._waiting) + len(self._picky)

    def labels(self) -> tuple[str, ...]:
        return tuple(replica.label for replica in self._replicas.values())

    def label(self, address: str) -> str:
        """What to call a replica that may be gone by now."""
        replica = self._replicas.get(address)
        return address if replica is None else replica.label

    def on_outage(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` whenever a change leaves no replica connected."""
        self._on_outage.append(tell)

    def add(self, address: str, host: str | None = None) -> None:
        """A replica listens at ``address``, or will; ``host`` is the name that it was resolved from."""
        if address in self._replicas or self.closed:
            return
        health = Health(self.rules.eject_after_failures, self.rules.eject_s)
        label = address if host is None else f"{host}:{address.rpartition(':')[2]}"
        replica = Replica(address, label, health, self.clock, self.decisions, self)
        self._replicas[address] = replica
        replica.channel = self._connect(address, host, replica.state_changed)
        self.decisions.replica("added", replica.label)
        self.changed()

    def remove(self, address: str) -> None:
        """The replica is gone: what it has under way fails, and is tried elsewhere."""
        if replica := self._taken_out(address):
            replica.close()
            self.changed()

    def retire(self, address: str) -> None:
        """Send nothing more to the replica; what it has under way may finish."""
        if replica := self._taken_out(address):
            replica.leave()
            self.changed()

    def _taken_out(self, address: str) -> Replica | None:
        replica = self._replicas.pop(address, None)
        if replica is not None:
            self.decisions.replica("removed", replica.label)
            # Before its calls fail: their places must not be given to those who wait.
            self._look()
        return replica

    def close(self) -> None:
        """Close every channel. Whatever is under way or waits fails with Draining."""
        self.closed = True
        for sending in (*self._picky, *self._waiting):
            sending.closed()
        for replica in self.replicas:
            replica.close()
        self._replicas.clear()
        self._fit = ()

    def serves(self, endpoint: str) -> bool:
        """Whether some replica binds ``endpoint``; True while none has told what it binds."""
        known = self._endpoints
        return known is None or endpoint in known or "/default" in known

    # -- sending -------------------------------------------------------------------------------------

    def send(self, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        """
        Get an answer from one of the replicas.

        Fails with a NetworkError that names every address that was tried, with Overloaded or Draining.
        ``timeout_s`` bounds everything: waiting, tries and pauses.
        """
        self.budget.earn()
        sending = Sending(self, call, timeout_s)
        sending.begin()
        return sending.answer

    def pick(self, tried: Collection[str]) -> Replica | None:
        """
        The best replica, or None if that has no room, or is not connected yet.

        The best is one that wasn't tried yet, is connected, and isn't ejected. These wishes are given up
        one by one, the last first.
        """
        fit = self._fit
        if fit and not tried:
            replica = fit[0] if len(fit) == 1 else self._balancer.pick(fit)
            if replica.in_flight < self.rules.max_in_flight:
                return replica
        best: list[Replica] = []
        best_rank = _NOBODY
        for replica in self._replicas.values():
            rank = _rank(replica, tried)
            if rank < best_rank:
                best_rank = rank
                best = [replica]
            elif rank == best_rank:
                best.append(replica)
        if best_rank == _WAIT_FOR:
            return None
        limit = self.rules.max_in_flight
        roomy = [replica for replica in best if replica.in_flight < limit]
        if not roomy:
            return None
        return roomy[0] if len(roomy) == 1 else self._balancer.pick(roomy)

    def fresh(self, tried: Collection[str]) -> bool:
        """Whether some replica is left that was not tried, and may answer."""
        return any(
            replica.address not in tried and replica.state != "failed" for replica in self._replicas.values()
        )

    def nobody_waits(self) -> bool:
        return not self._waiting and not self._picky

    def wait(self, sending: Sending, *, picky: bool) -> bool:
        """Queue up for a replica with room; False when the queue is full."""
        if self.waiting >= self.rules.max_queued:
            return False
        if picky:
            self._picky[sending] = None
        else:
            self._waiting[sending] = None
        return True

    def leave(self, sending: Sending) -> None:
        """Not waiting any more. Asking twice changes nothing."""
        self._picky.pop(sending, None)
        self._waiting.pop(sending, None)

    def released(self, replica: Replica) -> None:
        """A call to ``replica`` ended: somebody else may have its place."""
        replica.call_ended()
        # Ours first: those of other Deployments have waited for the gateway, ours for this replica, too.
        self.room.give()
        if self._waiting or self._picky:
            self._serve_waiting()

    def take_room(self) -> bool:
        if self.room.take():
            return True
        self.room.when_free(self._serve_waiting)
        return False

    def _serve_waiting(self) -> None:
        # A call can fail at once and come back here; the loops below then go on by themselves.
        if self._serving:
            return
        self._serving = True
        try:
            for sending in tuple(self._picky):
                if sending in self._picky and sending.try_now():
                    sending.go()
            while self._waiting:
                sending = next(iter(self._waiting))
                if not sending.try_now():
                    break
                sending.go()
        finally:
            self._serving = False

    # -- what is learnt of the replicas --------------------------------------------------------------

    def changed(self) -> None:
        """A replica came, went, or is in another state."""
        if self.closed:
            return
        self._look()
        if self._waiting or self._picky:
            self._serve_waiting()
            if self.out:
                for sending in (*self._picky, *self._waiting):
                    sending.hurry()
        if self.out:
            for tell in self._on_outage:
                tell()

    def _look(self) -> None:
        self._fit = tuple(replica for replica in self._replicas.values() if replica.fit)
        told = [replica.endpoints for replica in self._replicas.values() if replica.endpoints is not None]
        self._endpoints = frozenset().union(*told) if told else None

    def may_eject(self, replica: Replica) -> bool:
        """Never the last one that is fit."""
        return any(other is not replica for other in self._fit)


def _rank(replica: Replica, tried: Collection[str]) -> int:
    was_tried = replica.address in tried
    if replica.state == "ready":
        return 2 * was_tried + replica.health.ejected
    if replica.state == "connecting":
        return _WAIT_FOR
    return _WAIT_FOR + 1 + was_tried
