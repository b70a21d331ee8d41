"""The real Jina gateway in front of our executors: what it got from its own, it gets from ours."""

import time

import grpc
import pytest

from tests.golden_replay.comparing import differences
from tests.golden_replay.flows import NAMES
from tests.golden_replay.speaking import decoded, grpc_exchange, http_exchange, load
from tests.interop.conftest import post
from tests.paths import ROOT
from tests.processes import ExecutorProcess

pytestmark = pytest.mark.interop

GRAPH = {
    "start-gateway": ["exec_a", "exec_b"],
    "exec_a": ["exec_c"],
    "exec_b": ["exec_c"],
    "exec_c": ["end-gateway"],
}
# Texts with the addresses or chance of the moment, or more than one executor: not compared here.
FILES = ("http_requests.json", "http_documents.json")


def ready(ports):
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = post(ports["http"], "/nobody", [{"id": "x"}])
            if answer["http"] == 200 and all(route["endTime"] is None for route in answer["routes"][1:]):
                return ports
        except OSError as error:
            answer = error
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)


@pytest.fixture(scope="module")
def their_ports(their_gateway, ours):
    graph = {"start-gateway": ["exec_a"], "exec_a": ["end-gateway"]}
    one = their_gateway(graph, {"exec_a": ours["exec_a"].address})
    join = their_gateway(GRAPH, {name: executor.address for name, executor in ours.items()})
    return {"one": ready(one), "join": ready(join)}


def test_every_recorded_http_exchange_with_one_executor_goes_as_recorded(their_ports):
    wrong = {}
    for case in (case for file in FILES for case in load(file) if NAMES[case["topology"]] == "one"):
        answer, _ = http_exchange(their_ports["one"]["http"], case["request"])
        if found := differences(case["response"], answer):
            wrong[case["name"]] = found
    assert not wrong


def test_every_recorded_grpc_call_with_one_executor_goes_as_recorded(their_ports):
    wrong = {}
    with grpc.insecure_channel(f"127.0.0.1:{their_ports['one']['grpc']}") as channel:
        for case in load("grpc/manifest.json"):
            if case["topology"] != "one executor exec_a":
                continue
            status, _, answers = grpc_exchange(channel, case)
            one = [case["response_decoded"]] if "response_decoded" in case else []
            recorded = {"status": case["status"], "answers": case.get("responses_decoded", one)}
            received = {"status": status, "answers": [decoded(answer) for answer in answers]}
            if found := differences(recorded, received):
                wrong[case["name"]] = found
    assert not wrong


def test_a_method_that_takes_headers_gets_none(their_gateway):
    executor = ExecutorProcess("told", "Told", [ROOT / "tests" / "equivalence" / "header_executors.py"])
    try:
        graph = {"start-gateway": ["told"], "told": ["end-gateway"]}
        ports = ready(their_gateway(graph, {"told": executor.address}))
        answer = post(ports["http"], "/tell", [{"id": "d0"}])
    finally:
        executor.stop()

    assert answer["parameters"]["__results__"] == {"told/rep-0": {"headers": {}}}


def test_two_branches_and_a_join(their_ports):
    answer = post(their_ports["join"]["http"], "/results", [{"id": "d0"}])

    assert answer["parameters"]["__results__"] == {
        f"exec_{letter.lower()}/rep-0": {"n": 1.0, "who": letter} for letter in "ABC"
    }
    assert [route["executor"] for route in answer["routes"]] == ["gateway", "exec_a", "exec_c", "exec_b"]


@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_the_real_client_and_gateway_with_our_executors(client, their_ports, protocol):
    port = their_ports["join"][protocol]

    answer = client.ask(port=port, protocol=protocol, call="post", on="/tag", inputs=250)

    assert answer["got"]["count"] == 250
    assert all(text in ("xAC", "xBC") for text in answer["got"]["texts"])
