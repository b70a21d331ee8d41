"""
Adds replicas while executors have more to do than they should, and ends those that nobody needs.

    Serving, or Workers ── load ──> Policy (supervisor/scaling.py) ── decision ──> Roster, Serving, Supervisor

A replica that is added is called as soon as it is up; one that is given up gets no further request, and ends
after its last answer. While a reload runs, only a first replica that requests wait for is started. Reactor
thread only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.clocks import Clock, Timer
from gatewayd.config import FlowConfig
from gatewayd.config.model import DeploymentConfig
from gatewayd.errors import Draining
from gatewayd.pool.replica_set import ReplicaGone
from gatewayd.service.roster import Roster
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.supervisor.scaling import Decision, Load, PartKey, Policy, pause_s
from gatewayd.supervisor.supervisor import NotStarted

log = Logger()


class Scaled(Protocol):
    """
    Who calls replicas: ``Serving``, or ``Workers``.

    ``needed`` is called when a call waits for the first replica of an executor that has none.
    """

    needed: Callable[[], None]

    @property
    def flow(self) -> FlowConfig: ...

    @property
    def addresses(self) -> Mapping[ReplicaId, str]:
        """Where those serve that are up."""
        ...

    def loads(self, parts: Collection[PartKey]) -> Mapping[PartKey, Load]:
        """What is under way now at each of ``parts``; nothing at those that are left out."""
        ...

    def in_flight(self) -> Mapping[ReplicaId, int]:
        """What each of those that are up works on; nothing if it is left out."""
        ...

    def admit(self, replica: ReplicaId) -> None: ...
    def known(self, replica: ReplicaId) -> Deferred[None]: ...
    def rest(self, deployment: str, shard: int, rests: bool) -> None: ...
    def give_up(self, replica: ReplicaId) -> Deferred[None]: ...


class Starting(Protocol):
    """The part of a ``Supervisor`` that is used here."""

    def started(self, replicas: list[ReplicaId], /) -> Deferred[None]: ...


@attrs.frozen
class ScaledPart:
    """
    A Deployment, or a shard of it, whose replicas come and go: how many are wanted, and how many serve.

    ``ups`` and ``downs`` count decisions from the start on.
    """

    deployment: str
    shard: int
    wanted: int
    serving: int
    ups: int
    downs: int


class Autoscaler:
    """Scales what ``serving`` serves, by way of its ``roster``."""

    def __init__(self, serving: Scaled, roster: Roster, supervisor: Starting, clock: Clock) -> None:
        self._serving = serving
        self._roster = roster
        self._supervisor = supervisor
        self._clock = clock
        self._policies: dict[PartKey, Policy] = {}
        self._starting: set[ReplicaId] = set()  # that have neither served nor failed
        self._decided: Counter[tuple[str, int, bool]] = Counter()  # by part, and whether it was upwards
        self._timer: Timer | None = None
        self._soon: Timer | None = None
        self._stopped = False
        serving.needed = self._look_soon

    def update(self) -> None:
        """Another Flow serves, or the first one."""
        policies: dict[PartKey, Policy] = {}
        for deployment in self._serving.flow.deployments:
            if deployment.scaling is None:
                continue
            for shard in range(deployment.shards):
                key = deployment.name, shard
                policy = policies[key] = self._policies.get(key) or Policy(deployment.scaling, 0)
                policy.settings = deployment.scaling
                policy.wanted = len(self._roster.of(*key))
        self._policies = policies
        if self._timer is None and policies and not self._stopped:
            self._look_later()

    def parts(self) -> tuple[ScaledPart, ...]:
        """All that is scaled."""
        return tuple(
            ScaledPart(
                name,
                shard,
                policy.wanted,
                sum(each in self._serving.addresses for each in self._roster.of(name, shard)),
                self._decided[name, shard, True],
                self._decided[name, shard, False],
            )
            for (name, shard), policy in self._policies.items()
        )

    def stop(self) -> None:
        """The gateway is being stopped: nothing changes any more, but what is waited for is started."""
        self._stopped = True
        self._roster.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- looking -------------------------------------------------------------------------------------

    def _look_later(self) -> None:
        pause = pause_s(each.settings for each in self._policies.values())
        self._timer = self._clock.callLater(pause, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        try:
            self._look()
        finally:
            if self._policies and not self._stopped:
                self._look_later()

    def _look_soon(self) -> None:
        """A call waits for the first replica. It is in the middle of that now."""
        if self._soon is None:
            self._soon = self._clock.callLater(0, self._look_at_once)

    def _look_at_once(self) -> None:
        self._soon = None
        self._look()

    def _look(self) -> None:
        only_first = self._roster.busy or self._stopped
        loads, now_s = self._serving.loads(self._policies.keys()), self._clock.seconds()
        for key, policy in self._policies.items():
            if only_first and policy.wanted:
                continue
            decision = policy.judge(
                now_s,
                loads.get(key, Load()),
                starting=any((each.deployment, each.shard) == key for each in self._starting),
                ending=bool(self._roster.ending(*key)),
            )
            if decision is not None:
                self._act(*key, decision)

    # -- acting --------------------------------------------------------------------------------------

    def _act(self, name: str, shard: int, decision: Decision) -> None:
        deployment = next(each for each in self._serving.flow.deployments if each.name == name)
        what = f"{name}/shard-{shard}" if deployment.shards > 1 else name
        log.info("{what}: {decision}", what=what, decision=str(decision))
        more = decision.wanted - decision.before
        self._decided[name, shard, more > 0] += 1
        if more > 0:
            self._add(deployment, shard, more)
        else:
            self._give_up(name, shard, -more)

    def _add(self, deployment: DeploymentConfig, shard: int, count: int) -> None:
        name = deployment.name
        incarnation = self._roster.next_incarnation()
        added = [
            ReplicaId(name, shard, number, incarnation)
            for number in _free_numbers(
                count,
                {each.replica for each in self._roster.of(name, shard)},
                {each.replica for each in self._roster.ending(name, shard)},
                deployment.most_replicas,
            )
        ]
        for each in added:
            self._serving.admit(each)
        self._roster.add(deployment, added, self._serving.flow.base_dir)
        for each in added:
            self._starting.add(each)
            started = self._supervisor.started([each])
            started.addCallbacks(self._served, self._failed, callbackArgs=(each,), errbackArgs=(each,))
            started.addErrback(lambda failure: log.failure("scaling", failure=failure))

    def _served(self, _: None, replica: ReplicaId) -> None:
        self._starting.discard(replica)
        if replica in self._roster.replicas:  # else it was ended before
            known = self._serving.known(replica)
            known.addErrback(lambda failure: failure.trap(ReplicaGone, CancelledError) and None)
            known.addCallback(lambda _: self._rests_no_more(replica))

    def _failed(self, failure: Failure, replica: ReplicaId) -> None:
        failure.trap(NotStarted, Draining)
        self._starting.discard(replica)
        if failure.check(NotStarted):
            # It is tried again and again; nobody is to wait for it as for one that is about to serve.
            self._rests_no_more(replica)

    def _rests_no_more(self, replica: ReplicaId) -> None:
        if replica in self._roster.replicas:
            self._serving.rest(replica.deployment, replica.shard, False)

    def _give_up(self, name: str, shard: int, count: int) -> None:
        those = self._roster.of(name, shard)
        busy, serve = self._serving.in_flight(), self._serving.addresses

        def cheapest(each: ReplicaId) -> tuple[int, int]:
            """Those that don't serve, and those that have least to finish."""
            return (busy.get(each, 0) if each in serve else -1, -each.replica)

        ordered = sorted(those, key=cheapest)
        if count >= len(ordered):
            self._serving.rest(name, shard, True)
        gone = ordered[:count]
        self._starting.difference_update(gone)
        self._roster.give_up(self._serving, gone, self._serving.flow.gateway.grace_period_s)


def _free_numbers(count: int, taken: set[int], ending: set[int], most: int) -> list[int]:
    """
    Numbers for further replicas: the lowest ones that no other has, so that a device that is free is given
    again. Those of replicas that still end come last.
    """
    ordered = sorted(set(range(most)) - taken, key=lambda number: (number in ending, number))
    return ordered[:count]
