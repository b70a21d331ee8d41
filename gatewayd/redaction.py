"""Addresses in messages, without the passwords that they may have (pure)."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"

# As much as a password can be: one that should have been percent-encoded may hold / and @ itself, and one in
# the middle of a list of URLs takes those before it along. In a path that was made of a URL, one / is left.
_IN_URL: Final = re.compile(r"(:/{1,2})[^\s\"'<>]*@")
_OF_ADDRESS: Final = re.compile(r"^(\w[\w+.-]*://)?.*@", re.DOTALL)


def without_passwords(text: str) -> str:
    """``text`` in which URLs have no user and password."""
    return _IN_URL.sub(rf"\1{HIDDEN}@", text) if "@" in text else text


def redacted_url(address: str) -> str:
    """One URL or address, with or without a scheme, without its user and password."""
    return _OF_ADDRESS.sub(rf"\g<1>{HIDDEN}@", address) if "@" in address else address
