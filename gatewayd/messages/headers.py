"""
Headers that travel with a request to executors, and back with their answers: which may, and in what form.

A header is a pair of texts that fits into gRPC metadata and into HTTP alike: the name in lower case, the
value printable ASCII. The value of a name that ends in ``-bin`` is bytes, here and in HTTP as base64 without
padding (gRPC's doc/PROTOCOL-HTTP2.md, Custom-Metadata). A name may occur more than once.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from gatewayd.errors import HeadersTooLarge, IllegalHeader

Headers = tuple[tuple[str, str], ...]

# Named exactly these are forwarded, by a pattern never: a pattern must not hand out what logs a user in.
_BY_NAME_ONLY: Final = frozenset({"authorization", "cookie", "set-cookie"})
# By which an executor on another machine knows its gateway (executor/callers.py).
SECRET_HEADER: Final = "gatewayd-secret"
# What has a meaning for one connection, message or call alone: RFC 9110 sections 7.6.1 and 10, RFC 9113
# section 8.2.2, RFC 6455, the Fetch standard, gRPC, and what gateways and executors tell each other.
_RESERVED: Final = frozenset(
    {
        *(
            "accept",
            "accept-encoding",
            "connection",
            "date",
            "expect",
            "host",
            "http2-settings",
            "keep-alive",
        ),
        *("server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary"),
        SECRET_HEADER,
        *("endpoint", "is-error", "__prefetch__", "__results_in_order__"),
    }
)
_RESERVED_PREFIXES: Final = (":", "grpc-", "content-", "proxy-", "access-control-", "sec-websocket-")
# Executors get the client's, but an answer has the gateway's own.
_NOT_BACK: Final = frozenset({"x-request-id", "x-gatewayd-hint"})

_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
# Of all metadata of a call: far more than is ever forwarded. gRPC's servers and clients begin to refuse at
# 8 KiB by themselves.
METADATA_BYTES: Final = 128 * 1024
# Of those that the gateway reads for itself: they are few and short, whatever clients send.
_LONGEST_OWN: Final = 2048
_MOST_OWN: Final = 8
# What a header counts for besides its characters (RFC 9113 section 6.5.2), which bounds their number.
_OVERHEAD_BYTES: Final = 32


def is_reserved(name: str) -> bool:
    """Whether a header with this name, in lower case, is never forwarded."""
    return name in _RESERVED or name.startswith(_RESERVED_PREFIXES)


def check_entry(entry: str) -> str:
    """One entry of an allow-list in lower case: a name, or a pattern such as ``x-*``. Raises ValueError."""
    entry = entry.strip().lower()
    name = entry.removesuffix("*")
    if entry == "*":
        raise ValueError("would forward every header; name them, or give a prefix such as x-*")
    if name.startswith(_RESERVED_PREFIXES) or entry in _RESERVED:
        raise ValueError(f"{entry[:40]!r} belongs to one connection or call, and cannot be forwarded")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{entry[:40]!r} is no header's name; accepted: letters, digits, _ . - and, for all names that "
            "begin so, * at the end"
        )
    return entry


def header(name: str, value: str | bytes) -> tuple[str, str]:
    """
    A header in the form that travels. Bytes are for names that end in ``-bin``, a text there is base64.

    Raises IllegalHeader, which does not show the value.
    """
    name = name.lower()
    if not _NAME.fullmatch(name):
        raise IllegalHeader(name, "a name has letters, digits, _ . and - only")
    if name.endswith("-bin"):
        return name, _encoded(value if isinstance(value, bytes) else _decoded(name, value))
    text = value if isinstance(value, str) else value.decode("latin-1")
    # Blanks around a value are no part of it (RFC 9110 section 5.5).
    text = text.strip(" \t")
    if not _VALUE.fullmatch(text):
        raise IllegalHeader(name, "its value has characters that are not printable ASCII")
    return name, text


def _each(name: str, value: str | bytes) -> list[tuple[str, str]]:
    """As ``header``, for one line, to which several values of a name with -bin may have been joined."""
    if isinstance(value, str) and name.endswith("-bin"):
        return [header(name, part) for part in value.split(",")]
    return [header(name, value)]


def _if_fit(name: str, value: str | bytes) -> list[tuple[str, str]]:
    try:
        return [header(name, value)] if len(value) <= _LONGEST_OWN else []
    except IllegalHeader:
        return []


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).rstrip(b"=").decode()


def _decoded(name: str, text: str) -> bytes:
    text = text.strip(" \t").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise IllegalHeader(
            name, "its value is not base64, which that of a name with -bin has to be"
        ) from None


def size_bytes(headers: Headers) -> int:
    """What ``headers`` count for, as HTTP/2 counts."""
    return sum(len(name) + len(value) + _OVERHEAD_BYTES for name, value in headers)


def joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One value for each name: several are separated by commas (RFC 9110 section 5.3), cookies by ``;``."""
    found: dict[str, str] = {}
    for name, value in headers:
        known = found.get(name)
        if known is None:
            found[name] = value
        elif name == "cookie":
            found[name] = f"{known}; {value}"
        else:
            found[name] = f"{known},{value}" if name.endswith("-bin") else f"{known}, {value}"
    return found


