"""
The gateway's gRPC methods: with the port itself, the only protocol code on the loop thread.

Messages are bytes on both sides: each is split here (``wire``), dispatched on the reactor thread through the
bridge, and its answer written as bytes. If the client has left or its deadline has passed, gRPC cancels the
method, and the bridge passes the cancellation on to the dispatcher.

    Call:  reading --(window has room)--> dispatching --(answered, in its turn)--> writing
             ^                                                                       |
             +------------------------(written: the window has room)-----------------+

If a client does not read, writing stops, then the window fills up, then reading stops.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio
from twisted.python.failure import Failure

from gatewayd.access.control import DOCS, DRY_RUN, STATUS, AccessControl
from gatewayd.bounded_log import BoundedLogger
from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.errors import BadRequest, Draining, EndpointStreams, GatewayError, Overloaded, RateLimited
from gatewayd.inflating import Damaged, inflated, looks_compressed
from gatewayd.messages import methods, wire
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.headers import AllowList, Headers, as_metadata
from gatewayd.messages.parts import PartResponses, SingleResponses
from gatewayd.messages.request import Request, Response
from gatewayd.messages.rope import Content
from gatewayd.messages.single import decode_single_request
from gatewayd.pb import JinaInfoProto
from gatewayd.protocols.backend import Dispatcher
from gatewayd.protocols.failures import failure_status
from gatewayd.protocols.grpc.crossing import Crossing
from gatewayd.protocols.grpc.identification import CallAccess, Handler
from gatewayd.protocols.grpc.requests import (
    CountingDispatcher,
    completed,
    discovered,
    final_status,
    stream_settings,
)
from gatewayd.protocols.streamed import Streamed
from gatewayd.protocols.window import UNREAD, Window
from gatewayd.streams import StreamingEndpoints

T = TypeVar("T")

log = BoundedLogger()


class Servicer:
    """
    The methods of the gRPC port. All of them run on the loop thread.

    ``prefetch`` limits the requests in flight of one Call, 0 for no limit. ``status`` makes the maps of
    ``_status``; it also runs on the loop thread, and must not touch state of the reactor thread. ``buffers``
    counts the bytes of the requests under way; None means that they are not limited. ``forwarded`` is the
    metadata that executors get, and of theirs, clients. With ``access`` control it is asked who calls.
    ``streaming`` says which endpoints stream.
    """

    def __init__(
        self,
        bridge: Bridge,
        dispatcher: Dispatcher,
        status: Callable[[], Mapping[str, Mapping[str, str]]],
        prefetch: int,
        buffers: Buffers | None = None,
        forwarded: AllowList | None = None,
        max_message_bytes: int = 1 << 30,
        max_unsent_bytes: int = 0,
        access: AccessControl | None = None,
        endpoints: Callable[[], Endpoints] = Endpoints,
        streaming: StreamingEndpoints | None = None,
    ) -> None:
        self._bridge = bridge
        self._engine = CountingDispatcher(dispatcher, buffers, streaming)
        self._dispatcher = dispatcher
        self._buffers = buffers
        self._status = status
        self._endpoints = endpoints
        self._prefetch = prefetch
        self._max_message_bytes = max_message_bytes
        self._unsent_bytes = max_unsent_bytes
        # What is being inflated is not counted in ``buffers`` yet.
        self._inflating = asyncio.Semaphore(2)
        self._streams: set[_CallStream] = set()
        self.call_access = None if access is None else CallAccess(access, bridge)
        self.forwarded = AllowList() if forwarded is None else forwarded

    def handlers(self, exposed: Collection[str]) -> tuple[grpc.GenericRpcHandler, ...]:
        """One handler for each service that has a method in ``exposed``, from bytes to bytes."""
        handlers = self._open() if self.call_access is None else self._kept(self.call_access)
        services = methods.by_service({path: handlers[path] for path in exposed})
        return tuple(
            grpc.method_handlers_generic_handler(service, handlers) for service, handlers in services.items()
        )

    def _open(self) -> dict[str, Handler]:
        return {
            methods.STREAM: grpc.stream_stream_rpc_method_handler(self.call),
            methods.SINGLE: grpc.unary_unary_rpc_method_handler(self.process_single_data),
            methods.STREAM_DOC: grpc.stream_stream_rpc_method_handler(self.stream_doc),
            methods.DRY_RUN: grpc.unary_unary_rpc_method_handler(self.dry_run),
            methods.STATUS: grpc.unary_unary_rpc_method_handler(self.info),
            methods.DISCOVERY: grpc.unary_unary_rpc_method_handler(self.endpoint_discovery),
        }

    def _kept(self, call_access: CallAccess) -> dict[str, Handler]:
        """As ``_open``, but every method is for those who may."""
        return {
            methods.STREAM: call_access.of_many(methods.STREAM, self.call),
            methods.SINGLE: call_access.of_one(methods.SINGLE, self.process_single_data),
            methods.STREAM_DOC: call_access.of_many(methods.STREAM_DOC, self.stream_doc),
            methods.DRY_RUN: call_access.of_one(methods.DRY_RUN, self.dry_run, DRY_RUN),
            methods.STATUS: call_access.of_one(methods.STATUS, self.info, STATUS),
            methods.DISCOVERY: call_access.of_one(methods.DISCOVERY, self.endpoint_discovery, DOCS),
        }

    async def process_single_data(self, message: bytes, context: Any, caller: Caller = ANONYMOUS) -> bytes:
        """One request, one answer (spec grpc.md, process_single_data)."""
        request: Request | None = None
        try:
            if looks_compressed(message):
                message = await self.inflated(message)
            request = wire.decode_request(message)
            headers: Headers = ()
            if self.forwarded:
                headers = self.forwarded.of_request(context.invocation_metadata())
            request = completed(request, headers, caller)
            response = await self.dispatch(request, context.time_remaining())
        except Exception as error:
            await _abort(context, error, request)
        if response.headers:
            context.set_trailing_metadata(as_metadata(response.headers))
        return bytes(wire.encode_response(response))

    async def stream_doc(self, _requests: object, context: Any, caller: Caller = ANONYMOUS) -> None:
        """One document in, and any number out (spec 34/streaming.md)."""
        request: Request | None = None
        arrived: asyncio.Queue[list[Response] | Failure | None] = asyncio.Queue()
        crossing: Crossing | None = None
        try:
            message = await context.read()
            if message is grpc.aio.EOF:
                raise BadRequest("the call has no message")
            if looks_compressed(message):
                message = await self.inflated(message)
            request = decode_single_request(message)
            headers: Headers = ()
            if self.forwarded:
                headers = self.forwarded.of_request(context.invocation_metadata())
            request = completed(request, headers, caller)
            crossing = self.cross(request, context.time_remaining(), arrived.put_nowait)
            metadata: Headers = ()
            encode = SingleResponses()
            while (found := await arrived.get()) is not None:
                if isinstance(found, Failure):
                    found.raiseException()
                for response in found:
                    if response.headers:
                        metadata = self.forwarded.bounded(metadata + response.headers)
                        context.set_trailing_metadata(as_metadata(metadata))
                    for each in encode(response):
                        await _write(context, bytes(each))
                    crossing.taken()
        except Exception as error:
            await _abort(context, error, request)
        finally:
            if crossing is not None:
                crossing.close()

    async def call(self, _requests: object, context: Any, caller: Caller = ANONYMOUS) -> None:
        """A stream of requests and their answers (spec grpc.md, Call)."""
        metadata = context.invocation_metadata()
        ordered, prefetch = stream_settings(metadata or (), self._prefetch)
        try:
            headers = self.forwarded.of_request(metadata or ()) if self.forwarded else ()
        except GatewayError as error:
            await _abort(context, error, None)
        stream = _CallStream(self, context, Window(prefetch, ordered, self._unsent_bytes), headers, caller)
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)

    def drain(self) -> None:
        """End each Call as soon as it has its answers: the gateway is about to stop."""
        for stream in self._streams:
            stream.drain()

    async def dry_run(self, _empty: bytes, context: Any, caller: Caller = ANONYMOUS) -> bytes:
        """A StatusProto; the call itself does not fail for a network error (spec grpc.md)."""
        try:
            await self._bridge.on_reactor(self._engine.dry_run, caller)
        except RateLimited as error:
            await _abort(context, error, None)
        except GatewayError as error:
            return failure_status(error)
        except Exception as error:
            await _abort(context, error, None)
        return b""

    async def info(self, _empty: bytes, _context: Any, _caller: Caller = ANONYMOUS) -> bytes:
        """A JinaInfoProto (spec status.md)."""
        return JinaInfoProto(**self._status()).SerializeToString()

    async def endpoint_discovery(self, _empty: bytes, context: Any, _caller: Caller = ANONYMOUS) -> bytes:
        """An EndpointsProto (spec 34/wire.md)."""
        try:
            return await self._bridge.on_reactor(discovered, self._endpoints)
        except Exception as error:
            await _abort(context, error, None)

    async def inflated(self, message: bytes) -> bytes:
        """A compressed message, inflated. Raises BadRequest and TooLarge."""
        offload = partial(asyncio.get_running_loop().run_in_executor, None)
        async with self._inflating:
            try:
                return await inflated(message, self._max_message_bytes, lambda count: None, offload)
            except Damaged as error:
                raise BadRequest(f"the message cannot be decompressed: {error}") from error

    def dispatch(
        self, request: Request, timeout_s: float | None, may_stream: bool = False
    ) -> asyncio.Future[Response]:
        """Dispatch ``request`` on the reactor thread, as ``CountingDispatcher`` does."""
        return self._bridge.on_reactor(self._engine.dispatch, request, timeout_s, may_stream)

    def cross(
        self,
        request: Request,
        timeout_s: float | None,
        on_answers: Callable[[list[Response] | Failure | None], object],
    ) -> Crossing:
        """Stream the answers to ``request`` from the reactor thread."""
        return Crossing(self._bridge, self._dispatcher, self._buffers, request, timeout_s, on_answers)


class _Part:
    """One answer of a stream, on its way to the client."""

    __slots__ = ("crossing", "encode", "response")

    def __init__(self, response: Response, crossing: Crossing, encode: PartResponses) -> None:
        self.response = response
        self.crossing = crossing
        self.encode = encode


# What goes out: an answer with a request's place in the window (None for the end of a stream), or a part.
_Outgoing: TypeAlias = "asyncio.Future[Response | None] | _Part"


class _CallStream:
    """One Call under way."""

    def __init__(
        self,
        servicer: Servicer,
        context: Any,
        window: Window[_Outgoing],
        headers: Headers,
        caller: Caller,
    ) -> None:
        self._servicer = servicer
        self._caller = caller
        self._headers = headers
        self._metadata: Headers = ()  # those of all answers, as far as they are bounded
        self._context = context
        self._window = window
        self._in_flight: dict[asyncio.Future[Response | None], Request] = {}
        self._outgoing: deque[_Outgoing] = deque()
        self._streamed: Streamed[_Outgoing] = Streamed(window, self._outgoing)
        self._crossings: dict[asyncio.Future[Response | None], Crossing] = {}  # by what ends each
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._task: Any = None  # that of ``run``
        self._flooded = False
        self._draining = False
        self._refused: Request | None = None  # the first that came too late

    async def run(self) -> None:
        """
        Answer until the client has half-closed and got every answer, or something fails.

        When the gateway is about to stop, the stream fails once everything that came in time is answered.
        """
        self._task = asyncio.current_task()
        reader = asyncio.get_running_loop().create_task(self._read())
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            await self._answer_all(reader)
        except asyncio.CancelledError:
            if not self._flooded:
                raise
            self._task.uncancel()
            self._drop(reader)
            await _abort(self._context, Overloaded(UNREAD), None)
        finally:
            self._drop(reader)

    def _drop(self, reader: asyncio.Task[None]) -> None:
        reader.cancel()
        self._outgoing.clear()
        for answer in self._in_flight:
            answer.cancel()
        self._in_flight.clear()
        for crossing in self._crossings.values():
            crossing.close()
        self._crossings.clear()

    async def _answer_all(self, reader: asyncio.Task[None]) -> None:
        while True:
            while self._outgoing:
                following = self._outgoing.popleft()
                if isinstance(following, _Part):
                    await self._write_part(following)
                else:
                    await self._write(following)
                    self._window.written()
                self._room.set()
            if reader.done():
                await self._check(reader)
            if self._window.idle:
                if self._refused is not None:
                    await self._fail(Draining(), self._refused)
                if reader.done():
                    return
                if self._draining:
                    await _abort(self._context, Draining(), None)
            await self._wake.wait()
            self._wake.clear()

    def drain(self) -> None:
        """Take no more requests than have arrived."""
        self._draining = True
        self._wake.set()

    async def _read(self) -> None:
        context, window = self._context, self._window
        while not self._draining:
            while not window.has_room:
                self._room.clear()
                await self._room.wait()
            message = await context.read()
            if message is grpc.aio.EOF:
                return
            if looks_compressed(message):
                message = await self._servicer.inflated(message)
            request = completed(wire.decode_request(message), self._headers, self._caller)
            answer: Any = self._servicer.dispatch(request, context.time_remaining(), True)
            self._in_flight[answer] = request
            answer.add_done_callback(partial(self._answered, window.admit()))

    def _answered(self, ticket: int, answer: Any) -> None:
        error = None if answer.cancelled() else answer.exception()
        if isinstance(error, EndpointStreams):
            self._stream(ticket, self._in_flight.pop(answer, None))
            return
        size = 0 if answer.cancelled() or error else len(answer.result().documents)
        self._outgoing.extend(self._window.answered(ticket, answer, size))
        self._streamed.advance()
        self._wake.set()
        if self._window.is_flooded and not self._flooded:
            self._flooded = True
            self._task.cancel()  # it waits for the client to read

    def _stream(self, ticket: int, request: Request | None) -> None:
        """Answer ``request``, None if the call has ended, with all that its endpoint streams."""
        if request is None:
            return
        end: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        self._in_flight[end] = request
        self._streamed.begin(ticket)

        def arrived(found: list[Response] | Failure | None) -> None:
            if isinstance(found, list):
                for each in found:
                    self._streamed.arrived(
                        ticket,
                        _Part(each, crossing, encode),
                        len(each.documents) + len(each.parameters or b""),
                    )
            else:
                if found is None:
                    end.set_result(None)
                else:
                    end.set_exception(found.value or RuntimeError("a failure without an exception"))
                    end.exception()  # it has been looked at, should nobody write it
                self._streamed.ended(ticket, end)
            self._wake.set()

        # Executors name each answer anew; a client knows its own name for the request.
        encode = PartResponses(request.request_id, request.endpoint)
        crossing = self._servicer.cross(request, self._context.time_remaining(), arrived)
        self._crossings[end] = crossing

    async def _write_part(self, part: _Part) -> None:
        self._streamed.left(len(part.response.documents) + len(part.response.parameters or b""))
        part.crossing.taken()
        await self._send(part.response, part.encode)

    async def _write(self, answer: asyncio.Future[Response | None]) -> None:
        request = self._in_flight.pop(answer)
        crossing = self._crossings.pop(answer, None)
        if crossing is not None:
            crossing.close()
        try:
            response = answer.result()
        except Draining:
            self._draining = True
            self._refused = self._refused or request
            return
        except (Exception, asyncio.CancelledError) as error:
            await self._fail(error, request)
        if response is not None:
            await self._send(response)

    async def _send(
        self, response: Response, encode: Callable[[Response], Content] = wire.encode_response
    ) -> None:
        if response.headers:
            self._collect(response.headers)
        await _write(self._context, bytes(encode(response)))

    def _collect(self, headers: Headers) -> None:
        """The call ends with the headers of all answers, for clients that read metadata only."""
        collected = self._servicer.forwarded.bounded(self._metadata + headers)
        if collected != self._metadata:
            self._metadata = collected
            self._context.set_trailing_metadata(as_metadata(collected))

    async def _fail(self, error: BaseException, request: Request) -> NoReturn:
        # Tells clients of the reference which of their requests failed.
        await _write(self._context, wire.encode_request_id(request.request_id))
        await _abort(self._context, error, request)

    async def _check(self, reader: asyncio.Task[None]) -> None:
        error = reader.exception()
        if error is not None:
            # Of an exception that leaves this method, gRPC would tell the client class and text.
            await _abort(self._context, error, None)


async def _write(context: Any, message: bytes) -> None:
    try:
        await context.write(message)
    except Exception as error:
        # A write fails only if the client has left; gRPC cancels this method a little later.
        log.debug("a client left during a write: {error!r}", error=error)
        raise asyncio.CancelledError from error


async def _abort(context: Any, error: BaseException, request: Request | None) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    code, details, metadata = final_status(error, request)
    # The headers of answers that were sent stay: gRPC's server would replace them by those of the error.
    await context.abort(grpc.StatusCode[code], details, (*(context.trailing_metadata() or ()), *metadata))
    raise AssertionError("abort returned")
