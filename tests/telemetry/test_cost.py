"""
What it costs to trace a request, and to have a line of it in the access log: counted as
tests/test_hot_path.py counts, and nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from twisted.internet.defer import execute

from gatewayd.telemetry.access_file import AccessFile
from gatewayd.telemetry.access_log import AccessLog, Entry, as_json, as_text
from gatewayd.telemetry.tracer import Tracer
from tests.memory_gateway import MemoryGateway, counting
from tests.test_hot_path import CASES, MOST, REQUESTS, check_for_garbage

# Calls of Python functions for one request over gRPC, besides those of one that is not traced.
MOST_IF_KEPT: Final = 62
MOST_IF_NOT: Final = 19
# Those for a line of the access log, whatever the protocol.
MOST_TO_LOG: Final = 26


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


class Logged:
    """A gateway in memory with an access log."""

    def __init__(self, path: Path, form: Callable[[Entry], str]) -> None:
        reactor: list[Any] = []

        class Clock:
            """That of the gateway, which is made later."""

            def __getattr__(self, name: str) -> Any:
                return getattr(reactor[0], name)

        clock: Any = Clock()
        self.file = AccessFile(str(path), form, clock, execute)
        log = AccessLog(self.file, sample=1.0, dice=lambda: 0.0, wall_clock=lambda: 1.7e9)
        self.gateway = MemoryGateway([log])
        reactor.append(self.gateway.reactor)

    def close(self) -> None:
        self.file.stop()
        self.gateway.close()


@pytest.fixture(params=[as_text, as_json], ids=["text", "json"])
def logged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Logged]:
    made = Logged(tmp_path / "access.log", request.param)
    yield made
    made.close()


@pytest.mark.parametrize(("case", "client", "requests"), CASES)
def test_a_line_of_the_access_log_takes_few_calls_more(
    logged: Logged, tmp_path: Path, case: str, client: Any, requests: int
) -> None:
    ask = client(logged.gateway)
    ask()
    ask()
    with counting() as found:
        for _ in range(REQUESTS):
            ask()
    logged.file.reopen()  # what is waiting is written before that

    assert sum(found.values()) // (REQUESTS * requests) - MOST[case] <= MOST_TO_LOG, found.most_common(60)
    assert len((tmp_path / "access.log").read_text().splitlines()) == (REQUESTS + 2) * requests


@pytest.mark.parametrize(("case", "client", "requests"), CASES)
def test_a_logged_request_leaves_nothing_for_the_garbage_collector(
    logged: Logged, case: str, client: Any, requests: int
) -> None:
    check_for_garbage(client(logged.gateway), case)
