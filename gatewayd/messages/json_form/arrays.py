"""
Converts nested JSON lists to NdArrayProto, and back.

Lists in requests become numpy arrays of the type that numpy infers, as in the reference. Arrays in answers
are written as numbers, whatever framework made them: dense ones as numpy arrays, which orjson prints without
Python objects in between, and sparse ones after their zeros are filled in.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import NoneType
from typing import Any, Final

import numpy as np

from gatewayd.errors import GatewayError
from gatewayd.messages.json_form.values import Loc, Problems
from gatewayd.pb import DenseNdArrayProto, NdArrayProto

Array = np.ndarray[Any, np.dtype[Any]]

_FRAMEWORKS: Final = frozenset({"numpy", "list", "torch", "tensorflow", "paddle", "scipy"})

# The limit of numpy 1, which executors may use.
_MAX_DIMENSIONS: Final = 32

# Limits on the memory that a short message can cause. Strings: each element of a numpy array takes as much
# memory as the longest one. Zeros: an array may be sent as a shape alone, or as a few sparse entries.
_MAX_STRINGS_BYTES: Final = 64 << 20
_MAX_FILLED_ELEMENTS: Final = 16 << 20

# Longer lists of floats are left to numpy: packed, they would be arguments of a call.
_MOST_PACKED: Final = 4096

_DOUBLE: Final[np.dtype[Any]] = np.dtype(np.float64)
_VECTORS: Final[dict[str, np.dtype[Any]]] = {each.str: each for each in (_DOUBLE, np.dtype(np.float32))}

# Booleans, integers, floats and strings, in numpy's codes or names. Other types (dates, complex numbers,
# objects, records) have no JSON form.
_DTYPE: Final = re.compile(
    r"[<>=|]?(?:\?|b1|[iu][1248]|f(?:2|4|8|16)|U\d{1,8})|bool|u?int(?:8|16|32|64)|float(?:16|32|64)"
)


class UnreadableArray(GatewayError):
    """An array of a document has no JSON form; the text says why."""


def fill_array(target: NdArrayProto, value: object, loc: Loc, problems: Problems) -> None:
    """Write nested lists of numbers, booleans or strings into ``target``."""
    if type(value) is not list:
        problems.add(
            loc, f"can not determine the array type: ['builtins'].{type(value).__name__}", "type_error"
        )
        return
    try:
        fill_dense(target.dense, value)
    except ValueError as error:
        problems.add(loc, str(error), "value_error")
        return
    target.cls_name = "numpy"


def fill_dense(dense: Any, value: list[Any], size: int | None = None) -> None:
    """
    Write nested lists into a DenseNdArrayProto, of either generation; ``size`` is how many elements it must
    have.

    Raises ValueError with a text for the client, which is numpy's own for ragged lists.
    """
    count = len(value)
    if 0 < count <= _MOST_PACKED and type(value[0]) is float and (size is None or size == count):
        # A vector of floats, as most arrays are: its bytes without an array in between.
        try:
            dense.buffer = _floats(count).pack(*value)
        except struct.error:
            pass  # something else is in it: numpy knows what to make of that, or says what is wrong
        else:
            dense.shape.append(count)
            dense.dtype = "<f8"
            return
    array = _to_numpy(value)
    if size is not None and array.size != size:
        raise ValueError(f"the array has {size} elements, not {array.size}")
    dense.buffer = array.tobytes()
    dense.shape.extend(array.shape)
    dense.dtype = array.dtype.str


def read_dense(dense: Any) -> object:
    """
    A DenseNdArrayProto, of either generation, as in ``read_array``; None if it is empty.

    Raises UnreadableArray.
    """
    buffer, shape = dense.buffer, dense.shape
    if not buffer and not shape:
        return None
    if len(shape) == 1 and buffer:
        # Vectors of floats by hand, as they are or as doubles.
        found = _VECTORS.get(dense.dtype)
        if found is not None and shape[0] * found.itemsize == len(buffer):
            vector: Array = np.frombuffer(buffer, found)
            return vector if found is _DOUBLE else vector.astype(_DOUBLE)
    return _printable(_from_dense(dense))


@lru_cache(maxsize=64)
def _floats(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}d")


def _to_numpy(value: list[Any]) -> Array:
    """Raises ValueError with a text for the client, which is numpy's own for ragged lists."""
    kinds = _leaf_kinds(value, 1)
    if NoneType in kinds and kinds <= {int, float, NoneType}:
        # null is JSON's form of NaN, which only arrays of floats have; JavaScript writes their whole numbers
        # as integers. numpy reads None as NaN.
        kinds = {float}
    if not kinds <= {int, float, bool, str}:
        raise ValueError(
            "an array holds numbers, booleans or strings; null, which means NaN, stands only beside numbers"
        )
    if str in kinds:
        lengths = [len(leaf) if type(leaf) is str else 32 for leaf in _leaves(value)]
        if max(lengths) * len(lengths) * 4 > _MAX_STRINGS_BYTES:
            raise ValueError(f"an array of strings may take {_MAX_STRINGS_BYTES} bytes at most")
        return np.array(value)
    # With a float among them numpy would infer float64 anyway; passing the dtype saves a pass.
    array: Array = np.array(value, dtype=np.float64 if float in kinds else None)
    if array.dtype.kind == "O":
        raise ValueError("an array holds integers of at most 64 bits")
    return array


