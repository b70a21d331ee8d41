"""stream_doc over sockets, with both servers: what a client gets, and what is left when it leaves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import attrs
import grpc
import grpc.aio
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred

from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.config import DeploymentConfig, GatewayConfig
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.dispatch.topology import Topology
from gatewayd.errors import CallFailed
from gatewayd.messages.methods import DISCOVERY, SINGLE, STREAM_DOC
from gatewayd.messages.request import Response
from gatewayd.messages.single import content_of
from gatewayd.pb import DataRequestProto, DocumentProto, EndpointsProto, SingleDocumentRequestProto
from gatewayd.pool.pool import Pool
from gatewayd.pool.watching import FixedAddresses
from gatewayd.protocols.grpc.crossing import AHEAD
from gatewayd.rpc.channel import Channel
from tests.protocols.grpc.servers import SERVERS
from tests.protocols.grpc.stream_site import Site
from tests.waiting import until_on_reactor

pytestmark = pytest.mark.slow


def asking(text: str = "q", request_id: str = "r") -> bytes:
    sent = SingleDocumentRequestProto()
    sent.header.request_id = request_id
    sent.header.exec_endpoint = "/gen"
    sent.document.text = text
    return sent.SerializeToString()


def response(text: str, request_id: str = "r") -> Response:
    return Response(request_id, "/gen", content_of(DocumentProto(text=text).SerializeToString()))


def texts(messages: list[bytes]) -> list[tuple[str, str]]:
    found = [SingleDocumentRequestProto.FromString(each) for each in messages]
    return [(each.header.request_id, each.document.text) for each in found]


@pytest_twisted.async_yield_fixture(params=SERVERS)
async def site(request: Any) -> AsyncIterator[Site]:
    bridge = Bridge(reactor)
    bridge.start()
    made = Site(bridge, request.param)
    yield made
    await made.close()
    await bridge.stop()


@pytest_twisted.ensureDeferred
async def test_each_document_is_a_message_with_the_id_of_the_request(site: Site) -> None:
    call = await site.call(asking())
    stream = await site.stream()
    stream.put(response("a"), response("b"))
    assert texts(await site.read(call, 2)) == [("r", "a"), ("r", "b")]
    stream.put(response("c"), None)

    found, code, _ = await site.rest(call)
    assert (texts(found), code) == ([("r", "c")], "OK")
    assert stream.request.endpoint == "/gen"


@pytest_twisted.ensureDeferred
async def test_an_empty_stream_is_no_error(site: Site) -> None:
    call = await site.call(asking())
    (await site.stream()).put(None)

    assert (await site.rest(call))[:2] == ([], "OK")


@pytest_twisted.ensureDeferred
async def test_an_error_in_mid_stream_keeps_its_status_and_text(site: Site) -> None:
    call = await site.call(asking())
    boom = "Unexpected <class 'ValueError'>: mid boom"
    (await site.stream()).put(response("a"), CallFailed("g", ("1.1.1.1:1",), boom, "UNKNOWN"))

    found, code, details = await site.rest(call)
    assert (texts(found), code) == ([("r", "a")], "UNKNOWN")
    assert boom in details


@pytest_twisted.ensureDeferred
async def test_a_client_that_cancels_ends_the_stream(site: Site) -> None:
    call = await site.call(asking())
    stream = await site.stream()
    stream.put(response("a"))
    await site.read(call, 1)
    await site.on_loop(call.cancel)

    await until_on_reactor(reactor, lambda: stream.cancelled, 30.0, lambda: "the cancel")


@pytest_twisted.ensureDeferred
async def test_a_clients_deadline_ends_the_stream(site: Site) -> None:
    call = await site.call(asking(), timeout_s=1.5)
    stream = await site.stream()
    assert 0.0 < site.dispatcher.timeouts[0] <= 1.5

    assert (await site.rest(call))[1] == "DEADLINE_EXCEEDED"
    await until_on_reactor(reactor, lambda: stream.cancelled, 30.0, lambda: "the cancel")


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_stops_the_stream(site: Site) -> None:
    buffers = Buffers(1 << 26)
    site.serve(buffers=buffers)
    call = await site.call(asking())
    slow = await site.stream()
    slow.put(*[response("x" * 200_000)] * 500, None)
    other_call = await site.call(asking(request_id="other"))
    other = await site.stream("other")
    other.put(*[response("y" * 200_000, "other")] * 500, None)
    found, code, _ = await site.rest(other_call)

    assert (len(found), code) == (500, "OK")
    # Client, transport and windows hold some megabytes; the rest waits where it comes from.
    assert slow.asked < 100
    assert 0 < buffers.held_bytes <= (AHEAD + 1) * 210_000
    found, code, _ = await site.rest(call)
    assert (len(found), code) == (500, "OK")
    await until_on_reactor(reactor, lambda: buffers.held_bytes == 0, 30.0, lambda: "the end")


@pytest_twisted.ensureDeferred
async def test_what_does_not_fit_into_the_buffers_is_refused(site: Site) -> None:
    buffers = Buffers(1000)
    site.serve(buffers=buffers)
    large_request = await site.call(asking("q" * 2000))
    assert (await site.rest(large_request))[1] == "RESOURCE_EXHAUSTED"
    call = await site.call(asking())
    stream = await site.stream()
    stream.put(response("a"), response("x" * 2000))

    _, code, details = await site.rest(call)
    assert code == "RESOURCE_EXHAUSTED"
    assert "max_buffered_bytes" in details
    assert stream.cancelled
    await until_on_reactor(reactor, lambda: buffers.held_bytes == 0, 30.0, lambda: "the end")


@pytest_twisted.ensureDeferred
async def test_calls_without_a_message_or_with_no_message_at_all_are_refused(site: Site) -> None:
    assert (await site.rest(await site.call()))[1] in {"INVALID_ARGUMENT", "UNIMPLEMENTED"}
    assert (await site.rest(await site.call(b"\xff\xff")))[1] == "INVALID_ARGUMENT"
    assert site.dispatcher.requests == []


# -- from an executor's gRPC to the client's -----------------------------------------------------------


class Executors(grpc.GenericRpcHandler):
    """/gen streams ``count`` documents with the text of the request; process_single_data marks them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.ended = 0

    def service(self, details: Any) -> Any:
        if details.method == STREAM_DOC:
            return grpc.unary_stream_rpc_method_handler(self._stream)
        if details.method == SINGLE:
            return grpc.unary_unary_rpc_method_handler(self._single)
        if details.method == DISCOVERY:
            return grpc.unary_unary_rpc_method_handler(self._endpoints)
        return None

    async def _stream(self, message: bytes, context: Any) -> AsyncIterator[bytes]:
        context.add_done_callback(lambda _: setattr(self, "ended", self.ended + 1))
        asked = SingleDocumentRequestProto.FromString(message)
        for index in range(self.count):
            answer = SingleDocumentRequestProto()
            answer.header.request_id = f"random {index}"
            answer.document.text = f"{asked.document.text}{index}"
            yield answer.SerializeToString()
            await asyncio.sleep(0)
        if asked.document.text == "boom":
            await context.abort(grpc.StatusCode.UNKNOWN, "Unexpected <class 'ValueError'>: mid boom")

    async def _single(self, message: bytes, _context: Any) -> bytes:
        request = DataRequestProto.FromString(message)
        for document in request.data.docs.docs:
            document.text += "!"
        return request.SerializeToString()

    async def _endpoints(self, _message: bytes, _context: Any) -> bytes:
        return EndpointsProto(endpoints=["/gen"]).SerializeToString()


