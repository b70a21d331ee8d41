"""
What the dispatcher does with serialised documents: count, merge, filter, sort.

Every function takes and returns the bytes of a DataContentProto. Documents are parsed, because the result
depends on their ids and fields, but arrays inside them stay bytes. Where there is nothing to do, nothing is
parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from gatewayd.errors import GatewayError
from gatewayd.messages.rope import Content
from gatewayd.messages.wire import NO_DOCUMENTS
from gatewayd.pb import DataContentProto, DocumentProto

_MAX_UINT32: Final = 0xFFFFFFFF

# What a merge may fill in, by how one sees that a document has it. The id and parent_id are a
# document's own; content, chunks and matches have rules below.
_SCALARS: Final = ("granularity", "adjacency", "weight", "uri", "modality", "mime_type", "offset")
_MESSAGES: Final = ("embedding", "tags", "_metadata")
_COLLECTIONS: Final = ("location", "scores", "evaluations")


class UnreadableDocuments(GatewayError):
    """The gateway would have to read these documents, and cannot; the text says why."""


def parse(documents: Content) -> DataContentProto:
    """
    The message in ``documents``.

    Raises UnreadableDocuments for anything but a DataContentProto, and for ``docs_bytes``: that is a
    Python pickle, and loading one runs any code that its sender put there.
    """
    try:
        content = DataContentProto.FromString(bytes(documents))
    except DecodeError as error:
        raise UnreadableDocuments(f"the documents are malformed: {error}") from error
    if content.HasField("docs_bytes"):
        raise UnreadableDocuments(
            "these documents are serialised by Python (docs_bytes), which the gateway never opens: they can "
            "be read over gRPC and WebSocket bytes, from a Flow without joins and conditions"
        )
    return content


def is_empty(documents: Content) -> bool:
    """Whether there are no documents, as far as can be seen without parsing."""
    return not documents or documents == NO_DOCUMENTS


def count(documents: Content) -> int:
    """How many documents there are, without chunks and matches. Raises UnreadableDocuments."""
    return 0 if is_empty(documents) else len(parse(documents).docs.docs)


def document_ids(documents: Content) -> list[str]:
    """The ids in order, ``""`` for a document without one. Raises UnreadableDocuments."""
    return [] if is_empty(documents) else [document.id for document in parse(documents).docs.docs]


def merge(parts: Sequence[Content]) -> Content:
    """
    The documents of all parts in one, as a join without ``no_reduce`` gets them (spec dispatch.md).

    The first part is the base: its documents come first, in its order, and their fields are never
    overwritten. A later document with a known id fills in the fields which that one lacks; any other is
    appended. Documents without an id are never merged.

    Raises UnreadableDocuments, unless at most one part has documents: that is passed on as it is.
    """
    filled = [part for part in parts if not is_empty(part)]
    if len(filled) < 2:
        return filled[0] if filled else (parts[0] if parts else b"")
    base = parse(filled[0])
    # Other parts are looked up in one index; building it for each would be quadratic.
    known = _by_id(base.docs.docs)
    for part in filled[1:]:
        _merge_into(base.docs.docs, known, parse(part).docs.docs, _as_it_is)
    return base.SerializeToString()


def select(documents: Content, condition: Callable[[DocumentProto], bool]) -> Content:
    """The documents for which ``condition`` holds, in their order. Raises UnreadableDocuments."""
    if is_empty(documents):
        return documents
    found = parse(documents).docs.docs
    kept = [document for document in found if condition(document)]
    if len(kept) == len(found):
        return documents
    return _serialise(kept)


def sort_like(documents: Content, ids: Sequence[str]) -> Content:
    """
    The documents in the order of their ids in ``ids``; unknown ones last, in their order.

    Raises UnreadableDocuments.
    """
    if is_empty(documents):
        return documents
    position: dict[str, int] = {}
    for index, known in enumerate(ids):
        position.setdefault(known, index)
    found = parse(documents).docs.docs
    places = [position.get(document.id, len(ids)) for document in found]
    order = sorted(range(len(places)), key=places.__getitem__)
    if order == list(range(len(places))):
        return documents
    return _serialise([found[index] for index in order])


def _serialise(documents: Sequence[DocumentProto]) -> bytes:
    content = DataContentProto()
    content.docs.SetInParent()
    content.docs.docs.extend(documents)
    return content.SerializeToString()


def _by_id(documents: Any) -> dict[str, DocumentProto]:
    found: dict[str, DocumentProto] = {}
    for document in documents:
        if document.id:
            found.setdefault(document.id, document)
    return found


def _merge_into(
    base: Any, known: dict[str, DocumentProto], others: Any, adopt: Callable[[DocumentProto], None]
) -> None:
    """
    Merge ``others`` into ``base``, a repeated field whose documents are ``known`` by their ids.

    ``adopt`` sets the owner of a document that is new here.
    """
    for other in others:
        same = known.get(other.id)
        if same is not None:
            _fill(same, other)
            continue
        added = base.add()
        added.CopyFrom(other)
        adopt(added)
        if added.id:
            known[added.id] = added


def _as_it_is(added: DocumentProto) -> None:
    """A document at the top has no owner."""


def _fill(document: DocumentProto, other: DocumentProto) -> None:
    for name in _SCALARS:
        if not getattr(document, name) and (value := getattr(other, name)):
            setattr(document, name, value)
    for name in _MESSAGES:
        if _lacks(document, name) and not _lacks(other, name):
            getattr(document, name).CopyFrom(getattr(other, name))
    for name in _COLLECTIONS:
        if not getattr(document, name):
            getattr(document, name).MergeFrom(getattr(other, name))
    _fill_content(document, other)

    def adopt_chunk(chunk: DocumentProto) -> None:
        chunk.parent_id = document.id
        chunk.granularity = min(document.granularity + 1, _MAX_UINT32)

    def adopt_match(match: DocumentProto) -> None:
        match.adjacency = min(document.adjacency + 1, _MAX_UINT32)

    if other.chunks:
        _merge_into(document.chunks, _by_id(document.chunks), other.chunks, adopt_chunk)
    if other.matches:
        _merge_into(document.matches, _by_id(document.matches), other.matches, adopt_match)


def _lacks(document: DocumentProto, name: str) -> bool:
    """Whether a message field is absent or empty; for a Struct, empty means without fields."""
    return not document.HasField(name) or not getattr(document, name).ByteSize()


def _fill_content(document: DocumentProto, other: DocumentProto) -> None:
    # Text, blob and tensor count as three fields, so another kind of content is something that the
    # document lacks; setting it clears the one it had. That is the reference's rule.
    kind = other.WhichOneof("content")
    if kind is None or (kind == document.WhichOneof("content") and _has_content(document, kind)):
        return
    if not _has_content(other, kind):
        return
    if kind == "tensor":
        document.tensor.CopyFrom(other.tensor)
    else:
        setattr(document, kind, getattr(other, kind))


def _has_content(document: DocumentProto, kind: str) -> bool:
    return bool(document.tensor.ByteSize() if kind == "tensor" else getattr(document, kind))
