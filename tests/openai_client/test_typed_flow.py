"""The real openai client, and executors whose documents are of the second generation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.openai_client.conftest import OpenAIClient
from tests.paths import ROOT
from tests.processes import ExecutorProcess, Gateway, external

pytestmark = pytest.mark.openai

EXECUTORS = Path(__file__).parent / "typed_executors.py"
MESSAGES = [{"role": "system", "content": "one"}, {"role": "user", "content": "two"}]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    python = os.environ.get("GATEWAYD_DOCARRAY2_PYTHON", str(ROOT / ".venv-docarray2" / "bin" / "python"))
    if not Path(python).exists():
        pytest.fail(f"there is no {python}: run the suite with `make test-openai`", pytrace=False)
    executor = ExecutorProcess("typed", "Typed", [EXECUTORS], python=python)
    try:
        found = Gateway(
            {
                "gateway": {"openai": {"chat": "/chat", "embeddings": "/embed"}},
                "executors": [external("typed", executor.port)],
            },
            protocols=["http"],
        )
        yield found
        assert found.stop() == 0, found.output
    finally:
        executor.stop()


@pytest.fixture(params=[False, True], ids=["sync", "asyncio"])
def ask(client: OpenAIClient, gateway: Gateway, request: pytest.FixtureRequest) -> Any:
    """``ask(method, stream, **options)``."""

    def call(method: str, stream: bool = False, **options: Any) -> dict[str, Any]:
        more = {"stream": True} if stream else {}
        return client.ask(
            base_url=f"http://127.0.0.1:{gateway.ports['http']}/v1",
            method=method,
            asyncio=request.param,
            max_retries=5,  # the executor runs elsewhere: what it serves is not known at once
            stream=stream,
            options={"model": "m", **options, **more},
        )

    return call


def test_a_stream(ask: Any) -> None:
    answer = ask("chat.completions.create", stream=True, messages=MESSAGES)
    assert answer["error"] is None
    deltas = [chunk["choices"][0]["delta"] for chunk in answer["chunks"]]
    assert [delta["content"] for delta in deltas if delta.get("content")] == ["one ", "two "]
    assert answer["chunks"][-1]["choices"][0]["finish_reason"] == "length"


def test_a_whole_completion_by_parameters_with_a_model(ask: Any) -> None:
    answer = ask("chat.completions.create", messages=MESSAGES, max_tokens=1)
    assert answer["error"] is None
    assert answer["value"]["choices"][0]["message"]["content"] == "one "
    assert answer["value"]["usage"]["prompt_tokens"] == 2


def test_embeddings(ask: Any) -> None:
    answer = ask("embeddings.create", input=["a", "bcd"])
    assert answer["error"] is None
    assert [each["embedding"] for each in answer["value"]["data"]] == [[1.0, 0.5], [3.0, 0.5]]
