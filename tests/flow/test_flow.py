"""Flows described in Python: what they mean, what is refused, and how they are written and drawn."""

import io
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from docarray import Document, DocumentArray

from gatewayd import Deployment, Executor, Flow, requests
from gatewayd.config import Listener
from gatewayd.flow.flow import FlowError, FlowTopologyError, PortAlreadyUsed, RuntimeFailToStart
from gatewayd.flow.served import description_of
from tests.certificates import make
from tests.paths import ROOT
from tests.processes import ExecutorProcess, free_ports
from tests.waiting import until

pytestmark = pytest.mark.slow


class Here(Executor):
    """A class of a module that no other process can import by its name."""

    @requests
    def here(self, docs: DocumentArray, **kwargs):
        for doc in docs:
            doc.text += "here"


DIAMOND = (
    Flow()
    .config_gateway(host="127.0.0.1", protocol=["grpc", "http"], port=[0, 0])
    .add(name="a")
    .add(name="b", needs="a", replicas=2)
    .add(name="c", needs="a", when={"tags__k": {"$eq": 1}})
    .needs(["b", "c"], name="d")
)


def test_adding_leaves_the_original_as_it_was():
    first = Flow(name="first")
    second = first.add(name="a")
    third = second.config_gateway(protocol="http")
    fourth = third.add(name="b").needs(["a", "b"]).needs_all(name="all")

    assert [len(flow) for flow in (first, second, third, fourth)] == [0, 1, 1, 4]
    assert first.config.deployments == ()
    assert second.protocol == "grpc"
    assert third.protocol == "http"


def test_a_flow_is_changed_itself_where_it_is_asked_to():
    flow = Flow()

    assert flow.add(name="a", copy_flow=False) is flow
    assert flow.add(name="b", needs="gateway", copy_flow=False) is flow
    assert flow.needs(["a", "b"], name="c", copy_flow=False) is flow
    assert flow.add(name="d", needs="a", copy_flow=False) is flow
    assert flow.needs_all(name="e", copy_flow=False) is flow
    assert flow.config_gateway(protocol="http", copy_flow=False) is flow

    assert {name: each.needs for name, each in flow} == {
        "a": ("gateway",),
        "b": ("gateway",),
        "c": ("a", "b"),
        "d": ("a",),
        "e": ("c", "d"),
    }
    assert flow.protocol == "http"


def test_exposing_an_endpoint_changes_the_flow_itself():
    flow = Flow(protocol="http")
    before = flow.add(name="a")

    assert flow.expose_endpoint("/foo") is flow
    flow.expose_endpoint("/bar", methods=["GET"])

    assert list(flow.config.gateway.expose_endpoints) == ["/foo", "/bar"]
    assert list(flow.add(name="a").config.gateway.expose_endpoints) == ["/foo", "/bar"]
    assert before.config.gateway.expose_endpoints == {}


def test_port_host_and_protocol_may_be_set():
    flow = Flow(port=1, protocol="http")

    flow.port = [2, 3]
    flow.protocol = ["grpc", "websocket"]
    flow.host = "127.0.0.1"

    assert (flow.port, flow.protocol, flow.host) == ([2, 3], ["grpc", "websocket"], "127.0.0.1")
    with pytest.raises(FlowError, match="'htpp'"):
        flow.protocol = "htpp"
    with pytest.raises(FlowError, match="port: found 'x'"):
        flow.port = "x"
    assert flow.protocol == ["grpc", "websocket"]


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("num_pods", r"config\.deployments"),
        ("build", "`config` is what it means"),
        ("nope", "'Flow' object has no attribute 'nope'$"),
    ],
)
def test_a_method_of_the_reference_that_is_absent_says_what_to_use(name, instead):
    with pytest.raises(AttributeError, match=instead):
        getattr(Flow(), name)
    assert not hasattr(Flow(), name)


def test_executors_are_found_by_name_and_by_index():
    assert DIAMOND["b"].replicas == 2
    assert DIAMOND[0].name == "a"
    assert DIAMOND[-1] is not None
    assert [name for name, _ in DIAMOND] == ["a", "b", "c", "d"]
    assert DIAMOND.num_deployments == 4
    with pytest.raises(KeyError, match="nope"):
        DIAMOND["nope"]
    with pytest.raises(IndexError):
        DIAMOND[4]


