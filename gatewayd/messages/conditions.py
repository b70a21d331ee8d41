"""
The query language of ``when``: which documents go to a Deployment (spec dispatch.md).

    {"tags__price": {"$lt": 10}, "$or": [{"text": {"$regex": "^a"}}, {"tags__k": {"$exists": false}}]}

A query is compiled once, to a function of a document, and everything that can be wrong with it is found
then. Fields and operators in one object must all hold. A value of the form ``"{field}"`` stands for another
field of the same document. The language is the same for both generations of documents; the fields are not
(``Fields``): those of the first are here, those of the second in ``second/conditions.py``.

It is the language of docarray's ``find``, with deliberate differences. Values that cannot be compared
(a string with a number) do not match, instead of failing the request. Arrays can only be asked
whether they exist, and the operand of ``$in`` and ``$nin`` is a list. All entries of an object must
hold, also beside ``$or``, where docarray takes them for further alternatives.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sized
from typing import Any, Final, Protocol

from gatewayd.messages.structs import read_struct, read_value
from gatewayd.pb import DocumentProto, Struct

# Of a DocumentProto or, in the second generation, a DocProto.
Condition = Callable[[Any], bool]
Read = Callable[[Any], object]
Compare = Callable[[Any, Any], bool]

_PLAIN: Final = frozenset(
    {"id", "parent_id", "granularity", "adjacency", "blob", "text", "mime_type", "weight", "uri", "offset"}
    | {"modality"}
)
_ARRAYS: Final = frozenset({"tensor", "embedding"})
_SCORES: Final = frozenset({"scores", "evaluations"})
_SCORE_FIELDS: Final = frozenset({"value", "op_name", "description", "ref_id"})
_CHILDREN: Final = frozenset({"chunks", "matches"})

# What a Read returns for a field that no operator but $exists may match.
ABSENT: Final = object()

_REFERENCE: Final = re.compile(r"\{(.+)\}")

# Chosen by feel: no Flow file nests deeper, and compiling recurses.
_MAX_DEPTH: Final = 50


class BadCondition(ValueError):
    """An invalid query. ``str(error)`` starts with the path of the mistake in the query."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}" if where else message)


class Fields(Protocol):
    """How the fields of a document are found by the names in a query, ``a__b`` being what lies in ``a``."""

    def reader(self, field: str, where: str) -> Read:
        """A function that returns a field's value. Raises BadCondition if no document has such a field."""
        ...

    def exists(self, field: str, where: str) -> Condition:
        """Whether a document has a field. Raises BadCondition."""
        ...


def compile_condition(query: object, fields: Fields | None = None) -> Condition:
    """
    A predicate of documents, of the first generation without ``fields``; ``{}`` matches all.

    Raises BadCondition, a ValueError.
    """
    return _Compiler(fields or FirstFields()).of_object(query, "", 0)


