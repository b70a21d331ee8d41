"""
Limits on the size of a GraphQL document, checked before it is validated, and of its answer.

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

# Fields and fragments that validation may compare with one another: a few microseconds for each two.
_MAX_COMPARISONS: Final = 5000

# Selections that are looked at to count those: fragments that use each other have many ways through them.
_MAX_VISITED: Final = 20_000
_NO_SELECTIONS: Final = SelectionSetNode(selections=())

# A selection, and the names of the fragments that it stands in.
_Within = tuple[SelectionSetNode, frozenset[str]]

# About what JSON takes for a value's key, and for a number.
_KEY_BYTES: Final = 16
_NUMBER_BYTES: Final = 20


@attrs.frozen
class QueryLimits:
    """
    ``query_bytes`` limits the text, ``tokens`` its words and signs, ``fields`` all selections of an
    operation, ``root_fields`` those that become requests, and ``depth`` how deeply they are nested.
    """

    query_bytes: int
    tokens: int
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
    if not errors and _Comparisons(fragments).are_too_many(document):
        text = f"the query repeats fields, or uses fragments, that make more than {_MAX_COMPARISONS} pairs"
        errors.append(GraphQLError(text))
    return errors


class AnswerTooLarge(BaseException):
    """
    An answer exceeds its limits; the text says which.

    It is no Exception, because graphql-core makes of those an error for each field, and goes on.
    """


class AnswerSize:
    """What the answer to one query has come to, counted while graphql-core puts it together."""

    def __init__(self, most_values: int, most_bytes: int) -> None:
        """``most_bytes`` 0 is no limit."""
        self.values = 0
        self.bytes = 0
        self._most_values = most_values
        self._most_bytes = most_bytes

    def count(self, value: object, values: int = 1) -> Any:
        """``value`` of a field, or of ``values``, if there is still room for it. Raises AnswerTooLarge."""
        self.values += values
        self.bytes += values * _KEY_BYTES + _text_bytes(value)
        if self.values > self._most_values:
            text = f"the answer has more than {self._most_values} fields (gateway.graphql_max_values)"
            raise AnswerTooLarge(text)
        if 0 < self._most_bytes < self.bytes:
            text = f"the answer has more than {self._most_bytes} bytes (gateway.max_unsent_bytes)"
            raise AnswerTooLarge(text)
        return value


def _text_bytes(value: object) -> int:
    """About how long a field's value is as JSON; those of its documents are counted by themselves."""
    if isinstance(value, str | bytes):
        return len(value)
    if type(value) is list:
        return sum(_text_bytes(item) for item in value)
    # Of arrays, whose library is not loaded to find out, how many numbers they hold.
    return _NUMBER_BYTES * int(getattr(value, "size", 1))


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


class _Comparisons:
    """What validation compares in one document: counted as it does, but without looking at the pairs."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._count = 0
        self._visited = 0

    def are_too_many(self, document: DocumentNode) -> bool:
        """For a document that is within the other limits."""
        self._count = len(self._fragments) * (len(self._fragments) - 1) // 2
        for node in document.definitions:
            if isinstance(node, OperationDefinitionNode | FragmentDefinitionNode):
                self._compare([(node.selection_set, frozenset())])
        return self._is_enough()

    def _is_enough(self) -> bool:
        return self._count > _MAX_COMPARISONS or self._visited > _MAX_VISITED

    def _compare(self, merged: list[_Within]) -> None:
        """Selections that are merged into one, because the fields around them have one name in the answer."""
        by_name: dict[str, list[_Within]] = {}
        used: set[str] = set()
        waiting = list(merged)
        while waiting and not self._is_enough():
            selected, around = waiting.pop()
            for node in selected.selections:
                self._visited += 1
                if isinstance(node, FieldNode):
                    name = (node.alias or node.name).value
                    same = by_name.setdefault(name, [])
                    self._count += len(same)
                    same.append((node.selection_set or _NO_SELECTIONS, around))
                elif not isinstance(node, FragmentSpreadNode):
                    waiting.append((node.selection_set, around))  # type: ignore[attr-defined]
                # Validation refuses a fragment that uses itself; do not follow it here.
                elif (name := node.name.value) in self._fragments and name not in used | around:
                    used.add(name)
                    waiting.append((self._fragments[name].selection_set, around | {name}))
        for same in by_name.values():
            if not self._is_enough():
                self._compare(same)