def test_the_client_of_a_flow_that_has_a_port_is_there_before_the_start():
    flow = Flow(port=1234, protocol="http", host="example.org")
    assert (flow.client.host, flow.client.port, flow.client.protocol) == ("example.org", 1234, "http")

    flow.port, flow.protocol = 4321, "websocket"
    assert (flow.client.port, flow.client.protocol) == (4321, "websocket")

    with pytest.raises(RuntimeError, match="its port is chosen then"):
        _ = Flow().client


def test_executors_follow_each_other_unless_they_say_what_they_need():
    flow = Flow().add().add().add(needs="executor0").needs_all()

    assert {each.name: each.needs for each in flow.config.deployments} == {
        "executor0": ("gateway",),
        "executor1": ("executor0",),
        "executor2": ("executor0",),
        "joiner": ("executor1", "executor2"),
    }


def test_settings_of_the_flow_go_to_the_gateway_and_the_executors():
    config = Flow(protocol="http", port=1, timeout_send=100, replicas=3).add(name="a").config

    assert config.gateway.listeners == (Listener(("http",), 1),)
    assert config.gateway.timeout_send_s == 0.1
    assert config.deployments[0].replicas == 3


def test_an_endpoint_is_exposed_under_a_path():
    flow = Flow().expose_endpoint("/foo", "/hello", methods=["GET"]).expose_endpoint("/bar")

    assert flow.config.gateway.expose_endpoints == {
        "/foo": {"http_path": "/hello", "methods": ["GET"]},
        "/bar": {},
    }


@pytest.mark.parametrize("before", ["all", '{"*": {}}', {"*": {}}])
def test_one_endpoint_is_exposed_in_its_own_way_beside_all_others(before):
    flow = Flow().config_gateway(expose_endpoints=before).expose_endpoint("/foo", methods=["PUT"])

    assert flow.config.gateway.expose_endpoints == {"*": {}, "/foo": {"methods": ["PUT"]}}


class Documented(Executor):
    @requests(on="/classify")
    def classify(self, docs: DocumentArray, **kwargs):
        """Say what each document is about."""
        for doc in docs:
            doc.text = "animals"

    @requests(on="/count")
    async def count(self, docs: DocumentArray, **kwargs):
        return {"count": len(docs)}


def ask_json(method: str, url: str, body: object = None) -> tuple[int, Message, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers, json.load(answer)


@pytest.mark.slow
def test_all_endpoints_are_exposed_with_their_docstrings_from_the_first_request_on():
    settings = {"protocol": ["http", "grpc"], "expose_endpoints": "all", "cors": True}
    flow = Flow(host="127.0.0.1").config_gateway(**settings).add(uses=Documented, replicas=2)
    with flow:
        origin = f"http://127.0.0.1:{flow.port[0]}"
        status, headers, answer = ask_json("POST", f"{origin}/classify", {"data": [{"text": "cat"}]})
        assert (status, [doc["text"] for doc in answer["data"]]) == (200, ["animals"])
        assert headers["x-gatewayd-hint"] is None
        _, headers, answer = ask_json("POST", f"{origin}/post", {"execEndpoint": "/clasify"})
        assert headers["x-gatewayd-hint"] == (
            "no executor binds the endpoint '/clasify'; they bind '/classify', '/count'; "
            "did you mean '/classify'?"
        )
        _, _, described = ask_json("GET", f"{origin}/openapi.json")
        assert described["paths"]["/classify"]["post"]["description"].startswith(
            "Say what each document is about.\n\n"
        )
        assert "/count" in described["paths"]


@pytest.mark.slow
def test_a_misspelt_endpoint_is_hinted_at_in_the_log_and_in_the_404_of_its_path(capfd):
    with Flow(host="127.0.0.1", protocol="http").add(name="c", uses=Documented) as flow:
        origin = f"http://127.0.0.1:{flow.port}"
        for _ in range(3):
            assert flow.post("/clasify", Document(text="cat")).texts == ["cat"]
        status, _, body = ask_json("POST", f"{origin}/classify", {})
        assert (status, body["detail"]) == (404, "Not Found")
        assert 'flow.expose_endpoint("/classify")' in body["hint"]
    assert capfd.readouterr().err.count("no executor binds the endpoint '/clasify'") == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Flow(potr=1), "did you mean port"),
        (lambda: Flow().config_gateway(protocol="htpp"), "'htpp'"),
        (lambda: Flow().add(replcas=2), "did you mean replicas"),
        (lambda: Flow().add(replicas=0), "an integer from 1"),
        (lambda: Flow().add(name="a-b"), "a-b is invalid"),
        (lambda: Flow().add(name="gateway"), "name: gateway is reserved"),
        (lambda: Flow().add(name="a").add(name="b").needs(["a", "b"], name="gateway"), "gateway is reserved"),
        (lambda: Flow().add(uses=dict), "does it inherit from gatewayd.Executor"),
        (
            lambda: Flow().config_gateway(protocol=["grpc", "http"], port=1).config,
            "as much protocols as ports",
        ),
        (lambda: Flow().add(needs="nobody").config, "no executor is called 'nobody'"),
        (lambda: Flow.load_config("jtype: Flow\ngateway: {porrt: 1}"), "<text>:2:11: gateway.porrt"),
    ],
)
def test_a_mistake_is_a_value_error_that_says_what_is_right(wrong, message):
    with pytest.raises(ValueError) as raised:
        wrong()

    assert isinstance(raised.value, FlowError)
    assert message in str(raised.value)


