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
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, Final

from google.protobuf.message import Message

from gatewayd.errors import TooManyDocuments
from gatewayd.messages.json_form.fields import DOCUMENT
from gatewayd.messages.json_form.groups import pieces_of_list, write_list, write_map, write_struct
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
    if type(value) is str and value:
        message.id = value
    else:
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
        _fill_array(message.tensor, tensor, (*loc, "tensor"), problems)
    if (value := get("mime_type")) is not None:
        message.mime_type = _known_mime_type(as_text(value, (*loc, "mime_type"), problems))
    if (value := get("text")) is not None:
        text = value if type(value) is str else as_text(value, (*loc, "text"), problems)
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
    if (value := get("tags")) is not None and not _is_nothing(value):
        fill_struct(message.tags, value, level + 1, (*loc, "tags"), problems)
    if (value := get("offset")) is not None:
        message.offset = as_float(value, (*loc, "offset"), problems)
    if (value := get("location")) is not None:
        _fill_location(message, value, (*loc, "location"), problems)
    if (value := get("embedding")) is not None:
        _fill_array(message.embedding, value, (*loc, "embedding"), problems)
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
    value = get("_metadata")
    if value is not None and not _is_nothing(value) and len(problems.entries) == before:
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
    return _object(message, _READERS)


def read_field(message: DocumentProto, name: str) -> object:
    """
    One field, of plain kind or an array, for orjson: as in ``read_document``, but with fragments for what is
    long. None if it is empty. Raises UnreadableArray.
    """
    value = getattr(message, name)
    if not (message.HasField(name) if isinstance(value, Message) else value):
        return None
    convert = _WRITERS.get(name)
    return value if convert is None else convert(value)


def write_documents(messages: Iterable[DocumentProto]) -> Iterator[bytes]:
    """
    The text of a list of documents, without its brackets, in pieces.

    Raises UnreadableArray, or orjson.JSONEncodeError.
    """
    return pieces_of_list(messages, _writable)


def _writable(message: DocumentProto) -> dict[str, object]:
    """As ``read_document``, with fragments for what is long."""
    return _object(message, _WRITERS)


_EMPTY: Final[Mapping[str, object]] = dict.fromkeys(field.name for field in DOCUMENT)


def _object(message: DocumentProto, converters: Mapping[str, Callable[[Any], object]]) -> dict[str, object]:
    values = dict(_EMPTY)
    # Most fields of most documents are not set: only those that are cost anything.
    for descriptor, value in message.ListFields():
        name = descriptor.name
        convert = converters.get(name)
        values[name] = (value or None) if convert is None else convert(value)
    return values


def _base64(blob: bytes) -> str | None:
    return binascii.b2a_base64(blob, newline=False).decode("ascii") if blob else None


def _location(numbers: Iterable[float]) -> list[object] | None:
    return [write_float(item) or 0.0 for item in numbers] or None


def read_score(score: NamedScoreProto) -> dict[str, object]:
    """The object of a score; what is empty is null."""
    return {
        "value": write_float(score.value),
        "op_name": score.op_name or None,
        "description": score.description or None,
        "ref_id": score.ref_id or None,
    }


@cache
def _arrays() -> Any:
    # Imported here, because it brings numpy: 18 MiB and 0.1 s, once, where an array is seen as JSON.
    from gatewayd.messages.json_form import arrays

    return arrays


def _fill_array(target: Any, value: object, loc: Loc, problems: Problems) -> None:
    _arrays().fill_array(target, value, loc, problems)


def _read_array(message: Any) -> object:
    return _arrays().read_array(message)


def _read_scores(scores: Mapping[str, NamedScoreProto]) -> dict[str, object]:
    return {name: read_score(score) for name, score in scores.items()}


def _write_scores(scores: Mapping[str, NamedScoreProto]) -> object:
    return write_map(scores, read_score)


def _read_documents(messages: Iterable[DocumentProto]) -> list[dict[str, object]]:
    return [read_document(message) for message in messages]


def _write_children(messages: Any) -> object:
    return write_list(messages, _writable)


# What becomes of the fields that are no plain texts and numbers: as values, and as text.
_BOTH: Final[Mapping[str, Callable[[Any], object]]] = {
    "blob": _base64,
    "tensor": _read_array,
    "weight": write_float,
    "offset": write_float,
    "location": _location,
    "embedding": _read_array,
}
_READERS: Final[Mapping[str, Callable[[Any], object]]] = {
    **_BOTH,
    "tags": lambda tags: read_struct(tags) or None,
    "evaluations": _read_scores,
    "scores": _read_scores,
    "chunks": _read_documents,
    "matches": _read_documents,
    "_metadata": read_struct,
}
_WRITERS: Final[Mapping[str, Callable[[Any], object]]] = {
    **_BOTH,
    "tags": lambda tags: write_struct(tags) if tags.fields else None,
    "evaluations": _write_scores,
    "scores": _write_scores,
    "chunks": _write_children,
    "matches": _write_children,
    "_metadata": write_struct,
}
