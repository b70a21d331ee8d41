"""What a replay found: counted as it goes, and shown at its end."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatewayd.cli.differing import Carried, Difference
from gatewayd.cli.output import note
from gatewayd.recording import Kind, Recorded

# Of differences: those of one request, and of all, that are shown. All are counted.
_SHOWN_OF_ONE: Final = 5
_SHOWN: Final = 50
# Reasons why requests cannot be sent; the rest is one sentence.
_REASONS: Final = 20


@attrs.frozen
class Outcome:
    """
    What came of a request that was sent again. Times are seconds.

    A stream has ``answers`` in the place of a ``message``: its first ones, of the ``count`` that came, and
    ``first_s`` is when the first of them had come.
    """

    recorded: Recorded
    kind: Kind
    took_s: float
    message: bytes | None = attrs.field(default=None, repr=False)
    error: str = ""
    carried: Carried = Carried.ALL
    answers: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    count: int = 0
    first_s: float | None = None


@attrs.frozen
class Unsendable:
    """A request that the protocol cannot carry, and why."""

    recorded: Recorded
    reason: str


@attrs.define
class _Streams:
    """Those of one endpoint."""

    streams: int = 0
    answers_before: int = 0
    answers_now: int = 0
    first_before_s: list[float] = attrs.field(factory=list)
    first_now_s: list[float] = attrs.field(factory=list)


@attrs.define
class Report:
    """
    All that a replay found.

    ``skipped`` are requests whose clients had left before they were answered, ``unsendable`` those that the
    protocol cannot carry, by endpoint and reason; neither is among the ``requests``. ``partly`` are answers
    of which the protocol carries a part, which alone was compared; ``cut`` are streams whose records were.
    """

    requests: int = 0
    skipped: int = 0
    same: int = 0
    cut: int = 0
    unsendable: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    partly: Counter[Carried] = attrs.field(factory=Counter)
    fields: Counter[str] = attrs.field(factory=Counter)
    shown: list[tuple[Recorded, Difference]] = attrs.field(factory=list)
    before_s: dict[str, list[float]] = attrs.field(factory=dict)
    now_s: dict[str, list[float]] = attrs.field(factory=dict)
    differing: Counter[str] = attrs.field(factory=Counter)
    streams: dict[str, _Streams] = attrs.field(factory=dict)

    @property
    def differs(self) -> bool:
        return self.same < self.requests

    def add(self, outcome: Outcome, found: list[Difference]) -> None:
        """Count one request, and what is different in its answer."""
        recorded = outcome.recorded
        self.requests += 1
        self.before_s.setdefault(recorded.endpoint, []).append(recorded.took_s)
        self.now_s.setdefault(recorded.endpoint, []).append(outcome.took_s)
        if outcome.carried is not Carried.ALL:
            self.partly[outcome.carried] += 1
        if recorded.answers is not None:
            self._add_stream(outcome)
        if not found:
            self.same += 1
            return
        self.differing[recorded.endpoint] += 1
        for each in found:
            self.fields[_without_indices(each.field)] += 1
        if len(self.shown) < _SHOWN:
            self.shown += [(recorded, each) for each in found[:_SHOWN_OF_ONE]]

    def refused(self, unsendable: Unsendable) -> None:
        """Count one request that was not sent."""
        self.unsendable[unsendable.recorded.endpoint, unsendable.reason] += 1

    def _add_stream(self, outcome: Outcome) -> None:
        before = outcome.recorded.answers
        assert before is not None
        found = self.streams.setdefault(outcome.recorded.endpoint, _Streams())
        found.streams += 1
        found.answers_before += before.count
        found.answers_now += outcome.count
        if before.first_s is not None:
            found.first_before_s.append(before.first_s)
        if outcome.first_s is not None:
            found.first_now_s.append(outcome.first_s)
        self.cut += bool(before.left_out)


def show(report: Report, protocol: str) -> None:
    """Print what was found over ``protocol``."""
    console = Console(highlight=False)
    if report.now_s:
        console.print(_times(report))
    if report.streams:
        console.print()
        console.print(_streams(report))
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
    for told in _notes(report, protocol):
        note(_printable(told))
    console.print(Text(f"{report.same} of {report.requests} answers are the same"))


def _times(report: Report) -> Table:
    times = Table(title=None, box=None, pad_edge=False)
    for name in ("endpoint", "requests", "differ", "p50 before", "p50 now", "p99 before", "p99 now"):
        times.add_column(name, justify="left" if name == "endpoint" else "right", no_wrap=True)
    for endpoint, now in sorted(report.now_s.items()):
        before = report.before_s[endpoint]
        times.add_row(
            Text(_printable(endpoint or "(none)")),
            str(len(now)),
            str(report.differing[endpoint]),
            *_quantiles(before, now),
        )
    return times


def _streams(report: Report) -> Table:
    """How many answers streams had, and how soon the first one came."""
    table = Table(title=None, box=None, pad_edge=False)
    names = (
        "streams of",
        "streams",
        "answers before",
        "now",
        "first p50 before",
        "now",
        "first p99 before",
        "now",
    )
    for name in names:
        table.add_column(name, justify="left" if name == "streams of" else "right", no_wrap=True)
    for endpoint, found in sorted(report.streams.items()):
        table.add_row(
            Text(_printable(endpoint or "(none)")),
            *(str(number) for number in (found.streams, found.answers_before, found.answers_now)),
            *_quantiles(found.first_before_s, found.first_now_s),
        )
    return table


def _notes(report: Report, protocol: str) -> list[str]:
    notes = []
    for carried, count in sorted(report.partly.items(), key=lambda each: each[0].value):
        notes.append(
            f"of the answers to {count} requests, {carried.value} alone were compared: nothing else came "
            f"over {protocol}"
        )
    if report.cut:
        notes.append(
            f"streams whose records were cut: {report.cut}; of what is not in them, the number of answers "
            "alone was compared"
        )
    if report.skipped:
        notes.append(f"not sent, as their clients had left before any answer: {report.skipped} requests")
    for (endpoint, reason), count in report.unsendable.most_common(_REASONS):
        notes.append(f"cannot be sent over {protocol}: {count} to {endpoint or '(none)'}: {reason}")
    more = len(report.unsendable) - _REASONS
    if more > 0:
        notes.append(f"and others cannot be sent, for {more} further reasons")
    return notes


def _quantiles(before: list[float], now: list[float]) -> list[str]:
    """p50 and p99, each before and now."""
    return [
        f"{_quantile(each, share) * 1000:.1f} ms" if each else "-"
        for share in (0.5, 0.99)
        for each in (before, now)
    ]


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _without_indices(field: str) -> str:
    """The same for all documents: ``data.docs[].text``."""
    return re.sub(r"\[\d+\]", "[]", field)


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()