def test_a_joiner_of_one_and_an_executor_that_needs_itself_are_refused():
    with pytest.raises(FlowTopologyError):
        Flow().add(name="a").needs(["a"])
    with pytest.raises(FlowTopologyError):
        Flow().add(name="a", needs="a")


def test_a_flow_that_was_saved_means_the_same(tmp_path):
    path = tmp_path / "flow.yml"

    DIAMOND.save_config(path)

    for source in (path, str(path), path.read_text(), io.StringIO(path.read_text())):
        loaded = Flow.load_config(source).config
        assert loaded.deployments == DIAMOND.config.deployments
        assert loaded.gateway == DIAMOND.config.gateway


def test_variables_keep_their_text_where_a_text_is_wanted(monkeypatch):
    monkeypatch.setenv("PIN", "007")
    text = "jtype: Flow\nexecutors: [{name: a, env: {PIN: '${{ ENV.PIN }}'}, replicas: '${{ CONTEXT.n }}'}]"

    (deployment,) = Flow.load_config(text, context={"n": 2}).config.deployments

    assert deployment.executor.env == {"PIN": "007"}
    assert deployment.replicas == 2


def test_variables_keep_their_type_where_any_value_is_accepted(monkeypatch):
    monkeypatch.setenv("PIN", "007")
    text = (
        "jtype: Flow\n"
        "with: {name: '${{ ENV.PIN }}'}\n"
        "executors: [{name: a, uses_with: {name: '${{ ENV.PIN }}'}, uses_metas: {name: '${{ ENV.PIN }}'}}]"
    )

    config = Flow.load_config(text).config

    assert config.name == "007"
    assert config.deployments[0].executor.uses_with == {"name": 7}
    assert config.deployments[0].executor.uses_metas["name"] == 7


def test_variables_of_an_executor_are_replaced_innermost_first(monkeypatch):
    for name in ("P", "F", "E"):
        monkeypatch.setenv(name, "process")
    flow = (
        Flow(env={"F": "flow", "E": "flow", "RAW": "$P"})
        .add(name="a", uses_with={"all": "$P ${{ ENV.F }} ${E}", "raw": "$RAW"}, env={"E": "own"})
        .add(
            name="b",
            uses_with={"deep": [{"e": "$E"}]},
            env={"N": 2},
            replicas="$N",
            timeout_ready="${{ENV.T}}",
        )
        .add(name="$NAME", uses={"jtype": "M", "with": {"p": "$P"}}, env={"NAME": "c"}, needs="gateway")
    )
    monkeypatch.setenv("T", "5000")

    assert flow["a"].executor.uses_with == {"all": "process flow own", "raw": "$P"}
    assert flow["b"].executor.uses_with == {"deep": [{"e": "flow"}]}
    assert (flow["b"].replicas, flow["b"].timeout_ready_s) == (2, 5.0)
    assert flow["c"].executor.uses_with == {"p": "process"}
    assert "$P ${{ ENV.F }} ${E}" in flow.to_yaml()


