"""Which replicas a gateway calls: properties of every set of them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.pool.subset import subset

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


def test_replicas_are_taken_about_equally_often() -> None:
    addresses = [f"10.0.{number // 250}.{number % 250}:80" for number in range(100)]
    taken = Counter(each for number in range(200) for each in subset(addresses, 20, f"gateway-{number}"))
    # 40 on average; a binomial of p = 0.2 has a deviation of 5.7.
    assert set(taken) == set(addresses)
    assert all(15 < count < 65 for count in taken.values())
