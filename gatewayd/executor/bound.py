"""A method as it answers an endpoint: how it is called, and what is measured of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import attrs

from gatewayd.executor.batching import Queues
from gatewayd.executor.forms import Form

# What a user's method may raise. An exit() in a library must not end other requests as well.
RAISED: Final = (Exception, SystemExit)

# Keywords that only methods that name them get: what ``**kwargs`` gets is the reference's (spec executor.md).
HEADERS: Final = "headers"
ANSWER_HEADERS: Final = "response_headers"
HeaderKeywords = dict[str, dict[str, Any]]


@attrs.define(eq=False)
class Bound:
    """An endpoint's function. ``keywords`` are those it accepts, None for any; ``named`` those it names."""

    endpoint: str
    function: Callable[..., Any]
    keywords: frozenset[str] | None
    named: frozenset[str]
    form: Form
    is_coroutine: bool
    queues: Queues[Any] | None = None
    timer: asyncio.TimerHandle | None = None
    timed: Callable[[], AbstractContextManager[object]] = nullcontext


def accepted_by(bound: Bound, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of ``arguments`` that the method accepts."""
    if bound.keywords is None:
        return arguments
    return {key: value for key, value in arguments.items() if key in bound.keywords}


def is_coroutine(function: Callable[..., Any]) -> bool:
    """Whether a method runs on the loop: a coroutine, or an asynchronous generator behind its decorators."""
    inner = inspect.unwrap(function)
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.isasyncgenfunction(inner)
    )
