"""The window of requests that wait for their answers, as numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.client.delivery import InFlightLimit
from gatewayd.client.inputs import Message


@given(st.permutations(range(8)))
def test_in_order_means_the_order_of_sending_whatever_the_order_of_arrival(arrivals):
    in_flight = InFlightLimit(8, in_order=True)
    for number in range(8):
        in_flight.sent(Message(str(number), b"x"))

    released = [answer for number in arrivals for answer in in_flight.answered(str(number), number)]

    assert released == list(range(8))
    assert len(in_flight) == 0


@given(st.permutations(range(8)))
def test_out_of_order_means_as_they_arrive(arrivals):
    in_flight = InFlightLimit(8, in_order=False)
    for number in range(8):
        in_flight.sent(Message(str(number), b"x"))

    assert [answer for number in arrivals for answer in in_flight.answered(str(number), number)] == arrivals


def test_an_answer_before_its_turn_keeps_its_place_in_the_window():
    in_flight = InFlightLimit(2, in_order=True)
    in_flight.sent(Message("a", b""))
    in_flight.sent(Message("b", b""))

    assert list(in_flight.answered("b", "b")) == []
    assert in_flight.full
    assert list(in_flight.answered("a", "a")) == ["a", "b"]
    assert not in_flight.full


def test_without_a_limit_only_bytes_count():
    in_flight = InFlightLimit(-1, in_order=False)
    for number in range(5000):
        in_flight.sent(Message(str(number), b""))
    assert not in_flight.full

    in_flight.sent(Message("large", bytes(64 << 20)))
    assert in_flight.full
