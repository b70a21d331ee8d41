"""API keys: rings of digests, and files of them."""

from __future__ import annotations

import hashlib

import pytest

from gatewayd.access.keys import BadKeyFile, KeyRing, new_key, ring_in


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_a_new_key_is_its_callers() -> None:
    key, shown = new_key()
    ring = KeyRing.of({"team-a": (shown.removeprefix("sha256:"),)})

    assert len(key) >= 43
    assert key not in shown
    assert ring.owner(key) == "team-a"
    assert ring.owner(key[:-1]) is None
    assert ring.owner("") is None
    assert ring.owner("x" * 1_000_000) is None


def test_no_two_keys_are_the_same() -> None:
    assert len({new_key()[0] for _ in range(100)}) == 100


def test_a_caller_may_have_several_keys() -> None:
    ring = KeyRing.of({"a": (digest("one"), digest("two")), "b": (digest("three"),)})
    assert [ring.owner(key) for key in ("one", "two", "three", "four")] == ["a", "a", "b", None]


def test_a_file_has_a_key_on_each_line() -> None:
    ring = ring_in(f"# ours\n\na:sha256:{digest('k')}  # of 2026\n b:sha256:{digest('l').upper()}\n".encode())
    assert (ring.owner("k"), ring.owner("l")) == ("a", "b")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a:sha256:abc", "line 1 is not name:sha256:hex"),
        (b"\na", "line 2 is not name:sha256:hex"),
        (b"my secret key", "line 1 is not name:sha256:hex"),
        (f"*:sha256:{digest('k')}".encode(), "'*' is a word of auth.rules"),
        (f"a b:sha256:{digest('k')}".encode(), "cannot be the name of a caller"),
        (f"a:sha256:{digest('k')}\nb:sha256:{digest('k')}".encode(), "line 2: this is a key of a, too"),
        (b"\xff\xfe", "not text"),
    ],
)
def test_a_line_that_is_none_is_told_without_what_it_says(content: bytes, said: str) -> None:
    with pytest.raises(BadKeyFile) as caught:
        ring_in(content)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert digest("k") not in str(caught.value)


def test_a_ring_shows_no_digests() -> None:
    assert digest("k") not in repr(KeyRing.of({"a": (digest("k"),)}))
    assert "x" * 8 not in repr(KeyRing({b"x" * 32: "a"}))
