"""The headers of W3C's Trace Context: what they say, and what is as if it were not there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.messages.trace_context import TraceContext, context_of, headers_of, without_context

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_a_place_in_a_trace() -> None:
    found = context_of([("x-other", "1"), ("traceparent", PARENT), ("tracestate", "rojo=1,congo=t61")])

    assert found == TraceContext(int(TRACE, 16), int(SPAN, 16), True, "rojo=1,congo=t61")


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)])
def test_the_flag_says_whether_it_is_kept(flags: str, sampled: bool) -> None:
    found = context_of([("traceparent", f"00-{TRACE}-{SPAN}-{flags}")])

    assert found is not None
    assert found.sampled is sampled


@pytest.mark.parametrize("parent", [f"cc-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-the-future-brings"])
def test_a_later_version_is_read_as_far_as_it_is_known(parent: str) -> None:
    assert context_of([("traceparent", parent)]) == context_of([("traceparent", PARENT)])


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        PARENT.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"{PARENT}-more",
        f"{PARENT}-",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"00_{TRACE}_{SPAN}_01",
        f"{PARENT}, {PARENT}",
    ],
)
def test_what_cannot_be_read_is_not_there(parent: str) -> None:
    assert context_of([("traceparent", parent), ("tracestate", "rojo=1")]) is None


def test_of_two_parents_neither_counts() -> None:
    assert context_of([("traceparent", PARENT), ("traceparent", PARENT)]) is None


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        (["rojo=1 ,\t congo=2"], "rojo=1,congo=2"),
        (["rojo=1", "congo=2"], "rojo=1,congo=2"),
        (["", "congo=2,"], "congo=2"),
        (["fw529a3039@dt=FfAA"], "fw529a3039@dt=FfAA"),
        (["Rojo=1"], ""),
        (["rojo"], ""),
        (["rojo=1=2"], ""),
        ([",".join(f"k{number}=1" for number in range(33))], ""),
        ([f"young={'1' * 250}", f"older={'1' * 250}", "old=1"], f"young={'1' * 250}"),
    ],
)
def test_the_state_is_passed_on_if_it_is_one(lines: list[str], state: str) -> None:
    found = context_of([("traceparent", PARENT), *(("tracestate", line) for line in lines)])

    assert found is not None
    assert found.state == state


def test_what_is_not_about_the_trace_stays() -> None:
    headers = (("traceparent", PARENT), ("x-a", "1"), ("tracestate", "rojo=1"))

    assert without_context(headers) == (("x-a", "1"),)
    assert without_context((("x-a", "1"),)) == (("x-a", "1"),)


@given(
    st.builds(
        TraceContext,
        st.integers(1, 2**128 - 1),
        st.integers(1, 2**64 - 1),
        st.booleans(),
        st.sampled_from(["", "rojo=1", "rojo=1,congo=2"]),
    )
)
def test_what_is_written_is_read(context: TraceContext) -> None:
    assert context_of(headers_of(context)) == context


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_header_fails(parent: str, state: str) -> None:
    context_of([("traceparent", parent), ("traceparent", PARENT), ("tracestate", state)])
    context_of([("traceparent", PARENT), ("tracestate", state)])
