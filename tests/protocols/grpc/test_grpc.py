"""The gRPC port over a real socket, with grpcio's own client and a dispatcher that tests command."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import grpc
import pytest
import pytest_twisted
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from gatewayd.bridge import Bridge
from gatewayd.config import GatewayConfig
from gatewayd.errors import BadRequest, DeadlineExceeded, Draining, ExecutorUnreachable, PortTaken
from gatewayd.messages import wire
from gatewayd.messages.discovery import Endpoints, TypedEndpoint
from gatewayd.messages.endpoints_codec import read_endpoints
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request
from gatewayd.pb import DataRequestProto, JinaInfoProto, StatusProto
from gatewayd.protocols.grpc.own_port import OwnGrpcPort
from gatewayd.protocols.grpc.port import GrpcPort
from tests.protocols.grpc.servers import SERVERS, Served, grpc_port
from tests.protocols.harness import FakeDispatcher, until
from tests.waiting import until as until_true

SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
CALL = "/jina.JinaRPC/Call"
DRY_RUN = "/jina.JinaGatewayDryRunRPC/dry_run"
DISCOVERY = "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery"
STATUS = "/jina.JinaInfoRPC/_status"
DOWN = ExecutorUnreachable("exec_x", ["127.0.0.1:1"], "failed to connect to all addresses")


@attrs.define
class Port:
    """A gateway's gRPC port, the dispatcher behind it, and a channel to it."""

    server: Served
    dispatcher: FakeDispatcher
    channel: grpc.Channel
    address: str


@pytest_twisted.async_yield_fixture(params=SERVERS)
async def port(request: pytest.FixtureRequest) -> AsyncIterator[Port]:
    bridge = Bridge(reactor)
    bridge.start()
    gateway = GatewayConfig(host="127.0.0.1", max_message_bytes=1_000_000)
    dispatcher = FakeDispatcher()
    maps = {"jina": {"jina": "3.14.1"}, "envs": {}}
    server = grpc_port(
        request.param,
        bridge,
        dispatcher,
        gateway,
        lambda: maps,
        prefetch=1000,
        max_message_bytes=1_000_000,
        endpoints=lambda: dispatcher.endpoints,
    )
    server.listen()
    address = f"127.0.0.1:{server.report().port}"
    server.set_serving()
    channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    yield Port(server, dispatcher, channel, address)
    await deferToThread(channel.close)
    await server.drain(0)
    await bridge.stop()


def message(request_id: str, **more: Any) -> bytes:
    return wire.encode_request(Request(request_id, "/tag", **more))


def ids(answers: list[bytes]) -> list[str]:
    return [DataRequestProto.FromString(answer).header.request_id for answer in answers]


async def unary(port: Port, method: str, body: bytes, **more: Any) -> bytes:
    return await deferToThread(lambda: port.channel.unary_unary(method)(body, timeout=10, **more))


async def fails(port: Port, method: str, body: bytes) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        await unary(port, method, body)
    return caught.value


@pytest_twisted.ensureDeferred
async def test_a_single_request_is_answered_with_its_documents_untouched(port: Port) -> None:
    documents = b"\x0a\x09\x0a\x07\x0a\x02d0\x22\x01x\x98\x06\x01"  # with a field that nobody knows

    answer = await unary(port, SINGLE, message("r1", documents=documents))

    assert wire.decode_request(answer).documents == documents
    assert ids([answer]) == ["r1"]
    assert DataRequestProto.FromString(answer).header.HasField("target_executor")


@pytest_twisted.ensureDeferred
async def test_no_bytes_at_all_are_an_empty_request(port: Port) -> None:
    answer = DataRequestProto.FromString(await unary(port, SINGLE, b""))

    assert port.dispatcher.requests == [Request("", "")]
    assert answer.data.HasField("docs")


