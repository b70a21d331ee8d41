"""What each of several workers may hold, and which settings of several workers are refused."""

from __future__ import annotations

import attrs
import pytest

from gatewayd.config import load_flow_text
from gatewayd.config.keys import GATEWAY, POOL
from gatewayd.config.model import GatewayConfig, PoolLimits
from gatewayd.config.rates import RateRule
from gatewayd.config.shares import POOL_TOTALS, TOTALS, indivisible, share_of
from gatewayd.errors import ConfigError


def refusal(gateway: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_flow_text(f"jtype: Flow\ngateway: {{{gateway}}}\n", environ={})
    return str(caught.value)


def test_totals_are_divided_and_rounded_down() -> None:
    gateway = GatewayConfig(
        workers=3,
        max_buffered_bytes=100,
        max_connections=10,
        pool=PoolLimits(max_in_flight_per_replica=7, max_in_flight=9, max_queued=3),
    )
    share = share_of(gateway)
    assert (share.max_buffered_bytes, share.max_connections) == (33, 3)
    assert (share.pool.max_in_flight_per_replica, share.pool.max_in_flight, share.pool.max_queued) == (
        2,
        3,
        1,
    )
    assert share.max_connections_per_address == 0  # no limit stays none


def test_all_else_is_each_workers() -> None:
    gateway = GatewayConfig(workers=2)
    changed = {
        field.name
        for field in attrs.fields(GatewayConfig)
        if getattr(share_of(gateway), field.name) != getattr(gateway, field.name)
    }
    assert changed == {"max_buffered_bytes", "pool"}


def test_the_limits_on_totals_are_keys_that_say_so() -> None:
    """A key that speaks of all clients together is divided; one that is added is to be looked at here."""
    assert {key.field for key in GATEWAY.keys} >= set(TOTALS)
    assert {key.field for key in POOL.keys} >= set(POOL_TOTALS)
    limits = {key.field for key in GATEWAY.keys if "of all clients together" in key.doc}
    assert limits - {"workers"} <= set(TOTALS)
    assert {key.field for key in POOL.keys if key.name.startswith("max_in") or "queued" in key.name} == set(
        POOL_TOTALS
    )


def test_rates_are_divided_but_not_what_one_request_may_have() -> None:
    rule = RateRule(requests=10, documents=100, per_s=2.0, burst=4, burst_documents=100)
    (share,) = share_of(GatewayConfig(workers=4, rates=(rule,))).rates
    assert share == RateRule(requests=2.5, documents=25, per_s=2.0, burst=1, burst_documents=100)
    (least,) = share_of(GatewayConfig(workers=4, rates=(RateRule(requests=1, burst=1),))).rates
    assert (least.requests, least.documents, least.burst) == (0.25, None, 1.0)


def test_rates_are_divided_among_gateways_and_then_among_their_workers() -> None:
    text = "jtype: Flow\ngateway: {gateways: 4, workers: 2, rates: [{requests: 40, burst: 8}]}"
    gateway = load_flow_text(text).gateway
    assert gateway.rates == (RateRule(requests=10, burst=2),)
    assert share_of(gateway).rates == (RateRule(requests=5, burst=1),)


def test_a_limit_that_leaves_a_worker_nothing_is_refused_by_name() -> None:
    assert list(indivisible(GatewayConfig(workers=2, pool=PoolLimits(max_in_flight_per_replica=1)))) == [
        ("pool.max_in_flight_per_replica", 1)
    ]
    text = refusal("protocol: http, workers: 2, pool: {max_in_flight_per_replica: 1}")
    assert "gateway.workers: found 2: gateway.pool.max_in_flight_per_replica is 1" in text
    assert "max_connections is 3" in refusal("protocol: http, workers: 4, max_connections: 3")


def test_grpcios_server_is_refused_and_the_key_named() -> None:
    text = refusal("protocol: grpc, workers: 2, grpc_server: grpcio")
    assert "gateway.workers: found 2" in text
    assert "gateway.grpc_server: gatewayd" in text


@pytest.mark.parametrize(
    "gateway",
    ["protocol: http, workers: 2", "protocol: [grpc, http], workers: 2, grpc_server: gatewayd", "workers: 1"],
)
def test_what_can_be_shared_is_accepted(gateway: str) -> None:
    flow = load_flow_text(f"jtype: Flow\ngateway: {{{gateway}}}\n", environ={})
    assert flow.gateway.workers == int(gateway.partition("workers: ")[2][0])


def test_the_number_is_checked() -> None:
    assert "workers" in refusal("workers: 0")
    assert "workers" in refusal("workers: many")
