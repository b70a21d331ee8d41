"""
The kinds of values that a JSON schema describes, each with its way from JSON to a NodeProto and back.

A kind is made once for a schema (``schemas.py``) and never changes. From JSON they convert as pydantic 2 does
when it is lax, which the reference's gateway uses (spec 34/http.md), and check what the schema says besides:
required fields, enumerations, limits. What they cannot take is noted in ``Problems``.
"""

from __future__ import annotations

import binascii
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import attrs

from gatewayd.messages.json_form.documents import Allowance
from gatewayd.messages.json_form.groups import write_list, write_map
from gatewayd.messages.json_form.values import MAX_LEVEL
from gatewayd.messages.second.limits import NO_LIMITS, Limits
from gatewayd.messages.second.problems import Place, Problems
from gatewayd.pb.second import NodeProto

_MIN_INT32: Final = -(2**31)
_MAX_INT32: Final = 2**31 - 1
_TRUE: Final = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "f", "n"})
_ALIKE: Final = 3  # how deeply values are looked at to choose among the kinds of a union

# A document within a document adds a node and itself; a list or a dict two and three messages.
_DOCUMENT_LEVELS: Final = 3
_LIST_LEVELS: Final = 2
_DICT_LEVELS: Final = 3


class Failed(Exception):
    """A value that cannot be converted; its problem has been noted."""


@attrs.frozen
class Reading:
    """One body that is being read: what is wrong with it, and how many documents it may still have."""

    problems: Problems
    allowance: Allowance


class Kind(Protocol):
    """What a value may be."""

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        """Write a JSON value into ``node``, a message at nesting ``level``, or note what is wrong with it."""
        ...

    def plain(self, value: Any, place: Place, reading: Reading) -> Any:
        """The converted JSON value, for parameters. Raises Failed."""
        ...

    def write(self, node: NodeProto) -> object:
        """The JSON value of a node for ``groups.dumps``: of this kind as a rule, but executors may differ."""
        ...

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        """Whether a JSON value is of this kind without being converted, as far as a short look tells."""
        ...


class _Scalar:
    """A kind whose values are written into one field of a node."""

    def plain(self, value: Any, place: Place, reading: Reading) -> Any:
        raise NotImplementedError

    def write(self, node: NodeProto) -> object:
        return write_node(node)


@attrs.frozen
class Text(_Scalar):
    """A string; with ``binary`` it is the UTF-8 text of bytes. ``type`` is docarray's name for the kind."""

    limits: Limits = NO_LIMITS
    binary: bool = False
    type: str = ""

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        try:
            text = value if type(value) is str and not self.limits.some else self.plain(value, place, reading)
        except Failed:
            return
        if self.binary:
            node.blob = text.encode()
        else:
            node.text = text
        if self.type:
            node.type = self.type

    def plain(self, value: Any, place: Place, reading: Reading) -> str:
        if type(value) is not str:
            reading.problems.add(place, "string_type", "Input should be a valid string", value)
            raise Failed
        if self.limits.some and not self.limits.admit(value, place, reading.problems):
            raise Failed
        return value

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        return type(value) is str


@attrs.frozen
class Integer(_Scalar):
    """An integer of 32 bits, the only ones that docarray's messages have."""

    limits: Limits = NO_LIMITS

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        try:
            node.integer = self.plain(value, place, reading)
        except Failed:
            return

    def plain(self, value: Any, place: Place, reading: Reading) -> int:
        number = value if type(value) is int else _as_integer(value, place, reading.problems)
        if not _MIN_INT32 <= number <= _MAX_INT32:
            _refuse_large(number, place, reading.problems)
            raise Failed
        if self.limits.some and not self.limits.admit(number, place, reading.problems):
            raise Failed
        return number

    def write(self, node: NodeProto) -> object:
        if node.WhichOneof("content") == "float" and node.float.is_integer() and abs(node.float) < 2**53:
            return int(node.float)
        return write_node(node)

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        return type(value) is int


