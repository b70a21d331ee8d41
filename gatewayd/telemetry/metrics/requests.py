"""
Counts requests by protocol, endpoint and outcome, with how long they took and how large they were.

This is on the hot path: lists of ints that are indexed, and nothing that is called for each request but what
finds an index. Endpoints are a client's words; those that the Flow knows have series of their own, and all
others share one, so that no client makes us hold more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable
from typing import Final

from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.outcomes import EXECUTOR_ERROR, OK, outcome_of
from gatewayd.telemetry.metrics.reading import Histogram, Reading
from gatewayd.telemetry.observed import Exchange

OTHER: Final = "other"
# Flows have dozens; executors that bind more share the series of all others.
MOST_ENDPOINTS: Final = 250
# Endpoints become known while executors start; what is unknown is not looked for more often than this.
_LOOK_S: Final = 1.0


# Those of the histograms below; integers, because comparing those with integers is quicker.
_SECONDS: Final = table.REQUEST_SECONDS.bounds
_SIZES: Final = tuple(map(int, table.REQUEST_BYTES.bounds))
assert table.CALL_SECONDS.bounds == _SECONDS
assert table.RESPONSE_BYTES.bounds == table.REQUEST_BYTES.bounds


class _Streams:
    """What is counted of streams besides."""

    __slots__ = ("answers", "first", "gap")

    def __init__(self) -> None:
        self.answers = 0
        self.first = Histogram(table.STREAM_FIRST_SECONDS, has_exemplars=False)
        self.gap = Histogram(table.STREAM_GAP_SECONDS, has_exemplars=False)


class _Series:
    """The figures of one protocol and endpoint; ``streams`` is None until the first of them has ended."""

    __slots__ = ("answered", "asked", "outcomes", "seconds", "streams")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {OK: 0}
        self.seconds = Histogram(table.REQUEST_SECONDS)
        self.asked = Histogram(table.REQUEST_BYTES, has_exemplars=False)
        self.answered = Histogram(table.RESPONSE_BYTES, has_exemplars=False)
        self.streams: _Streams | None = None


class RequestMetrics:
    """
    An Observer. ``bound()`` are the endpoints that executors bind now; ``named`` are further ones, of the
    settings. Reactor thread only.
    """

    def __init__(
        self, named: Iterable[str], bound: Callable[[], Collection[str]], deployments: Iterable[str] = ()
    ) -> None:
        self._named = frozenset(named)
        self._bound = bound
        self._known: Collection[str] = self._named
        self._looked_s = -_LOOK_S
        self._series: dict[tuple[str, str], _Series] = {}
        self._calls: dict[str, Histogram] = {}
        self._errors: dict[str, int] = {}
        self._begun = 0
        self._ended = 0
        self._streams_begun = 0
        self._streams_ended = 0
        self.measure(deployments)

    def measure(self, deployments: Iterable[str]) -> None:
        """Measure the calls of these as well, from now on; those that are measured already go on."""
        for name in deployments:
            if name not in self._calls:
                self._calls[name] = Histogram(table.CALL_SECONDS, has_exemplars=False)
                self._errors[name] = 0

    def began(self, exchange: Exchange) -> None:
        self._begun += 1
        if exchange.answers is not None:
            self._streams_begun += 1

    def ended(self, exchange: Exchange) -> None:
        self._ended += 1
        request, response = exchange.request, exchange.response
        series = self._series.get((exchange.protocol, request.endpoint))
        if series is None:
            series = self._series_of(exchange)
        took_s = exchange.ended_s - exchange.began_s
        if response is None:
            assert exchange.error is not None
            outcome = outcome_of(exchange.error)
            series.outcomes[outcome] = series.outcomes.get(outcome, 0) + 1
            if outcome is EXECUTOR_ERROR:  # of a stream; the route of any other request tells it
                deployment = getattr(exchange.error, "deployment", "")
                if deployment in self._errors:
                    self._errors[deployment] += 1
        else:
            if response.status:
                series.outcomes[EXECUTOR_ERROR] = series.outcomes.get(EXECUTOR_ERROR, 0) + 1
            else:
                series.outcomes[OK] += 1
            if exchange.answers is None:
                size = len(response.documents) + len(response.parameters or b"")
                sizes = series.answered
                sizes.counts[bisect_left(_SIZES, size)] += 1
                sizes.total += size
            for route in response.routes:
                calls = self._calls.get(route.executor)
                if calls is not None and route.end_time is not None:
                    call_s = route.end_time - route.start_time
                    calls.counts[bisect_left(_SECONDS, call_s)] += 1
                    calls.total += call_s
                    if route.status:
                        self._errors[route.executor] += 1
        if exchange.answers is not None:
            self._stream_ended(series, exchange, exchange.answers)
        seconds = series.seconds
        at = bisect_left(_SECONDS, took_s)
        seconds.counts[at] += 1
        seconds.total += took_s
        name: str | int = request.request_id
        journey = request.journey
        if journey is not None and journey.trace is not None:
            name = journey.trace.context.trace_id
        seconds.exemplars[at] = (name, took_s)
        size = len(request.documents) + len(request.parameters)
        sizes = series.asked
        sizes.counts[bisect_left(_SIZES, size)] += 1
        sizes.total += size

    def read(self, reading: Reading) -> None:
        """Add what was counted to ``reading``."""
        reading.set(table.REQUESTS_UNDER_WAY, self._begun - self._ended)
        reading.set(table.STREAMS_UNDER_WAY, self._streams_begun - self._streams_ended)
        for labels, series in self._series.items():
            for outcome, count in series.outcomes.items():
                reading.set(table.REQUESTS, count, *labels, outcome)
            reading.set(table.REQUEST_SECONDS, series.seconds.value(), *labels)
            reading.set(table.REQUEST_BYTES, series.asked.value(), *labels)
            reading.set(table.RESPONSE_BYTES, series.answered.value(), *labels)
            if (streams := series.streams) is not None:
                reading.set(table.STREAM_ANSWERS, streams.answers, *labels)
                reading.set(table.STREAM_FIRST_SECONDS, streams.first.value(), *labels)
                reading.set(table.STREAM_GAP_SECONDS, streams.gap.value(), *labels)
        for name, calls in self._calls.items():
            reading.set(table.CALL_SECONDS, calls.value(), name)
            reading.set(table.CALL_ERRORS, self._errors[name], name)

    def _stream_ended(self, series: _Series, exchange: Exchange, answers: int) -> None:
        """Its client has got ``answers``, whether it came to its end, failed, or was cancelled."""
        self._streams_ended += 1
        streams = series.streams
        if streams is None:
            streams = series.streams = _Streams()
        streams.answers += answers
        if exchange.first_s is not None:
            streams.first.observe(exchange.first_s - exchange.began_s)
            series.answered.observe(exchange.answers_bytes)
            # Of one that was cancelled, the end says nothing. No clock is read for each answer.
            if answers > 1 and exchange.error is None:
                streams.gap.observe((exchange.ended_s - exchange.first_s) / (answers - 1))

    def _series_of(self, exchange: Exchange) -> _Series:
        endpoint = exchange.request.endpoint
        if not self._knows(endpoint, exchange.ended_s):
            endpoint = OTHER
        return self._series.setdefault((exchange.protocol, endpoint), _Series())

    def _knows(self, endpoint: str, now_s: float) -> bool:
        if endpoint not in self._known and now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            # Those that have been seen stay: a series does not end.
            bound = sorted({*self._known, *self._bound()} - self._named)
            self._known = self._named | set(bound[: max(0, MOST_ENDPOINTS - len(self._named))])
        return endpoint in self._known
