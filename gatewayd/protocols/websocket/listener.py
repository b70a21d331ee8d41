# mypy: disable-error-code="no-untyped-call"
"""All WebSocket connections of one listener: their settings, and how they are closed together."""

from __future__ import annotations

from typing import Any, Final

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.defer import Deferred, succeed

from gatewayd.config.model import GatewayConfig
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.websocket.deflate import accept_deflate
from gatewayd.protocols.websocket.hangups import HangUps
from gatewayd.protocols.websocket.session import WebSocketSession
from gatewayd.waiters import Waiters

_HANDSHAKE_S: Final = 10.0
# After the grace period, for the close frames to go out.
_LAST_S: Final = 1.0


class WebSocketListener(WebSocketServerFactory):
    """
    All WebSocket connections of one listener.

    Each may have as many requests under way as the gateway's ``prefetch`` says.
    """

    protocol = WebSocketSession  # type: ignore[assignment]

    def __init__(self, backend: Backend, gateway: GatewayConfig) -> None:
        super().__init__(server="gatewayd", reactor=backend.reactor)
        self.backend = backend
        self.prefetch = gateway.prefetch
        self.compress_above_bytes = gateway.compress_above_bytes
        self.hangups = HangUps(backend.reactor)
        self._sessions: set[WebSocketSession] = set()
        self._empty: Waiters[None] = Waiters()
        self.setProtocolOptions(
            webStatus=False,
            failByDrop=False,
            maxMessagePayloadSize=gateway.max_message_bytes,
            openHandshakeTimeout=_HANDSHAKE_S,
            # What was sent before the close frame may still be on its way to a slow client, and dropping
            # the connection would lose it.
            closeHandshakeTimeout=gateway.websocket_close_timeout_s,
            # By default uvicorn's values, which is what clients of the reference live with.
            autoPingInterval=gateway.websocket_ping_interval_s,
            autoPingTimeout=gateway.websocket_ping_timeout_s,
            perMessageCompressionAccept=accept_deflate,
        )

    @property
    def open_sessions(self) -> int:
        """How many connections are open, or not yet closed."""
        return len(self._sessions)

    def session_opened(self, session: WebSocketSession) -> None:
        self._sessions.add(session)

    def session_closed(self, session: WebSocketSession) -> None:
        self._sessions.discard(session)
        if not self._sessions:
            self._empty.fire(None)

    def close_all(self, grace_s: float) -> Deferred[None]:
        """
        Close every connection with 1001, after its pending answers or after ``grace_s``.

        Fires when none is left.
        """
        for session in tuple(self._sessions):
            session.drain()
        if not self._sessions:
            self.hangups.close()
            return succeed(None)
        left = self._empty.wait()
        calls = [
            self.reactor.callLater(grace_s, self._each, WebSocketSession.close_now),
            self.reactor.callLater(grace_s + _LAST_S, self._each, WebSocketSession.abort),
        ]

        def closed(_: None) -> None:
            self.hangups.close()
            for call in calls:
                if call.active():
                    call.cancel()

        return left.addCallback(closed)

    def _each(self, act: Any) -> None:
        for session in tuple(self._sessions):
            act(session)
