"""What EndpointSlices say of a Service's pods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.pool.endpoint_slices import AT_ONCE, MOST_BYTES, Expired, Slices, Unintelligible
from tests.pool.api_server import endpoint, event, slice_of, slices


def listed(*items: Any, version: str = "7") -> Slices:
    found = Slices(80)
    take(found, slices(*items, version=version))
    return found


def take(found: Slices, body: bytes) -> None:
    for _ in found.listed(body):
        pass


def test_pods_of_all_slices_are_called_and_pods_that_are_not_ready_are_not() -> None:
    found = listed(
        slice_of("a-1", endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False)),
        slice_of("a-2", endpoint("10.0.0.3"), endpoint("10.0.0.4", terminating=True)),
    )

    assert found.addresses() == {"10.0.0.1:80", "10.0.0.3:80"}
    assert found.version == "7"


def test_a_condition_that_is_not_told_is_the_usual_one() -> None:
    found = listed(slice_of("a", {"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {}}))

    assert found.addresses() == {"10.0.0.1:80", "10.0.0.2:80"}


def test_while_none_is_ready_those_that_end_but_serve_are_called() -> None:
    leaving = endpoint("10.0.0.1", ready=False, serving=True, terminating=True)
    broken = endpoint("10.0.0.2", ready=False, serving=False, terminating=True)
    found = listed(slice_of("a", leaving, broken))
    assert found.addresses() == {"10.0.0.1:80"}
    found.watched(event("MODIFIED", slice_of("a", leaving, broken, endpoint("10.0.0.3"), version="8")))

    assert found.addresses() == {"10.0.0.3:80"}


def test_a_pod_with_both_families_is_one_replica_and_one_of_ipv6_alone_another() -> None:
    found = listed(
        slice_of("four", endpoint("10.0.0.1", uid="p")),
        slice_of("six", endpoint("fd00::1", uid="p"), endpoint("fd00::2", uid="q"), family="IPv6"),
        slice_of("names", endpoint("a.example"), family="FQDN"),
    )

    assert found.addresses() == {"10.0.0.1:80", "[fd00::2]:80"}


def test_a_pod_in_two_slices_at_once_is_one_and_ends_when_either_says_so() -> None:
    found = listed(
        slice_of("old", endpoint("10.0.0.1", uid="p"), endpoint("10.0.0.2", uid="q")),
        slice_of("new", endpoint("10.0.0.1", uid="p", terminating=True), endpoint("10.0.0.2", uid="q")),
    )

    assert found.addresses() == {"10.0.0.2:80"}


def test_events_change_and_delete_slices_and_bookmarks_only_the_version() -> None:
    found = listed(slice_of("a", endpoint("10.0.0.1")), slice_of("b", endpoint("10.0.0.2")))
    found.watched(
        event("MODIFIED", slice_of("a", endpoint("10.0.0.9"), version="8"))
        + event("DELETED", slice_of("b", endpoint("10.0.0.2"), version="9"))
        + event("BOOKMARK", {"kind": "EndpointSlice", "metadata": {"resourceVersion": "12"}})
    )

    assert found.addresses() == {"10.0.0.9:80"}
    assert found.version == "12"


@given(st.lists(st.integers(1, 400), max_size=8))
def test_lines_may_come_in_any_pieces(cuts: Sequence[int]) -> None:
    found = listed()
    data = b"".join(
        event("ADDED", slice_of(f"a-{number}", endpoint(f"10.0.0.{number}"), version=str(number)))
        for number in range(1, 4)
    )
    ends = sorted({min(each, len(data)) for each in cuts} | {len(data)})
    for begin, end in zip([0, *ends], ends, strict=False):
        found.watched(data[begin:end])

    assert found.addresses() == {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}


_ENDPOINTS = st.builds(
    endpoint,
    st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]),
    uid=st.sampled_from(["p", "q", "r"]),
    ready=st.booleans(),
    serving=st.booleans(),
    terminating=st.booleans(),
)
_CHANGES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.lists(_ENDPOINTS, max_size=4), st.booleans()), max_size=8
)


@given(_CHANGES)
def test_changes_lead_where_a_list_of_their_end_does(changes: Sequence[tuple[str, Any, bool]]) -> None:
    followed, relisted, now = listed(), listed(slice_of("z", endpoint("10.9.9.9"))), {}
    for name, endpoints, deleted in changes:
        item = slice_of(name, *endpoints)
        followed.watched(event("DELETED" if deleted else "MODIFIED", item))
        now = {key: value for key, value in now.items() if key != name} | ({} if deleted else {name: item})
    take(relisted, slices(*now.values()))

    assert followed.addresses() == listed(*now.values()).addresses() == relisted.addresses()


def test_a_further_watch_begins_with_a_line_of_its_own() -> None:
    found = listed()
    found.watched(b'{"type": "ADD')
    found.watch_begins()
    found.watched(event("ADDED", slice_of("a", endpoint("10.0.0.1"), version="8")))

    assert found.addresses() == {"10.0.0.1:80"}


def test_an_expired_version_is_told_after_what_came_before_it() -> None:
    found = listed()
    gone = event("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version: 7 (99)"})
    with pytest.raises(Expired):
        found.watched(event("ADDED", slice_of("a", endpoint("10.0.0.1"), version="8")) + gone)

    assert found.addresses() == {"10.0.0.1:80"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"<html>\n", "no JSON"),
        (b"[]\n", "no map"),
        (b"{}\n", "an event of the type None"),
        (event("ERROR", {"code": 500, "message": "etcd has no leader"}), "an error: 'etcd has no leader'"),
        (event("ADDED", {}), "an object without name"),
        (event("ADDED", {"metadata": {"name": "a"}}), "an object without resourceVersion"),
        (event("ADDED", {"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": 3}), "no list: 3"),
        (event("ADDED", {"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [3]}), "an endpoint"),
    ],
)
def test_what_is_no_answer_is_refused_in_words_and_changes_nothing(line: bytes, told: str) -> None:
    found = listed(slice_of("a", endpoint("10.0.0.1")))
    with pytest.raises(Unintelligible, match=told):
        found.watched(line)
    assert found.version == "7"
    with pytest.raises(Unintelligible, match="no EndpointSliceList"):
        take(found, json.dumps({"kind": "PodList", "items": []}).encode())
    with pytest.raises(Unintelligible):
        take(found, slices(3))

    assert found.addresses() == {"10.0.0.1:80"}


LIST = b'{"kind": "EndpointSliceList", "metadata": {"resourceVersion": "9"}, "items": '


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON"),
        (b"{} {}", "no JSON"),
        (b"\xff", "no JSON"),
        (LIST + b"3}", "no list: 3"),
        (LIST + b"[", "no JSON"),
        (LIST + b"[] ]", "no JSON"),
        (LIST + b"[3 4]}", "an object without name"),
        (LIST + b"[" * 100_000, "no JSON"),
        (b"{}", "no EndpointSliceList"),
    ],
)
def test_a_list_that_is_none_is_refused_in_words_and_changes_nothing(body: bytes, told: str) -> None:
    found = listed(slice_of("a", endpoint("10.0.0.1")))
    with pytest.raises(Unintelligible, match=told):
        take(found, body)

    assert (found.version, found.addresses()) == ("7", {"10.0.0.1:80"})


@pytest.mark.parametrize("items", [b"null", b"[]", b" [ ] ", None])
def test_a_list_may_be_empty_and_its_members_stand_in_any_order(items: bytes | None) -> None:
    found = listed(slice_of("a", endpoint("10.0.0.1")))
    own = b"" if items is None else b'"items" :' + items + b","
    take(found, b"{" + own + b'"metadata":{"resourceVersion":"9"},\n"kind":"EndpointSliceList"}\n')

    assert (found.version, found.addresses()) == ("9", set())


def test_very_many_pods_are_read_in_steps_of_some_and_taken_at_the_last_one() -> None:
    found = listed(slice_of("a", endpoint("10.0.0.1")))
    many = [
        slice_of(f"s-{each}", *(endpoint(f"10.1.{each}.{host}") for host in range(AT_ONCE)))
        for each in range(20)
    ]
    steps = 0
    for _ in found.listed(slices(*many, version="9")):
        steps += 1
        assert (found.version, found.addresses()) == ("7", {"10.0.0.1:80"})

    assert steps == 20
    assert found.version == "9"
    assert len(found.addresses()) == 20 * AT_ONCE


def test_a_line_without_an_end_is_not_kept() -> None:
    found = listed()
    found.watched(b"x" * MOST_BYTES)
    with pytest.raises(Unintelligible, match="a line of more than"):
        found.watched(b"x")
    found.watched(event("ADDED", slice_of("a", endpoint("10.0.0.1"), version="8")))

    assert found.addresses() == {"10.0.0.1:80"}
