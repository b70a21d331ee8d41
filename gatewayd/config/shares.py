"""How the limits of a gateway are divided among its workers (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from gatewayd.config.model import GatewayConfig
from gatewayd.config.rates import RateRule

# Limits on all clients together; 0 is none. All others are of a connection, a stream, a request or a message,
# each of which has one worker, or are no limits.
TOTALS: Final = ("max_buffered_bytes", "max_connections", "max_connections_per_address")
POOL_TOTALS: Final = ("max_in_flight_per_replica", "max_in_flight", "max_queued")


def share_of(gateway: GatewayConfig) -> GatewayConfig:
    """The settings of one of its workers: limits on totals are divided, rounded down."""
    workers = gateway.workers
    return attrs.evolve(
        gateway,
        **{name: getattr(gateway, name) // workers for name in TOTALS},
        pool=attrs.evolve(
            gateway.pool, **{name: getattr(gateway.pool, name) // workers for name in POOL_TOTALS}
        ),
        # Each worker has a file of its own.
        record=None
        if gateway.record is None
        else attrs.evolve(gateway.record, max_bytes=gateway.record.max_bytes // workers),
        rates=divided(gateway.rates, workers),
    )


def of_slot(gateway: GatewayConfig, slot: int) -> GatewayConfig:
    """A worker's settings as that in its ``slot`` has them: nobody else writes to its files."""
    record = gateway.record
    if record is None:
        return gateway
    return attrs.evolve(gateway, record=attrs.evolve(record, path=f"{record.path}.w{slot}"))


def indivisible(gateway: GatewayConfig) -> Iterator[tuple[str, int]]:
    """The keys, with their values, of which a worker would have less than 1."""
    for prefix, names, limits in (("", TOTALS, gateway), ("pool.", POOL_TOTALS, gateway.pool)):
        for name in names:
            value: int = getattr(limits, name)
            if 0 < value < gateway.workers:
                yield f"{prefix}{name}", value


def divided(rates: Iterable[RateRule], among: int) -> tuple[RateRule, ...]:
    """What each of so many, among whom requests are spread evenly, may let through."""
    return tuple(_rate_of(rule, among) for rule in rates)


def _rate_of(rule: RateRule, workers: int) -> RateRule:
    # What one request may have (burst_documents) is no total.
    return attrs.evolve(
        rule,
        requests=None if rule.requests is None else rule.requests / workers,
        documents=None if rule.documents is None else rule.documents / workers,
        burst=max(1.0, rule.burst / workers),
    )