@attrs.frozen
class Number(_Scalar):
    """A number, NaN and infinity among them."""

    limits: Limits = NO_LIMITS

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        try:
            node.float = self.plain(value, place, reading)
        except Failed:
            return

    def plain(self, value: Any, place: Place, reading: Reading) -> float:
        number: float = value if type(value) is float else _as_float(value, place, reading.problems)
        if self.limits.some and not self.limits.admit(number, place, reading.problems):
            raise Failed
        return number

    def write(self, node: NodeProto) -> object:
        return float(node.integer) if node.WhichOneof("content") == "integer" else write_node(node)

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        return type(value) is float or type(value) is int


@attrs.frozen
class Boolean(_Scalar):
    """True or false."""

    limits: Limits = NO_LIMITS

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        try:
            node.boolean = self.plain(value, place, reading)
        except Failed:
            return

    def plain(self, value: Any, place: Place, reading: Reading) -> bool:
        found = value if type(value) is bool else _as_boolean(value, place, reading.problems)
        if self.limits.some and not self.limits.admit(found, place, reading.problems):
            raise Failed
        return found

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        return type(value) is bool


@attrs.frozen
class Null(_Scalar):
    """Null alone."""

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        try:
            self.plain(value, place, reading)
        except Failed:
            return

    def plain(self, value: Any, place: Place, reading: Reading) -> None:
        if value is not None:
            reading.problems.add(place, "none_required", "Input should be None", value)
            raise Failed

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        return value is None


@attrs.frozen
class Anything(_Scalar):
    """Whatever JSON says: a node by the kind of the value."""

    limits: Limits = NO_LIMITS

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        if self.limits.some and not self.limits.admit(value, place, reading.problems):
            return
        fill_freely(node, value, place, level, reading)

    def plain(self, value: Any, place: Place, reading: Reading) -> Any:
        if self.limits.some and not self.limits.admit(value, place, reading.problems):
            raise Failed
        return value

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        return True


@attrs.frozen
class Tensor:
    """
    An array of numbers, as nested lists. ``size`` is how many it has, None for any number.

    A number alone is refused: the reference takes it for a size, and sends that much of its memory.
    """

    size: int | None = None

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        if type(value) is not list:
            reading.problems.add(
                place, "list_type", "Input should be a valid list: an array is nested lists", value
            )
            return
        # Imported here, because it brings numpy: 18 MiB and 0.1 s, once, where an array is seen as JSON.
        from gatewayd.messages.json_form import arrays

        try:
            arrays.fill_dense(node.ndarray.dense, value, self.size)
        except ValueError as error:
            reading.problems.add(place, "value_error", f"Value error, {error}", value)
            return
        node.type = "ndarray"

    def plain(self, value: Any, place: Place, reading: Reading) -> Any:
        if type(value) is not list:
            reading.problems.not_a_list(place, value)
            raise Failed
        return value

    def write(self, node: NodeProto) -> object:
        return write_node(node)

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        while type(value) is list and value:
            value = value[0]
        return type(value) in (int, float, bool, list)


@attrs.frozen
class Nullable:
    """Null, or ``kind``."""

    kind: Kind

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        if value is not None:  # the node exists, and is empty: that is docarray's None
            self.kind.fill(node, value, place, level, reading)

    def plain(self, value: Any, place: Place, reading: Reading) -> Any:
        return None if value is None else self.kind.plain(value, place, reading)

    def write(self, node: NodeProto) -> object:
        return self.kind.write(node)

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        return value is None or self.kind.is_like(value, depth)


