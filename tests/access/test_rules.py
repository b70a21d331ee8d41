"""Which caller may call what."""

from __future__ import annotations

import pytest

from gatewayd.access.rules import Rules
from gatewayd.config.auth import AccessRule
from gatewayd.messages.caller import ANONYMOUS, Caller

A, B = Caller("team-a", means="key"), Caller("team-b", means="token")


def rules(*pairs: tuple[str, str]) -> Rules:
    return Rules(tuple(AccessRule(tuple(names.split()), tuple(who.split())) for names, who in pairs))


def test_without_rules_all_who_are_known_may_call_everything() -> None:
    assert Rules().allow(A, "/x")
    assert not Rules().allow(ANONYMOUS, "/x")


def test_with_rules_what_none_of_them_names_is_for_no_caller() -> None:
    assert not rules(("/search", "*")).allow(A, "/index")
    assert not Rules(()).allow(A, "/index")


def test_the_first_rule_that_names_the_endpoint_decides() -> None:
    ordered = rules(("/admin/*", "team-a"), ("/*", "*"))
    assert ordered.allow(A, "/admin/stop")
    assert ordered.allow(B, "/search")
    assert not ordered.allow(B, "/admin/stop")


@pytest.mark.parametrize("means", ["key", "token", "certificate", "hook"])
def test_a_name_that_reads_like_one_with_its_means_is_not_that(means: str) -> None:
    word = f"{means}:team-a"
    by_means = rules(("/search", word))
    assert not by_means.allow(Caller(word, means="token"), "/search")
    assert by_means.allow(Caller("team-a", means=means), "/search")  # type: ignore[arg-type]
    assert rules(("/search", "spiffe://x/y")).allow(Caller("spiffe://x/y", means="certificate"), "/search")


@pytest.mark.parametrize(
    ("pattern", "endpoint", "matches"),
    [
        ("/search", "/search", True),
        ("/search", "search", True),
        ("/search", "/search/", False),
        ("/search", "/Search", False),
        ("/search", "/searches", False),
        ("/admin/*", "/admin/", True),
        ("/admin/*", "/admin", False),
        ("/a*", "/abc", True),
        ("*", "", True),
        ("/", "", True),
        ("/dry_run", "_jina_dry_run_", True),
        ("/_jina_dry_run_", "_jina_dry_run_", False),
    ],
)
def test_an_endpoint_is_named_whole_or_by_its_beginning(pattern: str, endpoint: str, matches: bool) -> None:
    assert rules((pattern, "*")).allow(A, endpoint) is matches


@pytest.mark.parametrize(
    ("who", "caller", "allowed"),
    [
        ("team-a", A, True),
        ("team-a", B, False),
        ("*", B, True),
        ("*", ANONYMOUS, False),
        ("anonymous", ANONYMOUS, True),
        ("anonymous", B, True),
        ("token:team-b", B, True),
        ("key:team-b", B, False),
        ("team", A, False),
        ("spiffe://x/a", Caller("spiffe://x/a", means="certificate"), True),
    ],
)
def test_callers_are_named_with_or_without_their_means(who: str, caller: Caller, allowed: bool) -> None:
    assert rules(("/x", who)).allow(caller, "/x") is allowed


def test_what_has_several_names_is_for_those_who_may_call_all_of_them() -> None:
    some = rules(("/admin/*", "team-a"), ("/*", "*"))
    assert not some.allow_all(B, ("/x/../admin/y", "/admin/y"))
    assert some.allow_all(B, ("/x", "/x"))


def test_what_has_no_name_is_for_all_who_are_known() -> None:
    assert Rules(()).allow_all(A, ())
    assert not rules(("*", "anonymous")).allow_all(ANONYMOUS, ())
