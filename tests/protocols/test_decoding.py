"""How much memory is kept free for the values of a JSON text."""

from __future__ import annotations

import json
from typing import Any, cast

import attrs
import orjson
import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from gatewayd.buffers import Buffers
from gatewayd.errors import Overloaded
from gatewayd.protocols.backend import Backend
from gatewayd.protocols.decoding import _MOST_BYTES, decoded_bytes, decoded_in_room, room_needed

VALUES = st.recursive(
    st.none() | st.integers(0, 9) | st.just(""),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2),
    max_leaves=50,
)


@attrs.define
class Offloading:
    """As much of a Backend as decoding needs; counts what goes to another thread."""

    buffers: Buffers
    offloaded: list[str] = attrs.Factory(list)

    def offload(self, function: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
        self.offloaded.append(function.__name__)
        return succeed(function(*args, **kwargs))


def backend(limit_bytes: int) -> tuple[Backend, Offloading]:
    found = Offloading(Buffers(limit_bytes))
    return cast(Backend, found), found


@pytest_twisted.ensureDeferred
async def test_a_body_is_counted_where_what_it_can_become_matters() -> None:
    body = json.dumps([0.5] * 20_000).encode()
    wide, seen = backend(1 << 30)
    narrow, counted = backend(1 << 23)

    assert await room_needed(wide, b"[1]") == 0
    assert await room_needed(wide, body) == _MOST_BYTES * len(body)
    assert seen.offloaded == []
    assert await room_needed(narrow, body) == decoded_bytes(body) < _MOST_BYTES * len(body)
    assert counted.offloaded == ["decoded_bytes"]


@pytest_twisted.ensureDeferred
async def test_the_room_is_held_while_a_body_is_decoded_and_given_back() -> None:
    body = json.dumps([{}] * 30_000).encode()
    held, _ = backend(1 << 30)

    def decode(text: bytes) -> int:
        assert held.buffers.held_bytes >= decoded_bytes(text)
        return len(orjson.loads(text))

    assert await decoded_in_room(held, decode, body) == 30_000
    assert held.buffers.held_bytes == 0
    with pytest.raises(Overloaded, match="the JSON would take about"):
        await decoded_in_room(backend(1 << 20)[0], decode, body)


@given(VALUES)
def test_no_valid_text_is_counted_as_more_than_the_most(value: object) -> None:
    text = orjson.dumps([value])
    assert decoded_bytes(text) <= _MOST_BYTES * len(text)
