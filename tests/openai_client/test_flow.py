"""The real openai client, a real gateway, and executors whose words flow through the graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.openai_client.conftest import OpenAIClient
from tests.processes import Gateway

pytestmark = pytest.mark.openai

EXECUTORS = str(Path(__file__).parent / "executors.py")
QUESTION = [{"role": "user", "content": "one two three"}]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    executors = [
        {"name": "speaking", "uses": "Speaking", "py_modules": EXECUTORS},
        {"name": "loud", "uses": "Loud", "py_modules": EXECUTORS},
    ]
    settings = {"openai": {"chat": "/chat", "embeddings": "/embed", "models": ["m"]}}
    found = Gateway({"gateway": settings, "executors": executors}, protocols=["http"])
    yield found
    assert found.stop() == 0, found.output


@pytest.fixture(params=[False, True], ids=["sync", "asyncio"])
def ask(client: OpenAIClient, gateway: Gateway, request: pytest.FixtureRequest) -> Any:
    """``ask(method, stream, **options)``."""

    def call(method: str, stream: bool = False, **options: Any) -> dict[str, Any]:
        more = {"stream": True} if stream else {}
        return client.ask(
            base_url=f"http://127.0.0.1:{gateway.ports['http']}/v1",
            method=method,
            asyncio=request.param,
            stream=stream,
            options={"model": "m", **options, **more},
        )

    return call


def chat(ask: Any, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = ask("chat.completions.create", messages=QUESTION, **options)
    return found


def contents(answer: dict[str, Any]) -> list[str]:
    deltas = [choice["delta"] for chunk in answer["chunks"] for choice in chunk["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


def test_each_word_passes_the_whole_graph_by_itself(ask: Any) -> None:
    answer = chat(ask, stream=True, stream_options={"include_usage": True})
    assert answer["error"] is None
    assert contents(answer) == ["ONE ", "TWO ", "THREE "]
    assert answer["chunks"][-1]["usage"]["prompt_tokens"] == 3
    assert answer["chunks"][-2]["choices"][0]["finish_reason"] == "length"


def test_the_same_as_a_whole(ask: Any) -> None:
    answer = chat(ask, max_tokens=2)
    assert answer["error"] is None
    assert answer["value"]["choices"][0]["message"]["content"] == "ONE TWO "


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_executor_that_raises_at_once_has_a_status(ask: Any, stream: bool) -> None:
    error = chat(ask, stream=stream, user="raises")["error"]
    assert error["class"] == "InternalServerError"
    assert error["status"] == 500
    assert "nothing to say" in error["message"]


def test_one_that_raises_in_mid_stream_is_an_error_after_its_words(ask: Any) -> None:
    answer = chat(ask, stream=True, user="breaks")
    assert contents(answer) == ["ONE "]
    assert answer["error"]["class"] == "APIError"
    assert "lost for words" in answer["error"]["message"]


def test_embeddings(ask: Any) -> None:
    answer = ask("embeddings.create", input=["a", "bcd"])
    assert answer["error"] is None
    assert [each["embedding"] for each in answer["value"]["data"]] == [[1.0, 1.0], [3.0, 1.0]]
