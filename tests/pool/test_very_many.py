"""Thousands of replicas: what each change costs, and what is said of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from gatewayd.errors import ExecutorUnreachable
from gatewayd.messages.discovery import Told
from gatewayd.messages.generations import Generation
from gatewayd.rpc.turns import HANGS_S
from tests.pool.fakes import LOST, Setup, external


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
    assert list(setup.pool.endpoints().bound) == ["/x"]  # until there is another one


def test_an_error_names_some_of_them() -> None:
    error = ExecutorUnreachable("a", addresses(2000))
    assert "and 1980 more" in str(error)
    assert len(str(error)) < 1000


def ejected_together(count: int) -> Setup:
    """All but the last one are, and wait for their probes."""
    setup = Setup(external(*addresses(count)), max_connecting=8, eject_after_failures=1, eject_s=5.0)
    for channel in setup.opened:
        channel.answer_discovery()
    for replica in setup.pool._senders["a", 0].replicas.replicas:
        replica.failed(LOST)
    assert setup.count("ejected") == count - 1
    setup.advance(4.99)
    assert setup.count("probed") == 0
    return setup


def test_those_that_are_ejected_together_are_probed_some_at_a_time() -> None:
    setup = ejected_together(101)
    setup.advance(0.02)
    assert setup.count("probed") == 8

    answered = 0
    while waiting := [channel for channel in setup.opened if channel.asked]:
        assert len(waiting) <= 8
        waiting[0].answer_discovery()
        answered += 1
    assert answered == setup.count("probed") == setup.count("restored") == 100


def test_probes_that_are_not_answered_delay_the_others_for_a_moment_only() -> None:
    setup = ejected_together(101)
    begin_s, last = setup.clock.seconds(), setup.opened[99]
    while not last.asked:
        assert setup.pool.probes.under_way <= 8
        setup.advance(0.01)

    assert setup.clock.seconds() - begin_s < 100 / 8 * HANGS_S + 0.2
    last.answer_discovery()
    assert setup.count("restored") == 1


def test_replicas_that_return_or_go_while_they_wait_for_a_probe_are_not_probed() -> None:
    setup = ejected_together(11)
    setup.advance(0.02)
    *_, returned, gone, _ = setup.opened
    returned.set_state("connecting")
    returned.set_state("ready")
    returned.answer_discovery()
    setup.pool.replica_down("a", gone.address)
    for channel in setup.opened[:8]:
        channel.answer_discovery()

    assert setup.count("probed") == 8
    assert not gone.asked
    assert setup.pool.probes.under_way == setup.pool.probes.waiting == 0
