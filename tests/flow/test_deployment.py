"""``Deployment``: one executor with a gateway of its own, alone or as an executor of a Flow."""

import asyncio
import io
import os
import threading

import pytest
from docarray import Document

from gatewayd import Client, Deployment, Executor, Flow, requests
from gatewayd.client.client import AsyncClient
from gatewayd.config import Listener
from gatewayd.flow.flow import FlowError, RuntimeFailToStart
from tests.processes import free_ports


class Told(Executor):
    def __init__(self, told="", **kwargs):
        super().__init__(**kwargs)
        self.told = told

    @requests
    def tell(self, docs, **kwargs):
        for doc in docs:
            doc.text += self.told

    @requests(on="/process")
    def process(self, docs, **kwargs):
        docs[0].text = str(os.getpid())


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_one_executor_is_served_over_any_protocol(protocol):
    with Deployment(uses=Told, uses_with={"told": "!"}, protocol=protocol, host="127.0.0.1") as deployment:
        assert deployment.is_flow_ready()
        assert deployment.post("/", ["a", "b"]).texts == ["a!", "b!"]
        with Client(host="127.0.0.1", port=deployment.port, protocol=protocol) as client:
            assert client.post("/", Document(text="c")).texts == ["c!"]

    assert not deployment.is_flow_ready()
    assert deployment.port is None
    with pytest.raises(RuntimeError, match=r"use it in `with deployment:`, or call deployment\.start\(\)"):
        deployment.post("/")


@pytest.mark.slow
def test_it_has_several_protocols_replicas_and_blocks_as_a_flow_does(capsys):
    stop = threading.Event()
    stop.set()
    deployment = Deployment(uses=Told, replicas=2, protocol=["grpc", "http"], host="127.0.0.1")

    with deployment:
        found = {deployment.post("/process", [""]).texts[0] for _ in range(30)}
        deployment.block(stop_event=stop)
        _, http = deployment.port

    assert len(found) == 2
    said = capsys.readouterr().err
    assert "Deployment serves, until Ctrl-C:\n  grpc://127.0.0.1:" in said
    assert f"http://127.0.0.1:{http}" in said


@pytest.mark.slow
def test_its_client_may_be_asynchronous():
    async def ask(deployment):
        return [docs.texts async for docs in deployment.post("/", ["a"])]

    with Deployment(uses=Told, uses_with={"told": "!"}, host="127.0.0.1", asyncio=True) as deployment:
        assert asyncio.run(ask(deployment)) == [["a!"]]


def test_a_failing_start_says_why():
    class Broken(Executor):
        def __init__(self, **kwargs):
            raise ValueError("broken on purpose")

    with pytest.raises(RuntimeFailToStart, match="broken on purpose"):
        Deployment(uses=Broken, name="broken", host="127.0.0.1").start()


def test_its_settings_go_to_the_executor_and_to_the_gateway():
    deployment = Deployment(
        name="d", uses="m:C", uses_with={"a": 1}, replicas=2, env={"V": "v"}, timeout_send=100, workspace="w",
        host="127.0.0.1", port=1, protocol="http", cors=True, title="T", grpc_server_options={"grpc.x": 1},
    )  # fmt: skip

    (found,) = deployment.config.deployments
    assert (found.name, found.replicas, found.timeout_send_s, found.executor.uses) == ("d", 2, 0.1, "m:C")
    assert (found.executor.uses_with, found.executor.env) == ({"a": 1}, {"V": "v"})
    gateway = deployment.config.gateway
    assert (gateway.host, gateway.listeners) == ("127.0.0.1", (Listener(("http",), 1),))
    assert (gateway.cors, gateway.title, gateway.timeout_send_s) == (("*",), "T", None)
    assert gateway.grpc_server_options == {"grpc.x": 1}
    assert (deployment.name, deployment.port, deployment.protocol) == ("d", 1, "http")
    assert deployment.client.protocol == "http"


def test_host_and_port_of_an_external_one_are_the_executors():
    deployment = Deployment(external=True, host="example.org", port=5, protocol="http")

    (found,) = deployment.config.deployments
    assert found.addresses == ("example.org:5",)
    assert deployment.port is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protcol": "http"}, "protcol: unknown key of the Deployment; did you mean protocol"),
        ({"replcas": 2}, "replcas: unknown key of the Deployment; did you mean replicas"),
        ({"protocol": "htpp"}, r"Deployment\(\): protocol: found 'htpp'"),
        ({"replicas": 0}, r"Deployment\(\): replicas: found 0"),
        ({"needs": "gateway"}, "needs: unknown key of the Deployment"),
        ({"name": "gateway"}, "name: gateway is reserved"),
        ({"uses": dict}, "does it inherit from gatewayd.Executor"),
    ],
)
def test_a_mistake_is_refused_by_name(settings, message):
    with pytest.raises(FlowError, match=message):
        Deployment(**settings)


