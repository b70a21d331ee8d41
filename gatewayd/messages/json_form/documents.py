"""
Converts documents to and from JSON: a DocumentProto is an object with snake_case keys.

Requests are read by the reference's rules for building documents (spec wire.md, Document encoding rules): a
missing id is generated, a MIME type is guessed, and chunks and matches get their parent's id and level.
Answers are written without any changes.
"""

from __future__ import annotations

import binascii
import mimetypes
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from gatewayd.errors import TooManyDocuments
from gatewayd.messages.json_form.arrays import fill_array, read_array
from gatewayd.messages.json_form.values import (
    MAX_LEVEL,
    Loc,
    Problems,
    as_blob,
    as_dict,
    as_float,
    as_text,
    as_unsigned,
    fill_struct,
    write_float,
)
from gatewayd.messages.structs import read_struct
from gatewayd.pb import DataContentProto, DocumentProto, NamedScoreProto

# The nesting level of a request's document: request, content, array, document, and one more for the list of
# requests that a join without reduce sends.
_DOCUMENT_LEVEL: Final = 5

# A document has up to three levels more: the messages of an array, of a score, or of an empty Struct.
_LAST_DOCUMENT_LEVEL: Final = MAX_LEVEL - 3

_MAX_UINT32: Final = 0xFFFFFFFF


# The default of gateway.max_documents.
MAX_DOCUMENTS: Final = 100_000


class Allowance:
    """
    How many documents a request may still have.

    An executor needs about a tenth of a millisecond for a document, and a client three bytes: ``{},``.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit

    def take(self, count: int) -> None:
        """Use up ``count`` of them. Raises TooManyDocuments."""
        self._left -= count
        if self._left < 0:
            raise TooManyDocuments(self._limit)


def fill_documents(
    content: DataContentProto, values: list[Any], loc: Loc, problems: Problems, allowance: Allowance
) -> None:
    """
    Append a document to ``content`` for each value. If there are problems, ``content`` is unusable.

    Raises TooManyDocuments, before any of a list that is too long is read.
    """
    _fill_children(content.docs.docs, values, loc, problems, allowance, _DOCUMENT_LEVEL)


def _fill_children(
    children: Any,
    values: object,
    loc: Loc,
    problems: Problems,
    allowance: Allowance,
    level: int,
    *,
    chunk_of: DocumentProto | None = None,
    match_of: DocumentProto | None = None,
) -> None:
    """``children`` is a repeated field of documents at nesting ``level``."""
    if type(values) is not list:
        problems.not_a_list(loc)
        return
    allowance.take(len(values))
    for index, value in enumerate(values):
        here = (*loc, index)
        if value is None:
            problems.null(here)
        elif (fields := as_dict(value)) is None:
            problems.not_a_dict(here)
        elif level > _LAST_DOCUMENT_LEVEL:
            problems.too_deep(here)
        else:
            _fill(children.add(), fields, here, problems, allowance, level, chunk_of, match_of)


def _fill(
    message: DocumentProto,
    fields: dict[str, Any],
    loc: Loc,
    problems: Problems,
    allowance: Allowance,
    level: int,
    chunk_of: DocumentProto | None,
    match_of: DocumentProto | None,
) -> None:
    """Fields are read in the reference's order, so that problems are listed in its order."""
    get = fields.get
    before = len(problems.entries)

    value = get("id")
    message.id = (as_text(value, (*loc, "id"), problems) if value is not None else "") or new_id()
    if (value := get("parent_id")) is not None:
        message.parent_id = as_text(value, (*loc, "parent_id"), problems)
    if (value := get("granularity")) is not None:
        message.granularity = as_unsigned(value, (*loc, "granularity"), problems)
    if (value := get("adjacency")) is not None:
        message.adjacency = as_unsigned(value, (*loc, "adjacency"), problems)
    if chunk_of is not None:
        message.parent_id = chunk_of.id
        message.granularity = min(chunk_of.granularity + 1, _MAX_UINT32)
    if match_of is not None:
        message.adjacency = min(match_of.adjacency + 1, _MAX_UINT32)
    blob = b""
    if (value := get("blob")) is not None:
        blob = as_blob(value, (*loc, "blob"), problems)
    tensor = get("tensor")
    if tensor is not None:
        fill_array(message.tensor, tensor, (*loc, "tensor"), problems)
    if (value := get("mime_type")) is not None:
        message.mime_type = _known_mime_type(as_text(value, (*loc, "mime_type"), problems))
    if (value := get("text")) is not None:
        text = as_text(value, (*loc, "text"), problems)
        if text and not blob and tensor is None:
            message.text = text
    if blob and tensor is None:
        message.blob = blob
    if (value := get("weight")) is not None:
        message.weight = as_float(value, (*loc, "weight"), problems)
    if (value := get("uri")) is not None:
        message.uri = as_text(value, (*loc, "uri"), problems)
        if message.uri and not message.mime_type:
            message.mime_type = mimetypes.guess_type(message.uri)[0] or ""
    if not _is_nothing(value := get("tags")):
        fill_struct(message.tags, value, level + 1, (*loc, "tags"), problems)
    if (value := get("offset")) is not None:
        message.offset = as_float(value, (*loc, "offset"), problems)
    if (value := get("location")) is not None:
        _fill_location(message, value, (*loc, "location"), problems)
    if (value := get("embedding")) is not None:
        fill_array(message.embedding, value, (*loc, "embedding"), problems)
    if (value := get("modality")) is not None:
        message.modality = as_text(value, (*loc, "modality"), problems)
    if (value := get("evaluations")) is not None:
        _fill_scores(message.evaluations, value, (*loc, "evaluations"), problems)
    if (value := get("scores")) is not None:
        _fill_scores(message.scores, value, (*loc, "scores"), problems)
    if (value := get("chunks")) is not None:
        here = (*loc, "chunks")
        _fill_children(message.chunks, value, here, problems, allowance, level + 1, chunk_of=message)
    if (value := get("matches")) is not None:
        here = (*loc, "matches")
        _fill_children(message.matches, value, here, problems, allowance, level + 1, match_of=message)
    # The reference reads this one last, and only if the document has no problems.
    if not _is_nothing(value := get("_metadata")) and len(problems.entries) == before:
        fill_struct(message._metadata, value, level + 1, (*loc, "metadata"), problems)


