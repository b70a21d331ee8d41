"""Small work is done at once, large work goes to a pool thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from gatewayd.offload import SMALL_BYTES, here_or_offloaded, is_small


@pytest.mark.parametrize(("size_bytes", "small"), [(0, True), (SMALL_BYTES, True), (SMALL_BYTES + 1, False)])
def test_the_size_decides(size_bytes: int, small: bool) -> None:
    offloaded: list[object] = []

    def offload(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        offloaded.append(function)
        return succeed(function(*args, **kwargs))

    got: list[int] = []
    Deferred.fromCoroutine(here_or_offloaded(offload, size_bytes, max, 1, 2)).addCallback(got.append)

    assert got == [2]
    assert offloaded == ([] if small else [max])
    assert is_small(size_bytes) is small
