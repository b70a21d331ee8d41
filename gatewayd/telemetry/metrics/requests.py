"""
Counts requests by protocol, endpoint and outcome, with how long they took and how large they were.

This is on the hot path: lists of ints that are indexed, and nothing that is called for each request but what
finds an index. Endpoints are a client's words; those that the Flow knows have series of their own, and all
others of a protocol share one, so that no client makes us hold more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from gatewayd.messages.request import Request, Response, Route
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.outcomes import EXECUTOR_ERROR, OK, ended_as
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
    """The figures of one endpoint; ``streams`` is None until the first of them has ended."""

    __slots__ = ("answered", "asked", "outcomes", "seconds", "streams")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {OK: 0}
        self.seconds = Histogram(table.REQUEST_SECONDS)
        self.asked = Histogram(table.REQUEST_BYTES, has_exemplars=False)
        self.answered = Histogram(table.RESPONSE_BYTES, has_exemplars=False)
        self.streams: _Streams | None = None


class ProtocolFigures:
    """
    What is counted of one protocol, by endpoint: the ``Figures`` of an ``Observed``.

    ``calls`` and ``errors`` are by deployment, and of all protocols together. ``label_of`` gives the name of
    an endpoint's series, at a time of the reactor's clock.
    """

    __slots__ = ("_calls", "_errors", "_label_of", "series", "streams_under_way", "under_way")

    def __init__(
        self, calls: Mapping[str, Histogram], errors: dict[str, int], label_of: Callable[[str, float], str]
    ) -> None:
        self.under_way = 0
        self.streams_under_way = 0
        self.series: dict[str, _Series] = {}
        self._calls = calls
        self._errors = errors
        self._label_of = label_of

    def answered(self, request: Request, response: Response, began_s: float, ended_s: float) -> None:
        """The usual case by hand: one call for each request."""
        series = self.series.get(request.endpoint)
        if series is None:
            series = self._series_of(request.endpoint, ended_s)
        if response.status:
            series.outcomes[EXECUTOR_ERROR] = series.outcomes.get(EXECUTOR_ERROR, 0) + 1
        else:
            series.outcomes[OK] += 1
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
        took_s = ended_s - began_s
        seconds = series.seconds
        at = bisect_left(_SECONDS, took_s)
        seconds.counts[at] += 1
        seconds.total += took_s
        journey = request.journey
        if journey is None or journey.trace is None:
            seconds.exemplars[at] = (request.request_id, took_s)
        else:
            seconds.exemplars[at] = (journey.trace.context.trace_id, took_s)
        size = len(request.documents) + len(request.parameters)
        sizes = series.asked
        sizes.counts[bisect_left(_SIZES, size)] += 1
        sizes.total += size

    def ended(self, exchange: Exchange) -> None:
        request, response = exchange.request, exchange.response
        if response is not None and exchange.answers is None:
            self.answered(request, response, exchange.began_s, exchange.ended_s)
            return
        series = self.series.get(request.endpoint)
        if series is None:
            series = self._series_of(request.endpoint, exchange.ended_s)
        outcome = ended_as(response, exchange.error)
        series.outcomes[outcome] = series.outcomes.get(outcome, 0) + 1
        if response is not None:
            self._count_calls(response.routes)
        elif outcome is EXECUTOR_ERROR:  # of a stream; the route of any other request tells it
            deployment = getattr(exchange.error, "deployment", "")
            if deployment in self._errors:
                self._errors[deployment] += 1
        if exchange.answers is not None:
            _stream_ended(series, exchange, exchange.answers)
        took_s = exchange.ended_s - exchange.began_s
        series.seconds.observe(took_s, _name_of(request))
        series.asked.observe(exchange.bytes_in)

    def _count_calls(self, routes: Iterable[Route]) -> None:
        for route in routes:
            calls = self._calls.get(route.executor)
            if calls is not None and route.end_time is not None:
                calls.observe(route.end_time - route.start_time)
                if route.status:
                    self._errors[route.executor] += 1

    def _series_of(self, endpoint: str, now_s: float) -> _Series:
        """Those of an endpoint that has none by its own name, or had none so far."""
        label = self._label_of(endpoint, now_s)
        found = self.series.get(label)
        if found is None:
            found = self.series[label] = _Series()
        return found


def _stream_ended(series: _Series, exchange: Exchange, answers: int) -> None:
    """Its client has got ``answers``, whether it came to its end, failed, or was cancelled."""
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


def _name_of(request: Request) -> str | int:
    """What an exemplar is found by: the trace, where one is kept, or the request's id."""
    journey = request.journey
    return request.request_id if journey is None or journey.trace is None else journey.trace.context.trace_id


class RequestMetrics:
    """
    The figures of all protocols. ``bound()`` are the endpoints that executors bind now; ``named`` are further
    ones, of the settings. Reactor thread only.
    """

    def __init__(
        self, named: Iterable[str], bound: Callable[[], Collection[str]], deployments: Iterable[str] = ()
    ) -> None:
        self._named = frozenset(named)
        self._bound = bound
        self._known: Collection[str] = self._named
        self._looked_s = -_LOOK_S
        self._protocols: dict[str, ProtocolFigures] = {}
        self._calls: dict[str, Histogram] = {}
        self._errors: dict[str, int] = {}
        self.measure(deployments)

    def measure(self, deployments: Iterable[str]) -> None:
        """Measure the calls of these as well, from now on; those that are measured already go on."""
        for name in deployments:
            if name not in self._calls:
                self._calls[name] = Histogram(table.CALL_SECONDS, has_exemplars=False)
                self._errors[name] = 0

    def of(self, protocol: str) -> ProtocolFigures:
        """Those of one protocol, which go on where they were asked for before."""
        found = self._protocols.get(protocol)
        if found is None:
            found = self._protocols[protocol] = ProtocolFigures(self._calls, self._errors, self._label_of)
        return found

    def read(self, reading: Reading) -> None:
        """Add what was counted to ``reading``."""
        protocols = self._protocols.values()
        reading.set(table.REQUESTS_UNDER_WAY, sum(each.under_way for each in protocols))
        reading.set(table.STREAMS_UNDER_WAY, sum(each.streams_under_way for each in protocols))
        for protocol, figures in self._protocols.items():
            for endpoint, series in figures.series.items():
                _read_series(reading, series, protocol, endpoint)
        for name, calls in self._calls.items():
            reading.set(table.CALL_SECONDS, calls.value(), name)
            reading.set(table.CALL_ERRORS, self._errors[name], name)

    def _label_of(self, endpoint: str, now_s: float) -> str:
        if endpoint not in self._known and now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            # Those that have been seen stay: a series does not end.
            bound = sorted({*self._known, *self._bound()} - self._named)
            self._known = self._named | set(bound[: max(0, MOST_ENDPOINTS - len(self._named))])
        return endpoint if endpoint in self._known else OTHER


def _read_series(reading: Reading, series: _Series, *labels: str) -> None:
    for outcome, count in series.outcomes.items():
        reading.set(table.REQUESTS, count, *labels, outcome)
    reading.set(table.REQUEST_SECONDS, series.seconds.value(), *labels)
    reading.set(table.REQUEST_BYTES, series.asked.value(), *labels)
    reading.set(table.RESPONSE_BYTES, series.answered.value(), *labels)
    if (streams := series.streams) is not None:
        reading.set(table.STREAM_ANSWERS, streams.answers, *labels)
        reading.set(table.STREAM_FIRST_SECONDS, streams.first.value(), *labels)
        reading.set(table.STREAM_GAP_SECONDS, streams.gap.value(), *labels)
