"""
Content negotiation: the forms of request bodies and answers (RFC 9110 section 12).

Clients send the same few headers with every request, so the results are cached.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import Final

import attrs
from werkzeug.datastructures import Accept, MIMEAccept
from werkzeug.http import parse_accept_header


class Form(Enum):
    """The content of a body: a JSON object, or a serialised DataRequestProto."""

    JSON = "json"
    PROTOBUF = "protobuf"


# Three names in use for the same type; IANA has registered none of them.
_PROTOBUF_TYPES: Final = ("application/x-protobuf", "application/protobuf", "application/vnd.google.protobuf")


@attrs.frozen
class Media:
    """A form and its content type."""

    form: Form
    content_type: bytes


JSON: Final = Media(Form.JSON, b"application/json")
PROTOBUF: Final = Media(Form.PROTOBUF, _PROTOBUF_TYPES[0].encode())

_OFFERED: Final = (JSON, PROTOBUF, *(Media(Form.PROTOBUF, name.encode()) for name in _PROTOBUF_TYPES[1:]))
# Browsers send ten. To choose among the 16 000 that a head has room for takes a fifth of a second.
_MOST_MEMBERS: Final = 100
_RANGE: Final = re.compile(r"[^\s/]+/[^\s/]+")


@lru_cache(maxsize=256)
def body_media(content_type: bytes | None) -> Media:
    """The form of a body. Unknown types count as JSON, whose decoder refuses them."""
    if content_type is None:
        return JSON
    name = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    return PROTOBUF if name in _PROTOBUF_TYPES else JSON


@lru_cache(maxsize=256)
def is_json(content_type: bytes | None) -> bool:
    """Whether a type is JSON, which no form can send to another origin without asking first."""
    kind = (content_type or b"").partition(b";")[0].strip().lower()
    return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))


def is_json_or_protobuf(content_type: bytes | None) -> bool:
    """Whether a type names one of the two forms."""
    return is_json(content_type) or body_media(content_type).form is Form.PROTOBUF


@lru_cache(maxsize=256)
def answer_media(accept: bytes | None, asked: Media) -> Media | None:
    """
    The form that a client prefers, or None if it accepts none of ours.

    Among equal qualities the most specific range wins, then the form of the request's own body. Malformed
    ranges are ignored; without any range, everything is accepted.
    """
    ranges = [] if accept is None else [item for item in _members(accept) if _RANGE.fullmatch(item[0])]
    if not ranges:
        return asked
    own_form_first = sorted(_OFFERED, key=lambda media: media.form is not asked.form)
    by_name = {media.content_type.decode(): media for media in own_form_first}
    best = MIMEAccept(ranges).best_match(by_name)
    return None if best is None else by_name[best]


@lru_cache(maxsize=256)
def quality_of(accept: bytes | None, names: tuple[str, ...]) -> float:
    """The highest q-value of types that a client names, from 0 to 1; ranges such as ``*/*`` name none."""
    if accept is None:
        return 0.0
    return max((quality for name, quality in _members(accept) if name in names), default=0.0)


@lru_cache(maxsize=256)
def accepts_gzip(accept_encoding: bytes | None) -> bool:
    """Whether an answer may be sent with ``Content-Encoding: gzip``."""
    if accept_encoding is None:
        return False
    codings = Accept(
        ("gzip" if name == "x-gzip" else name, quality) for name, quality in _members(accept_encoding)
    )
    return codings.quality("gzip") > 0


def _members(header: bytes) -> list[tuple[str, float]]:
    """
    The members of a list with their q-values and without other parameters, which none of ours have.

    Of very many, those that are liked best.
    """
    weighed = parse_accept_header(header.decode("latin-1"))[:_MOST_MEMBERS]
    return [(member.partition(";")[0].strip().lower(), quality) for member, quality in weighed]
