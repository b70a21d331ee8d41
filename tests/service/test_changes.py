"""What a reload has to do: decided with values."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gatewayd.config import DeploymentConfig, ExecutorConfig, FlowConfig
from gatewayd.config.log_kinds import AccessLogConfig
from gatewayd.config.model import GatewayClass, GatewayConfig, Listener, PoolLimits
from gatewayd.config.recording import RecordConfig
from gatewayd.config.scaling import ScalingConfig
from gatewayd.service.changes import Changes, changes_between, sources_of
from gatewayd.supervisor.replica_id import ReplicaId, replicas_of, started_of

A = DeploymentConfig("a", executor=ExecutorConfig(uses="A"))
B = DeploymentConfig("b", needs=("a",), executor=ExecutorConfig(uses="B"), replicas=2)
THERE = DeploymentConfig("there", external=True, addresses=("10.0.0.1:80",))
HTTP, GRPC = Listener(("http",), 8080), Listener(("grpc",), 12345)


def flow(*deployments: DeploymentConfig, **settings: Any) -> FlowConfig:
    return FlowConfig(gateway=GatewayConfig(**settings), deployments=deployments)


def running(config: FlowConfig) -> set[ReplicaId]:
    return {replica for each in started_of(config.deployments) for replica in replicas_of(each)}


def changes(old: FlowConfig, new: FlowConfig, edited: tuple[str, ...] = ()) -> Changes:
    of_other_code = {each for each in running(old) if each.deployment in edited}
    return changes_between(old, new, running(old), 7, of_other_code)


def started(found: Changes) -> set[ReplicaId]:
    return {replica for start in found.starts for replica in start.replicas}


def test_the_same_flow_is_nothing_to_do() -> None:
    found = changes(flow(A, B), flow(A, B))

    assert found.nothing
    assert found.kept == ("a", "b")
    assert found.replicas == running(flow(A, B))


def test_an_executor_that_is_added_is_started_and_the_others_stay() -> None:
    found = changes(flow(A), flow(A, B))

    assert started(found) == {ReplicaId("b", 0, 0, 7), ReplicaId("b", 0, 1, 7)}
    assert found.replicas == {ReplicaId("a", 0, 0), *started(found)}
    assert (found.added, found.kept, found.ends) == (("b",), ("a",), frozenset())
    assert found.graph


def test_one_that_is_removed_ends() -> None:
    found = changes(flow(A, B), flow(A))

    assert found.ends == {ReplicaId("b", 0, 0), ReplicaId("b", 0, 1)}
    assert (found.removed, found.kept, found.starts) == (("b",), ("a",), ())
    assert found.graph


@pytest.mark.parametrize(
    "executor",
    [
        {"uses": "Other"},
        {"uses_with": {"size": 2}},
        {"env": {"MODEL": "large"}},
        {"env_inherit": ()},
        {"workspace": "/data"},
    ],
)
def test_one_that_would_be_started_otherwise_is_started_beside_the_old_one(executor: dict[str, Any]) -> None:
    new = attrs.evolve(A, executor=attrs.evolve(A.executor, **executor))

    found = changes(flow(A, B), flow(new, B))

    assert started(found) == {ReplicaId("a", 0, 0, 7)}
    assert found.ends == {ReplicaId("a", 0, 0)}
    assert (found.changed, found.kept) == (("a",), ("b",))


@pytest.mark.parametrize(
    "settings",
    [
        {"needs": ("gateway",)},
        {"when": {"tags__x": {"$eq": 1}}},
        {"timeout_send_s": 1.0},
        {"retries": 0},
        {"floating": True},
        {"no_reduce": True},
        {"timeout_ready_s": 1.0},
        {"polling": {"*": "all"}},
        {"grpc_metadata": {"a": "b"}},
    ],
)
def test_what_only_says_how_it_is_called_touches_no_process(settings: dict[str, Any]) -> None:
    found = changes(flow(A, B), flow(A, attrs.evolve(B, **settings)))

    assert (found.starts, found.ends) == ((), frozenset())
    assert found.changed == ("b",)
    assert found.graph


def test_more_replicas_start_only_those_and_fewer_end_only_those() -> None:
    more = attrs.evolve(B, replicas=3)

    grown = changes(flow(A, B), flow(A, more))
    shrunk = changes(flow(A, more), flow(A, B))

    assert (started(grown), grown.ends) == ({ReplicaId("b", 0, 2, 7)}, frozenset())
    assert (started(shrunk), shrunk.ends) == (set(), {ReplicaId("b", 0, 2)})


def test_shards_are_told_how_many_they_are_and_start_anew() -> None:
    found = changes(flow(A), flow(attrs.evolve(A, shards=2)))

    assert started(found) == {ReplicaId("a", 0, 0, 7), ReplicaId("a", 1, 0, 7)}
    assert found.ends == {ReplicaId("a", 0, 0)}


def test_an_executor_before_shards_is_one_of_its_own() -> None:
    sharded = attrs.evolve(A, shards=2)
    new = attrs.evolve(sharded, uses_before=ExecutorConfig(uses="Before"))

    found = changes(flow(sharded), flow(new))

    assert started(found) == {ReplicaId("a/uses_before-0", 0, 0, 7)}
    assert found.ends == frozenset()
    assert found.changed == ("a",)


def test_an_external_one_has_no_process() -> None:
    found = changes(flow(A), flow(A, THERE))

    assert (found.starts, found.added, found.graph) == ((), ("there",), True)


def test_replicas_of_earlier_reloads_are_known_by_their_incarnations() -> None:
    old = flow(A)
    present = {ReplicaId("a", 0, 0, 3)}

    assert changes_between(old, flow(A, B), present, 7).replicas > present
    assert changes_between(old, flow(), present, 7).ends == present


# -- code ----------------------------------------------------------------------------------------------


def test_edited_code_alone_replaces_replicas_one_by_one() -> None:
    found = changes(flow(A, B), flow(A, B), edited=("b",))

    assert found.rolled == {"b": (ReplicaId("b", 0, 0), ReplicaId("b", 0, 1))}
    assert (found.starts, found.graph, found.kept) == ((), False, ("a",))
    assert not found.nothing


def test_edited_code_with_another_graph_is_started_beside_the_old() -> None:
    c = DeploymentConfig("c")

    found = changes(flow(A, B), flow(A, B, c), edited=("a",))

    assert started(found) == {ReplicaId("a", 0, 0, 7), ReplicaId("c", 0, 0, 7)}
    assert found.ends == {ReplicaId("a", 0, 0)}
    assert (found.rolled, found.changed, found.added, found.kept) == ({}, ("a",), ("c",), ("b",))


def test_of_several_replicas_those_of_other_code_alone_are_replaced() -> None:
    one, other = ReplicaId("b", 0, 0), ReplicaId("b", 0, 1)
    alone = changes_between(flow(A, B), flow(A, B), running(flow(A, B)), 7, {other})
    beside = changes_between(flow(B), flow(A, B), running(flow(B)), 7, {other})

    assert alone.rolled == {"b": (other,)}
    assert started(beside) == {ReplicaId("a", 0, 0, 7), attrs.evolve(other, incarnation=7)}
    assert beside.ends == {other}
    assert one in beside.replicas


def test_edited_code_of_what_is_removed_or_started_anew_is_no_matter() -> None:
    assert changes(flow(A, B), flow(A), edited=("b",)).rolled == {}
    new = attrs.evolve(A, executor=ExecutorConfig(uses="Other"))
    assert changes(flow(A), flow(new), edited=("a",)).rolled == {}


# -- settings of the gateway ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "graph", "front"),
    [
        ({"pool": PoolLimits(max_queued=1)}, True, False),
        ({"timeout_send_s": 1.0}, True, False),
        ({"retries": 0}, True, False),
        ({"compression": "gzip"}, True, False),
        ({"forward_headers": ("x-a",)}, True, True),
        ({"cors": ("*",)}, False, True),
        ({"prefetch": 1}, False, True),
        ({"grace_period_s": 1.0}, False, False),
        ({"reload": True}, False, False),
        ({"listeners": (HTTP, GRPC)}, False, False),
    ],
)
def test_settings_make_a_new_graph_or_a_new_front_only_if_they_have_to(
    settings: dict[str, Any], graph: bool, front: bool
) -> None:
    found = changes(flow(A, listeners=(HTTP,)), flow(A, **{"listeners": (HTTP,), **settings}))

    assert (found.graph, found.front) == (graph, front)
    assert len(found.settings) == len(settings)
    assert found.refusals == ()


def test_settings_are_called_what_flow_files_call_them() -> None:
    new = flow(A, listeners=(HTTP,), timeout_send_s=1.0, cors=("*",), custom=GatewayClass("Front"))

    assert changes(flow(A), new).settings == (
        "cors",
        "timeout_send",
        "uses",
        "port 8080 (http) added",
        "a free port (grpc) removed",
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ((HTTP,), (HTTP, Listener(("http",), 18003)), ("port 18003 (http) added",)),
        ((HTTP, GRPC), (HTTP,), ("port 12345 (grpc) removed",)),
        ((HTTP,), (Listener(("http",)),), ("a free port (http) added", "port 8080 (http) removed")),
        ((HTTP,), (Listener(("http", "websocket"), 8080),), ("port 8080 (http) is now http+websocket",)),
        ((HTTP, GRPC), (GRPC, HTTP), ("ports in another order",)),
    ],
)
def test_ports_are_named(
    old: tuple[Listener, ...], new: tuple[Listener, ...], words: tuple[str, ...]
) -> None:
    assert changes(flow(A, listeners=old), flow(A, listeners=new)).settings == words


def test_other_certificates_need_no_new_front_but_tls_itself_does() -> None:
    plain = flow(A)
    one = flow(A, ssl_certfile="/one.pem", ssl_keyfile="/one.key")
    other = flow(A, ssl_certfile="/two.pem", ssl_keyfile="/two.key")

    assert not changes(one, other).front
    assert changes(plain, one).front
    assert changes(one, plain).front


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"env": {"A": "1"}}, "gateway.env"),
        ({"workers": 2}, "gateway.workers"),
        ({"custom": GatewayClass("Front")}, "gateway.uses"),
        ({"grpc_server": "grpcio"}, "gateway.grpc_server"),
        ({"admin_port": 9000}, "gateway.admin_port"),
        ({"log_format": "json"}, "gateway.log_format"),
    ],
)
def test_what_a_process_cannot_change_is_refused_by_name(settings: dict[str, Any], key: str) -> None:
    (refusal, *_) = changes(flow(A), flow(A, **settings)).refusals

    assert refusal.startswith(f"{key} cannot be changed while the gateway serves")
    assert "restart it for that" in refusal


@pytest.mark.parametrize(
    ("settings", "front", "graph"),
    [
        ({"log_level": "debug"}, False, False),
        ({"log_levels": {"gatewayd.pool": "debug"}}, False, False),
        ({"access_log": AccessLogConfig()}, True, False),
        ({"record": RecordConfig("/r")}, True, False),
        ({"traces_sample": 0.5}, True, False),
        ({"tracing": True}, True, True),  # executors are told of it
    ],
)
def test_what_watches_requests_is_taken_up(settings: dict[str, Any], front: bool, graph: bool) -> None:
    found = changes(flow(A), flow(A, **settings))

    assert not found.refusals
    assert (found.front, found.graph) == (front, graph)
    assert found.settings == tuple(settings)


@pytest.mark.parametrize(("path", "workers", "count"), [("/r", 1, 1), ("/other", 1, 0), ("/r", 2, 0)])
def test_two_recordings_do_not_write_to_one_file(path: str, workers: int, count: int) -> None:
    old = flow(A, workers=workers, record=RecordConfig("/r"))
    new = flow(A, workers=workers, record=RecordConfig(path, sample=0.5))

    refusals = changes(old, new).refusals

    assert len(refusals) == count
    assert all(
        each.startswith("gateway.record cannot be changed while the gateway writes to /r")
        for each in refusals
    )


def test_the_port_of_grpcios_server_cannot_be_handed_on() -> None:
    old = flow(A, grpc_server="grpcio", listeners=(GRPC,))

    assert changes(old, flow(A, grpc_server="grpcio", listeners=(GRPC, HTTP))).refusals == ()
    (refusal,) = changes(old, flow(A, grpc_server="grpcio", listeners=(GRPC,), prefetch=1)).refusals
    assert refusal.startswith("gateway.prefetch cannot be changed")


@pytest.mark.parametrize(
    "place",
    [{"ports": (7001,)}, {"host": "unix:/run/a"}, {"monitoring": True, "monitoring_ports": (9090,)}],
)
def test_a_new_process_cannot_listen_where_the_old_one_does(place: dict[str, Any]) -> None:
    old = attrs.evolve(A, **place)
    new = attrs.evolve(old, executor=ExecutorConfig(uses="Other"))

    (changed,) = changes(flow(old), flow(new)).refusals
    (edited,) = changes(flow(old), flow(old), edited=("a",)).refusals

    assert changed.startswith("executors.a: its new process cannot listen at ")
    assert edited == changed


@pytest.mark.parametrize("place", [{"ports": (7001,)}, {"monitoring": True, "monitoring_ports": (9090,)}])
def test_code_that_waits_for_a_restart_keeps_nothing_else_from_being_taken_up(place: dict[str, Any]) -> None:
    a = attrs.evolve(A, **place)

    added = changes(flow(a), flow(a, B), edited=("a",))
    setting = changes(flow(a), flow(a, cors=("*",)), edited=("a",))
    edited = changes(flow(a, B), flow(a, B), edited=("a", "b"))
    beside = changes(flow(a, B), flow(a, B, DeploymentConfig("c")), edited=("a", "b"))

    for found in (added, setting, edited, beside):
        assert (found.refusals, found.outdated) == ((), ("a",))
        assert ReplicaId("a", 0, 0) in found.replicas
        assert "a" in found.kept
    assert set(edited.rolled) == {"b"}
    assert started(beside) == {
        *(attrs.evolve(each, incarnation=7) for each in replicas_of(B)),
        ReplicaId("c", 0, 0, 7),
    }


def test_a_new_process_may_listen_elsewhere() -> None:
    old, new = attrs.evolve(A, ports=(7001,)), attrs.evolve(A, ports=(7002,))

    assert changes(flow(old), flow(new)).refusals == ()


@pytest.mark.parametrize(
    ("old", "new", "sources"),
    [
        ((HTTP, GRPC), (HTTP, GRPC), (0, 1)),
        ((HTTP, GRPC), (GRPC, HTTP), (1, 0)),
        ((HTTP,), (GRPC, HTTP), (None, 0)),
        ((HTTP, GRPC), (GRPC,), (1,)),
        ((HTTP,), (Listener(("http", "websocket"), 8080),), (0,)),
        ((Listener(("http",)),), (Listener(("http",)), Listener(("http",))), (0, None)),
        ((Listener(("http",)),), (Listener(("grpc",)),), (None,)),
        ((HTTP,), (Listener(("http",), 8081),), (None,)),
    ],
)
def test_a_listener_takes_the_sockets_of_the_same_one_or_of_the_same_port(
    old: tuple[Listener, ...], new: tuple[Listener, ...], sources: tuple[int | None, ...]
) -> None:
    assert sources_of(old, new) == sources


def scaled(least: int, most: int, uses: str = "S") -> DeploymentConfig:
    scaling = ScalingConfig(most, least)
    return DeploymentConfig("s", executor=ExecutorConfig(uses=uses), replicas=scaling.first, scaling=scaling)


def numbers(
    old: DeploymentConfig, new: DeploymentConfig, *there: int
) -> tuple[list[int], list[int], list[int]]:
    """Of the replicas ``there``: which are called after the reload, which start, and which end."""
    found = changes_between(flow(old), flow(new), [ReplicaId("s", 0, number) for number in there], 7)
    return tuple(
        sorted(each.replica for each in those) for those in (found.replicas, started(found), found.ends)
    )


@pytest.mark.parametrize(
    ("new", "there", "expected"),
    [
        (scaled(1, 5), (0, 2, 3), ([0, 2, 3], [], [])),  # the number scaled to stays
        (scaled(4, 5), (0, 2), ([0, 1, 2, 3], [1, 3], [])),
        (scaled(1, 2), (0, 1, 3), ([0, 1], [], [3])),
        (scaled(1, 5, "Other"), (0, 2), ([0, 2], [0, 2], [0, 2])),  # as many of another one
        (scaled(0, 5), (), ([], [], [])),  # none is needed
        (scaled(1, 5), (), ([0], [0], [])),
        (scaled(0, 5, "Other"), (), ([0], [0], [])),  # but another one has to show that it starts
        (attrs.evolve(scaled(1, 5), scaling=None, replicas=2), (0, 3, 4), ([0, 1], [1], [3, 4])),
    ],
)
def test_replicas_that_are_scaled_stay_as_many_as_the_limits_allow(
    new: DeploymentConfig, there: tuple[int, ...], expected: tuple[list[int], ...]
) -> None:
    assert numbers(scaled(0, 5), new, *there) == expected


def test_replicas_of_a_number_may_be_scaled_from_then_on() -> None:
    fixed = attrs.evolve(scaled(1, 5), scaling=None, replicas=3)

    assert numbers(fixed, scaled(1, 5), 0, 1, 2) == ([0, 1, 2], [], [])


def test_as_many_are_made_anew_of_other_code() -> None:
    there = [ReplicaId("s", 0, number) for number in (0, 1, 2)]

    found = changes_between(flow(scaled(1, 5)), flow(scaled(1, 5), A), there, 7, there)

    assert {each for each in started(found) if each.deployment == "s"} == {
        attrs.evolve(each, incarnation=7) for each in there
    }
    assert found.ends == set(there)