class GeneratorPool(Pool):
    """The Deployment ``g`` streams."""

    def streams(self, deployment: str, endpoint: str) -> bool:
        return deployment == "g"


@attrs.define
class Whole:
    """An executor's server, a pool, a dispatcher and a port."""

    executors: Executors
    pool: Pool
    dispatcher: Dispatcher
    server: Any


async def whole(site: Site, count: int) -> Whole:
    executors = Executors(count)

    async def start() -> tuple[Any, int]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([executors])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, int(port)

    server, port = await site.bridge.on_loop(start)
    address = f"127.0.0.1:{port}"
    deployments = [
        DeploymentConfig("g", external=True, addresses=(address,)),
        DeploymentConfig("b", needs=("g",), external=True, addresses=(address,)),
    ]
    pool = GeneratorPool(
        GatewayConfig(),
        deployments,
        connect=partial(Channel, reactor),
        watch=lambda deployment, replicas: [FixedAddresses([address], replicas)],
        clock=reactor,  # type: ignore[arg-type]
        dice=random.Random(1),
    )
    site.dispatcher = Dispatcher(
        Topology.from_deployments(deployments),
        pool,
        reactor,  # type: ignore[arg-type]
        maybeDeferred,
    )
    return Whole(executors, pool, site.dispatcher, server)


async def at_rest(site: Site, made: Whole) -> None:
    def idle() -> bool:
        slots = [each.in_flight for replicas in made.pool.states().values() for each in replicas]
        return made.dispatcher.in_flight == sum(slots) == 0

    await until_on_reactor(reactor, idle, 30.0, lambda: "that nothing is in flight")
    made.pool.close()
    await site.bridge.on_loop(made.server.stop, 0)


@pytest_twisted.ensureDeferred
async def test_documents_flow_from_a_generator_through_another_executor_to_the_client(site: Site) -> None:
    made = await whole(site, 300)
    found, code, _ = await site.rest(await site.call(asking("t")))

    assert (texts(found), code) == ([("r", f"t{index}!") for index in range(300)], "OK")
    await at_rest(site, made)


@pytest_twisted.ensureDeferred
async def test_the_executors_error_reaches_the_client_behind_its_documents(site: Site) -> None:
    made = await whole(site, 3)
    found, code, details = await site.rest(await site.call(asking("boom")))

    assert ([text for _, text in texts(found)], code) == (["boom0!", "boom1!", "boom2!"], "UNKNOWN")
    assert "mid boom" in details
    await at_rest(site, made)


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_ends_the_executors_call(site: Site) -> None:
    made = await whole(site, 1_000_000)
    call = await site.call(asking("t"))
    await site.read(call, 5)
    await site.on_loop(call.cancel)

    await until_on_reactor(reactor, lambda: made.executors.ended == 1, 30.0, lambda: "the executor's end")
    await at_rest(site, made)
