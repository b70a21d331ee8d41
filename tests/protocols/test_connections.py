"""How the connections of a port are closed together, in memory with a clock."""

from __future__ import annotations

import attrs
import pytest
from twisted.internet.task import Clock

from gatewayd.protocols.connections import Connections
from gatewayd.protocols.port import LAST_WORDS_S


@attrs.define(eq=False)
class FakeConnection:
    """Ends at the call that ``ends_at`` names, at once, and notes every call."""

    among: Connections
    ends_at: str
    calls: list[str] = attrs.Factory(list)

    def drain(self) -> None:
        self._called("drain")

    def close_now(self) -> None:
        self._called("close_now")

    def abort(self) -> None:
        self._called("abort")

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.ends_at:
            self.among.closed(self)


def connections(*ends_at: str) -> tuple[Clock, Connections, list[FakeConnection]]:
    clock = Clock()
    among = Connections(clock)
    each = [FakeConnection(among, name) for name in ends_at]
    for connection in each:
        among.opened(connection)
    return clock, among, each


def test_without_connections_nothing_is_waited_for() -> None:
    clock, among, _ = connections()

    assert among.close_all(5.0).called
    assert not clock.getDelayedCalls()


def test_connections_that_end_when_they_are_drained_leave_no_timer() -> None:
    clock, among, _ = connections("drain", "drain")

    assert among.close_all(5.0).called
    assert (len(among), clock.getDelayedCalls()) == (0, [])


def test_the_grace_period_is_for_those_that_are_busy() -> None:
    clock, among, (busy, idle) = connections("never", "drain")

    done = among.close_all(5.0)
    clock.advance(4.9)
    assert (busy.calls, idle.calls, done.called) == (["drain"], ["drain"], False)
    among.closed(busy)

    assert done.called
    assert not clock.getDelayedCalls()


def test_what_is_left_is_closed_after_the_grace_period_and_aborted_a_moment_later() -> None:
    clock, among, (polite, silent) = connections("close_now", "abort")

    done = among.close_all(5.0)
    clock.advance(5.0)
    assert (polite.calls, silent.calls, done.called) == (["drain", "close_now"],) * 2 + (False,)
    clock.advance(LAST_WORDS_S)

    assert (silent.calls, done.called) == (["drain", "close_now", "abort"], True)
    assert polite.calls == ["drain", "close_now"]


def test_a_connection_that_opens_while_others_drain_is_drained_and_waited_for() -> None:
    clock, among, (busy,) = connections("never")
    done = among.close_all(5.0)

    late = FakeConnection(among, "close_now")
    among.opened(late)
    among.closed(busy)
    assert (late.calls, done.called) == (["drain"], False)
    clock.advance(5.0)

    assert (late.calls, done.called) == (["drain", "close_now"], True)


@pytest.mark.parametrize("first_s", [1.0, 9.0])
def test_closing_twice_keeps_to_the_shorter_period_and_fires_both(first_s: float) -> None:
    clock, among, (connection,) = connections("close_now")

    both = [among.close_all(first_s), among.close_all(10.0 - first_s)]
    clock.advance(1.0)

    assert connection.calls == ["drain", "drain", "close_now"]
    assert [done.called for done in both] == [True, True]
    assert not clock.getDelayedCalls()


def test_a_connection_that_was_never_open_may_close() -> None:
    _, among, _ = connections()

    among.closed(FakeConnection(among, "never"))

    assert len(among) == 0
