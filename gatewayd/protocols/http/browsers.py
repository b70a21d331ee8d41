"""
Which pages may call executors, and by which names the gateway may be called (pure).

A browser sends what any page tells it to, and the user's own network access with it. It says which page asks:
in ``Origin``, and in ``Sec-Fetch-Site`` where a request has no Origin, such as one for a picture. A page
whose name was made to resolve to the gateway's address (DNS rebinding) counts as the gateway's own; it is
recognised by its ``Host``. Clients that are no browsers send neither header, and are not concerned.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from gatewayd.config.model import GatewayConfig
from gatewayd.errors import ContentTypeRequired, Misdirected, OriginForbidden
from gatewayd.protocols.http.grammar import authority_of
from gatewayd.protocols.http.negotiation import is_json_or_protobuf

Header = Callable[[bytes], bytes | None]

ANY: Final = "*"

_LABELS: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_PORT: Final = re.compile(r":[0-9]*$")
_READS: Final = (b"GET", b"HEAD")
_OTHER_SITES: Final = (b"cross-site", b"same-site")


@attrs.frozen
class Patterns:
    """Texts in lower case; ``*.`` in one stands for any names below the rest, ``*`` alone for everything."""

    _exact: frozenset[str]
    _open: tuple[tuple[str, str], ...]  # what is before the names, and what is after them

    @classmethod
    def of(cls, texts: Iterable[str]) -> Patterns:
        """Those of the settings."""
        texts = tuple(texts)
        parts = (text.partition("*.") for text in texts)
        return cls(frozenset(texts), tuple((begin, f".{end}") for begin, star, end in parts if star))

    @property
    def all(self) -> bool:
        """Whether everything matches."""
        return ANY in self._exact

    def match(self, text: str) -> bool:
        """Whether one of the patterns stands for ``text``."""
        if text in self._exact or self.all:
            return True
        for begin, end in self._open:
            if text.startswith(begin) and text.endswith(end) and len(text) > len(begin) + len(end):
                return _LABELS.fullmatch(text[len(begin) : -len(end)]) is not None
        return False


@attrs.frozen
class Browsers:
    """
    ``origins`` whose pages may call executors, and ``hosts`` that name the gateway; None for all.

    Who is refused is told why: by which key, or in other words.
    """

    origins: Patterns | None = None
    hosts: Patterns | None = None
    why_origins: str = "gateway.allowed_origins"
    why_hosts: str = "gateway.allowed_hosts"

    @classmethod
    def of(cls, gateway: GatewayConfig) -> Browsers:
        """The rules of a gateway's settings. Origins that CORS admits are among those allowed."""
        origins, hosts = gateway.allowed_origins, gateway.allowed_hosts
        return cls(
            None if origins is None else Patterns.of((*origins, *gateway.cors)),
            None if hosts is None else Patterns.of(hosts),
        )

    def check_host(self, target: bytes, values: Sequence[bytes]) -> None:
        """
        Raises Misdirected for a request whose names of the gateway, in the target or Host, are not allowed.

        ``values`` are those of Host, and valid.
        """
        if self.hosts is None:
            return
        named = authority_of(target)
        for value in values if named is None else (named, *values):
            if not self.hosts.match(_host(value)):
                raise Misdirected(value.decode("latin-1"), self.why_hosts)
        if not values:
            raise Misdirected("", self.why_hosts)

    def check(self, method: bytes, header: Header) -> None:
        """
        Check a request that would call executors; ``header`` gives its headers, by names in lower case.

        Raises OriginForbidden for one that a page of another origin makes, ContentTypeRequired for one of a
        page that a form could have sent, without asking the gateway first.
        """
        if self.origins is None:
            return
        self.check_origin(header)
        if header(b"origin") is None:
            if header(b"sec-fetch-site") in _OTHER_SITES:
                raise OriginForbidden("", self.why_origins)
        elif method not in _READS and not is_json_or_protobuf(content_type := header(b"content-type")):
            raise ContentTypeRequired((content_type or b"").decode("latin-1"))

    def check_origin(self, header: Header) -> None:
        """Raises OriginForbidden for a request that names an origin which is not allowed."""
        if self.origins is None or (value := header(b"origin")) is None:
            return
        origin = value.decode("latin-1").lower()
        if not self.origins.match(origin) and not self._is_own(origin, header(b"host")):
            raise OriginForbidden(value.decode("latin-1"), self.why_origins)

    def _is_own(self, origin: str, host: bytes | None) -> bool:
        """Whether the page is the gateway's own. Without ``hosts`` that could be said of any name."""
        named = origin.partition("://")[2]
        return self.hosts is not None and host is not None and named == host.decode("latin-1").lower()


def _host(authority: bytes) -> str:
    """The name or address in ``host:port``, as it is in the settings."""
    name = _PORT.sub("", authority.decode("latin-1")).lower()
    if name.startswith("["):
        try:
            return str(ipaddress.IPv6Address(name[1:-1]))
        except ValueError:
            return name
    return name.removesuffix(".")