def test_a_variable_that_is_not_set_is_named_where_its_value_is_refused(monkeypatch):
    monkeypatch.delenv("NOPE", raising=False)

    flow = Flow().add(name="a", replicas="$NOPE", uses_with={"price": "5$ or $NOPE"})

    with pytest.raises(
        FlowError, match=r"executors\[0\]\.replicas: the environment variable NOPE is not set"
    ):
        flow.start()
    assert Flow().add(name="a", uses_with={"v": "5$ or $NOPE"})["a"].executor.uses_with == {
        "v": "5$ or $NOPE"
    }


FLOW_WITH_VARIABLES = """
jtype: Flow
gateway: {title: $NOPE_A}
executors:
- {uses_with: {text: '${{ ENV.NOPE_B }}'}}
"""


@pytest.mark.parametrize("form", ["text", "file", "map"])
def test_a_variable_that_is_not_set_is_warned_of_in_the_log_as_by_the_service(tmp_path, capfd, form):
    source = FLOW_WITH_VARIABLES
    if form == "file":
        source = tmp_path / "flow.yml"
        source.write_text(FLOW_WITH_VARIABLES)
    elif form == "map":
        source = yaml.safe_load(FLOW_WITH_VARIABLES)
    names = ("NOPE_A", "NOPE_B", "NOPE_C")

    flow = Flow.load_config(source).add(uses_with={"c": "$NOPE_C"})

    said = [line for line in flow.config.warnings if "is not set" in line]
    assert [name for name, line in zip(names, said, strict=True) if name in line] == list(names)
    with flow:
        pass
    log = capfd.readouterr().err
    for line in said:
        assert log.count(line) == 1


@pytest.mark.parametrize("flow", [Flow(reload=True), Flow().add(reload=True)], ids=["Flow", "executor"])
def test_a_flow_in_python_warns_that_it_does_not_reload(capfd, flow):
    with flow:
        pass

    assert "reload: has no effect for a Flow that is written in Python" in capfd.readouterr().err


def test_of_a_deployments_file_it_is_warned_of_wherever_it_runs(capfd):
    with Flow().add(Deployment.load_config("jtype: Deployment\nwith: {uses_with: {a: $NOPE_D}}")):
        pass
    with Deployment.load_config("jtype: Deployment\nwith: {uses_with: {a: $NOPE_E}}"):
        pass
    log = capfd.readouterr().err
    assert [log.count(f"the environment variable {name} is not set") for name in ("NOPE_D", "NOPE_E")] == [
        1,
        1,
    ]


def test_of_the_gateways_keywords_in_python_only_uses_with_has_variables(monkeypatch):
    monkeypatch.setenv("WORD", "hello")
    front = {"uses": "front:Front", "uses_with": {"a": "$WORD", "b": "${{ ENV.WORD }}", "c": "$OWN"}}

    found = Flow(env={"OWN": "$WORD"}).config_gateway(**front, title="$WORD").config.gateway
    text = Flow().config_gateway(**front).to_yaml()
    kept = Flow.load_config({"jtype": "Flow", "gateway": front}, substitute=False)

    assert found.custom.uses_with == {"a": "hello", "b": "hello", "c": "$WORD"}
    assert (found.title, found.env) == ("$WORD", {"OWN": "$WORD"})
    assert "$WORD" in text
    assert kept.config.gateway.custom.uses_with["a"] == "$WORD"
    assert kept.config_gateway(title="x").config.gateway.custom.uses_with["a"] == "$WORD"
    assert kept.config_gateway(uses_with={"a": "$WORD"}).config.gateway.custom.uses_with["a"] == "hello"


def test_files_named_by_variables_are_found(monkeypatch, tmp_path):
    (tmp_path / "m.py").touch()
    (tmp_path / "executor.yml").write_text("jtype: M\nwith: {own: $OWN}\n")
    monkeypatch.setenv("FOLDER", str(tmp_path))

    flow = Flow().add(uses="$FOLDER/executor.yml", py_modules=["${FOLDER}/m.py"], env={"OWN": "x"})

    assert flow[0].executor.uses_with == {"own": "x"}
    assert flow[0].executor.py_modules == (str(tmp_path / "m.py"),)


def test_a_map_is_refused_when_it_is_loaded_as_a_file_is():
    with pytest.raises(FlowError, match="gatway: unknown key of the Flow file; did you mean gateway"):
        Flow.load_config({"gatway": {"port": 1}})


