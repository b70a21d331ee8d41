"""
The names of endpoints, such as ``/search``.

An executor's call carries the endpoint in gRPC's metadata, which is printable ASCII, and of which servers
accept 8 KiB in all (spec wire.md, gRPC metadata).
"""

from __future__ import annotations

from typing import Final

from gatewayd.errors import BadRequest

LONGEST: Final = 1000
_SHOWN: Final = 80


def fault_of(endpoint: str) -> str:
    """Why no executor can be called with ``endpoint``; empty where one can."""
    if len(endpoint) > LONGEST:
        return f"is longer than {LONGEST} characters"
    if not endpoint.isascii() or not endpoint.isprintable():
        return f"has characters besides printable ASCII: {endpoint[:_SHOWN]!a}"
    return ""


def check_endpoint(endpoint: str) -> None:
    """Raises BadRequest for a client's endpoint with which no executor can be called."""
    if len(endpoint) > LONGEST or not endpoint.isascii() or not endpoint.isprintable():
        fault = fault_of(endpoint)
        problem = {"loc": ["body", "execEndpoint"], "msg": fault, "type": "value_error.endpoint"}
        raise BadRequest(f"execEndpoint {fault}", [problem])
