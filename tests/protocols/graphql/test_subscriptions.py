"""GraphQL over WebSocket, by graphql-transport-ws: what a client that is not ours (websockets) gets."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import pytest_twisted
import websockets
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread
from websockets.asyncio.client import ClientConnection, connect

from gatewayd.errors import CallFailed
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request, Response
from gatewayd.pb import DataContentProto, StatusProto
from tests.golden34_data import endpoints_of
from tests.protocols.graphql.test_graphql import ask as ask_graphql
from tests.protocols.harness import Served, answer_to, asyncio_client, in_thread, reactor, served, until
from tests.protocols.http.test_streams import answers
from tests.protocols.streamed import StreamingDispatcher

FIRST = Endpoints({"/chat": ""}, generation=Generation.FIRST, streaming=frozenset({"/chat"}))
CHAT = 'subscription { doc(data: {text: "hi"}, execEndpoint: "/chat") { text } }'
STREAM = 'subscription { doc(data: {text: "hi"}, execEndpoint: "/stream") }'


def texts(*words: str) -> Callable[[Request], list[Response | Exception]]:
    """Answers of the first generation, with a document each."""

    def streamed(request: Request) -> list[Response | Exception]:
        found: list[Response | Exception] = []
        for word in words:
            content = DataContentProto()
            content.docs.docs.add(id="d", text=word)
            found.append(attrs.evolve(answer_to(request), documents=content.SerializeToString()))
        return found

    return streamed


def first(*words: str, **more: Any) -> StreamingDispatcher:
    return StreamingDispatcher(endpoints=FIRST, streamed=texts(*words), **more)


def second(*found: str | Exception, **more: Any) -> StreamingDispatcher:
    return StreamingDispatcher(endpoints=endpoints_of("S"), streamed=answers(*found), **more)


Talk = Callable[[ClientConnection], Awaitable[Any]]


def talk(gateway: Served, conversation: Talk, *, begins: bool = True, **options: Any) -> Deferred[Any]:
    async def ask() -> Any:
        url = f"ws://127.0.0.1:{gateway.port}/graphql"
        async with connect(url, subprotocols=["graphql-transport-ws"], **options) as client:  # type: ignore[list-item]
            if begins:
                await client.send(json.dumps({"type": "connection_init"}))
                assert json.loads(await client.recv()) == {"type": "connection_ack"}
            return await conversation(client)

    return asyncio_client(ask)


async def say(client: ClientConnection, kind: str, name: str = "1", query: str = "", **more: Any) -> None:
    payload = {"payload": {"query": query, **more}} if query else {}
    await client.send(json.dumps({"type": kind, "id": name, **payload}))


async def hear(client: ClientConnection) -> Any:
    return json.loads(await client.recv())


async def hear_all(client: ClientConnection) -> list[Any]:
    """Until an operation ends."""
    found = []
    while not found or found[-1]["type"] == "next":
        found.append(await hear(client))
    return found


def wait(condition: Callable[[], Any]) -> None:
    """In the client's thread: until the reactor finds it true."""
    blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(until(condition)))


def subscribing(query: str, **more: Any) -> Talk:
    async def conversation(client: ClientConnection) -> Any:
        await say(client, "subscribe", "1", query, **more)
        return await hear_all(client)

    return conversation


@pytest.fixture(params=[("http",), ("http", "websocket")], ids=["http", "http+websocket"])
def protocols(request: Any) -> Any:
    return request.param


@pytest_twisted.ensureDeferred
async def test_a_subscription_is_a_next_for_each_document_with_its_fields(protocols: Any) -> None:
    dispatcher = first("a", "b", "c")
    async with served(protocols, dispatcher, expose_graphql_endpoint=True) as gateway:
        *found, end = await talk(gateway, subscribing(CHAT))
    assert [each["payload"] for each in found] == [{"data": {"doc": {"text": word}}} for word in "abc"]
    assert end == {"id": "1", "type": "complete"}
    assert [(each.endpoint, len(each.documents) > 0) for each in dispatcher.requests] == [("/chat", True)]


@pytest_twisted.ensureDeferred
async def test_documents_of_the_second_generation_are_json_by_their_schemas() -> None:
    dispatcher = second("a", "b")
    query = (
        "subscription ($data: JSONScalar, $parameters: JSONScalar) "
        '{ doc(data: $data, execEndpoint: "/stream", parameters: $parameters) }'
    )
    variables = {"data": {"text": "hi"}, "parameters": {"k": 1}}
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:
        *found, end = await talk(gateway, subscribing(query, variables=variables))
    assert [each["payload"]["data"]["doc"]["text"] for each in found] == ["a", "b"]
    assert end["type"] == "complete"
    assert dispatcher.opened[0].request.parameters