def test_a_missing_file_is_not_found():
    with pytest.raises(FileNotFoundError, match=r"can not find nope\.yml"):
        Flow.load_config("nope.yml")


def test_a_class_that_no_file_can_name_is_not_written():
    class Local(Executor):
        pass

    with pytest.raises(FlowError, match="Local"):
        Flow().add(uses=Local).to_yaml()


def test_a_plot_is_svg_with_every_executor_and_line(tmp_path):
    path = tmp_path / "flow.svg"

    assert DIAMOND.plot(path) is DIAMOND

    root = ElementTree.fromstring(path.read_text())
    name = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in root.iter(f"{name}text")]
    assert {"gateway", "a", "b", "c", "d", "answer"} <= set(texts)
    lines = [element for element in root.iter(f"{name}path") if element.get("marker-end")]
    assert len(lines) == 6
    with pytest.raises(ValueError, match=r"drawn as \.svg or \.png"):
        DIAMOND.plot("flow.gif")


def corners(svg: str) -> list[tuple[float, float]]:
    """Where the boxes stand, in their order."""
    boxes = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect")
    return [(float(box.attrib["x"]), float(box.attrib["y"])) for box in boxes]


def test_a_plot_goes_to_the_right_or_downwards(tmp_path):
    flow = Flow().add(name="a").add(name="b")
    across, down = tmp_path / "across.svg", tmp_path / "down.svg"

    flow.plot(across)
    flow.plot(down, vertical_layout=True)

    xs, ys = zip(*corners(across.read_text()), strict=True)
    assert sorted(set(xs)) == list(xs)
    assert len(set(ys)) == 1
    xs, ys = zip(*corners(down.read_text()), strict=True)
    assert sorted(set(ys)) == list(ys)


def test_a_vertical_plot_has_the_boxes_of_a_layer_beside_each_other(tmp_path):
    DIAMOND.plot(tmp_path / "down.svg", vertical_layout=True)
    DIAMOND.plot(tmp_path / "down.png", vertical_layout=True)

    gateway, a, b, c, d, answer = corners((tmp_path / "down.svg").read_text())
    assert gateway[1] < a[1] < b[1] == c[1] < d[1] < answer[1]
    assert b[0] < c[0]
    assert (tmp_path / "down.png").read_bytes().startswith(b"\x89PNG")


def test_a_flow_that_does_not_run_says_how_to_start_it():
    assert not DIAMOND.is_flow_ready()
    with pytest.raises(RuntimeError, match="with flow"):
        DIAMOND.post("/")