@attrs.frozen
class OneOf:
    """
    A value of one of several kinds: of the first that it is like, else the first that it can become.

    Kinds are chosen by a look at the value, and never tried in depth: unions within unions would make that
    take time that doubles with each level.
    """

    kinds: tuple[Kind, ...]

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        self._chosen(value, place).fill(node, value, place, level, reading)

    def plain(self, value: Any, place: Place, reading: Reading) -> Any:
        return self._chosen(value, place).plain(value, place, reading)

    def _chosen(self, value: Any, place: Place) -> Kind:
        for kind in self.kinds:
            if kind.is_like(value):
                return kind
        for kind in self.kinds:
            if isinstance(kind, _Scalar) and _fits(kind, value, place):
                return kind
        return self.kinds[0]

    def write(self, node: NodeProto) -> object:
        return write_node(node)

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        return any(kind.is_like(value, depth) for kind in self.kinds)


@attrs.frozen
class Items:
    """A list of values of one kind; ``slot`` is the field of the node: list, set or tuple."""

    kind: Kind
    slot: str = "list"
    limits: Limits = NO_LIMITS

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        if type(value) is not list:
            reading.problems.not_a_list(place, value)
        elif level + _LIST_LEVELS > MAX_LEVEL:
            reading.problems.too_deep(place, MAX_LEVEL)
        elif not self.limits.some or self.limits.admit(value, place, reading.problems):
            holder = getattr(node, self.slot)
            holder.SetInParent()
            add, fill = holder.data.add, self.kind.fill
            for index, item in enumerate(value):
                fill(add(), item, (place, index), level + _LIST_LEVELS, reading)

    def plain(self, value: Any, place: Place, reading: Reading) -> list[Any]:
        if type(value) is not list:
            reading.problems.not_a_list(place, value)
            raise Failed
        if self.limits.some and not self.limits.admit(value, place, reading.problems):
            raise Failed
        return all_or_failed(
            lambda index: self.kind.plain(value[index], (place, index), reading), range(len(value))
        )

    def write(self, node: NodeProto) -> object:
        slot = node.WhichOneof("content")
        if slot in ("list", "set", "tuple"):
            return write_list(getattr(node, slot).data, self.kind.write)
        return write_node(node)

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        if type(value) is not list:
            return False
        return not value or depth <= 0 or self.kind.is_like(value[0], depth - 1)


@attrs.frozen
class Tuple:
    """A list of as many values as there are ``kinds``."""

    kinds: tuple[Kind, ...]

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        if not self._has_length(value, place, reading.problems):
            return
        if level + _LIST_LEVELS > MAX_LEVEL:
            reading.problems.too_deep(place, MAX_LEVEL)
            return
        node.tuple.SetInParent()
        for index, (kind, item) in enumerate(zip(self.kinds, value, strict=True)):
            kind.fill(node.tuple.data.add(), item, (place, index), level + _LIST_LEVELS, reading)

    def plain(self, value: Any, place: Place, reading: Reading) -> list[Any]:
        if not self._has_length(value, place, reading.problems):
            raise Failed
        return all_or_failed(
            lambda index: self.kinds[index].plain(value[index], (place, index), reading), range(len(value))
        )

    def _has_length(self, value: Any, place: Place, problems: Problems) -> bool:
        if type(value) is not list:
            problems.add(place, "tuple_type", "Input should be a valid tuple", value)
            return False
        if len(value) != len(self.kinds):
            text = f"Input should be a list of {len(self.kinds)} items, not {len(value)}"
            problems.add(place, "too_long" if len(value) > len(self.kinds) else "too_short", text, value)
            return False
        return True

    def write(self, node: NodeProto) -> object:
        return write_node(node)

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        if type(value) is not list or len(value) != len(self.kinds):
            return False
        pairs = zip(self.kinds, value, strict=True)
        return depth <= 0 or all(kind.is_like(item, depth - 1) for kind, item in pairs)


