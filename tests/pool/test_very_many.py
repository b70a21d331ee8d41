"""Thousands of replicas: what each change costs, and what is said of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from gatewayd.errors import ExecutorUnreachable
from gatewayd.messages.discovery import Told
from gatewayd.messages.generations import Generation
from tests.pool.fakes import Setup, external


def addresses(count: int) -> list[str]:
    return [f"10.0.{number // 250}.{number % 250}:1" for number in range(count)]


def calls_of(work: Callable[[], object]) -> int:
    """How many Python functions are called, which is the same on every machine."""
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def start_and_outage(count: int) -> None:
    """They are added, connect, tell what they bind, and fail."""
    setup = Setup(external(*addresses(count)), ready=False)
    for channel in setup.opened:
        channel.set_state("ready")
    for channel in setup.opened:
        channel.asked[0].callback(Told({"/x": ""}, Generation.FIRST))
    assert setup.pool.connected() == {("a", 0): count}
    for channel in setup.opened:
        channel.set_state("failed")
    assert setup.pool.connected() == {("a", 0): 0}
    setup.pool.close()


def test_each_change_costs_the_same_however_many_there_are() -> None:
    start_and_outage(10)
    few, many = calls_of(lambda: start_and_outage(100)), calls_of(lambda: start_and_outage(1000))
    assert many < 11 * few


def test_what_thousands_tell_is_kept_once() -> None:
    setup = Setup(external(*addresses(1000)))
    for channel in setup.opened:
        channel.asked[0].callback(Told({"/x": ""}))

    replicas = setup.pool._senders["a", 0].replicas.replicas
    assert len({id(replica.told) for replica in replicas}) == 1


def test_what_differs_is_united_as_long_as_it_is_told() -> None:
    setup = Setup(external(*addresses(3)))
    for channel, endpoint in zip(setup.opened, ("/x", "/y", "/y"), strict=True):
        channel.asked[0].callback(Told({endpoint: ""}))
    assert list(setup.pool.endpoints().bound) == ["/x", "/y"]

    first, second, third = addresses(3)
    setup.pool.replica_down("a", second)
    assert list(setup.pool.endpoints().bound) == ["/x", "/y"]
    setup.pool.replica_down("a", third)
    assert list(setup.pool.endpoints().bound) == ["/x"]
    setup.pool.replica_down("a", first)
    assert setup.pool.endpoints().bound == {}


def test_an_error_names_some_of_them() -> None:
    error = ExecutorUnreachable("a", addresses(2000))
    assert "and 1980 more" in str(error)
    assert len(str(error)) < 1000
