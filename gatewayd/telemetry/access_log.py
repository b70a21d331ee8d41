"""
The access log: a line for each request, whatever its protocol, when it has ended.

It says who asked for what, how it ended, and where the time went; never what is in documents, parameters or
credentials. Requests that cannot be read (a body that is no JSON) do not get as far as this.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Protocol

import orjson
from twisted.logger import Logger

from gatewayd.messages.counting import Uncountable, count_up_to
from gatewayd.messages.journey import spent
from gatewayd.messages.request import Request
from gatewayd.telemetry.logs.forms import FIELDS
from gatewayd.telemetry.logs.levels import ACCESS
from gatewayd.telemetry.metrics.outcomes import OK, ended_as
from gatewayd.telemetry.observed import Exchange
from gatewayd.values import value

log = Logger(namespace=ACCESS)

# Counting stops here, because it takes time for each; more are told as "more".
MOST_COUNTED: Final = 1000
# What clients choose is cut.
_LONGEST: Final = 200


@value
class Entry:
    """
    What there is to say of one request that has ended.

    ``time_s`` is its end, in seconds since the epoch. ``documents`` are counted up to MOST_COUNTED, ``more``
    says that there are more; None if they cannot be counted. Bytes are those of serialised documents and
    parameters, ``bytes_out`` None without an answer. The other times are in seconds; where they went is not
    known of a request that was not drawn. Of a stream, ``answers`` counts its documents, and ``first_s`` is
    how long the first of them took; both are None for other requests, and ``first_s`` where none came.
    """

    time_s: float
    request_id: str
    caller: str | None
    address: str
    protocol: str
    endpoint: str
    documents: int | None
    more: bool
    bytes_in: int
    bytes_out: int | None
    outcome: str
    total_s: float
    queue_s: float | None
    executors_s: float | None
    gateway_s: float | None
    answers: int | None = None
    first_s: float | None = None


class Entries(Protocol):
    """What takes the entries."""

    def add(self, entry: Entry) -> None:
        """Never raises, nor waits."""
        ...


class AccessLog:
    """
    An Observer that makes the entries. Reactor thread only.

    It takes a share of ``sample`` of all requests, which ``dice`` draws when they begin, so that the others
    cost next to nothing; and those that do not succeed, or take longer than ``slower_than_s``.
    """

    def __init__(
        self,
        entries: Entries,
        *,
        sample: float,
        dice: Callable[[], float],
        wall_clock: Callable[[], float],
        slower_than_s: float | None = None,
    ) -> None:
        self._entries = entries
        self._sample = sample
        self._dice = dice
        self._wall_clock = wall_clock
        self._slower_than_s = float("inf") if slower_than_s is None else slower_than_s
        self._drawn: set[Exchange] = set()  # of those that are under way

    def began(self, exchange: Exchange) -> None:
        if self._sample >= 1 or self._dice() < self._sample:
            self._drawn.add(exchange)
            exchange.follow()

    def ended(self, exchange: Exchange) -> None:
        outcome = ended_as(exchange.response, exchange.error)
        drawn = exchange in self._drawn
        if drawn:
            self._drawn.discard(exchange)
        elif outcome is OK and exchange.ended_s - exchange.began_s <= self._slower_than_s:
            return
        request = exchange.request
        documents, more = _counted(request)
        where = spent(request.journey, exchange.began_s, exchange.ended_s) if drawn else None
        self._entries.add(
            Entry(
                self._wall_clock(),
                request.request_id[:_LONGEST],
                request.caller.name,
                request.caller.address,
                exchange.protocol,
                request.endpoint[:_LONGEST],
                documents,
                more,
                exchange.bytes_in,
                exchange.bytes_out,
                outcome,
                exchange.ended_s - exchange.began_s,
                None if where is None else where.queue_s,
                None if where is None else where.executors_s,
                None if where is None else where.gateway_s,
                exchange.answers,
                None if exchange.first_s is None else exchange.first_s - exchange.began_s,
            )
        )


def _counted(request: Request) -> tuple[int | None, bool]:
    try:
        found = count_up_to(request.documents, MOST_COUNTED)
    except Uncountable:
        return None, False
    return min(found, MOST_COUNTED), found > MOST_COUNTED


# -- forms -----------------------------------------------------------------------------------------------


def fields_of(entry: Entry) -> dict[str, Any]:
    """An entry as plain values, by their names in JSON. Times are in milliseconds."""
    found: dict[str, Any] = {
        "request_id": entry.request_id,
        "caller": entry.caller,
        "address": entry.address or None,
        "protocol": entry.protocol,
        "endpoint": entry.endpoint,
        "documents": entry.documents,
        "bytes_in": entry.bytes_in,
        "bytes_out": entry.bytes_out,
        "outcome": entry.outcome,
        "total_ms": _ms(entry.total_s),
        "queue_ms": _ms(entry.queue_s),
        "executors_ms": _ms(entry.executors_s),
        "gateway_ms": _ms(entry.gateway_s),
    }
    if entry.more:
        found["more_documents"] = True
    if entry.answers is not None:
        found["answers"], found["first_ms"] = entry.answers, _ms(entry.first_s)
    return found


def as_text(entry: Entry) -> str:
    """``name=value`` for each field, on one line without an end; ``-`` for what is not known."""
    return f"time={_rfc3339(entry.time_s)} {_words(entry)}"


def as_json(entry: Entry) -> str:
    """An object on one line without an end."""
    return orjson.dumps({"time": _rfc3339(entry.time_s), **fields_of(entry)}).decode()


class EntriesOfTheLog:
    """Writes entries to the gateway's log itself, whose lines have times of their own."""

    def add(self, entry: Entry) -> None:
        log.info("{entry}", entry=_words(entry), **{FIELDS: fields_of(entry)})


def _words(entry: Entry) -> str:
    """Written out, because every request has a line: a loop over the fields takes four times as long."""
    text = (
        f"request_id={_word(entry.request_id)} caller={_word(entry.caller)} address={_word(entry.address)} "
        f"protocol={entry.protocol} endpoint={_word(entry.endpoint)} "
        f"documents={'-' if entry.documents is None else entry.documents} bytes_in={entry.bytes_in} "
        f"bytes_out={'-' if entry.bytes_out is None else entry.bytes_out} outcome={entry.outcome} "
        f"total_ms={_text(entry.total_s)} queue_ms={_text(entry.queue_s)} "
        f"executors_ms={_text(entry.executors_s)} gateway_ms={_text(entry.gateway_s)}"
    )
    if entry.answers is not None:
        text = f"{text} answers={entry.answers} first_ms={_text(entry.first_s)}"
    return f"{text} more_documents=true" if entry.more else text


# Nobody adds fields or lines by a name that they choose.
_is_plain: Final = re.compile(r"[!#-<>-\[\]-~]+").fullmatch


def _word(found: str | None) -> str:
    """A text without blanks and control characters; ``-`` for none."""
    if not found:
        return "-"
    return found if _is_plain(found) and found != "-" else json.dumps(found)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def _text(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3f}"


def _rfc3339(time_s: float) -> str:
    whole_s = int(time_s)
    return f"{_second(whole_s)}.{int((time_s - whole_s) * 1e3):03d}Z"


@lru_cache(maxsize=8)
def _second(time_s: int) -> str:
    # Requests that end in one second share it.
    return datetime.datetime.fromtimestamp(time_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
