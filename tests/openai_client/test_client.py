"""The real openai client, synchronous and asynchronous, with a gateway whose executors are played."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from gatewayd.access.authenticator import Authenticator
from gatewayd.access.control import AccessControl
from gatewayd.access.keys import KeyRing
from gatewayd.access.limited import Limited
from gatewayd.access.rates import Rates
from gatewayd.access.rules import Rules
from gatewayd.config.auth import AuthConfig
from gatewayd.config.openai import OpenAIConfig
from gatewayd.config.rates import RateRule
from gatewayd.errors import CallFailed, DeadlineExceeded, Draining, ExecutorUnreachable, Overloaded
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.request import Request, Response
from gatewayd.messages.structs import parameters_of, read_struct
from gatewayd.pb import DataContentProto, StatusProto
from tests.openai_client.conftest import HELLO, Talking
from tests.protocols.fake_streams import Streaming, of_text
from tests.protocols.harness import FakeDispatcher, until

pytestmark = pytest.mark.openai

PLAIN = Endpoints({"/chat": "", "/embed": ""})
USAGE = {"prompt_tokens": 1, "completion_tokens": 2}


def documents_of(request: Request) -> Any:
    return DataContentProto.FromString(bytes(request.documents)).docs.docs


def saying(request: Request) -> Response:
    """What an executor answers that does not stream."""
    return of_text(request, "Hello to you", finish_reason="length", usage=USAGE)


def speaking(*words: str) -> Any:
    def speech(request: Request) -> list[Response | Exception]:
        return [of_text(request, word) for word in words]

    return speech


def contents(answer: dict[str, Any]) -> list[str]:
    """The text of each chunk that has one."""
    deltas = [choice["delta"] for chunk in answer["chunks"] for choice in chunk["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


# -- chat ------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_whole_completion_of_an_endpoint_that_does_not_stream(talking: Talking) -> None:
    async with talking(FakeDispatcher(saying, endpoints=PLAIN)) as talk:
        answer = await talk.chat(
            temperature=0.5, stop="\n", max_tokens=9, extra_headers={"X-Request-ID": "r1"}
        )
    value = answer["value"]
    assert answer["error"] is None
    (choice,) = value["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello to you"}
    assert choice["finish_reason"] == "length"
    assert value["usage"] == {**USAGE, "total_tokens": 3}
    assert (value["id"], value["model"], value["object"]) == ("chatcmpl-r1", "m", "chat.completion")
    (request,) = talk.gateway.dispatcher.requests
    assert (request.endpoint, request.request_id) == ("/chat", "r1")
    assert parameters_of(request.parameters) == {
        "model": "m",
        "temperature": 0.5,
        "stop": ["\n"],
        "max_tokens": 9,
    }
    (document,) = documents_of(request)
    assert document.text == "hello"
    assert read_struct(document.tags) == {"messages": HELLO}


@pytest_twisted.ensureDeferred
async def test_a_stream_of_an_endpoint_that_does_not_stream_has_one_chunk_of_text(talking: Talking) -> None:
    async with talking(FakeDispatcher(saying, endpoints=PLAIN)) as talk:
        answer = await talk.chat(stream=True, stream_options={"include_usage": True})
    assert answer["error"] is None
    assert contents(answer) == ["Hello to you"]
    assert answer["chunks"][0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert answer["chunks"][-2]["choices"][0]["finish_reason"] == "length"
    assert answer["chunks"][-1]["usage"] == {**USAGE, "total_tokens": 3}


@pytest_twisted.ensureDeferred
async def test_each_document_of_a_stream_is_a_chunk(talking: Talking) -> None:
    engine = Streaming()
    async with talking(engine) as talk:
        work = talk.chat(stream=True)
        await until(lambda: engine.begun)
        for asked, word in enumerate(("Hel", "lo", " you"), 1):
            await until(lambda asked=asked: engine.begun[0].asked == asked)
            engine.begun[0].put(of_text(engine.requests[0], word))
        engine.begun[0].put(None)
        answer = await work
    assert answer["error"] is None
    assert contents(answer) == ["Hel", "lo", " you"]
    assert answer["chunks"][-1]["choices"][0]["finish_reason"] == "stop"


@pytest_twisted.ensureDeferred
async def test_a_whole_completion_of_an_endpoint_that_streams_is_put_together(talking: Talking) -> None:
    def speech(request: Request) -> list[Any]:
        return [of_text(request, "Hel"), of_text(request, "lo"), None]

    async with talking(Streaming(speech=speech)) as talk:
        answer = await talk.chat()
    assert answer["value"]["choices"][0]["message"]["content"] == "Hello"


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_cancels_the_stream(talking: Talking) -> None:
    engine = Streaming(speech=speaking("Hel", "lo"))
    async with talking(engine) as talk:
        answer = await talk.chat(stream=True, leave_after=2)
        assert contents(answer) == ["Hel"]
        await until(lambda: engine.begun[0].cancelled)


# -- embeddings and models -------------------------------------------------------------------------------


def embedding(request: Request) -> Response:
    """A vector of a text's length and its first letter."""
    content = DataContentProto()
    for document in documents_of(request):
        dense = content.docs.docs.add().embedding
        dense.cls_name = "numpy"
        dense.dense.buffer = bytes([len(document.text), ord(document.text[0])])
        dense.dense.dtype = "|u1"
        dense.dense.shape.append(2)
    return Response(request.request_id, request.endpoint, content.SerializeToString())


