"""
Content negotiation: the forms of request bodies and answers (RFC 9110 section 12).

Clients send the same few headers with every request, so the results are cached.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Final

import attrs


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
_QUALITY: Final = re.compile(r"(0(\.\d{0,3})?|1(\.0{0,3})?)")
_RANGE: Final = re.compile(r"[^\s/]+/[^\s/]+")


@lru_cache(maxsize=256)
def body_media(content_type: bytes | None) -> Media:
    """The form of a body. Unknown types count as JSON, whose decoder refuses them."""
    if content_type is None:
        return JSON
    name = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    return PROTOBUF if name in _PROTOBUF_TYPES else JSON


@lru_cache(maxsize=256)
def answer_media(accept: bytes | None, asked: Media) -> Media | None:
    """
    The form that a client prefers, or None if it accepts none of ours.

    Among equal qualities the most specific range wins, then the form of the request's own body. Malformed
    ranges are ignored; without any range, everything is accepted.
    """
    ranges = [] if accept is None else list(_qualities(accept.decode("latin-1")))
    ranges = [(name, quality) for name, quality in ranges if _RANGE.fullmatch(name)]
    if not ranges:
        return asked
    best = max(_OFFERED, key=lambda media: (*_rank(media, ranges), media.form is asked.form))
    return best if _rank(best, ranges)[0] > 0 else None


def _rank(media: Media, ranges: list[tuple[str, float]]) -> tuple[float, int]:
    """The quality that a client gives ``media``, from its most specific range, and how specific that is."""
    name = media.content_type.decode()
    specificity, quality = max(
        (
            (specific, quality)
            for specific, pattern in enumerate(("*/*", "application/*", name), 1)
            for found, quality in ranges
            if found == pattern
        ),
        default=(0, 0.0),
    )
    return quality, specificity


@lru_cache(maxsize=256)
def accepts_gzip(accept_encoding: bytes | None) -> bool:
    """Whether an answer may be sent with ``Content-Encoding: gzip``."""
    if accept_encoding is None:
        return False
    codings = dict(_qualities(accept_encoding.decode("latin-1")))
    return codings.get("gzip", codings.get("x-gzip", codings.get("*", 0.0))) > 0


def _qualities(header: str) -> Iterator[tuple[str, float]]:
    """The members of a list with their q-values, without those whose q-value is malformed."""
    for member in header.split(","):
        name, *parameters = (part.strip().lower() for part in member.split(";"))
        quality = "1"
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                quality = value.strip()
        if name and _QUALITY.fullmatch(quality):
            yield name, float(quality)
