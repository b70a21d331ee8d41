"""Every recorded WebSocket conversation, against gatewayd with its own executors."""

import pytest

from tests.golden_replay.comparing import differences
from tests.golden_replay.departures import WEBSOCKET, depart
from tests.golden_replay.flows import NAMES
from tests.golden_replay.speaking import load, websocket_exchange

CASES = [
    pytest.param(NAMES[case.get("topology", "one executor exec_a")], case, id=case["name"])
    for case in load("websocket.json")["conversations"]
]
CASES.sort(key=lambda param: param.values[0])


@pytest.mark.parametrize(("flow", "case"), CASES)
def test_a_recorded_conversation_goes_as_recorded(gateway_for, flow, case):
    subprotocol, spoken = websocket_exchange(gateway_for(flow).ports["websocket"], case)

    recorded = {
        "conversation": [_plain(step) for step in case["conversation"]],
        "accepted_subprotocol": case.get("accepted_subprotocol"),
    }
    received = {"conversation": spoken, "accepted_subprotocol": subprotocol}
    assert not differences(depart(recorded, received, WEBSOCKET.get(case["name"])), received)


def _plain(step):
    """One recorded step without what only describes it."""
    if "handshake_or_client_error" in step:
        return {"refused": int(step["handshake_or_client_error"].rpartition(" ")[2])}
    if isinstance(step.get("server"), dict):
        return {"server": {key: value for key, value in step["server"].items() if key != "hex_scrubbed"}}
    return step
