"""What a gateway loads until it is ready: each module is time and memory of every process."""

from __future__ import annotations

import re

import pytest

from tests.processes import Gateway, external, free_ports

pytestmark = pytest.mark.slow

# numpy comes with the first array that is seen as JSON.
_OTHERS = {"numpy", "docarray", "regex", "treq", "cloudpickle"}


@pytest.mark.parametrize(
    ("protocol", "without"),
    [
        ("grpc", {"grpc", "klein", "autobahn", "twisted.web", "graphql"}),
        ("http", {"grpc", "graphql"}),
        ("websocket", {"grpc", "graphql"}),
    ],
)
def test_a_gateway_loads_only_what_its_protocol_needs(protocol: str, without: set[str]) -> None:
    flow = {
        "gateway": {"grpc_server": "gatewayd"},
        "executors": [external("exec_a", free_ports(1)[0])],
    }
    gateway = Gateway(flow, protocols=(protocol,), PYTHONPROFILEIMPORTTIME="1")
    try:
        gateway.line(r"#info\] ready")
        loaded = set(re.findall(r"^import time: .*\| +(\S+)$", gateway.output, re.MULTILINE))
    finally:
        gateway.stop()

    assert "gatewayd.service.gateway" in loaded
    assert not loaded & (without | _OTHERS)
