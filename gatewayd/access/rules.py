"""
Which caller may call what (pure).

The first rule that names the endpoint decides, and what no rule names is for no caller. An endpoint is an
executor's; what the gateway itself answers has the names in ``control``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from gatewayd.config.auth import EVERY_CALLER, STRANGERS, AccessRule
from gatewayd.messages import discovery
from gatewayd.messages.caller import Caller

_DRY_RUN: Final = "/dry_run"
# What stands before a name in rules that say how it must be shown.
_MEANS: Final = ("key:", "token:", "certificate:", "hook:")


@attrs.frozen
class Rules:
    """``rules`` None is for: everything, to every caller with an identity."""

    rules: tuple[AccessRule, ...] | None = None

    @property
    def open_to_strangers(self) -> bool:
        """Whether there is anything for callers without an identity."""
        return any(STRANGERS in rule.allow for rule in self.rules or ())

    def allow(self, caller: Caller, endpoint: str) -> bool:
        """Whether ``caller`` may call ``endpoint``."""
        if self.rules is None:
            return caller.name is not None
        name = named(endpoint)
        for rule in self.rules:
            if any(matches(pattern, name) for pattern in rule.endpoints):
                return _is_among(caller, rule.allow)
        return False

    def allow_all(self, caller: Caller, names: Iterable[str]) -> bool:
        """Whether ``caller`` may see what has these names; without names, every known caller may."""
        found = tuple(names)
        return all(self.allow(caller, name) for name in found) if found else caller.name is not None


def named(endpoint: str) -> str:
    """An endpoint as rules write it: a request that names none is for the root."""
    if endpoint == discovery.DRY_RUN:
        return _DRY_RUN
    return endpoint if endpoint.startswith("/") else f"/{endpoint}"


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern of rules stands for an endpoint as they write it."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _is_among(caller: Caller, allowed: Iterable[str]) -> bool:
    if STRANGERS in allowed:
        return True
    if caller.name is None:
        return False
    if EVERY_CALLER in allowed or f"{caller.means}:{caller.name}" in allowed:
        return True
    # Callers may choose their names: one that reads like "key:team-a" is not that.
    return not caller.name.startswith(_MEANS) and caller.name in allowed
