"""
What protocols ask before anything else: who is this?

    identify(credentials)  any thread, at once: a Caller, Unauthenticated, or a Question
    ask(question)          reactor thread: the Caller, when the hook has answered
    admit(caller, *names)  any thread: whether the caller may see what the gateway itself answers
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import Final, Protocol

from twisted.internet.defer import Deferred, fail

from gatewayd.access.authenticator import Authenticator, InvalidCredential, Question
from gatewayd.access.credentials import Credentials
from gatewayd.access.proxies import Proxies
from gatewayd.access.rules import Rules, named
from gatewayd.bounded_log import BoundedLogger
from gatewayd.errors import AuthorizationUnavailable, Forbidden, Unauthenticated
from gatewayd.messages import discovery
from gatewayd.messages.caller import Caller

log = BoundedLogger()

# What the gateway itself answers, by the names that rules use; in every protocol these are the same.
STATUS: Final = "/status"
DOCS: Final = "/docs"
DRY_RUN: Final = "/dry_run"
_OWN: Final = frozenset({STATUS, DOCS, DRY_RUN})

_SHOWN: Final = 80


class Asked(Protocol):
    """The hook. Reactor thread only."""

    def ask(self, question: Question) -> Deferred[Caller]: ...


class AccessControl:
    """
    The access control of all protocols of one gateway, behind ``proxies``.

    Without an ``authenticator`` every client may come in, and only its address is known.
    """

    def __init__(
        self,
        authenticator: Authenticator | None = None,
        rules: Rules | None = None,
        hook: Asked | None = None,
        proxies: Proxies | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        # Replaced as a whole when keys change: other threads see the one or the other.
        self.authenticator = authenticator
        self._rules = Rules() if rules is None else rules
        self._hook = hook
        self._proxies = Proxies() if proxies is None else proxies
        self._wall_clock = wall_clock

    def identify(self, credentials: Credentials) -> Caller | Question:
        """Any thread. Raises Unauthenticated."""
        credentials = self._proxies.applied(credentials)
        authenticator = self.authenticator
        if authenticator is None:
            return Caller(address=credentials.address)
        try:
            found = authenticator.identify(credentials, self._wall_clock())
        except InvalidCredential as error:
            log.info(
                "a client at {address} is refused over {protocol}: {reason}",
                address=credentials.address or "an unknown address",
                protocol=credentials.protocol,
                reason=error.reason,
            )
            raise
        if found is not None:
            return found
        if not self._rules.open_to_strangers:
            raise authenticator.nothing_shown()
        return Caller(address=credentials.address)

    def ask(self, question: Question) -> Deferred[Caller]:
        """Reactor thread. Fails with a GatewayError."""
        return fail(AuthorizationUnavailable()) if self._hook is None else self._hook.ask(question)

    def admit(self, caller: Caller, *names: str) -> None:
        """
        Any thread. Raises Unauthenticated or Forbidden unless the caller may see what has all these names.

        Without names it is what every caller may see who has shown who it is.
        """
        if self.authenticator is not None and not self._rules.allow_all(caller, names):
            raise self._refusal(caller, names[0] if names else "this")

    def check(self, caller: Caller, endpoint: str, bound: Callable[[], Container[str]]) -> None:
        """As ``admit``, for an executor's endpoint; ``bound`` gives those that executors bind."""
        if self.authenticator is None:
            return
        if not self._rules.allow(caller, endpoint) or self._is_page(endpoint, bound):
            raise self._refusal(caller, endpoint)

    def _is_page(self, endpoint: str, bound: Callable[[], Container[str]]) -> bool:
        """
        Whether rules mean the gateway's own page by the name of an endpoint.

        A method that answers whatever no other binds would otherwise be open to all who may see the page.
        """
        if self._rules.rules is None or endpoint == discovery.DRY_RUN or named(endpoint) not in _OWN:
            return False
        return endpoint not in bound()

    def _refusal(self, caller: Caller, what: str) -> Unauthenticated | Forbidden:
        assert self.authenticator is not None
        if caller.name is None:
            return self.authenticator.nothing_shown()
        shown = what[:_SHOWN].encode("unicode_escape").decode("ascii")
        log.info(
            "{name} at {address} may not call {what}", name=caller.name, address=caller.address, what=shown
        )
        return Forbidden(
            f"you may not call {shown or 'the root'}: no rule allows it to you; ask the gateway's operator"
        )
