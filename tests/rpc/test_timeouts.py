"""Many timeouts on one timer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from gatewayd.rpc.timeouts import TICK_S, Timeouts


class TimedCall:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.late: list[float] = []

    def too_late(self) -> None:
        self.late.append(self.clock.seconds())


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.one_of(st.none(), st.floats(0, 3)), st.floats(0, 0.5)), max_size=30
    )
)
def test_every_waiter_is_called_once_and_in_time_or_has_left(
    turns: list[tuple[float, float | None, float]],
) -> None:
    clock = Clock()
    timeouts = Timeouts(clock)
    known = []
    for patience_s, leaves_s, pause_s in turns:
        waiter = TimedCall(clock)
        deadline_s = clock.seconds() + patience_s
        tick = timeouts.add(waiter, deadline_s)
        left_s = None
        if leaves_s is not None:
            left_s = clock.seconds() + leaves_s
            clock.callLater(leaves_s, timeouts.remove, waiter, tick)
        known.append((waiter, deadline_s, left_s))
        for _ in range(int(pause_s / 0.01)):
            clock.advance(0.01)
    for _ in range(400):
        clock.advance(0.01)

    for waiter, deadline_s, left_s in known:
        assert len(waiter.late) <= 1
        if waiter.late:
            assert deadline_s <= waiter.late[0] <= deadline_s + TICK_S + 0.011
        else:
            assert left_s is not None
            assert left_s <= deadline_s + TICK_S + 0.011
    assert not clock.getDelayedCalls()


def test_a_thousand_calls_that_end_in_time_leave_nothing_behind() -> None:
    clock = Clock()
    timeouts = Timeouts(clock)
    for at in range(1000):
        clock.advance(0.001)
        waiter = TimedCall(clock)
        timeouts.remove(waiter, timeouts.add(waiter, at * 0.001 + 60))

    assert len(clock.getDelayedCalls()) == 1
    assert len(timeouts._ticks) <= 1


def test_closing_drops_every_timeout() -> None:
    clock = Clock()
    timeouts = Timeouts(clock)
    waiter = TimedCall(clock)
    timeouts.add(waiter, 1.0)
    timeouts.close()
    clock.advance(2)

    assert not waiter.late
    assert not clock.getDelayedCalls()
