"""The HTTP routes that lead to executors, from the gateway's settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from gatewayd.config.model import EVERY_ENDPOINT, GatewayConfig
from gatewayd.errors import ConfigError
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.endpoints import fault_of


@attrs.frozen
class EndpointRoute:
    """
    A path whose requests go to an endpoint of the executors.

    ``endpoint`` is None if the body names it. ``status`` is the status of a successful answer. ``tags`` and
    ``options``, those of ``expose_endpoints``, are for OpenAPI. With ``streams`` the endpoint answers with
    any number of documents, one after the other.
    """

    path: str
    methods: tuple[str, ...]
    endpoint: str | None
    status: int = 200
    tags: tuple[str, ...] = ()
    options: Mapping[str, Any] = attrs.field(factory=dict)
    streams: bool = False


def endpoint_routes(gateway: GatewayConfig, bound: Iterable[str] = ()) -> tuple[EndpointRoute, ...]:
    """
    The routes of an HTTP port. Each pair of path and method is in one of them only.

    ``bound`` are the endpoints that executors bind; where all are exposed, those that can be paths have one.
    Raises ConfigError if an endpoint that is exposed by name cannot be a path or cannot be called.
    """
    found: list[EndpointRoute] = []
    if not gateway.no_debug_endpoints:
        found.append(EndpointRoute("/post", ("POST",), None, tags=("Debug",)))
    if not gateway.no_crud_endpoints:
        found += [
            EndpointRoute(path, (method,), path, tags=("CRUD",))
            for path, method in (
                ("/index", "POST"),
                ("/search", "POST"),
                ("/delete", "DELETE"),
                ("/update", "PUT"),
            )
        ]
    taken = {(route.path, method) for route in found for method in route.methods}
    exposed = {name: options for name, options in gateway.expose_endpoints.items() if name != EVERY_ENDPOINT}
    options_of_others = gateway.expose_endpoints.get(EVERY_ENDPOINT)
    if options_of_others is not None:
        known = {route.endpoint for route in found} | exposed.keys()
        exposed |= {each: options_of_others for each in bound if each not in known and can_have_path(each)}
    for endpoint, options in exposed.items():
        route = _exposed(endpoint, options)
        # The first route wins, as in the reference.
        free = tuple(method for method in route.methods if (route.path, method) not in taken)
        taken.update((route.path, method) for method in free)
        if free:
            found.append(attrs.evolve(route, methods=free))
    return tuple(found)


def routes_of(gateway: GatewayConfig, endpoints: Endpoints) -> tuple[EndpointRoute, ...]:
    """
    The routes of an HTTP port, from the settings and what executors are known to bind.

    Endpoints of the second generation have theirs whatever the settings say, as in the reference, whose
    client looks for them (spec 34/client.md); so have, in either generation, those that stream. Raises
    ConfigError as ``endpoint_routes``.
    """
    if endpoints.is_second:
        return _typed_routes(gateway, endpoints)
    routes = endpoint_routes(gateway, endpoints.bound)
    found = [
        route if route.endpoint not in endpoints.streaming else attrs.evolve(route, streams=True)
        for route in routes
    ]
    taken = {(route.path, method) for route in found for method in route.methods}
    for endpoint in endpoints.bound:
        if endpoint in endpoints.streaming:
            _append(found, taken, _bound_route(endpoint, endpoints, {}))
    return tuple(found)


def _typed_routes(gateway: GatewayConfig, endpoints: Endpoints) -> tuple[EndpointRoute, ...]:
    """POST for each bound endpoint, and GET for those that stream; then what the settings name; /post."""
    found: list[EndpointRoute] = []
    taken: set[tuple[str, str]] = set()
    options = gateway.expose_endpoints
    for endpoint in endpoints.bound:
        given = options.get(endpoint, options.get(EVERY_ENDPOINT, {}))
        _append(found, taken, _bound_route(endpoint, endpoints, given))
    for endpoint, given in options.items():
        if endpoint != EVERY_ENDPOINT:
            route = _exposed(endpoint, given)
            _append(found, taken, attrs.evolve(route, streams=endpoint in endpoints.streaming))
    if not gateway.no_debug_endpoints:
        _append(found, taken, EndpointRoute("/post", ("POST",), None, tags=("Debug",)))
    return tuple(found)


def _bound_route(endpoint: str, endpoints: Endpoints, options: Mapping[str, Any]) -> EndpointRoute | None:
    """The route of a bound endpoint under its own name; None if that can be no path."""
    path = "/" + endpoint.strip("/")
    if not can_have_path(path):
        return None
    streams = endpoint in endpoints.streaming
    methods = ("GET", "POST") if streams else ("POST",)
    return EndpointRoute(path, methods, endpoint, options=options, streams=streams)


def _append(found: list[EndpointRoute], taken: set[tuple[str, str]], route: EndpointRoute | None) -> None:
    """Add ``route`` with those of its methods that no route before it has at its path."""
    if route is None:
        return
    free = tuple(method for method in route.methods if (route.path, method) not in taken)
    taken.update((route.path, method) for method in free)
    if free:
        found.append(attrs.evolve(route, methods=free))


def debug_paths(gateway: GatewayConfig, *, full: bool) -> tuple[str, ...]:
    """The pages that ask the gateway about itself; ``full`` is False for a port of WebSocket alone."""
    if full and gateway.no_debug_endpoints:
        return ()
    exposed = {"/dry_run": gateway.expose_dry_run, "/status": gateway.expose_status}
    return tuple(path for path, wanted in exposed.items() if wanted)


def can_have_path(endpoint: str) -> bool:
    """Whether ``endpoint`` can be exposed under its own name."""
    return _is_path(endpoint) and not fault_of(endpoint)


def _is_path(text: str) -> bool:
    return text.startswith("/") and not set(text) & set("<>|")


def _exposed(endpoint: str, options: Mapping[str, Any]) -> EndpointRoute:
    if fault := fault_of(endpoint):
        raise ConfigError(
            f"gateway.expose_endpoints: {endpoint!r} {fault}; no executor can be called with it"
        )
    path = options.get("http_path") or endpoint
    if not _is_path(path):
        raise ConfigError(
            f"gateway.expose_endpoints: {path!r} cannot be the path of {endpoint!r}; "
            "a path starts with / and has no <, > or |"
        )
    methods = tuple(dict.fromkeys(method.upper() for method in options.get("methods") or ["POST"]))
    tags = options.get("tags") or ("Customized",)
    return EndpointRoute(
        path,
        methods,
        endpoint,
        status=int(options.get("status_code") or 200),
        tags=(tags,) if isinstance(tags, str) else tuple(str(tag) for tag in tags),
        options=options,
    )
