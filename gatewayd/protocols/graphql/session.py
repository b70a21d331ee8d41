# mypy: disable-error-code="no-untyped-call"
"""
GraphQL over WebSocket at /graphql: subscriptions, and queries and mutations as well.

A connection is one of WebSocket as any other, with its bounds and its end; ``TransportWs`` decides what its
messages mean. Each operation pulls its answers from the engine: nothing more is asked of executors while the
client does not read, and the connection is not read either.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import attrs
from autobahn.twisted.websocket import WebSocketServerFactory
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from gatewayd.bounded_log import BoundedLogger
from gatewayd.errors import Draining, GatewayError, InternalError, InvalidQuery, Overloaded, UnsupportedFrame
from gatewayd.offload import is_small
from gatewayd.protocols.arrival import ArrivalLimits
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.connections import Connections
from gatewayd.protocols.failures import explained
from gatewayd.protocols.graphql.errors import encode_error as as_graphql
from gatewayd.protocols.graphql.request import GraphqlRequest, Sender
from gatewayd.protocols.graphql.transport_ws import (
    INIT_TIMEOUT,
    SUBPROTOCOL,
    Begin,
    Cancel,
    End,
    Reply,
    TransportWs,
    complete_message,
    error_message,
    next_message,
)
from gatewayd.protocols.hangups import HangUps
from gatewayd.protocols.told import told
from gatewayd.protocols.websocket.conversation import Actions, Conversation, Dispatch, SendMessage
from gatewayd.protocols.websocket.errors import CloseFrame, truncated
from gatewayd.protocols.websocket.frames import JSON_FRAMES
from gatewayd.protocols.websocket.rest import with_options
from gatewayd.protocols.websocket.session import WebSocketSession

if TYPE_CHECKING:
    from gatewayd.protocols.graphql.resource import GraphqlApi

log = BoundedLogger()

PATH: Final = b"/graphql"

_HANDSHAKE_S: Final = 10.0
# Messages are parsed on the reactor: larger ones, with many documents, are for POST.
_MOST_MESSAGE_BYTES: Final = 1 << 20
_NO_TICKET: Final = -1


class GraphqlConversation(Conversation):
    """As Conversation, where messages are no requests: operations take places, and there is one for each."""

    def __init__(self) -> None:
        # The window bounds nothing: TransportWs refuses operations, and one that waits is not to keep
        # the client's ``complete`` from being read.
        super().__init__(JSON_FRAMES, 0)

    def message_received(self, payload: bytes, *, is_binary: bool) -> Actions:
        if not self.is_open:
            return ()
        if is_binary:
            return self.failed(UnsupportedFrame(SUBPROTOCOL, binary=False))
        return (Dispatch(_NO_TICKET, payload),)

    @property
    def is_ending(self) -> bool:
        """Whether no further operations are begun."""
        return self._end is not None

    def begun(self) -> int:
        """An operation is under way, until its last message is ``answered``, or it is ``cancelled``."""
        return self._window.admit()

    def cancelled(self, ticket: int) -> Actions:
        """Nothing more is sent of it."""
        if not self.is_open:
            return ()
        self._window.answered(ticket, SendMessage(b""))
        self._window.written()
        return self._settle()

    def broken(self, end: End) -> Actions:
        """The client broke the protocol."""
        return self._close(CloseFrame(end.code, truncated(end.reason)))


@attrs.define(eq=False)
class _Operation:
    name: str
    ticket: int
    is_over: bool = False
    work: Deferred[None] | None = None


class GraphqlSession(WebSocketSession):
    """One connection. Reactor thread only."""

    factory: GraphqlListener  # type: ignore[assignment]  # with all that the base class asks of its own
    _late: Any = None  # an IDelayedCall, until connection_init

    def __init__(self) -> None:
        super().__init__()
        self._transport_ws = TransportWs(0)
        self._operations: dict[str, _Operation] = {}

    # -- called by Autobahn ---------------------------------------------------------------------------

    def onConnect(self, request: ConnectionRequest) -> str:
        backend = self.factory.backend
        try:
            if SUBPROTOCOL not in request.protocols:
                raise InvalidQuery(
                    f"GraphQL over WebSocket is spoken by the subprotocol {SUBPROTOCOL}, which the client "
                    "has to offer (graphql-ws is another, an older one)"
                )
            self._headers = backend.forwarded.of_request(request.headers.items())
        except GatewayError as error:
            raise ConnectionDeny(told(error, "graphql").http, str(error)) from error
        self._conversation: GraphqlConversation = GraphqlConversation()
        self._transport_ws = TransportWs(backend.gateway.graphql_max_operations)
        return SUBPROTOCOL

    def onOpen(self) -> None:
        super().onOpen()
        self._late = self.factory.reactor.callLater(
            self.factory.backend.gateway.graphql_init_timeout_s, self._is_late
        )

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self._forget_late()
        super().onClose(wasClean, code, reason)

    def _forget_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            del self._late

    def _is_late(self) -> None:
        del self._late
        self._act(self._conversation.broken(End(INIT_TIMEOUT, "Connection initialisation timeout")))

    # -- messages -------------------------------------------------------------------------------------

    def _exchange(self, ticket: int, payload: bytes) -> None:
        match self._transport_ws.received(payload):
            case Reply(message):
                if self._transport_ws.is_acknowledged:
                    self._forget_late()
                self._act(self._conversation.streamed(message))
            case Begin() as begin:
                self._begin(begin, len(payload))
            case Cancel(name):
                self._cancel(name)
            case End() as end:
                self._act(self._conversation.broken(end))

    def _begin(self, begin: Begin, size: int) -> None:
        if self._conversation.is_ending:
            self._transport_ws.ended(begin.name)
            errors = [as_graphql(Draining()).formatted]
            self._act(self._conversation.streamed(error_message(begin.name, errors)))
            return
        operation = self._operations[begin.name] = _Operation(begin.name, self._conversation.begun())
        request = GraphqlRequest(begin.query, begin.variables, begin.operation)
        operation.work = self._start(self._operate(operation, request, size))

    def _cancel(self, name: str) -> None:
        operation = self._operations.pop(name, None)
        if operation is not None and operation.work is not None:
            operation.is_over = True
            operation.work.cancel()
            self._act(self._conversation.cancelled(operation.ticket))

    async def _operate(self, operation: _Operation, request: GraphqlRequest, size: int) -> None:
        backend, name = self.factory.backend, operation.name
        sender = Sender(os.urandom(16).hex(), self._headers, self.caller)
        try:
            if not backend.buffers.take(size):
                size = 0
                raise Overloaded(backend.buffers.full())
            try:
                errors = await self.factory.api.operate(
                    request, sender, lambda result: self._emit(operation, result)
                )
            finally:
                backend.buffers.give_back(size)
        except CancelledError:
            if operation.is_over or not self._conversation.is_open:
                return  # nobody waits for it
            # GraphQL's loop has stopped, and all with it.
            last = error_message(name, [as_graphql(Draining()).formatted])
        except Exception as error:
            public = explained(error, sender.request_id)
            if isinstance(public, InternalError):
                log.failure(
                    "operation {request_id} of GraphQL over WebSocket failed",
                    Failure(error),
                    request_id=sender.request_id,
                )
            last = error_message(name, [as_graphql(public).formatted])
        else:
            last = complete_message(name) if errors is None else error_message(name, errors)
        operation.is_over = True
        self._operations.pop(name, None)
        self._transport_ws.ended(name)
        self._act(self._conversation.answered(operation.ticket, last))

    def _emit(self, operation: _Operation, result: bytes) -> Deferred[None]:
        """Send a result. Fires when the client can take more."""
        if operation.is_over or not self._conversation.is_open:
            return succeed(None)  # the loop does not know it yet
        return Deferred.fromCoroutine(self._next(operation, result))

    async def _next(self, operation: _Operation, result: bytes) -> None:
        buffers = self.factory.backend.buffers
        held = 0 if is_small(len(result)) else len(result)
        if not buffers.take(held):
            raise Overloaded(buffers.full())
        try:
            self._act(self._conversation.streamed(next_message(operation.name, result)))
            await self._until_read()
        finally:
            buffers.give_back(held)


class GraphqlListener(WebSocketServerFactory):
    """Makes the sessions of one port, whose operations ``api`` executes."""

    def __init__(self, backend: Backend, api: GraphqlApi, connections: Connections, hangups: HangUps) -> None:
        gateway = backend.gateway
        secure = {name.decode(): value.decode() for name, value in backend.secure_headers}
        super().__init__(server="gatewayd", headers=secure, reactor=backend.reactor)
        self.backend = backend
        self.api = api
        self.connections = connections
        self.hangups = hangups
        self.arrival = ArrivalLimits.of(gateway)
        self.most_frames_per_s = gateway.websocket_max_frames_per_second
        self.setProtocolOptions(
            webStatus=False,
            failByDrop=False,
            maxMessagePayloadSize=min(gateway.max_message_bytes, _MOST_MESSAGE_BYTES),
            openHandshakeTimeout=_HANDSHAKE_S,
            closeHandshakeTimeout=gateway.websocket_close_timeout_s,
            autoPingInterval=gateway.websocket_ping_interval_s,
            autoPingTimeout=gateway.websocket_ping_timeout_s,
        )
        self.protocol: Any = with_options(GraphqlSession, self)
