"""
The access log: a line for each request, whatever its protocol, when it has ended.

It says who asked for what, how it ended, and where the time went; never what is in documents, parameters or
credentials. Requests that cannot be read (a body that is no JSON) do not get as far as this.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from gatewayd.errors import codes_for
from gatewayd.messages.counting import Uncountable, count_up_to
from gatewayd.messages.journey import spent
from gatewayd.messages.request import Request
from gatewayd.telemetry.logs.forms import FIELDS
from gatewayd.telemetry.logs.levels import ACCESS
from gatewayd.telemetry.observed import Exchange
from gatewayd.values import value

log = Logger(namespace=ACCESS)

# Counting stops here, because it takes time for each; more are told as "more".
MOST_COUNTED: Final = 1000
# What clients choose is cut.
_LONGEST: Final = 200

OK: Final = "ok"
RAISED: Final = "failed"
CANCELLED: Final = "cancelled"


@value
class Entry:
    """
    What there is to say of one request that has ended.

    ``time_s`` is its end, in seconds since the epoch. ``documents`` are counted up to MOST_COUNTED, ``more``
    says that there are more; None if they cannot be counted. Bytes are those of serialised documents and
    parameters, ``bytes_out`` None without an answer. The other times are in seconds.
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
    queue_s: float
    executors_s: float
    gateway_s: float


class Entries(Protocol):
    """What takes the entries."""

    def add(self, entry: Entry) -> None:
        """Never raises, nor waits."""
        ...


class AccessLog:
    """
    An Observer that makes the entries. Reactor thread only.

    Of requests that succeed, it takes a share of ``sample``, which ``dice`` draws; all others it takes.
    """

    def __init__(
        self, entries: Entries, *, sample: float, dice: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        self._entries = entries
        self._sample = sample
        self._dice = dice
        self._wall_clock = wall_clock

    def began(self, exchange: Exchange) -> None:
        exchange.follow()

    def ended(self, exchange: Exchange) -> None:
        outcome = outcome_of(exchange)
        if outcome is OK and self._sample < 1 and self._dice() >= self._sample:
            return
        request, response = exchange.request, exchange.response
        documents, more = _counted(request)
        where = spent(request.journey, exchange.began_s, exchange.ended_s)
        bytes_out = None
        if response is not None:
            bytes_out = len(response.documents) + len(response.parameters or b"")
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
                len(request.documents) + len(request.parameters),
                bytes_out,
                outcome,
                exchange.ended_s - exchange.began_s,
                where.queue_s,
                where.executors_s,
                where.gateway_s,
            )
        )


def outcome_of(exchange: Exchange) -> str:
    """
    How a request ended: OK; RAISED, by an executor's method; CANCELLED, by its client; or an error's code.

    The codes are gRPC's, in lower case, for every protocol.
    """
    error = exchange.error
    if error is None:
        response = exchange.response
        return RAISED if response is not None and response.status else OK
    if isinstance(error, CancelledError):
        return CANCELLED
    return codes_for(error).grpc.lower()


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
    return found


def as_text(entry: Entry) -> str:
    """``name=value`` for each field, on one line without an end; ``-`` for what is not known."""
    return _words({"time": _rfc3339(entry.time_s), **fields_of(entry)})


def as_json(entry: Entry) -> str:
    """An object on one line without an end."""
    return json.dumps({"time": _rfc3339(entry.time_s), **fields_of(entry)})


class EntriesOfTheLog:
    """Writes entries to the gateway's log itself, whose lines have times of their own."""

    def add(self, entry: Entry) -> None:
        fields = fields_of(entry)
        log.info("{entry}", entry=_words(fields), **{FIELDS: fields})


def _words(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_word(found)}" for name, found in fields.items())


def _word(found: Any) -> str:
    """Without blanks and control characters: nobody adds fields or lines by a name that they choose."""
    if found is None or found == "":
        return "-"
    if found is True:
        return "true"
    text = str(found)
    plain = text.isascii() and text.isprintable() and not set(text) & {" ", '"', "=", "\\"} and text != "-"
    return text if plain else json.dumps(text)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _rfc3339(time_s: float) -> str:
    moment = datetime.datetime.fromtimestamp(time_s, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
