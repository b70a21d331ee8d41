"""
What protocols ask before anything else: who is this?

    identify(credentials)  any thread, at once: a Caller, Unauthenticated, or a Question
    ask(question)          reactor thread: the Caller, when whoever has to be asked has answered
    admit(caller, *names)  any thread: whether the caller may see what the gateway itself answers
"""

from __future__ import annotations

from typing import Final

import attrs
from twisted.internet.defer import Deferred, succeed

from gatewayd.access.credentials import Credentials
from gatewayd.access.proxies import Proxies
from gatewayd.messages.caller import Caller

# What the gateway itself answers, by the names that rules use; in every protocol these are the same.
STATUS: Final = "/status"
DOCS: Final = "/docs"
DRY_RUN: Final = "/dry_run"


@attrs.frozen
class Question:
    """What cannot be decided at once."""

    address: str


class Door:
    """The door of all protocols of one gateway, behind ``proxies``."""

    def __init__(self, proxies: Proxies | None = None) -> None:
        self._proxies = Proxies() if proxies is None else proxies

    def identify(self, credentials: Credentials) -> Caller | Question:
        """Any thread. Raises Unauthenticated."""
        credentials = self._proxies.applied(credentials)
        return Caller(address=credentials.address)

    def ask(self, question: Question) -> Deferred[Caller]:
        """Reactor thread. Fails with a GatewayError."""
        return succeed(Caller(address=question.address))

    def admit(self, caller: Caller, *names: str) -> None:
        """
        Any thread. Raises Unauthenticated or Forbidden unless the caller may see what has all these names.

        Without names it is what every caller may see who has shown who it is.
        """
