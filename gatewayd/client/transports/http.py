"""HTTP: one ``POST /post`` with JSON for each request, as many at a time as there are connections."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import orjson

from gatewayd.client.address import GatewayAddress
from gatewayd.client.errors import (
    BadClient,
    BadServerFlow,
    BrokenAnswer,
    NetworkError,
    RequestRefused,
    TimedOut,
    Unreachable,
)
from gatewayd.client.exchange import Deliver, Outbox, Read, run_singles
from gatewayd.client.inputs import Message
from gatewayd.client.post import Post, PostOptions
from gatewayd.client.response import Response
from gatewayd.client.transports import json_form as jsonform
from gatewayd.client.transports.base import DRY_RUN_FAILED
from gatewayd.client.transports.session import HttpSession, requested
from gatewayd.messages.headers import joined
from gatewayd.messages.request import Request

# How much of an unexpected body is kept in an error.
_SHOWN: Final = 2000


class HttpTransport:
    def __init__(self, address: GatewayAddress) -> None:
        self._address = address
        self._session = HttpSession(address)

    def encode(self, request: Request) -> bytes:
        return jsonform.encode(request)

    async def exchange(self, post: Post, outbox: Outbox, deliver: Deliver) -> None:
        await run_singles(partial(self._single, post), outbox, deliver, post.retries)

    async def unready(self, options: PostOptions) -> str | None:
        return await dry_run(self._session, self._address, options)

    async def mutate(self, body: dict[str, Any], options: PostOptions) -> dict[str, Any]:
        url = self._address.url("/graphql")
        async with requested(self._session, "POST", url, options, orjson.dumps(body)) as answer:
            content = await answer.read()
            check_status(answer.status, url, content)
            result: dict[str, Any] = _object(content)
            result["headers"] = dict(answer.headers)
        if errors := result.get("errors"):
            messages = "".join(f"{error.get('message')}. " for error in errors)
            raise NetworkError(f"GraphQL mutation returned the following errors: {messages}")
        return result

    async def close(self) -> None:
        await self._session.close()

    async def _single(self, options: PostOptions, message: Message) -> Read:
        url = self._address.url("/post")
        async with requested(self._session, "POST", url, options, message.payload) as answer:
            body = await answer.read()
            check_status(answer.status, url, body)
            headers = joined((name.lower(), value) for name, value in answer.headers.items())
        return lambda: Response(jsonform.decode(body), headers)


async def dry_run(session: HttpSession, address: GatewayAddress, options: PostOptions) -> str | None:
    """``GET /dry_run``: why it failed, None if it did not. Raises errors.py's tree."""
    url = address.url("/dry_run")
    async with requested(session, "GET", url, options) as answer:
        body = await answer.read()
        check_status(answer.status, url, body)
    status = _object(body)
    return None if status.get("code") == 0 else str(status.get("description") or DRY_RUN_FAILED)


def check_status(status: int, url: str, body: bytes) -> None:
    """Raises what an HTTP status means (spec client.md, Errors raised), unless it is success."""
    if status < 300:
        return
    if status == 404:
        raise BadClient(f"no such endpoint {url}")
    text = body.decode("utf-8", "replace")
    shown = text[:_SHOWN]
    if status == 503:
        raise Unreachable(_description(body) or shown, status)
    if status == 504:
        raise TimedOut(_description(body) or shown, status)
    if status >= 500:
        raise BrokenAnswer(f"HTTP status {status}: {_description(body) or shown}", status, shown)
    raise RequestRefused(f"the gateway refused the request (HTTP status {status}): {shown}", status, text)


def _description(body: bytes) -> str:
    """What a gateway says in ``header.status`` of a failure; empty where the body is not such."""
    try:
        return str(orjson.loads(body)["header"]["status"]["description"])
    except (ValueError, TypeError, KeyError):
        return ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadServerFlow(f"the gateway's answer is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadServerFlow("the gateway's answer is not a JSON object")
    return value
