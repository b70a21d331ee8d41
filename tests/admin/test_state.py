"""What the admin site shows, made of figures and of what is known of processes."""

import json

import attrs
import pytest

from gatewayd.admin.state import admin_state
from gatewayd.config import load_flow_text
from gatewayd.health import Health, Part
from gatewayd.supervisor.process import ReplicaStatus
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Histogram, Reading

FLOW = load_flow_text(
    """
jtype: Flow
with: {name: shop}
executors:
  - {name: a, external: true, host: 10.0.0.1, port: 80}
  - {name: b, needs: gateway}
  - {name: c, needs: [a, b], floating: true}
""",
    environ={},
)


def seconds(*values):
    histogram = Histogram(table.CALL_SECONDS)
    for value in values:
        histogram.observe(value)
    return histogram.value()


@pytest.fixture
def reading():
    reading = Reading()
    for name in "abc":
        reading.set(table.QUEUED, 1, name, "0")
        reading.set(table.ATTEMPTS, 10, name, "0")
    reading.set(table.RETRIES, 2, "b", "0", "UNAVAILABLE")
    reading.set(table.EVENTS, 1, "b", "0", "ejected")
    reading.set(table.CALL_SECONDS, seconds(0.02, 0.02, 0.02, 0.4), "b")
    reading.set(table.REPLICA_CONNECTED, 1, "a", "0", "10.0.0.1:80")
    reading.set(table.REPLICA_CONNECTED, 0, "b", "0", "0")
    reading.set(table.REPLICA_RESTARTS, 3, "b", "0", "0")
    reading.set(table.REQUESTS, 7, "http", "/search", "ok")
    reading.set(table.REQUESTS, 1, "http", "/search", "deadline")
    reading.set(table.REQUEST_SECONDS, seconds(0.1), "http", "/search")
    reading.set(table.PROCESS_MEMORY, 1e8, "gateway")
    reading.set(table.CONNECTIONS, 5, "http", "8080")
    reading.set(table.CONNECTIONS_LIMIT, 100)
    reading.set(table.HELD, 10, "requests")
    reading.set(table.HELD_LIMIT, 1000, "requests")
    return reading


LAST_WORDS = "at http://ada:secret@db\nValueError: no model"


@pytest.fixture
def state(reading):
    health = Health("serving", True, (Part("a", 0, 1), Part("b", 0, 0)))
    processes = [
        ReplicaStatus("b", 0, 0, "waiting", None, None, 3, None, last_words=LAST_WORDS),
        ReplicaStatus("c", 0, 0, "starting", None, 77, 0, None),
    ]
    return admin_state("1.2", FLOW, health, reading, processes, {"gateway": 42})


def test_the_graph_with_what_waits_and_works_there(state):
    assert [each.name for each in state.deployments] == ["a", "b", "c"]
    assert [each.needs for each in state.deployments] == [("gateway",), ("gateway",), ("a", "b")]
    b = state.deployments[1]
    assert (b.queued, b.attempts, b.retries, b.events) == (1, 10, {"UNAVAILABLE": 2}, {"ejected": 1})
    assert b.times is not None
    assert 0.01 < b.times.p50_s <= 0.025
    assert 0.25 < b.times.p99_s <= 0.5
    assert state.deployments[0].external
    assert state.deployments[2].floating


def test_replicas_with_their_last_words(state):
    by_name = {(each.deployment, each.replica): each for each in state.replicas}

    assert by_name["a", "10.0.0.1:80"].connected
    assert by_name["a", "10.0.0.1:80"].state is None
    assert by_name["b", "0"].restarts == 3
    assert by_name["b", "0"].last_words == "at http://***@db\nValueError: no model"
    assert by_name["c", "0"].pid == 77
    assert not by_name["c", "0"].connected


def test_requests_processes_connections_and_limits(state):
    (requests,) = state.requests
    assert requests.outcomes == {"ok": 7, "deadline": 1}
    (process,) = state.processes
    assert (process.name, process.pid, process.memory_bytes, process.serves) == ("gateway", 42, 10**8, None)
    assert [attrs.astuple(each) for each in state.ports] == [("http", "8080", 5)]
    assert ("max_connections", 5, 100) in [attrs.astuple(each) for each in state.limits]
    assert not state.ready
    assert [each.reason for each in state.reasons] == ["no_replica"]


@pytest.mark.parametrize(
    ("generation", "documents"), [(0, None), (1, "docarray 0.21 and earlier"), (2, "docarray 0.30 and later")]
)
def test_which_documents_the_flow_speaks(reading, generation, documents):
    reading.set(table.GENERATION, generation)

    assert admin_state("1.2", FLOW, Health("serving", True, ()), reading, [], {}).documents == documents


def test_it_is_json(state):
    found = json.loads(state.as_json())

    assert found["flow"] == "shop"
    assert found["reasons"][0]["deployment"] == "b"
    assert found["deployments"][1]["times"]["bounds_s"] == list(table.CALL_SECONDS.bounds)
