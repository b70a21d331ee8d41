"""``NAME=VALUE``, the form of variables and arguments on command lines."""

from __future__ import annotations


def assignment(text: str) -> tuple[str, str]:
    """The name and the value. Raises ValueError, whose text omits the value: it may be a secret."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError("expected NAME=VALUE")
    return name, value
