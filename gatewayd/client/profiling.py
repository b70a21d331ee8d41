"""Where the time of one request goes, from the routes of its answer."""

from __future__ import annotations

from typing import Any

from gatewayd.client.errors import BadServerFlow
from gatewayd.client.response import Response


def profile(response: Response, roundtrip_ms: float) -> dict[str, float]:
    """
    Milliseconds: Roundtrip, Client-server network, Server, Gateway-executors network, and for each
    executor by its name.

    The gateway's own time is the first route. What the executors took is subtracted from it one by
    one, so with parallel branches the network's part can come out negative. Raises BadServerFlow.
    """
    routes = list(response.routes)
    if not routes or not (routes[0].HasField("start_time") and routes[0].HasField("end_time")):
        raise BadServerFlow("the gateway's answer doesn't tell when it began and ended")
    server = _took_ms(routes[0])
    executors = {
        route.executor: _took_ms(route)
        for route in routes[1:]
        if route.HasField("start_time") and route.HasField("end_time")
    }
    return {
        "Roundtrip": roundtrip_ms,
        "Client-server network": roundtrip_ms - server,
        "Server": server,
        "Gateway-executors network": server - sum(executors.values()),
        **executors,
    }


def show(times: dict[str, float]) -> None:
    """Print a table of ``profile``'s figures, with their share of the roundtrip."""
    from rich.console import Console
    from rich.table import Table

    table = Table("Part", "Time", "Share", title="One request")
    for name, took in times.items():
        share = 100 * took / times["Roundtrip"] if times["Roundtrip"] else 0.0
        table.add_row(name, f"{took:.1f} ms", f"{share:.0f} %")
    Console().print(table)


def _took_ms(route: Any) -> float:
    begin, end = route.start_time, route.end_time
    took: float = (end.seconds - begin.seconds) * 1e3 + (end.nanos - begin.nanos) / 1e6
    return took
