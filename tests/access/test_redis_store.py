"""The connection to the store of the rates, with a protocol in memory: asked, late, lost and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from gatewayd.access.rates import Bucket
from gatewayd.access.redis_store import CONNECT_S, MOST_FAILURES, RedisStore, StoreLost, Verdict
from gatewayd.config.kinds import Refused
from gatewayd.config.rates_store import STORE, RatesStore

SECRET = "s3cret"
WHERE = RatesStore("127.0.0.1", password=SECRET)
TAKEN = [("key", Bucket(10, 1.0, 10), 1.0)]


class Protocol:
    """What the store uses of txredisapi's."""

    factory: Any

    def __init__(self) -> None:
        self.transport: Any = None
        self.asked: list[Deferred[Any]] = []
        self.arguments: list[tuple[list[str], list[str]]] = []
        self.connected: Deferred[Protocol] = Deferred()
        self.disconnected: Deferred[Protocol] = Deferred()

    def whenConnected(self) -> Deferred[Protocol]:
        return self.connected

    def whenDisconnected(self) -> Deferred[Protocol]:
        return self.disconnected

    def eval(self, script: str, keys: list[str], arguments: list[str]) -> Deferred[Any]:
        self.arguments.append((keys, arguments))
        self.asked.append(Deferred())
        return self.asked[-1]

    def abortConnection(self) -> None:
        self.transport = None
        self.disconnected.callback(self)
        for each in self.asked:
            if not each.called:
                each.errback(ValueError("Lost connection"))


class Bench:
    def __init__(self) -> None:
        self.clock = MemoryReactorClock()
        self.protocols: list[Protocol] = []
        self.store = RedisStore(WHERE, self.clock, 0.02, lambda: 0.5, self._protocol)
        self.store.start()
        self.clock.advance(0)

    def _protocol(self, where: RatesStore) -> Protocol:
        self.protocols.append(Protocol())
        return self.protocols[-1]

    @property
    def protocol(self) -> Protocol:
        return self.protocols[-1]

    def connect(self) -> None:
        self.protocol.transport = self.protocol
        self.protocol.connected.callback(self.protocol)

    def up(self) -> None:
        self.connect()
        self.protocol.asked.pop().callback([0, 0])

    def take(self) -> list[Any]:
        results: list[Any] = []
        self.store.take(TAKEN).addCallbacks(results.append, lambda failure: results.append(failure.value))
        return results


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def told() -> Any:
    """The lines of the log."""
    events: list[str] = []

    def observe(event: Any) -> None:
        if event["log_level"] in (LogLevel.warn, LogLevel.info) and "store" in event:
            events.append(f"{event['log_level'].name} {event['store']} {event.get('why', '')}")

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def test_it_is_asked_once_it_has_run_the_script(bench: Bench) -> None:
    bench.connect()
    assert isinstance(bench.take()[0], StoreLost)
    bench.protocol.asked.pop().callback([0, 0])
    assert bench.store.up

    results = bench.take()
    assert bench.protocol.arguments[-1] == (["key"], ["100000.000", "1000000.000"])
    bench.protocol.asked[0].callback([1, 250_000])
    assert results == [Verdict(0, 0.25)]


def test_an_answer_that_is_late_is_not_waited_for(bench: Bench) -> None:
    bench.up()
    results = bench.take()
    bench.clock.advance(0.019)
    assert not results
    bench.clock.advance(0.002)
    assert isinstance(results[0], StoreLost)
    assert "20 ms" in str(results[0])

    bench.protocol.asked[0].callback([0, 0])
    assert bench.store.up
    assert len(results) == 1


def test_late_each_time_is_late_too_often_though_the_answers_come(bench: Bench) -> None:
    bench.up()
    for _ in range(MOST_FAILURES):
        assert bench.store.up
        bench.take()
        bench.clock.advance(0.03)
        if bench.store.up:
            bench.protocol.asked.pop().callback([0, 0])
    assert not bench.store.up
    bench.store.stop()


def test_what_has_come_while_the_reactor_was_busy_is_not_late(bench: Bench) -> None:
    bench.up()
    results = [bench.take() for _ in range(MOST_FAILURES)]
    for asked in bench.protocol.asked:
        bench.clock.callLater(0.1, asked.callback, [0, 0])
    bench.clock.advance(0.5)  # timers that are due come first, then what there is to be read
    assert results == [[Verdict(None, 0.0)]] * MOST_FAILURES
    assert bench.store.up


def test_late_too_often_is_lost_and_told_once(bench: Bench, told: list[str]) -> None:
    bench.up()
    results = [bench.take() for _ in range(MOST_FAILURES)]
    bench.clock.advance(0.03)
    assert not bench.store.up
    assert all(isinstance(each[0], StoreLost) for each in results)
    assert isinstance(bench.take()[0], StoreLost)
    for _ in range(5):
        bench.clock.advance(0.11)
        bench.clock.advance(CONNECT_S)
    up, lost = "info redis://127.0.0.1:6379/0 ", "warn redis://127.0.0.1:6379/0 no answer within 20 ms"
    assert told == [up, lost]

    bench.clock.advance(10.0)
    bench.up()
    assert bench.store.up
    assert told == [up, lost, up]
    bench.store.stop()


