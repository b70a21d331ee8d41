"""
``expose_endpoints``: the HTTP routes under which executors' endpoints are served (spec http.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gatewayd.config.kinds import JSON_MAP, TEXTS, Refused, ValueKind
from gatewayd.config.model import EVERY_ENDPOINT
from gatewayd.config.problems import suggestion

# The options of the reference's FastAPI routes that apply here (spec http.md).
ROUTE_KEYS: Final = (
    "http_path", "path", "methods", "tags", "summary", "description", "response_description", "status_code",
    "deprecated", "name", "operation_id", "include_in_schema",
)  # fmt: skip
_METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")


_OF_ONE: Final = ("http_path", "path", "name", "operation_id")
_ALL: Final = "all"


def _expose_endpoints(value: Any) -> dict[str, dict[str, Any]]:
    if isinstance(value, str) and value.strip().lower() == _ALL:
        return {EVERY_ENDPOINT: {}}
    return {endpoint: _route(endpoint, route) for endpoint, route in JSON_MAP.read(value).items()}


def _route(endpoint: str, route: Any) -> dict[str, Any]:
    if route is None:
        return {}
    if not isinstance(route, Mapping):
        raise Refused(
            inside=(endpoint,), found=route, accepted="a map such as {http_path: /foo, methods: [POST]}"
        )
    result = dict(route)
    for key in result:
        if key not in ROUTE_KEYS:
            known = f"accepted: {', '.join(ROUTE_KEYS)}{suggestion(str(key), ROUTE_KEYS)}"
            raise Refused(inside=(endpoint, str(key)), message=f"unknown key; {known}")
    path = result.pop("path", None)
    if path is not None and result.setdefault("http_path", path) != path:
        raise Refused(inside=(endpoint,), message="path and http_path mean the same; give one of them")
    shown = result.get("http_path", endpoint)
    if endpoint == EVERY_ENDPOINT:
        for key in _OF_ONE:
            if key in route:
                raise Refused(inside=(endpoint, key), message="is of one endpoint only; leave it out here")
    elif not isinstance(shown, str) or not shown.startswith("/"):
        raise Refused(inside=(endpoint,), found=shown, accepted="an HTTP path, which starts with /")
    if "methods" in result:
        try:
            methods = TEXTS.read(result["methods"])
        except Refused:
            methods = ()
        if not methods or any(method.upper() not in _METHODS for method in methods):
            inside = (endpoint, "methods")
            raise Refused(inside=inside, found=result["methods"], accepted=f"a list of {', '.join(_METHODS)}")
        result["methods"] = [method.upper() for method in methods]
    return result


def routes_by_endpoint(value: Any) -> dict[str, dict[str, Any]]:
    """What ``expose_endpoints`` was set to, in whatever form, as a map. Raises Refused."""
    return _expose_endpoints(value)


EXPOSED: Final = ValueKind(
    "all, a map of endpoints to their HTTP routes, or JSON text of one",
    _expose_endpoints,
    annotation="Mapping[str, Mapping[str, Any] | None] | str",
)
