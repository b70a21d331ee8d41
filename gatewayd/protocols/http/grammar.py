"""
What RFC 9110 and RFC 9112 ask of a request, as far as twisted.web leaves it open (pure).

A request that two parsers read differently can hide a second one from the proxy in front (request smuggling).
So nothing is guessed or mended here: what the grammar does not allow is refused, with words that say why.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final

from gatewayd.errors import InvalidHttp, UnsupportedTransferCoding

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

# A field line (RFC 9112 section 5): no blank before the colon, no control character but the tab. twisted.web
# remembers the names of 10 000 fields, which must not be of any length.
_FIELD_LINE: Final = re.compile(rb"%b{1,256}:[^\x00-\x08\x0a-\x1f\x7f]*" % _TOKEN)

# A chunk's size and its extensions (section 7.1.1). Only before an extension may there be blanks.
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")

# More digits than any body has bytes.
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")

# uri-host [":" port] (RFC 9110 section 7.2, RFC 3986 section 3.2.2); the first group is an IPv6 address.
_NAME_CHARACTER: Final = rb"[A-Za-z0-9\-._~!$&'()*+,;=]"
_AUTHORITY: Final = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|\[[vV][0-9A-Fa-f]+\.(?:%b|:)+\]|(?:%b|%%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
    % (_NAME_CHARACTER, _NAME_CHARACTER)
)

# Printable ASCII without "#": a fragment is never sent (RFC 9112 section 3.2).
_TARGET: Final = re.compile(rb"[\x21\x22\x24-\x7e]+")
_ABSOLUTE: Final = re.compile(rb"(?i:https?|wss?)://([^/?]+)([/?].*)?")

_SHOWN: Final = 80


def check_target(method: bytes, target: bytes) -> None:
    """Raises InvalidHttp for a request target in none of the four forms (RFC 9112 section 3.2)."""
    if not _TARGET.fullmatch(target):
        raise InvalidHttp(f"its target {_shown(target)} has characters that no URI has")
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return
    if method == b"CONNECT":
        if not is_authority(target):
            raise InvalidHttp(f"its target {_shown(target)} is not host:port, as for CONNECT")
        return
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not is_authority(absolute[1]):
        raise InvalidHttp(
            f"its target {_shown(target)} is neither a path nor an http URL; a path begins with /"
        )


def is_health_check(method: bytes, target: bytes, paths: frozenset[bytes], *, upgrade: bool) -> bool:
    """Whether a request asks for one of ``paths``, as load balancers do, by whatever name or address."""
    return method in (b"GET", b"HEAD") and not upgrade and origin_form(target) in paths


def origin_form(target: bytes) -> bytes:
    """The path of a target that has been checked, without its query; ``*`` and ``host:port`` as they are."""
    path = target.partition(b"?")[0]
    if path.startswith(b"/"):
        return path
    absolute = _ABSOLUTE.fullmatch(path)
    return path if absolute is None else absolute[2] or b"/"


def authority_of(target: bytes) -> bytes | None:
    """The ``host:port`` that a target names in place of the Host header (RFC 9112 section 3.2.2)."""
    absolute = _ABSOLUTE.fullmatch(target)
    return None if absolute is None else absolute[1]


def check_host(values: Sequence[bytes], version: bytes) -> None:
    """Raises InvalidHttp unless there is one Host, and it may be one (RFC 9112 section 3.2)."""
    if not values and version == b"HTTP/1.1":
        raise InvalidHttp("it has no Host header")
    if len(values) > 1:
        raise InvalidHttp(f"it has {len(values)} Host headers instead of one")
    for value in values:
        if not is_authority(value):
            raise InvalidHttp(f"its Host header {_shown(value)} is not host or host:port")


def is_authority(text: bytes) -> bool:
    """Whether ``text`` is ``host`` or ``host:port``; the host may be empty."""
    found = _AUTHORITY.fullmatch(text)
    if found is None or found[1] is None:
        return found is not None
    try:
        ipaddress.IPv6Address(found[1].decode())
    except ValueError:
        return False
    return True


def check_field_line(line: bytes, where: str = "head") -> None:
    """Raises InvalidHttp for what is not ``name: value``."""
    if not _FIELD_LINE.fullmatch(line):
        raise InvalidHttp(f"the line {_shown(line)} of its {where} is not a header 'name: value'")


def content_length(value: bytes) -> int:
    """The value of a Content-Length (RFC 9110 section 8.6). Raises InvalidHttp."""
    if not _LENGTH.fullmatch(value):
        raise InvalidHttp(f"its Content-Length {_shown(value)} is not one decimal number")
    return int(value)


def check_transfer_coding(value: bytes, version: bytes) -> None:
    """
    Check that a body with ``Transfer-Encoding: value`` is chunked and nothing else.

    Raises InvalidHttp where its end could not be found (RFC 9112 section 6.3), UnsupportedTransferCoding for
    other codings below it.
    """
    *others, last = (coding.strip(b" \t").lower() for coding in value.split(b","))
    if last != b"chunked" or b"chunked" in others or b"" in others:
        raise InvalidHttp(f"its Transfer-Encoding {_shown(value)} does not end with one 'chunked'")
    if version != b"HTTP/1.1":
        raise InvalidHttp("there is no Transfer-Encoding in HTTP/1.0")
    if others:
        raise UnsupportedTransferCoding(b", ".join(others).decode("latin-1"))


def chunk_size(line: bytes | bytearray) -> int:
    """The size of a chunk, from its first line. Raises InvalidHttp."""
    found = _CHUNK_LINE.fullmatch(line)
    if found is None:
        raise InvalidHttp(f"the line {_shown(bytes(line))} does not begin a chunk")
    return int(found[1], 16)


def members(values: Iterable[bytes]) -> list[bytes]:
    """The members, in lower case, of a list in one header line or several (RFC 9110 section 5.6.1)."""
    found = (member.strip(b" \t").lower() for value in values for member in value.split(b","))
    return [member for member in found if member]


def _shown(text: bytes) -> str:
    """What is repeated to the client of its own bytes."""
    return repr(text[:_SHOWN].decode("latin-1")) + ("..." if len(text) > _SHOWN else "")