def received(fields: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """What an executor's method gets of the metadata of a call: all but gRPC's and the gateway's own."""
    found: list[tuple[str, str]] = []
    for name, value in fields:
        if not is_reserved(name):
            try:
                found.append(header(name, value))
            except IllegalHeader:  # of a client that calls the executor without a gateway
                continue
    return joined(found)


def client_headers(fields: Iterable[tuple[str, str | bytes]]) -> Headers:
    """What a client sends over any protocol: all but what protocols say themselves. Raises IllegalHeader."""
    return tuple(header(name, value) for name, value in fields if not is_reserved(name.lower()))


def given(headers: Mapping[str, object]) -> Headers:
    """
    What an executor's method gives: a text for each name, bytes where it ends in ``-bin``, or a list of them.

    Raises IllegalHeader.
    """
    found: list[tuple[str, str]] = []
    for name, values in headers.items():
        if not isinstance(name, str) or is_reserved(name.lower()):
            raise IllegalHeader(str(name), "this name belongs to gRPC, HTTP or the gateway")
        for value in values if isinstance(values, list | tuple) else (values,):
            if not isinstance(value, str | bytes):
                raise IllegalHeader(name, f"its value is {type(value).__name__}; a text, or a list of them")
            found.append(header(name, value))
    return tuple(found)


def as_metadata(headers: Headers) -> tuple[tuple[str, str | bytes], ...]:
    """For gRPC's libraries, which take bytes for the names that end in ``-bin``."""
    return tuple((name, _decoded(name, value) if name.endswith("-bin") else value) for name, value in headers)


def unique(headers: Iterable[tuple[str, str]]) -> Headers:
    """The headers without repetitions, in their order: shards and replicas answer with the same ones."""
    return tuple(dict.fromkeys(headers))


@attrs.frozen
class AllowList:
    """
    Which headers are forwarded: ``names``, and those that begin with one of ``prefixes``.

    ``limit_bytes`` bounds those of one request. ``private`` ones have credentials, and no prefix is for
    them. Of requests, the gateway itself reads those with the names ``own``, too: they do not count, and
    what is wrong with them is left out rather than refused. Without any of them it is false, and forwards
    nothing.
    """

    names: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    limit_bytes: int = 4096
    private: frozenset[str] = _BY_NAME_ONLY
    own: frozenset[str] = frozenset()

    @classmethod
    def of(cls, entries: Iterable[str], limit_bytes: int, private: Iterable[str] = ()) -> AllowList:
        """``entries`` are those that ``check_entry`` returns."""
        entries = tuple(entries)
        return cls(
            frozenset(entry for entry in entries if not entry.endswith("*")),
            tuple(entry[:-1] for entry in entries if entry.endswith("*")),
            limit_bytes,
            _BY_NAME_ONLY.union(private),
        )

    def __bool__(self) -> bool:
        return bool(self.names or self.prefixes or self.own)

    def allows(self, name: str) -> bool:
        """Whether headers with this name, in lower case, are forwarded."""
        if name in self.names:
            return True
        if not self.prefixes or not name.startswith(self.prefixes):
            return False
        return not (is_reserved(name) or name in self.private) and bool(_NAME.fullmatch(name))

    def of_request(self, fields: Iterable[tuple[str, str | bytes]]) -> Headers:
        """
        The headers of a client's request that executors get; names may be in any case.

        Raises IllegalHeader, or HeadersTooLarge.
        """
        found: list[tuple[str, str]] = []
        own: list[tuple[str, str]] = []
        for name, value in fields:
            name = name.lower()
            if name in self.own:
                own += _if_fit(name, value)
            elif self.allows(name):
                found += _each(name, value)
        headers = tuple(found)
        if headers and (size := size_bytes(headers)) > self.limit_bytes:
            raise HeadersTooLarge(size, self.limit_bytes)
        return (*headers, *own[:_MOST_OWN]) if own else headers

    def of_answer(self, fields: Iterable[tuple[str, str | bytes]]) -> Headers:
        """The headers of an executor's answer that the client gets; those that no header can hold are not."""
        found: list[tuple[str, str]] = []
        for name, value in fields:
            if self.allows(name) and name not in _NOT_BACK:
                try:
                    found += _each(name, value)
                except IllegalHeader:
                    continue
        return tuple(found)

    def bounded(self, headers: Iterable[tuple[str, str]]) -> Headers:
        """What goes back to a client: no repetitions, and no more than the limit."""
        found: list[tuple[str, str]] = []
        left = self.limit_bytes
        for name, value in unique(headers):
            left -= len(name) + len(value) + _OVERHEAD_BYTES
            if left < 0:
                break
            found.append((name, value))
        return tuple(found)
