"""
What the dispatcher does with serialised documents of the second generation: merge, filter, sort.

Every function takes and returns the bytes of a DataContentProto, as ``messages/documents.py`` does for the
first generation. No class of documents is needed: the nodes of a document say what they are. What comes as
``docs_bytes`` leaves as ``docs``, if something had to be done.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, MutableMapping, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from gatewayd.messages.documents import UnreadableDocuments, is_empty
from gatewayd.messages.rope import Content
from gatewayd.pb.second import DataContentProto, DocListProto, DocProto, NodeProto

_ID: Final = "id"
_NOTHING: Final[tuple[NodeProto, ...]] = ()


def parse(documents: Content) -> DocListProto:
    """
    The documents; those in ``docs_bytes`` too, if docarray wrote them with its default protocol (spec
    34/wire.md), whose bytes are a DocListProto.

    Raises UnreadableDocuments. Others, pickles among them, are never opened.
    """
    try:
        content = DataContentProto.FromString(bytes(documents))
        if content.WhichOneof("documents") != "docs_bytes":
            return content.docs
        if content.docs_bytes[:1] in (b"", b"\n"):
            return DocListProto.FromString(content.docs_bytes)
    except DecodeError as error:
        raise UnreadableDocuments(f"the documents are malformed: {error}") from error
    raise UnreadableDocuments(
        "these documents are in docs_bytes, and not in docarray's protocol protobuf-array, the only one that "
        "the gateway opens there: others can be sent through a Flow without joins and conditions"
    )


def document_ids(documents: Content) -> list[str]:
    """The ids in order, ``""`` for a document without one. Raises UnreadableDocuments."""
    return [] if is_empty(documents) else [_id_of(document) for document in parse(documents).docs]


def select(documents: Content, condition: Callable[[DocProto], bool]) -> Content:
    """The documents for which ``condition`` holds, in their order. Raises UnreadableDocuments."""
    if is_empty(documents):
        return documents
    found = parse(documents).docs
    kept = [document for document in found if condition(document)]
    return documents if len(kept) == len(found) else _serialise(kept)


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
    found = parse(documents).docs
    places = [position.get(_id_of(document), len(ids)) for document in found]
    order = sorted(range(len(places)), key=places.__getitem__)
    if order == list(range(len(places))):
        return documents
    return _serialise([found[index] for index in order])


def merge(parts: Sequence[Content], sent: Sequence[Content]) -> Content:
    """
    The documents of all parts in one: a three-way merge, part after part (spec 34/topology.md).

    ``sent`` has for each part the documents that its branch was sent: what a part has otherwise than those,
    its branch has done, and only that is taken over. Where two branches did something with one value,

        text, number, array   the later part's counts, unless it is None
        list                  what the later part added is appended
        set                   both
        dict                  key by key
        nested document       field by field, if the ids are equal
        list of documents     document by document, by their ids

    At the top a document that only one part has is appended, and so is one without an id. A field that the
    branch was not sent and that is empty (0, "", false) is a default of its class, and overwrites nothing.

    Raises UnreadableDocuments, unless at most one part has documents: that is passed on as it is.
    """
    filled = [index for index, part in enumerate(parts) if not is_empty(part)]
    if len(filled) < 2:
        return parts[filled[0]] if filled else (parts[0] if parts else b"")
    merged = DataContentProto()
    merged.docs.CopyFrom(parse(parts[filled[0]]))
    known = _by_id(merged.docs.docs)
    bases: dict[int, dict[str, DocProto]] = {}  # most branches were sent the same object
    for index in filled[1:]:
        base = bases.get(id(sent[index]))
        if base is None:
            base = bases[id(sent[index])] = {} if is_empty(sent[index]) else _by_id(parse(sent[index]).docs)
        for document in parse(parts[index]).docs:
            name = _id_of(document)
            if name in known:
                before = base[name].data if name in base else {}
                _merge_fields(known[name].data, document.data, before)
            else:
                _add(merged.docs.docs, known, document)
    return merged.SerializeToString()


def _serialise(documents: Sequence[DocProto]) -> bytes:
    content = DataContentProto()
    content.docs.SetInParent()
    content.docs.docs.extend(documents)
    return content.SerializeToString()


def _id_of(document: DocProto) -> str:
    # Looked at before it is read: reading a missing key of a protobuf map would add it.
    return document.data[_ID].text if _ID in document.data else ""


def _by_id(documents: Iterable[DocProto]) -> dict[str, DocProto]:
    found: dict[str, DocProto] = {}
    for document in documents:
        if name := _id_of(document):
            found.setdefault(name, document)
    return found


def _add(documents: Any, known: dict[str, DocProto], document: DocProto) -> None:
    added = documents.add()
    added.CopyFrom(document)
    if name := _id_of(added):
        known[name] = added


# -- what two branches did with the same thing ------------------------------------------------------------
#
# Everywhere ``mine`` is what the parts so far have made, and changed; ``theirs`` is the next part's, and
# ``base`` what that was sent.

_Nodes = MutableMapping[str, NodeProto]


def _merge_fields(mine: _Nodes, theirs: _Nodes, base: _Nodes) -> None:
    """Of two documents. A field that one lacks is no change: classes of executors leave fields out."""
    for name, value in theirs.items():
        if name in mine:
            _merge_node(mine[name], value, base.get(name))
        else:
            mine[name].CopyFrom(value)


def _merge_node(mine: NodeProto, theirs: NodeProto, base: NodeProto | None) -> None:
    ours = key_of(theirs)
    if ours == key_of(mine):
        return
    if base is not None:
        before = key_of(base)
        if ours == before:
            return
        if key_of(mine) == before:
            mine.CopyFrom(theirs)
            return
    kind = theirs.WhichOneof("content")
    if kind is None or (base is None and _is_blank(theirs, kind) and mine.WhichOneof("content")):
        return
    if kind != mine.WhichOneof("content") or not _merge_within(kind, mine, theirs, base or NodeProto()):
        mine.CopyFrom(theirs)


def _merge_within(kind: str, mine: NodeProto, theirs: NodeProto, base: NodeProto) -> bool:
    """Merge two nodes of one kind; False if that has no parts to merge."""
    if kind == "list":
        mine.list.data.extend(_added(theirs.list.data, base.list.data))
    elif kind == "set":
        there = {key_of(item) for item in mine.set.data}
        mine.set.data.extend(item for item in theirs.set.data if key_of(item) not in there)
    elif kind == "dict":
        _merge_dict(mine.dict.data, theirs.dict.data, base.dict.data)
    elif kind == "doc":
        if _id_of(mine.doc) != _id_of(theirs.doc):
            return False
        _merge_fields(mine.doc.data, theirs.doc.data, base.doc.data)
    elif kind == "doc_array":
        _merge_documents(mine.doc_array.docs, theirs.doc_array.docs, base.doc_array.docs)
    else:
        return False
    return True


def _merge_dict(mine: _Nodes, theirs: _Nodes, base: _Nodes) -> None:
    for name in base:
        if name in mine and name not in theirs and key_of(mine[name]) == key_of(base[name]):
            del mine[name]
    for name, value in theirs.items():
        if name in mine:
            _merge_node(mine[name], value, base.get(name))
        elif name not in base or key_of(value) != key_of(base[name]):
            mine[name].CopyFrom(value)


def _merge_documents(mine: Any, theirs: Sequence[DocProto], base: Sequence[DocProto]) -> None:
    """Of two lists of documents within documents."""
    known, before = _by_id(mine), _by_id(base)
    nameless = Counter(_key_of_map(each.data) for each in base if not _id_of(each))
    for document in theirs:
        name = _id_of(document)
        was = before.get(name)
        if name in known:
            _merge_fields(known[name].data, document.data, {} if was is None else was.data)
        elif not name:
            key = _key_of_map(document.data)
            if nameless[key] > 0:
                nameless[key] -= 1
            else:
                mine.add().CopyFrom(document)
        elif was is None or _key_of_map(was.data) != _key_of_map(document.data):
            _add(mine, known, document)


def _added(items: Sequence[NodeProto], base: Sequence[NodeProto]) -> list[NodeProto]:
    """The items that are new, in their order; as many of one value as there are more of it."""
    left = Counter(key_of(item) for item in base)
    added = []
    for item in items:
        key = key_of(item)
        if left[key] > 0:
            left[key] -= 1
        else:
            added.append(item)
    return added


def _is_blank(node: NodeProto, kind: str) -> bool:
    return kind in ("text", "integer", "float", "boolean", "blob") and not getattr(node, kind)


def key_of(node: NodeProto) -> Hashable:
    """
    The same for nodes that hold the same, however it is written: maps and sets have no order, a number may
    be an integer or a float, and docarray's name for the type says nothing of the value.
    """
    kind = node.WhichOneof("content")
    if kind is None:
        return None
    if kind in ("integer", "float"):
        number = getattr(node, kind)
        return ("number", "nan" if math.isnan(number) else number)
    if kind in ("list", "tuple"):
        return (kind, tuple([key_of(item) for item in getattr(node, kind).data]))
    if kind == "set":
        return (kind, frozenset([key_of(item) for item in node.set.data]))
    if kind in ("doc", "dict"):
        return (kind, _key_of_map(getattr(node, kind).data))
    if kind == "doc_array":
        return (kind, tuple([_key_of_map(document.data) for document in node.doc_array.docs]))
    if kind == "ndarray":
        dense = node.ndarray.dense
        return (kind, dense.buffer, tuple(dense.shape), dense.dtype)
    return (kind, getattr(node, kind))


def _key_of_map(nodes: _Nodes) -> Hashable:
    return frozenset([(name, key_of(node)) for name, node in nodes.items()])
