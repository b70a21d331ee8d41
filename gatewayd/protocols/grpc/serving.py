"""
The gateway's gRPC methods on a server of our own: the same as ``servicer.py``, by callbacks.

A request crosses to the reactor thread and its answer comes back; no task or future of asyncio is needed for
it. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gatewayd.access.authenticator import Question
from gatewayd.access.control import DOCS, DRY_RUN, STATUS, AccessControl
from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.errors import BadRequest, GatewayError, RateLimited
from gatewayd.inflating import Damaged, inflated
from gatewayd.messages import methods, wire
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.headers import AllowList, Headers, as_metadata
from gatewayd.messages.request import Request, Response
from gatewayd.messages.rope import Content
from gatewayd.pb import JinaInfoProto
from gatewayd.protocols.backend import Dispatcher
from gatewayd.protocols.failures import failure_status
from gatewayd.protocols.grpc.crossing import Crossing
from gatewayd.protocols.grpc.documents import DocumentCall
from gatewayd.protocols.grpc.requests import (
    CountingDispatcher,
    completed,
    credentials_of,
    discovered,
    final_status,
    stream_settings,
)
from gatewayd.protocols.grpc.streaming import CallStream
from gatewayd.protocols.window import Window
from gatewayd.rpc.server import health
from gatewayd.rpc.server.call import ServerCall, Streaming, Unary
from gatewayd.rpc.server.reflecting import V1, V1_ALPHA
from gatewayd.streams import StreamingEndpoints
from gatewayd.tls.peer import names_of_der

T = TypeVar("T")

# The names by which rules know what the gateway answers itself.
_NAMED: Final = {methods.service_of(methods.DRY_RUN): DRY_RUN, methods.service_of(methods.STATUS): STATUS,
                 methods.service_of(methods.DISCOVERY): DOCS, V1: DOCS, V1_ALPHA: DOCS}  # fmt: skip


class CallServicer:
    """The methods of the gRPC port; the arguments are those of ``Servicer``."""

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
        self._prefetch = prefetch
        self._max_message_bytes = max_message_bytes
        self._unsent_bytes = max_unsent_bytes
        self._access = access
        self._endpoints = endpoints
        # What is being inflated is not counted in ``buffers`` yet.
        self._inflating = asyncio.Semaphore(2)
        self._streams: set[CallStream] = set()
        self.forwarded = AllowList() if forwarded is None else forwarded
        self._forwards = bool(self.forwarded)

    def methods(self, exposed: Iterable[str]) -> dict[str, Unary | Streaming]:
        """Those of the methods with paths in ``exposed``."""
        found: dict[str, Unary | Streaming] = {
            methods.STREAM: Streaming(self._call, ropes=True),
            methods.SINGLE: Unary(self._process_single_data, ropes=True),
            methods.STREAM_DOC: Streaming(self._stream_doc, ropes=True),
            methods.DRY_RUN: Unary(self._dry_run),
            methods.STATUS: Unary(self._info),
            methods.DISCOVERY: Unary(self._endpoint_discovery),
        }
        return {path: found[path] for path in exposed}

    def drain(self) -> None:
        """End each Call as soon as it has its answers: the gateway is about to stop."""
        for stream in tuple(self._streams):
            stream.drain()

    # -- who calls -----------------------------------------------------------------------------------

    @property
    def asks_who_calls(self) -> bool:
        return self._access is not None

    def identify(self, call: ServerCall) -> None:
        """Ask who calls before anything of the request is read; the call fails for those who may not."""
        access, path = self._access, call.head.path
        service = methods.service_of(path)
        if access is None or service == health.SERVICE:
            return
        name = _NAMED.get(service)
        try:
            certificate = partial(names_of_der, call.peer.certificate)
            found = access.identify(credentials_of(call.head.metadata, call.peer.peer, certificate, path))
        except Exception as error:
            self._fail(call, error, None)
            return
        if isinstance(found, Question):
            call.pause_reading()
            self._ask(call, partial(self._identified, call, name), access.ask, found)
        else:
            self._identified(call, name, found)

    def _identified(self, call: ServerCall, name: str | None, found: Caller | Failure) -> None:
        try:
            if isinstance(found, Failure):
                found.raiseException()
            assert isinstance(found, Caller)
            if name is not None and self._access is not None:
                self._access.admit(found, name)
        except Exception as error:
            self._fail(call, error, None)
        else:
            call.caller = found
            call.cancel = None
            call.resume_reading()

    # -- one request, one answer ---------------------------------------------------------------------

    def _process_single_data(self, call: ServerCall, message: Content, compressed: bool) -> None:
        """Spec grpc.md, process_single_data."""
        if compressed:
            self.inflate(call, bytes(message), partial(self._dispatch_single, call))
        else:
            self._dispatch_single(call, message)

    def _dispatch_single(self, call: ServerCall, message: Content | Failure) -> None:
        request: Request | None = None
        try:
            if isinstance(message, Failure):
                message.raiseException()
            request = wire.decode_request(message)
            if self._forwards or call.caller is not None:
                headers = self.forwarded.of_request(call.head.metadata) if self._forwards else ()
                request = completed(request, headers, call.caller or ANONYMOUS)
        except Exception as error:
            self._fail(call, error, request)
            return
        done = partial(self._answer_single, call, request)
        call.cancel = self.dispatch(done, request, call.time_remaining())

    def _answer_single(self, call: ServerCall, request: Request, response: Response | Failure) -> None:
        try:
            if isinstance(response, Failure):
                response.raiseException()
            assert isinstance(response, Response)
            message = wire.encode_response(response)
        except Exception as error:
            self._fail(call, error, request)
            return
        call.respond(message, as_metadata(response.headers) if response.headers else ())

    # -- the other methods ---------------------------------------------------------------------------

    def _call(self, call: ServerCall) -> CallStream:
        """A stream of requests and their answers (spec grpc.md, Call)."""
        metadata = call.head.metadata
        ordered, prefetch = stream_settings(metadata, self._prefetch)
        headers: Headers = ()
        try:
            headers = self.forwarded.of_request(metadata) if self._forwards else ()
        except GatewayError as error:
            self._fail(call, error, None)
        return CallStream(self, call, Window(prefetch, ordered, self._unsent_bytes), headers, self._streams)

    def _stream_doc(self, call: ServerCall) -> DocumentCall:
        """One document in, and any number out (spec 34/streaming.md)."""
        headers: Headers = ()
        try:
            headers = self.forwarded.of_request(call.head.metadata) if self._forwards else ()
        except GatewayError as error:
            self._fail(call, error, None)
        return DocumentCall(self, call, headers)

    def _dry_run(self, call: ServerCall, _message: bytes, _compressed: bool) -> None:
        """A StatusProto; the call itself does not fail for a network error (spec grpc.md)."""

        def done(answer: Response | Failure) -> None:
            if not isinstance(answer, Failure):
                call.respond(b"")
            elif isinstance(answer.value, GatewayError) and not isinstance(answer.value, RateLimited):
                call.respond(failure_status(answer.value))
            else:
                self._fail(call, answer.value or RuntimeError(str(answer)), None)

        self._ask(call, done, self._engine.dry_run, call.caller or ANONYMOUS)

    def _info(self, call: ServerCall, _message: bytes, _compressed: bool) -> None:
        """A JinaInfoProto (spec status.md)."""
        try:
            call.respond(JinaInfoProto(**self._status()).SerializeToString())
        except Exception as error:
            self._fail(call, error, None)

    def _endpoint_discovery(self, call: ServerCall, _message: bytes, _compressed: bool) -> None:
        """An EndpointsProto (spec 34/wire.md)."""

        def done(answer: bytes | Failure) -> None:
            if not isinstance(answer, Failure):
                call.respond(answer)
            else:
                self._fail(call, answer.value or RuntimeError(str(answer)), None)

        self._ask(call, done, discovered, self._endpoints)

    # -- for all of them -----------------------------------------------------------------------------

    def dispatch(
        self,
        done: Callable[[Response | Failure], object],
        request: Request,
        timeout_s: float | None,
        may_stream: bool = False,
    ) -> Callable[[], None]:
        """
        Dispatch ``request`` on the reactor thread, and call back; what is returned cancels it.

        Fails with EndpointStreams as ``CountingDispatcher`` does.
        """
        return self._bridge.ask_reactor(done, self._engine.dispatch, request, timeout_s, may_stream).cancel

    def cross(
        self,
        request: Request,
        timeout_s: float | None,
        on_answers: Callable[[list[Response] | Failure | None], object],
    ) -> Crossing:
        """Stream the answers to ``request`` from the reactor thread."""
        return Crossing(self._bridge, self._dispatcher, self._buffers, request, timeout_s, on_answers)

    def inflate(self, call: ServerCall, message: bytes, done: Callable[[bytes | Failure], object]) -> None:
        """Inflate a compressed message, and call back unless the call is over by then."""

        async def work() -> None:
            try:
                found: bytes | Failure = await self._inflated(message)
            except Exception as error:
                found = Failure(error)
            if not call.over:
                call.cancel = None
                done(found)

        task = self._bridge.spawn_on_loop(work())
        call.cancel = task.cancel

    async def _inflated(self, message: bytes) -> bytes:
        offload = partial(asyncio.get_running_loop().run_in_executor, None)
        async with self._inflating:
            try:
                return await inflated(message, self._max_message_bytes, lambda count: None, offload)
            except Damaged as error:
                raise BadRequest(f"the message cannot be decompressed: {error}") from error

    def _ask(
        self,
        call: ServerCall,
        done: Callable[[T | Failure], object],
        start: Callable[..., Deferred[T]],
        *args: object,
    ) -> None:
        call.cancel = self._bridge.ask_reactor(done, start, *args).cancel

    def _fail(self, call: ServerCall, error: BaseException, request: Request | None) -> None:
        call.cancel = None
        call.fail(*final_status(error, request))
