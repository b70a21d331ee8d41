"""Header blocks of gRPC calls (gRPC's doc/PROTOCOL-HTTP2.md), as a server reads and writes them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

import attrs

from gatewayd.rpc.call import CODES
from gatewayd.rpc.headers import Field, encode

# As gRPC's libraries have it: the value of a name that ends in -bin is bytes.
Metadata = tuple[tuple[str, str | bytes], ...]

ACCEPTED: Final = (b"identity", b"deflate", b"gzip")

_NUMBERS: Final = {code: b"%d" % number for number, code in enumerate(CODES)}
_CONTENT: Final = (b"content-type", b"application/grpc")
# ``:status: 200`` is the eighth entry of HPACK's static table (RFC 7541 appendix A).
HEAD: Final = b"\x88" + encode([_CONTENT, (b"grpc-accept-encoding", b", ".join(ACCEPTED))])
OK: Final = encode([(b"grpc-status", b"0")])

_UNITS_S: Final[Mapping[bytes, float]] = {
    b"H": 3600.0,
    b"M": 60.0,
    b"S": 1.0,
    b"m": 1e-3,
    b"u": 1e-6,
    b"n": 1e-9,
}
_PSEUDO_NAMES: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
# RFC 9113 section 8.2.1: neither capitals nor colons.
_LEGAL_NAME: Final = re.compile(rb"[!-9;-@\[-~]+").fullmatch
# RFC 9113 section 8.2.2.
_OF_CONNECTIONS: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
# What the protocol says itself is no metadata.
_NOT_METADATA: Final = frozenset(
    {b"te", b"content-type", b"content-length", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding"}
)
# Characters of a message that need no percent-encoding.
_PLAIN: Final = "".join(map(chr, set(range(0x20, 0x7F)) - {ord("%")}))


@attrs.frozen
class RequestHead:
    """
    The head of one call.

    ``malformed`` is set where HTTP/2 forbids the fields; then nothing else is, but ``is_trailers`` where they
    may end a request. ``http_status`` is what a client gets that does not speak gRPC. ``timeout_s`` is None
    without a limit. ``encoding`` is that of compressed messages. ``length`` is the request's content-length,
    if it has one. ``bad_timeout`` is set where the grpc-timeout is none.
    """

    path: str = ""
    metadata: Metadata = attrs.field(default=(), repr=False)
    timeout_s: float | None = None
    encoding: str = "identity"
    http_status: int | None = None
    length: int | None = None
    malformed: bool = False
    is_trailers: bool = False
    bad_timeout: bool = False

    @classmethod
    def of(cls, fields: Sequence[Field]) -> RequestHead:
        """Any fields that a block decodes to."""
        pseudo: dict[bytes, bytes] = {}
        found: dict[bytes, bytes] = {}
        metadata: list[tuple[str, str | bytes]] = []
        for name, value in fields:
            kind, text = _NAMES.get(name) or _learn(name)
            if kind is _ILLEGAL or b"\n" in value or b"\r" in value or b"\0" in value:
                return _MALFORMED
            if kind is _PSEUDO:
                if name in pseudo or found or metadata:
                    return _MALFORMED
                pseudo[name] = value
            elif kind is _TEXT:
                # gRPC's protocol lets us strip what RFC 9113 would refuse (section 8.2.1).
                metadata.append((text, value.strip(b" \t").decode("latin-1")))
            elif kind is _BYTES:
                metadata += _decoded(text, value)
            elif _is_wrong(name, value, found):
                return _MALFORMED
            else:
                found[name] = value
        if not pseudo:
            return _TRAILERS
        path, length = pseudo.get(b":path", b""), found.get(b"content-length")
        if not path or b":method" not in pseudo or b":scheme" not in pseudo:
            return _MALFORMED
        if length is not None and not (length.isdigit() and len(length) < 16):
            return _MALFORMED
        timeout = found.get(b"grpc-timeout")
        timeout_s = None if timeout is None else _seconds(timeout)
        return cls(
            path=path.decode("latin-1"),
            metadata=tuple(metadata),
            timeout_s=timeout_s,
            bad_timeout=timeout is not None and timeout_s is None,
            encoding=found.get(b"grpc-encoding", b"identity").decode("latin-1"),
            http_status=_http_status(pseudo[b":method"], found.get(b"content-type", b"")),
            length=None if length is None else int(length),
        )


_MALFORMED: Final = RequestHead(malformed=True)
_TRAILERS: Final = RequestHead(malformed=True, is_trailers=True)

# What a field is by its name (RFC 9113 sections 8.2 and 8.3).
_PSEUDO: Final = "pseudo"
_ILLEGAL: Final = "illegal"
_OWN: Final = "the protocol's own"
_TEXT: Final = "metadata"
_BYTES: Final = "metadata of bytes"

# The names that were seen, as what they are and as text; forgotten when they are too many.
_NAMES: Final[dict[bytes, tuple[str, str]]] = {}
_MOST_NAMES: Final = 1000
_LONG_NAME_BYTES: Final = 100


def _learn(name: bytes) -> tuple[str, str]:
    text = name.decode("latin-1")
    if name in _PSEUDO_NAMES:
        kind = _PSEUDO
    elif _LEGAL_NAME(name) is None or name in _OF_CONNECTIONS:
        kind = _ILLEGAL
    elif name in _NOT_METADATA or name.startswith(b"grpc-"):
        kind = _OWN
    else:
        kind = _BYTES if name.endswith(b"-bin") else _TEXT
    found = kind, text
    if len(name) <= _LONG_NAME_BYTES:
        if len(_NAMES) >= _MOST_NAMES:
            _NAMES.clear()
        _NAMES[name] = found
    return found


def _is_wrong(name: bytes, value: bytes, found: Mapping[bytes, bytes]) -> bool:
    """Whether a field of the protocol's own has a value that HTTP/2 forbids."""
    if name == b"te":
        return value != b"trailers"
    return name == b"content-length" and found.get(name, value) != value


