"""Connections are spread over workers: what each sees of the others, and when it stands back."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gatewayd.crowd import Courtesy, Crowd, shared_memory


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = shared_memory(3)
    yield descriptor
    os.close(descriptor)


def test_every_process_sees_the_counts_of_all(memory: int) -> None:
    one, other = Crowd(memory), Crowd(memory)
    assert one.counts() == [None, None, None]
    first, second = one.place(0), other.place(1)
    assert not first.is_ahead
    first.set(2)
    second.set(1)
    assert other.counts() == [2, 1, None]
    assert (first.is_ahead, second.is_ahead) == (True, False)
    second.set(2)
    assert not first.is_ahead
    one.close()
    other.close()


def test_one_that_has_left_or_died_is_no_longer_waited_for(memory: int) -> None:
    crowd = Crowd(memory)
    first, second = crowd.place(0), crowd.place(1)
    first.set(1)
    assert first.is_ahead
    second.leave()
    second.set(5)  # a connection of its own ends
    assert crowd.counts() == [1, None, None]
    assert not first.is_ahead
    crowd.place(2)
    assert first.is_ahead
    crowd.leave(2)  # the master has seen its process end
    assert not first.is_ahead
    crowd.close()


def test_who_has_no_more_than_others_takes_all() -> None:
    courtesy = Courtesy(lambda: False)
    assert all(courtesy.takes() for _ in range(100))


def test_who_has_more_takes_more_and_more_of_what_no_other_takes() -> None:
    ahead = True
    courtesy = Courtesy(lambda: ahead)
    batches = []
    for _ in range(9):
        taken = 0
        while courtesy.takes():
            taken += 1
        batches.append(taken)
        courtesy.waited()
    assert batches == [0, 1, 2, 4, 8, 16, 32, 64, 64]
    ahead = False
    assert courtesy.takes()
    ahead = True
    assert not courtesy.takes()
    courtesy.waited()
    assert [courtesy.takes() for _ in range(2)] == [True, False]
