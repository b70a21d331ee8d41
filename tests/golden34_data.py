"""What executors of the captured conversations tell of their endpoints (tests/golden34)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from gatewayd.messages.discovery import Endpoints, TypedEndpoint
from gatewayd.messages.generations import Generation
from tests.paths import ROOT

FOLDER = ROOT / "tests" / "golden34"


@lru_cache
def golden(name: str) -> Any:
    """The content of a file of captured data."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def typed(executor: str, endpoint: str) -> TypedEndpoint:
    """One endpoint of an executor, as its EndpointsProto says."""
    told = golden("endpoints_proto")[f"executor {executor}"]["decoded"]["schemas"][endpoint]
    return TypedEndpoint(
        told["input"]["model"],
        told["output"]["model"],
        told["input"]["name"],
        told["output"]["name"],
        streams=told["is_generator"],
        single=told["is_singleton_doc"],
        parameters=told["parameters"]["model"],
        parameters_name=told["parameters"]["name"] or "",
    )


def endpoints_of(*executors: str) -> Endpoints:
    """All endpoints of these executors."""
    found: dict[str, TypedEndpoint] = {}
    for executor in executors:
        told = golden("endpoints_proto")[f"executor {executor}"]["decoded"]["endpoints"]
        found |= {name: typed(executor, name) for name in told if not name.startswith("_jina")}
    return Endpoints(
        bound=dict.fromkeys(found, ""),
        generation=Generation.SECOND,
        typed=found,
        streaming=frozenset(name for name, endpoint in found.items() if endpoint.streams),
    )
