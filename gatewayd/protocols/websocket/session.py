# mypy: disable-error-code="no-untyped-call"
"""
A WebSocket connection: what Autobahn and the transport report goes to a ``Conversation``, and what that
decides is done here.

Autobahn parses frames and keeps RFC 6455. While reading is paused, the socket is not read, and frames that
were received already stay unparsed. What holds many frames is parsed in turns of the reactor, so that other
connections have theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import attrs
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd.bounded_log import BoundedLogger
from gatewayd.errors import (
    BadRequest,
    GatewayError,
    InternalError,
    Overloaded,
    RateLimited,
    TooManyFrames,
    TooSlow,
    UpgradeForbidden,
)
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.generations import Generation
from gatewayd.messages.headers import Headers
from gatewayd.messages.parts import PartResponses
from gatewayd.messages.request import Request, Response, content_bytes
from gatewayd.messages.rope import Content
from gatewayd.offload import here_or_offloaded, is_small
from gatewayd.protocols.arrival import Arrival
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.decoding import decoded_in_room
from gatewayd.protocols.failures import explained
from gatewayd.protocols.http.answer import JSON, head
from gatewayd.protocols.told import told
from gatewayd.protocols.websocket.conversation import (
    CANCEL_REQUESTS,
    PAUSE_READING,
    RESUME_READING,
    Actions,
    Close,
    Conversation,
    Dispatch,
    SendMessage,
)
from gatewayd.protocols.websocket.deflate import deflated
from gatewayd.protocols.websocket.frames import JSON_FRAMES, Frames, negotiate
from gatewayd.protocols.websocket.pace import Pace
from gatewayd.protocols.websocket.rest import UNHEARD, kept_at_rest, with_rest
from gatewayd.protocols.websocket.short_frames import head as head_of
from gatewayd.protocols.websocket.short_frames import whole_message
from gatewayd.streams import TOGETHER

if TYPE_CHECKING:
    from gatewayd.protocols.websocket.listener import WebSocketListener

DRY_RUN: Final = "/dry_run"
ORDER_PARAMETER: Final = "results_in_order"

_FLAGS: Final = {"": True, "true": True, "1": True, "false": False, "0": False}

_COMPRESSED: Final = 4  # RSV1
_PONG: Final = 10

# What Autobahn gets at once, but for the rest of a large frame: it copies all that it has for each frame.
_PIECE_BYTES: Final = 1024
# Frames that are parsed in one turn of the reactor, and those of one piece more.
_TURN_FRAMES: Final = 64

# How long a client that broke the rules may take to answer our close frame, and any client to end the
# connection after we have ended our side of it.
_PATIENCE_S: Final = 2.0

log = BoundedLogger()


class AutobahnLog(BoundedLogger):
    """Autobahn's lines about one connection, without the connection: observers may keep an event."""

    def __get__(self, instance: object, owner: object = None) -> AutobahnLog:
        return self

    def debug(self, *_: object, **__: object) -> None:
        """Autobahn logs all that it does."""

    trace = debug


