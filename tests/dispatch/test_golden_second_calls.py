"""
Recorded gRPC calls of the second generation through the engine: the executor answers as it did, and the
client gets the recorded answer. Streams of documents are in test_streaming, discovery in tests/messages.
"""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from google.protobuf.json_format import MessageToDict

from gatewayd.errors import BadRequest
from gatewayd.messages.discovery import DEFAULT
from gatewayd.messages.endpoints_codec import read_endpoints
from gatewayd.messages.formats import SECOND
from gatewayd.messages.request import Answer, Request, Response
from gatewayd.messages.wire import decode_answer, decode_request, encode_response
from gatewayd.pb.second import DataRequestProto
from tests.dispatch.fakes import FakePool, build, deployment
from tests.paths import GOLDEN34

CALLS = GOLDEN34 / "grpc"
MANIFEST = json.loads((CALLS / "manifest.json").read_text())
RECORDED = {
    f"{case['n']} {case['name']}": case
    for case in MANIFEST
    if case["to"].startswith("gateway")
    and case["method"].endswith(("/process_single_data", "/Call"))
    and case["status"] == "OK"
}
# What each executor binds, as it told it.
BOUND = {
    case["to"].rpartition(" ")[2].lower(): tuple(read_endpoints(_bytes).bound)
    for case in MANIFEST
    if case["name"].startswith("endpoint_discovery executor")
    for _bytes in [(CALLS / case["responses"][0]["file"]).read_bytes()]
}


def request_of(name: str) -> Request:
    """The request, with the documents as they are on the wire."""
    message = DataRequestProto.FromString((CALLS / name).read_bytes())
    documents = message.data.SerializeToString()
    message.ClearField("data")
    return attrs.evolve(decode_request(message.SerializeToString()), documents=documents)


def requests_and_answers(case: dict[str, Any]) -> list[tuple[Request, Any]]:
    """Each request with the answer to it, by their ids: the answers of a stream come in any order."""
    answers = [DataRequestProto.FromString((CALLS / each["file"]).read_bytes()) for each in case["responses"]]
    by_id = {each.header.request_id: each for each in answers}
    found = []
    for each in case["requests"]:
        request = request_of(each["file"])
        found.append((request, by_id[request.request_id] if len(answers) > 1 else answers[0]))
    return found


def shown(message: Any) -> dict[str, Any]:
    """What has to be the same, whatever the times are."""
    found = MessageToDict(message, preserving_proto_field_name=True)
    found["routes"] = [each["executor"] for each in found.get("routes", [])]
    header = found.get("header", {})
    # The reference writes targets into answers, also empty ones (grpc.md).
    header.pop("target_executor", None)
    if not header.get("exec_endpoint", True):
        del header["exec_endpoint"]  # one that was not named; here, answers name it as empty
    parameters = found.pop("parameters", {})
    # The reference adds an empty map of results.
    if not parameters.get("__results__", True):
        del parameters["__results__"]
    return {**found, "parameters": parameters}


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_call_is_answered_as_recorded(name: str) -> None:
    case = RECORDED[name]
    for request, recorded in requests_and_answers(case):
        executor = case["to"].rpartition(" ")[2]
        bound = BOUND[executor]
        if executor == "def":
            executor = "d"  # as it was called in that Flow
        pool = FakePool({} if DEFAULT in bound else {executor: bound}, SECOND)
        got: list[Any] = []
        dispatched = build(pool, deployment(executor)).dispatch(request)
        dispatched.addCallbacks(got.append, lambda failure, got=got: got.append(failure.value))
        if pool.waiting:
            sent = pool.take(executor)
            call = decode_answer(sent.call.messages[0])
            assert call.documents == request.documents  # passed on untouched
            sent.waiting.callback(answer_of(recorded))
        (response,) = got
        assert isinstance(response, Response)
        answer = DataRequestProto.FromString(bytes(encode_response(response)))
        assert shown(answer) == shown(recorded)


def answer_of(recorded: Any) -> Answer:
    """What the executor must have answered."""
    results = b""
    if recorded.parameters.fields["__results__"].struct_value.fields:
        results = recorded.parameters.SerializeToString()
    failed = recorded.header.status.code != 0
    status = recorded.header.status.SerializeToString() if failed else b""
    return Answer(recorded.data.SerializeToString(), results, (), status, failed)


def test_a_target_that_is_no_pattern_is_the_clients_mistake() -> None:
    (case,) = (each for each in MANIFEST if each["name"] == "target bad regex")
    failures: list[Any] = []
    pool = FakePool(format=SECOND)
    dispatched = build(pool, deployment("a")).dispatch(request_of(case["requests"][0]["file"]))
    dispatched.addErrback(failures.append)
    assert failures[0].check(BadRequest)
    assert not pool.sent
