"""
The pages that document a port, and their files, all served by gatewayd itself.

Nothing is loaded from the internet; each page's Content-Security-Policy enforces it. Pages have no inline
scripts. The files' paths include a version, so browsers may cache them forever.
"""

from __future__ import annotations

import html
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

import attrs
import orjson

from gatewayd.config.model import GatewayConfig
from gatewayd.messages.discovery import NOTHING_KNOWN, Endpoints
from gatewayd.protocols.http.openapi import openapi, title

_ASSETS: Final = files("gatewayd") / "assets"
_FOREVER: Final = ((b"Cache-Control", b"public, max-age=31536000, immutable"),)
_NEVER: Final = ((b"Cache-Control", b"no-cache"),)
_TYPES: Final = {
    "js": b"text/javascript; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "png": b"image/png",
    "txt": b"text/plain; charset=utf-8",
}
_HTML: Final = b"text/html; charset=utf-8"

# Redoc shows a logo from the internet, and leaves it out where that is no picture.
_REPLACED: Final = {"redoc.standalone.js": (b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"data:,")}

# The scripts write styles themselves, and Redoc starts its search worker from a blob.
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'self'"
)
_PAGE_HEADERS: Final = (
    *_NEVER,
    (b"Content-Security-Policy", _POLICY),
    (b"Referrer-Policy", b"no-referrer"),
)


@attrs.frozen
class Page:
    """The answer to GET on one path, always with status 200."""

    path: str
    content_type: bytes
    body: bytes = attrs.field(repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = _PAGE_HEADERS


def description(gateway: GatewayConfig, *, full: bool, endpoints: Endpoints = NOTHING_KNOWN) -> Page:
    """/openapi.json, which the pages show. Arguments and errors are those of ``openapi``."""
    document = openapi(gateway, full=full, endpoints=endpoints)
    return Page("/openapi.json", b"application/json", orjson.dumps(document), _NEVER)


def documentation(gateway: GatewayConfig) -> tuple[Page, ...]:
    """The pages that show /openapi.json, and their files. The first call reads files."""
    name = title(gateway)
    return (
        Page("/docs", _HTML, _page("docs.html", name)),
        Page("/docs/oauth2-redirect", _HTML, _page("oauth2-redirect.html", name)),
        Page("/redoc", _HTML, _page("redoc.html", name)),
        *_files(("swagger-ui-dist", "redoc")),
    )


def graphiql(gateway: GatewayConfig) -> tuple[Page, ...]:
    """The page for writing GraphQL queries, for the path /graphql, followed by its files."""
    page = Page("/graphql", _HTML, _page("graphiql.html", title(gateway)))
    return (page, *_files(("react-dom", "react", "graphiql")))


def _page(name: str, shown: str) -> bytes:
    text = (_ASSETS / "pages" / name).read_text("utf-8").replace("{title}", html.escape(shown))
    for folder, versioned in _folders().items():
        text = text.replace(f"assets/{folder}/", f"assets/{versioned}/")
    return text.encode()


@lru_cache
def _files(packages: tuple[str, ...]) -> tuple[Page, ...]:
    """The files of these packages, and our own files that go with them."""
    own = {"swagger-ui-dist": "docs", "redoc": "redoc", "graphiql": "graphiql"}
    wanted = [(package, "") for package in packages]
    wanted += [("pages", own[package] + ".") for package in packages if package in own]
    found = []
    for package, prefix in wanted:
        versioned = _folders()[package]
        folder = _ASSETS / ("pages" if package == "pages" else versioned)
        for file in sorted(folder.iterdir(), key=lambda file: file.name):
            kind = _TYPES.get(file.name.rpartition(".")[2])
            if kind is not None and file.name.startswith(prefix):
                path = f"/docs/assets/{versioned}/{file.name}"
                body = file.read_bytes()
                if file.name in _REPLACED:
                    body = body.replace(*_REPLACED[file.name])
                found.append(Page(path, kind, body, _FOREVER))
    return tuple(found)


@lru_cache
def _folders() -> dict[str, str]:
    """Maps folder names in the pages to served ones: with a version, or a hash if they have none."""
    folders = {}
    for folder in _ASSETS.iterdir():
        name, _, version = folder.name.rpartition("-")
        if name and version[:1].isdigit():
            folders[name] = folder.name
    own = b"".join(file.read_bytes() for file in (_ASSETS / "pages").iterdir())
    return {**folders, "pages": f"pages-{sha256(own).hexdigest()[:16]}"}