@pytest.mark.slow
def test_a_running_flow_answers_by_itself_and_in_threads():
    flow = DIAMOND.add(name="last", uses=Here)
    answers: list[list[str]] = []

    with flow:
        assert flow.is_flow_ready()
        assert all(port > 0 for port in flow.port)
        assert flow.num_deployments == len(flow) + 1
        with pytest.raises(RuntimeError, match="change it before the start"):
            flow.port = 1
        asking = [
            threading.Thread(target=lambda: answers.append(flow.post("/x", Document(text="")).texts))
            for _ in range(3)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()

    assert answers == [["here"]] * 3
    assert flow.port is None


def test_a_port_that_is_taken_is_an_error_of_its_own():
    (port,) = free_ports(1)
    with Flow(host="127.0.0.1", port=port), pytest.raises(PortAlreadyUsed, match=str(port)):
        Flow(host="127.0.0.1", port=port).start()


@pytest.mark.slow
def test_a_block_says_what_listens_where_and_a_stop_event_ends_it(capsys):
    stop = threading.Event()
    stop.set()
    with Flow(host="127.0.0.1", protocol=["grpc", "websocket"]) as flow:
        grpc_port, web_port = flow.port
        flow.block(stop_event=stop)

    said = capsys.readouterr().err
    assert f"grpc://127.0.0.1:{grpc_port}" in said
    assert f"ws://127.0.0.1:{web_port}" in said


class Told(Executor):
    def __init__(self, told, held, **kwargs):
        super().__init__(**kwargs)
        self.told = (told, held)

    @requests
    def tell(self, docs, **kwargs):
        docs[0].text = repr(self.told)


@pytest.mark.slow
def test_executors_are_started_with_the_values_of_variables(monkeypatch):
    monkeypatch.setenv("OUTER", "7")
    flow = Flow(host="127.0.0.1", env={"INNER": "flow"}).add(
        uses=Told, uses_with={"told": "$OUTER-${{ ENV.INNER }}", "held": {1, 2}}, env={"INNER": "own"}
    )

    with flow:
        assert flow.post("/", ["x"]).texts == ["('7-own', {1, 2})"]


class Slow(Executor):
    @requests
    def slow(self, docs, parameters, **kwargs):
        Path(parameters["begun"]).touch()
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_a_request_of_another_thread_is_answered_before_a_flow_is_closed(protocol, tmp_path):
    begun = tmp_path / "begun"
    with Flow(host="127.0.0.1", protocol=protocol).add(uses=Slow) as flow, ThreadPoolExecutor() as threads:
        asked = threads.submit(flow.post, "/", ["x"], parameters={"begun": str(begun)})
        until(begun.exists)
        flow.close()
        assert asked.result(60).texts == ["x"]


def test_a_missing_module_is_an_error_of_its_executor():
    with pytest.raises(RuntimeFailToStart, match="ModuleNotFoundError") as raised:
        Flow(host="127.0.0.1").add(name="a", uses="nowhere.Nothing").start()
    assert raised.value.replica == "a/rep-0"


@pytest.mark.slow
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_a_flow_with_tls_is_asked_over_tls(protocol, listed, tmp_path):
    party = make("localhost")
    (tmp_path / "flow.crt").write_bytes(party.pem)
    (tmp_path / "flow.key").write_bytes(party.key_pem())
    files = {"certfile": str(tmp_path / "flow.crt"), "keyfile": str(tmp_path / "flow.key")}
    settings = {"ssl_certificates": [files]} if listed else {f"ssl_{name}": files[name] for name in files}
    flow = Flow(host="127.0.0.1", protocol=protocol).config_gateway(**settings)

    with flow:
        assert flow.client.tls
        assert flow.post("/", Document(text="same")).texts == ["same"]


class Writing(Executor):
    @requests
    def write(self, docs, parameters, **kwargs):
        time.sleep(parameters["t"])
        Path(parameters["file"]).write_text("done")


def floating_flow(**settings):
    gateway = Flow().config_gateway(protocol="http", grace_period=0.1, **settings)
    return gateway.add(name="answers").add(name="slow", uses=Writing, needs="gateway", floating=True)


def test_closing_waits_for_floating_work_beyond_the_grace_period(tmp_path):
    files = [tmp_path / str(number) for number in range(3)]

    with floating_flow() as flow:
        for file in files:  # one after the other, since the executor works in one thread
            flow.post("/", Document(), parameters={"t": 0.5, "file": str(file)})

    assert [file.read_text() for file in files] == ["done"] * 3


def test_floating_work_beyond_its_own_bound_is_dropped_and_named(tmp_path, capfd):
    with floating_flow(floating_grace_period=0.2) as flow:
        flow.post("/", Document(), parameters={"t": 30, "file": str(tmp_path / "file")})

    assert "(gateway.floating_grace_period); dropped: 1 of slow" in capfd.readouterr().err
    assert not (tmp_path / "file").exists()


@pytest.mark.slow
def test_an_executor_around_shards_may_be_one_that_runs_elsewhere():
    elsewhere = ExecutorProcess("before_b", "Rec", [ROOT / "tests" / "executors.py"])
    flow = Flow().add(name="a", uses=Here, shards=2, uses_before_address=elsewhere.address)
    try:
        with flow:
            assert flow.post("/tag", Document(text="x")).texts == ["xBhere"]
    finally:
        elsewhere.stop()


@pytest.mark.parametrize("with_modules", [False, True])
def test_a_class_that_cannot_be_sent_is_in_the_way_only_if_it_is_meant(tmp_path, with_modules):
    lock = threading.Lock()

    class Twice(Executor):
        @requests
        def ask(self, **kwargs):
            lock.acquire()

    (tmp_path / "twice.py").write_text("from gatewayd import Executor\nclass Twice(Executor): ...\n")
    flow = Flow().add(uses="Twice", py_modules=[tmp_path / "twice.py"] if with_modules else None)

    if with_modules:
        assert description_of(flow).portable()[1] == {}
    else:
        with pytest.raises(FlowError, match=r"Twice\.ask uses lock"):
            description_of(flow).portable()
