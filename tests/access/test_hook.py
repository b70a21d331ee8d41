"""When the hook is asked, how often, and what becomes of its callers if it does not answer."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import protocol
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from gatewayd.access.authenticator import Question
from gatewayd.access.hook import Hook, agent_for
from gatewayd.config.auth import HookConfig
from gatewayd.errors import AuthorizationUnavailable, Forbidden, Unauthenticated
from gatewayd.messages.caller import Caller

reactor: Any = _reactor


@attrs.define
class Answer:
    code: int
    headers: Headers = attrs.Factory(Headers)

    def deliverBody(self, protocol: Any) -> None:
        protocol.connectionLost()


@attrs.define
class FakeAgent:
    """Keeps what it was asked until a test answers."""

    asked: list[Deferred[Any]] = attrs.Factory(list)

    def request(self, _method: bytes, _url: bytes, _headers: Headers) -> Deferred[Any]:
        self.asked.append(Deferred())
        return self.asked[-1]


def question(token: str = "t", address: str = "10.0.0.1") -> Question:
    return Question((("authorization", token),), address, "GET", "/", "http")


def made(**settings: Any) -> tuple[Hook, FakeAgent, Clock]:
    agent, clock = FakeAgent(), Clock()
    return Hook(HookConfig("http://h/", **settings), agent, clock), agent, clock


def results(*asking: Deferred[Caller]) -> list[Any]:
    found: list[Any] = []
    for each in asking:
        each.addBoth(lambda result: found.append(result.value if isinstance(result, Failure) else result))
    return found


def test_equal_questions_that_come_at_once_are_asked_once() -> None:
    hook, agent, _ = made()
    found = results(hook.ask(question()), hook.ask(question()), hook.ask(question("other")))
    assert len(agent.asked) == 2
    agent.asked[0].callback(Answer(200, Headers({"X-Identity": ["a"]})))
    assert found == [Caller("a", "10.0.0.1", "hook")] * 2


def test_one_that_leaves_does_not_take_the_answer_from_the_others() -> None:
    hook, agent, _ = made()
    left = hook.ask(question())
    found = results(hook.ask(question()))
    gone = results(left)
    left.cancel()
    agent.asked[0].callback(Answer(204))
    assert found == [Caller("hook", "10.0.0.1", "hook")]
    assert len(gone) == 1


@pytest.mark.parametrize(("code", "kind"), [(200, Caller), (401, Unauthenticated), (403, Forbidden)])
def test_a_decision_is_kept_for_a_while(code: int, kind: type) -> None:
    hook, agent, clock = made(cache_s=10)
    first = results(hook.ask(question()))
    agent.asked[0].callback(Answer(code))
    clock.advance(9)
    second = results(hook.ask(question()))
    assert [type(each) for each in (*first, *second)] == [kind, kind]
    assert len(agent.asked) == 1
    clock.advance(2)
    results(hook.ask(question()))
    assert len(agent.asked) == 2


def test_another_address_is_another_question() -> None:
    hook, agent, _ = made(cache_s=10)
    results(hook.ask(question()))
    agent.asked[0].callback(Answer(200))
    results(hook.ask(question(address="10.0.0.2")))
    assert len(agent.asked) == 2


@pytest.mark.parametrize("code", [100, 302, 404, 500])
def test_what_is_no_decision_lets_no_caller_in_and_is_not_kept(code: int) -> None:
    hook, agent, _ = made(cache_s=10)
    found = results(hook.ask(question()))
    agent.asked[0].callback(Answer(code))
    results(hook.ask(question()))
    assert [type(each) for each in found] == [AuthorizationUnavailable]
    assert len(agent.asked) == 2


def test_without_an_answer_in_time_no_caller_comes_in() -> None:
    hook, agent, clock = made(timeout_s=2)
    found = results(hook.ask(question()), hook.ask(question()))
    clock.advance(2)
    assert [type(each) for each in found] == [AuthorizationUnavailable] * 2
    results(hook.ask(question()))
    assert len(agent.asked) == 2


def test_one_that_cannot_be_reached_lets_no_caller_in() -> None:
    hook, agent, _ = made()
    found = results(hook.ask(question()))
    agent.asked[0].errback(Refused())
    assert [type(each) for each in found] == [AuthorizationUnavailable]


def test_so_many_are_asked_at_once_and_so_many_wait() -> None:
    hook, agent, clock = made(timeout_s=2)
    addresses = [f"10.0.0.{number % 5}" for number in range(1100)]
    found = results(*(hook.ask(question(str(n), address)) for n, address in enumerate(addresses)))
    assert len(agent.asked) == 64
    assert [type(each) for each in found] == [AuthorizationUnavailable] * 100
    clock.advance(2)
    assert len(found) == 1100
    assert not clock.getDelayedCalls()


def test_one_address_leaves_places_to_the_others() -> None:
    hook, _, clock = made(timeout_s=2)
    found = results(*(hook.ask(question(str(number))) for number in range(1100)))
    assert [type(each) for each in found] == [AuthorizationUnavailable] * 850
    assert not results(hook.ask(question(address="10.0.0.2")))

    clock.advance(2)
    assert not results(*(hook.ask(question(str(number))) for number in range(250)))
    assert len(results(hook.ask(question("one more")))) == 1
    clock.advance(2)


def test_the_addresses_of_one_network_of_ipv6_count_together() -> None:
    hook, _, clock = made(timeout_s=2)
    found = results(*(hook.ask(question(address=f"2001:db8::{number:x}")) for number in range(251)))
    assert [type(each) for each in found] == [AuthorizationUnavailable]
    assert not results(hook.ask(question(address="2001:db8:1::1")))
    clock.advance(2)


@pytest.mark.parametrize(
    ("headers", "shown", "text"),
    [
        (("authorization",), (), "send your credentials in the header Authorization"),
        (("cookie", "x-key"), (), "send your credentials in the header Cookie or X-Key"),
        (("authorization",), (("authorization", "t"),), "your credentials are not valid"),
    ],
)
def test_who_has_shown_nothing_is_not_said_to_have_shown_what_is_wrong(
    headers: tuple[str, ...], shown: tuple[tuple[str, str], ...], text: str
) -> None:
    hook, agent, _ = made(headers=headers)
    found = results(hook.ask(attrs.evolve(question(), headers=shown)))
    agent.asked[0].callback(Answer(401))
    (error,) = found
    assert str(error).endswith(text)


def test_one_whose_caller_has_hung_up_before_is_not_asked() -> None:
    hook, agent, clock = made(timeout_s=2)
    results(*(hook.ask(question(str(number))) for number in range(64)))
    left, stays = hook.ask(question("left")), hook.ask(question("stays"))
    results(left, stays)
    left.cancel()
    for number in range(64):
        agent.asked[number].callback(Answer(200))
    assert len(agent.asked) == 65
    agent.asked[-1].callback(Answer(200))
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("size", [10, 200_000])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_does_not_end_is_cut_off(size: int) -> None:
    closed: Deferred[None] = Deferred()

    class Endless(protocol.Protocol):
        def dataReceived(self, data: bytes) -> None:
            head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
            self.transport.write(head + b"x" * size)  # type: ignore[union-attr]

        def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
            closed.callback(None)

    port = reactor.listenTCP(0, protocol.Factory.forProtocol(Endless), interface="127.0.0.1")
    config = HookConfig(f"http://127.0.0.1:{port.getHost().port}/", timeout_s=0.3)
    try:
        results(Hook(config, agent_for(reactor, 0.3), reactor).ask(question()))
        await closed.addTimeout(20, reactor)
    finally:
        await maybeDeferred(port.stopListening)


def test_a_question_shows_no_credential() -> None:
    assert "secret" not in repr(question("secret"))
    assert question("secret").digest != question("secres").digest
    assert b"secret" not in question("secret").digest
