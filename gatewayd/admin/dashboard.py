"""
The page that shows a gateway to a person: its files, which the admin site serves.

It draws /api/state and asks for actions; nothing is known or decided here. Like the pages of clients' ports
it loads nothing from elsewhere, and its policy enforces that.
"""

from __future__ import annotations

import html
from importlib.resources import files
from typing import Final

import attrs

_FILES: Final = files("gatewayd") / "assets" / "admin"
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"Cache-Control", b"no-cache"),
    (b"Content-Security-Policy", _POLICY),
    (b"Referrer-Policy", b"no-referrer"),
)
_KINDS: Final = {
    "dashboard.html": b"text/html; charset=utf-8",
    "dashboard.css": b"text/css; charset=utf-8",
    "dashboard.js": b"text/javascript; charset=utf-8",
}


@attrs.frozen
class PageFile:
    """What is answered to GET at ``path``, with HEADERS."""

    path: str
    content_type: bytes
    body: bytes = attrs.field(repr=False)


def dashboard(title: str) -> tuple[PageFile, ...]:
    """The page at / and its files. Reads files."""
    found = []
    for name, kind in _KINDS.items():
        body = (_FILES / name).read_bytes()
        if name.endswith(".html"):
            body = body.replace(b"{title}", html.escape(title).encode())
        found.append(PageFile("/" if name.endswith(".html") else f"/{name}", kind, body))
    return tuple(found)
