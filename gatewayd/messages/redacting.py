"""
What is left out of recordings: fields of documents, and parameters (pure).

    text, blob, uri, tensor, embedding, tags ...     a field of every document, its chunks and matches
    tags.NAME                                        one of its tags
    fields.NAME                                      a field of the second generation, whatever its name
    parameters, parameters.NAME                      all parameters of the request, or one

What is left out is empty in the recording. In the first generation that is as if it had not been sent. In the
second, where classes say which fields there have to be, it keeps its kind and, if it is an array, its shape;
fields are found in documents and dicts inside of documents, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs
from google.protobuf.message import DecodeError

from gatewayd.messages.generations import Generation, generation_of
from gatewayd.messages.wire import Malformed, split
from gatewayd.pb import DataRequestProto, DocumentProto
from gatewayd.pb.second import DataRequestProto as SecondDataRequestProto
from gatewayd.pb.second import NodeProto

_FIELDS: Final = frozenset(field.name for field in DocumentProto.DESCRIPTOR.fields) - {
    "id", "chunks", "matches",
}  # fmt: skip


def check_rule(rule: str) -> str:
    """A rule as it is written above. Raises ValueError."""
    name, _, inner = rule.partition(".")
    if name == "fields" and inner:
        return inner if inner in _FIELDS else rule
    if name == "parameters" or (name == "tags" and "." in rule):
        if rule.endswith("."):
            raise ValueError("a name is missing after the dot")
        return f"{name}.{inner}" if inner and inner != "*" else name
    if rule not in _FIELDS:
        raise ValueError(
            f"{rule[:40]!r} is no field of documents; there are {', '.join(sorted(_FIELDS))}, tags.NAME, "
            "fields.NAME for documents of docarray 0.30 and later, parameters and parameters.NAME"
        )
    return rule


def why_none(rule: str) -> str:
    """Why documents of the first generation have nothing that a checked ``rule`` finds; empty if they may."""
    name = rule.removeprefix("fields.")
    if name == rule:
        return ""
    return f"documents of docarray 0.21 have no field {name!r}; what users name themselves is in their tags"


@attrs.frozen
class Redaction:
    """The rules as a function on serialised messages."""

    fields: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    all_parameters: bool = False

    @classmethod
    def of(cls, rules: Iterable[str]) -> Redaction:
        """``rules`` are those that ``check_rule`` returns."""
        rules = tuple(rules)
        return cls(
            fields=frozenset(rule for rule in rules if rule in _FIELDS),
            named=frozenset(rule.removeprefix("fields.") for rule in rules if rule.startswith("fields.")),
            tags=frozenset(rule.removeprefix("tags.") for rule in rules if rule.startswith("tags.")),
            parameters=frozenset(
                rule.removeprefix("parameters.") for rule in rules if rule.startswith("parameters.")
            ),
            all_parameters="parameters" in rules,
        )

    def __bool__(self) -> bool:
        return bool(self.fields or self.named or self.tags or self.parameters or self.all_parameters)

    def applied(self, message: bytes, met: set[str] | None = None) -> bytes:
        """
        A DataRequestProto without what is left out. Raises DecodeError for anything else.

        What an executor raised may quote documents: of an error, its class alone is kept. The rules that
        found something are added to ``met``.
        """
        found: set[str] = set() if met is None else met
        try:
            documents = split(message)[3] or b""
        except Malformed as error:
            raise DecodeError(str(error)) from error
        is_second = generation_of(documents) is Generation.SECOND
        request: Any = (SecondDataRequestProto if is_second else DataRequestProto).FromString(message)
        if self.all_parameters:
            if request.parameters.fields:
                found.add("parameters")
            request.ClearField("parameters")
        else:
            for name in self.parameters & {*request.parameters.fields}:
                found.add(f"parameters.{name}")
                del request.parameters.fields[name]
        if is_second:
            for document in request.data.docs.docs:
                self._nodes(document.data, found)
        else:
            self._documents(request.data.docs.docs, found)
        # Python's own serialisation cannot be looked into.
        if request.data.docs_bytes and (self.fields or self.named or self.tags):
            request.data.ClearField("docs_bytes")
        for status in (request.header.status, *(route.status for route in request.routes)):
            if status.code:
                status.ClearField("description")
                status.exception.ClearField("args")
                status.exception.ClearField("stacks")
        return bytes(request.SerializeToString())

    def _documents(self, documents: Iterable[Any], met: set[str]) -> None:
        ahead = [*documents]
        for document in ahead:  # grows while it is walked
            for name in self.fields & {field.name for field, _ in document.ListFields()}:
                met.add(name)
                document.ClearField(name)
            for name in self.tags & {*document.tags.fields}:
                met.add(f"tags.{name}")
                del document.tags.fields[name]
            ahead += document.chunks
            ahead += document.matches

    def _nodes(self, nodes: Any, met: set[str]) -> None:
        """The values of a DocProto, or of a dict in it."""
        for key in nodes:
            node = nodes[key]
            if key in self.fields or key in self.named:
                met.add(key if key in self.fields else f"fields.{key}")
                _empty(node)
                continue
            if key == "tags" and node.WhichOneof("content") == "dict":
                for name in self.tags & {*node.dict.data}:
                    met.add(f"tags.{name}")
                    del node.dict.data[name]
            self._node(node, met)

    def _node(self, node: NodeProto, met: set[str]) -> None:
        kind = node.WhichOneof("content")
        if kind in ("doc", "dict"):
            self._nodes(getattr(node, kind).data, met)
        elif kind == "doc_array":
            for document in node.doc_array.docs:
                self._nodes(document.data, met)
        elif kind in ("list", "set", "tuple"):
            for each in getattr(node, kind).data:
                self._node(each, met)


def _empty(node: NodeProto) -> None:
    """Take its content away, but for what it is."""
    kind = node.WhichOneof("content")
    if kind is None:
        return
    if kind == "ndarray":
        node.ndarray.dense.buffer = bytes(len(node.ndarray.dense.buffer))
        node.ndarray.ClearField("parameters")
    elif kind == "doc":
        for key in node.doc.data:
            _empty(node.doc.data[key])
    elif kind in ("doc_array", "list", "set", "tuple", "dict"):
        content = getattr(node, kind)
        content.Clear()
        content.SetInParent()
    else:
        setattr(node, kind, type(getattr(node, kind))())
