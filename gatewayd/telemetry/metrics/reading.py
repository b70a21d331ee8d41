"""
The figures of one or several processes at one moment, as plain values that can be united and sent (pure).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from gatewayd.telemetry.metrics.table import BY_NAME, Metric
from gatewayd.values import value

Labels = tuple[str, ...]

# What the name of an exemplar begins with that is the id of a trace which is kept, not of a request. No id of
# a request that is shown has a blank.
TRACE_ID: Final = "trace "

# Ids of clients that can be exemplars: OpenMetrics allows 128 characters for the labels of one, with their
# names, and its parsers differ about those that have to be escaped.
_SHOWABLE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,100}")


@value
class HistogramValue:
    """
    ``counts`` of each bucket alone, the infinite one last; ``total`` is the sum of what was observed.

    ``exemplars`` are the last in their buckets: the bucket's number, the id of the request or of its trace,
    and what it took.
    """

    counts: tuple[int, ...]
    total: float
    exemplars: tuple[tuple[int, str, float], ...] = ()

    def united_with(self, other: HistogramValue) -> HistogramValue:
        """What both have observed."""
        exemplars = {at: (at, name, value) for at, name, value in (*other.exemplars, *self.exemplars)}
        counts = tuple(one + more for one, more in zip(self.counts, other.counts, strict=True))
        return HistogramValue(
            counts, self.total + other.total, tuple(exemplars[at] for at in sorted(exemplars))
        )

    def quantile(self, share: float, bounds: tuple[float, ...]) -> float | None:
        """
        Below what ``share`` of the observations are, as far as the buckets tell; None without any.

        Within a bucket it is interpolated, as by Prometheus's histogram_quantile; above the last bound it is
        that bound.
        """
        rank = share * sum(self.counts)
        seen = 0
        for at, count in enumerate(self.counts):
            if count and seen + count >= rank:
                if at == len(bounds):
                    return bounds[-1]
                low = bounds[at - 1] if at else 0.0
                return low + (bounds[at] - low) * max(0.0, rank - seen) / count
            seen += count
        return None


class Histogram:
    """One that is being filled. Whoever is in a hurry does what ``observe`` does by hand."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, metric: Metric, *, has_exemplars: bool = True) -> None:
        self.bounds = metric.bounds
        self.counts = [0] * (len(metric.bounds) + 1)
        self.total = 0.0
        # The id of a request, or the number of a trace.
        self.exemplars: list[tuple[str | int, float] | None] = []
        if has_exemplars:
            self.exemplars = [None] * len(self.counts)

    def observe(self, value: float, name: str | int | None = None) -> None:
        """With a ``name`` as the exemplar of its bucket: the id of a request, or the number of a trace."""
        at = bisect_left(self.bounds, value)
        self.counts[at] += 1
        self.total += value
        if name is not None:
            self.exemplars[at] = (name, value)

    def value(self) -> HistogramValue:
        """As it is now."""
        exemplars: tuple[tuple[int, str, float], ...] = ()
        if self.exemplars:
            exemplars = tuple(
                [
                    (at, name, found[1])
                    for at, found in enumerate(self.exemplars)
                    if found is not None and (name := _shown(found[0])) is not None
                ]
            )
        return HistogramValue(tuple(self.counts), self.total, exemplars)


def _shown(name: str | int) -> str | None:
    """The name of an exemplar; None for an id of a client's that cannot be one."""
    if isinstance(name, int):
        return f"{TRACE_ID}{name:032x}"
    return name if _SHOWABLE_ID.fullmatch(name) else None


Value = float | HistogramValue


class Reading:
    """Values by metric and labels; of metrics of the table only."""

    def __init__(self) -> None:
        self._values: dict[str, dict[Labels, Value]] = {}

    def set(self, metric: Metric, value: Value, *labels: str) -> None:
        """``labels`` are the values of the metric's, in their order."""
        assert len(labels) == len(metric.labels), metric.name
        self._values.setdefault(metric.name, {})[labels] = value

    def add(self, metric: Metric, value: Value, *labels: str) -> None:
        """As ``set``, united with the value that there is."""
        known = self.of(metric).get(labels)
        self.set(metric, value if known is None else _united(metric, known, value), *labels)

    def of(self, metric: Metric) -> Mapping[Labels, Value]:
        """Its values by labels; none where nobody has set any."""
        return self._values.get(metric.name, {})

    def number(self, metric: Metric, *labels: str) -> float:
        """The value of a counter or gauge; 0 without."""
        value = self.of(metric).get(labels, 0.0)
        assert not isinstance(value, HistogramValue), metric.name
        return value

    def total(self, metric: Metric) -> float:
        """The sum of a counter or gauge over all labels."""
        return sum(value for value in self.of(metric).values() if not isinstance(value, HistogramValue))

    def __iter__(self) -> Iterator[tuple[Metric, Mapping[Labels, Value]]]:
        """In the order of the table."""
        for name, metric in BY_NAME.items():
            if name in self._values:
                yield metric, self._values[name]

    def unite(self, other: Reading) -> None:
        """Take in what another process has read."""
        for metric, values in other:
            own = self._values.setdefault(metric.name, {})
            for labels, one in values.items():
                own[labels] = _united(metric, own[labels], one) if labels in own else one

    def counted(self) -> Reading:
        """Counters and histograms that are of no process alone: what stays true of one that has ended."""
        kept = Reading()
        for metric, values in self:
            if metric.kind != "gauge" and "process" not in metric.labels:
                kept._values[metric.name] = dict(values)
        return kept

    def as_text(self) -> str:
        """For ``from_text`` in another process. Pure, but not quick where there are many series."""
        found = {
            name: [[*labels, _packed(value)] for labels, value in values.items()]
            for name, values in self._values.items()
        }
        return orjson.dumps(found).decode()

    @classmethod
    def from_text(cls, text: str) -> Reading:
        """The inverse of ``as_text``. Raises ValueError for what is none."""
        reading = cls()
        try:
            for name, rows in orjson.loads(text).items():
                for *labels, value in rows:
                    reading.set(BY_NAME[name], _unpacked(value), *labels)
        except (KeyError, TypeError, AttributeError, AssertionError, orjson.JSONDecodeError) as error:
            raise ValueError(f"no reading of metrics: {error!r}") from None
        return reading


def _united(metric: Metric, one: Value, other: Value) -> Value:
    if isinstance(one, HistogramValue):
        assert isinstance(other, HistogramValue)
        return one.united_with(other)
    assert not isinstance(other, HistogramValue)
    return one + other if metric.united == "sum" else max(one, other)


def _packed(value: Value) -> Any:
    if isinstance(value, HistogramValue):
        return {"counts": value.counts, "total": value.total, "exemplars": value.exemplars}
    return value


def _unpacked(value: Any) -> Value:
    if isinstance(value, dict):
        exemplars = tuple((int(at), str(name), float(took)) for at, name, took in value["exemplars"])
        return HistogramValue(tuple(map(int, value["counts"])), float(value["total"]), exemplars)
    return float(value)
