"""What a client shows of itself, in whatever protocol."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from gatewayd.tls.peer import PeerNames


@attrs.frozen
class Credentials:
    """
    ``header(name)`` gives a header or metadata of the request, its name in lower case; ``address`` is the
    client's host, ``certificate()`` what TLS has verified of it. ``method``, ``target`` and ``protocol`` say
    what is asked, as far as the request's head tells.
    """

    header: Callable[[str], str | None] = attrs.field(repr=False)
    address: str = ""
    certificate: Callable[[], PeerNames | None] = lambda: None
    method: str = ""
    target: str = ""
    protocol: str = ""

    @property
    def bearer(self) -> str | None:
        """What follows ``Bearer`` in the header Authorization (RFC 6750)."""
        scheme, _, value = (self.header("authorization") or "").partition(" ")
        return value.strip() if scheme.lower() == "bearer" and value.strip() else None
