"""Every recorded WebSocket conversation, against gatewayd with its own executors."""

import pytest

from tests.golden_replay.departures import ECHOED_SUBPROTOCOLS, WEBSOCKET, check
from tests.golden_replay.flows import name_of
from tests.golden_replay.speaking import load, websocket_exchange

pytestmark = pytest.mark.slow

CASES = [
    pytest.param(name_of(case), case, id=case["name"]) for case in load("websocket.json")["conversations"]
]
CASES.sort(key=lambda param: param.values[0])


@pytest.mark.parametrize(("flow", "case"), CASES)
def test_a_recorded_conversation_goes_as_recorded(gateway_for, flow, case):
    subprotocol, spoken = websocket_exchange(gateway_for(flow).ports["websocket"], case)

    recorded = {
        "conversation": [_plain(step) for step in case["conversation"]],
        "accepted_subprotocol": _accepted(case),
    }
    received = {"conversation": spoken, "accepted_subprotocol": subprotocol}
    check(recorded, received, WEBSOCKET.get(case["name"]))


def _accepted(case):
    offered = case.get("offered_subprotocol")
    return offered if offered in ECHOED_SUBPROTOCOLS else case.get("accepted_subprotocol")


def _plain(step):
    """One recorded step without what only describes it."""
    if "handshake_or_client_error" in step:
        return {"refused": int(step["handshake_or_client_error"].rpartition(" ")[2])}
    if isinstance(step.get("server"), dict):
        return {"server": {key: value for key, value in step["server"].items() if key != "hex_scrubbed"}}
    return step