@pytest_twisted.ensureDeferred
async def test_queries_of_the_second_generation_take_and_give_json_over_http_and_websocket() -> None:
    dispatcher = StreamingDispatcher(
        lambda request: attrs.evolve(answer_to(request), routes=()), endpoints=endpoints_of("A")
    )
    query = '{ docs(data: [{id: "d", text: "hi", num: 7}], execEndpoint: "/echo") }'
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:
        status, _, body = await in_thread(ask_graphql, gateway.port, {"query": query})
        over_websocket, end = await talk(gateway, subscribing(query))
    answer = {"docs": [{"id": "d", "text": "hi", "num": 7, "price": 0.5, "flag": False, "note": None}]}
    assert (status, body) == (200, {"data": answer})
    assert over_websocket["payload"] == {"data": answer}
    assert end["type"] == "complete"


@pytest_twisted.ensureDeferred
async def test_a_document_that_does_not_fit_is_an_error_with_its_place() -> None:
    query = '{ docs(data: [{num: 7}], execEndpoint: "/echo") }'
    async with served(
        ("http",), StreamingDispatcher(endpoints=endpoints_of("A")), expose_graphql_endpoint=True
    ) as gateway:
        _, _, body = await in_thread(ask_graphql, gateway.port, {"query": query})
        subscription = 'subscription { doc(data: {num: 7}, execEndpoint: "/echo") }'
        (ended,) = await talk(gateway, subscribing(subscription))
    (error,) = body["errors"]
    assert "Field required" in error["message"]
    assert error["extensions"]["detail"][0]["loc"][-1] == "text"
    assert (ended["type"], "Field required" in ended["payload"][0]["message"]) == ("error", True)


@pytest_twisted.ensureDeferred
async def test_a_failure_in_the_middle_is_an_error_and_ends_the_stream_alone() -> None:
    dispatcher = second("a", CallFailed("s", ["h:1"], "mid boom", "UNKNOWN"))
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:

        async def conversation(client: ClientConnection) -> Any:
            await say(client, "subscribe", "1", STREAM)
            found = await hear_all(client)
            await client.send('{"type": "ping"}')
            return found, await hear(client)

        (one, error), pong = await talk(gateway, conversation)
    assert one["payload"]["data"]["doc"]["text"] == "a"
    assert (error["type"], error["id"]) == ("error", "1")
    assert "mid boom" in error["payload"][0]["message"]
    assert pong == {"type": "pong"}
    assert dispatcher.opened[0].cancels


def raising(request: Request) -> list[Response | Exception]:
    status = StatusProto(code=StatusProto.ERROR, description="boom")
    status.exception.name, status.exception.executor = "ValueError", "Speaks"
    return [attrs.evolve(answer_to(request), status=status.SerializeToString(), documents=b"")]


@pytest.mark.parametrize(("endpoints", "query"), [(FIRST, CHAT), (endpoints_of("S"), STREAM)])
@pytest_twisted.ensureDeferred
async def test_what_an_executor_raised_is_an_error_with_its_name(endpoints: Endpoints, query: str) -> None:
    dispatcher = StreamingDispatcher(endpoints=endpoints, streamed=raising)
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:
        (error,) = await talk(gateway, subscribing(query))
    assert error["payload"][0]["message"] == "boom"
    assert error["payload"][0]["extensions"] == {"executor": "Speaks", "exception": "ValueError"}


@pytest_twisted.ensureDeferred
async def test_complete_ends_every_stage_and_the_name_is_free() -> None:
    dispatcher = first("a", held=True)
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:

        async def conversation(client: ClientConnection) -> Any:
            await say(client, "subscribe", "1", CHAT)
            wait(lambda: dispatcher.opened and dispatcher.opened[0].is_asked)
            await say(client, "complete", "1")
            wait(lambda: dispatcher.opened[0].cancels)
            dispatcher.held = False
            await say(client, "subscribe", "1", CHAT)
            return await hear_all(client)

        found = await talk(gateway, conversation)
    assert [each["type"] for each in found] == ["next", "complete"]


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_ends_its_operations() -> None:
    dispatcher = first("a", held=True)
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:

        async def conversation(client: ClientConnection) -> None:
            for name in "12":
                await say(client, "subscribe", name, CHAT)
            wait(lambda: len(dispatcher.opened) == 2)

        await talk(gateway, conversation)
        await until(lambda: all(each.cancels for each in dispatcher.opened))


@pytest_twisted.ensureDeferred
async def test_nothing_is_asked_of_executors_while_a_client_does_not_read() -> None:
    dispatcher = second(*["x" * 200_000] * 300)
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:

        async def conversation(client: ClientConnection) -> tuple[int, int]:
            await say(client, "subscribe", "1", STREAM)
            await client.recv()
            before, now = -1, dispatcher.opened[0].asked
            while before != now:  # until the sockets are full
                await client.ping()
                before, now = now, dispatcher.opened[0].asked
            return before, 1 + len(await hear_all(client))

        options = {"compression": None, "max_queue": 1, "max_size": None}
        before, found = await talk(gateway, conversation, **options)
        await until(lambda: gateway.buffers.held_bytes == 0)
    assert found == 301
    assert before < 299


