"""``NAME=VALUE``, as command lines give variables and arguments."""

from __future__ import annotations


def assignment(text: str) -> tuple[str, str]:
    """The name and the value. Raises ValueError, without the text: it may be a secret."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError("expected NAME=VALUE")
    return name, value
