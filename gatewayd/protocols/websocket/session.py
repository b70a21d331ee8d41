# mypy: disable-error-code="no-untyped-call"
"""
The WebSocket protocol: one connection, many requests under way.

Each data frame is a request, answered in the order of completion. A ``Window`` bounds what is under
way. While it is full, or while the client does not read what is sent to it, nothing more is read:
the socket is paused, and frames that were received already stay unparsed, so that a client can make
the gateway hold no more than its window and one read.

    open ── end of input, or drain() ──► ending ── nothing under way ──► close frame ──► closed
      └──────────── error ──────────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Coroutine
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.logger import Logger
from zope.interface import implementer

from gatewayd.errors import (
    Draining,
    ExecutorNetworkError,
    GatewayError,
    InternalError,
    Overloaded,
    UnsupportedFrame,
    UpgradeForbidden,
    codes_for,
)
from gatewayd.offload import is_small
from gatewayd.protocols.failures import explained, failure_status
from gatewayd.protocols.websocket.deflate import deflated
from gatewayd.protocols.websocket.errors import (
    NORMAL_CLOSURE,
    CloseFrame,
    encode_dry_run_error,
    encode_error,
)
from gatewayd.protocols.websocket.frames import JSON_FRAMES, negotiate
from gatewayd.protocols.window import Window

if TYPE_CHECKING:
    from gatewayd.protocols.websocket.listener import WebSocketListener

DRY_RUN: Final = "/dry_run"
PATHS: Final = ("/", DRY_RUN)

_COMPRESSED: Final = 4  # RSV1

# How long a client that broke the rules may take to answer our close frame, and any client to end the
# connection when we have.
_PATIENCE_S: Final = 2.0

log = Logger()


@implementer(IPushProducer)
class WebSocketSession(WebSocketServerProtocol):
    """
    One connection.

    The transport takes it for the producer of what is written, and so tells it when the client does
    not keep up (``pauseProducing``).
    """

    factory: WebSocketListener
    transport: Any
    # Copied by Autobahn from the factory's options.
    autoPingTimeout: float
    closeHandshakeTimeout: float

    def __init__(self) -> None:
        super().__init__()
        self._frames = JSON_FRAMES
        self._trial = False  # whether this is /dry_run
        self._window: Window[bytes] = Window(1)
        self._work: set[Deferred[None]] = set()
        self._message = BytesIO()
        self._unwritten = 0  # answers handed to a transport that is full
        self._client_behind = False
        self._heard = False  # whether anything came since the last look
        self._paused = False
        self._consuming = False
        self._end: CloseFrame | None = None  # what to end with
        self._descriptor = -1
        self._patience_s = _PATIENCE_S
        self._dropped = False
        self._late: Any = None  # an IDelayedCall

    # -- told by Autobahn -----------------------------------------------------------------------------

    def onConnect(self, request: ConnectionRequest) -> str | None:
        if request.path not in PATHS:
            refusal = UpgradeForbidden()
            raise ConnectionDeny(codes_for(refusal).http, str(refusal))
        self._trial = request.path == DRY_RUN
        self._frames, confirmed = negotiate(request.protocols)
        self._window = Window(self.factory.prefetch)
        return confirmed

    def onOpen(self) -> None:
        # The HTTP connection this was, until the upgrade, had registered itself.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)
        self._descriptor = self.transport.fileno()
        self.factory.connections.opened(self)
        if self._trial:
            self._start(self._try_out())

    def onMessageBegin(self, isBinary: bool) -> None:
        super().onMessageBegin(isBinary)
        self._message = BytesIO()

    def onMessageFrameData(self, payload: bytes) -> None:
        # Autobahn keeps a list of pieces; many tiny fragments make one far larger than the message.
        if self.failedByMe:
            return
        if self.factory.backend.buffers.take(len(payload)):
            self._message.write(payload)
        else:
            self._close_for(Overloaded(self.factory.backend.buffers.full()))

    def onMessageEnd(self) -> None:
        self.message_data = []
        message = self._take_message()
        if not self.failedByMe:
            self.onMessage(message, self.message_is_binary)

    def _take_message(self) -> bytes:
        """What has come of the current message, which then counts as held no more."""
        message, self._message = self._message.getvalue(), BytesIO()
        self.factory.backend.buffers.give_back(len(message))
        return message

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._end is not None or self._trial or self.state != self.STATE_OPEN:
            return
        if isBinary != self._frames.binary:
            self._close_for(UnsupportedFrame(self._frames.name, binary=self._frames.binary))
        elif self._frames.ends_input(payload):
            self._end = NORMAL_CLOSURE
            self._settle()
        else:
            self._start(self._exchange(self._window.admit(), payload))
            self._settle()

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        done = super().onCloseFrame(code, reasonRaw)
        self._abandon()
        return done

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self._abandon()
        if self._late is not None and self._late.active():
            self._late.cancel()
        self.factory.hangups.unwatch(self._descriptor)
        self.factory.connections.closed(self)

    def _fail_connection(self, *code_and_reason: Any) -> None:
        # Autobahn's, for clients that break the rules: what they announced may never come.
        self.closeHandshakeTimeout = min(self.closeHandshakeTimeout, _PATIENCE_S)
        super()._fail_connection(*code_and_reason)

    def _closeConnection(self, abort: bool = False) -> None:
        # Autobahn's, which resets the connection in some cases, and our close frame would be lost on its
        # way. So this side is closed when all is written, and what the client still sends is dropped.
        self._dropped = True
        if self._patience_s <= 0:
            self.transport.abortConnection()
            return
        self._late = self.factory.reactor.callLater(self._patience_s, self.transport.abortConnection)
        self._read_on()
        if ISSLTransport.providedBy(self.transport):  # TLS has no half-close
            self.transport.loseConnection()
        else:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def onAutoPingTimeout(self) -> None:
        # While reading is paused, the pong may lie among what is not being read; and within a large
        # frame that arrives slowly no client can send one.
        if self._paused or self._heard:
            self._heard = False
            self.autoPingTimeoutCall = self.factory.reactor.callLater(
                self.autoPingTimeout, self.onAutoPingTimeout
            )
        else:
            super().onAutoPingTimeout()

    def dataReceived(self, data: bytes) -> None:
        # Autobahn's own formats and colours a debug line, shown or not; so does its sendData, where
        # that was a third of the cost of an answer.
        self._heard = True
        if not self._dropped:
            self._dataReceived(data)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        self.transport.write(data)

    def consumeData(self) -> None:
        self._consuming = True
        try:
            super().consumeData()
        finally:
            self._consuming = False

    def processData(self) -> bool:
        return not self._paused and bool(super().processData())

    # -- told by the transport ------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """What was written waits for the client to read."""
        self._client_behind = True
        self._settle()

    def resumeProducing(self) -> None:
        """The client has caught up."""
        self._client_behind = False
        self._settle()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._abandon()

    # -- told by the factory --------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no more requests; close when those under way are answered."""
        self._end = self._end or encode_error(Draining())
        self._settle()

    def close_now(self) -> None:
        """Close without waiting for answers."""
        self._close_for(Draining())

    def abort(self) -> None:
        """End the connection without a word, as its client did or because it is late."""
        self._patience_s = 0.0
        if self._dropped:
            self.transport.abortConnection()
        else:
            self.dropConnection(abort=True)

    # -- requests -------------------------------------------------------------------------------------

    def _start(self, coroutine: Coroutine[Deferred[Any], Any, None]) -> None:
        work = Deferred.fromCoroutine(coroutine)
        if not work.called:
            self._work.add(work)
            work.addBoth(self._worked, work)

    def _worked(self, result: object, work: Deferred[None]) -> object:
        self._work.discard(work)
        return result

    async def _exchange(self, ticket: int, payload: bytes) -> None:
        """One request from its frame to its answer's."""
        backend, frames = self.factory.backend, self._frames
        backend.buffers.take(len(payload))  # there is room: a moment ago the message held as much
        try:
            if frames.slow and not is_small(len(payload)):
                request = await backend.offload(frames.decode, payload)
            else:
                request = frames.decode(payload)
            response = await backend.dispatcher.dispatch(request)
            if frames.slow and not is_small(len(response.documents)):
                answer = await backend.offload(frames.encode, response)
            else:
                answer = frames.encode(response)
            compressed = await self._deflated(answer)
        except Exception as error:
            self._close_for(self._explained(error))  # goes nowhere when it was the client who left
        else:
            for _ in self._window.answered(ticket, answer):
                self.send_payload(answer, frames.binary, compressed)
                self._unwritten += 1
            self._settle()
        finally:
            backend.buffers.give_back(len(payload))

    async def _deflated(self, payload: bytes) -> bytes | None:
        """``payload`` compressed, None where it is to go out as it is."""
        agreed = self._perMessageCompress
        if agreed is None or not 0 < self.factory.compress_above_bytes <= len(payload):
            return None
        if is_small(len(payload)):
            return deflated(payload, agreed.server_max_window_bits)
        found: bytes | None = await self.factory.backend.offload(
            deflated, payload, agreed.server_max_window_bits
        )
        return found

    async def _try_out(self) -> None:
        """The whole conversation of /dry_run."""
        status = b""
        try:
            await self.factory.backend.dispatcher.dry_run()
        except ExecutorNetworkError as error:
            self._close(encode_dry_run_error(error))
            return
        except GatewayError as error:
            status = failure_status(error)
        except Exception as error:
            self._close_for(self._explained(error))
            return
        self.send_payload(self._frames.encode_status(status), self._frames.binary)
        self._close(NORMAL_CLOSURE)

    def send_payload(self, payload: bytes, binary: bool, compressed: bytes | None = None) -> None:
        """
        Send one message in one frame; ``compressed`` goes in its place if there is such a thing.

        Autobahn's own sendMessage would hold answers to the limit that is for clients' messages.
        """
        if self.state == self.STATE_OPEN:
            opcode = self.MESSAGE_TYPE_BINARY if binary else self.MESSAGE_TYPE_TEXT
            if compressed is None:
                self.sendFrame(opcode, payload)
            else:
                self.sendFrame(opcode, compressed, rsv=_COMPRESSED)

    # -- what follows from all that -------------------------------------------------------------------

    def _settle(self) -> None:
        """Give back the places of what was written; then close, stop reading or read on."""
        if self.state != self.STATE_OPEN:
            return
        if self._unwritten and not self._client_behind:
            written, self._unwritten = self._unwritten, 0
            self._window.written(written)
        if self._end is not None and self._window.idle and not self._trial:
            self._close(self._end)
        elif self._window.has_room and not self._client_behind:
            self._read_on()
        elif not self._paused:
            self._paused = True
            self.transport.pauseProducing()
            self.factory.hangups.watch(self._descriptor, self.abort)

    def _read_on(self) -> None:
        if not self._paused:
            return
        self._paused = False
        self.factory.hangups.unwatch(self._descriptor)
        self.transport.resumeProducing()
        if self.data and not self._consuming:
            self.consumeData()

    def _explained(self, error: Exception) -> GatewayError:
        public = explained(error)
        if isinstance(public, InternalError):
            log.failure("a request over WebSocket failed")
        return public

    def _close_for(self, error: GatewayError) -> None:
        self._close(encode_error(error))

    def _close(self, end: CloseFrame) -> None:
        """Send a close frame, and give up on what is under way."""
        if self.state != self.STATE_OPEN:
            return
        self.failedByMe = True  # Autobahn drops the data of further frames as they arrive
        self.sendCloseFrame(end.code, end.reason)
        self._abandon()
        self._read_on()  # or the client's own close frame would never be seen

    def _abandon(self) -> None:
        """Cancel what is under way: nobody will read the answers."""
        self._take_message()
        work, self._work = self._work, set()
        for each in work:
            each.cancel()
