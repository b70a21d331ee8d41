"""Passwords in URLs are in no message, however they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.redaction import redacted_url, without_passwords


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
