"""The queues of dynamic batching, with times that are made up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.executor.batching import Queues
from gatewayd.executor.binding import Batching, batching_mark, dynamic_batching


def queues(size=4, timeout_s=10.0):
    return Queues(Batching(size, timeout_s))


def test_a_batch_is_full_at_the_preferred_number_of_documents():
    waiting = queues()

    assert waiting.add("p", "first", 3, now_s=0) is None
    full = waiting.add("p", "second", 2, now_s=1)

    assert full is not None
    assert (full.items, full.documents) == (["first", "second"], 5)
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


def test_what_later_releases_of_jina_say_of_batches_is_taken_or_refused_in_words():
    def method(): ...

    assert batching_mark(dynamic_batching(use_dynamic_batching=False)(method)) is None
    with pytest.raises(ValueError, match="measured by their number of documents, not by a custom_metric"):
        dynamic_batching(preferred_batch_size=4, custom_metric=len, use_custom_metric=True)
    marked = dynamic_batching(preferred_batch_size=4, custom_metric=len)(method)
    assert batching_mark(marked)["preferred_batch_size"] == 4
