"""A failure that nobody handled, or that was logged, fails the test which did not ask for it."""

import gc

import pytest
from twisted.logger import globalLogPublisher


@pytest.fixture(scope="session", autouse=True)
def _imported_code_is_not_garbage():
    """Without it each test would look through all modules for garbage."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def caught_failures():
    """The failures logged during the test; one that expects some empties the list."""
    failures = []

    def watch(event):
        if event.get("log_failure") is not None:
            failures.append(event["log_failure"])

    globalLogPublisher.addObserver(watch)
    try:
        yield failures
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(watch)
    assert not failures, [failure.getTraceback() for failure in failures]