@attrs.frozen
class Dict:
    """An object with keys of any names, whose values are of one kind."""

    kind: Kind

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        if type(value) is not dict:
            reading.problems.not_a_dict(place, value)
        elif level + _DICT_LEVELS > MAX_LEVEL:
            reading.problems.too_deep(place, MAX_LEVEL)
        else:
            node.dict.SetInParent()
            data, fill = node.dict.data, self.kind.fill
            for key, item in value.items():
                fill(data[key], item, (place, key), level + _DICT_LEVELS, reading)

    def plain(self, value: Any, place: Place, reading: Reading) -> dict[str, Any]:
        if type(value) is not dict:
            reading.problems.not_a_dict(place, value)
            raise Failed
        found = all_or_failed(lambda key: self.kind.plain(value[key], (place, key), reading), list(value))
        return dict(zip(value, found, strict=True))

    def write(self, node: NodeProto) -> object:
        if node.WhichOneof("content") == "dict":
            return write_map(node.dict.data, self.kind.write)
        return write_node(node)

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        if type(value) is not dict:
            return False
        return not value or depth <= 0 or self.kind.is_like(next(iter(value.values())), depth - 1)


@attrs.frozen
class Field:
    """A field of a document. ``default`` is a JSON value, which counts if ``has_default``."""

    kind: Kind
    required: bool = False
    has_default: bool = False
    default: Any = None


@attrs.define(eq=False)
class Document:
    """
    An object with known fields: a document, or a model of parameters.

    With ``is_open``, fields that are not known are kept, by their JSON; otherwise they are dropped, as in the
    reference. ``fields`` are filled in while the schema is read, because documents may hold their like, and
    not changed afterwards.
    """

    name: str
    is_open: bool = False
    fields: dict[str, Field] = attrs.field(factory=dict, repr=False, eq=False)
    has_id: bool = False
    _defaults: dict[str, NodeProto] | None = attrs.field(default=None, init=False, repr=False, eq=False)

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        reading.allowance.take(1)
        node.doc.SetInParent()
        self.fill_document(node.doc, value, place, level + 1, reading)

    def fill_document(self, document: Any, value: Any, place: Place, level: int, reading: Reading) -> None:
        """
        Write a JSON object into ``document``, a DocProto at nesting ``level``.

        A missing id is made up, as executors do it: one id for the whole way of a document. Other fields that
        are missing get their defaults, so that conditions and joins see what executors see.
        """
        if type(value) is not dict:
            reading.problems.not_an_object(place, value)
            return
        if level + _DOCUMENT_LEVELS > MAX_LEVEL:
            reading.problems.too_deep(place, MAX_LEVEL)
            return
        data, fields = document.data, self.fields
        for name, field in fields.items():
            if name in value:
                field.kind.fill(data[name], value[name], (place, name), level + 2, reading)
            elif field.required:
                reading.problems.missing((place, name), value)
        if self.is_open:
            for name, item in value.items():
                if name not in fields:
                    fill_freely(data[name], item, (place, name), level + 2, reading)
        if len(value) < len(fields) or not fields.keys() <= value.keys():
            for name, node in self._default_nodes().items():
                if name not in value:
                    data[name].CopyFrom(node)
        if self.has_id and value.get("id") is None:
            node = data["id"]
            node.text, node.type = os.urandom(16).hex(), "id"

    def _default_nodes(self) -> dict[str, NodeProto]:
        if self._defaults is None:
            self._defaults = {}
            for name, field in self.fields.items():
                if field.has_default:
                    node, ignored = NodeProto(), Reading(Problems(), Allowance(1000))
                    field.kind.fill(node, field.default, None, 1, ignored)
                    if not ignored.problems.entries:  # else it is the executor's to fill in
                        self._defaults[name] = node
        return self._defaults

    def plain(self, value: Any, place: Place, reading: Reading) -> dict[str, Any]:
        if type(value) is not dict:
            reading.problems.not_an_object(place, value)
            raise Failed
        found: dict[str, Any] = {}
        failed = False
        for name, field in self.fields.items():
            if name in value:
                try:
                    found[name] = field.kind.plain(value[name], (place, name), reading)
                except Failed:
                    failed = True
            elif field.required:
                reading.problems.missing((place, name), value)
                failed = True
            elif field.has_default:
                found[name] = field.default
        if failed:
            raise Failed
        if self.is_open:
            found |= {name: item for name, item in value.items() if name not in self.fields}
        return found

    def write(self, node: NodeProto) -> object:
        return self.write_document(node.doc) if node.WhichOneof("content") == "doc" else write_node(node)

    def write_document(self, document: Any) -> dict[str, object]:
        """
        The JSON object of a DocProto: fields in the order of the schema, id first, then those unknown to it.

        A field that is missing has its default; what has none is left out, because a null where none is
        allowed breaks the reference's client.
        """
        data = document.data
        found: dict[str, object] = {}
        known = 0
        for name, field in self.fields.items():
            if name in data:
                known += 1
                found[name] = field.kind.write(data[name])
            elif field.has_default:
                found[name] = field.default
        if known < len(data):
            for name in sorted(data):
                if name not in found:
                    found[name] = write_node(data[name])
        return found

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        if type(value) is not dict:
            return False
        return all(name in value for name, field in self.fields.items() if field.required) and (
            self.is_open or not value or not self.fields or not self.fields.keys().isdisjoint(value)
        )


