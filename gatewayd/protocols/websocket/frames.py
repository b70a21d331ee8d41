"""
The content of WebSocket frames, in the two modes of a connection.

A client chooses the mode by its subprotocol. Several names, an unknown one or none mean JSON, as in the
reference (spec websocket.md). The name is confirmed if it was offered, because browsers refuse a connection
that ignores their offer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import orjson

from gatewayd.errors import BadRequest
from gatewayd.messages import wire
from gatewayd.messages.json_form import requests, responses
from gatewayd.messages.request import Request, Response
from gatewayd.messages.second import writing
from gatewayd.pb import StatusProto
from gatewayd.protocols.http.bodies import SecondBodies

_BLANKS: Final = b" \t\r\n"


class Frames(Protocol):
    """The encoding of one mode. ``slow`` says that converting large messages takes long."""

    @property
    def name(self) -> str: ...

    @property
    def binary(self) -> bool: ...

    @property
    def slow(self) -> bool: ...

    def ends_input(self, payload: bytes) -> bool: ...

    def decode(self, payload: bytes, max_documents: int) -> Request: ...

    def encode(self, response: Response) -> bytes: ...

    def encode_status(self, status: bytes) -> bytes: ...


class JsonFrames:
    """Text frames, each with the body of a POST to /post; ``{}`` ends the input."""

    name: Final = "json"
    binary: Final = False
    slow: Final = True

    def ends_input(self, payload: bytes) -> bool:
        return len(payload) < 16 and payload.translate(None, _BLANKS) == b"{}"

    def decode(self, payload: bytes, max_documents: int) -> Request:
        """Raises BadRequest, TooManyDocuments."""
        if len(payload) < 16 and payload.translate(None, _BLANKS) == b"[]":
            raise BadRequest("a frame holds one JSON object")
        return requests.decode_request(
            payload, content_type=None, endpoint=None, request_id=None, max_documents=max_documents
        )

    def encode(self, response: Response) -> bytes:
        """Raises GatewayError if the response has no JSON form."""
        return responses.encode_websocket(response)

    def encode_status(self, status: bytes) -> bytes:
        """Unset fields are omitted, so that success is ``{}``; codes are names."""
        if not status:
            return b"{}"
        message = StatusProto.FromString(status)
        return orjson.dumps(
            {
                "code": StatusProto.StatusCode.Name(message.code),
                "description": message.description,
                "exception": {"name": message.exception.name},
            }
        )


class TypedJsonFrames(JsonFrames):
    """As JsonFrames, with documents of the second generation, by what executors tell of their endpoints."""

    def __init__(self, bodies: SecondBodies) -> None:
        self._bodies = bodies

    def decode(self, payload: bytes, max_documents: int) -> Request:
        """Raises BadRequest, TooManyDocuments."""
        return self._bodies.decode(
            payload, content_type=None, endpoint=None, request_id=None, max_documents=max_documents
        )

    def encode(self, response: Response) -> bytes:
        """Raises GatewayError if the response has no JSON form."""
        return writing.encode_frame(response, self._bodies.model(response.endpoint))


class BytesFrames:
    """Binary frames, each with a DataRequestProto; one zero byte ends the input."""

    name: Final = "bytes"
    binary: Final = True
    slow: Final = False

    def ends_input(self, payload: bytes) -> bool:
        return payload == b"\0"

    def decode(self, payload: bytes, max_documents: int) -> Request:
        """Raises BadRequest. Documents are not read, nor counted."""
        if not payload:
            raise wire.Malformed("an empty frame is no request; one zero byte ends the input")
        return wire.decode_request(payload)

    def encode(self, response: Response) -> bytes:
        return bytes(wire.encode_response(response))

    def encode_status(self, status: bytes) -> bytes:
        return status


JSON_FRAMES: Final[Frames] = JsonFrames()
BYTES_FRAMES: Final[Frames] = BytesFrames()


def negotiate(offered: Sequence[str], json_frames: Frames = JSON_FRAMES) -> tuple[Frames, str | None]:
    """The mode for the subprotocols that a client offers, and the subprotocol to confirm."""
    frames = BYTES_FRAMES if list(offered) == ["bytes"] else json_frames
    return frames, frames.name if frames.name in offered else None
