"""Scaling, with processes that are made up, and pools that say what a test wants."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs

from gatewayd.config import DeploymentConfig, ExecutorConfig, FlowConfig
from gatewayd.config.scaling import ScalingConfig
from gatewayd.service.readings import read_scaled
from gatewayd.service.roster import Roster
from gatewayd.service.scaling import Autoscaler, ScaledPart
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.supervisor.scaling import Load
from gatewayd.supervisor.supervisor import Supervisor
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading
from tests.supervisor.fakes import FakeGroups, FakeProcess, FakeReactor

LIMITS = ScalingConfig(most=3, least=0, target_in_flight=2, up_after_s=4, down_after_s=20)
A = DeploymentConfig("a", executor=ExecutorConfig(uses="A"), scaling=LIMITS)


class FakeServing:
    """What is called: ``work`` is under way by replica, ``queued`` of all."""

    def __init__(self, flow: FlowConfig) -> None:
        self.flow = flow
        self.addresses: dict[ReplicaId, str] = {}
        self.work: dict[ReplicaId, int] = {}
        self.queued = 0
        self.told: list[Any] = []
        self.needed: Any = None
        self.finished: dict[ReplicaId, Deferred[None]] = {}

    def loads(self, parts: Any) -> dict[tuple[str, int], Load]:
        return {("a", 0): Load(sum(self.work.values()), self.queued)}

    def in_flight(self) -> dict[ReplicaId, int]:
        return self.work

    def admit(self, replica: ReplicaId) -> None:
        self.told.append(("admit", replica.replica))

    def rest(self, deployment: str, shard: int, rests: bool) -> None:
        self.told.append(("rest", rests))

    def known(self, replica: ReplicaId) -> Deferred[None]:
        return succeed(None)

    def give_up(self, replica: ReplicaId) -> Deferred[None]:
        self.told.append(("give up", replica.replica))
        self.addresses.pop(replica, None)
        self.work.pop(replica, None)
        return self.finished.setdefault(replica, Deferred())


class Setup:
    """A gateway that serves ``a``."""

    def __init__(self, deployment: DeploymentConfig = A) -> None:
        self.reactor = FakeReactor()
        flow = FlowConfig(deployments=(deployment,))
        self.serving: Any = FakeServing(flow)
        self.supervisor = Supervisor(
            self.reactor,
            flow.deployments,
            self.serving.addresses.__setitem__,
            lambda replica: self.serving.addresses.pop(replica, None),
            environment={},
            dice=lambda: 0.5,
            kill_group=FakeGroups().kill,
        )
        self.supervisor.start()
        self.processes[0].serve()
        self.roster = Roster(flow, self.supervisor)
        self.scaler = Autoscaler(self.serving, self.roster, self.supervisor, self.reactor)
        self.scaler.update()

    @property
    def processes(self) -> list[FakeProcess]:
        return self.reactor.processes

    def limits(self, **changed: Any) -> None:
        deployment = attrs.evolve(A, scaling=attrs.evolve(LIMITS, **changed))
        self.serving.flow = FlowConfig(deployments=(deployment,))
        self.scaler.update()

    def pass_s(self, seconds: float) -> None:
        self.reactor.pump([0.5] * int(seconds * 2))

    def work(self, *in_flight: int, queued: int = 0) -> None:
        """So much is under way at each replica that serves."""
        at = sorted(self.serving.addresses, key=attrs.astuple)
        self.serving.work = dict(zip(at, in_flight, strict=True))
        self.serving.queued = queued

    def replicas(self) -> list[int]:
        return sorted(each.replica for each in self.roster.replicas)


@pytest.fixture
def setup() -> Setup:
    return Setup()


def up_to_three(setup: Setup) -> None:
    setup.work(6)
    setup.pass_s(6)
    setup.processes[1].serve()
    setup.pass_s(6)
    setup.processes[2].serve()
    assert setup.replicas() == [0, 1, 2]


def test_a_load_that_stays_has_a_replica_added_and_the_log_says_why(setup: Setup) -> None:
    setup.work(3, queued=1)

    with capturedLogs() as logged:
        setup.pass_s(6)

    assert setup.serving.told == [("admit", 1)]
    assert setup.processes[1].spec.replica == 1
    assert "a: 1 -> 2 replicas: 3 in flight and 1 queued, 2 wanted for each" in [
        each["log_format"].format(**each) for each in logged
    ]


def test_no_more_are_added_before_it_serves(setup: Setup) -> None:
    setup.work(6)
    setup.pass_s(60)
    assert setup.replicas() == [0, 1]

    setup.processes[1].serve()
    setup.pass_s(6)

    assert setup.replicas() == [0, 1, 2]


def test_those_with_least_to_do_end_after_their_last_answers(setup: Setup) -> None:
    up_to_three(setup)
    setup.work(0, 1, 0)
    setup.pass_s(22)

    assert setup.replicas() == [1]
    assert setup.serving.told[-2:] == [("give up", 2), ("give up", 0)]
    assert [each.signals for each in setup.processes] == [[], [], []]

    setup.serving.finished[ReplicaId("a", 0, 0)].callback(None)
    assert [each.signals for each in setup.processes] == [["TERM"], [], []]


def test_a_number_that_is_free_is_given_again_and_one_that_ends_is_not(setup: Setup) -> None:
    up_to_three(setup)
    setup.work(1, 0, 0)
    setup.pass_s(22)
    assert setup.replicas() == [0]
    (two,) = [each for each in setup.serving.finished if each.replica == 2]
    setup.serving.finished[two].callback(None)
    next(each for each in setup.processes if each.spec.replica == 2).exit()

    setup.work(4)
    setup.pass_s(6)

    assert setup.replicas() == [0, 2]
    assert len({each.incarnation for each in setup.roster.replicas}) == 2


def test_nothing_is_scaled_while_a_reload_runs(setup: Setup) -> None:
    setup.roster.busy = True
    setup.work(6)
    setup.pass_s(60)
    assert setup.replicas() == [0]

    setup.roster.busy = False
    setup.pass_s(6)

    assert setup.replicas() == [0, 1]


def test_a_request_has_a_first_one_started_even_then(setup: Setup) -> None:
    setup.pass_s(22)
    setup.roster.busy = True
    setup.serving.queued = 9
    setup.serving.needed()
    setup.pass_s(30)

    assert setup.replicas() == [1]


def test_the_last_one_ends_if_none_is_needed_and_a_request_starts_one_at_once(setup: Setup) -> None:
    setup.pass_s(22)
    assert setup.serving.told == [("rest", True), ("give up", 0)]
    assert setup.scaler.parts() == (ScaledPart("a", 0, 0, 0, 0, 1),)

    setup.serving.queued = 1
    setup.serving.needed()
    setup.serving.needed()
    setup.reactor.advance(0)

    assert len(setup.processes) == 2
    assert setup.serving.told[2:] == [("admit", 1)]  # the other one ends still
    setup.processes[1].serve()
    assert setup.serving.told[3:] == [("rest", False)]


def test_a_first_one_that_cannot_start_is_waited_for_no_longer(setup: Setup) -> None:
    setup.pass_s(22)
    setup.serving.queued = 1
    setup.serving.needed()
    setup.reactor.advance(0)

    setup.processes[1].report(event="failed", error="no GPU")
    setup.processes[1].exit(1)

    assert setup.serving.told[-1] == ("rest", False)
    assert setup.replicas() == [1]


def test_other_limits_are_taken_up_without_a_restart(setup: Setup) -> None:
    up_to_three(setup)

    setup.limits(most=2)
    setup.pass_s(1)

    assert setup.replicas() == [0, 1]
    assert len(setup.processes) == 3


def test_while_the_gateway_stops_only_what_is_waited_for_is_started(setup: Setup) -> None:
    setup.pass_s(22)
    setup.scaler.stop()
    setup.serving.queued = 1
    setup.serving.needed()
    setup.reactor.advance(0)
    assert len(setup.processes) == 2

    setup.supervisor.stop(1.0)
    setup.serving.queued = 9
    setup.pass_s(60)

    assert len(setup.processes) == 2


def test_figures_tell_what_is_wanted_and_how_often_that_has_changed(setup: Setup) -> None:
    up_to_three(setup)
    reading = Reading()

    read_scaled(reading, setup.scaler.parts())

    assert reading.number(table.WANTED, "a", "0") == 3
    assert reading.number(table.SCALED, "a", "0", "up") == 2
    assert reading.number(table.SCALED, "a", "0", "down") == 0


def test_shards_scale_each_by_itself() -> None:
    setup = Setup(attrs.evolve(A, shards=2, scaling=attrs.evolve(LIMITS, least=1)))
    setup.processes[1].serve()
    setup.serving.work = {ReplicaId("a", 0, 0): 6}  # of shard 0

    setup.pass_s(6)

    assert [(each.spec.shard, each.spec.replica) for each in setup.processes] == [(0, 0), (1, 0), (0, 1)]
