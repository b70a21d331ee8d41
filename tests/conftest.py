"""What holds for every test: a failure that nothing handled, or that was logged, fails it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from gatewayd.allowance import Allowance
from gatewayd.bounded_log import BoundedLogger

# How long an example takes says more about the machine than about the code.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("untimed")

# For ``python -m tests.fuzz``: more of what is made up, where a test does not say how much.
settings.register_profile("fuzz", parent=settings.get_profile("untimed"), max_examples=2000)

# A shell that runs the tests in the background has SIGINT ignored, and children inherit that: tests of
# Ctrl-C would wait for ever. A handler of ours becomes the default in a child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def _what_was_there_before_is_not_garbage() -> None:
    """Without it each test would look through all imported code for garbage: slower than most tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _modules_from_a_tests_folder_are_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Another test's module of that name would find this one's, in the order in which they happen to run."""
    known = set(sys.modules)
    yield
    folders = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(folders):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def caught_failures() -> Iterator[list[Failure]]:
    """
    The failures logged during the test; one that expects some empties the list.

    Twisted logs the failure of a Deferred that nothing handles when it is collected as garbage, asyncio the
    exception of a task or a callback through its logger.
    """
    failures: list[Failure] = []
    # What earlier tests have logged leaves no line of this one out.
    BoundedLogger.allowance = Allowance()

    def watch(event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            failures.append(event["log_failure"])

    class Watcher(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            if isinstance(error, BlockingIOError) and "PollerCompletionQueue" in record.getMessage():
                # grpc.aio with two loops in a process, as tests have: one finds that the other has read the
                # pipe they share. Nothing is lost.
                return
            failures.append(Failure(error or AssertionError(record.getMessage())))

    watcher = Watcher(logging.ERROR)
    asyncio_log = logging.getLogger(asyncio.__name__)
    globalLogPublisher.addObserver(watch)
    asyncio_log.addHandler(watcher)
    try:
        yield failures
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(watch)
        asyncio_log.removeHandler(watcher)
    assert not failures, [failure.getTraceback() for failure in failures]
