# mypy: disable-error-code="no-untyped-call"
"""
The hook: a server of the user's that says whether a caller may come in, as nginx's auth_request asks it.

It is asked with GET, and gets the client's headers that the config names, and what the client wants. 2xx lets
the caller in, 401 and 403 refuse it. Anything else, and no answer in time, refuses it too, with 503. The same
question is asked once at a time, and its answer kept for as long as the config says.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, fail, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers as HttpHeaders

from gatewayd.access.authenticator import Question
from gatewayd.access.cache import Decisions
from gatewayd.bounded_log import BoundedLogger
from gatewayd.config.auth import HookConfig
from gatewayd.errors import AuthorizationUnavailable, Forbidden, GatewayError, Unauthenticated
from gatewayd.messages.caller import Caller
from gatewayd.networks import network_of
from gatewayd.waiters import Waiters

log = BoundedLogger()

# Each is a connection, and a descriptor; the others wait, within their deadline.
_MOST_AT_ONCE: Final = 64
_MOST_WAITING: Final = 1000
# Of these, those from one address, or one network of IPv6: no client takes the places of all others.
_MOST_OF_ONE: Final = 250
# Of an answer's body, which nothing reads: a longer one is cut off with its connection.
_MOST_BODY_BYTES: Final = 64 * 1024
_LONGEST_NAME: Final = 256
# For an answer that names nobody.
_UNNAMED: Final = "hook"


@attrs.frozen
class _Refused:
    """The answer was 401, with its challenge, or 403."""

    challenge: str | None

    def error(self, question: Question, config: HookConfig) -> GatewayError:
        if self.challenge is None:
            return Forbidden("you may not call this gateway; ask its operator")
        if question.headers:
            told = ", and your credentials are not valid"
        else:
            told = f"; send your credentials in the header {' or '.join(map(str.title, config.headers))}"
        return Unauthenticated(f"the gateway has to know who calls{told}", self.challenge)


Decision = str | _Refused  # the caller's name


class Hook:
    """
    Asks the server of ``config`` with ``agent``, one of Twisted's; ``clock`` is an IReactorTime.

    Reactor thread only.
    """

    def __init__(self, config: HookConfig, agent: Any, clock: Any) -> None:
        self._config = config
        self._agent = agent
        self._clock = clock
        self._known: Decisions[Decision] = Decisions()
        self._asking: dict[bytes, Waiters[Decision]] = {}
        self._asking_of: Counter[str] = Counter()  # by network
        self._connections = DeferredSemaphore(_MOST_AT_ONCE)

    def ask(self, question: Question) -> Deferred[Caller]:
        """Fails with Unauthenticated, Forbidden or AuthorizationUnavailable."""

        def concluded(decision: Decision) -> Caller:
            if isinstance(decision, _Refused):
                raise decision.error(question, self._config)
            return Caller(decision, question.address, "hook")

        return self._decision(question).addCallback(concluded)

    def _decision(self, question: Question) -> Deferred[Decision]:
        digest = question.digest
        known = self._known.get(digest, self._clock.seconds())
        if known is not None:
            return succeed(known)
        waiters = self._asking.get(digest)
        if waiters is not None:
            return waiters.wait()
        if len(self._asking) >= _MOST_WAITING:
            self._log_failure("too many questions are waiting for it")
            return fail(AuthorizationUnavailable())
        network = network_of(question.address)
        if self._asking_of[network] >= _MOST_OF_ONE:
            self._log_failure(f"too many questions are waiting for it from {network}")
            return fail(AuthorizationUnavailable())
        self._asking_of[network] += 1
        waiters = self._asking[digest] = Waiters()
        answer = waiters.wait()
        asking: Deferred[Decision] = Deferred.fromCoroutine(self._fetched(question, waiters))
        asking.addTimeout(self._config.timeout_s, self._clock, onTimeoutCancel=_late)
        asking.addBoth(self._asked, network)
        asking.addCallbacks(self._decided, self._failed, (digest,), errbackArgs=(digest,))
        return answer

    def _asked(self, result: Any, network: str) -> Any:
        self._asking_of[network] -= 1
        if not self._asking_of[network]:
            del self._asking_of[network]
        return result

    def _decided(self, decision: Decision, digest: bytes) -> None:
        if self._config.cache_s:
            self._known.put(digest, decision, self._clock.seconds() + self._config.cache_s)
        self._asking.pop(digest).fire(decision)

    def _failed(self, failure: Failure, digest: bytes) -> None:
        if failure.check(_Strange, _Late):
            self._log_failure(str(failure.value))
        elif not failure.check(_Abandoned):
            # The texts of connection errors may have the URL; their types say enough.
            reasons = getattr(failure.value, "reasons", None)
            error = reasons[0].value if reasons else failure.value
            self._log_failure(f"{type(error).__name__}")
        self._asking.pop(digest).fail(AuthorizationUnavailable())

    def _log_failure(self, reason: str) -> None:
        log.error(
            "the hook (auth.hook) does not decide, so that callers are refused: {reason}", reason=reason
        )

    async def _fetched(self, question: Question, waiters: Waiters[Decision]) -> Decision:
        await self._connections.acquire()
        try:
            if not waiters:
                raise _Abandoned
            response = await self._agent.request(b"GET", self._config.url.encode(), self._headers(question))
            await _without_body(response)
        finally:
            self._connections.release()
        if 200 <= response.code < 300:
            return self._name_in(response)
        if response.code == 401:
            challenges = response.headers.getRawHeaders(b"www-authenticate", [])
            shown = [text for each in challenges if (text := each.decode("latin-1")).isprintable()]
            return _Refused(shown[0] if shown and shown[0].isascii() else 'Bearer realm="gateway"')
        if response.code == 403:
            return _Refused(None)
        raise _Strange(f"it answers {response.code}; 2xx, 401 and 403 are decisions")

    def _name_in(self, response: Any) -> str:
        values = response.headers.getRawHeaders(self._config.identity_header.encode(), [])
        name = values[0].decode("utf-8", "replace").strip() if values else ""
        return name[:_LONGEST_NAME] or _UNNAMED

    def _headers(self, question: Question) -> HttpHeaders:
        headers = HttpHeaders({"User-Agent": ["gatewayd"]})
        for name, value in question.headers:
            headers.addRawHeader(name.encode(), value.encode("latin-1", "replace"))
        for name, value in (
            ("X-Original-Method", question.method),
            ("X-Original-URI", question.target),
            ("X-Original-Protocol", question.protocol),
            ("X-Real-IP", question.address),
            ("X-Forwarded-For", question.address),
        ):
            headers.setRawHeaders(name.encode(), [value.encode("latin-1", "replace")])
        return headers


class _Strange(Exception):
    """An answer that is no decision."""


class _Abandoned(Exception):
    """All who waited have hung up before it was asked."""


class _Late(Exception):
    """No answer in time."""


def _late(result: Any, timeout_s: float) -> Any:
    if isinstance(result, Failure) and result.check(CancelledError):
        raise _Late(f"it has not answered within {timeout_s:g} s (auth.hook.timeout)")
    return result


class _Unread(Protocol):
    """Drops a body, up to a limit."""

    def __init__(self, ended: Deferred[None]) -> None:
        self._ended = ended
        self._left_bytes = _MOST_BODY_BYTES

    def dataReceived(self, data: bytes) -> None:
        self._left_bytes -= len(data)
        if self._left_bytes < 0 and self.transport is not None:
            _cut_off(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._ended.called:
            self._ended.callback(None)


def _cut_off(transport: Any) -> None:
    """End the connection of an answer now; Twisted's transport for bodies can only ask the other side to."""
    (getattr(transport, "_producer", None) or transport).abortConnection()


async def _without_body(response: Any) -> None:
    """A connection is free for the next question when its answer has ended."""
    ended: Deferred[None] = Deferred(lambda _: _cut_off(response._transport))
    response.deliverBody(_Unread(ended))
    await ended


def agent_for(reactor: Any, timeout_s: float) -> Agent:
    """Makes the requests, over connections that are kept."""
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = _MOST_AT_ONCE
    # Its factories write two lines into the log for each connection.
    pool._factory.noisy = False
    return Agent(reactor, connectTimeout=timeout_s, pool=pool)
