"""
What operators can have a gateway do: each action by its name, and who may ask for one.

Parts that can be steered bring their actions (``Actions.add``); the admin site runs them, and knows none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from gatewayd.access.keys import KeyRing
from gatewayd.errors import BadRequest, Forbidden, PathNotFound, Unauthenticated

# Gets the body of the request, a map, and gives what is answered as JSON. Fails with a GatewayError or
# ConfigError, whose text is for the operator. Cancelling it must leave things whole.
Run = Callable[[Mapping[str, Any]], Deferred[Any]]


@attrs.frozen
class Action:
    """
    ``doc`` is a sentence for operators; ``arguments`` are what its body may have, with a sentence each, and
    ``required`` names those that it has to have.
    """

    name: str
    doc: str
    run: Run
    arguments: Mapping[str, str] = attrs.field(factory=dict)
    required: tuple[str, ...] = ()


class Actions:
    """Actions by their names. Reactor thread only."""

    def __init__(self) -> None:
        self._by_name: dict[str, Action] = {}

    def add(self, action: Action) -> None:
        """Make ``action`` available; its name is new."""
        assert action.name not in self._by_name, action.name
        self._by_name[action.name] = action

    def __iter__(self) -> Any:
        return iter(self._by_name.values())

    def find(self, name: str) -> Action:
        """Raises PathNotFound."""
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise PathNotFound(f"there is no action {name[:80]!r}; there are: {known}") from None


@attrs.frozen
class Admins:
    """Who may have actions run: the owners of ``keys``."""

    keys: KeyRing

    @classmethod
    def of(cls, digests: Mapping[str, tuple[str, ...]]) -> Admins:
        """Those of ``gateway.admin_keys``."""
        return cls(KeyRing.of(digests))

    def identify(self, authorization: str | None, api_key: str | None) -> str:
        """
        The name of who shows these headers, a bearer token or an API key.

        Raises Forbidden where nobody may, Unauthenticated for a key that is missing or unknown.
        """
        if not self.keys:
            raise Forbidden(
                "this needs the key of an administrator, and none is configured: set gateway.admin_keys "
                "(`gatewayd api-key NAME` makes a key)"
            )
        scheme, _, token = (authorization or "").strip().partition(" ")
        shown = token.strip() if scheme.lower() == "bearer" else api_key
        owner = None if not shown else self.keys.owner(shown)
        if owner is None:
            why = "this is no key of an administrator" if shown else "the key of an administrator is missing"
            raise Unauthenticated(f"{why}; send one as Authorization: Bearer KEY, or as X-API-Key")
        return owner


def check_arguments(action: Action, given: Any) -> Mapping[str, Any]:
    """The body of a request for ``action``. Raises BadRequest."""
    if not isinstance(given, dict):
        raise BadRequest(f"the body of {action.name} is a JSON object, such as {{}}")
    for name in given:
        if name not in action.arguments:
            known = ", ".join(action.arguments) or "none"
            raise BadRequest(f"{action.name} has no argument {str(name)[:80]!r}; it has: {known}")
    for name in action.required:
        if name not in given:
            raise BadRequest(f"{action.name}: {name} is missing: {action.arguments[name]}")
    return given