@pytest.mark.parametrize("how", ["refused", "silent", "password", "script"])
def test_it_is_tried_again_less_and_less_often(how: str, bench: Bench, told: list[str]) -> None:
    def fails() -> None:
        if how == "refused":
            factory = bench.clock.tcpClients[-1][2]
            factory.clientConnectionFailed(bench.clock.connectors[-1], ConnectionRefusedError())
            bench.clock.advance(0.1)  # there might be another address of the name
        elif how == "silent":
            bench.clock.advance(CONNECT_S)
        elif how == "password":
            bench.protocol.factory.connectionError("could not auth: WRONGPASS")
            bench.protocol.disconnected.callback(bench.protocol)
        else:
            bench.connect()
            bench.protocol.asked.pop().errback(ValueError("NOPERM"))

    for number in range(1, 9):
        assert len(bench.protocols) == number
        fails()
        pause_s = min(5.0, 0.1 * 2 ** (number - 1))
        bench.clock.advance(0.99 * pause_s)
        assert len(bench.protocols) == number
        bench.clock.advance(0.02 * pause_s)
    assert len(told) == 1
    assert SECRET not in told[0]
    bench.store.stop()
    assert not [call for call in bench.clock.getDelayedCalls() if call.active() and "_connect" in repr(call)]


def test_a_name_that_no_certificate_can_have_is_told(told: list[str]) -> None:
    clock = MemoryReactorClock()
    name = "a" * 70
    store = RedisStore(RatesStore(name, tls=True), clock, 0.02, lambda: 0.5, lambda where: Protocol())
    store.start()
    clock.advance(0)
    (lost,) = told
    assert f"{name!r} cannot be the name of a certificate" in lost
    store.stop()
    assert not clock.getDelayedCalls()


def test_it_hangs_up_at_the_end_and_stays_away(bench: Bench, told: list[str]) -> None:
    bench.up()
    results = bench.take()
    bench.store.stop()
    assert isinstance(results[0], StoreLost)
    bench.clock.advance(60.0)
    assert len(bench.protocols) == 1
    assert len(told) == 1


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("redis://store", RatesStore("store")),
        ("redis://store:7000/2", RatesStore("store", 7000, 2)),
        ("rediss://me:p%40ss@store", RatesStore("store", tls=True, username="me", password="p@ss")),
        ("redis://:word@[::1]:1", RatesStore("::1", 1, password="word")),
    ],
)
def test_addresses(text: str, where: RatesStore) -> None:
    assert STORE.read(text) == where
    for secret in ("p@ss", "word"):
        assert secret not in where.label
        assert secret not in repr(where)


@pytest.mark.parametrize(
    "text", ["store", "http://store", "redis://", "redis://a:b", "redis://a/b", "redis://a/0?x=1", 5]
)
def test_what_is_no_address(text: Any) -> None:
    with pytest.raises(Refused):
        STORE.read(text)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            SSL.Error([("SSL routines", "", "certificate verify failed")]),
            "TLS handshake failed: certificate verify failed: no authority that is trusted has signed its "
            "certificate, or it has expired; gateway.rates_store_ca_certfile names the authorities to trust",
        ),
        (
            SSL.Error([("SSL routines", "", "wrong version number")]),
            "TLS handshake failed: wrong version number",
        ),
        (
            VerificationError([]),
            "TLS handshake failed: its certificate is for other names than 127.0.0.1",
        ),
    ],
    ids=["untrusted", "in clear", "name"],
)
def test_a_handshake_that_fails_is_told_in_words(
    bench: Bench, told: list[str], error: Exception, why: str
) -> None:
    bench.protocol.factory.connection_lost(Failure(error))
    bench.protocol.disconnected.callback(bench.protocol)
    assert told == [f"warn redis://127.0.0.1:6379/0 {why}"]
    bench.store.stop()


def load(settings: str) -> Callable[[], Any]:
    from gatewayd.config import load_flow_text

    text = f"jtype: Flow\ngateway: {{{settings}}}\nexecutors: [{{name: a}}]\n"
    return lambda: load_flow_text(text, environ={}).gateway


def test_the_rates_in_a_store_are_not_divided() -> None:
    gateway = load("rates: [{requests: 100}], gateways: 4, rates_store: 'redis://store'")()
    assert [each.requests for each in gateway.rates] == [25]
    assert [each.requests for each in gateway.shared_rates] == [100]


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(Exception, match=r"gateway\.rates_store") as caught:
        load(f"rates_store: 'redis://:{SECRET}@store/x'")()
    assert SECRET not in str(caught.value)
