"""
The addresses of external executors, from the keys ``host`` and ``port`` (spec flow-yaml.md).
"""

from __future__ import annotations

import os
import re
from typing import Final

import attrs

from gatewayd.config.kinds import Refused
from gatewayd.redaction import redacted_url
from gatewayd.schemes import KUBERNETES, SCHEMES, SOCKET_LIMIT_BYTES, Scheme, socket_path

_ADDRESS: Final = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?"
    r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*|[A-Za-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
# A Service, and its namespace.
_SERVICE: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?")


@attrs.frozen
class Addresses:
    """
    ``host:port``, ``unix:/path`` or ``kubernetes://service:port`` of every replica.

    ``tls`` is None if no host has a scheme that says it.
    """

    addresses: tuple[str, ...]
    tls: bool | None


def resolve(hosts: tuple[str, ...], ports: tuple[int, ...]) -> Addresses:
    """
    Pair hosts with ports; a single host or port goes with all of the others.

    Raises Refused.
    """
    if any(socket_path(host) is not None for host in hosts):
        return _sockets(hosts, ports)
    parsed = [_parse(host) for host in hosts or ("127.0.0.1",)]
    schemes = {tls for _, _, tls in parsed if tls is not None}
    if len(schemes) > 1:
        raise Refused(message="some hosts have a scheme with TLS and some without; all must be alike")
    tls = schemes.pop() if schemes else None

    if ports and any(port == 0 for port in ports):
        raise Refused(message="port 0 has no meaning for an external executor; give the port it listens on")
    own = [port is not None for _, port, _ in parsed]
    if not ports:
        if not all(own):
            host = hosts[own.index(False)] if hosts else None
            where = f"{host!r} has no port" if host else "there is neither host nor port"
            raise Refused(
                message=f"an external executor needs a port: {where}; give port: 8080 or host: h:8080"
            )
        return Addresses(tuple(authority(host, port or 0) for host, port, _ in parsed), tls)
    if any(_explicit(host) for host in hosts):
        raise Refused(message="a port is given in host as well as in port; give it once")
    names = [host for host, _, _ in parsed]
    if len(names) == 1:
        names *= len(ports)
    if len(ports) == 1:
        ports *= len(names)
    if len(names) != len(ports):
        raise Refused(
            message=f"Number of hosts ({len(names)}) does not match the number of ports ({len(ports)})"
        )
    return Addresses(tuple(authority(*pair) for pair in zip(names, ports, strict=True)), tls)


def _sockets(hosts: tuple[str, ...], ports: tuple[int, ...]) -> Addresses:
    if any(socket_path(host) is None for host in hosts):
        raise Refused(message="some hosts are Unix sockets and some are not; all must be alike")
    if ports:
        raise Refused(message="a Unix socket has no port; leave port out")
    for host in hosts:
        check_socket(host)
    return Addresses(hosts, tls=False)


def check_socket(host: str) -> None:
    """Raises Refused unless ``host``, which begins with ``unix:``, can be the address of a socket."""
    path = socket_path(host) or ""
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError:
        size = 0
    if not size or not path.startswith("/") or "\0" in path:
        raise Refused(message=f"found {host[:80]!r}; accepted: unix: and an absolute path")
    if size > SOCKET_LIMIT_BYTES:
        raise Refused(message=f"found a path of {size} bytes; accepted: {SOCKET_LIMIT_BYTES}")


def _explicit(host: str) -> bool:
    match = _ADDRESS.fullmatch(host)
    return match is not None and match["port"] is not None


def _parse(text: str) -> tuple[str, int | None, bool | None]:
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise Refused(
            message=f"found {redacted_url(text)[:80]!r}; accepted: host, host:port or scheme://host:port"
        )
    scheme: Scheme | None = None
    before = ""
    if match["scheme"] and f"{match['scheme'].lower()}://" == KUBERNETES:
        before = KUBERNETES
        if _SERVICE.fullmatch(match["host"]) is None:
            raise Refused(
                message=f"found {text[:80]!r}; accepted: kubernetes://service:port and "
                "kubernetes://service.namespace:port"
            )
    elif name := match["scheme"]:
        scheme = SCHEMES.get(name.lower())
        if scheme is None:
            raise Refused(
                message=f"the scheme {name.lower()}:// is not accepted; accepted: {', '.join(SCHEMES)}"
            )
    port = int(match["port"]) if match["port"] else scheme.port if scheme else None
    if port is not None and not 1 <= port <= 65535:
        raise Refused(message=f"found the port {port} in {redacted_url(text)[:80]!r}; accepted: 1 to 65535")
    return before + match["host"].strip("[]"), port, scheme.tls if scheme else None


def authority(host: str, port: int) -> str:
    """``host:port``; an address of IPv6 in brackets."""
    if host.startswith(KUBERNETES):
        return f"{host}:{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
