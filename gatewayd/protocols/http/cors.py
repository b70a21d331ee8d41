"""
CORS: the headers that allow pages of other origins to use a port (the Fetch standard; pure).

Without cookies and authorization an answer for any origin may be kept for any; with them browsers take only
one that names the page's own origin.
"""

from __future__ import annotations

from typing import Final

import attrs

from gatewayd.protocols.http.browsers import Header, Patterns

Headers = list[tuple[bytes, bytes]]
_CREDENTIALS: Final = (b"Access-Control-Allow-Credentials", b"true")
# Scripts see only a few of an answer's headers, unless the others are named.
_EXPOSED: Final = (b"Access-Control-Expose-Headers", b"X-Request-ID, X-Gatewayd-Hint")
_VARY: Final = (b"Vary", b"Origin")


@attrs.frozen
class Cors:
    """``origins`` that may use the port, such as ``https://a.example``; ``("*",)`` is all, ``()`` is off."""

    origins: tuple[str, ...] = ()
    _patterns: Patterns = attrs.field(init=False, repr=False)

    @_patterns.default
    def _of_origins(self) -> Patterns:
        return Patterns.of(self.origins)

    def answer(self, header: Header) -> Headers:
        """Headers of the answer to a request whose headers ``header(name)`` gives, in lower case."""
        origin = header(b"origin")
        if origin is None or not self.origins:
            return []
        if self._patterns.all and header(b"cookie") is None and header(b"authorization") is None:
            return [(b"Access-Control-Allow-Origin", b"*"), _CREDENTIALS, _EXPOSED]
        if not self._allows(origin):
            return [_VARY]
        return [(b"Access-Control-Allow-Origin", origin), _CREDENTIALS, _EXPOSED, _VARY]

    def is_preflight(self, header: Header) -> bool:
        """Whether an OPTIONS request is a browser's preflight for another request."""
        asks = header(b"access-control-request-method") is not None
        return bool(self.origins) and asks and header(b"origin") is not None

    def preflight(self, header: Header) -> Headers:
        """Headers of the answer to a preflight: everything requested is allowed (spec http.md, Options)."""
        origin = header(b"origin")
        if origin is None or not self._allows(origin):
            return [_VARY]
        headers = [
            (b"Access-Control-Allow-Origin", origin),
            _CREDENTIALS,
            (b"Access-Control-Allow-Methods", b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
            (b"Access-Control-Max-Age", b"600"),
            _VARY,
        ]
        requested = header(b"access-control-request-headers")
        if requested is not None:
            headers.append((b"Access-Control-Allow-Headers", requested))
        return headers

    def _allows(self, origin: bytes) -> bool:
        return self._patterns.match(origin.decode("latin-1"))