@pytest_twisted.ensureDeferred
async def test_operations_of_a_connection_are_bounded() -> None:
    dispatcher = first("a", held=True)
    settings = {"expose_graphql_endpoint": True, "graphql_max_operations": 1}
    async with served(("http",), dispatcher, **settings) as gateway:

        async def conversation(client: ClientConnection) -> Any:
            await say(client, "subscribe", "1", CHAT)
            await say(client, "subscribe", "2", CHAT)
            return await hear(client)

        refused = await talk(gateway, conversation)
    assert (refused["id"], refused["type"]) == ("2", "error")
    assert "gateway.graphql_max_operations" in refused["payload"][0]["message"]
    assert len(dispatcher.opened) <= 1


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_begin_is_let_go() -> None:
    settings = {"expose_graphql_endpoint": True, "graphql_init_timeout_s": 0.05}
    async with served(("http",), first(), **settings) as gateway:

        async def conversation(client: ClientConnection) -> Any:
            await client.wait_closed()
            return client.close_code, client.close_reason

        closed = await talk(gateway, conversation, begins=False)
    assert closed == (4408, "Connection initialisation timeout")


@pytest_twisted.ensureDeferred
async def test_a_message_that_breaks_the_protocol_closes_and_cancels() -> None:
    dispatcher = first("a", held=True)
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:

        async def conversation(client: ClientConnection) -> Any:
            await say(client, "subscribe", "1", CHAT)
            wait(lambda: dispatcher.opened)
            await client.send("nonsense")
            await client.wait_closed()
            return client.close_code

        assert await talk(gateway, conversation) == 4400
        await until(lambda: dispatcher.opened[0].cancels)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("subscription { nope }", "Cannot query field 'nope'"),
        ("{", "Syntax Error"),
        (f"subscription {{ a: {CHAT[15:-2]} b: {CHAT[15:-2]} }}", "must select only one top level field"),
        ("{ " + "a" * 5001 + " }", "tokens"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_query_that_is_refused_is_an_error_of_its_operation(query: str, says: str) -> None:
    settings = {"expose_graphql_endpoint": True}
    if says == "tokens":
        query = "{ " + "a " * 5001 + "}"
    async with served(("http",), first(), **settings) as gateway:
        (error,) = await talk(gateway, subscribing(query))
    assert error["type"] == "error"
    assert says in error["payload"][0]["message"]


@pytest_twisted.ensureDeferred
async def test_a_subscription_over_http_says_where_it_belongs() -> None:
    async with served(("http",), first(), expose_graphql_endpoint=True) as gateway:
        status, _, body = await in_thread(ask_graphql, gateway.port, {"query": CHAT})
    assert status == 400
    assert "graphql-transport-ws" in body


@pytest_twisted.ensureDeferred
async def test_another_subprotocol_or_origin_is_refused_in_the_handshake() -> None:
    settings = {"expose_graphql_endpoint": True, "allowed_origins": ("https://good.example",)}
    async with served(("http",), first(), **settings) as gateway:
        url = f"ws://127.0.0.1:{gateway.port}/graphql"

        async def ask(**options: Any) -> tuple[int, str]:
            try:
                async with connect(url, **options):
                    return 101, ""
            except websockets.InvalidStatus as refused:
                return refused.response.status_code, refused.response.body.decode()

        status, body = await asyncio_client(lambda: ask(subprotocols=["graphql-ws"]))
        assert (status, "graphql-transport-ws" in body) == (400, True)
        asked = {"subprotocols": ["graphql-transport-ws"], "origin": "https://evil.example"}
        assert (await asyncio_client(lambda: ask(**asked)))[0] == 403


@pytest_twisted.ensureDeferred
async def test_a_port_that_drains_begins_no_operation_and_lets_those_under_way_finish() -> None:
    dispatcher = first("a", held=True)
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:

        async def conversation(client: ClientConnection) -> Any:
            await say(client, "subscribe", "1", CHAT)
            wait(lambda: dispatcher.opened and dispatcher.opened[0].is_asked)
            blockingCallFromThread(reactor, lambda: [each.drain() for each in gateway.connections])
            await say(client, "subscribe", "2", CHAT)
            refused = await hear(client)
            blockingCallFromThread(reactor, dispatcher.opened[0].release)
            return refused, await hear(client)

        refused, _ = await talk(gateway, conversation)
    assert (refused["id"], refused["type"]) == ("2", "error")
