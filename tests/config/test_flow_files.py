"""What a Flow file means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatewayd.config import (
    DeploymentConfig,
    ExecutorConfig,
    FlowConfig,
    GatewayConfig,
    Listener,
    PoolLimits,
    flow_from_mapping,
    graph_description,
    load_flow,
    load_flow_text,
)  # fmt: skip
from gatewayd.config.heads import head_executors
from gatewayd.config.model import ExternalHead
from tests.paths import ROOT


def flow_of(text: str, context: dict[str, Any] | None = None, **variables: str) -> FlowConfig:
    return load_flow_text(text, environ=variables, context=context)


def gateway(text: str, **variables: str) -> GatewayConfig:
    return flow_of(f"jtype: Flow\ngateway: {text}\n", **variables).gateway


def deployments(text: str, **variables: str) -> tuple[DeploymentConfig, ...]:
    return flow_of(f"jtype: Flow\nexecutors: [{text}]\n", **variables).deployments


def deployment(text: str, **variables: str) -> DeploymentConfig:
    return deployments(text, **variables)[0]


INSPECTED = """
jtype: Flow
with: {%s}
executors:
  - {name: a}
  - {method: inspect}
  - {name: b}
  - {name: i, method: inspect}
"""


@pytest.mark.parametrize(
    ("mode", "more", "expected"),
    [
        ("", "", {"inspect": (True, True), "i": (True, True)}),
        ("inspect: COLLECT", "", {"inspect": (True, True), "i": (True, True)}),
        ("inspect: HANG", "", {"inspect": (True, False), "i": (True, False)}),
        ("inspect: HANG", "  - {method: gather_inspect}\n", {"inspect": (True, True), "i": (True, True)}),
        ("inspect: REMOVE", "", {}),
    ],
)
def test_inspect_executors_float_or_are_collected_or_left_out(
    mode: str, more: str, expected: dict[str, tuple[bool, bool]]
) -> None:
    flow = flow_of(INSPECTED % mode + more)
    found = {each.name: each for each in flow.deployments}
    assert {
        name: (each.floating, each.collected) for name, each in found.items() if name not in "ab"
    } == expected
    assert found["b"].needs == ("a",)
    assert {name: found[name].needs for name in expected} == {
        name: needs for name, needs in {"inspect": ("a",), "i": ("b",)}.items() if name in expected
    }


def test_an_inspect_executor_that_another_needs_is_an_ordinary_one() -> None:
    _, watch, b = deployments("{name: a}, {name: i, method: inspect}, {name: b, needs: i}")
    assert (watch.floating, watch.collected, b.needs) == (False, False, ("i",))


@pytest.mark.parametrize(
    ("text", "listeners"),
    [
        ("{}", [Listener(("grpc",), 0)]),
        ("{port: 5}", [Listener(("grpc",), 5)]),
        ("{protocols: 'grpc, HTTP', ports: '1,2'}", [Listener(("grpc",), 1), Listener(("http",), 2)]),
        ("{protocol: [grpc, http+websocket], port_expose: [1, '2']}",
         [Listener(("grpc",), 1), Listener(("http", "websocket"), 2)]),
        ("{protocol: websocket+http}", [Listener(("http", "websocket"), 0)]),
        ("{protocol: [http, http], port_in: [1, 2]}", [Listener(("http",), 1), Listener(("http",), 2)]),
        ("{protocol: [http, grpc], port: null}", [Listener(("http",), 0), Listener(("grpc",), 0)]),
    ],
)  # fmt: skip
def test_protocols_and_ports_are_paired_in_order(text: str, listeners: list[Listener]) -> None:
    assert gateway(text).listeners == tuple(listeners)


def test_gateway_settings_are_converted_once() -> None:
    found = gateway(
        "{timeout_send: 1500, retries: -7, compression: NoCompression, grace_period: 3, "
        "max_message_bytes: 10, grpc_server_options: {grpc.max_concurrent_streams: 5}, env: {A: 1, B: yes},"
        " pool: {max_queued: 7, queue_timeout: 0.5, eject_time: 2, balancing: round_robin}}"
    )
    assert (found.timeout_send_s, found.retries, found.compression) == (1.5, -1, "none")
    assert (found.grace_period_s, found.max_message_bytes) == (3.0, 10)
    assert (found.grpc_server_options, found.env) == (
        {"grpc.max_concurrent_streams": 5},
        {"A": "1", "B": "true"},
    )
    assert found.pool == PoolLimits(max_queued=7, queue_timeout_s=0.5, eject_s=2.0, balancing="round_robin")


@pytest.mark.parametrize("spelling", ["gzip", "Gzip", "GZIP"])
def test_compression_is_spelt_in_any_case(spelling: str) -> None:
    assert gateway(f"{{compression: {spelling}}}").compression == "gzip"


@pytest.mark.parametrize("milliseconds", [0, -1])
def test_a_timeout_of_nothing_or_less_is_none(milliseconds: int) -> None:
    assert gateway(f"{{timeout_send: {milliseconds}}}").timeout_send_s is None


@pytest.mark.parametrize("route", ["{http_path: /b}", "{path: /b}"])
def test_an_exposed_endpoint_s_path_has_two_names(route: str) -> None:
    assert gateway(f"{{expose_endpoints: {{/a: {route}}}}}").expose_endpoints == {"/a": {"http_path": "/b"}}


def test_all_endpoints_are_exposed_with_the_same_options_unless_they_are_named() -> None:
    for all_of_them in ("all", "All", '{"*": {}}', "{'*': null}"):
        assert gateway(f"{{expose_endpoints: {all_of_them}}}").expose_endpoints == {"*": {}}
    found = gateway("{expose_endpoints: {'*': {methods: put}, /a: {http_path: /b}}}").expose_endpoints
    assert found == {"*": {"methods": ["PUT"]}, "/a": {"http_path": "/b"}}


def test_exposed_endpoints_may_be_json_text() -> None:
    found = gateway("""{expose_endpoints: '{"/a": {"methods": ["get"]}, "/b": {}}'}""")
    assert found.expose_endpoints == {"/a": {"methods": ["GET"]}, "/b": {}}


def test_with_reaches_the_gateway_and_executors_that_set_nothing_themselves() -> None:
    flow = flow_of(
        "jtype: Flow\nwith: {protocol: http, port: 1, timeout_send: 100, replicas: 2, timeout_ready: -1,"
        " name: f, env: {A: x}, workspace: /w}\n"
        "executors: [{}, {replicas: 3, env: {B: y}, workspace: /v}]\n"
    )
    assert (flow.name, flow.workspace, flow.gateway.env) == ("f", "/w", {"A": "x"})
    assert flow.gateway.listeners == (Listener(("http",), 1),)
    assert flow.gateway.timeout_send_s == 0.1
    first, second = flow.deployments
    # The gateway's own limit holds for its calls; one of an executor's own would win over it.
    assert (first.replicas, first.ports, first.timeout_send_s) == (2, (), None)
    assert (first.executor.workspace, first.executor.env) == ("/w", {"A": "x"})
    assert (second.replicas, second.executor.workspace, second.executor.env) == (
        3,
        "/v",
        {"A": "x", "B": "y"},
    )
    assert first.timeout_ready_s > 24 * 3600


@pytest.mark.parametrize(
    ("flow", "host"),
    [
        ("executors: [{name: a}]", None),
        ("with: {host: 0.0.0.0}\nexecutors: [{name: a}]", None),
        ("executors: [{name: a, host: 0.0.0.0}]", "0.0.0.0"),
        ("with: {host: 127.0.0.2}\nexecutors: [{name: a, port: 7}]", "127.0.0.2"),
        ("executors: [{name: a, port: 7}]", None),
    ],
)
def test_the_host_of_the_gateway_opens_no_free_port_of_an_executor(flow: str, host: str | None) -> None:
    (found,) = flow_of(f"jtype: Flow\n{flow}").deployments
    assert found.host == host


def test_an_executor_s_settings_reach_its_deployment() -> None:
    found = deployment(
        "{name: a, uses: m:C, uses_with: {x: 1}, uses_requests: {/i: index}, timeout_send: 5, retries: 2,"
        " polling: {/s: ALL, '*': any}, idempotent: {/w: false}, output_array_type: list, replicas: 2,"
        " port: '7,8', exit_on_exceptions: [E],"
        " uses_dynamic_batching: {/x: {preferred_batch_size: 4, timeout: 100}}}"
    )
    assert (found.name, found.timeout_send_s, found.retries, found.ports) == ("a", 0.005, 2, (7, 8))
    assert (found.host, found.polling, found.idempotent) == (
        None,
        {"/s": "all", "*": "any"},
        {"/w": False},
    )
    assert found.executor.uses == "m:C"
    assert found.executor.uses_with == {"x": 1}
    assert found.executor.uses_requests == {"/i": "index"}
    assert found.executor.uses_dynamic_batching == {"/x": {"preferred_batch_size": 4, "timeout": 100}}
    assert (found.executor.output_array_type, found.executor.exit_on_exceptions) == ("list", ("E",))


@pytest.mark.parametrize(
    "uses", ["{}", "{uses: Executor}", "{uses: BaseExecutor}", "{uses: {jtype: BaseExecutor}}"]
)
def test_an_executor_of_the_base_class_has_no_class_of_its_own(uses: str) -> None:
    assert deployment(uses).executor.uses is None


@pytest.mark.parametrize(
    ("text", "addresses", "tls"),
    [
        ("port: 5", ["127.0.0.1:5"], False),
        ("host: h, port: [1, 2]", ["h:1", "h:2"], False),
        ("host: [h, i], port: 3", ["h:3", "i:3"], False),
        ("host: 'h:1,i:2'", ["h:1", "i:2"], False),
        ("host: 'grpcs://h'", ["h:443"], True),
        ("host: 'https://h/'", ["h:443"], True),
        ("host: 'ws://h:3'", ["h:3"], False),
        ("host: '[::1]:9'", ["[::1]:9"], False),
        ("host: '::1', port: 9", ["[::1]:9"], False),
        ("host: h, port: 1, tls: true", ["h:1"], True),
        ("host: 'unix:/run/a.sock'", ["unix:/run/a.sock"], False),
        ("host: 'unix:/run/a,unix:/run/b'", ["unix:/run/a", "unix:/run/b"], False),
    ],
)
def test_an_external_executor_is_found_at_its_addresses(text: str, addresses: list[str], tls: bool) -> None:
    found = deployment(f"{{external: true, {text}}}")
    assert (list(found.addresses), found.tls, found.replicas) == (addresses, tls, len(addresses))
    assert found.external


GRAPHS = [
    ("{name: a}, {name: b, needs: c}, {name: c, needs: gateway}",
     {"start-gateway": ["a", "c"], "a": [], "b": [], "c": ["b", "end-gateway"]}),
    ("{name: a}, {method: needs_all}", {"start-gateway": ["a"], "a": ["joiner"], "joiner": ["end-gateway"]}),
    ("{name: a}, {name: f, floating: true}, {name: c, needs: f}",
     {"start-gateway": ["a"], "a": ["f"], "f": ["c"], "c": ["end-gateway"]}),
    ("{name: a, floating: true}", {"start-gateway": ["a"], "a": []}),
    ("{name: gateway}, {name: b}", {"start-gateway": ["b"], "b": ["end-gateway"]}),
    ("{name: a, needs: []}", {"start-gateway": ["a"], "a": ["end-gateway"]}),
    ("{name: a}, {name: f, floating: true}, {name: g, floating: true, needs: f}",
     {"start-gateway": ["a"], "a": ["f", "end-gateway"], "f": ["g"], "g": []}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "graph"), GRAPHS)
def test_executors_are_joined_as_by_the_reference(text: str, graph: dict[str, list[str]]) -> None:
    flow = flow_of(f"jtype: Flow\nexecutors: [{text}]\n")
    assert graph_description(flow) == graph


def test_a_leaf_that_is_not_the_last_floats_with_a_warning() -> None:
    flow = flow_of("jtype: Flow\nexecutors: [{name: a}, {name: b, needs: gateway}]\n")
    assert [each.floating for each in flow.deployments] == [True, False]
    assert "a floats: no executor needs it, and the Flow's answer is that of b" in flow.warnings[0]


@pytest.mark.parametrize(
    ("address", "head"),
    [
        ("h:1", ExternalHead(("h:1",))),
        ("[h:1, 'h:2']", ExternalHead(("h:1", "h:2"))),
        ("'grpcs://h:1'", ExternalHead(("h:1",), tls=True)),
        ("'grpc://[::1]:1'", ExternalHead(("[::1]:1",))),
    ],
)
def test_an_executor_around_shards_may_run_elsewhere(address: str, head: ExternalHead) -> None:
    found = deployment(f"{{shards: 2, uses_before_address: {address}, uses_after: A}}")
    assert found.uses_before == head
    assert deployment(f"{{shards: 2, uses_after_address: {address}}}").uses_after == head
    before, after = head_executors(found)
    assert (before.external, before.addresses, before.replicas, before.tls) == (
        True,
        head.addresses,
        len(head.addresses),
        head.tls,
    )
    assert not after.external


def test_an_address_of_one_around_shards_yields_to_a_class_and_needs_shards() -> None:
    flow = flow_of(
        "jtype: Flow\nexecutors:\n"
        "  - {name: a, shards: 2, uses_before: A, uses_before_address: 'h:1'}\n"
        "  - {name: b, uses_after_address: 'h:1'}\n"
    )
    a, b = flow.deployments

    assert isinstance(a.uses_before, ExecutorConfig)
    assert b.uses_after is None
    assert [warning.split(": ", 1)[1] for warning in flow.warnings] == [
        "executors[0].uses_before_address: ignored: uses_before is there, too, and wins",
        "executors[1].uses_after_address: ignored: it stands around shards, and there are none",
    ]


def test_grpc_metadata_go_to_executors_that_are_started_here_but_not_to_other_servers() -> None:
    found = deployment("{shards: 2, uses_before: A, uses_after_address: 'h:1', grpc_metadata: {k: v}}")
    before, after = head_executors(found)

    assert [each.grpc_metadata for each in (found, before, after)] == [{"k": "v"}, {"k": "v"}, {}]
    assert flow_of("jtype: Flow\nwith: {grpc_metadata: {k: v}}\nexecutors: [{name: a}]\n").deployments[
        0
    ].grpc_metadata == {"k": "v"}


def test_keys_without_meaning_here_are_warnings() -> None:
    flow = flow_of(
        "jtype: Flow\nwith: {quiet: true}\nexecutors: [{name: a, gpus: all}, {name: a, quiet: false}]\n"
    )
    assert [warning.split(": ", 1)[1] for warning in flow.warnings] == [
        "with.quiet: ignored: The log is the gateway's: see log_level.",
        "executors[0].gpus: ignored: Settings of containers, which gatewayd does not start.",
        "executors[1]: the name a is taken; this executor is called a1",
    ]


def test_an_executor_s_own_file_is_read_and_the_flow_s_settings_win(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "code.py").touch()
    (tmp_path / "extra.py").touch()
    (tmp_path / "mine" / "config.yml").write_text(
        "jtype: Mine\nwith: {a: 1, b: '${{ ENV.B }}'}\nmetas: {name: n, py_modules: [code.py]}\n"
        "requests: {/x: x}\ndynamic_batching: {/x: {preferred_batch_size: 2}}\n"
    )
    (tmp_path / "flow.yml").write_text(
        "jtype: Flow\nexecutors:\n  - uses: mine/config.yml\n    uses_with: {a: 5}\n"
        "    py_modules: extra.py\n    uses_requests: {/y: y}\n"
    )
    found = load_flow(tmp_path / "flow.yml", environ={"B": "2"}).deployments[0].executor
    assert (found.uses, found.uses_with, found.uses_metas) == ("Mine", {"a": 5, "b": 2}, {"name": "n"})
    assert found.py_modules == (str(tmp_path / "mine" / "code.py"), str(tmp_path / "extra.py"))
    assert found.uses_requests == {"/x": "x", "/y": "y"}
    assert found.uses_dynamic_batching == {"/x": {"preferred_batch_size": 2}}


@pytest.mark.parametrize(
    "uses", ["{jtype: Mine, with: {a: 1}}", "!Mine {with: {a: 1}}", '\'{"jtype": "Mine", "with": {"a": 1}}\'']
)
def test_an_executor_may_be_described_in_place(uses: str) -> None:
    found = deployment(f"{{uses: {uses}}}").executor
    assert (found.uses, found.uses_with) == ("Mine", {"a": 1})


def test_a_deployment_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "code.py").touch()
    (tmp_path / "part" / "d.yml").write_text("!Deployment\nwith: {name: $N, py_modules: code.py}\n")
    (tmp_path / "flow.yml").write_text(
        "jtype: Flow\nexecutors: [part/d.yml, {jtype: Deployment, with: {port: 5}}]\n"
    )
    first, second = load_flow(tmp_path / "flow.yml", environ={"N": "mine"}).deployments
    assert (first.name, first.executor.py_modules) == ("mine", (str(tmp_path / "part" / "code.py"),))
    assert (second.name, second.needs, second.ports) == ("executor1", ("mine",), (5,))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${{ ENV.I }}", 12),
        ("$I", 12),
        ("${I}", 12),
        ("${{env.I}}", 12),
        ("${{ ENV.Q }}", "12"),
        ("${{ ENV.L }}", [1, "a"]),
        ("${{ ENV.T }}", True),
        ("${{ ENV.N }}", None),
        ("x-${{ ENV.I }}$I", "x-1212"),
        ("${{ CONTEXT.c.d[1] }}", 3),
        ("${{ c }}", {"d": [2, 3]}),
        ("${{root.with.name}}", "f"),
        ("${{this.other}}", 7),
        ("$NOPE", "$NOPE"),
        ("${{ ENV.NOPE }}", "$NOPE"),
        ("costs 5$", "costs 5$"),
        ("${{ ENV.D }}", "$I"),
    ],
)
def test_a_variable_is_put_in_with_its_type(written: str, value: Any) -> None:
    flow = load_flow_text(
        "jtype: Flow\nwith: {name: f}\n"
        f"executors:\n  - uses_with:\n      other: 7\n      value: {written}\n",
        environ={"I": "12", "Q": "'12'", "L": "[1, a]", "T": "true", "N": "", "D": "$I"},
        context={"c": {"d": [2, 3]}},
    )
    assert flow.deployments[0].executor.uses_with["value"] == value


def test_a_variable_stays_text_where_text_is_wanted() -> None:
    assert deployment("{env: {KEY: $KEY, OTHER: ''}}", KEY="007").executor.env == {"KEY": "007", "OTHER": ""}


def test_an_unset_variable_is_warned_about() -> None:
    flow = flow_of("jtype: Flow\ngateway: {title: $NOPE}\n")
    assert "the environment variable NOPE is not set" in flow.warnings[0]


@pytest.mark.parametrize("word", ["on", "off", "1:30", "2001-01-01"])
def test_some_words_of_yaml_1_1_are_only_text(word: str) -> None:
    assert deployment(f"{{uses_with: {{x: {word}}}}}").executor.uses_with == {"x": word}


def test_anchors_and_merge_keys_can_be_used() -> None:
    flow = flow_of(
        "jtype: Flow\nx-common: &common {replicas: 2, timeout_ready: 5}\n"
        "executors: [{<<: *common, name: a, replicas: 3}]\n"
    )
    assert (flow.deployments[0].replicas, flow.deployments[0].timeout_ready_s) == (3, 0.005)


def test_a_mapping_built_in_python_makes_the_same_flow(tmp_path: Path) -> None:
    flow = flow_from_mapping(
        {"gateway": {"port": (1, 2), "protocol": ["grpc", "http"]}, "executors": ({"uses": FlowConfig},)},
        base_dir=tmp_path,
    )
    assert [listener.port for listener in flow.gateway.listeners] == [1, 2]
    assert flow.deployments[0].executor.uses == "gatewayd.config.model:FlowConfig"
    assert flow.base_dir == str(tmp_path)


def test_a_workspace_is_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "flow.yml").write_text(
        "jtype: Flow\nwith: {workspace: all}\nexecutors: [{}, {workspace: own}]\n"
    )
    monkeypatch.chdir(tmp_path)
    flow = load_flow("conf/flow.yml")
    assert flow.workspace == str(tmp_path / "all")
    assert [each.executor.workspace for each in flow.deployments] == [flow.workspace, str(tmp_path / "own")]


@pytest.mark.parametrize("path", sorted((ROOT / "conf").glob("*.yml")), ids=lambda path: path.name)
def test_the_files_in_conf_can_be_served(path: Path) -> None:
    flow = load_flow(path)
    assert not flow.warnings
    assert not flow.conflicts
    assert flow.gateway.production == (path.name == "production.yml")
