"""One gateway for all tests of the client, and a client for each protocol, waiting or asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gatewayd.client.client import Client
from tests.paths import ROOT
from tests.processes import PROTOCOLS, Gateway

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}
FLOW = {"gateway": {"expose_graphql_endpoint": True}, "executors": [REC]}


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    gateway = Gateway(FLOW)
    yield gateway
    assert gateway.stop() == 0, gateway.output


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(gateway: Gateway, protocol: str) -> Iterator[Any]:
    with Client(host="127.0.0.1", port=gateway.ports[protocol], protocol=protocol) as client:
        yield client


class Waiting:
    """The asynchronous client behind the interface of the other: what one can do, both can."""

    def __init__(self, **where: Any) -> None:
        self._client = Client(asyncio=True, **where)

    def post(self, on: str, inputs: Any = None, **keywords: Any) -> Any:
        async def collect() -> list[Any]:
            return [part async for part in self._client.post(on, inputs, **keywords)]

        from docarray import DocumentArray

        parts = asyncio.run(collect())
        if keywords.get("on_done") or keywords.get("on_always"):
            return None
        if keywords.get("return_responses"):
            return parts
        return DocumentArray([document for part in parts for document in part])

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in ("index", "search", "update", "delete"):
            return lambda inputs=None, **keywords: self.post(f"/{name}", inputs, **keywords)

        async def call(*arguments: Any, **keywords: Any) -> Any:
            return await getattr(self._client, name)(*arguments, **keywords)

        return lambda *arguments, **keywords: asyncio.run(call(*arguments, **keywords))

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(params=["waits", "asyncio"])
def either(request: pytest.FixtureRequest, gateway: Gateway, protocol: str) -> Iterator[Any]:
    """Both kinds of client, over every protocol."""
    kind = Client if request.param == "waits" else Waiting
    with kind(host="127.0.0.1", port=gateway.ports[protocol], protocol=protocol) as client:
        yield client
