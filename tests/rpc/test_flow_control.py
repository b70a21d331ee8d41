"""Whose turn it is to send on a connection."""

from __future__ import annotations

import attrs

from gatewayd.rpc.flow_control import MAX_WINDOW, Outgoing, Unsent
from gatewayd.rpc.frames import FRAME


@attrs.define(eq=False)
class Body:
    stream_id: int
    unsent: Unsent | None
    window: int = MAX_WINDOW
    end_flag: int = 0


def order_of_turns(sizes: list[int]) -> list[int]:
    """The streams 1, 2, ... with bodies of these sizes, in the order in which pieces of them are sent."""
    outgoing: Outgoing[Body] = Outgoing()
    outgoing.window = MAX_WINDOW
    outgoing.set_max_frame((1 << 24) - 1)
    for number, size in enumerate(sizes, 1):
        outgoing.add(Body(number, Unsent(b"", bytes(size))))
    found = []
    while outgoing.waiting:
        pieces: list[bytes | memoryview] = []
        outgoing.next_piece(pieces)
        found.append(FRAME.unpack(pieces[0])[-1])
    return found


def test_bodies_take_turns() -> None:
    assert order_of_turns([3 << 16, 2 << 16, 1 << 16]) == [1, 2, 3, 1, 2, 1]


def test_only_a_few_bodies_are_under_way_at_a_time() -> None:
    order = order_of_turns([5 << 16] * 40)
    assert sorted(order) == sorted(list(range(1, 41)) * 5)
    begun: set[int] = set()
    left = dict.fromkeys(range(1, 41), 5)
    for number in order:
        begun.add(number)
        left[number] -= 1
        assert sum(1 for each in begun if left[each]) <= 4
    # First come, first served.
    last = {number: max(i for i, each in enumerate(order) if each == number) for number in left}
    assert sorted(last, key=last.__getitem__) == list(range(1, 41))
