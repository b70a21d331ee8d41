"""
Values that are made for every request: immutable by convention, and cheap to make.

A frozen class of attrs calls ``object.__setattr__`` for each field, and costs three times as much to make.
These are frozen to mypy alone, which refuses every write to them; at run time they are classes with slots,
compared and hashed by value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    # By this name, so that mypy's plugin for attrs knows it.
    from attrs import frozen as value
else:
    value = attrs.define(unsafe_hash=True)

__all__ = ["value"]
