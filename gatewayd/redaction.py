"""Addresses in messages, without the passwords that they may have (pure)."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"

# What ends a URL in a text.
_WORD_END: Final = re.compile(r"[\s\"'<>]")
_OF_ADDRESS: Final = re.compile(r"^(\w[\w+.-]*://)?.*@", re.DOTALL)


def without_passwords(text: str) -> str:
    """
    ``text`` in which URLs have no user and password.

    As much is left out as a password can be: one that should have been percent-encoded may hold / and @
    itself, and one in the middle of a list of URLs takes those before it along. In a path that was made of a
    URL, one / is left. Each character is looked at a few times at most: clients choose texts.
    """
    if "@" not in text:
        return text
    parts: list[str] = []
    done, at = 0, text.find(":/")
    while at >= 0:
        found = _WORD_END.search(text, at)
        end = len(text) if found is None else found.start()
        begin = _after_scheme(text, at)
        last = text.rfind("@", begin, end)
        if last >= 0:
            parts += (text[done:begin], HIDDEN)
            done = last
        at = text.find(":/", end)
    return "".join((*parts, text[done:]))


def beginning_of(text: str, most: int) -> str:
    """
    Some ``most`` characters of ``text``, without passwords.

    Of a URL that is cut nothing is left but its scheme: there may be a password before an @ that is not seen.
    """
    if len(text) > most:
        text = text[:most]
        begin = max((found.end() for found in _WORD_END.finditer(text)), default=0)
        at = text.find(":/", begin)
        if at >= 0:
            text = text[: _after_scheme(text, at)] + HIDDEN
    return without_passwords(text)


def end_of(text: str, most: int) -> str:
    """The last ``most`` characters of ``text``, without passwords, nor what is left of one that is cut."""
    if len(text) > most:
        text = text[-most:]
        found = _WORD_END.search(text)
        last = text.rfind("@", 0, len(text) if found is None else found.start())
        if last >= 0:
            text = HIDDEN + text[last:]
    return without_passwords(text)


def _after_scheme(text: str, at: int) -> int:
    """Behind the ``:/`` or ``://`` at ``at``."""
    return at + (3 if text.startswith("/", at + 2) else 2)


def redacted_url(address: str) -> str:
    """One URL or address, with or without a scheme, without its user and password."""
    return _OF_ADDRESS.sub(rf"\g<1>{HIDDEN}@", address) if "@" in address else address
