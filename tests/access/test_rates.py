"""Token buckets by rule and caller, as values: what has room, how long to wait, and what is remembered."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.access.rates import Rates
from gatewayd.config import load_flow_text
from gatewayd.config.rates import RateRule
from gatewayd.errors import ConfigError, RateLimited, TooManyForRate
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.counting import Uncountable, count_up_to
from gatewayd.messages.wire import NO_DOCUMENTS
from gatewayd.pb import DataContentProto

A = Caller("a", "10.0.0.1", "key")
B = Caller("b", "10.0.0.1", "key")
STRANGER = Caller(address="10.0.0.1")


def no_documents(most: int) -> int:
    return 0


def took(
    rates: Rates, caller: Caller, now_s: float = 0.0, endpoint: str = "/search", documents: int = 0
) -> float:
    """0 if there was room, else how long the caller is to wait."""
    try:
        rates.take(caller, endpoint, lambda most: documents, now_s)
    except RateLimited as error:
        return error.retry_after_s
    return 0.0


def allowed(rates: Rates, caller: Caller, tries: int, now_s: float = 0.0, **more: Any) -> int:
    return sum(took(rates, caller, now_s, **more) == 0 for _ in range(tries))


# -- the settings ---------------------------------------------------------------------------------------


def loaded(text: str) -> tuple[RateRule, ...]:
    rules: tuple[RateRule, ...] = load_flow_text(
        f"jtype: Flow\ngateway: {{rates: {text}}}", environ={}
    ).gateway.rates
    return rules


def test_a_rule_has_defaults_and_its_bursts_are_its_amounts() -> None:
    assert loaded("[{requests: 100}, {documents: '1000', per: 60, by: address, endpoints: /search}]") == (
        RateRule(requests=100, burst=100),
        RateRule(("/search",), "address", documents=1000, per_s=60, burst_documents=1000),
    )
    assert loaded(
        "[{requests: 0.5, documents: 3, burst: 2, burst_documents: 9, endpoints: ['*', /a/*]}]"
    ) == (RateRule(("*", "/a/*"), requests=0.5, documents=3, burst=2, burst_documents=9),)
    assert loaded("[{requests: 0.5}]")[0].burst == 1
    assert loaded("[]") == ()


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("{requests: 1}", "gateway.rates", "a list of maps"),
        ("[{}]", "gateway.rates[0]", "nothing that this rule limits"),
        ("[3]", "gateway.rates[0]", "a map such as"),
        ("[{requests: 1}, {requests: 0}]", "gateway.rates[1].requests", "more than 0"),
        ("[{requests: many}]", "gateway.rates[0].requests", "more than 0"),
        ("[{requests: 1, per: 0}]", "gateway.rates[0].per", "more than 0"),
        ("[{requests: 1, burst: 0.5}]", "gateway.rates[0].burst", "from 1 up"),
        ("[{requests: 1, burst_documents: 5}]", "gateway.rates[0].burst_documents", "without documents"),
        ("[{requests: 1, by: adress}]", "gateway.rates[0].by", "address"),
        ("[{requests: 1, endpoints: [search]}]", "gateway.rates[0].endpoints", "patterns such as"),
        ("[{requests: 1, endpoints: [/a*b]}]", "gateway.rates[0].endpoints", "patterns such as"),
        ("[{requests: 1, endpoint: /a}]", "gateway.rates[0].endpoint", "did you mean"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_at_its_place(text: str, place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    assert place in str(caught.value)
    assert words in str(caught.value)


# -- buckets --------------------------------------------------------------------------------------------


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    rates = Rates([RateRule(requests=2, per_s=1, burst=5)])

    assert allowed(rates, A, 20) == 5
    assert took(rates, A) == pytest.approx(0.5)
    assert allowed(rates, A, 20, 0.499) == 0
    assert allowed(rates, A, 20, 0.5) == 1
    assert allowed(rates, A, 20, 1.5) == 2
    assert allowed(rates, A, 20, 1000.0) == 5


@given(
    amount=st.floats(0.01, 1e5),
    per_s=st.floats(0.01, 3600),
    burst=st.integers(1, 300),
    start=st.floats(0, 2e9),
)
@settings(deadline=None)
def test_a_bucket_of_n_holds_n(amount: float, per_s: float, burst: int, start: float) -> None:
    rates = Rates([RateRule(requests=amount, per_s=per_s, burst=burst)])
    assert allowed(rates, A, burst + 1, start) == burst


def test_over_a_long_time_it_is_the_rate_however_the_requests_come() -> None:
    rates, dice = Rates([RateRule(requests=10, per_s=1, burst=10)]), random.Random(7)
    now_s, passed = 0.0, 0
    while now_s < 1000:
        passed += allowed(rates, A, dice.randrange(6), now_s)
        now_s += dice.random() * 0.2
    assert passed == pytest.approx(10_000, rel=0.02)


def test_what_is_refused_is_not_counted() -> None:
    rates = Rates([RateRule(requests=1, per_s=1, burst=1)])
    assert took(rates, A) == 0
    for _ in range(1000):
        assert took(rates, A, 0.5) == pytest.approx(0.5)
    assert took(rates, A, 1.0) == 0


def test_a_clock_that_is_put_back_keeps_no_caller_out() -> None:
    rates = Rates([RateRule(requests=1, per_s=1, burst=3)])
    allowed(rates, A, 3, 1e6)
    assert took(rates, A, 10.0) == pytest.approx(1.0)
    assert took(rates, A, 11.0) == 0


# -- whose, and which -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "one", "other", "share"),
    [
        ("identity", A, B, False),
        ("identity", A, Caller("a", "10.0.0.2", "key"), True),
        ("identity", A, Caller("a", "10.0.0.1", "token"), False),
        ("identity", A, STRANGER, False),
        ("identity", STRANGER, Caller(address="10.0.0.2"), False),
        ("identity", Caller("@10.0.0.1", "", "key"), STRANGER, False),
        ("identity", Caller("n" * 9000, "", "key"), Caller("n" * 8999 + "m", "", "key"), False),
        ("address", A, B, True),
        ("address", A, Caller("a", "10.0.0.2", "key"), False),
        ("address", STRANGER, Caller(address="::ffff:10.0.0.1"), True),
        ("address", Caller(address="2001:db8::1"), Caller(address="2001:db8::ffff:1"), True),
        ("address", Caller(address="2001:db8::1"), Caller(address="2001:db8:0:1::1"), False),
        ("all", A, Caller(address="2001:db8::1"), True),
        ("address", ANONYMOUS, Caller(address="somewhere"), False),
    ],
)
def test_who_shares_a_bucket(by: Any, one: Caller, other: Caller, share: bool) -> None:
    rates = Rates([RateRule(by=by, requests=1, burst=1)])
    assert took(rates, one) == 0
    assert (took(rates, other) > 0) is share


@pytest.mark.parametrize(
    ("pattern", "endpoint", "matches"),
    [
        ("*", "/search", True),
        ("*", "", True),
        ("/", "", True),
        ("/search", "/search", True),
        ("/search", "search", True),
        ("/search", "/searches", False),
        ("/admin/*", "/admin/x", True),
        ("/admin/*", "/admin", False),
        ("/a*", "/abc", True),
    ],
)
def test_which_endpoints_a_rule_is_for(pattern: str, endpoint: str, matches: bool) -> None:
    rates = Rates([RateRule((pattern,), requests=1, burst=1)])
    rates.take(A, endpoint, no_documents, 0.0)
    assert (took(rates, A, endpoint=endpoint) > 0) is matches


def test_endpoints_of_one_rule_share_its_bucket_and_every_rule_must_have_room() -> None:
    rates = Rates(
        [
            RateRule(("/a", "/b"), requests=1, per_s=10, burst=3),
            RateRule(("/a",), requests=1, per_s=1, burst=1),
        ]
    )
    assert took(rates, A, endpoint="/a") == 0
    assert took(rates, A, endpoint="/a") == pytest.approx(1)  # the second rule, which leaves the first alone
    assert [took(rates, A, endpoint="/b") for _ in range(3)] == [0, 0, pytest.approx(10)]
    assert took(rates, A, endpoint="/a") == pytest.approx(10)  # the longest
    assert took(rates, A, endpoint="/c") == 0


def test_documents_have_a_rate_of_their_own() -> None:
    rates = Rates([RateRule(requests=100, documents=10, per_s=1, burst=100, burst_documents=20)])

    assert took(rates, A, documents=15) == 0
    assert took(rates, A, documents=15) == pytest.approx(1.0)
    assert took(rates, A, documents=5) == 0
    assert took(rates, A, documents=0) == 0  # costs none
    assert took(rates, A, documents=1) == pytest.approx(0.1)


def test_a_request_that_would_never_pass_is_refused_for_good() -> None:
    rates = Rates(
        [
            RateRule(documents=100, burst_documents=100),
            RateRule(("/search",), documents=10, burst_documents=20),
        ]
    )
    with pytest.raises(TooManyForRate, match=r"more than 20 documents.*gateway\.rates"):
        rates.take(A, "/search", lambda most: most + 1, 0.0)
    assert took(rates, A, documents=20) == 0
    assert took(rates, A, endpoint="/index", documents=80) == 0


def test_what_it_remembers_is_bounded_and_the_one_used_last_stays() -> None:
    rates = Rates([RateRule(by="address", requests=1, per_s=60, burst=1)], most_buckets=100)
    for number in range(10_000):
        assert took(rates, Caller(address=f"10.1.{number // 256}.{number % 256}")) == 0
        took(rates, STRANGER) if number == 9_950 else None
    assert len(rates) == 100
    assert took(rates, STRANGER) > 0


def test_the_text_says_what_is_used_up_and_until_when() -> None:
    rates = Rates([RateRule(requests=100, per_s=60, burst=1)])
    rates.take(A, "/", no_documents, 0.0)
    with pytest.raises(RateLimited) as caught:
        rates.take(A, "/", no_documents, 0.0)
    assert str(caught.value) == (
        "more than 100 requests in 60 s of each caller (gateway.rates); try again in 0.6 s"
    )


# -- counting documents ---------------------------------------------------------------------------------


def content(count: int, size: int = 0) -> bytes:
    found = DataContentProto()
    for _ in range(count):
        found.docs.docs.add(text="x" * size)
    return found.SerializeToString()


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 20_000])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_documents_are_counted_without_reading_them(count: int, size: int) -> None:
    assert count_up_to(content(count, size), 100) == count


def test_chunks_and_several_lists() -> None:
    found = DataContentProto()
    document = found.docs.docs.add()
    document.chunks.add().chunks.add()
    document.matches.add()
    one = found.SerializeToString()
    assert count_up_to(one, 10) == 1
    assert count_up_to(one + content(2), 10) == 3
    assert len(DataContentProto.FromString(one + content(2)).docs.docs) == 3
    assert count_up_to(b"", 10) == count_up_to(NO_DOCUMENTS, 10) == 0


def test_counting_ends_at_the_limit_and_so_does_its_work() -> None:
    assert count_up_to(content(50), 10) == 11
    assert count_up_to(b"\x0a\x80\xad\xe2\x04" + b"\x0a\x00" * 5_000_000, 10) == 11
    with pytest.raises(Uncountable):
        count_up_to(NO_DOCUMENTS * 5_000_000, 10)


@pytest.mark.parametrize(
    "documents",
    [
        b"\x0a",
        b"\x0a\x05\x0a",
        b"\x0a\x02\x0a\x05",
        b"\x12\x01a",
        b"\x0a\x02\x12\x00",
        b"\x1a\x00",
        b"\x0a\xff",
    ],
)
def test_what_cannot_be_counted_is_refused(documents: bytes) -> None:
    with pytest.raises(Uncountable):
        count_up_to(documents, 10)


@given(st.binary(max_size=200))
def test_any_bytes_are_counted_or_refused(documents: bytes) -> None:
    with contextlib.suppress(Uncountable):
        assert 0 <= count_up_to(documents, 5) <= 6
