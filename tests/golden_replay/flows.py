"""The topologies that the golden data names, as Flows over executors that run already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.paths import ROOT
from tests.processes import external

EXECUTORS = str(ROOT / "tests" / "executors.py")

# How the recordings call their topologies, and how we do.
NAMES = {
    "one executor exec_a": "one",
    "one executor named echo": "echo",
    "one executor echo": "echo",
    "exec_a and exec_b both fed by the gateway, exec_c needs both, exec_c is last": "join",
    "exec_a, exec_b parallel, exec_c joins": "join",
    "exec_a and exec_b both fed by the gateway, exec_c needs both, exec_c is last; "
    'deployments_no_reduce=["exec_c"]': "no_reduce",
    "chain exec_a -> exec_b -> exec_c, timeout_send 700 ms, compression Gzip": "chain",
    "chain a-b-c": "chain",
    "chain a-b-c, timeout_send 700 ms": "chain",
    "chain, timeout_send 700 ms": "chain",
    "graph {} (no executors)": "empty",
    "no executors": "empty",
    "exec_a (when tags__k < 2) and exec_b (when tags__k >= 2) from the gateway, exec_c needs both": "when",
    "exec_a when tags__k<2, exec_b when tags__k>=2, exec_c joins": "when",
    "exec_a then gateway; exec_b floating after exec_a": "floating",
    "chain exec_a -> exec_x, exec_x address has no listener": "down",
    "chain exec_a -> exec_x (no listener)": "down",
    'one executor exec_a; expose_endpoints {"/results":{"methods":["GET","POST"],"summary":"s"},'
    '"/tag":{"http_path":"/my/tag"}}; cors; title T; description D; graphql on': "options",
    "no_debug_endpoints and no_crud_endpoints set": "bare",
}


def name_of(case: Mapping[str, Any]) -> str:
    """Which Flow a recorded case needs."""
    name = NAMES[case.get("topology", "one executor exec_a")]
    return "slow" if case["name"].startswith("timeout") else name


def flow(name: str, ports: Mapping[str, int]) -> dict[str, Any]:
    """The Flow called ``name`` in ``NAMES``; ``ports`` are those of its executors and ``slow``."""

    def at(executor: str, **more: Any) -> dict[str, Any]:
        return external(executor, ports[executor], **more)

    def join(*, a: Mapping[str, Any] | None = None, b: Mapping[str, Any] | None = None, **c: Any) -> Any:
        return [
            at("exec_a", needs="gateway", **(a or {})),
            at("exec_b", needs="gateway", **(b or {})),
            at("exec_c", needs=["exec_a", "exec_b"], **c),
        ]

    gateway: dict[str, Any] = {}
    executors: list[dict[str, Any]] = []
    match name:
        case "one":
            executors = [at("exec_a")]
        case "echo":
            executors = [at("echo")]
        case "join":
            executors = join()
        case "no_reduce":
            # An external executor cannot be told to take several requests at once, so this one is ours.
            executors = join()
            executors[2] = {
                "name": "exec_c",
                "uses": "Rec",
                "py_modules": [EXECUTORS],
                "needs": ["exec_a", "exec_b"],
                "no_reduce": True,
            }
        case "chain" | "slow":
            # Requests that time out keep their executor busy: they get an exec_a of their own.
            first = external("exec_a", ports["exec_a" if name == "chain" else "slow"])
            executors = [first, at("exec_b"), at("exec_c")]
            gateway = {"timeout_send": 700, "compression": "Gzip"}
        case "empty":
            pass
        case "when":
            executors = join(a={"when": {"tags__k": {"$lt": 2}}}, b={"when": {"tags__k": {"$gte": 2}}})
        case "floating":
            executors = [at("exec_a"), at("exec_b", floating=True)]
        case "down":
            executors = [at("exec_a"), at("exec_x")]
        case "options":
            executors = [at("exec_a")]
            gateway = {
                "expose_endpoints": {
                    "/results": {"methods": ["GET", "POST"], "summary": "s"},
                    "/tag": {"http_path": "/my/tag"},
                },
                "cors": True,
                "title": "T",
                "description": "D",
            }
        case "bare":
            executors = [at("exec_a")]
            gateway = {"no_debug_endpoints": True, "no_crud_endpoints": True}
        case _:
            raise ValueError(name)
    return {"gateway": gateway, "executors": executors}
