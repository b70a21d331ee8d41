"""
Waiting for a condition, with a deadline: in a thread, on the reactor, in an asyncio loop.

This is for what sends no event: another process, the other end of a connection. What does is waited for by
its event, and what goes by a clock gets ``twisted.internet.task.Clock``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

T = TypeVar("T")

DEADLINE_S: Final = 20.0
_LOOK_S: Final = 0.01


def until(condition: Callable[[], T], timeout_s: float = DEADLINE_S, what: object = "it") -> T:
    """
    Block until ``condition()`` is true, and return it.

    AssertionError after ``timeout_s`` seconds; ``what`` is said not to have come true: a text, or a function
    that makes one then.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        _check(deadline, what)
        time.sleep(_LOOK_S)
    return found


async def until_on_reactor(
    reactor: IReactorTime, condition: Callable[[], T], timeout_s: float = DEADLINE_S, what: object = "it"
) -> T:
    """As ``until``, while the reactor runs."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        _check(deadline, what)
        await deferLater(reactor, _LOOK_S)
    return found


async def until_in_loop(condition: Callable[[], T], timeout_s: float = DEADLINE_S, what: object = "it") -> T:
    """As ``until``, while the asyncio loop runs."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        _check(deadline, what)
        await asyncio.sleep(_LOOK_S)
    return found


def _check(deadline: float, what: object) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"{what() if callable(what) else what} did not come true in time")
