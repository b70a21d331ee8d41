# mypy: disable-error-code="no-untyped-call"
"""The settings that all WebSocket connections of one listener share."""

from __future__ import annotations

from typing import Any, Final

from autobahn.twisted.websocket import WebSocketServerFactory

from gatewayd.messages.discovery import Endpoints
from gatewayd.protocols.arrival import ArrivalLimits
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.connections import Connections
from gatewayd.protocols.hangups import HangUps
from gatewayd.protocols.http.bodies import FIRST, Bodies, SecondBodies, bodies_for
from gatewayd.protocols.websocket.deflate import accept_deflate
from gatewayd.protocols.websocket.frames import JSON_FRAMES, Frames, TypedJsonFrames
from gatewayd.protocols.websocket.rest import with_options
from gatewayd.protocols.websocket.session import DRY_RUN, WebSocketSession

_HANDSHAKE_S: Final = 10.0


class WebSocketListener(WebSocketServerFactory):
    """
    Makes the sessions of one port, which count among its ``connections``.

    ``prefetch`` bounds the requests that each may have under way. ``paths`` are those of handshakes.
    """

    def __init__(self, backend: Backend, connections: Connections, hangups: HangUps) -> None:
        gateway = backend.gateway
        secure = {name.decode(): value.decode() for name, value in backend.secure_headers}
        super().__init__(server="gatewayd", headers=secure, reactor=backend.reactor)
        self.backend = backend
        self.json_frames: Frames = JSON_FRAMES
        self.streaming: frozenset[str] = frozenset()
        # Of the first generation, with all of its endpoints known, little changes: it is not asked each time.
        self.is_settled = False
        self._endpoints = Endpoints()
        self._bodies: Bodies = FIRST
        self.dispatcher = backend.dispatcher_for("websocket")
        self.connections = connections
        self.prefetch = gateway.prefetch
        self.compress_above_bytes = gateway.compress_above_bytes
        self.arrival = ArrivalLimits.of(gateway)
        self.most_frames_per_s = gateway.websocket_max_frames_per_second
        self.hangups = hangups
        self.paths = ("/", DRY_RUN) if gateway.expose_dry_run else ("/",)
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
        self.protocol: Any = with_options(WebSocketSession, self)

    def learn(self) -> None:
        """Speak of documents, and of endpoints that stream, as executors have come to tell."""
        endpoints = self.backend.endpoints()
        self.is_settled = not endpoints.unknown and not endpoints.is_second
        if endpoints is self._endpoints or endpoints == self._endpoints:
            return
        self._endpoints = endpoints
        self.streaming = endpoints.streaming
        bodies = bodies_for(endpoints, self._bodies)
        if bodies is not self._bodies:
            self._bodies = bodies
            self.json_frames = TypedJsonFrames(bodies) if isinstance(bodies, SecondBodies) else JSON_FRAMES
