"""Rates that gateways count together: what is decided, with a store in memory and without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from gatewayd.access.limited import Limited
from gatewayd.access.rates import Bucket, Level, Rates
from gatewayd.access.redis_store import StoreLost, Verdict
from gatewayd.access.shared_rates import SharedRates
from gatewayd.config.rates import RateRule
from gatewayd.config.shares import divided
from gatewayd.errors import Overloaded, RateLimited, TooManyForRate
from gatewayd.messages.caller import Caller
from gatewayd.messages.request import Request
from gatewayd.streams import Failing
from tests.protocols.harness import FakeDispatcher

ALICE, BOB = Caller("alice", "10.0.0.1", "token"), Caller("bob", "10.0.0.1", "token")
TEN = RateRule(requests=10, per_s=1.0, burst=10)


class Memory:
    """A store in memory, with a clock of its own."""

    def __init__(self) -> None:
        self.up = True
        self.clock = Clock()
        self.levels: dict[str, Level] = {}
        self.users = 0

    def start(self) -> None:
        self.users += 1

    def stop(self) -> None:
        self.users -= 1

    def take(self, buckets: Sequence[tuple[str, Bucket, float]]) -> Deferred[Verdict]:
        if not self.up:
            return fail(StoreLost("gone"))
        now_s, levels = self.clock.seconds(), {}
        for index, (key, bucket, amount) in enumerate(buckets):
            missing = bucket.missing(self.levels.get(key, Level(0.0, 0.0)), now_s) + amount
            levels[key] = Level(missing, now_s)
            if wait_s := bucket.wait_s(missing):
                return succeed(Verdict(index, wait_s))
        self.levels.update(levels)
        return succeed(Verdict(None, 0.0))


class Gateway:
    """One of several that share a store."""

    def __init__(self, store: Memory, *rules: RateRule, among: int = 1, refuses: bool = False) -> None:
        alone = None if refuses else Rates(divided(rules, among))
        self.rates = SharedRates(rules, store, alone)

    def ask(self, caller: Caller = ALICE, endpoint: str = "/x", documents: int = 0) -> Exception | None:
        asked = self.rates.take(caller, endpoint, lambda most: min(documents, most + 1), 0.0)
        errors: list[Any] = []
        if asked is not None:
            asked.addErrback(lambda failure: errors.append(failure.value))
        return errors[0] if errors else None


def test_two_gateways_admit_the_rate_together_and_not_twice_that() -> None:
    store = Memory()
    gateways = [Gateway(store, TEN, among=2) for _ in range(2)]
    answers = [gateways[number % 2].ask() for number in range(40)]
    assert answers.count(None) == 10
    refused = next(each for each in answers if each is not None)
    assert isinstance(refused, RateLimited)
    assert "more than 10 requests in 1 s of each caller" in str(refused)

    store.clock.advance(0.5)
    assert [gateways[number % 2].ask() for number in range(20)].count(None) == 5
    assert gateways[1].ask(BOB) is None


def test_one_gateway_may_use_all_of_it() -> None:
    gateway = Gateway(Memory(), TEN, among=2)
    assert [gateway.ask() for _ in range(20)].count(None) == 10


def test_without_the_store_each_gateway_has_its_share() -> None:
    store = Memory()
    gateways = [Gateway(store, TEN, among=2) for _ in range(2)]
    store.up = False
    answers = [gateways[number % 2].ask() for number in range(40)]

    assert answers.count(None) == 10
    assert gateways[0].rates.decided == {"gateway": 20}


def test_without_the_store_requests_are_refused_where_that_is_wanted() -> None:
    store = Memory()
    gateway = Gateway(store, RateRule(("/x",), requests=10, burst=10), refuses=True)
    store.up = False
    refused = gateway.ask()
    assert isinstance(refused, Overloaded)
    assert not isinstance(refused, RateLimited)
    assert gateway.ask(endpoint="/y") is None
    assert gateway.rates.decided == {"refused": 1}


def test_documents_are_counted_and_too_many_are_refused_at_once() -> None:
    gateway = Gateway(Memory(), RateRule(documents=100, per_s=1.0, burst_documents=100))
    assert gateway.ask(documents=60) is None
    assert isinstance(gateway.ask(documents=60), RateLimited)
    with pytest.raises(TooManyForRate):
        gateway.ask(documents=101)


def test_the_store_learns_no_names() -> None:
    store = Memory()
    Gateway(store, TEN).ask()
    (key,) = store.levels
    assert key.startswith("gatewayd:rates:")
    assert "alice" not in key


def test_the_store_is_used_until_the_last_front_has_left() -> None:
    store = Memory()
    rates = SharedRates([TEN], store, None)
    rates.start()
    rates.start()
    rates.stop()
    assert store.users == 1
    rates.stop()
    assert store.users == 0


class Slow(Memory):
    """It is answered by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Deferred[Verdict]] = []

    def take(self, buckets: Sequence[tuple[str, Bucket, float]]) -> Deferred[Verdict]:
        self.asked.append(Deferred())
        return self.asked[-1]


def limited(store: Memory, engine: FakeDispatcher) -> Limited:
    return Limited(engine, SharedRates([TEN], store, None), Clock())


REQUEST = Request("id", "/x", caller=ALICE)


def test_a_request_waits_for_the_answer_of_the_store() -> None:
    store, engine = Slow(), FakeDispatcher()
    answer = limited(store, engine).dispatch(REQUEST)
    assert not engine.requests
    store.asked[0].callback(Verdict(None, 0.0))
    assert engine.requests
    answer.addErrback(lambda failure: None).cancel()


def test_a_client_that_leaves_meanwhile_asks_nothing_of_the_engine() -> None:
    store, engine = Slow(), FakeDispatcher()
    errors: list[Any] = []
    answer = limited(store, engine).dispatch(REQUEST)
    answer.addErrback(lambda failure: errors.append(failure.value))
    answer.cancel()
    assert isinstance(errors[0], CancelledError)
    assert not engine.requests


@pytest.mark.parametrize("first", ["asked", "decided"])
def test_a_stream_begins_when_the_store_has_answered(first: str) -> None:
    class Engine(FakeDispatcher):
        begun = 0

        def stream(self, request: Request, *, timeout_s: float | None = None) -> Failing:
            self.begun += 1
            return Failing(ValueError("the first answer"))

    store, engine = Slow(), Engine()
    stream = limited(store, engine).stream(REQUEST)
    results: list[Any] = []
    if first == "asked":
        stream.receive().addErrback(lambda failure: results.append(failure.value))
        store.asked[0].callback(Verdict(None, 0.0))
    else:
        store.asked[0].callback(Verdict(None, 0.0))
        stream.receive().addErrback(lambda failure: results.append(failure.value))
    assert str(results[0]) == "the first answer"
    assert engine.begun == 1


def test_a_stream_beyond_the_rate_fails_with_it_and_one_that_is_left_does_not_begin() -> None:
    store, engine = Slow(), FakeDispatcher()
    results: list[Any] = []
    for _ in range(2):
        stream = limited(store, engine).stream(REQUEST)
        stream.receive().addErrback(lambda failure: results.append(failure.value))
        if len(store.asked) == 2:
            stream.cancel()
    store.asked[0].callback(Verdict(0, 1.0))

    assert [type(each) for each in results] == [CancelledError, RateLimited]
    assert not engine.requests
