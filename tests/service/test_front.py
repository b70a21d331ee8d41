"""What a new front goes on with, and what figures tell of several at once."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from twisted.internet.task import Clock

from gatewayd.buffers import Buffers
from gatewayd.config.model import GatewayConfig
from gatewayd.config.rates import RateRule
from gatewayd.protocols.port import PortReport
from gatewayd.service.front import Held
from gatewayd.service.readings import read_ports
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading

SETTINGS = GatewayConfig(listeners=(), max_connections=10, rates=(RateRule(requests=5),))
REACTOR: Any = Clock()


@attrs.frozen
class FakeFront:
    settings: GatewayConfig
    held: Held


def front(settings: GatewayConfig = SETTINGS, before: FakeFront | None = None) -> FakeFront:
    earlier: Any = before
    return FakeFront(settings, Held.of(settings, REACTOR, None, earlier))


@pytest.mark.parametrize(
    ("changed", "begun_anew"),
    [
        ({"cors": True}, set()),
        ({"max_connections": 20}, {"admission"}),
        ({"trusted_proxies": ("10.0.0.0/8",)}, {"admission"}),
        ({"max_buffered_bytes": 1 << 20}, {"buffers", "on_loop"}),
        ({"rates": (RateRule(requests=6),)}, {"rates"}),
    ],
)
def test_a_new_front_goes_on_with_what_clients_have_under_the_same_limits(
    changed: dict[str, Any], begun_anew: set[str]
) -> None:
    before = front()
    after = front(attrs.evolve(SETTINGS, **changed), before)
    names = [field.name for field in attrs.fields(Held)]
    others = {name for name in names if getattr(after.held, name) is not getattr(before.held, name)}
    assert others == begun_anew


def read(ports: list[PortReport], *fronts: FakeFront) -> Reading:
    reading = Reading()
    read_ports(reading, ports, [each.held for each in fronts])
    return reading


def test_connections_and_bytes_of_ports_that_were_replaced_are_told_until_they_end() -> None:
    old = front()
    new = front(attrs.evolve(SETTINGS, max_buffered_bytes=1000), old)
    old.held.buffers.take(70)
    new.held.buffers.take(5)
    old.held.on_loop[81], new.held.on_loop[81] = Buffers(10), Buffers(1000)
    old.held.on_loop[81].take(3)
    new.held.on_loop[81].take(4)
    ports = [
        PortReport((protocol,), "h", number, False, connections)
        for protocol, number, connections in [
            ("http", 80, 1), ("grpc", 81, 2), ("http", 80, 10), ("grpc", 81, 20), ("websocket", 82, 7)
        ]
    ]  # fmt: skip

    reading = read(ports, new, old)

    assert reading.of(table.CONNECTIONS) == {("http", "80"): 11, ("grpc", "81"): 22, ("websocket", "82"): 7}
    assert reading.of(table.HELD) == {("requests",): 75, ("grpc 81",): 7}
    assert reading.of(table.HELD_LIMIT) == {("requests",): 1000, ("grpc 81",): 1000}


def test_what_two_fronts_share_is_counted_once() -> None:
    old = front()
    new = front(attrs.evolve(SETTINGS, cors=True), old)
    new.held.buffers.take(70)
    new.held.on_loop[81] = Buffers(10)
    new.held.on_loop[81].take(3)
    port = PortReport(("grpc",), "h", 81, False, 2)

    assert read([port, port], new, old).of(table.HELD) == {("requests",): 70, ("grpc 81",): 3}
