"""What generic and demanding gRPC clients need: options, compression, deadlines, health, reflection."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_twisted
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.config import GatewayConfig
from gatewayd.errors import ExecutorUnreachable
from gatewayd.inflating import looks_compressed
from gatewayd.messages import wire
from gatewayd.messages.request import Request
from gatewayd.pb import DataRequestProto
from gatewayd.protocols.grpc.own_port import OwnGrpcPort
from tests.protocols.grpc.servers import SERVERS, grpc_port
from tests.protocols.grpc.test_grpc import CALL, SINGLE, Port, Requests, ids, message, port, stream, unary
from tests.protocols.harness import FakeDispatcher, answer_to, until

__all__ = ["port"]  # a fixture

LIMIT = "grpc.max_receive_message_length"


@pytest_twisted.async_yield_fixture(params=SERVERS)
async def small(request: pytest.FixtureRequest) -> AsyncIterator[Port]:
    """A port whose options say what it takes and what it sends."""
    options = {LIMIT: 2000, "grpc.max_send_message_length": 3000}
    bridge = Bridge(reactor)
    bridge.start()
    dispatcher = FakeDispatcher()
    gateway = GatewayConfig(host="127.0.0.1", grpc_server_options=options)
    server = grpc_port(request.param, bridge, dispatcher, gateway, dict, prefetch=10, buffers=Buffers(2000))
    server.listen()
    address = f"127.0.0.1:{server.report().port}"
    channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    yield Port(server, dispatcher, channel, address)
    await deferToThread(channel.close)
    await server.drain(0)
    await bridge.stop()


async def refused(port: Port, body: bytes) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        await unary(port, SINGLE, body)
    return caught.value


@pytest_twisted.ensureDeferred
async def test_the_servers_options_are_those_of_the_flow(small: Port) -> None:
    error = await refused(small, message("r1", documents=bytes(2001)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2000" in error.details()


@pytest_twisted.ensureDeferred
async def test_an_answer_over_the_limit_is_an_error_of_its_own_and_the_port_lives(small: Port) -> None:
    small.dispatcher.behaviour = lambda request: answer_to(
        Request(request.request_id, "/tag", documents=bytes(5000) if request.request_id == "r1" else b"")
    )
    error = await refused(small, message("r1"))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "3000" in error.details()
    assert ids([await unary(small, SINGLE, message("r2"))]) == ["r2"]


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest_twisted.ensureDeferred
async def test_compressed_requests_are_understood(port: Port, compression: grpc.Compression) -> None:
    documents = b"\x0a\x00" + b"\x1a\x80\x80\x01" + bytes(16384)
    answer = await unary(port, SINGLE, message("r1", documents=documents), compression=compression)
    assert wire.decode_request(answer).documents == documents
    requests = Requests(message("r2", documents=documents))
    requests.end()
    call = port.channel.stream_stream(CALL)(iter(requests), compression=compression, timeout=10)
    assert ids(await deferToThread(list, call)) == ["r2"]


@pytest_twisted.ensureDeferred
async def test_the_limit_is_for_the_inflated_message(port: Port) -> None:
    error = None
    try:
        await unary(
            port, SINGLE, message("r1", documents=bytes(1_100_000)), compression=grpc.Compression.Gzip
        )
    except grpc.RpcError as caught:
        error = caught
    assert error is not None
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not port.dispatcher.requests


@pytest.mark.parametrize(
    "damaged",
    [b"\x1f\x8b garbage", b"\x78\x9c", gzip.compress(b"")[:-3]],
    ids=["garbage", "short zlib", "short gzip"],
)
@pytest_twisted.ensureDeferred
async def test_a_damaged_compressed_message_is_an_invalid_argument(port: Port, damaged: bytes) -> None:
    assert looks_compressed(damaged)
    error = await refused(port, damaged)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    # A server of our own is told which messages are compressed, and this one is not.
    assert "cannot be decompressed" in error.details() or "not a DataRequestProto" in error.details()


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest_twisted.ensureDeferred
async def test_a_channel_that_compresses_everything_can_ask_about_health_and_types(
    port: Port, compression: grpc.Compression
) -> None:
    check = health_pb2_grpc.HealthStub(port.channel).Check
    asked = health_pb2.HealthCheckRequest(service="jina.JinaRPC")
    status = await deferToThread(check, asked, compression=compression, timeout=10)
    assert status.status == health_pb2.HealthCheckResponse.SERVING
    reflect = reflection_pb2_grpc.ServerReflectionStub(port.channel).ServerReflectionInfo
    question = reflection_pb2.ServerReflectionRequest(file_containing_symbol="jina.JinaRPC")
    answering = reflect(iter([question]), compression=compression, timeout=10)
    answers = await deferToThread(list, answering)
    assert answers[0].HasField("file_descriptor_response")


@pytest_twisted.ensureDeferred
async def test_a_calls_deadline_reaches_the_dispatcher(port: Port) -> None:
    await deferToThread(lambda: port.channel.unary_unary(SINGLE)(message("r1"), timeout=600))
    await deferToThread(lambda: port.channel.unary_unary(SINGLE)(message("r2")))
    first, second = port.dispatcher.timeouts
    assert first is not None
    # gRPC rounds what is left of it up, to two digits and more.
    assert 500 < first <= 610
    assert second is None


@pytest_twisted.ensureDeferred
async def test_requests_that_would_exceed_the_buffers_are_refused_for_now(small: Port) -> None:
    small.dispatcher.held = True
    call = small.channel.unary_unary(SINGLE).future(message("r1", documents=bytes(1500)))
    await until(lambda: small.dispatcher.waiting)
    error = await refused(small, message("r2", documents=bytes(1500)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "gateway.max_buffered_bytes" in error.details()
    small.dispatcher.settle("r1")
    await deferToThread(call.result)
    small.dispatcher.held = False
    answer = await unary(small, SINGLE, message("r3", documents=bytes(1500)))
    assert wire.decode_request(answer).request_id == "r3"


@pytest_twisted.ensureDeferred
async def test_answers_before_a_failed_request_of_a_stream_are_delivered(port: Port) -> None:
    def third_fails(request: Request) -> Any:
        if request.request_id == "r2":
            raise ExecutorUnreachable("exec_x", ["127.0.0.1:1"], "refused")
        return answer_to(request)

    port.dispatcher.behaviour = third_fails
    requests = Requests(*[message(f"r{number}") for number in range(5)])
    answers = stream(port, requests, ("__results_in_order__", "true"))
    found: list[str] = []

    def read() -> grpc.RpcError:
        try:
            for answer in answers:
                found.append(DataRequestProto.FromString(answer).header.request_id)
        except grpc.RpcError as error:
            return error
        raise AssertionError("the stream ended well")

    error = await deferToThread(read)
    requests.end()
    assert found == ["r0", "r1", "r2"]  # the last names the one that failed
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "exec_x" in error.details()


@pytest_twisted.ensureDeferred
async def test_watchers_of_health_learn_of_the_end_while_requests_finish(port: Port) -> None:
    watch = health_pb2_grpc.HealthStub(port.channel).Watch(
        health_pb2.HealthCheckRequest(service="jina.JinaRPC"), timeout=20
    )
    serving, not_serving = (
        health_pb2.HealthCheckResponse.SERVING,
        health_pb2.HealthCheckResponse.NOT_SERVING,
    )
    assert (await deferToThread(next, watch)).status == serving
    port.dispatcher.held = True
    call = port.channel.unary_unary(SINGLE).future(message("r1"))
    await until(lambda: port.dispatcher.waiting)

    stopped = port.server.drain(10)
    assert (await deferToThread(next, watch)).status == not_serving
    assert not call.done()
    port.dispatcher.settle("r1")
    assert ids([await deferToThread(call.result)]) == ["r1"]
    watch.cancel()
    await stopped


@pytest_twisted.ensureDeferred
async def test_a_watcher_of_health_holds_no_stop(port: Port) -> None:
    if not isinstance(port.server, OwnGrpcPort):
        pytest.skip("grpcio's server lets them watch until the grace period is over")
    watch = health_pb2_grpc.HealthStub(port.channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
    await deferToThread(next, watch)

    def rest() -> grpc.RpcError:
        try:
            for each in watch:
                assert each.status == health_pb2.HealthCheckResponse.NOT_SERVING
        except grpc.RpcError as error:
            return error
        raise AssertionError("the call ended well")

    began = reactor.seconds()
    await port.server.drain(60)
    assert reactor.seconds() - began < 30
    assert (await deferToThread(rest)).code() is grpc.StatusCode.UNAVAILABLE


@pytest_twisted.ensureDeferred
async def test_a_client_that_knows_only_reflection_can_call_every_method(port: Port) -> None:
    found = await deferToThread(call_everything, port.channel)
    assert sorted(found) == [
        "jina.JinaGatewayDryRunRPC/dry_run",
        "jina.JinaInfoRPC/_status",
        "jina.JinaRPC/Call",
        "jina.JinaSingleDataRequestRPC/process_single_data",
    ]
    assert found["jina.JinaRPC/Call"].header.request_id == "generic"
    assert found["jina.JinaInfoRPC/_status"].jina["jina"] == "3.14.1"


def call_everything(channel: grpc.Channel) -> dict[str, Any]:
    """What each method of the gateway's own services answers to a client without a .proto."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def ask(**question: str) -> Any:
        return next(
            stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=10)
        )

    pool = descriptor_pool.DescriptorPool()
    known: dict[str, bytes] = {}
    services = [each.name for each in ask(list_services="").list_services_response.service]
    for service in services:
        files = ask(file_containing_symbol=service).file_descriptor_response.file_descriptor_proto
        for file in files:  # given with what they import, in an order that suits a pool
            name = descriptor_pb2.FileDescriptorProto.FromString(file).name
            if name not in known:
                known[name] = file
    _add_all(pool, known)
    answers: dict[str, Any] = {}
    for service in services:
        if service.startswith("grpc."):
            continue
        for method in pool.FindServiceByName(service).methods:
            request = message_factory.GetMessageClass(method.input_type)()
            if "header" in method.input_type.fields_by_name:
                request.header.request_id = "generic"
            path = f"{service}/{method.name}"
            kind = channel.stream_stream if method.client_streaming else channel.unary_unary
            answer_class = message_factory.GetMessageClass(method.output_type)
            call = kind(
                f"/{path}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer_class.FromString,
            )
            if method.client_streaming:
                answers[path] = next(call(iter([request]), timeout=10))
            else:
                answers[path] = call(request, timeout=10)
    return answers


def _add_all(pool: descriptor_pool.DescriptorPool, files: dict[str, bytes]) -> None:
    """Each file after those that it imports."""
    added: set[str] = set()

    def add(name: str) -> None:
        if name in added:
            return
        added.add(name)
        for needed in descriptor_pb2.FileDescriptorProto.FromString(files[name]).dependency:
            add(needed)
        pool.AddSerializedFile(files[name])

    for name in files:
        add(name)
