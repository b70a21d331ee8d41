"""``replicas`` as a map: as many as the load needs."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd import Flow
from gatewayd.config import DeploymentConfig, flow_from_mapping
from gatewayd.config.scaling import ScalingConfig
from gatewayd.errors import ConfigError
from gatewayd.executor.spec import ExecutorSpec

ALL = {"min": 0, "max": 3, "target_in_flight": 2.5, "up_after": 1, "down_after": 90}


def deployment(replicas: Any, gateway: dict[str, Any] | None = None, **more: Any) -> DeploymentConfig:
    executors = [{"name": "a", "replicas": replicas, **more}]
    return flow_from_mapping({"gateway": gateway or {}, "executors": executors}, environ={}).deployments[0]


def test_all_of_it() -> None:
    found = deployment(ALL)

    assert found.scaling == ScalingConfig(3, 0, 2.5, 1.0, 90.0)
    assert found.replicas == 1  # one shows that it can start, and what it binds


def test_a_number_is_as_before() -> None:
    found = deployment(3)

    assert (found.replicas, found.scaling, found.most_replicas) == (3, None, 3)


def test_the_most_is_enough() -> None:
    assert deployment({"max": 4}).scaling == ScalingConfig(4, 1, 2.0, 5.0, 60.0)
    assert deployment({"max": 4, "min": 2}).replicas == 2


def test_in_python_and_for_all_executors() -> None:
    (found,) = Flow().add(replicas=ALL)._description.config().deployments
    assert found.scaling == deployment(ALL).scaling

    flow = flow_from_mapping(
        {
            "with": {"replicas": {"max": 2}},
            "executors": [{"name": "a"}, {"name": "b", "external": True, "port": 8080}],
        }
    )
    assert [each.scaling for each in flow.deployments] == [ScalingConfig(2), None]


def test_executors_are_told_how_many_they_may_be() -> None:
    assert ExecutorSpec.of(deployment(ALL), 0, 0, ".").replicas == 3


@pytest.mark.parametrize(
    ("replicas", "more", "problem"),
    [
        ({}, {}, "replicas: max is missing"),
        ({"min": 3, "max": 2}, {}, r"replicas\.min: found 3, which is more than max, 2"),
        ({"max": 0}, {}, r"replicas\.max: found 0; accepted: an integer from 1 to 1024"),
        ({"max": 2, "target": 1}, {}, r"replicas\.target: unknown key; accepted: min, max, target_in_flight"),
        ({"max": 2, "target_in_flight": 0}, {}, r"target_in_flight: found 0; accepted: a number more than 0"),
        ({"max": 2, "up_after": -1}, {}, r"up_after: found -1; accepted: a number of seconds, more than 0"),
        ("many", {}, "replicas: found 'many'; accepted: an integer from 1 to 1024, or a map such as"),
        (0, {}, "replicas: found 0; accepted: an integer from 1 to 1024"),
        ({"max": 2}, {"port": [1234, 1235]}, "port: each of the replicas that come and go finds a place"),
        ({"max": 2}, {"host": "unix:/run/a"}, "host: each of the replicas that come and go finds a place"),
        (
            {"max": 2},
            {"port_monitoring": [1234], "monitoring": True},
            "port_monitoring: each of the replicas",
        ),
        ({"max": 2}, {"external": True, "port": 8080}, "an external executor is not started here"),
        ({"max": 2, "min": 0}, {"shards": 2}, r"replicas\.min: found 0, but every shard has a part"),
        ({"max": 2, "min": 0}, {"gateway": {"pool": {"max_queued": 0}}}, "gateway.pool.max_queued is 0"),
        (
            {"max": 2, "min": 0},
            {"gateway": {"pool": {"queue_timeout": 0}}},
            "gateway.pool.queue_timeout is 0",
        ),
        (
            {"min": 0, "max": 2},
            {"gateway": {"workers": 2}},
            "replicas.min: found 0, and gateway.workers is 2: a request that waits",
        ),
    ],
)
def test_what_is_refused(replicas: Any, more: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        deployment(replicas, **more)
