"""The order of messages where some requests of one stream are answered by several."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.protocols.streamed import Streamed
from gatewayd.protocols.window import Window


def made(*, ordered: bool) -> tuple[Window[str], deque[str], Streamed[str]]:
    window: Window[str] = Window(0, ordered)
    outgoing: deque[str] = deque()
    return window, outgoing, Streamed(window, outgoing)


def test_without_order_messages_go_out_as_they_come() -> None:
    window, outgoing, streamed = made(ordered=False)
    first, second = window.admit(), window.admit()
    streamed.begin(first)
    streamed.begin(second)
    streamed.arrived(second, "2a", 1)
    streamed.arrived(first, "1a", 1)
    streamed.ended(second, "2.")
    streamed.arrived(first, "1b", 1)
    streamed.ended(first, "1.")

    assert list(outgoing) == ["2a", "1a", "2.", "1b", "1."]
    assert not streamed.held


def test_with_order_a_stream_waits_for_its_turn_and_those_behind_it_for_its_end() -> None:
    window, outgoing, streamed = made(ordered=True)
    single, first, second, last = (window.admit() for _ in range(4))
    streamed.begin(first)
    streamed.begin(second)
    streamed.arrived(second, "2a", 1)
    streamed.ended(second, "2.")
    streamed.arrived(first, "1a", 1)
    outgoing.extend(window.answered(last, "3"))
    streamed.advance()
    assert not outgoing

    outgoing.extend(window.answered(single, "0"))
    streamed.advance()
    assert list(outgoing) == ["0", "1a"]

    streamed.ended(first, "1.")
    assert list(outgoing) == ["0", "1a", "1.", "2a", "2.", "3"]


def test_bytes_that_wait_leave_no_room_for_requests_and_are_no_flood() -> None:
    window: Window[str] = Window(0, unsent_bytes=1000)
    streamed: Streamed[str] = Streamed(window, deque())
    streamed.begin(window.admit())
    assert window.has_room

    streamed.arrived(0, "a", 5000)
    assert not window.has_room
    assert not window.is_flooded

    streamed.left(5000)
    assert window.has_room


@given(st.data())
def test_whatever_comes_when_everything_goes_out_once_and_in_order(data: st.DataObject) -> None:
    ordered = data.draw(st.booleans())
    window, outgoing, streamed = made(ordered=ordered)
    parts = data.draw(st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=5))  # None: no stream
    left: dict[int, deque[str]] = {}
    for count in parts:
        ticket = window.admit()
        left[ticket] = deque([*(f"{ticket}.{index}" for index in range(count or 0)), f"{ticket} end"])
        if count is not None:
            streamed.begin(ticket)
    expected = [each for messages in left.values() for each in messages]
    while left:
        ticket = data.draw(st.sampled_from(sorted(left)))
        message = left[ticket].popleft()
        if left[ticket]:
            streamed.arrived(ticket, message, 1)
            continue
        del left[ticket]
        if parts[ticket] is None:
            outgoing.extend(window.answered(ticket, message))
            streamed.advance()
        else:
            streamed.ended(ticket, message)

    if ordered:
        assert list(outgoing) == expected
    else:
        assert sorted(outgoing) == sorted(expected)
    window.written(len(parts))
    assert window.idle
