"""
What type checkers refuse before anything runs: each line is wrong in one way; comments name mypy's rules.

``mypy --strict`` fails here as soon as one of them is accepted, because its comment is then unused.
"""

from __future__ import annotations

from gatewayd import Client, Flow


def refused() -> None:
    """Not to be called."""
    Flow().add(nme="a")  # type: ignore[call-arg]
    Flow().add(name="a", replicas="three")  # type: ignore[arg-type]
    Flow().config_gateway(monitoring="yes")  # type: ignore[arg-type]
    Client(asnycio=True)  # type: ignore[call-overload]
    Client().post("/", requestsize=3)  # type: ignore[call-overload]
    texts: list[str] = Client().post("/", return_responses=True)  # type: ignore[assignment]
    del texts
