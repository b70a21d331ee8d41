"""
``gatewayd replay``: sends recorded requests again, and tells what differs in the answers.

Each request is a call of its own, over any protocol, so that one that fails does not end the others. They are
sent one after the other, at a rate, or when they came at the time.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import attrs
from google.protobuf.message import DecodeError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatewayd.cli.differing import Difference, Ignored, differences
from gatewayd.cli.output import fail, note
from gatewayd.client.address import GatewayAddress
from gatewayd.client.exchange import Arrived, Ended, Exchange
from gatewayd.client.hints import never_connected
from gatewayd.client.inputs import Message
from gatewayd.client.loop import LoopThread
from gatewayd.client.post import Post
from gatewayd.client.transport_handle import TransportHandle
from gatewayd.client.transports.base import Transport
from gatewayd.messages import wire
from gatewayd.messages.wire import Malformed
from gatewayd.recording import Heading, Kind, NotARecording, Recorded, heading_of, recorded_of

Pairs = tuple[tuple[str, str], ...]

# With a rate, or the times of the recording: what is under way, and kept until its answer has been compared.
_MOST_UNDER_WAY: Final = 500
# Of differences: those of one request, and of all, that are shown. All are counted.
_SHOWN_OF_ONE: Final = 5
_SHOWN: Final = 50

# The exit code when no connection can be made: nothing is known of the answers.
UNREACHABLE: Final = 2


class _NobodyThere(Exception):
    """No connection can be made to the gateway; the text says why."""


@attrs.frozen
class Pace:
    """
    When requests are sent: ``rate`` a second, or as ``recorded``, ``speed`` times as fast; without either,
    each when the one before it is answered.
    """

    rate: float | None = None
    recorded: bool = False
    speed: float = 1.0

    @property
    def most_under_way(self) -> int:
        return _MOST_UNDER_WAY if self.recorded or self.rate else 1

    def due_s(self, index: int, recorded: Recorded, first: Recorded) -> float:
        """When a request is sent, in seconds after the first."""
        if self.rate:
            return index / self.rate
        return max(0.0, recorded.at - first.at) / self.speed if self.recorded else 0.0


@attrs.frozen
class Outcome:
    """What came of a request that was sent again."""

    recorded: Recorded
    kind: Kind
    took_s: float
    message: bytes | None = attrs.field(default=None, repr=False)
    error: str = ""


@attrs.define
class Report:
    """All that a replay found. ``skipped`` are requests whose clients had left before they were answered."""

    requests: int = 0
    skipped: int = 0
    same: int = 0
    fields: Counter[str] = attrs.field(factory=Counter)
    shown: list[tuple[Recorded, Difference]] = attrs.field(factory=list)
    before_s: dict[str, list[float]] = attrs.field(factory=dict)
    now_s: dict[str, list[float]] = attrs.field(factory=dict)
    differing: Counter[str] = attrs.field(factory=Counter)

    @property
    def differs(self) -> bool:
        return self.same < self.requests

    def add(self, outcome: Outcome, found: list[Difference]) -> None:
        """Count one request, and what is different in its answer."""
        recorded = outcome.recorded
        self.requests += 1
        self.before_s.setdefault(recorded.endpoint, []).append(recorded.took_s)
        self.now_s.setdefault(recorded.endpoint, []).append(outcome.took_s)
        if not found:
            self.same += 1
            return
        self.differing[recorded.endpoint] += 1
        for each in found:
            self.fields[_without_indices(each.field)] += 1
        if len(self.shown) < _SHOWN:
            self.shown += [(recorded, each) for each in found[:_SHOWN_OF_ONE]]


def replay(
    file: Path,
    address: GatewayAddress,
    pace: Pace,
    *,
    headers: Pairs,
    timeout_s: float,
    ignore: tuple[str, ...],
    tolerance: float,
    limit: int | None = None,
) -> int:
    """
    Returns the exit code: 0 if all answers are the same, 1 if some differ, or the file cannot be read, and
    UNREACHABLE as soon as no connection can be made.

    At most ``limit`` requests are sent. Ctrl-C ends it with the report of those that were answered.
    """
    try:
        heading, lines = _opened(file)
        sending = _Sending(address, headers, timeout_s)
        ignored = Ignored((*ignore, *_redacted(heading)))
        report = Report()
        try:
            for outcome in _replayed(islice(recorded_of(lines), limit), pace, sending, report):
                report.add(outcome, compared(outcome, ignored, tolerance))
        except KeyboardInterrupt:
            note("stopped: this is of the requests that were answered")
        except _NobodyThere as error:
            if report.requests:
                show(report)
            return fail(f"the gateway cannot be reached: {error}", UNREACHABLE)
        finally:
            sending.close()
    except OSError as error:
        return fail(f"{file} cannot be read: {error.strerror or error}")
    except NotARecording as error:
        return fail(f"{file} is no recording: {error}")
    show(report)
    if not report.requests:
        return fail(f"{file} has no request that could be sent again")
    return 1 if report.differs else 0


def compared(outcome: Outcome, ignored: Ignored, tolerance: float) -> list[Difference]:
    """How the answer is another than the recorded one."""
    recorded = outcome.recorded
    before = recorded.error or recorded.outcome
    now = outcome.error if outcome.kind == "failed" else outcome.kind
    if recorded.kind != outcome.kind:
        return [Difference("outcome", before, now)]
    if recorded.response is None or outcome.message is None:
        return []  # both failed; whoever says why may say it in other words
    try:
        return differences(recorded.response, outcome.message, ignored=ignored, tolerance=tolerance)
    except DecodeError as error:
        return [Difference("response", "", f"cannot be read: {error}")]


def _opened(file: Path) -> tuple[Heading, Iterator[bytes]]:
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        raise NotARecording("it is empty")
    return heading_of(first), lines


def _lines(file: Path) -> Iterator[bytes]:
    """Those that are there now: the gateway may record into this very file what it is sent."""
    with file.open("rb") as opened:
        found = os.fstat(opened.fileno())
        left = found.st_size if stat.S_ISREG(found.st_mode) else sys.maxsize
        while left > 0 and (line := opened.readline(left)):
            left -= len(line)
            yield line


def _redacted(heading: Heading) -> Iterator[str]:
    """What is not in the file cannot be compared."""
    for rule in heading.redacted:
        yield rule if rule.startswith("parameters") else f"data.docs[].{rule}"
    if heading.redacted:
        yield "header.status.description"
        yield "header.status.exception.args"


class _Sending:
    """Sends single requests with the Client's transport."""

    def __init__(
        self, address: GatewayAddress, headers: tuple[tuple[str, str], ...], timeout_s: float
    ) -> None:
        self._handle = TransportHandle(address)
        self._loop: LoopThread
        self._transport: Transport
        self._loop, self._transport = self._handle.get()
        self._post = Post(on="/", timeout=timeout_s, headers=dict(headers), stream=False)

    def send(self, recorded: Recorded, put: Callable[[Arrived | Ended], None]) -> Exchange:
        """Raises Malformed for a request that cannot be read."""
        request = wire.decode_request(recorded.request)
        exchange = Exchange(self._loop, partial(self._transport.exchange, self._post), put)
        exchange.send(Message(request.request_id, self._transport.encode(request)))
        exchange.finish()
        return exchange

    def close(self) -> None:
        if held := self._handle.take():
            loop, transport = held
            loop.run(loop.closed(transport))


