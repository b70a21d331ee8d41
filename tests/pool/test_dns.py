"""Host names of external executors: one replica for every address, kept up to date."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.logger import formatEvent, globalLogPublisher

from gatewayd.errors import ExecutorUnreachable
from gatewayd.pool.dns import HostName, resolver
from tests.pool.fakes import ANSWER, Setup, external


def resolved(*addresses: str, **limits: float) -> Setup:
    setup = Setup(external("executors.test:1"), **limits)
    setup.lookups.pop(0)[1].callback(addresses)
    for channel in setup.opened:
        channel.set_state("ready")
    # The first answer is verified once, because nothing was connected yet.
    setup.advance(2.01)
    setup.lookups.pop(0)[1].callback(addresses)
    return setup


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("10.0.0.1:1", None),
        ("[::1]:1", None),
        ("[fe80::1%eth0]:1", None),
        ("localhost:1", None),
        ("LOCALHOST.:1", None),
        ("a.localhost:1", None),
        ("executors:1", "executors"),
        ("a.b.test:443", "a.b.test"),
    ],
)
def test_what_is_looked_up(address: str, host: str | None) -> None:
    name = HostName.of(address)

    assert (name and name.host) == host


def test_every_address_of_a_name_is_a_replica_of_its_own() -> None:
    setup = resolved("10.0.0.1", "10.0.0.2")
    for _ in range(10):
        setup.send()

    assert [len(channel.calls) for channel in setup.opened] == [5, 5]
    assert [state.name for state in setup.pool.states()["a"]] == ["executors.test:1"] * 2


def test_the_name_stays_what_the_server_is_called() -> None:
    setup = resolved("10.0.0.1")

    assert setup.channels["10.0.0.1:1"].settings.host == "executors.test"


def test_errors_show_the_name_of_the_flow_file() -> None:
    setup = resolved("10.0.0.1", "10.0.0.2")
    for channel in setup.opened:
        channel.set_state("connecting")
    sent = setup.send()
    setup.advance(0.95)

    assert isinstance(sent.result, ExecutorUnreachable)
    assert sent.result.address_set == "{'executors.test:1'}"


def test_names_are_looked_up_again_and_what_left_may_finish() -> None:
    setup = resolved("10.0.0.1", "10.0.0.2", dns_refresh_s=30.0)
    sent = [setup.send() for _ in range(2)]
    setup.advance(30.1)
    setup.lookups.pop(0)[1].callback(("10.0.0.2", "10.0.0.3"))
    assert [state.address for state in setup.pool.states()["a"]] == ["10.0.0.2:1", "10.0.0.3:1"]
    left = setup.channels["10.0.0.1:1"]
    assert not left.closed
    left.answer()
    assert left.closed
    setup.channels["10.0.0.2:1"].answer()

    assert [one.result for one in sent] == [ANSWER] * 2


def test_a_lookup_that_fails_changes_nothing_and_is_repeated() -> None:
    setup = resolved("10.0.0.1", dns_refresh_s=3.0)
    setup.advance(3.1)
    setup.lookups.pop(0)[1].errback(OSError("the name server is down"))
    assert len(setup.pool.states()["a"]) == 1
    setup.advance(3.1)

    assert len(setup.lookups) == 1


def test_an_outage_has_the_name_looked_up_at_once() -> None:
    setup = resolved("10.0.0.1", dns_refresh_s=1000.0)
    setup.advance(5.0)
    setup.channels["10.0.0.1:1"].set_state("failed")
    setup.advance(0.05)
    setup.lookups.pop(0)[1].callback(("10.0.0.9",))

    assert [state.address for state in setup.pool.states()["a"]] == ["10.0.0.9:1"]


def test_during_an_outage_the_name_is_looked_up_again_and_again() -> None:
    setup = resolved("10.0.0.1", dns_refresh_s=1000.0)
    setup.channels["10.0.0.1:1"].set_state("failed")
    looked_up = 0
    for _ in range(100):
        setup.advance(0.1)
        while setup.lookups:
            looked_up += 1
            setup.lookups.pop(0)[1].callback(("10.0.0.1",))

    assert 4 <= looked_up <= 8


def test_a_name_without_an_address_fails_requests_within_a_second() -> None:
    setup = Setup(external("executors.test:1"))
    setup.lookups.pop(0)[1].callback(())
    sent = setup.send()
    setup.advance(0.95)

    assert isinstance(sent.result, ExecutorUnreachable)
    assert "DNS resolution failed for executors.test:1" in str(sent.result)
    setup.advance(0.2)
    assert len(setup.lookups) == 1


def test_why_a_name_has_no_address_is_told_once_a_minute() -> None:
    told: list[str] = []

    def observe(event: Any) -> None:
        if event.get("log_namespace") == "gatewayd.pool.dns":
            told.append(formatEvent(event))

    setup = Setup(external("executors.test:1"))
    globalLogPublisher.addObserver(observe)
    try:
        for _ in range(90):
            setup.lookups.pop(0)[1].callback(())
            setup.advance(1.01)
        assert len(told) == 2
        setup.lookups.pop(0)[1].errback(OSError("the name server is down"))
        assert len(told) == 3
    finally:
        globalLogPublisher.removeObserver(observe)

    assert told[0].startswith("a: executors.test cannot be looked up: the name has no address")
    assert "the name server is down" in told[2]


def test_one_family_is_used_and_the_other_when_that_leads_nowhere() -> None:
    setup = resolved("2001:db8::1", "10.0.0.1", dns_refresh_s=1000.0)
    assert list(setup.channels) == ["[2001:db8::1]:1"]
    setup.advance(2.0)
    setup.channels["[2001:db8::1]:1"].set_state("failed")
    setup.advance(0.05)
    setup.lookups.pop(0)[1].callback(("2001:db8::1", "10.0.0.1"))

    assert list(setup.channels) == ["[2001:db8::1]:1", "10.0.0.1:1"]
    setup.channels["10.0.0.1:1"].set_state("ready")
    setup.advance(1000.1)
    setup.lookups.pop(0)[1].callback(("2001:db8::1", "10.0.0.1"))
    assert len(setup.pool.states()["a"]) == 2


def test_closing_ends_the_looking_up() -> None:
    setup = resolved("10.0.0.1")
    setup.pool.close()

    assert not setup.clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_names_are_looked_up_beside_the_reactor() -> None:
    assert "127.0.0.1" in await resolver(reactor)("localhost")
    assert await resolver(reactor)("no-such-name.invalid") == ()
