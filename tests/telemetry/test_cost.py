"""What it costs to trace a request: counted as tests/test_hot_path.py counts, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from gatewayd.telemetry.tracer import Tracer
from tests.memory_gateway import MemoryGateway, counting
from tests.test_hot_path import CASES, MOST, REQUESTS, check_for_garbage

# Calls of Python functions for one request over gRPC, besides those of one that is not traced.
MOST_IF_KEPT: Final = 61
MOST_IF_NOT: Final = 19


class Traced:
    """A gateway in memory whose requests are traced; spans are dropped."""

    def __init__(self, sample: float) -> None:
        self.spans = 0
        reactor: list[Any] = []
        tracer = Tracer(sample, self._export, lambda: float(reactor[0].seconds()))
        self.gateway = MemoryGateway([tracer], tracing=True)
        reactor.append(self.gateway.reactor)

    def _export(self, spans: Any) -> None:
        self.spans += len(spans)


@pytest.fixture(params=[0.0, 1.0])
def traced(request: pytest.FixtureRequest) -> Iterator[Traced]:
    made = Traced(request.param)
    yield made
    made.gateway.close()


@pytest.mark.parametrize(("case", "client", "requests"), CASES)
def test_a_traced_request_leaves_nothing_for_the_garbage_collector(
    traced: Traced, case: str, client: Any, requests: int
) -> None:
    check_for_garbage(client(traced.gateway), case)


@pytest.mark.parametrize(("sample", "most"), [(0.0, MOST_IF_NOT), (1.0, MOST_IF_KEPT)])
def test_a_traced_request_takes_few_calls_more(sample: float, most: int) -> None:
    traced = Traced(sample)
    _, client, _ = CASES[0]
    ask = client(traced.gateway)
    ask()
    before = traced.spans
    with counting() as found:
        for _ in range(REQUESTS):
            ask()
    traced.gateway.close()

    # The request, the deployment and the attempt.
    assert traced.spans - before == (3 * REQUESTS if sample else 0)
    assert sum(found.values()) // REQUESTS - MOST["grpc"] <= most, found.most_common(60)