def _replayed(
    requests: Iterator[Recorded], pace: Pace, sending: _Sending, report: Report
) -> Iterator[Outcome]:
    """Send the requests when they are due, and give what comes of each when it has come."""
    inbox: SimpleQueue[tuple[int, float, Arrived | Ended]] = SimpleQueue()
    under_way: dict[int, _UnderWay] = {}
    first: Recorded | None = None
    began_s = time.monotonic()
    index = 0

    def put(number: int, arrival: Arrived | Ended) -> None:
        inbox.put((number, time.monotonic(), arrival))

    def wait(timeout_s: float | None) -> Iterator[Outcome]:
        """What arrives within the time, one arrival at most."""
        try:
            number, now_s, arrival = inbox.get(timeout=timeout_s)
        except Empty:
            return
        outcome = under_way[number].outcome(arrival, now_s)
        if outcome is not None:
            del under_way[number]
            yield outcome

    try:
        for recorded in requests:
            if recorded.kind == "cancelled":
                report.skipped += 1
                continue
            first = first or recorded
            due_s = began_s + pace.due_s(index, recorded, first)
            while (left_s := due_s - time.monotonic()) > 0:
                yield from wait(left_s)
            while len(under_way) >= pace.most_under_way:
                yield from wait(None)
            entry = under_way[index] = _UnderWay(recorded, time.monotonic())
            try:
                entry.exchange = sending.send(recorded, partial(put, index))
            except Malformed as error:
                del under_way[index]
                yield Outcome(recorded, "failed", 0.0, error=f"the recorded request is malformed: {error}")
            index += 1
        while under_way:
            yield from wait(None)
    finally:
        for entry in under_way.values():
            if entry.exchange is not None:
                entry.exchange.cancel()


