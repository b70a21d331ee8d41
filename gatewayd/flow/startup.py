"""What a terminal shows while a Flow starts: how many replicas serve, and at last where clients connect."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gatewayd.config import FlowConfig
from gatewayd.config.heads import head_executors
from gatewayd.schemes import scheme_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gatewayd.flow.process import Event


def addresses(flow: FlowConfig, ports: Sequence[int]) -> list[str]:
    """What listens where, such as ``grpcs://0.0.0.0:12345``; ``ports`` are those of the listeners."""
    tls = flow.gateway.tls is not None
    host = f"[{flow.gateway.host}]" if ":" in flow.gateway.host else flow.gateway.host
    return [
        f"{scheme_of(protocol, tls=tls)}://{host}:{port}"
        for listener, port in zip(flow.gateway.listeners, ports, strict=True)
        for protocol in listener.protocols
    ]


@contextmanager
def startup(flow: FlowConfig, kind: str) -> Iterator[Callable[[Event], None]]:
    """
    Gives a function to call with each event of the start of a ``kind``, Flow or Deployment.

    Silent where stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda event: None
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    ports: list[int] = []
    served = 0
    total = _replicas(flow)
    began = time.monotonic()
    with console.status(f"{kind} starts: the gateway") as status:

        def show(event: Event) -> None:
            nonlocal served
            if event["event"] == "listening":
                ports.extend(event["ports"])
            elif event["event"] == "up":
                served += 1
            status.update(f"{kind} starts: {served} of {total} replicas serve")

        yield show
    where = escape(", ".join(addresses(flow, ports)))
    console.print(
        f"[green]{kind} is ready[/green]: {where} [dim]({time.monotonic() - began:.1f} s)[/dim]",
        highlight=False,
        soft_wrap=True,
    )


def _replicas(flow: FlowConfig) -> int:
    started = [
        each
        for deployment in flow.deployments
        for each in (deployment, *head_executors(deployment))
        if not each.external
    ]
    return sum(each.replicas * each.shards for each in started)
