"""The queues of dynamic batching, with times that are made up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.executor.batching import Queues, parts_of
from gatewayd.executor.binding import Batching, batching_mark, dynamic_batching


def queues(size=4, timeout_s=10.0):
    return Queues(Batching(size, timeout_s))


def test_a_batch_is_full_at_the_preferred_number_of_documents():
    waiting = queues()

    assert waiting.add("p", "first", 3, now_s=0) is None
    full = waiting.add("p", "second", 2, now_s=1)

    assert full is not None
    assert (full.items, full.size) == (["first", "second"], 5)
    assert waiting.next_due_s() is None


def test_the_time_counts_from_the_first_request():
    waiting = queues()
    waiting.add("p", "first", 1, now_s=5)
    waiting.add("p", "second", 1, now_s=14)

    assert waiting.next_due_s() == 15
    assert waiting.due(14.9) == []
    assert [batch.items for batch in waiting.due(15)] == [["first", "second"]]
    assert waiting.due(99) == []


def test_only_equal_parameters_share_a_batch():
    waiting = queues()
    waiting.add("p", "a", 1, now_s=0)
    waiting.add("q", "b", 1, now_s=1)

    assert [batch.items for batch in waiting.flush()] == [["a"], ["b"]]


def test_a_request_after_a_full_batch_starts_a_new_one():
    waiting = queues(size=1)
    waiting.add("p", "a", 1, now_s=0)

    assert waiting.add("p", "b", 1, now_s=3).items == ["b"]


def test_a_discarded_request_no_longer_counts():
    waiting = queues()
    waiting.add("p", "gone", 3, now_s=0)
    waiting.discard("p", "gone", 3)

    assert waiting.next_due_s() is None
    assert waiting.add("p", "b", 1, now_s=7) is None
    assert waiting.next_due_s() == 17


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("pq"), st.integers(0, 5), st.floats(0, 3))),
    st.integers(1, 6),
)
def test_every_request_comes_out_once_and_in_order(arrivals, size):
    waiting, now_s, out = queues(size, 2.0), 0.0, {"p": [], "q": []}
    for number, (key, documents, pause_s) in enumerate(arrivals):
        now_s += pause_s
        batches = waiting.due(now_s)
        full = waiting.add(key, number, documents, now_s)
        for batch in [*batches, *([full] if full else [])]:
            out[batch.key] += batch.items
    for batch in waiting.flush():
        out[batch.key] += batch.items

    for key in "pq":
        assert out[key] == [number for number, arrival in enumerate(arrivals) if arrival[0] == key]


def test_later_releases_of_jina_may_leave_a_method_as_it_is():
    def method(): ...

    assert batching_mark(dynamic_batching(use_dynamic_batching=False)(method)) is None


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [  # The first two are what Jina 3.34 does with texts of these lengths.
        ([3, 3, 4, 1], [(0, 3), (3, 4)]),
        ([14, 1, 2], [(0, 1), (1, 3)]),
        ([], []),
        ([1] * 25, [(0, 10), (10, 20), (20, 25)]),
        ([0.5, 9.5, 11, 11], [(0, 2), (2, 3), (3, 4)]),
    ],
)
def test_documents_are_cut_by_what_they_count_for(sizes, parts):
    assert parts_of(sizes, 10) == parts


def test_configuration_says_whether_the_methods_own_metric_is_used():
    def method(): ...

    marked = batching_mark(
        dynamic_batching(preferred_batch_size=4, custom_metric=len, use_custom_metric=True)(method)
    )
    assert Batching.from_settings(marked, "A /x").metric is len
    assert Batching.from_settings({"preferred_batch_size": 9}, "A /x", marked).metric is len
    off = {"preferred_batch_size": 9, "use_custom_metric": False}
    assert Batching.from_settings(off, "A /x", marked).metric is None
    with pytest.raises(ValueError, match="A /x: use_custom_metric needs a custom_metric in the method's"):
        Batching.from_settings({**off, "use_custom_metric": True}, "A /x")
    with pytest.raises(ValueError, match="use_custom_metric must be true or false, not 'yes'"):
        Batching.from_settings({**off, "use_custom_metric": "yes"}, "A /x", marked)
