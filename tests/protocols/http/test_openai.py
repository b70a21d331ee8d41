"""The paths of OpenAI's API as any HTTP client sees them; tests/openai_client has the real one."""

from __future__ import annotations

import http.client
import json
from typing import Any

import attrs
import openapi_spec_validator
import pytest
import pytest_twisted

from gatewayd.config import load_flow_text
from gatewayd.config.model import FlowConfig, GatewayConfig
from gatewayd.config.openai import OpenAIConfig
from gatewayd.errors import CallFailed, ConfigError
from gatewayd.messages.discovery import Endpoints, TypedEndpoint
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request, Response
from gatewayd.pb.second import DataContentProto as SecondContent
from gatewayd.protocols.http.openapi import openapi
from gatewayd.service.changes import changes_between
from tests.protocols.fake_streams import STREAMING, Streaming, of_text
from tests.protocols.harness import FakeDispatcher, in_thread, served, until
from tests.protocols.http.test_http import call
from tests.protocols.telling_late import ToldLate

CHAT = "/v1/chat/completions"
OPENAI = OpenAIConfig("/chat", "/embed")
ASKED = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
STREAMED = {**ASKED, "stream": True}


def events(body: bytes) -> list[Any]:
    """The data of events; the last one, which is no JSON, as text."""
    found = [event.removeprefix(b"data: ") for event in body.split(b"\n\n")[:-1]]
    return [data.decode() if data == b"[DONE]" else json.loads(data) for data in found]


