"""
HTTP: one ``POST /post`` for each request, as many at a time as there are connections.

Requests and answers are protobuf, so that numbers and their types pass unchanged. A server that takes JSON
only, such as the reference's, refuses the first request before it looks at it; that request and all that
follow are then sent as JSON. A gateway of Jina 3.34, which has no ``/post``, gets the documents of the second
generation at the routes that its description names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import orjson
from google.protobuf.message import DecodeError

from gatewayd.client.address import GatewayAddress
from gatewayd.client.errors import (
    UNKNOWN_OR_FORBIDDEN,
    AccessRefused,
    BadClientInput,
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
from gatewayd.client.exchange import STREAMS, Deliver, Outbox, Read, run_singles
from gatewayd.client.inputs import Message
from gatewayd.client.post import Post, PostOptions
from gatewayd.client.response import Response
from gatewayd.client.streaming import Arrive
from gatewayd.client.transports import json_form as jsonform
from gatewayd.client.transports import typed_json
from gatewayd.client.transports.base import DRY_RUN_FAILED
from gatewayd.client.transports.events import EventParser
from gatewayd.client.transports.session import HttpSession, LostConnection, requested, waiting_s
from gatewayd.extras import docarray_generation
from gatewayd.messages import wire
from gatewayd.messages.generations import Generation
from gatewayd.messages.headers import joined
from gatewayd.messages.request import Request
from gatewayd.messages.second.writing import documents_in
from gatewayd.messages.structs import read_struct
from gatewayd.pb import HeaderProto, StatusProto, Struct

# How much of an unexpected body is kept in an error.
_SHOWN: Final = 2000

_JSON: Final = "application/json"
_PROTOBUF: Final = "application/x-protobuf"
_EVENTS: Final = "text/event-stream"


# What Jina's gateways, and ours, say they are.
_JINAS: Final = "uvicorn"
_OURS: Final = "gatewayd"

# What servers answer to a body of a type that they don't take. Nothing has been done for the request then.
_NOT_TAKEN: Final = (400, 406, 415, 422)
# The same, and what they answer to a POST where a stream is asked for by GET.
_NO_STREAM: Final = (*_NOT_TAKEN, 404, 405)


class HttpTransport:
    def __init__(self, address: GatewayAddress, generation: Generation | None = None) -> None:
        """``generation`` is that of the documents; None for that of the docarray that is installed."""
        self._address = address
        self._session = HttpSession(address)
        # Loop thread only. None until an answer has shown which form the server takes.
        self._takes_protobuf: bool | None = None
        self._server = ""
        self._streams_by_get = False
        self._typed = (generation or docarray_generation()) is Generation.SECOND
        self._typed_paths: frozenset[str] | None = (
            None  # of a gateway of Jina 3.34; None until they are known
        )

    def encode(self, request: Request) -> bytes:
        return wire.encode_request(request)

    async def exchange(self, post: Post, outbox: Outbox, deliver: Deliver) -> None:
        await run_singles(partial(self._single, post), outbox, deliver, post.retries)

    async def stream(self, post: Post, message: Message, arrive: Arrive) -> None:
        request = request_of(message)
        if not self._streams_by_get:
            try:
                path, accept = path_of(request.endpoint), f"{_EVENTS}, {_JSON};q=0.1"
                forms = {"Content-Type": _PROTOBUF, "Accept": accept}
                return await self._events("POST", path, post, message.payload, forms, request, arrive)
            except (RequestRefused, NoSuchEndpoint, BrokenAnswer) as refused:
                # A gateway of Jina's may fail, too, on bytes that it expects to be text. One behind a proxy
                # does not say what it is; what fails there may have been done already.
                status = getattr(refused, "status", int(HTTPStatus.NOT_FOUND))
                if self._server != _JINAS and (self._server == _OURS or status not in _NO_STREAM):
                    raise
        # A gateway of Jina 3.34: the document is the body of a GET, which has no place for parameters.
        given = read_struct(Struct.FromString(request.parameters))
        if given.keys() - {"__results__"}:
            raise BadClientInput(
                "parameters: over HTTP, this server's streams take none; stream over grpc, or give none"
            )
        documents = documents_in(request.documents)
        if len(documents) != 1:
            raise BadClientInput(
                f"over HTTP, its streams take one document; found {len(documents)}: stream over grpc"
            )
        (document,) = documents
        body = orjson.dumps(await asyncio.to_thread(typed_json.document_body, document))
        forms = {"Content-Type": _JSON, "Accept": _EVENTS}
        await self._events("GET", path_of(request.endpoint), post, body, forms, request, arrive)
        self._streams_by_get = True

    async def _events(
        self,
        method: str,
        path: str,
        options: PostOptions,
        body: bytes,
        forms: Mapping[str, str],
        request: Request,
        arrive: Arrive,
    ) -> None:
        """One answer of server-sent events. Raises errors.py's tree."""
        url = self._address.url(path)
        async with requested(self._session, method, url, options, body, forms) as answer:
            self._server = answer.headers.get("Server", "")
            if answer.status != HTTPStatus.OK or answer.content_type != _EVENTS:
                content = await answer.read()
                wait = answer.headers.get("Retry-After")
                check_status(answer.status, url, content, answer.content_type, wait)
                raise BadServerFlow(
                    f"{url} answered with {answer.content_type} instead of a stream: does {request.endpoint} "
                    "stream there?"
                )
            headers = joined((name.lower(), value) for name, value in answer.headers.items())
            parser, ended = EventParser(), False
            async for content in answer.content.iter_any():
                for event in parser.feed(content):
                    if event.name == "error":
                        raise _told(event.data)
                    if event.name in ("update", "message"):
                        read = partial(self._streamed, request, event.data, headers)
                        await arrive(read, len(event.data))
                    ended = ended or event.name == "end"
            if not ended:
                raise LostConnection("the gateway ended the stream before its end")

    def _streamed(self, request: Request, data: bytes, headers: Mapping[str, str]) -> Response:
        """The answer that an event's data is."""
        content_of = typed_json.content_of if self._typed else jsonform.documents_of
        try:
            content = content_of([orjson.loads(data)])
        except (ValueError, TypeError, AttributeError) as error:
            raise BadServerFlow(f"an event of the gateway's is no document in JSON: {error}") from error
        header = HeaderProto(request_id=request.request_id, exec_endpoint=request.endpoint)
        parts = [*wire.field(wire.HEADER, header.SerializeToString()), *wire.field(wire.DATA, content)]
        return Response(b"".join(parts), headers)

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
        except NoSuchEndpoint as missing:
            if not self._typed:
                if self._server == _JINAS:
                    raise _hinted(missing) from missing
                raise
            if self._takes_protobuf:
                # A gateway of ours without its debugging routes; those of endpoints take the same.
                return await self._as_protobuf(options, message, path_of(request_of(message).endpoint))
            read = await self._as_json(options, message)
        self._takes_protobuf = False
        return read

    async def _as_protobuf(self, options: PostOptions, message: Message, path: str = "/post") -> Read:
        return await self._posted(options, message.payload, _PROTOBUF, f"{_PROTOBUF}, {_JSON};q=0.5", path)

    async def _as_json(self, options: PostOptions, message: Message) -> Read:
        form, path = (
            (typed_json, await self._typed_path(options, message)) if self._typed else (jsonform, "/post")
        )
        # Large documents take time, and this is the thread that all Clients share.
        body = await asyncio.to_thread(form.encode, request_of(message))
        return await self._posted(options, body, _JSON, _JSON, path)

    async def _typed_path(self, options: PostOptions, message: Message) -> str:
        """Where a gateway of Jina 3.34 takes the request: as its own client chooses (spec 34/client.md)."""
        endpoint = request_of(message).endpoint
        if self._typed_paths is None:
            self._typed_paths = await self._described(options)
        for name in (endpoint.strip("/"), "default"):
            if name in (self._typed_paths or ()):
                return path_of(name)
        return "/post"

    async def _described(self, options: PostOptions) -> frozenset[str] | None:
        """The paths that have a POST, without slashes around; None where the server tells none."""
        async with requested(self._session, "GET", self._address.url("/openapi.json"), options) as answer:
            body = await answer.read()
        if answer.status != HTTPStatus.OK:
            return None
        try:
            paths = _object(body)["paths"]
            return frozenset(path.strip("/") for path, methods in paths.items() if "post" in methods)
        except (KeyError, TypeError, AttributeError, BadServerFlow):
            return None

    async def _posted(
        self, options: PostOptions, body: bytes, content_type: str, accept: str, path: str
    ) -> Read:
        url = self._address.url(path)
        forms = {"Content-Type": content_type, "Accept": accept}
        async with requested(self._session, "POST", url, options, body, forms) as answer:
            if answer.content_type == _EVENTS:
                raise BadServerFlow(STREAMS)  # not read: it may have no end
            content = await answer.read()
            self._server = answer.headers.get("Server", "")
            if answer.content_type == _PROTOBUF or self._server == _OURS:
                self._takes_protobuf = True
            headers = joined((name.lower(), value) for name, value in answer.headers.items())
            if self._typed and (raised := _raised(answer.status, content)):
                return lambda: Response(raised, headers)
            check_status(answer.status, url, content, answer.content_type, answer.headers.get("Retry-After"))
        if answer.content_type == _PROTOBUF:
            return lambda: Response(content, headers)
        decode = typed_json.decode if self._typed else jsonform.decode
        return lambda: Response(decode(content), headers)