def _leaf_kinds(value: list[Any], dimension: int) -> set[type]:
    kinds = set(map(type, value))
    if list in kinds:
        if dimension == _MAX_DIMENSIONS:
            raise ValueError(f"an array has at most {_MAX_DIMENSIONS} dimensions")
        kinds.remove(list)
        for item in value:
            if type(item) is list:
                kinds |= _leaf_kinds(item, dimension + 1)
    return kinds


def _leaves(value: list[Any]) -> Iterator[object]:
    for item in value:
        if type(item) is list:
            yield from _leaves(item)
        else:
            yield item


def read_array(message: NdArrayProto) -> object:
    """
    An array, a list or a number, which orjson (with OPT_SERIALIZE_NUMPY) prints as nested lists.

    None if there is no array: the message is empty, or of an unknown framework. Non-finite numbers become
    null. Raises UnreadableArray.
    """
    if message.cls_name not in _FRAMEWORKS:
        return None
    kind = message.WhichOneof("content")
    if kind == "dense":
        return read_dense(message.dense)
    if kind == "sparse":
        return _printable(_from_sparse(message))
    return None


@lru_cache(maxsize=64)
def _dtype(name: str) -> np.dtype[Any]:
    # The name is empty if the buffer is empty: zeros of numpy's default type.
    if name and not _DTYPE.fullmatch(name):
        raise UnreadableArray(f"an array of dtype {name[:40]!r} has no JSON form")
    return np.dtype(name or "<f8")


def _from_dense(dense: DenseNdArrayProto) -> Array:
    dtype, shape, buffer = _dtype(dense.dtype), tuple(dense.shape), dense.buffer
    _check_dimensions(shape)
    if not buffer:
        _check_room(shape)
        return np.zeros(shape, dtype)
    if math.prod(shape) * dtype.itemsize != len(buffer):
        raise UnreadableArray(
            f"an array of dtype {dense.dtype} and shape {shape} does not have {len(buffer)} bytes"
        )
    try:
        return np.frombuffer(buffer, dtype).reshape(shape)
    except ValueError as error:
        raise UnreadableArray(f"an array of dtype {dense.dtype} cannot be read: {error}") from error


def _from_sparse(message: NdArrayProto) -> Array:
    """
    A sparse array with its zeros filled in.

    Indices have the shape (entries, dimensions), torch's the transposed one. Entries at the same place are
    added, as in all three frameworks.
    """
    sparse = message.sparse
    shape = tuple(sparse.shape)
    _check_dimensions(shape)
    _check_room(shape)
    values, indices = _from_dense(sparse.values), _from_dense(sparse.indices)
    if indices.ndim == 2 and message.cls_name != "torch":
        indices = indices.T
    if (
        values.ndim != 1
        or values.dtype.kind not in "biuf"
        or indices.dtype.kind not in "iu"
        or indices.shape != (len(shape), len(values))
        or any(
            len(axis) and (axis.min() < 0 or axis.max() >= size)
            for axis, size in zip(indices, shape, strict=True)
        )
    ):
        raise UnreadableArray(f"a sparse array of shape {shape} has indices that do not fit it")
    filled: Array = np.zeros(shape, values.dtype)
    np.add.at(filled, tuple(indices), values)
    return filled


def _check_dimensions(shape: Sequence[int]) -> None:
    if len(shape) > _MAX_DIMENSIONS:
        raise UnreadableArray(f"an array of {len(shape)} dimensions has no JSON form here")


def _check_room(shape: Sequence[int]) -> None:
    # Lists of empty lists take memory, too: count a size of zero as one.
    if math.prod(size or 1 for size in shape) > _MAX_FILLED_ELEMENTS:
        raise UnreadableArray(f"an array of shape {tuple(shape)} is too large to be filled with zeros")


def _printable(array: Array) -> object:
    kind = array.dtype.kind
    if kind == "U":
        _check_characters(array)
        return array.tolist()
    if array.ndim == 0:
        return array.item()
    if kind == "f" and array.dtype.str != "<f8":
        # A float32 would be printed as 0.1; clients of the reference get it as a double, 0.10000000149011612.
        return array.astype(np.float64)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _check_characters(array: Array) -> None:
    """numpy stores strings as 32-bit code points and does not check that they are valid."""
    codes = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    if ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))).any():
        raise UnreadableArray("an array of strings holds an invalid Unicode character")
