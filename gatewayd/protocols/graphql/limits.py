"""
Limits on the size of a GraphQL document, checked before it is validated.

Validation compares fields with one another, so its time grows with the square of their number. The limits are
checked on the parsed document, and count a fragment wherever it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    OperationDefinitionNode,
    SelectionSetNode,
)

from gatewayd.messages.json_form.documents import Allowance

# The fields of an input document that hold objects of the schema, and not values of any kind.
_OBJECTS: Final = ("chunks", "matches", "scores", "evaluations")


@attrs.frozen
class QueryLimits:
    """
    ``query_bytes`` limits the text, ``fields`` all selections of an operation, ``root_fields`` those that
    become requests, and ``depth`` how deeply they are nested.
    """

    query_bytes: int
    depth: int
    fields: int
    root_fields: int


@attrs.frozen
class _Size:
    fields: int = 0
    depth: int = 0
    roots: int = 0


def check_size(document: DocumentNode, limits: QueryLimits) -> list[GraphQLError]:
    """What is too large in ``document``; empty if it may be executed."""
    fragments = {
        node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
    }
    measured = _Measured(fragments)
    errors: list[GraphQLError] = []
    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode | FragmentDefinitionNode):
            size = measured.selections(node.selection_set)
            for count, limit, what, key in (
                (size.depth, limits.depth, "levels of fields", "graphql_max_depth"),
                (size.fields, limits.fields, "fields", "graphql_max_fields"),
                (
                    size.roots if isinstance(node, OperationDefinitionNode) else 0,
                    limits.root_fields,
                    "fields at its root",
                    "graphql_max_root_fields",
                ),
            ):
                if count > limit:
                    text = f"the query has {count} {what}; the limit is {limit} (gateway.{key})"
                    errors.append(GraphQLError(text, nodes=[node]))
    return errors


def check_documents(variables: Mapping[str, Any] | None, allowance: Allowance) -> None:
    """
    Count the documents in a query's variables, and the scores, before graphql-core converts them: that takes
    a hundred times as long as to parse their JSON. Raises TooManyDocuments.
    """
    lists: list[Any] = [list(variables.values())] if variables else []
    while lists:
        for value in lists.pop():
            if type(value) is list:
                allowance.take(sum(type(item) is dict for item in value))
                lists.append(value)
            elif type(value) is dict:
                lists.append([inner for name in _OBJECTS if (inner := value.get(name))])


class _Measured:
    """Sizes of selections; each fragment is measured once, however often it is used."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._sizes: dict[str, _Size] = {}

    def selections(self, selected: SelectionSetNode | None) -> _Size:
        fields = depth = roots = 0
        for node in selected.selections if selected is not None else ():
            if isinstance(node, FieldNode):
                inner = self.selections(node.selection_set)
                size = _Size(inner.fields + 1, inner.depth + 1, 1)
            elif isinstance(node, FragmentSpreadNode):
                size = self._fragment(node.name.value)
            else:
                size = self.selections(node.selection_set)  # type: ignore[attr-defined]
            fields, depth, roots = fields + size.fields, max(depth, size.depth), roots + size.roots
        return _Size(fields, depth, roots)

    def _fragment(self, name: str) -> _Size:
        if name not in self._sizes:
            # Validation refuses a fragment that uses itself; do not follow it here.
            self._sizes[name] = _Size()
            if name in self._fragments:
                self._sizes[name] = self.selections(self._fragments[name].selection_set)
        return self._sizes[name]