@attrs.define
class _UnderWay:
    """A request that was sent, and the answer, if it has come."""

    recorded: Recorded
    sent_s: float
    exchange: Exchange | None = None
    answered_s: float | None = None
    response: Any = None

    def outcome(self, arrival: Arrived | Ended, now_s: float) -> Outcome | None:
        """What came of it, when it has ended."""
        if isinstance(arrival, Arrived):
            self.answered_s, self.response = now_s, arrival
            return None
        took_s = (self.answered_s or now_s) - self.sent_s
        error = arrival.error
        if error is not None and never_connected(error):
            raise _NobodyThere(str(error))
        if self.response is not None and error is None:
            try:
                response = self.response.read()
            except Exception as failure:
                error = failure
            else:
                kind: Kind = "executor_error" if response.failed else "ok"
                return Outcome(self.recorded, kind, took_s, response.message())
        return Outcome(self.recorded, "failed", took_s, error=f"{type(error).__name__}: {error}")


# -- the report -------------------------------------------------------------------------------------------


def show(report: Report) -> None:
    """Print what was found."""
    console = Console(highlight=False)
    times = Table(title=None, box=None, pad_edge=False)
    for name in ("endpoint", "requests", "differ", "p50 before", "p50 now", "p99 before", "p99 now"):
        times.add_column(name, justify="left" if name == "endpoint" else "right", no_wrap=True)
    for endpoint, now in sorted(report.now_s.items()):
        before = report.before_s[endpoint]
        times.add_row(
            Text(_printable(endpoint or "(none)")),
            str(len(now)),
            str(report.differing[endpoint]),
            *(f"{_quantile(each, share) * 1000:.1f} ms" for share in (0.5, 0.99) for each in (before, now)),
        )
    if report.now_s:
        console.print(times)
    if report.shown:
        console.print()
        fields = Table(box=None, pad_edge=False)
        for name in ("request", "field", "before", "now"):
            fields.add_column(name, overflow="fold")
        for recorded, each in report.shown:
            fields.add_row(*(Text(_printable(text)) for text in (
                recorded.request_id, each.field, each.before, each.now,
            )))  # fmt: skip
        console.print(fields)
    if report.fields:
        console.print()
        most = ", ".join(f"{field} ({count})" for field, count in report.fields.most_common(10))
        console.print(Text(f"fields that differ: {_printable(most)}"))
    if report.skipped:
        note(f"{report.skipped} requests were not sent: their clients had left")
    console.print(Text(f"{report.same} of {report.requests} answers are the same"))


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _without_indices(field: str) -> str:
    """The same for all documents: ``data.docs[].text``."""
    return re.sub(r"\[\d+\]", "[]", field)


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()