@pytest_twisted.ensureDeferred
async def test_embeddings_in_either_format(talking: Talking) -> None:
    async with talking(FakeDispatcher(embedding, endpoints=PLAIN)) as talk:
        # Without a format the client asks for base64, and decodes it.
        for more in ({}, {"encoding_format": "float"}):
            answer = await talk.embed(input=["one", "three"], dimensions=2, **more)
            assert answer["error"] is None
            vectors = [each["embedding"] for each in answer["value"]["data"]]
            assert vectors == [[3.0, 111.0], [5.0, 116.0]]
            assert [each["index"] for each in answer["value"]["data"]] == [0, 1]
        answer = await talk.embed(input="a")
        assert [each["embedding"] for each in answer["value"]["data"]] == [[1.0, 97.0]]
        request = talk.gateway.dispatcher.requests[0]
        assert request.endpoint == "/embed"
        assert parameters_of(request.parameters) == {"model": "m", "dimensions": 2}


@pytest_twisted.ensureDeferred
async def test_tokens_and_too_many_texts_are_refused(talking: Talking) -> None:
    async with talking(FakeDispatcher(embedding, endpoints=PLAIN), max_documents=2) as talk:
        answer = await talk.embed(input=[1, 2])
        assert answer["error"]["class"] == "BadRequestError"
        assert answer["error"]["body"]["param"] == "input"
        assert "tokens are not taken" in answer["error"]["message"]
        answer = await talk.embed(input=["a", "b", "c"])
        assert answer["error"]["status"] == 413
        assert "gateway.max_documents" in answer["error"]["message"]
    assert not talk.gateway.dispatcher.requests


@pytest_twisted.ensureDeferred
async def test_models_are_listed_and_others_refused(talking: Talking) -> None:
    config = OpenAIConfig("/chat", "/embed", ("small", "org/large"))
    async with talking(FakeDispatcher(saying, endpoints=PLAIN), openai=config) as talk:
        listed = await talk.call("models.list", {})
        assert [model["id"] for model in listed["value"]["data"]] == ["small", "org/large"]
        for name in ("small", "org/large"):
            found = await talk.call("models.retrieve", {"model": name})
            assert found["error"] is None
            assert found["value"]["id"] == name
        assert (await talk.chat(model="small"))["error"] is None
        for answer in (await talk.chat(model="m"), await talk.embed(input="a")):
            assert answer["error"]["class"] == "NotFoundError"
            assert answer["error"]["body"]["code"] == "model_not_found"
            assert answer["error"]["body"]["param"] == "model"
        assert (await talk.call("models.retrieve", {"model": "m"}))["error"]["class"] == "NotFoundError"


@pytest_twisted.ensureDeferred
async def test_without_names_any_model_is_served_and_one_listed(talking: Talking) -> None:
    async with talking(FakeDispatcher(saying, endpoints=PLAIN)) as talk:
        listed = await talk.call("models.list", {})
        assert [model["id"] for model in listed["value"]["data"]] == ["default"]
        assert (await talk.chat(model="whatever"))["value"]["model"] == "whatever"


# -- errors ----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_wrong_field_is_named(talking: Talking) -> None:
    async with talking(FakeDispatcher(saying, endpoints=PLAIN)) as talk:
        answer = await talk.chat(temperature=9)
    error = answer["error"]
    assert error["class"] == "BadRequestError"
    assert error["body"] == {
        "message": "temperature: a number from 0 to 2 is wanted",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": None,
    }


KEYS = AuthConfig(api_keys={"ann": ("81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9",)})


@pytest_twisted.ensureDeferred
async def test_a_key_of_the_gateways_is_the_clients_key(talking: Talking) -> None:
    access = AccessControl(Authenticator(KEYS, KeyRing.of(KEYS.api_keys)), Rules(KEYS.rules))
    inner = FakeDispatcher(saying, endpoints=PLAIN)
    async with talking(inner, access=access, auth=KEYS) as talk:
        answer = await talk.chat(api_key="bob")
        assert answer["error"] is None
        assert inner.requests[0].caller.name == "ann"
        refused = [await talk.chat(api_key="eve"), await talk.call("models.list", {}, api_key="eve")]
        for error in (answer["error"] for answer in refused):
            assert error["class"] == "AuthenticationError"
            assert error["body"]["code"] == "invalid_api_key"
            assert "the API key is not valid" in error["message"]
    assert len(inner.requests) == 1


