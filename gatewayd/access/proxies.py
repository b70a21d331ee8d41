"""
From where a request comes that passed through proxies (pure).

Each proxy adds the address that its connection came from at the end of X-Forwarded-For, or as ``for`` in
Forwarded (RFC 7239). What stands before the first proxy that is trusted, seen from here, anyone may have
written.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

import attrs

from gatewayd.access.credentials import Credentials
from gatewayd.config.model import GatewayConfig

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

X_FORWARDED_FOR: Final = "x-forwarded-for"
FORWARDED: Final = "forwarded"

# Proxies of one request; a longer list is not read further.
_MOST_HOPS: Final = 32

# A pair of an element of Forwarded.
_PAIR: Final = re.compile(r"""\s*([\w!#$%&'*+.^`|~-]+)=("[^"\\]*"|[^;"\s]+)\s*""")


class Proxies:
    """``trusted`` networks of proxies, which say in ``header`` from where a request comes."""

    def __init__(self, trusted: Iterable[str] = (), header: str = X_FORWARDED_FOR) -> None:
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(each) for each in trusted)
        self._header = header
        self.trusts = lru_cache(maxsize=4096)(self._trusts)

    @classmethod
    def of(cls, gateway: GatewayConfig) -> Proxies:
        """Those in a gateway's settings."""
        return cls(gateway.trusted_proxies, gateway.proxy_header)

    def applied(self, credentials: Credentials) -> Credentials:
        """``credentials`` with the client's address in place of its connection's."""
        address = self.client_of(credentials.address, credentials.header)
        return credentials if address == credentials.address else attrs.evolve(credentials, address=address)

    def client_of(self, peer: str, header: Callable[[str], str | None]) -> str:
        """
        The client's address: that of the last hop that is no trusted proxy.

        ``peer`` is where the connection comes from, and ``header`` gives the request's headers, by names in
        lower case; several lines of one are joined with commas.
        """
        if not self._networks or not self.trusts(peer):
            return peer
        found = peer
        value = header(self._header) or ""
        for hop in value.split(",")[: -_MOST_HOPS - 1 : -1]:
            address = _address(_for(hop) if self._header == FORWARDED else hop)
            if address is None:  # such as "unknown": nothing before it can be trusted either
                break
            found = str(address)
            if not self.trusts(found):
                break
        return found

    def _trusts(self, host: str) -> bool:
        """Whether a host is a trusted proxy."""
        address = _address(host)
        return address is not None and any(address in network for network in self._networks)


def _for(element: str) -> str:
    """
    The value of ``for`` in an element of Forwarded; empty for one without, and for a malformed one.

    An element may hold what a client sent, such as a name of a host: nothing is guessed.
    """
    found: list[str] = []
    position = 0
    while position < len(element):
        pair = _PAIR.match(element, position)
        if pair is None or element[pair.end() : pair.end() + 1] not in ("", ";"):
            return ""
        if pair[1].lower() == "for":
            found.append(pair[2])
        position = pair.end() + 1
    return found[0] if len(found) == 1 else ""


def _address(text: str) -> Address | None:
    """The address in ``host``, ``host:port`` or ``[host]:port``, as IPv4 if it stands for one."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
