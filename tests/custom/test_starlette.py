"""An application of Starlette, on which FastAPI is built: what such a framework uses of ASGI."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest_twisted
from docarray import Document
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from twisted.python.failure import Failure

from gatewayd import Gateway
from tests.custom.serving import get, serving
from tests.protocols.harness import in_thread, until
from tests.protocols.http.test_http import call


class Front(Gateway):
    def __init__(self) -> None:
        self.told: list[str] = []

    @property
    def app(self) -> Any:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
            docs = await self.post("/greet", Document(text="warm"))
            yield {"warm": docs[0].text}
            self.told.append("over")

        async def greet(request: Request) -> JSONResponse:
            docs = await self.post("/greet", Document(text=request.path_params["name"]))
            answer = {"text": docs[0].text, "warm": request.state.warm, "url": str(request.url)}
            return JSONResponse(answer, background=BackgroundTask(self.told.append, "background"))

        async def echo(request: Request) -> PlainTextResponse:
            return PlainTextResponse(await request.body(), headers={"X-Mine": "1"})

        def plain(request: Request) -> PlainTextResponse:
            time.sleep(0.05)
            return PlainTextResponse("from a thread")

        async def stream(request: Request) -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                for number in range(3):
                    await asyncio.sleep(0)
                    yield f"{number} "

            return StreamingResponse(parts())

        async def broken(request: Request) -> None:
            raise RuntimeError("the route is broken")

        return Starlette(
            routes=[
                Route("/greet/{name}", greet),
                Route("/echo", echo, methods=["POST"]),
                Mount("/more", routes=[Route("/plain", plain), Route("/stream", stream)]),
                Route("/broken", broken),
            ],
            lifespan=lifespan,
        )


@pytest_twisted.ensureDeferred
async def test_routes_bodies_streams_and_the_lifespan_work() -> None:
    front = Front()
    async with serving(front) as gateway:
        status, _, body = await get(gateway, "/greet/Ada?x=1", Host="gateway.example")
        assert (status, json.loads(body)) == (
            200,
            {"text": "Ada", "warm": "warm", "url": "http://gateway.example/greet/Ada?x=1"},
        )
        await until(lambda: front.told == ["background"])
        status, headers, body = await in_thread(call, gateway.port, "POST", "/echo", b"text")
        assert (status, headers["x-mine"], body) == (200, "1", b"text")
        assert (await get(gateway, "/more/plain"))[2] == b"from a thread"
        assert (await get(gateway, "/more/stream"))[2] == b"0 1 2 "
        assert (await get(gateway, "/nothing"))[0] == 404
        assert (await get(gateway, "/echo"))[0] == 405

    assert front.told == ["background", "over"]


@pytest_twisted.ensureDeferred
async def test_its_own_answer_to_an_exception_is_kept_and_the_exception_logged(
    caught_failures: list[Failure],
) -> None:
    async with serving(Front()) as gateway:
        status, _, body = await get(gateway, "/broken")

    assert (status, body) == (500, b"Internal Server Error")
    assert [str(failure.value) for failure in caught_failures] == ["the route is broken"]
    caught_failures.clear()