@attrs.frozen
class Documents:
    """A list of documents."""

    of: Document
    limits: Limits = NO_LIMITS

    def fill(self, node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
        if type(value) is not list:
            reading.problems.not_a_list(place, value)
        elif not self.limits.some or self.limits.admit(value, place, reading.problems):
            node.doc_array.SetInParent()
            self.fill_documents(node.doc_array.docs, value, place, level + 2, reading)

    def fill_documents(
        self, documents: Any, value: Sequence[Any], place: Place, level: int, reading: Reading
    ) -> None:
        """Append to ``documents``, a repeated field of DocProtos at nesting ``level``."""
        reading.allowance.take(len(value))
        fill, add = self.of.fill_document, documents.add
        for index, item in enumerate(value):
            fill(add(), item, (place, index), level, reading)

    def plain(self, value: Any, place: Place, reading: Reading) -> list[Any]:
        if type(value) is not list:
            reading.problems.not_a_list(place, value)
            raise Failed
        return all_or_failed(
            lambda index: self.of.plain(value[index], (place, index), reading), range(len(value))
        )

    def write(self, node: NodeProto) -> object:
        if node.WhichOneof("content") == "doc_array":
            return write_list(node.doc_array.docs, self.of.write_document)
        return write_node(node)

    def is_like(self, value: Any, depth: int = _ALIKE) -> bool:
        if type(value) is not list:
            return False
        return not value or depth <= 0 or self.of.is_like(value[0], depth - 1)


# -- values whose kind is not known -----------------------------------------------------------------------


def fill_freely(node: NodeProto, value: Any, place: Place, level: int, reading: Reading) -> None:
    """Write a JSON value into ``node`` by what it is; a list or an object never becomes documents."""
    kind = type(value)
    if kind is str:
        node.text = value
    elif kind is bool:
        node.boolean = value
    elif kind is int:
        if _MIN_INT32 <= value <= _MAX_INT32:
            node.integer = value
        else:
            _refuse_large(value, place, reading.problems)
    elif kind is float:
        node.float = value
    elif value is None:
        return
    elif kind is list:
        _ANY_ITEMS.fill(node, value, place, level, reading)
    else:
        _ANY_DICT.fill(node, value, place, level, reading)


def write_node(node: NodeProto) -> object:
    """
    A node as its own kind says. Bytes are the text that they are in UTF-8, else base64.

    Raises UnreadableArray for an array without a JSON form.
    """
    kind = node.WhichOneof("content")
    if kind is None:
        return None
    if kind == "blob":
        return _text_of(node.blob)
    if kind == "ndarray":
        from gatewayd.messages.json_form import arrays

        return arrays.read_dense(node.ndarray.dense)
    if kind == "doc":
        return write_map(node.doc.data, write_node)
    if kind == "doc_array":
        return write_list(node.doc_array.docs, lambda document: write_map(document.data, write_node))
    if kind == "dict":
        return write_map(node.dict.data, write_node)
    if kind in ("list", "set", "tuple"):
        return write_list(getattr(node, kind).data, write_node)
    return getattr(node, kind)


def _text_of(blob: bytes) -> str:
    try:
        return blob.decode()
    except UnicodeDecodeError:
        return binascii.b2a_base64(blob, newline=False).decode("ascii")


_ANY_ITEMS: Final = Items(Anything())
_ANY_DICT: Final = Dict(Anything())


# -- conversions ------------------------------------------------------------------------------------------


def _as_integer(value: Any, place: Place, problems: Problems) -> int:
    """Raises Failed."""
    kind = type(value)
    if kind is bool:
        return int(value)
    if kind is float:
        if value.is_integer():
            return int(value)
        if not math.isfinite(value):
            problems.add(place, "finite_number", "Input should be a finite number", value)
        else:
            text = "Input should be a valid integer, got a number with a fractional part"
            problems.add(place, "int_from_float", text, value)
        raise Failed
    if kind is str:
        try:
            number = float(value) if len(value) <= 40 else math.nan
        except ValueError:
            number = math.nan
        if number.is_integer() and "_" not in value:
            return int(number)
        text = "Input should be a valid integer, unable to parse string as an integer"
        problems.add(place, "int_parsing", text, value)
        raise Failed
    problems.add(place, "int_type", "Input should be a valid integer", value)
    raise Failed


def _as_float(value: Any, place: Place, problems: Problems) -> float:
    """Raises Failed."""
    kind = type(value)
    if kind is int or kind is bool:
        return float(value)  # JSON's parser has made a float of what does not fit 64 bits
    if kind is str:
        try:
            if "_" not in value:
                return float(value)
        except ValueError:
            pass  # told below
        text = "Input should be a valid number, unable to parse string as a number"
        problems.add(place, "float_parsing", text, value)
        raise Failed
    problems.add(place, "float_type", "Input should be a valid number", value)
    raise Failed


def _as_boolean(value: Any, place: Place, problems: Problems) -> bool:
    """Raises Failed."""
    if type(value) is str:
        said = value.lower()
        if said in _TRUE or said in _FALSE:
            return said in _TRUE
    elif type(value) in (int, float) and value in (0, 1):
        return bool(value)
    if type(value) in (str, int, float):
        text = "Input should be a valid boolean, unable to interpret input"
        problems.add(place, "bool_parsing", text, value)
    else:
        problems.add(place, "bool_type", "Input should be a valid boolean", value)
    raise Failed


def _refuse_large(number: int, place: Place, problems: Problems) -> None:
    """Where docarray fails with ``Value out of range``, in the executor or before it."""
    if number > 0:
        text, kind, bound = "less than or equal to", "less_than_equal", {"le": _MAX_INT32}
    else:
        text, kind, bound = "greater than or equal to", "greater_than_equal", {"ge": _MIN_INT32}
    (limit,) = bound.values()
    problems.add(
        place, kind, f"Input should be {text} {limit}: integers of documents have 32 bits", number, bound
    )


def _fits(kind: _Scalar, value: Any, place: Place) -> bool:
    try:
        kind.plain(value, place, Reading(Problems(), Allowance(0)))
    except Failed:
        return False
    return True


def all_or_failed(convert: Callable[[Any], Any], keys: Sequence[Any]) -> list[Any]:
    """What ``convert`` makes of each key; Failed, after all have been tried, if any of them failed."""
    found: list[Any] = []
    failed = False
    for key in keys:
        try:
            found.append(convert(key))
        except Failed:
            failed = True
    if failed:
        raise Failed
    return found
