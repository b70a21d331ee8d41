"""Which replicas a gateway calls: properties of every set of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from gatewayd.config import DeploymentConfig
from gatewayd.pool.subset import subset
from gatewayd.pool.watching import addresses_and_names

ADDRESSES = st.sets(
    st.integers(0, 9999).map(lambda number: f"10.0.{number // 250}.{number % 250}:80"), max_size=60
)


@given(ADDRESSES, st.integers(0, 30), st.text(max_size=5))
def test_it_has_the_size_asked_for_of_what_there_is(addresses: set[str], size: int, gateway: str) -> None:
    found = subset(addresses, size, gateway)
    assert found <= addresses
    assert len(found) == (min(size, len(addresses)) if size else len(addresses))
    assert found == subset(sorted(addresses), size, gateway)


@given(ADDRESSES, st.integers(1, 30), st.text(max_size=5), st.data())
def test_a_replica_that_comes_or_goes_changes_one_place(
    addresses: set[str], size: int, gateway: str, data: st.DataObject
) -> None:
    more = addresses | {"10.9.9.9:80"}
    before, after = subset(addresses, size, gateway), subset(more, size, gateway)
    assert len(after - before) <= 1
    assert len(before - after) <= 1
    assert after - before <= {"10.9.9.9:80"}


def test_a_pool_calls_the_subset_of_fixed_addresses_and_of_a_name() -> None:
    looked_up: list[Deferred[Sequence[str]]] = []

    def resolve(host: str) -> Deferred[Sequence[str]]:
        looked_up.append(Deferred())
        return looked_up[-1]

    class Told:
        deployment, why_empty, connected = "a", "", True

        def __init__(self) -> None:
            self.addresses: set[str] = set()

        def add(self, address: str, host: str | None = None) -> None:
            self.addresses.add(address)

        def retire(self, address: str) -> Deferred[None]:
            self.addresses.remove(address)
            return succeed(None)

        def not_found(self, why: str) -> None:
            raise AssertionError(why)

    def choose(addresses: Collection[str]) -> frozenset[str]:
        return subset(addresses, 2, "g")

    fixed = [f"10.0.0.{number}:80" for number in range(5)]
    deployment = DeploymentConfig("a", external=True, addresses=(*fixed, "name.example:81"))
    told, clock = Told(), Clock()
    watchers = addresses_and_names(resolve, clock, 30.0, choose)(deployment, told)
    for watcher in watchers:
        watcher.start()
    assert told.addresses == choose(fixed)
    hosts = [f"10.0.1.{number}" for number in range(5)]
    looked_up[0].callback(hosts)
    named = choose([f"{host}:81" for host in hosts])
    assert told.addresses == choose(fixed) | named
    # One that goes is replaced by the next in rank.
    left = [host for host in hosts if f"{host}:81" != min(named)]
    clock.advance(30.0)
    looked_up[1].callback(left)
    assert told.addresses == choose(fixed) | choose([f"{host}:81" for host in left])
    for watcher in watchers:
        watcher.close()


def test_replicas_are_taken_about_equally_often() -> None:
    addresses = [f"10.0.{number // 250}.{number % 250}:80" for number in range(100)]
    taken = Counter(each for number in range(200) for each in subset(addresses, 20, f"gateway-{number}"))
    # 40 on average; a binomial of p = 0.2 has a deviation of 5.7.
    assert set(taken) == set(addresses)
    assert all(15 < count < 65 for count in taken.values())
