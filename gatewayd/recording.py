"""
Files of recorded requests: what a gateway writes with ``record``, and ``gatewayd replay`` reads.

A file is JSON, a line for each request. The first line says what it is:

    {"gatewayd_recording": 2, "flow": "shop", "began": 1763900000.0, "redacted": ["text"]}
    {"at": 1763900001.5, "took_s": 0.012, "protocol": "http", "endpoint": "/search", "request_id": "5f3e",
     "outcome": "ok", "request": "Cg4K...", "response": "Cg4K..."}
    {"at": 1763900002.5, "took_s": 0.512, "protocol": "grpc", "endpoint": "/words", "request_id": "6a41",
     "outcome": "ok", "request": "Cg4K...", "first_s": 0.1, "answers": [[0.1, "Cg4K..."], [0.3, "Cg4K..."]]}

``request``, ``response`` and each of the ``answers`` are DataRequestProtos in base64, exactly as they are on
the wire but for what is redacted, and without headers; they have documents of either generation. ``outcome``
is one of the words of metrics. A request that failed has its ``error`` and no response.

A stream has ``answers``, in their order, in the place of a response: those that came before it ended
(``outcome`` is ok), broke (there is an ``error``, or its last answer tells what an executor raised) or was
left by its client (cancelled). Each has the seconds after the request at which it had come. ``left_out`` says
that the record was cut: so many more came, and are not in it.

Files of version 1 are read as well; they have no streams.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

import attrs

VERSION: Final = 2
_READ: Final = (1, VERSION)
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
    version: int = VERSION

    def to_line(self) -> bytes:
        """The first line of a file."""
        return _line(
            {_MARK: self.version, "flow": self.flow, "began": self.began, "redacted": list(self.redacted)}
        )


@attrs.frozen
class Answers:
    """
    Those of a stream in their order, each with the seconds after the request at which it had come.

    ``first_s`` is when the first one came, None if there was none; ``left_out`` is how many came after those
    that were ``kept``.
    """

    kept: tuple[tuple[float, bytes], ...] = attrs.field(default=(), repr=False)
    left_out: int = 0
    first_s: float | None = None

    @property
    def count(self) -> int:
        """How many came."""
        return len(self.kept) + self.left_out


@attrs.frozen
class Recorded:
    """
    One request. ``at`` is when it came, in seconds since the epoch, ``took_s`` how long the gateway had it.

    ``error`` is the class of what failed and its text. A stream has ``answers`` and no response.
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
    answers: Answers | None = None

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
        if (answers := self.answers) is not None:
            if answers.first_s is not None:
                plain["first_s"] = round(answers.first_s, 6)
            plain["answers"] = [
                [round(at_s, 6), base64.b64encode(answer).decode()] for at_s, answer in answers.kept
            ]
            if answers.left_out:
                plain["left_out"] = answers.left_out
        return _line(plain)

    def fitted(self, most: int) -> Recorded | None:
        """
        The same with as many of its answers as its line has room for in ``most`` bytes.

        None where even without answers it is too long.
        """
        if len(self.to_line()) <= most:
            return self
        answers = self.answers
        if answers is None:
            return None
        # What stands around an answer, and what says how many are left out.
        left = most - len(attrs.evolve(self, answers=Answers(first_s=answers.first_s)).to_line()) - 40
        if left < 0:
            return None
        kept = 0
        for each in answers.kept:
            left -= _encoded_bytes(*each)
            if left < 0:
                break
            kept += 1
        shorter = Answers(answers.kept[:kept], answers.count - kept, answers.first_s)
        return attrs.evolve(self, answers=shorter)


def _encoded_bytes(at_s: float, answer: bytes) -> int:
    """How many bytes of a line are one answer's: its time, base64, and what stands around both."""
    return len(repr(round(at_s, 6))) + (len(answer) + 2) // 3 * 4 + len('[,""],')


def heading_of(line: bytes) -> Heading:
    """What the first line says. Raises NotARecording."""
    plain = _plain(line, 1)
    version = plain.get(_MARK)
    if version not in _READ:
        if isinstance(version, int):
            raise NotARecording(
                f"line 1: the file is of version {version}, and those up to {VERSION} are read here: use the "
                "newer gatewayd that has written it"
            )
        raise NotARecording(f'line 1: found no {{"{_MARK}": {VERSION}}}; is it a file of gateway.record?')
    try:
        redacted = tuple(str(rule) for rule in plain.get("redacted", ()))
        return Heading(plain.get("flow"), float(plain["began"]), redacted, int(version))
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
                answers=_answers(plain) if "answers" in plain else None,
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise NotARecording(f"line {number}: {error!r}") from error
        yield recorded


def _answers(plain: dict[str, Any]) -> Answers:
    first_s = plain.get("first_s")
    return Answers(
        kept=tuple(
            (float(at_s), base64.b64decode(answer, validate=True)) for at_s, answer in plain["answers"]
        ),
        left_out=int(plain.get("left_out", 0)),
        first_s=None if first_s is None else float(first_s),
    )


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
