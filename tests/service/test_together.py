"""Several Flows in one process: what they may not say together, and their events as those of one service."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.config import FlowConfig, flow_from_mapping
from gatewayd.errors import ConfigError
from gatewayd.service.together import EventsOfAll, check_together, environment_of


def flow(port: int = 0, executors: Any = (), **gateway: Any) -> FlowConfig:
    return flow_from_mapping(
        {
            "gateway": {"host": "127.0.0.1", "protocol": "http", "port": port, **gateway},
            "executors": list(executors),
        }
    )


def refusal(a: FlowConfig, b: FlowConfig) -> str:
    with pytest.raises(ConfigError) as refused:
        check_together([("a.yml", a), ("b.yml", b)])
    return str(refused.value)


def test_flows_with_ports_of_their_own_go_together() -> None:
    check_together([("a.yml", flow(8080, log_level="debug")), ("b.yml", flow(8081, log_level="debug"))])
    check_together([("a.yml", flow(log_level="debug")), ("b.yml", flow()), ("c.yml", flow())])


def test_one_flow_may_have_what_several_may_not() -> None:
    check_together([("a.yml", flow(workers=2))])


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (flow(8080), flow(8080), "b.yml: gateway.port: 127.0.0.1:8080 is gateway.port of a.yml"),
        (
            flow(8080, host="0.0.0.0"),
            flow(9000, admin_port=8080),
            "b.yml: gateway.admin_port: 127.0.0.1:8080 is gateway.port of a.yml",
        ),
        (
            flow(8080, monitoring=True, port_monitoring=9090),
            flow(8081, monitoring=True, port_monitoring=9090),
            "b.yml: gateway.port_monitoring: 127.0.0.1:9090 is gateway.port_monitoring of a.yml",
        ),
        (
            flow(8080),
            flow(8081, [{"name": "encoder", "port": 8080}]),
            "b.yml: executors.encoder.port: 127.0.0.1:8080 is gateway.port of a.yml",
        ),
    ],
)
def test_a_port_of_two_flows_is_told_by_file_and_key(a: FlowConfig, b: FlowConfig, says: str) -> None:
    assert says in refusal(a, b)


def test_the_same_port_at_two_addresses_is_two_ports() -> None:
    check_together([("a.yml", flow(8080)), ("b.yml", flow(8080, host="127.0.0.2"))])


def test_a_flow_with_workers_needs_a_process_of_its_own() -> None:
    assert "b.yml: gateway.workers: 2: a master of workers serves one Flow" in refusal(
        flow(), flow(workers=2)
    )


def test_the_log_is_the_first_flows() -> None:
    text = refusal(flow(log_level="warn"), flow(log_level="debug", log_levels={"gatewayd.pool": "info"}))

    assert "b.yml: gateway.log_level: the log is the process's, and its first Flow file, a.yml" in text
    assert "b.yml: gateway.log_levels: " in text


def test_one_environment_has_one_value_for_a_name_and_the_values_are_not_told() -> None:
    a, b = flow(env={"TOKEN": "secret1"}), flow(env={"TOKEN": "secret2"})

    text = refusal(a, b)

    assert "b.yml: gateway.env.TOKEN: a.yml gives it another value" in text
    assert "secret" not in text
    assert environment_of([a, flow(env={"MORE": "1"})]) == {"TOKEN": "secret1", "MORE": "1"}


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert len(refusal(flow(8080, log_level="warn"), flow(8080, log_level="info")).splitlines()) == 2


@pytest.fixture
def events() -> EventsOfAll:
    return EventsOfAll(["a.yml", "b.yml"])


def test_the_service_listens_and_is_ready_when_all_flows_are(events: EventsOfAll) -> None:
    assert events.of(1, {"event": "listening", "ports": [3], "open": True}) is None
    assert events.of(0, {"event": "listening", "ports": [1, 2], "open": False}) == {
        "event": "listening", "ports": [1, 2, 3], "open": True,
    }  # fmt: skip
    assert events.of(0, {"event": "ready"}) is None
    assert not events.all_ready
    assert events.of(1, {"event": "ready"}) == {"event": "ready"}
    assert events.all_ready


def test_it_reloads_as_long_as_one_does_and_says_whose_failed(events: EventsOfAll) -> None:
    assert events.of(0, {"event": "reloading"}) == {"event": "reloading"}
    assert events.of(1, {"event": "reloading"}) is None
    assert events.of(0, {"event": "not_reloaded", "error": "no port"}) is None
    assert events.of(1, {"event": "reloaded", "generation": 1, "summary": "x"}) == {
        "event": "not_reloaded", "error": "a.yml: no port",
    }  # fmt: skip
    assert events.of(1, {"event": "reloading"}) == {"event": "reloading"}
    assert events.of(1, {"event": "reloaded", "summary": "y"}) == {"event": "reloaded", "summary": "y"}


def test_a_failure_has_its_file(events: EventsOfAll) -> None:
    failed = events.of(1, {"event": "failed", "kind": "replica", "replica": "e/0", "error": "gone"})

    assert failed == {"event": "failed", "kind": "replica", "replica": "e/0", "error": "b.yml: gone"}
