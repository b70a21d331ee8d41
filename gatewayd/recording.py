"""
Files of recorded requests: what a gateway writes with ``record``, and ``gatewayd replay`` reads.

A file is JSON, a line for each request. The first line says what it is:

    {"gatewayd_recording": 1, "flow": "shop", "began": 1763900000.0, "redacted": ["text"]}
    {"at": 1763900001.5, "took_s": 0.012, "protocol": "http", "endpoint": "/search", "request_id": "5f3e",
     "outcome": "ok", "request": "Cg4K...", "response": "Cg4K..."}

``request`` and ``response`` are DataRequestProtos in base64, exactly as they are on the wire but for what is
redacted, and without headers. ``outcome`` is one of the words of metrics. A request that failed has its
``error`` and no response.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

import attrs

VERSION: Final = 1
Kind = Literal["ok", "executor_error", "failed", "cancelled"]

_MARK: Final = "gatewayd_recording"


class NotARecording(Exception):
    """A file cannot be read as a recording; the text says why, and in which line."""


@attrs.frozen
class Heading:
    """What a file says of all its requests. ``began`` is seconds since the epoch."""

    flow: str | None
    began: float
    redacted: tuple[str, ...] = ()

    def to_line(self) -> bytes:
        """The first line of a file."""
        return _line(
            {_MARK: VERSION, "flow": self.flow, "began": self.began, "redacted": list(self.redacted)}
        )


@attrs.frozen
class Recorded:
    """
    One request. ``at`` is when it came, in seconds since the epoch, ``took_s`` how long the gateway had it.

    ``error`` is the class of what failed and its text.
    """

    at: float
    took_s: float
    protocol: str
    endpoint: str
    request_id: str
    outcome: str
    request: bytes = attrs.field(repr=False)
    response: bytes | None = attrs.field(default=None, repr=False)
    error: str | None = None

    @property
    def kind(self) -> Kind:
        """The outcome, as far as a client can tell it."""
        match self.outcome:
            case "ok" | "executor_error" | "cancelled" as kind:
                return kind
        return "failed"

    def to_line(self) -> bytes:
        """Its line in a file."""
        plain = {
            "at": round(self.at, 6),
            "took_s": round(self.took_s, 6),
            "protocol": self.protocol,
            "endpoint": self.endpoint,
            "request_id": self.request_id,
            "outcome": self.outcome,
            **({} if self.error is None else {"error": self.error}),
            "request": base64.b64encode(self.request).decode(),
            **({} if self.response is None else {"response": base64.b64encode(self.response).decode()}),
        }
        return _line(plain)


def heading_of(line: bytes) -> Heading:
    """What the first line says. Raises NotARecording."""
    plain = _plain(line, 1)
    if plain.get(_MARK) != VERSION:
        raise NotARecording(f'line 1: found no {{"{_MARK}": {VERSION}}}; is it a file of gateway.record?')
    try:
        return Heading(plain.get("flow"), float(plain["began"]), tuple(plain.get("redacted", ())))
    except (KeyError, TypeError, ValueError) as error:
        raise NotARecording(f"line 1: {error!r}") from error


def recorded_of(lines: Iterable[bytes]) -> Iterator[Recorded]:
    """
    The requests of the lines after the first. Raises NotARecording.

    A last line without its end is left out: the gateway that wrote it was killed.
    """
    for number, line in enumerate(lines, 2):
        if not line.endswith(b"\n"):
            return
        plain = _plain(line, number)
        if _MARK in plain:  # the gateway has been started again
            continue
        try:
            response = plain.get("response")
            recorded = Recorded(
                at=float(plain["at"]),
                took_s=float(plain["took_s"]),
                protocol=str(plain["protocol"]),
                endpoint=str(plain["endpoint"]),
                request_id=str(plain["request_id"]),
                outcome=str(plain["outcome"]),
                request=base64.b64decode(plain["request"], validate=True),
                response=None if response is None else base64.b64decode(response, validate=True),
                error=plain.get("error"),
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise NotARecording(f"line {number}: {error!r}") from error
        yield recorded


def _line(plain: dict[str, Any]) -> bytes:
    return json.dumps(plain, separators=(",", ":")).encode() + b"\n"


def _plain(line: bytes, number: int) -> dict[str, Any]:
    try:
        plain = json.loads(line)
    except ValueError as error:
        raise NotARecording(f"line {number}: no JSON: {error}") from error
    if not isinstance(plain, dict):
        raise NotARecording(f"line {number}: found {type(plain).__name__}, no object")
    return plain
