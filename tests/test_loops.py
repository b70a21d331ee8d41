"""The loop that every thread and process of ours starts."""

from __future__ import annotations

import sys

import pytest

from gatewayd.loops import new_event_loop


def test_uvloop_is_used_where_it_is_installed() -> None:
    uvloop = pytest.importorskip("uvloop")
    loop = new_event_loop()
    loop.close()
    assert isinstance(loop, uvloop.Loop)


def test_without_uvloop_it_is_asyncios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_event_loop()
    try:
        assert loop.run_until_complete(_done())
        assert type(loop).__module__.startswith("asyncio")
    finally:
        loop.close()


async def _done() -> bool:
    return True
