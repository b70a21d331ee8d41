"""Generators of the second generation: what the reference's were recorded with, straight to an executor."""

import asyncio
from collections.abc import Iterator  # an annotation names it

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gatewayd import Executor, requests
from gatewayd.executor.runtime import Runtime
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.messages.methods import STREAM_DOC
from gatewayd.pb import SingleDocumentRequestProto as FirstRequest
from gatewayd.pb import StatusProto, second
from tests.docarray2.golden import CONVERSATIONS, EXECUTORS, answers, request

BY_NUMBER = {case["n"]: case for case in CONVERSATIONS}
# Those that end by themselves, as the reference's do.
SAME = (60, 62, 65, 66, 67, 69, 72, 73, 74, 76)


def ask(executor, message):
    """The answers to one document, the status of the call, and its details."""

    async def converse():
        runtime = Runtime(executor, ExecutorSpec("s"), lambda reason: None)
        address = await runtime.start()
        got = []
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                async for one in channel.unary_stream(STREAM_DOC)(message, timeout=10):
                    got.append(second.SingleDocumentRequestProto.FromString(one))
        except grpc.aio.AioRpcError as error:
            return got, error.code().name, error.details()
        finally:
            await runtime.stop()
        return got, "OK", ""

    return asyncio.run(converse())


@pytest.mark.parametrize("number", SAME, ids=lambda number: f"{number} {BY_NUMBER[number]['name']}")
def test_a_recorded_request_gets_the_recorded_answers(number):
    case = BY_NUMBER[number]
    recorded = [second.SingleDocumentRequestProto.FromString(each) for each in answers(number)]

    got, code, details = ask(EXECUTORS.S(), request(number))

    assert [one.document for one in got] == [one.document for one in recorded]
    assert [one.header.status.code for one in got] == [one.header.status.code for one in recorded]
    for one, other in zip(got, recorded, strict=True):
        # Ours says more.
        assert one.header.status.description.startswith(other.header.status.description.rstrip("')"))
    # Theirs has a request id of its own in each answer.
    assert {one.header.request_id for one in got} <= {"r1"}
    assert code == case["status"]
    assert details.split("\n    For")[0] == case.get("details", "").split("\n    For")[0]


def test_parameters_reach_the_generator():
    got, code, _ = ask(EXECUTORS.S(), request(61))

    assert code == "OK"
    assert [one.document.data["text"].text for one in got] == ["hi 0", "hi 1", "hi 2"]
    shown = got[0].document.data["tags"].dict.data["params"].text
    assert shown == "[('k', 1.0), ('s__k', 2.0)]"


def test_a_plain_generator_streams():
    got, code, _ = ask(EXECUTORS.S(), request(68))

    assert (code, [one.document.data["text"].text for one in got]) == ("OK", ["hi 0", "hi 1", "hi 2"])


@pytest.mark.parametrize("number", [70, 71, 75])
def test_an_endpoint_that_is_not_bound_is_refused(number):
    got, code, details = ask(EXECUTORS.S(), request(number))

    assert (got, code) == ([], "INVALID_ARGUMENT")
    assert "it streams /stream, /syncstream, /slow" in details


def test_large_documents_pass():
    made = second.SingleDocumentRequestProto.FromString(request(60))
    made.header.exec_endpoint = "/big"

    got, code, _ = ask(EXECUTORS.S(), made.SerializeToString())

    assert code == "OK"
    assert [len(one.document.data["text"].text) for one in got] == [300_000, 10]


def test_a_document_of_the_first_generation_is_refused_by_name():
    made = FirstRequest()
    made.header.exec_endpoint = "/stream"
    made.document.id = "a"

    got, code, details = ask(EXECUTORS.S(), made.SerializeToString())

    assert (got, code) == ([], "INVALID_ARGUMENT")
    assert details.startswith("the documents are in the format of docarray 0.21")


def test_a_generator_may_be_made_elsewhere_and_its_parameters_typed():
    class Passes(Executor):
        @requests(on="/passes")
        def passes(
            self, doc: EXECUTORS.In, parameters: EXECUTORS.Params, **kwargs
        ) -> "Iterator[EXECUTORS.Out]":
            return (EXECUTORS.Out(text=f"{doc.text} {number}") for number in range(parameters.top))

    made = second.SingleDocumentRequestProto.FromString(request(60))
    made.header.exec_endpoint = "/passes"
    wrong, code, details = ask(Passes(), made.SerializeToString())
    made.parameters.update({"top": 2.0})
    got, _, _ = ask(Passes(), made.SerializeToString())

    assert [one.document.data["text"].text for one in got] == ["hi 0", "hi 1"]
    assert (wrong, code) == ([], "UNKNOWN")
    assert "1 validation error for Params" in details


def test_a_request_to_a_generator_says_to_stream_it():
    async def converse():
        runtime = Runtime(EXECUTORS.S(), ExecutorSpec("s"), lambda reason: None)
        address = await runtime.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                method = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
                call = method(request(28), timeout=10)
                return await call, list(await call.trailing_metadata())
        finally:
            await runtime.stop()

    answer, trailing = asyncio.run(converse())

    status = second.DataRequestProto.FromString(answer).header.status
    assert (status.code, status.exception.name) == (StatusProto.ERROR, "TypeError")
    assert "S.stream answers one document with a stream" in status.description
    assert trailing == [("is-error", "true")]


def test_reflection_shows_the_second_generation():
    async def converse():
        runtime = Runtime(EXECUTORS.S(), ExecutorSpec("s"), lambda reason: None)
        address = await runtime.start()
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="docarray.DocListProto"),
        ]
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                stub = reflection_pb2_grpc.ServerReflectionStub(channel)
                return [one async for one in stub.ServerReflectionInfo(iter(asked), timeout=10)]
        finally:
            await runtime.stop()

    services, files = asyncio.run(converse())

    names = {one.name for one in services.list_services_response.service}
    assert {"jina.JinaSingleDocumentRequestRPC", "jina.JinaRPC", "jina.JinaDataRequestRPC"} <= names
    assert files.file_descriptor_response.file_descriptor_proto
