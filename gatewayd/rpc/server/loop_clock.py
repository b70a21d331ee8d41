"""An asyncio loop's clock and timers in the form that ``timeouts.py`` takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gatewayd.clocks import Timer


class LoopClock:
    """``loop`` as a Clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def seconds(self) -> float:
        return self._loop.time()

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any) -> Timer:
        return _LoopTimer(self._loop.call_later(delay, callable, *args))


class _LoopTimer:
    def __init__(self, handle: asyncio.TimerHandle) -> None:
        self._handle = handle

    def active(self) -> bool:
        return not self._handle.cancelled()

    def cancel(self) -> None:
        self._handle.cancel()