class _Compiler:
    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def of_object(self, query: object, where: str, depth: int) -> Condition:
        if not isinstance(query, dict):
            raise BadCondition(where, f"{query!r} is not an object of fields and operators")
        if depth > _MAX_DEPTH:
            raise BadCondition(where, f"nested deeper than {_MAX_DEPTH} levels")
        return _all([self._of_entry(str(key), value, where, depth) for key, value in query.items()])

    def _of_entry(self, key: str, value: object, where: str, depth: int) -> Condition:
        here = f"{where}.{key}" if where else key
        if key == "$and":
            return _all(self._of_operands(value, here, depth))
        if key == "$or":
            return _any(self._of_operands(value, here, depth))
        if key == "$not":
            inner = _all(self._of_operands(value, here, depth, together=True))
            return lambda document: not inner(document)
        if key.startswith("$"):
            raise BadCondition(
                here, f"no such logical operator; there are $and, $or, $not, and {_OPERATOR_NAMES}"
            )
        if not isinstance(value, dict) or not value:
            raise BadCondition(here, f"{value!r} is not an object of operators, such as {{$eq: 1}}")
        return _all(
            [self._of_operator(key, name, operand, f"{here}.{name}") for name, operand in value.items()]
        )

    def _of_operands(
        self, value: object, where: str, depth: int, *, together: bool = False
    ) -> list[Condition]:
        """Of a logical operator: a list of queries, or the entries of one (``together``: as one)."""
        if isinstance(value, list):
            return [self.of_object(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
        if isinstance(value, dict) and not together:
            return [self.of_object({key: item}, where, depth + 1) for key, item in value.items()]
        return [self.of_object(value, where, depth + 1)]

    def _of_operator(self, field: str, name: str, operand: object, where: str) -> Condition:
        if name == "$exists":
            if not isinstance(operand, bool):
                raise BadCondition(where, f"{operand!r} is neither true nor false")
            exists, wanted = self._fields.exists(field, where), operand
            return lambda document: exists(document) is wanted
        compare = _OPERATORS.get(name)
        if compare is None:
            raise BadCondition(where, f"no such operator; there are {_OPERATOR_NAMES}")
        read = self._fields.reader(field, where)
        reference = _REFERENCE.fullmatch(operand) if isinstance(operand, str) else None
        if reference is not None:
            other = self._fields.reader(reference[1], where)
            return lambda document: _holds(compare, read(document), other(document))
        if name in ("$in", "$nin") and not isinstance(operand, list):
            raise BadCondition(where, f"{operand!r} is not a list")
        if name == "$regex":
            operand = _pattern(operand, where)
        return lambda document: _holds(compare, read(document), operand)


def _holds(compare: Compare, value: object, operand: object) -> bool:
    return value is not ABSENT and operand is not ABSENT and compare(value, operand)


def _all(conditions: list[Condition]) -> Condition:
    if len(conditions) == 1:
        return conditions[0]
    return lambda document: all(condition(document) for condition in conditions)


def _any(conditions: list[Condition]) -> Condition:
    return lambda document: any(condition(document) for condition in conditions)


def _pattern(operand: object, where: str) -> re.Pattern[str]:
    if not isinstance(operand, str):
        raise BadCondition(where, f"{operand!r} is not a string")
    try:
        return re.compile(operand)
    except re.error as error:
        raise BadCondition(where, f"{operand!r} is not a regular expression: {error}") from error


def _ordering(compare: Compare) -> Compare:
    """A missing value is in no order with anything, and neither are values of different kinds."""

    def holds(value: Any, operand: Any) -> bool:
        if value is None or operand is None:
            return False
        try:
            return bool(compare(value, operand))
        except TypeError:
            return False

    return holds


def _is_in(value: Any, operand: Any) -> bool:
    # A reference may name a field that is not a list.
    return isinstance(operand, list) and value in operand


def _matches_regex(value: Any, operand: Any) -> bool:
    if not isinstance(value, str) or operand is None:
        return False
    try:
        # A pattern from the document itself is compiled here, and may be invalid.
        return re.search(operand, value) is not None
    except (re.error, TypeError):
        return False


def _has_size(value: Any, operand: Any) -> bool:
    return isinstance(value, Sized) and len(value) == operand


_OPERATORS: Final[dict[str, Compare]] = {
    "$eq": operator.eq,
    "$neq": operator.ne,
    "$lt": _ordering(operator.lt),
    "$lte": _ordering(operator.le),
    "$gt": _ordering(operator.gt),
    "$gte": _ordering(operator.ge),
    "$in": _is_in,
    "$nin": lambda value, operand: not _is_in(value, operand),
    "$regex": _matches_regex,
    "$size": _has_size,
}
_OPERATOR_NAMES: Final = ", ".join([*_OPERATORS, "$exists"])


class FirstFields:
    """The fields of a DocumentProto."""

    def reader(self, field: str, where: str) -> Read:
        return _reader(field, where)

    def exists(self, field: str, where: str) -> Condition:
        return _exists(field, where)


def _exists(field: str, where: str) -> Condition:
    """A field of the document exists when it is not empty; what lies inside one, when it is there."""
    name, *inner = field.split("__")
    if inner:
        read = _reader(field, where)
        return lambda document: read(document) is not None
    if name in _ARRAYS:
        return lambda document: document.HasField(name) and bool(getattr(document, name).ByteSize())
    read = _reader(field, where)
    return lambda document: bool(read(document))


def _reader(field: str, where: str) -> Read:
    """
    A function that returns the value at a field's path, None where the document has no such field.

    ``tags__a__b`` goes into tags, ``scores__cos__value`` into scores, ``chunks__0__text`` into chunks.
    """
    name, *inner = field.split("__")
    if name in _PLAIN and not inner:
        return operator.attrgetter(name)
    if name == "tags":
        return lambda document: _tag(document.tags, inner)
    if name == "location" and (not inner or _is_index(inner)):
        return lambda document: _within(list(document.location), inner)
    if name in _SCORES and (len(inner) < 2 or (len(inner) == 2 and inner[1] in _SCORE_FIELDS)):
        return lambda document: _score(getattr(document, name), inner)
    if name in _CHILDREN and not inner:
        return operator.attrgetter(name)
    if name in _CHILDREN and inner[0].isdecimal() and inner[1:]:
        index, read = int(inner[0]), _reader("__".join(inner[1:]), where)
        return lambda document: _of_child(getattr(document, name), index, read)
    if name == "content" and not inner:
        return _content
    if name in _ARRAYS and not inner:
        raise BadCondition(where, f"{name} is an array, which can only be asked whether it $exists")
    raise BadCondition(where, f"a document has no field {field!r}")


def _is_index(inner: list[str]) -> bool:
    return len(inner) == 1 and inner[0].isdecimal()


def _tag(tags: Struct, path: list[str]) -> object:
    if not path:
        return read_struct(tags)
    # Looked at before it is read: reading a missing key of a protobuf map would add it.
    if path[0] not in tags.fields:
        return None
    return _within(read_value(tags.fields[path[0]]), path[1:])


def _within(value: object, path: list[str]) -> object:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _score(scores: Any, path: list[str]) -> object:
    if not path:
        return scores
    if path[0] not in scores:
        return None
    score = scores[path[0]]
    return getattr(score, path[1]) if path[1:] else score


def _of_child(children: Any, index: int, read: Read) -> object:
    return read(children[index]) if index < len(children) else None


def _content(document: DocumentProto) -> object:
    kind = document.WhichOneof("content")
    return getattr(document, kind) if kind in ("text", "blob") else None
