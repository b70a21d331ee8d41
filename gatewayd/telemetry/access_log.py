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
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, Protocol

from twisted.logger import Logger

from gatewayd.messages.counting import Uncountable, count_up_to
from gatewayd.messages.journey import spent
from gatewayd.telemetry.logs.forms import ENTRY, FIELDS
from gatewayd.telemetry.logs.levels import ACCESS
from gatewayd.telemetry.metrics.outcomes import OK, ended_as
from gatewayd.telemetry.observed import Exchange

log = Logger(namespace=ACCESS)

# Counting stops here, because it takes time for each; more are told as "more".
MOST_COUNTED: Final = 1000
# What clients choose is cut.
_LONGEST: Final = 200
_NOT_KNOWN: Final = (None, None, None)


class Entry(NamedTuple):
    """
    What there is to say of one request that has ended. One is made of every request, and read as a whole: a
    tuple takes half of what an object with attributes does.

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
        self._draws_all = sample >= 1
        self._sample = sample
        self._dice = dice
        self._wall_clock = wall_clock
        self._slower_than_s = float("inf") if slower_than_s is None else slower_than_s
        self._drawn: set[Exchange] = set()  # of those that are under way

    def began(self, exchange: Exchange) -> None:
        if self._draws_all:
            exchange.follow()
        elif self._dice() < self._sample:
            self._drawn.add(exchange)
            exchange.follow()

    def ended(self, exchange: Exchange) -> None:
        request, response, error = exchange.request, exchange.response, exchange.error
        began_s, ended_s = exchange.began_s, exchange.ended_s
        outcome = OK
        if error is not None or (response is not None and response.status):
            outcome = ended_as(response, error)
        drawn = self._draws_all
        if not drawn:
            drawn = exchange in self._drawn
            if drawn:
                self._drawn.discard(exchange)
            elif outcome is OK and ended_s - began_s <= self._slower_than_s:
                return
        documents: int | None
        try:
            documents = count_up_to(request.documents, MOST_COUNTED)
        except Uncountable:
            documents = None
        queue_s, executors_s, gateway_s = spent(request.journey, began_s, ended_s) if drawn else _NOT_KNOWN
        caller, first_s, bytes_out = request.caller, exchange.first_s, None
        if exchange.answers:
            bytes_out = exchange.answers_bytes
        elif response is not None:
            bytes_out = len(response.documents) + len(response.parameters or b"")
        self._entries.add(
            Entry(
                self._wall_clock(),
                request.request_id[:_LONGEST],
                caller.name,
                caller.address,
                exchange.protocol,
                request.endpoint[:_LONGEST],
                None if documents is None else min(documents, MOST_COUNTED),
                documents is not None and documents > MOST_COUNTED,
                len(request.documents) + len(request.parameters),
                bytes_out,
                outcome,
                ended_s - began_s,
                queue_s,
                executors_s,
                gateway_s,
                exchange.answers,
                None if first_s is None else first_s - began_s,
            )
        )


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


# Every request has a line: the usual one is written out, which takes a quarter of what a loop over its fields
# does; what requests of one client have in common is made once.


def as_text(entry: Entry) -> str:
    """``name=value`` for each field, on one line without an end; ``-`` for what is not known."""
    time_s = entry[0]
    whole_s = int(time_s)
    return f"time={_second(whole_s)}.{int((time_s - whole_s) * 1e3):03d}Z {_words(entry)}"


def as_json(entry: Entry) -> str:
    """An object on one line without an end: ``time``, and ``fields_of``."""
    time_s, name, caller, address, protocol, endpoint, documents, more, bytes_in, bytes_out = entry[:10]
    outcome, total_s, queue_s, executors_s, gateway_s, answers, first_s = entry[10:]
    whole_s = int(time_s)
    quoted = f'"{name}"' if (name.isalnum() and name.isascii()) or _is_plain(name) else json.dumps(name)
    text = (
        f'{{"time":"{_second(whole_s)}.{int((time_s - whole_s) * 1e3):03d}Z","request_id":{quoted},'
        f"{_who_in_json(caller, address, protocol, endpoint)},"
        f'"documents":{"null" if documents is None else documents},"bytes_in":{bytes_in},'
        f'"bytes_out":{"null" if bytes_out is None else bytes_out},"outcome":"{outcome}",'
        f'"total_ms":{total_s * 1e3:.3f},'
    )
    if queue_s is None or executors_s is None or gateway_s is None:
        text += '"queue_ms":null,"executors_ms":null,"gateway_ms":null'
    else:
        queued = f"{queue_s * 1e3:.3f}" if queue_s else "0.000"
        text += (
            f'"queue_ms":{queued},"executors_ms":{executors_s * 1e3:.3f},"gateway_ms":{gateway_s * 1e3:.3f}'
        )
    if more:
        text += ',"more_documents":true'
    if answers is not None:
        first = "null" if first_s is None else f"{first_s * 1e3:.3f}"
        text += f',"answers":{answers},"first_ms":{first}'
    return text + "}"


class EntriesOfTheLog:
    """Writes entries to the gateway's log itself, whose lines have times of their own."""

    def add(self, entry: Entry) -> None:
        log.info(ENTRY, entry=_words(entry), **{FIELDS: partial(fields_of, entry)})


def _words(entry: Entry) -> str:
    _, name, caller, address, protocol, endpoint, documents, more, bytes_in, bytes_out = entry[:10]
    outcome, total_s, queue_s, executors_s, gateway_s, answers, first_s = entry[10:]
    if not (name.isalnum() and name.isascii()):  # most are hexadecimal
        name = _word(name)
    text = (
        f"request_id={name} {_who(caller, address, protocol, endpoint)} "
        f"documents={'-' if documents is None else documents} bytes_in={bytes_in} "
        f"bytes_out={'-' if bytes_out is None else bytes_out} outcome={outcome} "
        f"total_ms={total_s * 1e3:.3f} "
    )
    if queue_s is None or executors_s is None or gateway_s is None:
        text += "queue_ms=- executors_ms=- gateway_ms=-"
    else:
        queued = f"{queue_s * 1e3:.3f}" if queue_s else "0.000"
        text += f"queue_ms={queued} executors_ms={executors_s * 1e3:.3f} gateway_ms={gateway_s * 1e3:.3f}"
    if answers is not None:
        first = "-" if first_s is None else f"{first_s * 1e3:.3f}"
        text += f" answers={answers} first_ms={first}"
    return f"{text} more_documents=true" if more else text


# Bounded, as clients choose most of it.
_KEPT: Final = 256


@lru_cache(maxsize=_KEPT)
def _who(caller: str | None, address: str, protocol: str, endpoint: str) -> str:
    return f"caller={_word(caller)} address={_word(address)} protocol={protocol} endpoint={_word(endpoint)}"


@lru_cache(maxsize=_KEPT)
def _who_in_json(caller: str | None, address: str, protocol: str, endpoint: str) -> str:
    who = {"caller": caller, "address": address or None, "protocol": protocol, "endpoint": endpoint}
    return json.dumps(who, separators=(",", ":"))[1:-1]


# Nobody adds fields or lines by a name that they choose. What is plain is JSON between quotes, too.
_is_plain: Final = re.compile(r"[!#-<>-\[\]-~]+").fullmatch


def _word(found: str | None) -> str:
    """A text without blanks and control characters; ``-`` for none."""
    if not found:
        return "-"
    return found if _is_plain(found) and found != "-" else json.dumps(found)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


@lru_cache(maxsize=8)
def _second(time_s: int) -> str:
    # Requests that end in one second share it.
    return datetime.datetime.fromtimestamp(time_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
