"""
The requests that failed last, for the operator who asks why.

Of each there is what tells it apart and what became of it, never its documents or parameters. Texts are cut,
because they may be a client's or an executor's.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs
from google.protobuf.message import DecodeError
from twisted.internet.defer import CancelledError

from gatewayd.errors import GatewayError
from gatewayd.pb import StatusProto
from gatewayd.redaction import beginning_of
from gatewayd.telemetry.metrics.outcomes import EXECUTOR_ERROR, outcome_of
from gatewayd.telemetry.observed import Exchange

# How many are kept: a page of them.
MOST: Final = 50
_LONGEST_NAME: Final = 100
_LONGEST_REASON: Final = 300
# Of the texts that reasons are made of, which executors may make of what a client has sent.
_READ: Final = 2000


@attrs.frozen
class FailedRequest:
    """
    One request that failed. ``at_s`` is its end in seconds since the epoch, ``took_s`` how long it was under
    way; ``outcome`` is a word of ``telemetry.metrics.outcomes``.
    """

    at_s: float
    request_id: str
    protocol: str
    endpoint: str
    outcome: str
    reason: str
    took_s: float

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> FailedRequest:
        """The inverse of ``attrs.asdict``. Raises ValueError for what is none."""
        try:
            return cls(**found)
        except TypeError as error:
            raise ValueError(f"no failed request: {error}") from None


class Failures:
    """Keeps the last of them (``AtTheEnd``). ``wall_clock()`` is in seconds since the epoch."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._kept: deque[FailedRequest] = deque(maxlen=MOST)

    @property
    def last(self) -> tuple[FailedRequest, ...]:
        """The oldest first."""
        return tuple(self._kept)

    def ended(self, exchange: Exchange) -> None:
        error, response = exchange.error, exchange.response
        if error is not None:
            if isinstance(error, CancelledError):
                return  # its client left
            outcome, reason = outcome_of(error), _reason(error)
        elif response is not None and response.status:
            outcome, reason = EXECUTOR_ERROR, _raised(response.status)
        else:
            return
        request = exchange.request
        self._kept.append(
            FailedRequest(
                self._wall_clock(),
                _shown(request.request_id, _LONGEST_NAME),
                exchange.protocol,
                _shown(request.endpoint, _LONGEST_NAME),
                outcome,
                _shown(beginning_of(reason, _READ), _LONGEST_REASON),
                exchange.ended_s - exchange.began_s,
            )
        )


def last_of(several: Iterable[Iterable[FailedRequest]]) -> tuple[FailedRequest, ...]:
    """The last ones of several processes together, the oldest first."""
    merged = heapq.merge(*several, key=lambda one: one.at_s)
    return tuple(deque(merged, maxlen=MOST))


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, GatewayError) else type(error).__name__


def _raised(serialised: bytes) -> str:
    try:
        status = StatusProto.FromString(serialised)
    except DecodeError:
        return "an executor answered with a status that cannot be read"
    raised = status.exception
    said = status.description or raised.name or "an error without a name"
    return f"{raised.executor}: {said}" if raised.executor else said


def _shown(text: str, longest: int) -> str:
    shown = text if len(text) <= longest else f"{text[:longest]}..."
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in shown)