@with_rest
@implementer(IPushProducer)
class WebSocketSession(WebSocketServerProtocol):
    """
    One connection. Reactor thread only.

    It is also the producer of what the transport writes, which therefore reports by ``pauseProducing`` that
    the client does not keep up.
    """

    factory: WebSocketListener
    transport: Any
    log: Any = AutobahnLog("autobahn.websocket")
    caller: Caller = ANONYMOUS  # of the whole connection
    # Copied by Autobahn from the factory's options.
    autoPingTimeout: float
    maxMessagePayloadSize: int
    closeHandshakeTimeout: float

    # Instances have these only while they differ: the memory of idle connections is theirs times thousands.
    _headers: Headers = ()  # of the handshake, for executors
    _received_since_ping = False
    _is_consuming = False
    _turn_frames = 0
    _next_turn: Any = None  # an IDelayedCall: the socket is not read until then
    _patience_s = _PATIENCE_S
    _is_dropped = False
    _waiting: Sequence[Deferred[None]] = ()  # streams, for the client to read
    _unsent_bytes = 0  # of answers, as far as ``buffers`` know
    _abort_call: Any = None  # an IDelayedCall
    # From the handshake on:
    _pace: Pace | None = None
    _descriptor = -1
    _arrival: Arrival | None = None  # of a message

    def __init__(self) -> None:
        super().__init__()
        self.is_open = self.is_closed = UNHEARD
        self._conversation = Conversation(JSON_FRAMES, 1)
        self._requests: set[Deferred[None]] = set()
        self._dispatched: dict[int, Deferred[Any]] = {}  # by ticket, those of which nothing else is under way
        self._message = BytesIO()  # what has come of the current message
        self._ahead = bytearray()  # what Autobahn has not got yet

    def _act(self, actions: Actions) -> None:
        self._take(actions)
        unsent = self._conversation.unsent_bytes
        if unsent != self._unsent_bytes:
            self._count_unsent(unsent)

    def _count_unsent(self, unsent: int) -> None:
        """Answers that wait for the client count in the buffers, as its requests do."""
        buffers = self.factory.backend.buffers
        buffers.give_back(self._unsent_bytes)
        self._unsent_bytes = unsent
        if not buffers.take(unsent):
            self._unsent_bytes = 0
            self._act(self._conversation.failed(Overloaded(buffers.full())))

    def _take(self, actions: Actions) -> None:
        for action in actions:
            if isinstance(action, Dispatch):
                self._exchange(action.ticket, action.payload)
            elif isinstance(action, SendMessage):
                self._send_message(action)
                if action.is_last and (following := self._conversation.sent()):
                    self._take(following)
            elif action is PAUSE_READING:
                self.transport.pauseProducing()
                if self._arrival is not None:
                    self._arrival.pause()
                self.factory.hangups.watch(self._descriptor, self.abort)
            elif action is RESUME_READING:
                self._resume_reading()
            elif isinstance(action, Close):
                self._send_close(action)
            elif action is CANCEL_REQUESTS:
                self._cancel_requests()
            else:
                self._start(self._dry_run())

    # -- called by Autobahn ---------------------------------------------------------------------------

    def onConnect(self, request: ConnectionRequest) -> str | None:
        if request.path not in self.factory.paths:
            refusal = UpgradeForbidden()
            raise ConnectionDeny(told(refusal, "websocket").http, str(refusal))
        try:
            self._headers = self.factory.backend.forwarded.of_request(request.headers.items())
        except GatewayError as error:
            raise ConnectionDeny(told(error, "websocket").http, str(error)) from error
        if not self.factory.is_settled:
            self.factory.learn()
        frames, confirmed = negotiate(request.protocols, self.factory.json_frames)
        try:
            ordered = _wants_order(self.http_request_uri)
        except BadRequest as mistake:
            raise ConnectionDeny(told(mistake, "websocket").http, str(mistake)) from mistake
        self._conversation = self._converse(frames, ordered=ordered, is_dry_run=request.path == DRY_RUN)
        return confirmed

    def _converse(self, frames: Frames, *, ordered: bool, is_dry_run: bool) -> Conversation:
        unsent_bytes = self.factory.backend.gateway.max_unsent_bytes
        return Conversation(
            frames, self.factory.prefetch, ordered=ordered, is_dry_run=is_dry_run, unsent_bytes=unsent_bytes
        )

    def onOpen(self) -> None:
        # The HTTP connection this was, until the upgrade, had registered itself.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)
        self._arrival = Arrival(self.factory.arrival, self.factory.reactor, self._message_is_late)
        self._pace = Pace(self.factory.most_frames_per_s, self.factory.reactor.seconds)
        self._descriptor = self.transport.fileno()
        self.__dict__ = kept_at_rest(vars(self))
        self.factory.connections.opened(self)
        self._act(self._conversation.opened())

    def onFrameBegin(self) -> None:
        super().onFrameBegin()
        self._turn_frames += 1
        frame = self.current_frame
        if self.failedByMe:
            self._count_useless()
        elif self._pace is not None:
            try:
                self._pace.frame(frame.opcode, frame.length, fin=frame.fin)
            except TooManyFrames as error:
                self._flooded(error)

    def _count_useless(self) -> None:
        """One more frame that nothing is done for."""
        if self._pace is not None:
            try:
                self._pace.count()
            except TooManyFrames as error:
                self._flooded(error)

    def _flooded(self, error: TooManyFrames) -> None:
        """Close, and parse nothing that still comes."""
        self._act(self._conversation.failed(error))
        self.wasNotCleanReason = str(error)
        self.dropConnection(abort=False)

    def processControlFrame(self) -> bool:
        # A pong that answers no ping is legal, and means nothing; Autobahn would log it.
        if self.current_frame.opcode == _PONG and b"".join(self.control_frame_data) != self.autoPingPending:
            self.control_frame_data = []
            self._count_useless()
            return True
        return bool(super().processControlFrame())

    def onMessageFrameData(self, payload: bytes) -> None:
        # Autobahn keeps a list of pieces; many tiny fragments make one far larger than the message.
        if self.failedByMe:
            return
        buffers = self.factory.backend.buffers
        if buffers.take(len(payload)):
            self._message.write(payload)
        else:
            self._act(self._conversation.failed(Overloaded(buffers.full())))

    def onMessageEnd(self) -> None:
        self.message_data = []
        if self._arrival is not None:
            self._arrival.ended()
        message = self._take_message()
        if not self.failedByMe:
            self.onMessage(message, self.message_is_binary)

    def _message_is_late(self) -> None:
        if self.state == self.STATE_OPEN and not self.failedByMe:
            self.closeHandshakeTimeout = min(self.closeHandshakeTimeout, _PATIENCE_S)
            self._act(self._conversation.failed(TooSlow()))

    def _take_message(self) -> bytes:
        """The current message as far as it came, which then no longer counts as held."""
        message, self._message = self._message.getvalue(), BytesIO()
        self.factory.backend.buffers.give_back(len(message))
        return message

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.state != self.STATE_OPEN:
            return
        actions = self._conversation.message_received(payload, is_binary=isBinary)
        if actions:
            self._act(actions)
        else:
            self._count_useless()

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        done = super().onCloseFrame(code, reasonRaw)
        self._act(self._conversation.ended())
        return done

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self._act(self._conversation.ended())
        if self._abort_call is not None and self._abort_call.active():
            self._abort_call.cancel()
        self.factory.hangups.unwatch(self._descriptor)
        self.factory.connections.closed(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._ahead.clear()
        if self._arrival is not None:
            self._arrival.close()
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self.transport.unregisterProducer()
        if self.closeHandshakeTimeoutCall is not None:
            self.closeHandshakeTimeoutCall.cancel()
            self.closeHandshakeTimeoutCall = None

    def _fail_connection(self, *code_and_reason: Any) -> None:
        # Autobahn's, for clients that break the rules: what they announced may never come.
        self.closeHandshakeTimeout = min(self.closeHandshakeTimeout, _PATIENCE_S)
        super()._fail_connection(*code_and_reason)
        self._act(self._conversation.ended())

    def _closeConnection(self, abort: bool = False) -> None:
        # Autobahn's, which resets the connection in some cases, and our close frame would be lost on its
        # way. So this side is closed when all is written, and what the client still sends is dropped.
        self._is_dropped = True
        if self._patience_s <= 0:
            self.transport.abortConnection()
            return
        self._abort_call = self.factory.reactor.callLater(self._patience_s, self.transport.abortConnection)
        self._act(self._conversation.ended())
        if ISSLTransport.providedBy(self.transport):  # TLS has no half-close
            self.transport.loseConnection()
        else:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def onAutoPingTimeout(self) -> None:
        # While reading is paused, the pong may lie among what is not being read; and within a large
        # frame that arrives slowly no client can send one.
        if self._received_since_ping or not self._conversation.is_reading:
            self._received_since_ping = False
            self.autoPingTimeoutCall = self.factory.reactor.callLater(
                self.autoPingTimeout, self.onAutoPingTimeout
            )
        else:
            super().onAutoPingTimeout()

    def dataReceived(self, data: bytes) -> None:
        # Autobahn's own formats and colours a debug line, shown or not; so does its sendData, where
        # that was a third of the cost of an answer.
        self._received_since_ping = True
        if self._is_dropped:
            return
        if not self._ahead and (self._pace is None or len(data) <= max(_PIECE_BYTES, self._missing_bytes())):
            short = self._short_message(data)
            if short is not None:
                self.message_is_binary = short[1]
                self.transport.input_complete()
                self.onMessage(*short)
                return
            self._dataReceived(data)
        else:
            self._ahead += data
            if self._next_turn is None and not self._is_consuming:
                self._parse_ahead()
        if self._arrival is None:
            return
        if self.inside_message:
            self._arrival.received(len(data))
        elif self.current_frame is None and not self.data and not self._ahead:
            self.transport.input_complete()

    def _short_message(self, data: bytes) -> tuple[bytes, bool] | None:
        """A message that needs nothing of Autobahn's: between frames, and with no ping to be answered."""
        if (
            self._arrival is None
            or self.current_frame is not None
            or self.data
            or self.inside_message
            or self.failedByMe
            or self.autoPingTimeoutCall is not None
            or self.state != self.STATE_OPEN
            or not self._conversation.is_reading
        ):
            return None
        found = whole_message(data, self.maxMessagePayloadSize)
        # Without room it is refused as any other.
        if found is None or not self.factory.backend.buffers.has_room(len(found[0])):
            return None
        self._turn_frames += 1
        return found

    def _missing_bytes(self) -> int:
        """How much is to come of the frame that has begun."""
        frame = self.current_frame
        return 0 if frame is None else int(frame.length - self.current_frame_masker.pointer())

    def _parse_ahead(self) -> None:
        """Parse what is there while reading is not paused, the frames of one turn at most."""
        self._turn_frames = 0
        while self._ahead and self._conversation.is_reading and not self._is_dropped:
            if self._turn_frames >= _TURN_FRAMES:
                self.transport.pauseProducing()
                self._next_turn = self.factory.reactor.callLater(0, self._take_turn)
                return
            size = max(_PIECE_BYTES, self._missing_bytes())
            piece = bytes(self._ahead[:size])
            del self._ahead[:size]
            self._dataReceived(piece)

    def _take_turn(self) -> None:
        self._next_turn = None
        if self._conversation.is_reading:
            self._resume_reading()

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        self.transport.write(data)

    def sendHttpErrorResponse(
        self, code: int, reason: str, responseHeaders: Sequence[tuple[str, str]] | None = None
    ) -> None:
        # Autobahn's has no length, and repeats the client's own bytes in its status line.
        body = json.dumps({"detail": reason}).encode()
        given = (*self.factory.headers.items(), *(responseHeaders or ()))
        headers = "".join(f"{name}: {value}\r\n" for name, value in given).encode()
        self.sendData(b"".join((*head(code, JSON, len(body)), headers, b"Connection: close\r\n\r\n", body)))

    def consumeData(self) -> None:
        self._is_consuming = True
        try:
            super().consumeData()
        finally:
            self._is_consuming = False

    def processData(self) -> bool:
        return self._conversation.is_reading and bool(super().processData())

    # -- called by the transport ----------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """What was written waits for the client to read."""
        self._act(self._conversation.client_fell_behind())

    def resumeProducing(self) -> None:
        """The client has caught up."""
        self._act(self._conversation.client_caught_up())
        waiting, self._waiting = self._waiting, ()
        for stream in waiting:
            stream.callback(None)

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._act(self._conversation.ended())

    # -- called by the listener -----------------------------------------------------------------------

    def drain(self) -> None:
        """Take no more requests; close when those under way are answered."""
        self._act(self._conversation.drain())

    def close_now(self) -> None:
        """Close without waiting for answers."""
        self._act(self._conversation.close_now())

    def abort(self) -> None:
        """End the connection without a close frame, as its client did or because it is late."""
        self._patience_s = 0.0
        if self._is_dropped:
            self.transport.abortConnection()
        else:
            self.dropConnection(abort=True)

    # -- requests -------------------------------------------------------------------------------------

    def _start(self, coroutine: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        request = Deferred.fromCoroutine(coroutine)
        if not request.called:
            self._requests.add(request)
            request.addBoth(self._request_done, request)
        return request

    def _request_done(self, result: object, request: Deferred[None]) -> object:
        self._requests.discard(request)
        return result

    def _exchange(self, ticket: int, payload: bytes) -> None:
        """
        One request from its message to its answer's.

        By callbacks, because this is the hot path; with what may take a pool thread, by a coroutine.
        """
        if not self.factory.is_settled:
            self._learn()
        backend, frames, size = self.factory.backend, self._conversation.frames, len(payload)
        unknown = backend.streaming.unknown
        if unknown or self._perMessageCompress is not None or (frames.slow and not is_small(size)):
            self._start(self._exchange_in_turns(ticket, payload))
            return
        backend.buffers.take(size)  # there is room: a moment ago the message held as much
        request: Request | None = None
        try:
            request = self._completed(frames.decode(payload, backend.gateway.max_documents))
            if request.endpoint in self.factory.streaming:
                backend.buffers.give_back(size)
                self._start(self._stream(ticket, request))
                return
            work = self.factory.dispatcher.dispatch(request)
        except Exception as error:
            backend.buffers.give_back(size)
            self._failed(error, request)
            return
        self._dispatched[ticket] = work
        work.addBoth(self._answered, ticket, request, size)

    def _answered(self, result: Response | Failure, ticket: int, request: Request, size: int) -> None:
        frames = self._conversation.frames
        self._dispatched.pop(ticket, None)
        self.factory.backend.buffers.held_bytes -= size
        if isinstance(result, Failure):
            self._failed(result.value, request)
            return
        if frames.slow and not is_small(large := len(result.documents) + len(result.parameters or b"")):
            # Executors may answer faster than answers are encoded: those that wait for that are held, too.
            self._act(self._conversation.arrived(ticket, large))
            if self._conversation.is_open:
                self._start(self._encoded(ticket, request, result))
            return
        try:
            answer = frames.encode(result)
        except Exception as error:
            self._failed(error, request)
        else:
            self._act(self._conversation.answered(ticket, answer))

    def _failed(self, error: BaseException | None, request: Request | None) -> None:
        request_id = "" if request is None else request.request_id
        public = explained(error or RuntimeError("a failure without an exception"), request_id)
        if isinstance(public, InternalError):
            log.failure(
                "request {request_id} over WebSocket failed",
                Failure(error) if error is not None else None,
                request_id=request_id or "without an id",
            )
        self._act(self._conversation.failed(public))

    async def _encoded(self, ticket: int, request: Request, response: Response) -> None:
        """The end of an exchange whose answer is large."""
        encode, size = self._conversation.frames.encode, content_bytes(response)
        try:
            answer = await here_or_offloaded(self.factory.backend.offload, size, encode, response)
        except Exception as error:
            self._failed(error, request)
        else:
            self._act(self._conversation.answered(ticket, answer))

    async def _exchange_in_turns(self, ticket: int, payload: bytes) -> None:
        """
        As ``_exchange``, where compressing, or a large message of JSON, may take a pool thread, and where it
        is not known yet what streams.
        """
        backend, frames = self.factory.backend, self._conversation.frames
        request: Request | None = None
        backend.buffers.take(len(payload))  # there is room: a moment ago the message held as much
        try:
            limit = backend.gateway.max_documents
            if backend.streaming.unknown and not frames.binary and not _is_of_first(backend):
                await backend.streaming.known(None, None)  # how the message is read depends on it
                self._learn()
                frames = self._conversation.frames
            if frames.slow:
                request = await decoded_in_room(backend, frames.decode, payload, limit)
                await self._until_known(request)
                if request.endpoint in self.factory.streaming:
                    await self._stream(ticket, self._completed(request))
                    return
                response = await self.factory.dispatcher.dispatch(self._completed(request))
                size = content_bytes(response)
                self._act(self._conversation.arrived(ticket, size))
                answer = await here_or_offloaded(backend.offload, size, frames.encode, response)
            else:
                request = self._completed(frames.decode(payload, limit))
                await self._until_known(request)
                if request.endpoint in self.factory.streaming:
                    await self._stream(ticket, request)
                    return
                answer = frames.encode(await self.factory.dispatcher.dispatch(request))
            agreed = self._perMessageCompress
            compressed = None if agreed is None else await self._deflated(answer, agreed)
        except Exception as error:
            self._failed(error, request)
        else:
            self._act(self._conversation.answered(ticket, answer, compressed))
        finally:
            backend.buffers.give_back(len(payload))

    async def _until_known(self, request: Request) -> None:
        """Wait until it is known whether ``request`` is answered with a stream."""
        if self.factory.backend.streaming.unknown:
            await self.factory.backend.streaming.known(request, None)
            self._learn()

    def _learn(self) -> None:
        """The generation of documents may have become known since the handshake."""
        self.factory.learn()
        if not self._conversation.frames.binary:
            self._conversation.frames = self.factory.json_frames

    async def _stream(self, ticket: int, request: Request) -> None:
        """
        A frame for each answer of a stream, then one without documents.

        Nothing is asked of executors while the client does not read.
        """
        try:
            stream = self.factory.dispatcher.stream(request)
        except Exception as error:
            self._failed(error, request)
            return
        try:
            encode = self._encoding_of_parts(request)
            failed = False
            while not failed and (response := await stream.receive()) is not None:
                for each in (response, *stream.more(TOGETHER)):
                    await self._send_part(each, encode)
                    if each.status:
                        failed = True  # its failure is the end of it
                        break
            end = self._conversation.frames.encode(Response(request.request_id, request.endpoint, b""))
        except Exception as error:
            self._failed(error, request)
        else:
            self._act(self._conversation.answered(ticket, end))
        finally:
            stream.cancel()

    def _encoding_of_parts(self, request: Request) -> Callable[[Response], Content]:
        """Executors name each answer anew; a client knows its own name for the request."""
        frames, parts = self._conversation.frames, PartResponses(request.request_id, request.endpoint)
        return parts if frames.binary else lambda response: frames.encode(parts.named(response))

    async def _send_part(self, response: Response, encode: Callable[[Response], Content]) -> None:
        size = len(response.documents) + len(response.parameters or b"")
        if self._conversation.frames.slow and not is_small(size):
            answer = bytes(await self.factory.backend.offload(encode, response))
        else:
            answer = bytes(encode(response))
        agreed = self._perMessageCompress
        compressed = None if agreed is None else await self._deflated(answer, agreed)
        if self._conversation.client_is_behind:
            await self._until_read()
        self._act(self._conversation.streamed(answer, compressed))
        if self._conversation.client_is_behind:
            await self._until_read()

    async def _until_read(self) -> None:
        while self._conversation.client_is_behind and self._conversation.is_open:
            waiting: Deferred[None] = Deferred()
            self._waiting = (*self._waiting, waiting)
            try:
                await waiting
            finally:
                self._waiting = tuple(each for each in self._waiting if each is not waiting)

    def _completed(self, request: Request) -> Request:
        """``request`` with what is known of the connection."""
        if self._headers or self.factory.backend.access is not None:
            return attrs.evolve(request, headers=self._headers, caller=self.caller)
        return request

    async def _deflated(self, payload: bytes, agreed: Any) -> bytes | None:
        """``payload`` compressed as ``agreed`` on with the client, None where it goes out as it is."""
        if not 0 < self.factory.compress_above_bytes <= len(payload):
            return None
        offload = self.factory.backend.offload
        return await here_or_offloaded(
            offload, len(payload), deflated, payload, agreed.server_max_window_bits
        )

    async def _dry_run(self) -> None:
        """The whole conversation of /dry_run."""
        failure: GatewayError | None = None
        access = self.factory.backend.access
        try:
            if access is not None:
                # Not in the handshake: clients of WebSocket do not show what comes with a status.
                access.admit(self.caller, DRY_RUN)
        except GatewayError as error:
            self._act(self._conversation.failed(error))
            return
        try:
            await self.factory.dispatcher.dry_run(caller=self.caller)
        except RateLimited as error:
            self._act(self._conversation.failed(error))
            return
        except GatewayError as error:
            failure = error
        except Exception as error:
            self._failed(error, None)
            return
        self._act(self._conversation.dry_run_ended(failure))

    def _cancel_requests(self) -> None:
        """Let go of all that is under way: its answers could not be delivered."""
        self._take_message()
        requests, self._requests = self._requests, set()
        dispatched, self._dispatched = self._dispatched, {}
        for request in (*requests, *dispatched.values()):
            request.cancel()

    # -- writing and reading --------------------------------------------------------------------------

    def _send_message(self, message: SendMessage) -> None:
        # Autobahn's own sendMessage would hold answers to the limit that is for clients' messages.
        if self.state == self.STATE_OPEN:
            binary, payload = self._conversation.frames.binary, message.payload
            if message.compressed is None:
                self.transport.write(head_of(len(payload), binary=binary) + payload)
            else:
                opcode = self.MESSAGE_TYPE_BINARY if binary else self.MESSAGE_TYPE_TEXT
                self.sendFrame(opcode, message.compressed, rsv=_COMPRESSED)

    def _send_close(self, close: Close) -> None:
        if self.state == self.STATE_OPEN:
            self.failedByMe = True  # Autobahn drops the data of further frames as they arrive
            self.sendCloseFrame(close.frame.code, close.frame.reason)

    def _resume_reading(self) -> None:
        self.factory.hangups.unwatch(self._descriptor)
        if self._next_turn is not None:
            return
        self.transport.resumeProducing()
        if self._arrival is not None:
            self._arrival.resume()
        if not self._is_consuming:
            if self.data:
                self.consumeData()
            self._parse_ahead()


def _is_of_first(backend: Backend) -> bool:
    return backend.endpoints().generation is Generation.FIRST


def _wants_order(uri: str) -> bool:
    """Whether a handshake's URI asks for answers in the order of the requests. Raises BadRequest."""
    # Autobahn's own parameters leave out those without a value.
    values = parse_qs(uri.partition("?")[2], keep_blank_values=True).get(ORDER_PARAMETER, ["false"])
    wanted = _FLAGS.get(values[-1].lower())
    if wanted is None:
        raise BadRequest(f"{ORDER_PARAMETER} in the URL is true or false")
    return wanted
