"""
Every recorded stream of a Jina 3.34 executor, played to a running gateway: what comes out of it.

The recordings of the reference's gateway differ from those of its executor by its retries, which send a
client the same documents up to four times, and then say that all is well: ours ends as the executor did.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import attrs
import grpc
import pytest

from gatewayd.messages import wire
from gatewayd.messages.methods import DISCOVERY, SINGLE, STREAM, STREAM_DOC
from gatewayd.messages.single import decode_single_request
from tests.paths import ROOT
from tests.processes import Gateway, external
from tests.waiting import until

pytestmark = pytest.mark.slow

FOLDER = ROOT / "tests" / "golden34" / "grpc"
TOLD = (FOLDER / "38_resp0.bin").read_bytes()  # the EndpointsProto of this executor
STREAMING = ("/stream", "/slow", "/midraise", "/raise0", "/wrongtype", "/syncstream", "/empty", "/richstream")
NO_DOCUMENTS = b"\n\x00"
# Of a client that leaves, or whose deadline passes, the recordings have no end that an executor made.
# The reference's gateway does not look at ``target_executor``; ours leaves out those that it does not match.
LEFT_OUT = ("stream_doc, cancelled after 2", "stream_doc deadline", "stream_doc with parameters and target")


def recorded() -> list[dict[str, Any]]:
    """The conversations with the executor whose endpoints stream."""
    found = []
    for case in json.loads((FOLDER / "manifest.json").read_text()):
        header = case["requests"][0].get("decoded", {}).get("header", {}) if case["requests"] else {}
        played = case["to"] == "executor S" and case["method"] == STREAM_DOC and case["name"] not in LEFT_OUT
        if played and header.get("exec_endpoint") in STREAMING:
            found.append(case)
    return found


CASES = recorded()


def contents(case: dict[str, Any], kind: str) -> list[bytes]:
    return [(FOLDER / each["file"]).read_bytes() for each in case[kind]]


@attrs.define
class Player(grpc.GenericRpcHandler):
    """An executor that answers with the bytes and the end of a conversation, and notes what it is asked."""

    case: dict[str, Any] = attrs.Factory(dict)
    asked: list[bytes] = attrs.Factory(list)
    # Whether the recording ends before its generator does; ``cancelled`` is when the call ends then.
    goes_on: bool = False
    cancelled: threading.Event = attrs.Factory(threading.Event)

    def service(self, details: Any) -> Any:
        if details.method == STREAM_DOC:
            return grpc.unary_stream_rpc_method_handler(self._stream)
        if details.method == DISCOVERY:
            return grpc.unary_unary_rpc_method_handler(lambda _message, _context: TOLD)
        if details.method == SINGLE:
            return grpc.unary_unary_rpc_method_handler(lambda message, _context: message)
        return None

    def _stream(self, message: bytes, context: Any) -> Iterator[bytes]:
        self.asked.append(message)
        goes_on, self.goes_on = self.goes_on, False
        if goes_on:
            # Before the answers: of a call that is over already nothing would be told.
            self.cancelled.clear()
            context.add_callback(self.cancelled.set)
        yield from contents(self.case, "responses")
        if goes_on:
            self.cancelled.wait()
            return
        if self.case["status"] != "OK":
            context.abort(grpc.StatusCode[self.case["status"]], self.case["details"])


@pytest.fixture(scope="module")
def player() -> Iterator[tuple[Player, int]]:
    made = Player()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([made])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, port
    server.stop(0).wait()


@pytest.fixture(scope="module", params=["gatewayd", "grpcio"])
def channel(request: Any, player: tuple[Player, int]) -> Iterator[grpc.Channel]:
    gateway = Gateway({"gateway": {"grpc_server": request.param}, "executors": [external("s", player[1])]})
    try:
        with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:

            def discovered() -> bool:
                try:
                    return bool(channel.unary_unary(DISCOVERY)(b"", timeout=10))
                except grpc.RpcError:
                    return False

            until(discovered)
            yield channel
    finally:
        gateway.stop()


def exchange(channel: grpc.Channel, path: str, message: bytes) -> tuple[list[bytes], str, str]:
    call: Any = channel.stream_stream(path)(iter([message]), timeout=30)
    found: list[bytes] = []
    with contextlib.suppress(grpc.RpcError):  # the status says what it was
        found.extend(call)
    return found, call.code().name, call.details()


def test_all_that_streams_is_played() -> None:
    assert len(CASES) >= 8
    assert {"OK", "UNKNOWN"} == {case["status"] for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_recorded_stream_ends_as_its_executor_ended_it(
    player: tuple[Player, int], channel: grpc.Channel, case: dict[str, Any]
) -> None:
    executor, _ = player
    executor.case, executor.asked = case, []
    (request,) = contents(case, "requests")
    found, status, details = exchange(channel, STREAM_DOC, request)
    documents = [bytes(decode_single_request(each).documents) for each in found]

    assert documents == [bytes(decode_single_request(each).documents) for each in contents(case, "responses")]
    assert {decode_single_request(each).request_id for each in found} <= {"r1"}
    assert status == case["status"]
    assert case.get("details", "") in details
    assert len(executor.asked) == 1, "a stream that began is not repeated"


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_call_has_the_same_documents(
    player: tuple[Player, int], channel: grpc.Channel, case: dict[str, Any]
) -> None:
    executor, _ = player
    executor.case, executor.asked = case, []
    (request,) = contents(case, "requests")
    single = decode_single_request(request)
    found, status, _ = exchange(channel, STREAM, bytes(wire.encode_request(single)))
    if status != "OK":
        found.pop()  # which names the request that failed
    documents = [bytes(wire.decode_request(each).documents) for each in found]

    # An answer that has an error instead of a document has an empty list of them here.
    assert documents == [
        bytes(decode_single_request(raw).documents) if "document" in each["decoded"] else NO_DOCUMENTS
        for raw, each in zip(contents(case, "responses"), case["responses"], strict=True)
    ]
    assert status == case["status"]


# -- the conversations with the reference's gateway ---------------------------------------------------

_RETRIES = "the reference sends a stream that failed up to four times, and says that all is well"
_NOBODY = "the reference echoes what nobody binds, up to four times, and says that all is well"
# What is answered otherwise than it was recorded at the reference's gateway, and why: with the executor's own
# end, or with this status and so many documents.
BETTER: dict[str, tuple[str, tuple[str, int] | None]] = {
    "stream_doc with parameters and target": (
        "the reference does not look at target_executor, which names nobody here",
        ("INVALID_ARGUMENT", 0),
    ),
    "stream_doc raises in the middle": (_RETRIES, None),
    "stream_doc raises at once": (_RETRIES, None),
    "stream_doc of a sync generator": (_RETRIES, None),
    "stream_doc without document": (_RETRIES, None),
    "stream_doc wrong schema": (_RETRIES, None),
    "stream_doc of a batch endpoint": (
        "an endpoint that does not stream is called as one, and its answer is the stream",
        ("OK", 1),
    ),
    "stream_doc endpoint not bound": (_NOBODY, ("INVALID_ARGUMENT", 0)),
    "stream_doc no endpoint": (_NOBODY, ("INVALID_ARGUMENT", 0)),
    "stream_doc empty bytes": (_NOBODY, ("INVALID_ARGUMENT", 0)),
}
ALL = {
    (case["to"], case["name"]): case
    for case in json.loads((FOLDER / "manifest.json").read_text())
    if case["method"] == STREAM_DOC
}
# Its documents of megabytes are not among the recordings, only what was decoded of them.
NOT_KEPT = ("stream_doc big",)
OF_GATEWAY = [
    case
    for (to, name), case in ALL.items()
    if to == "gateway s" and "down" not in name and name not in NOT_KEPT
]


def test_every_conversation_with_the_gateway_is_replayed() -> None:
    assert len(OF_GATEWAY) + len(NOT_KEPT) == 18
    for name in NOT_KEPT:
        assert not (FOLDER / ALL["gateway s", name]["requests"][0]["file"]).exists()
    assert BETTER.keys() <= {case["name"] for case in OF_GATEWAY}


@pytest.mark.parametrize("case", OF_GATEWAY, ids=[case["name"] for case in OF_GATEWAY])
def test_a_conversation_with_the_references_gateway_goes_as_recorded_or_better(
    player: tuple[Player, int], channel: grpc.Channel, case: dict[str, Any]
) -> None:
    executor, _ = player
    name = case["name"]
    executor.case, executor.asked = ALL["executor S", name], []
    (request,) = contents(case, "requests")
    if "status" not in case or case["status"] == "DEADLINE_EXCEEDED":
        # The client leaves, or its time is up, while the generator has more to say.
        executor.goes_on = True
        found, status = _given_up(channel, request, case)
        assert executor.cancelled.wait(20), "the generator is closed when its client has gone"
    else:
        found, status, _ = exchange(channel, STREAM_DOC, request)
    documents = [bytes(decode_single_request(each).documents) for each in found]

    _, better = BETTER.get(name, ("", None))
    if better is not None:
        assert (status, len(documents)) == better
        return
    recorded = executor.case
    assert (recorded.get("status") == case.get("status")) == (name not in BETTER), "no departure any more"
    assert status == recorded.get("status", "CANCELLED")
    # Those of the executor: the reference's gateway writes each anew, with its fields in another order.
    assert documents == [
        bytes(decode_single_request(each).documents) for each in contents(recorded, "responses")
    ]
    assert name in BETTER or len(documents) == len(case["responses"])


def _given_up(channel: grpc.Channel, request: bytes, case: dict[str, Any]) -> tuple[list[bytes], str]:
    """What came until the client left, after as many answers as were recorded, or its time was up."""
    limit_s = 30.0 if "status" not in case else 1.0
    call: Any = channel.stream_stream(STREAM_DOC)(iter([request]), timeout=limit_s)
    found: list[bytes] = []
    with contextlib.suppress(grpc.RpcError):  # the status says what it was
        for answer in call:
            found.append(answer)
            if "status" not in case and len(found) == len(case["responses"]):
                call.cancel()
    return found, call.code().name