def _is_nothing(value: object) -> bool:
    """Whether ``value`` is null or a form of the empty object; the field is not written then."""
    return value is None or (not value and type(value) in (dict, list, str))


def new_id() -> str:
    """A random id of 32 hexadecimal digits."""
    return os.urandom(16).hex()


@lru_cache(maxsize=256)
def _known_mime_type(value: str) -> str:
    """``value`` as a MIME type; a file extension is looked up, such as ``png`` for image/png."""
    if not value or value in mimetypes.types_map.values():
        return value
    return mimetypes.guess_type(f"file.{value}")[0] or value


def _fill_location(message: DocumentProto, value: object, loc: Loc, problems: Problems) -> None:
    if type(value) is not list:
        problems.not_a_list(loc)
        return
    for index, item in enumerate(value):
        if item is None:
            problems.null((*loc, index))
        else:
            message.location.append(as_float(item, (*loc, index), problems))


def _fill_scores(target: Any, value: object, loc: Loc, problems: Problems) -> None:
    """``target`` is a protobuf map from a name to NamedScoreProto."""
    scores = as_dict(value)
    if scores is None:
        problems.not_a_dict(loc)
        return
    for name, item in scores.items():
        here = (*loc, name)
        if item is None:
            problems.null(here)
            continue
        fields = as_dict(item)
        if fields is None:
            problems.not_a_dict(here)
            continue
        score: NamedScoreProto = target[name]
        if fields.get("value") is not None:
            score.value = as_float(fields["value"], (*here, "value"), problems)
        for key in ("op_name", "description", "ref_id"):
            if fields.get(key) is not None:
                setattr(score, key, as_text(fields[key], (*here, key), problems))


def read_document(message: DocumentProto) -> dict[str, object]:
    """
    The object with all 19 keys, and ``_metadata`` if it is set. Empty fields are null.

    Arrays are for orjson's OPT_SERIALIZE_NUMPY. Raises UnreadableArray.
    """
    blob = message.blob
    values: dict[str, object] = {
        "id": message.id or None,
        "parent_id": message.parent_id or None,
        "granularity": message.granularity or None,
        "adjacency": message.adjacency or None,
        "blob": binascii.b2a_base64(blob, newline=False).decode("ascii") if blob else None,
        "tensor": read_array(message.tensor) if message.HasField("tensor") else None,
        "mime_type": message.mime_type or None,
        "text": message.text or None,
        "weight": write_float(message.weight),
        "uri": message.uri or None,
        "tags": (read_struct(message.tags) or None) if message.HasField("tags") else None,
        "offset": write_float(message.offset),
        "location": [write_float(item) or 0.0 for item in message.location] or None,
        "embedding": read_array(message.embedding) if message.HasField("embedding") else None,
        "modality": message.modality or None,
        "evaluations": _read_scores(message.evaluations),
        "scores": _read_scores(message.scores),
        "chunks": [read_document(chunk) for chunk in message.chunks] or None,
        "matches": [read_document(match) for match in message.matches] or None,
    }
    if message.HasField("_metadata"):
        values["_metadata"] = read_struct(message._metadata)
    return values


def _read_scores(scores: Mapping[str, NamedScoreProto]) -> dict[str, object] | None:
    if not scores:
        return None
    return {
        name: {
            "value": write_float(score.value),
            "op_name": score.op_name or None,
            "description": score.description or None,
            "ref_id": score.ref_id or None,
        }
        for name, score in scores.items()
    }
