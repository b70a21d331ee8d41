"""
What generators yield, one at a time, and only once it is asked for: on the event loop, or in the thread of
plain methods.

Each is closed with what iterates it, so that its ``finally`` runs when a client has gone.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

# Calls a function in the thread of plain methods, and raises what it raises.
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


async def on_loop(start: Callable[[], Any], written: Callable[[Any], T]) -> AsyncGenerator[T]:
    """What the generator yields that ``start`` returns, or awaits, each as ``written`` makes it."""
    answers = start()
    if inspect.isawaitable(answers):
        answers = await answers
    try:
        if hasattr(answers, "__aiter__"):
            async for one in answers:
                yield written(one)
        else:
            for one in iter(answers):
                yield written(one)
    finally:
        if hasattr(answers, "aclose"):
            await answers.aclose()
        elif hasattr(answers, "close"):
            answers.close()


async def in_thread(
    start: Callable[[], Any], written: Callable[[Any], T], run: InThread
) -> AsyncGenerator[T]:
    """As ``on_loop``, each step in the thread, between which others run there."""
    answers: Iterator[Any] = await run(lambda: iter(start()))
    try:
        while (found := await run(lambda: _step(answers, written))) is not None:
            (message,) = found
            yield message
    finally:
        if hasattr(answers, "close"):
            await run(answers.close)


def _step(answers: Iterator[Any], written: Callable[[Any], T]) -> tuple[T] | None:
    for one in answers:
        return (written(one),)
    return None