def test_variables_are_replaced_by_its_own_env_first(monkeypatch):
    monkeypatch.setenv("OUTER", "outer")

    deployment = Deployment(uses_with={"v": "$OUTER ${{ ENV.INNER }}"}, env={"INNER": "inner"})

    assert deployment.config.deployments[0].executor.uses_with == {"v": "outer inner"}


def test_one_that_was_saved_means_the_same(tmp_path):
    path = tmp_path / "deployment.yml"
    deployment = Deployment(
        name="d", uses="m:C", uses_with={"a": [1]}, protocol=["http", "grpc"], port=[1, 2]
    )

    deployment.save_config(path)

    for source in (path, str(path), path.read_text(), io.StringIO(path.read_text())):
        loaded = Deployment.load_config(source).config
        assert loaded.deployments == deployment.config.deployments
        assert loaded.gateway == deployment.config.gateway


def test_a_file_is_loaded_as_a_flows_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PIN", "007")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.yml").write_text(
        "jtype: Deployment\n"
        "with: {name: d, uses: e.yml, port: $PORT, env: {PORT: 5, PIN: $PIN}, asyncio: true,\n"
        "       uses_with: {x: '${{ CONTEXT.x }}', pin: $PIN}}\n"
    )
    (tmp_path / "sub" / "e.yml").write_text("jtype: M\nwith: {y: 1}\n")

    loaded = Deployment.load_config(
        "d.yml", extra_search_paths="sub", context={"x": 2}, uses_with={"protocol": "http"}
    )

    (found,) = loaded.config.deployments
    assert found.executor.uses_with == {"x": 2, "y": 1, "pin": 7}
    assert found.executor.env == {"PORT": "5", "PIN": "007"}
    assert (loaded.port, loaded.protocol) == (5, "http")
    assert isinstance(loaded.client, AsyncClient)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jtype: Flow\n", "<text>:1:1: found another document; accepted: jtype: Deployment"),
        (
            "jtype: Deployment\nwith:\n  protcol: http\n",
            "<text>:3:3: with.protcol: unknown key of the Deployment",
        ),
        ("jtype: Deployment\nname: a\n", "<text>:2:1: name: unknown key beside jtype: Deployment"),
        ("jtype: Deployment\nwith: {replicas: 0}\n", "<text>:2:8: with.replicas: found 0"),
        ("jtype: Deployment\nwith: [\n", "this is not YAML"),
    ],
)
def test_a_mistake_of_a_file_is_told_with_its_place(text, message):
    with pytest.raises(FlowError) as raised:
        Deployment.load_config(text)

    assert message in str(raised.value)


def test_it_can_be_an_executor_of_a_flow(monkeypatch):
    monkeypatch.setenv("V", "pa$V")
    one = Deployment(name="one", uses=Told, replicas=2, protocol="http", port=5, uses_with={"v": "$V"})
    two = Deployment.load_config("jtype: Deployment\nwith: {name: two, uses_with: {v: $V}}\n")

    flow = Flow(protocol="grpc").add(one).add(deployment=two, needs="gateway", replicas=3).add(name="last")

    assert {name: (each.needs, each.replicas) for name, each in flow} == {
        "one": (("gateway",), 2),
        "two": (("gateway",), 3),
        "last": (("two",), 1),
    }
    assert flow.protocol == "grpc"
    assert flow.port is None
    assert [flow[name].executor.uses_with for name in ("one", "two")] == [{"v": "pa$V"}] * 2
    assert Flow().add(Deployment(external=True, host="h", port=1))[0].addresses == ("h:1",)
    for wrong in (Told, Flow(), "m:C"):
        with pytest.raises(TypeError, match=r"name it: add\(uses=\.\.\.\)"):
            Flow().add(wrong)


@pytest.mark.slow
def test_one_that_runs_is_an_external_executor_of_a_flow():
    (port,) = free_ports(1)
    with (
        Deployment(uses=Told, uses_with={"told": "!"}, host="127.0.0.1", port=port),
        Flow(host="127.0.0.1").add(external=True, port=port) as flow,
    ):
        assert flow.post("/", ["a"]).texts == ["a!"]
