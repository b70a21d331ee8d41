"""One table of questions over every protocol of one gateway: the same answers, the same refusals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from gatewayd.errors import BadRequest, DeadlineExceeded, ExecutorUnreachable, Overloaded
from gatewayd.messages.generations import ForeignDocuments
from gatewayd.messages.wire import split
from tests.equivalence.asking import WAYS, Answered, Question, Refused, refusal
from tests.paths import ROOT
from tests.processes import Gateway, external, free_ports

pytestmark = pytest.mark.slow

EXECUTORS = str(ROOT / "tests" / "executors.py")
BOTH = ("gateway", "exec_a", "exec_b")
SHARED = {"t": 1.5, "l": [1.0, "a", None]}
KEYWORDS = ["docs_map", "docs_matrix", "tracing_context"]
ONE = ({"id": "d0"},)
TWO = ({"id": "d0", "text": "x", "tags": {"n": 2.0}}, {"id": "d1", "text": "é"})


def rec(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "uses": "Rec", "py_modules": [EXECUTORS], **more}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A chain of two executors."""
    running = Gateway({"executors": [rec("exec_a"), rec("exec_b")]})
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def narrow() -> Iterator[Gateway]:
    """A gateway that makes one call at a time, and has no queue."""
    limits = {"max_in_flight": 1, "max_in_flight_per_replica": 1, "max_queued": 0}
    running = Gateway({"gateway": {"pool": limits}, "executors": [rec("exec_a")]})
    try:
        # Where nobody may wait, nobody may come before the executor is connected.
        running.line(r"exec_a: \S+ connected")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def broken() -> Iterator[Gateway]:
    """A gateway whose executor is not there."""
    running = Gateway({"executors": [external("exec_x", free_ports(1)[0])]})
    try:
        yield running
    finally:
        running.stop()


