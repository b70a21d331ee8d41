"""A gateway that other machines can use as they like says so when it starts, once."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from gatewayd.config import load_flow_text
from gatewayd.config.model import GatewayConfig
from gatewayd.service.strangers import warning_for
from tests.processes import Gateway, environment

WARNING = "lets every client that reaches this machine"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_is_for_this_machine_alone(host: str) -> None:
    assert warning_for(GatewayConfig(host=host), identifies=False) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "no such name.invalid"])
def test_other_hosts_are_warned_of_by_name(host: str) -> None:
    warning = warning_for(GatewayConfig(host=host), identifies=False)

    assert warning is not None
    assert host in warning
    assert "gateway.production: true" in warning
    assert "Production" in warning


def test_there_is_no_warning_in_production_or_where_callers_are_identified() -> None:
    closed = load_flow_text("jtype: Flow\ngateway: {production: true}\n").gateway

    assert warning_for(closed, identifies=False) is None
    assert warning_for(GatewayConfig(), identifies=True) is None


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        ({"host": "0.0.0.0"}, 1),
        ({"host": "127.0.0.1"}, 0),
        ({"host": "0.0.0.0", "production": True}, 0),
        ({"host": "0.0.0.0", "production": False}, 1),
        ({"host": "0.0.0.0", "auth": {"api_keys": {"a": f"sha256:{'0' * 64}"}}}, 0),
        ({"host": "0.0.0.0", "rates": [{"requests": 10}]}, 1),
    ],
)
def test_the_log_of_a_service_has_it_once(keys: dict[str, Any], count: int) -> None:
    running = Gateway({"gateway": keys}, protocols=["grpc", "http"])
    running.line("ready")
    running.stop()

    assert running.output.count(WARNING) == count


def test_a_process_with_several_flows_in_python_has_it_once() -> None:
    script = (
        "from gatewayd import Flow\n"
        "if __name__ == '__main__':\n"
        "    for host in ('127.0.0.1', '0.0.0.0', '0.0.0.0'):\n"
        "        with Flow(host=host): print(host)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60
    )

    assert done.stdout.split() == ["127.0.0.1", "0.0.0.0", "0.0.0.0"]
    assert done.stderr.count(WARNING) == 1
