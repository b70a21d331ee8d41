"""Every recorded gRPC call, against gatewayd with its own executors."""

import grpc
import pytest

from tests.golden_replay.departures import GRPC, check_each
from tests.golden_replay.flows import name_of
from tests.golden_replay.speaking import decoded, grpc_exchange, load

pytestmark = pytest.mark.slow

CASES = [
    pytest.param(name_of(case), server, case, id=f"{case['name']}-{server}")
    for server in ("grpcio", "gatewayd")
    for case in load("grpc/manifest.json")
    if case["topology"] != "the executor process itself"  # tests/executor replays these
]
CASES.sort(key=lambda param: param.values[:2])


@pytest.mark.parametrize(("flow", "server", "case"), CASES)
def test_a_recorded_call_goes_as_recorded(gateway_for, flow, server, case):
    answered = [case["response_decoded"]] if "response_decoded" in case else case.get("responses_decoded", [])
    recorded = {"status": case["status"], "details": case.get("details", ""), "answers": answered}

    with grpc.insecure_channel(f"127.0.0.1:{gateway_for(flow, server).ports['grpc']}") as channel:

        def again():
            status, details, answers = grpc_exchange(channel, case)
            return {"status": status, "details": details, "answers": [decoded(answer) for answer in answers]}

        check_each(again, recorded, case["name"], GRPC)
