"""
HTTP: one ``POST /post`` for each request, as many at a time as there are connections.

Requests and answers are protobuf, so that numbers and their types pass unchanged. A server that takes JSON
only, such as the reference's, refuses the first request before it looks at it; that request and all that
follow are then sent as JSON.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError

from gatewayd.client.address import GatewayAddress
from gatewayd.client.errors import (
    UNKNOWN_OR_FORBIDDEN,
    AccessRefused,
    BadServerFlow,
    BrokenAnswer,
    NetworkError,
    NoSuchEndpoint,
    QueryRefused,
    RequestRefused,
    TimedOut,
    TryLater,
    Unreachable,
)
from gatewayd.client.exchange import Deliver, Outbox, Read, run_singles
from gatewayd.client.inputs import Message
from gatewayd.client.post import Post, PostOptions
from gatewayd.client.response import Response
from gatewayd.client.transports import json_form as jsonform
from gatewayd.client.transports.base import DRY_RUN_FAILED
from gatewayd.client.transports.session import HttpSession, requested, waiting_s
from gatewayd.messages import wire
from gatewayd.messages.headers import joined
from gatewayd.messages.request import Request
from gatewayd.pb import HeaderProto

# How much of an unexpected body is kept in an error.
_SHOWN: Final = 2000

_JSON: Final = "application/json"
_PROTOBUF: Final = "application/x-protobuf"

# What servers answer to a body of a type that they don't take. Nothing has been done for the request then.
_NOT_TAKEN: Final = (400, 406, 415, 422)


class HttpTransport:
    def __init__(self, address: GatewayAddress) -> None:
        self._address = address
        self._session = HttpSession(address)
        # Loop thread only. None until an answer has shown which form the server takes.
        self._takes_protobuf: bool | None = None

    def encode(self, request: Request) -> bytes:
        return wire.encode_request(request)

    async def exchange(self, post: Post, outbox: Outbox, deliver: Deliver) -> None:
        await run_singles(partial(self._single, post), outbox, deliver, post.retries)

    async def unready(self, options: PostOptions) -> str | None:
        return await dry_run(self._session, self._address, options)

    async def mutate(self, body: dict[str, Any], options: PostOptions) -> dict[str, Any]:
        url = self._address.url("/graphql")
        async with requested(self._session, "POST", url, options, orjson.dumps(body)) as answer:
            content = await answer.read()
            try:
                check_status(answer.status, url, content, wait=answer.headers.get("Retry-After"))
            except AccessRefused:
                raise
            except RequestRefused as refused:
                raise QueryRefused(str(refused), refused.status, refused.body) from None
            result: dict[str, Any] = _object(content)
            result["headers"] = dict(answer.headers)
        if errors := result.get("errors"):
            messages = "".join(f"{error.get('message')}. " for error in errors)
            raise NetworkError(f"GraphQL mutation returned the following errors: {messages}")
        return result

    async def close(self) -> None:
        await self._session.close()

    async def _single(self, options: PostOptions, message: Message) -> Read:
        asked_as = options.header("content-type")
        if self._takes_protobuf is False or (asked_as is not None and asked_as != _PROTOBUF):
            return await self._as_json(options, message)
        try:
            return await self._as_protobuf(options, message)
        except RequestRefused as refused:
            if self._takes_protobuf or refused.status not in _NOT_TAKEN:
                raise
            read = await self._as_json(options, message)
        self._takes_protobuf = False
        return read

    async def _as_protobuf(self, options: PostOptions, message: Message) -> Read:
        return await self._posted(options, message.payload, _PROTOBUF, f"{_PROTOBUF}, {_JSON};q=0.5")

    async def _as_json(self, options: PostOptions, message: Message) -> Read:
        # Large documents take time, and this is the thread that all Clients share.
        body = await asyncio.to_thread(jsonform.encode, wire.decode_request(message.payload))
        return await self._posted(options, body, _JSON, _JSON)

    async def _posted(self, options: PostOptions, body: bytes, content_type: str, accept: str) -> Read:
        url = self._address.url("/post")
        forms = {"Content-Type": content_type, "Accept": accept}
        async with requested(self._session, "POST", url, options, body, forms) as answer:
            content = await answer.read()
            if answer.content_type == _PROTOBUF or answer.headers.get("Server") == "gatewayd":
                self._takes_protobuf = True
            check_status(answer.status, url, content, answer.content_type, answer.headers.get("Retry-After"))
            headers = joined((name.lower(), value) for name, value in answer.headers.items())
        if answer.content_type == _PROTOBUF:
            return lambda: Response(content, headers)
        return lambda: Response(jsonform.decode(content), headers)


async def dry_run(session: HttpSession, address: GatewayAddress, options: PostOptions) -> str | None:
    """``GET /dry_run``: why it failed, None if it did not. Raises errors.py's tree."""
    url = address.url("/dry_run")
    async with requested(session, "GET", url, options) as answer:
        body = await answer.read()
        check_status(answer.status, url, body, wait=answer.headers.get("Retry-After"))
    status = _object(body)
    return None if status.get("code") == 0 else str(status.get("description") or DRY_RUN_FAILED)


def check_status(
    status: int, url: str, body: bytes, content_type: str = _JSON, wait: str | None = None
) -> None:
    """
    Raises what an HTTP status means (spec client.md, Errors raised), unless it is success.

    ``wait`` is the value of Retry-After, if there is one.
    """
    if status < 300:
        return
    if status == 404:
        hint = _text_of(body, "hint")[:_SHOWN]
        raise NoSuchEndpoint(f"no such endpoint {url}" + (f": {hint}" if hint else ""))
    text = body.decode("utf-8", "replace")
    shown = text[:_SHOWN]
    described = _description(body, content_type) or shown
    if status == 429 or (status == 503 and wait is not None):
        raise TryLater(_text_of(body, "detail") or described, status, waiting_s(wait))
    if status == 503:
        raise Unreachable(described, status)
    if status == 504:
        raise TimedOut(described, status)
    if status >= 500:
        raise BrokenAnswer(f"HTTP status {status}: {described}", status, shown)
    if status in UNKNOWN_OR_FORBIDDEN:
        raise AccessRefused(status, text, _text_of(body, "detail") or shown)
    raise RequestRefused(f"the gateway refused the request (HTTP status {status}): {shown}", status, text)


def _description(body: bytes, content_type: str) -> str:
    """What a gateway says in ``header.status`` of a failure; empty where the body is not such."""
    try:
        if content_type == _PROTOBUF:
            return HeaderProto.FromString(wire.split(body)[0]).status.description
        return str(orjson.loads(body)["header"]["status"]["description"])
    except (ValueError, TypeError, KeyError, wire.Malformed, DecodeError):
        return ""


def _text_of(body: bytes, key: str) -> str:
    """What a gateway's refusal says in ``key``; empty where the body has no such text."""
    try:
        return str(orjson.loads(body)[key])
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