class Rated(Limited):
    """An engine with a rate; the harness asks it what the inner one knows."""

    def __init__(self, inner: FakeDispatcher) -> None:
        rule = RateRule(by="all", requests=1, per_s=60.0, burst=1.0)
        super().__init__(inner, Rates([rule]), reactor)  # type: ignore[arg-type]
        self.endpoints = inner.endpoints


@pytest_twisted.ensureDeferred
async def test_who_asks_too_often_is_told_when_to_come_back(talking: Talking) -> None:
    async with talking(Rated(FakeDispatcher(saying, endpoints=PLAIN))) as talk:
        assert (await talk.chat())["error"] is None
        error = (await talk.chat())["error"]
        assert error["class"] == "RateLimitError"
        assert error["body"]["code"] == "rate_limit_exceeded"
        assert 50 <= int(error["retry_after"]) <= 60


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ExecutorUnreachable("llm", ["h:1"], "refused"), 503, "executor_unreachable"),
        (DeadlineExceeded("llm", ["h:1"], "late"), 504, "timeout"),
        (CallFailed("llm", ["h:1"], "ValueError: no", "UNKNOWN"), 500, "executor_unreachable"),
        (Overloaded("full", 3.0), 503, "overloaded"),
        (Draining(), 503, "shutting_down"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest_twisted.ensureDeferred
async def test_what_fails_before_the_first_document_has_a_status(
    talking: Talking, failure: Exception, status: int, code: str, stream: bool
) -> None:
    async with talking(Streaming(speech=lambda request: [failure])) as talk:
        error = (await talk.chat(stream=stream))["error"]
    assert error["class"] == "InternalServerError"
    assert error["status"] == status
    assert error["body"]["code"] == code
    assert error["body"]["type"] == "server_error"
    assert (error["retry_after"] == "3") == isinstance(failure, Overloaded)


def raised(request: Request) -> Response:
    status = StatusProto(code=StatusProto.ERROR, description="ValueError('no')")
    return Response(request.request_id, "/chat", request.documents, status=status.SerializeToString())


@pytest_twisted.ensureDeferred
async def test_an_executor_that_raises_does_not_answer_with_the_question(talking: Talking) -> None:
    async with talking(FakeDispatcher(raised, endpoints=PLAIN)) as talk:
        for answer in (await talk.chat(), await talk.chat(stream=True)):
            assert answer["chunks"] == []
            assert answer["error"]["class"] == "InternalServerError"
            assert answer["error"]["body"]["code"] == "executor_failed"
            assert "ValueError('no')" in answer["error"]["message"]


@pytest_twisted.ensureDeferred
async def test_an_error_in_mid_stream_is_an_error_after_what_came_before(talking: Talking) -> None:
    failure = CallFailed("llm", ["h:1"], "ValueError: mid boom", "UNKNOWN")

    def speech(request: Request) -> list[Response | Exception]:
        return [of_text(request, "Hel"), failure]

    async with talking(Streaming(speech=speech)) as talk:
        answer = await talk.chat(stream=True)
    assert contents(answer) == ["Hel"]
    assert answer["error"]["class"] == "APIError"
    assert "mid boom" in answer["error"]["message"]
    assert answer["error"]["body"]["code"] == "executor_unreachable"


@pytest_twisted.ensureDeferred
async def test_an_endpoint_that_no_executor_binds_is_told(talking: Talking) -> None:
    async with talking(FakeDispatcher(saying, endpoints=Endpoints({"/other": ""}))) as talk:
        error = (await talk.chat())["error"]
    assert error["status"] == 500
    assert "no executor binds /chat" in error["message"]
    assert not talk.gateway.dispatcher.requests


@pytest_twisted.ensureDeferred
async def test_a_path_that_there_is_not_is_told_in_the_same_form(talking: Talking) -> None:
    async with talking(FakeDispatcher(saying, endpoints=PLAIN), openai=OpenAIConfig("/chat")) as talk:
        error = (await talk.embed(input="a"))["error"]
    assert error["class"] == "NotFoundError"
    assert error["body"]["code"] == "unknown_url"


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_large_is_told_in_the_same_form(talking: Talking) -> None:
    async with talking(FakeDispatcher(saying, endpoints=PLAIN), max_message_bytes=1000) as talk:
        error = (await talk.chat(user="x" * 1000))["error"]
    assert error["status"] == 413
    assert error["body"]["type"] == "invalid_request_error"


@pytest_twisted.ensureDeferred
async def test_a_completion_that_is_larger_than_messages_may_be_is_given_up(talking: Talking) -> None:
    engine = Streaming(speech=speaking(*["x" * 600] * 3))
    async with talking(engine, max_message_bytes=1000) as talk:
        error = (await talk.chat())["error"]
    assert error["status"] == 500
    assert "with stream: true" in error["message"]
    assert engine.begun[0].cancelled