def stream(port: int) -> tuple[Any, bytes, bool]:
    """The answer's head, its body, and whether the body is whole."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", CHAT, json.dumps(STREAMED), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        try:
            return answer, answer.read(), True
        except http.client.IncompleteRead as error:
            return answer, error.partial, False
    finally:
        connection.close()


@pytest_twisted.ensureDeferred
async def test_a_stream_is_events_and_ends_with_done() -> None:
    engine = Streaming(speech=lambda request: [of_text(request, "hi"), None])
    async with served(dispatcher=engine, openai=OPENAI) as gateway:
        head, body, whole = await in_thread(stream, gateway.port)
    assert head.status == 200
    assert head.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert head.headers["Cache-Control"] == "no-cache"
    assert head.headers["X-Accel-Buffering"] == "no"
    assert whole
    *chunks, done = events(body)
    assert done == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "hi"}, {}]
    assert engine.begun[0].asked == 2


@pytest_twisted.ensureDeferred
async def test_a_failure_in_mid_stream_is_the_last_event_of_a_transfer_that_is_broken_off() -> None:
    def speech(request: Request) -> list[Any]:
        return [of_text(request, "hi"), CallFailed("llm", ["h:1"], "boom", "UNKNOWN")]

    async with served(dispatcher=Streaming(speech=speech), openai=OPENAI) as gateway:
        _, body, whole = await in_thread(stream, gateway.port)
    assert not whole
    *_, last = events(body)
    assert "boom" in last["error"]["message"]
    assert last["error"]["type"] == "server_error"
    assert b"[DONE]" not in body


@pytest_twisted.ensureDeferred
async def test_a_bug_in_mid_stream_is_told_by_the_requests_id_alone(caught_failures: list[Any]) -> None:
    def speech(request: Request) -> list[Any]:
        return [of_text(request, "hi"), RuntimeError("a secret")]

    async with served(dispatcher=Streaming(speech=speech), openai=OPENAI) as gateway:
        head, body, whole = await in_thread(stream, gateway.port)
    assert not whole
    assert b"a secret" not in body
    assert head.headers["X-Request-ID"] in events(body)[-1]["error"]["message"]
    assert [str(failure.value) for failure in caught_failures] == ["a secret"]
    caught_failures.clear()


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_before_the_first_document_cancels() -> None:
    engine = Streaming()
    async with served(dispatcher=engine, openai=OPENAI) as gateway:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        connection.request("POST", CHAT, json.dumps(STREAMED), {"Content-Type": "application/json"})
        await until(lambda: engine.begun)
        connection.close()
        await until(lambda: engine.begun[0].cancelled)


@pytest_twisted.ensureDeferred
async def test_without_the_key_there_are_no_such_paths() -> None:
    async with served() as gateway:
        status, _, body = await in_thread(call, gateway.port, "POST", CHAT, ASKED)
        assert (status, json.loads(body)) == (404, {"detail": "Not Found"})


@pytest_twisted.ensureDeferred
async def test_other_methods_are_refused_in_the_same_form() -> None:
    async with served(openai=OPENAI) as gateway:
        status, headers, body = await in_thread(call, gateway.port, "GET", CHAT)
        assert status == 405
        assert "POST" in headers["allow"]
        assert json.loads(body)["error"]["code"] == "method_not_supported"


@pytest_twisted.ensureDeferred
async def test_pages_of_other_origins_are_refused_and_those_of_cors_served() -> None:
    page = {"Origin": "https://a.example", "Content-Type": "application/json"}
    settings: dict[str, Any] = {"openai": OPENAI, "allowed_origins": ()}
    async with served(dispatcher=FakeDispatcher(endpoints=STREAMING), **settings) as gateway:
        status, _, body = await in_thread(call, gateway.port, "POST", CHAT, ASKED, page)
        assert status == 403
        assert "https://a.example" in json.loads(body)["error"]["message"]
        assert not gateway.dispatcher.requests
    async with served(
        dispatcher=FakeDispatcher(endpoints=STREAMING), cors=("https://a.example",), **settings
    ) as gateway:
        status, headers, _ = await in_thread(call, gateway.port, "POST", CHAT, ASKED, page)
        assert status == 200
        assert headers["access-control-allow-origin"] == "https://a.example"


@pytest_twisted.ensureDeferred
async def test_the_client_says_how_long_it_waits_and_which_headers_go_on() -> None:
    engine = Streaming(speech=lambda request: [None])
    async with served(dispatcher=engine, openai=OPENAI, forward_headers=("x-tenant",)) as gateway:
        headers = {"X-Request-Timeout": "2.5", "X-Tenant": "t", "Content-Type": "application/json"}
        status, _, _ = await in_thread(call, gateway.port, "POST", CHAT, ASKED, headers)
        assert status == 200
    assert engine.timeouts == [2.5]
    assert engine.requests[0].headers == (("x-tenant", "t"),)


# -- the second generation --------------------------------------------------------------------------------

TURN = {
    "title": "Turn",
    "type": "object",
    "properties": {"text": {"type": "string"}, "usage": {"type": "object"}},
}
TYPED = Endpoints(
    {"/chat": ""},
    generation=Generation.SECOND,
    typed={"/chat": TypedEndpoint(TURN, TURN, "Turn", "Turn", streams=True)},
    streaming=frozenset({"/chat"}),
)


def turn(request: Request, text: str) -> Response:
    content = SecondContent()
    data = content.docs.docs.add().data
    data["text"].text = text
    data["usage"].dict.data["prompt_tokens"].integer = 3
    return Response(request.request_id, "/chat", content.SerializeToString())


@pytest_twisted.ensureDeferred
async def test_documents_of_the_second_generation_have_fields_by_name() -> None:
    engine = Streaming(
        speech=lambda request: [turn(request, "hi"), turn(request, " you"), None], endpoints=TYPED
    )
    async with served(dispatcher=engine, openai=OPENAI) as gateway:
        _, body, whole = await in_thread(stream, gateway.port)
        assert whole
        deltas = [chunk["choices"][0]["delta"] for chunk in events(body)[:-1]]
        assert [delta["content"] for delta in deltas if delta.get("content")] == ["hi", " you"]
        status, _, body = await in_thread(call, gateway.port, "POST", CHAT, ASKED)
        answer = json.loads(body)
        assert status == 200
        assert answer["choices"][0]["message"]["content"] == "hi you"
        assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}
    (document,) = SecondContent.FromString(bytes(engine.requests[0].documents)).docs.docs
    assert document.data["text"].text == "hello"


@pytest.mark.parametrize("generation", [None, Generation.SECOND])
@pytest_twisted.ensureDeferred
async def test_what_executors_have_not_told_yet_can_be_asked_for_later(generation: Generation | None) -> None:
    engine = Streaming(endpoints=Endpoints(unknown=("llm",), generation=generation))
    async with served(dispatcher=engine, openai=OPENAI) as gateway:
        status, headers, body = await in_thread(call, gateway.port, "POST", CHAT, ASKED)
        assert status == 503
        assert headers["retry-after"] == "1"
        assert "have not told yet what /chat takes" in json.loads(body)["error"]["message"]
        assert not engine.requests


@pytest_twisted.ensureDeferred
async def test_a_request_waits_while_executors_start() -> None:
    engine = Streaming(
        speech=lambda request: [of_text(request, "hi"), None], endpoints=Endpoints(unknown=("llm",))
    )
    late = ToldLate()
    async with served(dispatcher=engine, openai=OPENAI, streaming=late) as gateway:
        work = in_thread(call, gateway.port, "POST", CHAT, ASKED)
        await until(lambda: late.waiting)
        late.tell(STREAMING, engine)
        status, _, _ = await work
        assert status == 200


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_while_it_waits_is_waited_for_no_more() -> None:
    engine, late = Streaming(endpoints=Endpoints(unknown=("llm",))), ToldLate()
    async with served(dispatcher=engine, openai=OPENAI, streaming=late) as gateway:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        connection.request("POST", CHAT, json.dumps(ASKED), {"Content-Type": "application/json"})
        await until(lambda: gateway.buffers.held_bytes)
        connection.close()
        await until(lambda: not gateway.connections)
        assert not gateway.buffers.held_bytes
        assert not late.waiting
    assert not engine.requests


@pytest_twisted.ensureDeferred
async def test_it_is_looked_for_less_and_less_often() -> None:
    looks: list[Endpoints] = []

    class Away(Streaming):
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name == "endpoints":
                looks.append(found)
            return found

    async with served(dispatcher=Away(endpoints=Endpoints(unknown=("llm",))), openai=OPENAI) as gateway:
        status, _, _ = await in_thread(call, gateway.port, "POST", CHAT, ASKED)
    assert status == 503
    assert len(looks) < 20


@pytest_twisted.ensureDeferred
async def test_documents_that_fit_no_request_are_told() -> None:
    number = TypedEndpoint({"title": "N", "type": "object", "properties": {"n": {}}}, TURN, "N", "Turn")
    engine = Streaming(endpoints=attrs.evolve(TYPED, bound={"/embed": ""}, typed={"/embed": number}))
    async with served(dispatcher=engine, openai=OPENAI) as gateway:
        asked = {"model": "m", "input": "a"}
        status, _, body = await in_thread(call, gateway.port, "POST", "/v1/embeddings", asked)
        assert status == 500
        assert "/embed (N) have no field text" in json.loads(body)["error"]["message"]
    assert not engine.requests


# -- settings ---------------------------------------------------------------------------------------------


def flow(openai: str = "") -> FlowConfig:
    return load_flow_text(f"jtype: Flow\ngateway: {{protocol: http, port: 1{openai}}}\n", environ={})


def test_the_key_of_a_flow_file() -> None:
    found = flow(", openai: {chat: /chat, models: [small, large]}").gateway.openai
    assert found == OpenAIConfig("/chat", None, ("small", "large"))
    assert flow().gateway.openai is None


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("{}", "it leads nowhere"),
        ("{models: [a]}", "it leads nowhere"),
        ("{chat: chat}", "an endpoint of the executors, such as /chat"),
        ('{chat: "/ch\\u00e4t"}', "printable ASCII"),
        ("{chats: /chat}", "unknown key; accepted: chat, embeddings, models; did you mean chat"),
        ('{chat: /chat, models: [""]}', "the name of a model is empty"),
        ("true", "a map such as"),
    ],
)
def test_a_wrong_value_is_refused_at_its_place(written: str, words: str) -> None:
    with pytest.raises(ConfigError, match="openai") as caught:
        flow(f", openai: {written}")
    assert words in str(caught.value)


def test_a_reload_takes_it_up_with_a_new_front() -> None:
    changes = changes_between(flow(), flow(", openai: {chat: /chat}"), (), 1)
    assert changes.settings == ("openai",)
    assert changes.front
    assert not changes.refusals


def test_openapi_has_the_paths_that_are_on() -> None:
    document = openapi(GatewayConfig(openai=OPENAI), full=True)
    openapi_spec_validator.validate(json.loads(json.dumps(document)))
    assert {"/v1/chat/completions", "/v1/embeddings", "/v1/models"} <= document["paths"].keys()
    operation = document["paths"][CHAT]["post"]
    assert "text/event-stream" in operation["responses"]["200"]["content"]
    assert {"400", "401", "404", "429", "500", "503", "504"} <= operation["responses"].keys()
    document = openapi(GatewayConfig(openai=OpenAIConfig(embeddings="/embed")), full=True)
    assert CHAT not in document["paths"]
    assert not [path for path in openapi(GatewayConfig(), full=True)["paths"] if path.startswith("/v1")]
    assert CHAT not in openapi(GatewayConfig(openai=OPENAI), full=False)["paths"]
