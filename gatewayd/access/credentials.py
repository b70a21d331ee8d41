"""What a client shows of itself, in whatever protocol."""

from __future__ import annotations

from collections.abc import Callable

import attrs


@attrs.frozen
class Certificate:
    """A client's certificate that TLS has verified: its subject's common name, and its alternative names."""

    common_name: str | None = None
    alternative_names: tuple[str, ...] = ()


@attrs.frozen
class Credentials:
    """
    ``header(name)`` gives a header or metadata of the request, its name in lower case; ``address`` is the
    client's host. ``method``, ``target`` and ``protocol`` say what is asked, as far as its head tells.
    """

    header: Callable[[str], str | None] = attrs.field(repr=False)
    address: str = ""
    certificate: Certificate | None = None
    method: str = ""
    target: str = ""
    protocol: str = ""
