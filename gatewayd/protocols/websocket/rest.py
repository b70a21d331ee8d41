"""
What Autobahn keeps of each connection and an open one does not need: thousands of idle ones would hold it.

Autobahn makes a hundred attributes for each. Most have the same value in all connections of a listener that
are open and idle, so they are attributes of the class, and an instance has its own only while they differ.
Those of the handshake are never read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

from autobahn.websocket.protocol import TrafficStats, WebSocketServerProtocol

T = TypeVar("T")

OF_THE_HANDSHAKE: Final = frozenset(
    {
        "_transport_details",
        "_wskey",
        "http_headers",
        "http_request_data",
        "http_request_host",
        "http_request_params",
        "http_request_path",
        "http_request_uri",
        "http_response_data",
        "http_status_line",
        "websocket_extensions",
        "websocket_extensions_in_use",
        "websocket_origin",
        "websocket_protocol_in_use",
        "websocket_protocols",
        # Of features that are not used: events, delayed writing, and counters of each connection.
        "_results",
        "_valid_events",
        "send_queue",
        "trafficStats",
    }
)


class Unheard:
    """Stands for Autobahn's Deferreds of the beginning and the end, which are not waited for."""

    def callback(self, result: object) -> None:
        """It has happened."""


UNHEARD: Final = Unheard()

AT_REST: Final[Mapping[str, Any]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "_perMessageCompress",
                "autoPingPending",
                "autoPingPendingSent",
                "autoPingTimeoutCall",
                "closeHandshakeTimeoutCall",
                "current_frame",
                "localCloseCode",
                "localCloseReason",
                "openHandshakeTimeoutCall",
                "remoteCloseCode",
                "remoteCloseReason",
                "trackedTimings",
                "wasNotCleanReason",
            )
        ),
        **dict.fromkeys(
            (
                "closedByMe",
                "droppedByMe",
                "failedByMe",
                "inside_message",
                "triggered",
                "wasClean",
                "wasCloseHandshakeTimeout",
                "wasMaxFramePayloadSizeExceeded",
                "wasMaxMessagePayloadSizeExceeded",
                "wasOpenHandshakeTimeout",
                "wasServerConnectionDropTimeout",
                "wasServingFlashSocketPolicyFile",
            ),
            False,
        ),
        "data": b"",
        "is_closed": UNHEARD,
        "is_open": UNHEARD,
        "send_queue": (),
        "send_state": WebSocketServerProtocol.SEND_STATE_GROUND,
        "trafficStats": TrafficStats(),  # of all connections together
    }
)


def with_options(session: type[T], factory: Any) -> type[T]:
    """The class of a factory's sessions, with its options: Autobahn copies to instances what it lacks."""
    options = {name: getattr(factory, name) for name in WebSocketServerProtocol.CONFIG_ATTRS}
    shared = {name: staticmethod(value) if callable(value) else value for name, value in options.items()}
    return type(session.__name__, (session,), shared)


def with_rest(session: type[T]) -> type[T]:
    """Decorates a class of sessions: it has the attributes of AT_REST."""
    for name, value in AT_REST.items():
        setattr(session, name, value)
    return session


def kept_at_rest(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Those attributes of an open connection that are its own."""
    return {
        name: value
        for name, value in attributes.items()
        if name not in OF_THE_HANDSHAKE and (name not in AT_REST or value is not AT_REST[name])
    }
