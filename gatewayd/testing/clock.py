"""An asyncio loop as the clock of what runs on a reactor elsewhere. Loop thread only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class LoopClock:
    """Satisfies ``gatewayd.clocks.Clock``; seconds are those of ``loop.time()``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def seconds(self) -> float:
        return self._loop.time()

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any) -> LoopTimer:
        return LoopTimer(self._loop, delay, callable, args)


class LoopTimer:
    """Satisfies ``gatewayd.clocks.Timer``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        delay: float,
        function: Callable[..., object],
        args: tuple[Any, ...],
    ) -> None:
        self._active = True
        self._function = function
        self._args = args
        self._handle = loop.call_later(delay, self._fire)

    def active(self) -> bool:
        return self._active

    def cancel(self) -> None:
        self._active = False
        self._handle.cancel()

    def _fire(self) -> None:
        self._active = False
        self._function(*self._args)
