"""Every recorded HTTP exchange, against gatewayd with its own executors."""

import pytest

from tests.golden_replay.departures import HTTP, HTTP_ON_WEBSOCKET_PORT, MORE_STATUS_KEYS, check, check_each
from tests.golden_replay.flows import name_of
from tests.golden_replay.speaking import http_exchange, load

pytestmark = pytest.mark.slow

FILES = (
    "http_requests.json",
    "http_documents.json",
    "http_options.json",
    "http_topologies.json",
    "http_reduce.json",
    "http_executor_down.json",
)
CASES = [
    pytest.param(name_of(case), case, id=f"{file[5:-5]}: {case['name']}")
    for file in FILES
    for case in load(file)
]
CASES.sort(key=lambda param: param.values[0])


@pytest.mark.parametrize(("flow", "case"), CASES)
def test_a_recorded_exchange_goes_as_recorded(gateway_for, flow, case):
    port, recorded = gateway_for(flow).ports["http"], case["response"]

    def again():
        answer, headers = http_exchange(port, case["request"])
        if "headers" in recorded:
            answer["headers"] = {key: headers.get(key) for key in recorded["headers"]}
        if case["request"]["path"] == "/openapi.json":
            answer["json"] = {"paths": sorted(answer["json"]["paths"])}
        return answer

    check_each(again, recorded, case["name"], HTTP)


def test_the_http_routes_of_a_websocket_port_answer_as_recorded(gateway_for):
    port = gateway_for("one").ports["websocket"]
    for recorded in load("websocket.json")["http_on_websocket_port"]:
        method, path = recorded["method"], recorded["path"]
        answer, _ = http_exchange(port, {"method": method, "path": path})
        received = {**recorded, "status": answer["status"], "content_type": answer["content_type"]}
        received["body"] = answer.get("json", answer.get("text"))
        if path == "/openapi.json":
            info = {key: received["body"]["info"][key] for key in ("title", "version")}
            received["body"] = {"paths": sorted(received["body"]["paths"]), "info": info}
        if path == "/status":
            received["body"] = {
                key: sorted(value.keys() - MORE_STATUS_KEYS) for key, value in received["body"].items()
            }
        check(recorded, received, HTTP_ON_WEBSOCKET_PORT.get(f"{method} {path}"))
