"""Who sent a request."""

from __future__ import annotations

from typing import Final, Literal

import attrs

Means = Literal["key", "token", "certificate", "hook", ""]


@attrs.frozen
class Caller:
    """
    A client: its ``name`` if it has shown who it is, and the ``means`` by which it did.

    ``address`` is the host that its connection comes from, which may be a proxy; empty if that is not known.
    """

    name: str | None = None
    address: str = ""
    means: Means = ""


ANONYMOUS: Final = Caller()
