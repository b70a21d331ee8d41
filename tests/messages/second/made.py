"""Documents of the second generation, made of plain values and seen as such."""

from __future__ import annotations

from typing import Any

from gatewayd.pb.second import DataContentProto, DocListProto, DocProto, NodeProto


class Doc(dict[str, Any]):
    """The fields of a document within a document."""


class Docs(list[Doc]):
    """A list of documents within a document."""


def fill(node: NodeProto, value: Any) -> NodeProto:
    if isinstance(value, Doc):
        node.doc.CopyFrom(doc(**value))
    elif isinstance(value, Docs):
        node.doc_array.CopyFrom(DocListProto(docs=[doc(**each) for each in value]))
    elif isinstance(value, dict):
        node.dict.SetInParent()
        for key, item in value.items():
            fill(node.dict.data[key], item)
    elif isinstance(value, list | set | tuple):
        held = getattr(node, type(value).__name__)
        held.SetInParent()
        for item in value:
            fill(held.data.add(), item)
    elif value is not None:
        kinds = {bool: "boolean", str: "text", int: "integer", float: "float", bytes: "blob"}
        setattr(node, kinds[type(value)], value)
    return node


def doc(**fields: Any) -> DocProto:
    """A document; ``id`` None, or none at all, is a document without an id."""
    made = DocProto()
    for name, value in fields.items():
        fill(made.data[name], value)
    if fields.get("id") is not None:
        made.data["id"].type = "id"
    return made


def content(*documents: dict[str, Any]) -> bytes:
    made = DataContentProto()
    made.docs.SetInParent()
    made.docs.docs.extend([doc(**each) for each in documents])
    return made.SerializeToString()


def plain(content: Any) -> list[dict[str, Any]]:
    """The documents of a DataContentProto, as values that ``content`` would make the same of."""
    return [_fields(each) for each in DataContentProto.FromString(bytes(content)).docs.docs]


def value(node: NodeProto) -> Any:
    kind = node.WhichOneof("content")
    if kind is None:
        return None
    held = getattr(node, kind)
    if kind == "doc":
        return Doc(_fields(held))
    if kind == "doc_array":
        return Docs([Doc(_fields(each)) for each in held.docs])
    if kind == "dict":
        return {key: value(item) for key, item in held.data.items()}
    if kind in ("list", "set", "tuple"):
        return {"list": list, "set": set, "tuple": tuple}[kind](value(item) for item in held.data)
    return held


def _fields(document: DocProto) -> dict[str, Any]:
    return {name: value(node) for name, node in document.data.items()}
