"""
How often clients were told of each kind of error, over which protocol; also of requests that were refused
before they could be dispatched.

The count is the process's: what tells errors is pure but for it, and on several threads. An increment of a
plain dict's value is not broken up by CPython; at worst one is lost.
"""

from __future__ import annotations

from collections.abc import Mapping

from gatewayd.errors import Codes, GatewayError, codes_for

_counts: dict[tuple[str, str], int] = {}


def told(error: GatewayError, protocol: str) -> Codes:
    """The codes of an error that a client is told now: what ``protocols/*/errors.py`` ask."""
    kind = protocol, type(error).__name__
    _counts[kind] = _counts.get(kind, 0) + 1
    return codes_for(error)


def counts() -> Mapping[tuple[str, str], int]:
    """By protocol and the name of the error's class, since the process began."""
    return dict(_counts)
