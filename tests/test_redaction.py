"""Passwords in URLs are in no message, however they are written."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.redaction import beginning_of, end_of, redacted_url, without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://h:80/path", "http://h:80/path"),
        ("http://user:canary@h:80", "http://***@h:80"),
        ("https://canary@h", "https://***@h"),
        ("found 'grpc://u:canary@h:1'; accepted", "found 'grpc://***@h:1'; accepted"),
        ("http://u:can/ary@h", "http://***@h"),
        ("http://u:can@ary@h", "http://***@h"),
        ("/folder/http:/u:canary@h/x.yml", "/folder/http:/***@h/x.yml"),
        ("redis://:canary@h and amqp://u:canary@i", "redis://***@h and amqp://***@i"),
        ("http://u:canary@h,http://v:canary@i", "http://***@i"),
        ("mail me@example.org", "mail me@example.org"),
        ("", ""),
    ],
)
def test_of_a_text(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


@given(st.text(st.sampled_from(":/@ '\na")))
def test_it_is_what_a_regular_expression_would_say(text: str) -> None:
    assert without_passwords(text) == re.sub(r"(:/{1,2})[^\s\"'<>]*@", r"\1***@", text)


@pytest.mark.parametrize("text", ["@" + ":/" * 1_000_000, ":/@ " * 500_000, "@ :" * 500_000])
def test_a_text_that_a_client_has_made_takes_no_time_that_grows_with_its_square(text: str) -> None:
    began = time.process_time()
    assert "@" in without_passwords(text)
    assert time.process_time() - began < 10  # it would take many minutes


URL = "http://user:canary@host/"


@pytest.mark.parametrize("cut", range(len(URL)))
def test_of_an_address_that_is_cut_nothing_of_the_password_is_left(cut: int) -> None:
    begun = beginning_of(f"no answer of {URL} within 5 s", len("no answer of ") + cut)
    ended = end_of(f"no answer of {URL}", len(URL) - cut)
    for shown in (begun, ended):
        assert not any(part in shown for part in ("cana", "anar", "nary"))
    assert begun.startswith("no answer of ")


def test_what_is_not_cut_is_shown_as_ever() -> None:
    assert beginning_of(f"a {URL}", 100) == end_of(f"a {URL}", 100) == "a http://***@host/"
    assert beginning_of("x" * 100, 10) == end_of("x" * 100, 10) == "x" * 10
    assert end_of("a@b " + "x" * 10, 11) == " " + "x" * 10


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("h:80", "h:80"),
        ("u:canary@h:80", "***@h:80"),
        ("grpcs://u:canary@h", "grpcs://***@h"),
        ("http://u:can\nary@h", "http://***@h"),
    ],
)
def test_of_an_address(address: str, shown: str) -> None:
    assert redacted_url(address) == shown


@given(st.text(st.characters(blacklist_characters="\"'<>", blacklist_categories=("Z", "C")), min_size=1))
def test_whatever_the_password_is(password: str) -> None:
    url = f"https://me:#{password}#@example.org/"

    assert f"#{password}#" not in without_passwords(f"cannot reach {url} now")
    assert f"#{password}#" not in redacted_url(url)
