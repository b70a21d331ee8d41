"""
Content negotiation: in which form a body comes, and in which one its answer goes (RFC 9110 section 12).

Clients send the same few headers with every request, so what they mean is worked out once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Final

import attrs


class Form(Enum):
    """What a body holds: a JSON object, or a serialised DataRequestProto."""

    JSON = "json"
    PROTOBUF = "protobuf"


# The second and third are other names for the first; none of them is registered.
_PROTOBUF_TYPES: Final = ("application/x-protobuf", "application/protobuf", "application/vnd.google.protobuf")


@attrs.frozen
class Media:
    """A form, and the content type it has on the wire."""

    form: Form
    content_type: bytes


JSON: Final = Media(Form.JSON, b"application/json")
PROTOBUF: Final = Media(Form.PROTOBUF, _PROTOBUF_TYPES[0].encode())

_OFFERED: Final = (JSON, PROTOBUF, *(Media(Form.PROTOBUF, name.encode()) for name in _PROTOBUF_TYPES[1:]))
_QUALITY: Final = re.compile(r"(0(\.\d{0,3})?|1(\.0{0,3})?)")
_RANGE: Final = re.compile(r"[^\s/]+/[^\s/]+")


@lru_cache(maxsize=256)
def body_media(content_type: bytes | None) -> Media:
    """The form of a body; what is no protobuf is taken for JSON, whose decoder refuses other types."""
    if content_type is None:
        return JSON
    name = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    return PROTOBUF if name in _PROTOBUF_TYPES else JSON


@lru_cache(maxsize=256)
def answer_media(accept: bytes | None, asked: Media) -> Media | None:
    """
    The form that a client accepts most gladly; None if it accepts none of ours.

    Where it likes several equally, the one that it named more exactly is taken, then the form of its
    own body. Ranges that are not well-formed are passed over, and with none left anything goes.
    """
    ranges = [] if accept is None else list(_weighed(accept.decode("latin-1")))
    ranges = [(name, quality) for name, quality in ranges if _RANGE.fullmatch(name)]
    if not ranges:
        return asked
    best = max(_OFFERED, key=lambda media: (*_rank(media, ranges), media.form is asked.form))
    return best if _rank(best, ranges)[0] > 0 else None


def _rank(media: Media, ranges: list[tuple[str, float]]) -> tuple[float, int]:
    """How much a client likes ``media``, and how exactly it said so: the most exact range counts."""
    name = media.content_type.decode()
    exactness, quality = max(
        (
            (exact, quality)
            for exact, pattern in enumerate(("*/*", "application/*", name), 1)
            for found, quality in ranges
            if found == pattern
        ),
        default=(0, 0.0),
    )
    return quality, exactness


@lru_cache(maxsize=256)
def accepts_gzip(accept_encoding: bytes | None) -> bool:
    """Whether an answer may be sent with ``Content-Encoding: gzip``."""
    if accept_encoding is None:
        return False
    codings = dict(_weighed(accept_encoding.decode("latin-1")))
    return codings.get("gzip", codings.get("x-gzip", codings.get("*", 0.0))) > 0


def _weighed(header: str) -> Iterator[tuple[str, float]]:
    """The members of a list with their q-values; one with a malformed q-value is left out."""
    for member in header.split(","):
        name, *parameters = (part.strip().lower() for part in member.split(";"))
        quality = "1"
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                quality = value.strip()
        if name and _QUALITY.fullmatch(quality):
            yield name, float(quality)