def _decoded(name: str, value: bytes) -> list[tuple[str, str | bytes]]:
    pairs: list[tuple[str, str | bytes]] = []
    for part in value.split(b","):
        part = part.strip().rstrip(b"=")
        try:
            pairs.append((name, base64.b64decode(part + b"=" * (-len(part) % 4), validate=True)))
        except (binascii.Error, ValueError):
            continue  # as gRPC's own server, which leaves it out
    return pairs


def _seconds(text: bytes) -> float | None:
    """The length of a grpc-timeout; None for what is none."""
    digits, unit = text[:-1], text[-1:]
    if unit not in _UNITS_S or not digits.isdigit() or len(digits) > 8:
        return None
    return int(digits) * _UNITS_S[unit]


def _http_status(method: bytes, content_type: bytes) -> int | None:
    if method != b"POST":
        return 405
    kind = content_type.partition(b";")[0].strip().lower()
    return None if kind == b"application/grpc" or kind.startswith(b"application/grpc+") else 415


def not_grpc(status: int) -> bytes:
    """The block of an answer to what is not gRPC."""
    return encode([(b":status", b"%d" % status), (b"content-length", b"0")])


def trailers(code: str, details: str = "", metadata: Iterable[tuple[str, str | bytes]] = ()) -> bytes:
    """The block that ends a call with the status called ``code``."""
    fields = [(b"grpc-status", _NUMBERS[code])]
    if details:
        fields.append((b"grpc-message", quote(details, safe=_PLAIN, errors="replace").encode()))
    for name, value in metadata:
        if isinstance(value, bytes):
            fields.append((name.encode(), base64.b64encode(value).rstrip(b"=")))
        else:
            fields.append((name.encode(), value.encode("latin-1", "replace")))
    return encode(fields)
