"""The window of requests that wait for their answers, as numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.client.delivery import Window
from gatewayd.client.exchange import Retries
from gatewayd.client.requesting import Message


@given(st.permutations(range(8)))
def test_in_order_means_the_order_of_sending_whatever_the_order_of_arrival(arrivals):
    window = Window(8, in_order=True)
    for number in range(8):
        window.sent(Message(str(number), b"x"))

    released = [answer for number in arrivals for answer in window.answered(str(number), number)]

    assert released == list(range(8))
    assert len(window) == 0


@given(st.permutations(range(8)))
def test_out_of_order_means_as_they_arrive(arrivals):
    window = Window(8, in_order=False)
    for number in range(8):
        window.sent(Message(str(number), b"x"))

    assert [answer for number in arrivals for answer in window.answered(str(number), number)] == arrivals


def test_an_answer_before_its_turn_keeps_its_place_in_the_window():
    window = Window(2, in_order=True)
    window.sent(Message("a", b""))
    window.sent(Message("b", b""))

    assert list(window.answered("b", "b")) == []
    assert window.full
    assert list(window.answered("a", "a")) == ["a", "b"]
    assert not window.full


def test_without_a_limit_only_bytes_count():
    window = Window(-1, in_order=False)
    for number in range(5000):
        window.sent(Message(str(number), b""))
    assert not window.full

    window.sent(Message("large", bytes(64 << 20)))
    assert window.full


def test_backoff_grows_up_to_its_maximum():
    retries = Retries(max_attempts=9, initial_backoff_s=0.5, max_backoff_s=2.0, multiplier=1.5)

    assert [retries.ceiling_s(failures) for failures in (1, 2, 3, 4, 5, 5000)] == [
        0.5,
        0.75,
        1.125,
        1.6875,
        2.0,
        2.0,
    ]
