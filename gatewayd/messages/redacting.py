"""
What is left out of recordings: fields of documents, and parameters (pure).

    text, blob, uri, tensor, embedding, tags ...     a field of every document, its chunks and matches
    tags.NAME                                        one of its tags
    parameters, parameters.NAME                      all parameters of the request, or one

What is left out is empty in the recording, as if it had not been sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs

from gatewayd.pb import DataRequestProto, DocumentProto

_FIELDS: Final = frozenset(field.name for field in DocumentProto.DESCRIPTOR.fields) - {
    "id", "chunks", "matches",
}  # fmt: skip


def check_rule(rule: str) -> str:
    """A rule as it is written above. Raises ValueError."""
    name, _, inner = rule.partition(".")
    if name == "parameters" or (name == "tags" and "." in rule):
        if rule.endswith("."):
            raise ValueError("a name is missing after the dot")
        return f"{name}.{inner}" if inner and inner != "*" else name
    if rule not in _FIELDS:
        raise ValueError(
            f"{rule[:40]!r} is no field of documents; there are {', '.join(sorted(_FIELDS))}, tags.NAME, "
            "parameters and parameters.NAME"
        )
    return rule


@attrs.frozen
class Redaction:
    """The rules as a function on serialised messages."""

    fields: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    all_parameters: bool = False

    @classmethod
    def of(cls, rules: Iterable[str]) -> Redaction:
        """``rules`` are those that ``check_rule`` returns."""
        rules = tuple(rules)
        return cls(
            fields=frozenset(rule for rule in rules if rule in _FIELDS),
            tags=frozenset(rule.removeprefix("tags.") for rule in rules if rule.startswith("tags.")),
            parameters=frozenset(
                rule.removeprefix("parameters.") for rule in rules if rule.startswith("parameters.")
            ),
            all_parameters="parameters" in rules,
        )

    def __bool__(self) -> bool:
        return bool(self.fields or self.tags or self.parameters or self.all_parameters)

    def applied(self, message: bytes) -> bytes:
        """
        A DataRequestProto without what is left out. Raises DecodeError for anything else.

        What an executor raised may quote documents: of an error, its class alone is kept.
        """
        request = DataRequestProto.FromString(message)
        if self.all_parameters:
            request.ClearField("parameters")
        else:
            for name in self.parameters:
                request.parameters.fields.pop(name, None)
        self._documents(request.data.docs.docs)
        # Python's own serialisation cannot be looked into.
        if request.data.docs_bytes and (self.fields or self.tags):
            request.data.ClearField("docs_bytes")
        for status in (request.header.status, *(route.status for route in request.routes)):
            if status.code:
                status.ClearField("description")
                status.exception.ClearField("args")
                status.exception.ClearField("stacks")
        return bytes(request.SerializeToString())

    def _documents(self, documents: Iterable[Any]) -> None:
        ahead = [*documents]
        for document in ahead:  # grows while it is walked
            for name in self.fields:
                document.ClearField(name)
            for name in self.tags:
                document.tags.fields.pop(name, None)
            ahead += document.chunks
            ahead += document.matches
