"""
An echo on the gateway's own WebSocket port: what Autobahn|Testsuite wants to talk to.

Everything but the last step is the gateway's: its factory with its options, its resource tree, its
session with window, buffers and compression. Only a message is sent back instead of being a request.

    python -m tests.wstest.echo          prints the port and serves until it is killed
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThread

from gatewayd.buffers import Buffers
from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.errors import Draining
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.request import Request, Response
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.web_port import WebPort
from gatewayd.protocols.websocket.conversation import Actions, Conversation, Dispatch
from gatewayd.protocols.websocket.frames import BYTES_FRAMES, JSON_FRAMES, Frames
from gatewayd.protocols.websocket.session import WebSocketSession

reactor: Any = _reactor


class EchoConversation(Conversation):
    """Takes text and binary messages alike."""

    def message_received(self, payload: bytes, *, is_binary: bool) -> Actions:
        if not self._is_open:
            return ()
        dispatch = Dispatch(self._window.admit(), payload)
        return (*self._settle(), dispatch)


class EchoSession(WebSocketSession):
    """Sends each message back as it came: text as text, and compressed where that was agreed on."""

    def _converse(self, frames: Frames, *, ordered: bool, is_dry_run: bool) -> Conversation:
        return EchoConversation(frames, self.factory.prefetch)

    def _exchange(self, ticket: int, payload: bytes) -> None:
        self._start(self._echo(ticket, payload))

    async def _echo(self, ticket: int, payload: bytes) -> None:
        self._conversation.frames = BYTES_FRAMES if self.message_is_binary else JSON_FRAMES
        agreed: Any = self._perMessageCompress
        compressed = None if agreed is None else await self._deflated(payload, agreed)
        self._act(self._conversation.answered(ticket, payload, compressed))


class Nobody:
    """A dispatcher that is never asked."""

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]:
        return fail(Draining())

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]:
        return fail(Draining())


def echo_port(**settings: Any) -> WebPort:
    """
    A port of HTTP and WebSocket that echoes, not listening yet; ``settings`` are the gateway's.

    The window holds one message, because the suite wants its echoes in order. There is no limit
    on frames, because it sends tens of thousands of fragments.
    """
    own = {"prefetch": 1, "compress_above_bytes": 1, "websocket_max_frames_per_second": 0}
    gateway = GatewayConfig(host="127.0.0.1", **{**own, **settings})
    buffers = Buffers(gateway.max_buffered_bytes)
    no_loop: Any = None
    backend = Backend(gateway, Nobody(), dict, deferToThread, reactor, buffers, no_loop)
    port = WebPort(Listener(("http", "websocket")), backend)
    assert port.websockets is not None
    port.websockets.protocol = EchoSession  # type: ignore[assignment]
    return port


def main() -> None:
    """Serve on a free port, which is the first line that is printed."""
    port = echo_port()
    port.listen()
    sys.stdout.write(f"{port.report().port}\n")
    sys.stdout.flush()
    reactor.run()


if __name__ == "__main__":
    main()
