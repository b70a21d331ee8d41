"""Every recorded HTTP exchange, against gatewayd with its own executors."""

import pytest

from tests.golden_replay.comparing import differences
from tests.golden_replay.departures import HTTP, depart
from tests.golden_replay.flows import NAMES
from tests.golden_replay.speaking import http_exchange, load

FILES = (
    "http_requests.json",
    "http_documents.json",
    "http_options.json",
    "http_topologies.json",
    "http_reduce.json",
    "http_executor_down.json",
)
CASES = [
    pytest.param(NAMES[case["topology"]], case, id=f"{file[5:-5]}: {case['name']}")
    for file in FILES
    for case in load(file)
]
CASES.sort(key=lambda param: param.values[0])


@pytest.mark.parametrize(("flow", "case"), CASES)
def test_a_recorded_exchange_goes_as_recorded(gateway_for, flow, case):
    answer, headers = http_exchange(gateway_for(flow).ports["http"], case["request"])

    recorded = case["response"]
    if "headers" in recorded:
        answer["headers"] = {key: headers.get(key) for key in recorded["headers"]}
    if recorded.get("json", {}) != answer.get("json") and case["request"]["path"] == "/openapi.json":
        answer["json"] = {"paths": sorted(answer["json"]["paths"])}
    assert not differences(depart(recorded, answer, HTTP.get(case["name"])), answer)


def test_the_http_routes_of_a_websocket_port_answer_as_recorded(gateway_for):
    port = gateway_for("one").ports["websocket"]
    wrong = {}
    for recorded in load("websocket.json")["http_on_websocket_port"]:
        path, content = recorded["path"], recorded["body"]
        answer, _ = http_exchange(port, {"method": recorded["method"], "path": path})
        body = answer.get("json", answer.get("text"))
        if path == "/status":
            body = {key: sorted(value) for key, value in body.items()}
        elif path == "/openapi.json":
            body = {"paths": sorted(body["paths"]), "info": {key: body["info"][key] for key in content["info"]}}
        elif path == "/docs":
            body = content  # a page: only its status and type are comparable
        received = {"status": answer["status"], "content_type": answer["content_type"], "body": body}
        expected = {key: recorded[key] for key in received}
        if found := differences(expected, received):
            wrong[f"{recorded['method']} {path}"] = found
    assert not wrong
