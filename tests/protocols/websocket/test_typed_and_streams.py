"""WebSocket of the second generation, and endpoints that stream in both."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import pytest_twisted
import websockets

from gatewayd.errors import CallFailed
from gatewayd.messages import wire
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request, Response
from gatewayd.pb import DataRequestProto, StatusProto
from tests.golden34_data import endpoints_of
from tests.protocols.harness import answer_to, asyncio_client, served, until
from tests.protocols.http.test_streams import answers
from tests.protocols.streamed import StreamingDispatcher

FIRST = Endpoints({"/chat": ""}, generation=Generation.FIRST, streaming=frozenset({"/chat"}))
DOCUMENTS = b"\x0a\x08\x0a\x06\x0a\x02d0\x1a\x00"


def connect(gateway: Any, subprotocol: str, **options: Any) -> Any:
    return websockets.connect(
        gateway.ws_url, subprotocols=[websockets.Subprotocol(subprotocol)], proxy=None, **options
    )


async def talk(gateway: Any, message: Any, stop: Any, subprotocol: str = "json", **options: Any) -> list[Any]:
    """The answers to a request, the last one included, which ``stop`` is true of."""
    async with connect(gateway, subprotocol, **options) as client:
        await client.send(message if isinstance(message, bytes) else json.dumps(message))
        found = []
        while True:
            answer = await client.recv()
            found.append(
                DataRequestProto.FromString(answer) if subprotocol == "bytes" else json.loads(answer)
            )
            if stop(found[-1]):
                return found


def is_end(answer: Any) -> bool:
    return not (answer["data"] if isinstance(answer, dict) else answer.data.docs.docs)


@pytest_twisted.ensureDeferred
async def test_json_has_typed_documents_in_the_form_of_the_first_generation() -> None:
    async with served(("websocket",), StreamingDispatcher(endpoints=endpoints_of("A"))) as gateway:
        sent = {"data": [{"id": "d", "text": "hi"}], "execEndpoint": "/echo", "header": {"request_id": "R"}}
        (answer,) = await asyncio_client(lambda: talk(gateway, sent, lambda _: True))
        assert answer["data"] == [
            {"id": "d", "text": "hi", "num": 3, "price": 0.5, "flag": False, "note": None}
        ]
        assert answer["header"] == {"request_id": "R", "exec_endpoint": "/echo", "target_executor": ""}
        assert [route["executor"] for route in answer["routes"]] == ["gateway", "exec_a"]


@pytest_twisted.ensureDeferred
async def test_a_document_that_does_not_fit_closes_with_the_reason() -> None:
    async def ask() -> tuple[int | None, str | None]:
        async with connect(gateway, "json") as client:
            await client.send(json.dumps({"data": [{"num": 1}], "exec_endpoint": "/echo"}))
            await client.wait_closed()
            return client.close_code, client.close_reason

    async with served(("websocket",), StreamingDispatcher(endpoints=endpoints_of("A"))) as gateway:
        assert await asyncio_client(ask) == (1008, "body.data.list[In].0.text: Field required")


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest_twisted.ensureDeferred
async def test_a_stream_is_a_frame_for_each_document_and_one_without(compression: str | None) -> None:
    dispatcher = StreamingDispatcher(endpoints=endpoints_of("S"), streamed=answers("a", "b" * 2000))
    async with served(("websocket",), dispatcher, compress_above_bytes=100) as gateway:
        sent = {"data": [{"text": "hi"}], "exec_endpoint": "/stream", "header": {"request_id": "R"}}
        found = await asyncio_client(lambda: talk(gateway, sent, is_end, compression=compression))
        assert [[each["text"][:1] for each in answer["data"]] for answer in found] == [["a"], ["b"], []]
        assert {answer["header"]["request_id"] for answer in found} == {"R"}
        assert gateway.dispatcher.opened[0].cancels == 1


@pytest_twisted.ensureDeferred
async def test_streams_of_the_first_generation_come_as_json_and_as_bytes() -> None:
    async with served(("websocket",), StreamingDispatcher(endpoints=FIRST)) as gateway:
        sent = {"data": [{"text": "hi"}], "execEndpoint": "/chat"}
        found = await asyncio_client(lambda: talk(gateway, sent, is_end))
        assert [len(answer["data"]) for answer in found] == [1, 1, 1, 0]
        message = bytes(wire.encode_request(Request("R", "/chat", documents=DOCUMENTS)))
        found = await asyncio_client(lambda: talk(gateway, message, is_end, "bytes"))
        assert [len(answer.data.docs.docs) for answer in found] == [1, 1, 1, 0]
        assert {answer.header.request_id for answer in found} == {"R"}


@pytest_twisted.ensureDeferred
async def test_what_fails_in_the_middle_closes_the_connection() -> None:
    async def ask() -> tuple[int, int | None]:
        count = 0
        async with connect(gateway, "json") as client:
            await client.send(json.dumps({"data": [{"text": "hi"}], "exec_endpoint": "/stream"}))
            async for _ in client:
                count += 1
        return count, client.close_code

    streamed = answers("a", CallFailed("a", ["h:1"], "mid boom", "UNKNOWN"))
    async with served(
        ("websocket",), StreamingDispatcher(endpoints=endpoints_of("S"), streamed=streamed)
    ) as gateway:
        with pytest.raises(websockets.ConnectionClosedError, match="1011"):
            await asyncio_client(ask)
        assert gateway.dispatcher.opened[0].cancels == 1


def raising(request: Request) -> list[Response | Exception]:
    status = StatusProto(code=StatusProto.ERROR, description="boom").SerializeToString()
    return [attrs.evolve(answer_to(request), status=status, documents=b"")]


@pytest_twisted.ensureDeferred
async def test_an_answer_that_tells_of_a_failure_is_the_last_with_its_status() -> None:
    dispatcher = StreamingDispatcher(endpoints=endpoints_of("S"), streamed=raising)
    async with served(("websocket",), dispatcher) as gateway:
        sent = {"data": [{"text": "hi"}], "exec_endpoint": "/stream"}
        (answer,) = await asyncio_client(lambda: talk(gateway, sent, is_end))
        assert answer["header"]["status"]["description"] == "boom"


@pytest_twisted.ensureDeferred
async def test_closing_cancels_the_stream() -> None:
    dispatcher = StreamingDispatcher(endpoints=endpoints_of("S"), streamed=answers("a"), held=True)
    async with served(("websocket",), dispatcher) as gateway:

        async def ask() -> None:
            async with connect(gateway, "json") as client:
                await client.send(json.dumps({"data": [{"text": "hi"}], "exec_endpoint": "/stream"}))
                await client.ping()

        asking = asyncio_client(ask)
        await until(lambda: dispatcher.opened)
        await asking
        await until(lambda: dispatcher.opened[0].cancels)


@pytest_twisted.ensureDeferred
async def test_nothing_is_asked_of_executors_while_a_client_does_not_read() -> None:
    dispatcher = StreamingDispatcher(endpoints=endpoints_of("S"), streamed=answers(*["x" * 200_000] * 500))
    async with served(("websocket",), dispatcher) as gateway:

        async def ask() -> int:
            options = {"compression": None, "max_queue": 1, "max_size": None}
            async with connect(gateway, "json", **options) as client:
                await client.send(json.dumps({"data": [{"text": "hi"}], "exec_endpoint": "/stream"}))
                await client.recv()
                before, now = -1, dispatcher.opened[0].asked
                while before != now:  # until the sockets are full
                    await client.ping()
                    before, now = now, dispatcher.opened[0].asked
                found = 1
                while not is_end(json.loads(await client.recv())):
                    found += 1
                return found + (before > 499) * 1000

        assert await asyncio_client(ask) == 500


@pytest_twisted.ensureDeferred
async def test_a_generation_that_becomes_known_later_is_spoken_from_then_on() -> None:
    dispatcher = StreamingDispatcher(endpoints=Endpoints(unknown=("a",)))
    async with served(("websocket",), dispatcher) as gateway:

        async def ask() -> list[Any]:
            async with connect(gateway, "json") as client:
                found = []
                for endpoints in (Endpoints(unknown=("a",)), endpoints_of("A")):
                    dispatcher.endpoints = endpoints
                    await client.send(json.dumps({"data": [{"text": "hi"}], "exec_endpoint": "/echo"}))
                    found.append(json.loads(await client.recv())["data"][0])
                return found

        first, second = await asyncio_client(ask)
        assert "chunks" in first
        assert second["num"] == 3
