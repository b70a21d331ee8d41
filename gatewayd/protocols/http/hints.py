"""What a client that asks for an unknown path may have meant: an endpoint of executors (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gatewayd.messages.discovery import Endpoints
from gatewayd.protocols.http.routes import EndpointRoute, can_have_path

_MOST_NAMED: Final = 20
_ALL: Final = "set expose_endpoints: all in the gateway of the Flow file"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def hint_for(method: str, path: str, endpoints: Endpoints, routes: Iterable[EndpointRoute]) -> str:
    """
    How executors' endpoints are reached over HTTP, for a client whose ``path`` is unknown; empty for none.

    ``routes`` are those of the port. Browsers and scanners read unknown paths all the time, which has nothing
    to do with endpoints.
    """
    bound = endpoints.bound
    exposed = {route.endpoint: route for route in routes if route.endpoint is not None}
    if path in exposed:
        route = exposed[path]
        return (
            f"the endpoint {_text(path)} has another path: {' or '.join(route.methods)} {_text(route.path)}"
        )
    if path in bound and can_have_path(path):
        named = _text(path)
        return (
            f"executors bind the endpoint {named}, which has no path of its own. POST /post reaches it, with "
            f'"execEndpoint": "{named}" in the body. For a path, {_ALL}, or in Python '
            f'flow.expose_endpoint("{named}")'
        )
    if method in _READS or not bound:
        return ""
    unknown = _not_known(endpoints.unknown)
    able = [each for each in bound if can_have_path(each)]
    if all(each in exposed for each in able):
        return f"the endpoints that executors bind have paths: {_list(able)}{unknown}"
    return (
        f"executors bind {_list(bound)}. POST /post reaches them, with execEndpoint in the body. For paths "
        f"of their own, {_ALL}, or in Python flow.expose_endpoint(...){unknown}"
    )


def _list(names: Iterable[str]) -> str:
    texts = [_text(name) for name in names]
    more = len(texts) - _MOST_NAMED
    return ", ".join(texts[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _not_known(deployments: tuple[str, ...]) -> str:
    return f". What {_list(deployments)} binds is not known yet" if deployments else ""


def _text(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."
