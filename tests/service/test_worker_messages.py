"""What the master and its workers send each other, as values."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from gatewayd.config import FlowConfig, load_flow_text
from gatewayd.protocols.port import PortReport
from gatewayd.service.worker_messages import (
    Connected,
    ExecutorsReady,
    Failed,
    Listening,
    Loaded,
    Logged,
    Measure,
    Measured,
    OutOfReach,
    Part,
    PartLoad,
    Ready,
    ReopenLogs,
    ReplicaAddress,
    ReplicaDown,
    ReplicaLoad,
    ReplicaUp,
    Retire,
    Serving,
    SetLogLevel,
    Start,
    WholeService,
    from_event,
    from_line,
    packed,
    to_line,
    unpacked,
)

REPLICA = ReplicaAddress("a", 1, 2, "unix:/tmp/a.0")
START = Start("1.0", "worker-1", "flow", ((4,), (5, 6)), (REPLICA,), False, 7, 1, "12", "2026-01-01T00:00:00")
PORT = PortReport(("http", "websocket"), "127.0.0.1", 80, True, None, "curl")
EVERY = [
    START,
    ReplicaUp(REPLICA),
    ReplicaDown("a", 1, 2),
    ExecutorsReady(),
    WholeService(2, 1),
    Measure(3),
    Measured(3, '{"gatewayd_ready":[[1.0]]}'),
    Connected((Part("a", 0, 2), Part("b", 1, 0))),
    OutOfReach("a", 1, 2),
    Loaded((PartLoad("a", 0, 2, 1),), (ReplicaLoad("a", 0, 1, 4, in_flight=2),)),
    Retire(),
    Listening((PORT, attrs.evolve(PORT, try_it=None))),
    Ready(),
    Serving(),
    Failed("ConfigError", "two\nlines"),
    Logged("warn", "gatewayd.pool", "räksmörgås\n\u2028"),
    Logged("error", "gatewayd.pool", "failed", "Traceback\n", {"count": 3, "request_id": None}),
    SetLogLevel("debug", "gatewayd.pool"),
    ReopenLogs(),
]


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_a_message_is_one_line_and_comes_back(message: Any) -> None:
    line = to_line(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert from_line(line) == message


def test_what_a_supervised_process_reports_has_the_names_that_all_have() -> None:
    assert json.loads(to_line(Ready())) == {"event": "ready"}
    assert json.loads(to_line(Failed("ConfigError", "no"))) == {
        "event": "failed",
        "kind": "ConfigError",
        "error": "no",
    }


@pytest.mark.parametrize("event", [{}, {"event": "unknown"}, {"event": "ready", "more": 1}, {"event": "log"}])
def test_what_is_no_message_is_refused(event: Any) -> None:
    with pytest.raises(ValueError, match="no message"):
        from_event(event)


def test_a_flow_comes_back_whole() -> None:
    flow = load_flow_text(
        """
jtype: Flow
gateway:
  protocol: [http, websocket]
  rates: [{requests: 5, by: address}]
  auth: {api_keys: {one: "sha256:%s"}, rules: [{endpoints: ["*"], allow: [one]}]}
  pool: {max_queued: 7}
  expose_endpoints: {/search: {methods: [GET]}}
executors:
  - {name: a, uses_with: {day: 2026-01-01, list: [1, {x: y}]}, when: {tags__n: {$gt: 1}}}
"""
        % ("0" * 64),
        environ={},
    )
    assert isinstance(flow, FlowConfig)
    assert unpacked(packed(flow)) == flow


def test_no_secret_is_in_the_repr() -> None:
    assert "flow=" not in repr(START)