@pytest_twisted.ensureDeferred
async def test_bytes_that_are_no_request_are_an_invalid_argument(port: Port) -> None:
    error = await fails(port, SINGLE, b"\xff\xff\xff")

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a DataRequestProto" in error.details()


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (DOWN, grpc.StatusCode.UNAVAILABLE),
        (DeadlineExceeded("exec_x", ["127.0.0.1:1"]), grpc.StatusCode.DEADLINE_EXCEEDED),
        (BadRequest("no such thing"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
@pytest_twisted.ensureDeferred
async def test_each_kind_of_error_has_its_code_and_the_whole_explanation(
    port: Port, raised: Exception, code: grpc.StatusCode
) -> None:
    def refuse(_: Request) -> None:
        raise raised

    port.dispatcher.behaviour = refuse
    error = await fails(port, SINGLE, message("r1"))

    assert (error.code(), error.details()) == (code, str(raised))


@pytest_twisted.ensureDeferred
async def test_clients_learn_only_the_request_id_of_a_bug(port: Port, caught_failures: list[Failure]) -> None:
    def broken(_: Request) -> None:
        raise LookupError("a secret of the inside")

    port.dispatcher.behaviour = broken
    error = await fails(port, SINGLE, message("r1"))

    assert error.code() is grpc.StatusCode.INTERNAL
    assert "'r1'" in error.details()
    assert "secret" not in error.details()
    assert [failure.type for failure in caught_failures] == [LookupError]
    caught_failures.clear()


@pytest_twisted.ensureDeferred
async def test_a_message_over_the_limit_is_refused_and_the_port_lives(port: Port) -> None:
    error = await fails(port, SINGLE, message("r1", documents=bytes(1_000_001)))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1000000" in error.details()
    assert ids([await unary(port, SINGLE, message("r2"))]) == ["r2"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_cancels_cancels_its_request(port: Port) -> None:
    port.dispatcher.held = True
    call = port.channel.unary_unary(SINGLE).future(message("r1"))
    await until(lambda: "r1" in port.dispatcher.waiting)

    call.cancel()

    await until(lambda: port.dispatcher.cancelled == ["r1"])


@pytest_twisted.ensureDeferred
async def test_a_clients_deadline_cancels_its_request(port: Port) -> None:
    port.dispatcher.held = True
    call = port.channel.unary_unary(SINGLE).future(message("r1"), timeout=1.5)

    await until(lambda: port.dispatcher.cancelled == ["r1"])
    assert (await deferToThread(call.code)) is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest_twisted.ensureDeferred
async def test_dry_run_takes_one_empty_document_through_and_answers_nothing(port: Port) -> None:
    assert await unary(port, DRY_RUN, b"") == b""


@pytest_twisted.ensureDeferred
async def test_a_failed_dry_run_is_a_status_not_an_error(port: Port) -> None:
    port.dispatcher.dry_run_error = DOWN

    status = StatusProto.FromString(await unary(port, DRY_RUN, b""))

    assert status.code == StatusProto.ERROR
    assert status.description == str(DOWN)
    assert status.exception.name == "InternalNetworkError"


@pytest_twisted.ensureDeferred
async def test_status_has_both_maps(port: Port) -> None:
    assert JinaInfoProto.FromString(await unary(port, STATUS, b"")).jina["jina"] == "3.14.1"


@pytest_twisted.ensureDeferred
async def test_methods_of_executors_are_not_served(port: Port) -> None:
    for method in (
        "/jina.JinaDataRequestRPC/process_data",
        "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery",
    ):
        error = await fails(port, method, b"")
        assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


@pytest_twisted.ensureDeferred
async def test_a_flow_of_the_second_generation_tells_its_endpoints_as_an_executor_does(port: Port) -> None:
    schema = {"title": "In", "properties": {"text": {"type": "string"}}}
    one = TypedEndpoint(schema, schema, "In", "In", streams=True, single=True)
    streaming = frozenset({"/x"})
    port.dispatcher.endpoints = Endpoints(
        {"/x": "does x"}, (), Generation.SECOND, {"/x": one}, streaming, attrs.evolve(one, streams=False)
    )
    told = read_endpoints(await unary(port, DISCOVERY, b""))

    assert told.generation == Generation.SECOND
    assert told.bound == {"/x": "does x", "_jina_dry_run_": ""}
    assert told.typed["/x"] == one
    assert told.streaming == streaming


# -- Call ------------------------------------------------------------------------------------------------


class Requests:
    """A client's side of a stream, fed by the test."""

    def __init__(self, *first: bytes) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.taken = 0
        for one in first:
            self.send(one)

    def send(self, one: bytes) -> None:
        self._queue.put(one)

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (one := self._queue.get()) is not None:
            self.taken += 1
            yield one


def stream(port: Port, requests: Requests, *metadata: tuple[str, str]) -> Any:
    return port.channel.stream_stream(CALL)(iter(requests), metadata=metadata, timeout=20)


@pytest_twisted.ensureDeferred
async def test_answers_of_a_stream_come_as_they_are_ready(port: Port) -> None:
    port.dispatcher.held = True
    requests = Requests(message("r1"), message("r2"))
    answers = stream(port, requests)
    await until(lambda: len(port.dispatcher.waiting) == 2)

    port.dispatcher.settle("r2")
    first = await deferToThread(next, answers)
    port.dispatcher.settle("r1")
    requests.end()

    assert ids([first, *await deferToThread(list, answers)]) == ["r2", "r1"]


@pytest_twisted.ensureDeferred
async def test_answers_come_in_order_when_the_client_asks_for_it(port: Port) -> None:
    port.dispatcher.held = True
    requests = Requests(message("r1"), message("r2"))
    requests.end()
    answers = stream(port, requests, ("__results_in_order__", "true"))
    await until(lambda: len(port.dispatcher.waiting) == 2)

    port.dispatcher.settle("r2")
    port.dispatcher.settle("r1")

    assert ids(await deferToThread(list, answers)) == ["r1", "r2"]


@pytest_twisted.ensureDeferred
async def test_prefetch_bounds_what_is_in_flight(port: Port) -> None:
    port.dispatcher.held = True
    requests = Requests(message("r1"), message("r2"), message("r3"))
    requests.end()
    answers = stream(port, requests, ("__prefetch__", "1"))
    for number in (1, 2, 3):
        await until(lambda number=number: len(port.dispatcher.requests) == number)
        assert len(port.dispatcher.waiting) == 1
        port.dispatcher.settle(f"r{number}")

    assert ids(await deferToThread(list, answers)) == ["r1", "r2", "r3"]


@pytest_twisted.ensureDeferred
async def test_an_empty_stream_ends_well(port: Port) -> None:
    requests = Requests()
    requests.end()

    assert await deferToThread(list, stream(port, requests)) == []


@pytest_twisted.ensureDeferred
async def test_a_network_failure_names_its_request_and_ends_the_stream(port: Port) -> None:
    port.dispatcher.held = True
    requests = Requests(message("r1"), message("r2"))
    answers = stream(port, requests, ("__results_in_order__", "true"))
    await until(lambda: len(port.dispatcher.waiting) == 2)

    port.dispatcher.settle("r1")
    port.dispatcher.waiting.pop("r2").errback(DOWN)

    assert ids([await deferToThread(next, answers)]) == ["r1"]
    marker = DataRequestProto.FromString(await deferToThread(next, answers))
    assert (marker.header.request_id, marker.header.HasField("exec_endpoint")) == ("r2", False)
    with pytest.raises(grpc.RpcError) as caught:
        await deferToThread(next, answers)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    requests.end()


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_a_stream_cancels_what_is_in_flight(port: Port) -> None:
    port.dispatcher.held = True
    requests = Requests(message("r1"), message("r2"))
    answers = stream(port, requests)
    await until(lambda: len(port.dispatcher.waiting) == 2)

    answers.cancel()
    requests.end()

    await until(lambda: sorted(port.dispatcher.cancelled) == ["r1", "r2"])


@pytest_twisted.ensureDeferred
async def test_garbage_in_a_stream_ends_that_stream_only(port: Port) -> None:
    requests = Requests(b"\xff\xff\xff")
    with pytest.raises(grpc.RpcError) as caught:
        await deferToThread(list, stream(port, requests))
    requests.end()

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert ids([await unary(port, SINGLE, message("r2"))]) == ["r2"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_is_not_read_from(port: Port) -> None:
    """Answers of 100 kB fill the connection's window; reading stops long before 400 were taken."""
    big = bytes(100_000)
    requests = Requests(*[message(f"r{number}", documents=big) for number in range(400)])
    answers = stream(port, requests, ("__prefetch__", "4"))
    await until(lambda: len(port.dispatcher.requests) >= 4)

    def taken() -> int:
        return sum(request.request_id != "another client" for request in port.dispatcher.requests)

    seen = -1
    while seen != taken():  # until nothing moves any more, while others are served
        seen = taken()
        for _ in range(20):
            await unary(port, SINGLE, message("another client"))
    assert seen < 200

    requests.end()
    assert len(await deferToThread(list, answers)) == 400


# -- health, reflection, start and stop ------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_health_knows_each_service_and_nothing_else(port: Port) -> None:
    stub = health_pb2_grpc.HealthStub(port.channel)

    def ask(service: str) -> str:
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        except grpc.RpcError as error:
            return error.code().name
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    services = ("", "jina.JinaRPC", "jina.JinaInfoRPC", "grpc.health.v1.Health", "nope")
    assert [await deferToThread(ask, service) for service in services] == [
        "SERVING",
        "SERVING",
        "SERVING",
        "NOT_FOUND",
        "NOT_FOUND",
    ]


@pytest_twisted.ensureDeferred
async def test_reflection_lists_the_services_and_describes_the_true_types(port: Port) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(port.channel)

    def ask(**question: str) -> Any:
        request = reflection_pb2.ServerReflectionRequest(**question)
        return next(stub.ServerReflectionInfo(iter([request]), timeout=10))

    services = (await deferToThread(ask, list_services="")).list_services_response.service
    files = (await deferToThread(ask, file_containing_symbol="jina.JinaRPC")).file_descriptor_response
    unknown = (await deferToThread(ask, file_containing_symbol="nope")).error_response

    assert sorted(service.name for service in services) == [
        "grpc.reflection.v1alpha.ServerReflection",
        "jina.JinaGatewayDryRunRPC",
        "jina.JinaInfoRPC",
        "jina.JinaRPC",
        "jina.JinaSingleDataRequestRPC",
    ]
    assert len(files.file_descriptor_proto) == 5
    assert (unknown.error_code, unknown.error_message) == (5, "not found")


@pytest_twisted.ensureDeferred
async def test_a_flow_of_the_second_generation_shows_its_sign_and_its_types(port: Port) -> None:
    reflecting = reflection_pb2_grpc.ServerReflectionStub(port.channel)
    checking = health_pb2_grpc.HealthStub(port.channel)
    own = "jina.JinaSingleDocumentRequestRPC"

    def ask(**question: str) -> Any:
        request = reflection_pb2.ServerReflectionRequest(**question)
        return next(reflecting.ServerReflectionInfo(iter([request]), timeout=10))

    def check() -> Any:
        return checking.Check(health_pb2.HealthCheckRequest(service=own), timeout=10).status

    with pytest.raises(grpc.RpcError):
        await deferToThread(check)
    port.server.set_serving(generation=Generation.SECOND)
    await deferToThread(until_true, lambda: own in services_of(ask(list_services="")))

    services = services_of(await deferToThread(ask, list_services=""))
    (file, *_) = (
        await deferToThread(ask, file_containing_symbol="docarray.DocProto")
    ).file_descriptor_response.file_descriptor_proto
    assert {own, "jina.JinaDiscoverEndpointsRPC"} < set(services)
    assert b"NodeProto" in file
    assert await deferToThread(check) == health_pb2.HealthCheckResponse.SERVING

    port.server.set_serving(generation=Generation.FIRST)
    await deferToThread(until_true, lambda: own not in services_of(ask(list_services="")))


def services_of(answer: Any) -> list[str]:
    return [service.name for service in answer.list_services_response.service]


@pytest_twisted.ensureDeferred
async def test_stopping_lets_a_request_finish_and_takes_no_new_one(port: Port) -> None:
    port.dispatcher.held = True
    call = port.channel.unary_unary(SINGLE).future(message("r1"))
    await until(lambda: "r1" in port.dispatcher.waiting)
    states: list[grpc.ChannelConnectivity] = []
    port.channel.subscribe(states.append)
    await until(lambda: grpc.ChannelConnectivity.READY in states)

    stopped = port.server.drain(10)
    # Until the server's goodbye has arrived, a call may still be on its way.
    await until(lambda: states[-1] is not grpc.ChannelConnectivity.READY)

    def refused() -> bool:
        # The stop crosses to the loop's thread: a request may still be taken before it arrives there.
        try:
            port.channel.unary_unary(SINGLE)(message("r2"), timeout=0.3)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.UNAVAILABLE)
        raise AssertionError("a held request was answered")

    while not await deferToThread(refused):
        assert not stopped.called
    port.dispatcher.settle("r1")

    assert ids([await deferToThread(call.result)]) == ["r1"]
    await stopped


def read_to_the_end(answers: Any) -> tuple[list[str], grpc.RpcError]:
    """The ids of the answers, and the error that ends them."""
    found: list[str] = []
    try:
        for answer in answers:
            found.append(DataRequestProto.FromString(answer).header.request_id)
    except grpc.RpcError as error:
        return found, error
    raise AssertionError("the stream ended well")


@pytest.mark.parametrize("ordered", ["true", "false"])
@pytest_twisted.ensureDeferred
async def test_a_request_after_the_stop_costs_those_under_way_nothing(port: Port, ordered: str) -> None:
    port.dispatcher.held = True
    requests = Requests(message("r1"), message("r2"))
    answers = stream(port, requests, ("__results_in_order__", ordered))
    await until(lambda: len(port.dispatcher.waiting) == 2)

    def refuse(_: Request) -> None:
        raise Draining

    # As the service does: the dispatcher refuses before the ports drain.
    port.dispatcher.held, port.dispatcher.behaviour = False, refuse
    requests.send(message("late"))
    await until(lambda: len(port.dispatcher.requests) == 3)
    stopped = port.server.drain(20)
    reading = deferToThread(read_to_the_end, answers)
    port.dispatcher.settle("r2")
    port.dispatcher.settle("r1")
    found, error = await reading
    requests.end()

    assert sorted(found[:2]) == ["r1", "r2"]
    assert found[2:] == ["late"]  # names the one that was refused
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    await stopped


@pytest_twisted.ensureDeferred
async def test_a_stop_waits_for_no_stream_without_requests(port: Port) -> None:
    busy, idle = Requests(message("r1")), Requests(message("r0"))
    idle_answers = stream(port, idle)
    assert ids([await deferToThread(next, idle_answers)]) == ["r0"]
    port.dispatcher.held = True
    answers = stream(port, busy)
    await until(lambda: port.dispatcher.waiting)

    stopped = port.server.drain(20)
    found, error = await deferToThread(read_to_the_end, idle_answers)
    assert (found, error.code()) == ([], grpc.StatusCode.UNAVAILABLE)
    assert not stopped.called
    port.dispatcher.settle("r1")
    found, error = await deferToThread(read_to_the_end, answers)
    assert (found, error.code()) == (["r1"], grpc.StatusCode.UNAVAILABLE)
    await stopped
    busy.end()
    idle.end()


@pytest_twisted.ensureDeferred
async def test_a_thousand_calls_at_once_on_one_connection(port: Port) -> None:
    """As many as a client of the reference makes; and again, when those that have ended still count."""
    port.dispatcher.held = True
    call = port.channel.unary_unary(SINGLE)
    for turn in range(3):
        wanted = [f"r{turn}.{number}" for number in range(1000)]
        calls = [call.future(message(request_id), timeout=60) for request_id in wanted]
        await until(lambda: len(port.dispatcher.waiting) == 1000)
        for request_id in wanted:
            port.dispatcher.settle(request_id)
        assert await deferToThread(lambda calls=calls: ids([each.result() for each in calls])) == wanted
        port.dispatcher.requests.clear()


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 2000),
        ({"grpc_max_concurrent_streams": 3}, 3),
        ({"grpc_max_concurrent_streams": 0}, None),
        ({"grpc_server_options": {"grpc.max_concurrent_streams": 7}}, 7),
    ],
)
def test_the_limit_on_streams(settings: dict[str, Any], most: int | None) -> None:
    nothing: Any = None
    port = GrpcPort(nothing, nothing, GatewayConfig(host="127.0.0.1", **settings))
    assert port._options().get("grpc.max_concurrent_streams") == most


@pytest_twisted.ensureDeferred
async def test_details_longer_than_clients_take_are_cut(port: Port) -> None:
    def refuse(_: Request) -> None:
        raise BadRequest("é%" * 50_000)

    port.dispatcher.behaviour = refuse
    error = await fails(port, SINGLE, message("r1"))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("é%é%")
    assert error.details().endswith("more characters)")


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken_is_an_error_that_names_it(port: Port) -> None:
    number = int(port.address.rpartition(":")[2])
    bridge = Bridge(reactor)
    bridge.start()
    kind = "gatewayd" if isinstance(port.server, OwnGrpcPort) else "grpcio"
    try:
        with pytest.raises(PortTaken, match=rf"gateway\.port: cannot listen on 127\.0\.0\.1:{number}"):
            gateway = GatewayConfig(host="127.0.0.1")
            grpc_port(kind, bridge, port.dispatcher, gateway, dict, number, prefetch=1).listen()
    finally:
        await bridge.stop()