ANSWERED = {
    "two documents": (
        Question("/tag", TWO),
        Answered(
            documents=(
                ("d0", "xAB", {"n": 2.0, "A": 2.0, "B": 2.0}),
                ("d1", "éAB", {"A": 2.0, "B": 2.0}),
            ),
            parameters={},
            routes=BOTH,
            status="",
        ),
    ),
    "no documents": (
        Question("/tag"),
        Answered(documents=(), parameters={}, routes=BOTH, status=""),
    ),
    "documents that executors make": (
        Question("/new"),
        Answered((("nB", "new B", {}),), {}, BOTH, ""),
    ),
    "parameters, some for one executor": (
        Question("/params", (), {"t": 1.5, "l": [1, "a", None], "exec_b__u": {"k": True}}),
        Answered(
            documents=(
                ("<made>", "B", {"params": {**SHARED, "u": {"k": True}}, "kwargs": KEYWORDS}),
                ("<made>", "A", {"params": SHARED, "kwargs": KEYWORDS}),
            ),
            parameters={**SHARED, "exec_b__u": {"k": True}},
            routes=BOTH,
            status="",
        ),
    ),
    "results": (
        Question("/results", ONE),
        Answered(
            documents=(("d0", "", {}),),
            parameters={
                "__results__": {
                    "exec_a/rep-0": {"n": 1.0, "who": "A"},
                    "exec_b/rep-0": {"n": 1.0, "who": "B"},
                }
            },
            routes=BOTH,
            status="",
        ),
    ),
    "an executor that raises": (
        Question("/raise", ONE),
        Answered((("d0", "", {}),), {}, ("gateway", "exec_a"), "ValueError('boom', 1)"),
    ),
    "one executor only": (
        Question("/tag", ONE, target="exec_b"),
        Answered((("d0", "B", {"B": 1.0}),), {}, BOTH, ""),
    ),
    "an endpoint that nobody serves": (
        Question("/nobody", ONE),
        Answered((("d0", "", {}),), {}, BOTH, ""),
    ),
    "a thousand documents": (
        Question("/identity", tuple({"id": f"d{n}", "text": "x" * 100} for n in range(1000))),
        Answered(tuple((f"d{n}", "x" * 100, {}) for n in range(1000)), {}, BOTH, ""),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ANSWERED)
def test_the_answer_is_the_same(gateway: Gateway, name: str, way: str) -> None:
    question, expected = ANSWERED[name]
    assert WAYS[way](gateway, question) == expected


@pytest.mark.parametrize("way", WAYS)
def test_a_target_that_is_no_expression_is_refused_alike(gateway: Gateway, way: str) -> None:
    check(way, WAYS[way](gateway, Question("/tag", target="(")), BadRequest, "is not a regular expression")


UNUSUAL = {
    "Latin-1": "/é",
    "beyond Latin-1": "/☃",
    "a line end": "/a\r\nb",
    "NUL": "/\0",
    "2 kB": "/" + "a" * 2047,
    "8 kB": "/" + "a" * 8191,
}
TOO_LONG = {"2 kB": "is longer than", "8 kB": "4096 are the most"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", UNUSUAL)
def test_an_endpoint_that_no_executor_can_be_called_with_is_refused_alike(
    gateway: Gateway, name: str, way: str
) -> None:
    found = WAYS[way](gateway, Question(UNUSUAL[name], ONE))
    check(way, found, BadRequest, "characters")
    assert isinstance(WAYS[way](gateway, Question("/tag", ONE)), Answered)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_target_matches_nothing_or_is_refused_alike(gateway: Gateway, name: str, way: str) -> None:
    found = WAYS[way](gateway, Question("/tag", ONE, target=UNUSUAL[name]))
    if name in TOO_LONG:
        check(way, found, BadRequest, TOO_LONG[name])
    else:
        assert found == Answered((("d0", "", {}),), {}, BOTH, "")


@pytest.mark.parametrize("way", [way for way in WAYS if "json" not in way])
def test_documents_of_another_generation_are_refused_alike(gateway: Gateway, way: str) -> None:
    _, _, _, typed = split((ROOT / "tests" / "golden34" / "grpc" / "00_req0.bin").read_bytes())
    found = WAYS[way](gateway, Question("/tag", content=typed or b""))
    check(way, found, ForeignDocuments, "docarray 0.30 and later")


# JSON over WebSocket has no place for a deadline: no headers, and no such field.
@pytest.mark.parametrize("way", [way for way in WAYS if way != "websocket json"])
def test_a_deadline_of_the_clients_own_is_kept_alike(gateway: Gateway, way: str) -> None:
    question = Question("/asleep", ({"id": "d0"},), {"t": 30}, timeout_s=1.0)
    # A close frame's reason has no room for the whole text, and the short one names no Deployment.
    check(
        way, WAYS[way](gateway, question), DeadlineExceeded, "" if way.startswith("websocket") else "exec_a"
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_executor_is_the_same_error_in_every_protocol(broken: Gateway, way: str) -> None:
    check(way, WAYS[way](broken, Question("/tag", ONE)), ExecutorUnreachable, "127.0.0.1")


@pytest.mark.parametrize("way", WAYS)
def test_a_gateway_without_room_refuses_alike(narrow: Gateway, way: str) -> None:
    sleeper = Question("/asleep", ONE, {"t": 30}).as_protobuf()
    deadline = time.monotonic() + 60
    with grpc.insecure_channel(f"127.0.0.1:{narrow.ports['grpc']}") as channel:
        sleep = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data").future
        sleeping = sleep(sleeper)
        # Until the sleeper has the only place, a question may be answered, and the sleeper be refused.
        while isinstance(found := WAYS[way](narrow, Question("/tag", ONE)), Answered):
            assert time.monotonic() < deadline
            sleeping = sleep(sleeper) if sleeping.done() else sleeping
        sleeping.cancel()
    check(way, found, Overloaded, "")
    while not isinstance(WAYS[way](narrow, Question("/tag", ONE)), Answered):
        assert time.monotonic() < deadline


def check(way: str, found: Answered | Refused, error: type[Exception], text: str) -> None:
    """The protocol's code for ``error``, and a text that holds ``text``."""
    assert isinstance(found, Refused), found
    assert found.code == refusal(error)[way.partition(" ")[0]]
    assert text in found.text