def request_of(message: Message) -> Request:
    """The request of a message of this transport, which may be of the other generation's documents."""
    header, parameters, _, documents = wire.split(message.payload)
    named = HeaderProto.FromString(header)
    return Request(
        request_id=named.request_id,
        endpoint=named.exec_endpoint,
        target=named.target_executor,
        parameters=parameters or b"",
        documents=documents or b"",
    )


def _told(data: bytes) -> Exception:
    """What an event tells of the failure that ended a stream."""
    detail = _text_of(data, "detail") or data.decode("utf-8", "replace")[:_SHOWN]
    status = _text_of(data, "status")
    if status == str(int(HTTPStatus.SERVICE_UNAVAILABLE)):
        return Unreachable(detail, int(status))
    if status == str(int(HTTPStatus.GATEWAY_TIMEOUT)):
        return TimedOut(detail, int(status))
    return BadServerFlow(f"the stream failed: {detail}")


def path_of(endpoint: str) -> str:
    """The path of an endpoint's own route."""
    return "/" + quote(endpoint.strip("/"))


def _raised(status: int, body: bytes) -> bytes | None:
    """
    An answer that says what an executor raised; None where it is no such answer.

    Gateways of Jina 3.34 answer with a status of 500 and the exception as ``detail`` (spec 34/http.md).
    """
    if status != HTTPStatus.INTERNAL_SERVER_ERROR or not (detail := _text_of(body, "detail")):
        return None
    header = HeaderProto()
    header.status.code = StatusProto.ERROR
    header.status.description = detail
    return b"".join(wire.field(wire.HEADER, header.SerializeToString()))


def _hinted(missing: NoSuchEndpoint) -> NoSuchEndpoint:
    """With what a server of Jina's that has no ``/post`` most likely is."""
    return NoSuchEndpoint(
        f"{missing} (a Jina gateway that serves documents of docarray 0.40 and later has none, and this "
        "Client has docarray 0.21: to call one, pip install 'gatewayd[docarray2]')"
    )


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
