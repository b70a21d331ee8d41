"""Replicas on Ray, as the supervisor keeps them: with a driver that the test plays."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from gatewayd.backoff import Backoff
from gatewayd.config import DeploymentConfig
from gatewayd.config.ray import RayCluster, RayOptions
from gatewayd.supervisor.ray import RayPlacement
from gatewayd.supervisor.replica_id import replicas_of
from gatewayd.supervisor.supervisor import Supervisor
from tests.supervisor.fakes import FakeGroups, FakeReactor

ON_RAY = DeploymentConfig("a", placement="ray", replicas=2)
DETACHED = attrs.evolve(ON_RAY, replicas=1, ray=RayOptions(detached=True))


class Setup:
    """A supervisor whose replicas are on Ray. ``driver`` is the process that runs now."""

    def __init__(self, deployment: DeploymentConfig = ON_RAY) -> None:
        self.reactor: Any = FakeReactor()
        self.told: list[tuple[Any, ...]] = []
        backoff = Backoff(first_s=1.0, ceiling_s=8.0, low=1.0, high=1.0)
        self.engine = RayPlacement(
            self.reactor,
            RayCluster("head:6379"),
            "search",
            "the secret",
            detached=deployment.ray is not None and deployment.ray.detached,
            base_dir=".",
            environment={"PATH": "/bin"},
            backoff=backoff,
            dice=lambda: 0.5,
            kill_group=FakeGroups().kill,
        )
        self.supervisor = Supervisor(
            self.reactor,
            [deployment],
            on_up=lambda replica, address: self.told.append(("up", replica.replica, address)),
            on_down=lambda replica: self.told.append(("down", replica.replica)),
            on_failed=lambda name, error: self.told.append(("failed", name, error)),
            backoff=backoff,
            dice=lambda: 0.5,
            placements={"ray": self.engine},
        )
        self.supervisor.start()

    @property
    def driver(self) -> Any:
        return self.reactor.processes[-1]

    @property
    def orders(self) -> list[dict[str, Any]]:
        """What the driver was told, after what the cluster is."""
        return [json.loads(line) for line in self.driver.lines[1:]]

    def connect(self) -> list[dict[str, Any]]:
        """The driver is connected; what it is told then."""
        self.driver.report(event="ready")
        return self.orders

    def up(self, order: dict[str, Any], address: str = "10.0.0.2:5", **more: Any) -> None:
        where = {"address": address, "ip": "10.0.0.2", "node": "n2", **more}
        self.driver.report(event="up", id=order["id"], **where)


def test_replicas_are_placed_when_the_cluster_is_connected() -> None:
    setup = Setup()
    assert len(setup.reactor.processes) == 1
    assert json.loads(setup.driver.lines[0])["address"] == "head:6379"
    assert json.loads(setup.driver.lines[0])["namespace"] == "gatewayd-search"
    first, second = setup.connect()
    assert (first["do"], first["options"]["num_cpus"]) == ("place", 1.0)
    assert first["name"] == "a/rep-0"
    assert json.loads(first["spec"])["secret"] == "the secret"
    setup.up(first)
    setup.up(second, "10.0.0.3:5")

    assert setup.told == [("up", 0, "10.0.0.2:5"), ("up", 1, "10.0.0.3:5")]
    status = setup.supervisor.states()[0]
    assert (status.state, status.placement, status.node, status.pid) == ("ready", "ray", "10.0.0.2", None)


def test_one_that_is_lost_is_placed_anew_after_a_while() -> None:
    setup = Setup()
    first, _ = setup.connect()
    setup.up(first)
    setup.driver.report(event="lost", id=first["id"], error="its actor has died: its node died")
    assert setup.told[-1] == ("down", 0)
    status = setup.supervisor.states()[0]
    assert (status.state, status.last_words) == ("waiting", "its actor has died: its node died")
    setup.reactor.advance(1.0)
    again = setup.orders[-1]
    assert (again["do"], again["name"]) == ("place", "a/rep-0")
    assert again["id"] != first["id"]
    setup.up(again, "10.0.0.4:5")

    assert setup.told[-1] == ("up", 0, "10.0.0.4:5")
    assert setup.supervisor.states()[0].restarts == 1


def test_what_is_late_from_an_earlier_start_means_nothing() -> None:
    setup = Setup()
    first, _ = setup.connect()
    setup.driver.report(event="lost", id=first["id"], error="exit code 1")
    setup.reactor.advance(1.0)
    setup.up(first)

    assert ("up", 0, "10.0.0.2:5") not in setup.told


def test_a_cluster_that_cannot_be_reached_is_told_for_each_replica() -> None:
    setup = Setup()
    setup.driver.report(event="failed", error="no Ray cluster answers at head:6379")
    setup.driver.exit(code=1)

    assert setup.told == [
        ("failed", "a/rep-0", "no Ray cluster answers at head:6379"),
        ("failed", "a/rep-1", "no Ray cluster answers at head:6379"),
    ]
    setup.reactor.advance(1.0)
    assert len(setup.connect()) == 2  # it is tried again, and goes on from there


def test_why_one_is_not_placed_yet_is_in_its_state() -> None:
    setup = Setup()
    first, _ = setup.connect()
    setup.driver.report(event="pending", id=first["id"], why="no node of the cluster has num_gpus 1")

    assert setup.supervisor.states()[0].error == "no node of the cluster has num_gpus 1"


def test_one_that_is_not_ready_in_time_is_ended_and_says_what_it_waited_for() -> None:
    setup = Setup(attrs.evolve(ON_RAY, replicas=1, timeout_ready_s=60.0))
    (first,) = setup.connect()
    setup.driver.report(event="pending", id=first["id"], why="all nodes are busy")
    setup.reactor.advance(60.0)

    assert setup.orders[-1] == {"do": "stop", "id": first["id"], "grace_s": 0.0}
    ((_, _, error),) = setup.told
    assert error == "not ready 60.0 s after its start (timeout_ready): all nodes are busy"


def test_when_the_driver_ends_its_replicas_are_down_and_placed_by_the_next_one() -> None:
    setup = Setup()
    first, second = setup.connect()
    setup.up(first)
    setup.up(second)
    setup.driver.exit(code=1)
    assert [each[0] for each in setup.told] == ["up", "up", "down", "down"]
    setup.reactor.advance(1.0)

    assert [each["do"] for each in setup.connect()] == ["place", "place"]


def test_detached_ones_serve_on_without_a_driver_and_are_found_again() -> None:
    setup = Setup(DETACHED)
    order, sweep = setup.connect()
    assert order["detached"]
    assert order["name"].startswith("a/rep-0@")
    assert sweep == {"do": "sweep", "names": [order["name"]]}
    setup.up(order)
    setup.driver.exit(code=1)
    setup.reactor.advance(1.0)
    (again,) = setup.connect()
    assert (again["id"], again["name"]) == (order["id"], order["name"])
    setup.up(again, found=True)

    assert setup.told == [("up", 0, "10.0.0.2:5")]


def test_a_stop_ends_all_and_then_the_driver() -> None:
    setup = Setup()
    first, second = setup.connect()
    setup.up(first)
    stopped: list[None] = []
    setup.supervisor.stop(3.0).addCallback(stopped.append)
    assert setup.orders[-2:] == [{"do": "stop", "id": e["id"], "grace_s": 3.0} for e in (first, second)]
    for each in (first, second):
        setup.driver.report(event="stopped", id=each["id"])
    assert setup.driver.signals == ["TERM"]
    assert not stopped
    setup.driver.exit()

    assert stopped == [None]


def test_a_stop_of_the_gateway_leaves_detached_ones_and_the_end_of_one_does_not() -> None:
    left, ended = Setup(DETACHED), Setup(DETACHED)
    for setup in (left, ended):
        setup.up(setup.connect()[0])
    left.supervisor.stop(3.0)
    ended.supervisor.end(replicas_of(DETACHED), 3.0)

    assert left.driver.signals == ["TERM"]
    assert [each["do"] for each in left.orders] == ["place", "sweep"]
    assert [each["do"] for each in ended.orders] == ["place", "sweep", "stop"]


@pytest.mark.parametrize(
    "change",
    [
        {"ray": RayOptions(detached=True, num_cpus=2)},
        {"executor": attrs.evolve(DETACHED.executor, env={"MODEL": "b"})},
    ],
)
def test_detached_ones_are_found_only_by_a_flow_that_would_start_them_alike(change: Any) -> None:
    names = {
        Setup(deployment).connect()[0]["name"]
        for deployment in (DETACHED, DETACHED, attrs.evolve(DETACHED, **change))
    }

    assert len(names) == 2


def test_a_log_level_goes_to_the_executor() -> None:
    setup = Setup(attrs.evolve(ON_RAY, replicas=1))
    (order,) = setup.connect()
    setup.up(order)
    setup.supervisor.set_log_levels(lambda deployment: "debug")

    assert setup.orders[-1] == {"do": "tell", "id": order["id"], "line": '{"log_level": "debug"}'}


def test_one_that_the_gateway_cannot_reach_is_looked_at_once_it_serves() -> None:
    setup = Setup(attrs.evolve(ON_RAY, replicas=1))
    (order,) = setup.connect()
    (replica,) = replicas_of(attrs.evolve(ON_RAY, replicas=1))
    setup.supervisor.out_of_reach(replica)
    assert setup.orders == [order]
    setup.up(order)
    setup.supervisor.out_of_reach(replica)

    assert setup.orders[-1] == {"do": "look", "id": order["id"]}
