"""
Hints on requests that no executor worked on, most often because of a misspelt name.

Like the reference, the gateway answers these with the request's own documents. Each hint is logged once, up
to a limit, and is sent to the client with the Response.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from twisted.logger import Logger

from gatewayd.config.problems import nearest, show
from gatewayd.messages.request import Request

log = Logger()

# Clients may send any names: limits on the hints that are logged, and on the length of each name.
_MOST_LOGGED: Final = 100
_LONGEST: Final = 200
_MOST_NAMED: Final = 10


class Hints:
    """Logs hints, each of them once."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def hint(self, request: Request, names: Iterable[str], matching: int, bound: Iterable[str]) -> str:
        """
        The hint for ``request``, on which none of the Deployments ``names`` worked.

        ``matching`` is the number of those that its target selects, and ``bound`` are the endpoints of all.
        """
        endpoint, target = request.endpoint[:_LONGEST], request.target[:_LONGEST]
        hint = _hint(endpoint, target, tuple(names), matching, tuple(bound))
        if hint not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(hint)
            log.warn("no executor worked on a request: {hint}", hint=hint)
            if len(self._logged) == _MOST_LOGGED:
                log.warn("further hints like this one are not logged")
        return hint


@lru_cache(maxsize=_MOST_LOGGED)
def _hint(endpoint: str, target: str, names: tuple[str, ...], matching: int, bound: tuple[str, ...]) -> str:
    if not matching:
        return f"no executor has a name that target_executor {show(target)} matches; they are {_list(names)}"
    who = f"no executor that target_executor {show(target)} matches" if target else "no executor"
    meant = nearest(endpoint, bound, most=1)
    guess = f"; did you mean {show(meant[0])}?" if meant and meant[0] != endpoint else ""
    return f"{who} binds the endpoint {show(endpoint)}; they bind {_list(bound) or 'none'}{guess}"


def _list(names: tuple[str, ...]) -> str:
    shown = ", ".join(map(show, names[:_MOST_NAMED]))
    return f"{shown} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else shown
