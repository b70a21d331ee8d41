"""The window of one stream: bounds, order, and places given back when answers are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.protocols.window import Window


def test_a_full_window_has_no_room_until_an_answer_is_written():
    window: Window[str] = Window(1)
    ticket = window.admit()
    assert not window.has_room
    assert window.answered(ticket, "a") == ["a"]
    assert not window.has_room
    window.written(1)
    assert window.has_room
    assert window.idle


def test_answers_go_out_as_they_come_without_order():
    window: Window[str] = Window(3)
    first, second, third = (window.admit() for _ in range(3))
    assert [window.answered(t, str(t)) for t in (third, first, second)] == [["2"], ["0"], ["1"]]


def test_answers_wait_for_the_ones_before_them_with_order():
    window: Window[str] = Window(3, ordered=True)
    first, second, third = (window.admit() for _ in range(3))
    assert window.answered(third, "c") == []
    assert window.answered(first, "a") == ["a"]
    assert window.answered(second, "b") == ["b", "c"]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_zero_or_less_is_no_limit(limit):
    window: Window[str] = Window(limit)
    for _ in range(5000):
        assert window.has_room
        window.admit()
    assert window.occupied == 5000


def test_admitting_without_room_is_an_error():
    window: Window[str] = Window(1)
    window.admit()
    with pytest.raises(ValueError, match="1 places"):
        window.admit()


def test_a_request_is_answered_once_only():
    window: Window[str] = Window(2)
    ticket = window.admit()
    window.answered(ticket, "a")
    with pytest.raises(ValueError, match="answered before"):
        window.answered(ticket, "a")
    with pytest.raises(ValueError, match="not admitted"):
        window.answered(7, "a")


def test_no_more_can_be_written_than_went_out():
    window: Window[str] = Window(2, ordered=True)
    window.admit()
    window.answered(window.admit(), "b")
    with pytest.raises(ValueError, match="only 0"):
        window.written(1)


@given(st.integers(-1, 6), st.booleans(), st.lists(st.tuples(st.sampled_from("aaw"), st.integers(0, 100))))
def test_every_answer_goes_out_once_in_its_order_and_the_bound_holds(limit, ordered, steps):
    window: Window[int] = Window(limit, ordered=ordered)
    in_flight: list[int] = []
    admitted: list[int] = []
    answered: list[int] = []
    out: list[int] = []
    written = 0

    def answer(choice: int) -> None:
        ticket = in_flight.pop(choice % len(in_flight))
        answered.append(ticket)
        out.extend(window.answered(ticket, ticket))

    for step, choice in steps:
        if step == "a" and window.has_room and choice % 2:
            in_flight.append(window.admit())
            admitted.append(in_flight[-1])
        elif step == "a" and in_flight:
            answer(choice)
        elif len(out) > written:
            window.written(1)
            written += 1
        assert window.occupied == len(admitted) - written
        if limit > 0:
            assert window.occupied <= limit
            assert window.has_room == (window.occupied < limit)
        assert window.idle == (window.occupied == 0)
    while in_flight:
        answer(0)
    window.written(len(out) - written)
    assert window.idle
    assert out == (admitted if ordered else answered)


def test_a_new_stream_gets_a_few_requests_until_its_answers_show_their_size():
    window: Window[str] = Window(0, unsent_bytes=25_600)
    tickets = []
    while window.has_room:
        tickets.append(window.admit())
    assert len(tickets) == 256
    for ticket in tickets:
        window.answered(ticket, "", 1)
        window.written()
    assert window.unsent_bytes == 0
    while window.has_room and len(tickets) < 2000:
        tickets.append(window.admit())
    assert len(tickets) > 1000


def test_what_is_not_read_and_what_is_expected_leave_room_for_no_more():
    window: Window[str] = Window(0, unsent_bytes=1000)
    first, second = window.admit(), window.admit()
    window.answered(first, "", 600)
    assert not window.has_room
    window.written()
    assert not window.has_room  # the second is expected to be as large
    window.answered(second, "", 600)
    window.written()
    assert window.has_room


def test_one_request_is_admitted_however_large_its_answer_will_be():
    window: Window[str] = Window(0, unsent_bytes=1000)
    for _ in range(3):
        window.answered(window.admit(), "", 1_000_000)
        assert not window.is_flooded
        window.written()


@pytest.mark.parametrize("ordered", [False, True])
def test_answers_that_turn_out_far_larger_flood_the_stream(ordered):
    window: Window[str] = Window(0, ordered, unsent_bytes=1000)
    tickets = [window.admit() for _ in range(5)]
    for ticket in tickets[1:]:
        window.answered(ticket, "", 1000)
    assert not window.is_flooded
    window.answered(tickets[0], "", 1)
    assert window.is_flooded


def test_answers_that_are_being_encoded_count() -> None:
    window: Window[str] = Window(0, unsent_bytes=1000)
    tickets = [window.admit() for _ in range(3)]
    window.arrived(tickets[0], 600)
    assert window.unsent_bytes == 600
    assert not window.has_room  # the two others may be as large
    assert window.answered(tickets[0], "a", 900) == ["a"]
    assert window.unsent_bytes == 900
    window.written()
    assert window.unsent_bytes == 0


def test_far_too_many_answers_that_are_being_encoded_are_a_flood() -> None:
    window: Window[str] = Window(0, unsent_bytes=1000)
    tickets = [window.admit() for _ in range(3)]
    window.arrived(tickets[0], 4001)
    assert not window.is_flooded  # one alone may be of any size
    window.arrived(tickets[1], 1)
    assert window.is_flooded


def test_an_answer_arrives_once() -> None:
    window: Window[str] = Window(0)
    ticket = window.admit()
    window.arrived(ticket, 1)
    with pytest.raises(ValueError, match="answered before"):
        window.arrived(ticket, 1)
