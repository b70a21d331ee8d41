"""Addresses of clients, as the networks that one of them has (pure)."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

# The network that one customer of an IPv6 provider gets.
_PREFIX_BITS: Final = 64


def is_loopback(address: str) -> bool:
    """Whether an address, of IPv6 perhaps with its interface, is of this machine alone; no name is."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def network_of(host: str) -> str:
    """
    An address of IPv4 as it is, one of IPv6 as its network of 64 bits.

    One of IPv6 that stands for one of IPv4 is that; what is no address is taken as it is.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address) >> _PREFIX_BITS << _PREFIX_BITS, _PREFIX_BITS)))
