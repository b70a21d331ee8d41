"""The real openai client, in an interpreter of its own, and gateways for it whose executors tests play."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred

from gatewayd.config.openai import OpenAIConfig
from tests.paths import ROOT
from tests.processes import Child, environment
from tests.protocols.harness import FakeDispatcher, Served, in_thread, served

PROGRAM = Path(__file__).parent / "programs" / "client.py"
HELLO = [{"role": "user", "content": "hello"}]


class OpenAIClient:
    """The real client; ``ask`` says what came of one call (see programs/client.py)."""

    def __init__(self, python: str) -> None:
        variables = {"PYTHONPATH": "", "OPENAI_LOG": ""}
        self._child = Child([python, str(PROGRAM)], env=environment(**variables))
        self._asked = 0

    def ask(self, **call: Any) -> dict[str, Any]:
        self._child.tell(json.dumps(call))
        self._asked += 1
        answer = self._child.line("^ANSWER (.*)$", count=self._asked)[self._asked - 1]
        found: dict[str, Any] = json.loads(answer[1])
        return found

    def stop(self) -> None:
        self._child.stop(5.0)


@pytest.fixture(scope="session")
def openai_python() -> str:
    """The interpreter that has the client: GATEWAYD_OPENAI_PYTHON, or .venv-openai as make builds it."""
    path = os.environ.get("GATEWAYD_OPENAI_PYTHON", str(ROOT / ".venv-openai" / "bin" / "python"))
    if not Path(path).exists():
        pytest.fail(
            f"there is no {path}: run the suite with `make test-openai`, which installs the client there, or "
            "name an interpreter that has it in GATEWAYD_OPENAI_PYTHON",
            pytrace=False,
        )
    return path


@pytest.fixture(scope="session")
def client(openai_python: str) -> Iterator[OpenAIClient]:
    one = OpenAIClient(openai_python)
    yield one
    one.stop()


@attrs.frozen
class Conversation:
    """A gateway, and the client that calls it: ``asyncio`` or not."""

    client: OpenAIClient
    gateway: Served
    asyncio: bool

    def call(self, method: str, options: dict[str, Any], **more: Any) -> Deferred[dict[str, Any]]:
        """What came of a call, while the reactor serves it."""
        url = f"{self.gateway.url}/v1"
        call = {"base_url": url, "asyncio": self.asyncio, "method": method, "options": options, **more}
        found: Deferred[dict[str, Any]] = in_thread(self.client.ask, **call)
        return found

    def chat(self, **options: Any) -> Deferred[dict[str, Any]]:
        """A chat completion of HELLO."""
        more = {"api_key": options.pop("api_key", "none"), "leave_after": options.pop("leave_after", None)}
        options = {"model": "m", "messages": HELLO, **options}
        return self.call("chat.completions.create", options, stream=options.get("stream", False), **more)

    def embed(self, **options: Any) -> Deferred[dict[str, Any]]:
        """Embeddings."""
        return self.call("embeddings.create", {"model": "m", **options})


Talking = Callable[..., Any]


@pytest.fixture(params=["sync", "asyncio"])
def talking(client: OpenAIClient, request: pytest.FixtureRequest) -> Talking:
    """``talking(dispatcher, **settings)`` is a Conversation with a gateway, while its block lasts."""

    @asynccontextmanager
    async def talk(dispatcher: FakeDispatcher, **settings: Any) -> AsyncIterator[Conversation]:
        settings.setdefault("openai", OpenAIConfig("/chat", "/embed"))
        async with served(dispatcher=dispatcher, **settings) as gateway:
            yield Conversation(client, gateway, request.param == "asyncio")

    return talk
