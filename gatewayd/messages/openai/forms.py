"""
Documents of requests in OpenAI's form, and what is read of those answered: one interface for generations.

Documents of the first generation have ``text``, ``embedding`` and ``tags``; those of the second the fields
that the endpoint's schemas name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from gatewayd.errors import BadRequest, GatewayError, InvalidField
from gatewayd.messages.request import Request
from gatewayd.messages.rope import Content

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]

# What codecs call the parts of a request around its fields.
_AROUND: Final = ("body", "data", "parameters", "tags")
_EXACT: Final = 2**53  # from here on doubles, and JavaScript's numbers, are no counts
_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")


class UnfitDocuments(GatewayError):
    """The documents of an endpoint cannot carry what a request in OpenAI's form needs; the text says what."""


@attrs.frozen
class Answered:
    """
    What is read of one answered document.

    ``embedding`` is a vector of little-endian floats of 32 bits. ``facts`` are what it says of the
    completion: ``finish_reason``, ``usage``, ``tool_calls``.
    """

    text: str = ""
    embedding: Vector | None = None
    facts: Mapping[str, Any] = attrs.field(factory=dict)

    def check_facts(self) -> None:
        """
        Raises UnfitDocuments, with the name of a fact that is of another kind than clients are told.

        None is the same as nothing.
        """
        facts = self.facts
        if not isinstance(facts.get("finish_reason"), str | None):
            raise unfit("finish_reason", facts["finish_reason"], "a string")
        usage = facts.get("usage")
        if not isinstance(usage, Mapping | None):
            raise unfit("usage", usage, "an object with counts of tokens")
        counts = usage or {}
        for name in _COUNTS:
            if counts.get(name) is not None and whole_number(counts[name]) is None:
                raise unfit(f"usage.{name}", counts[name], "a number from 0 up")
        calls = facts.get("tool_calls")
        if not isinstance(calls, list | None):
            raise unfit("tool_calls", calls, "a list of objects")
        for index, call in enumerate(calls or ()):
            if not isinstance(call, Mapping):
                raise unfit(f"tool_calls[{index}]", call, "an object")
            if call.get("index") is not None and whole_number(call["index"]) is None:
                raise unfit(f"tool_calls[{index}].index", call["index"], "a number from 0 up")


class Form(Protocol):
    """The documents of one endpoint."""

    def of_chat(
        self, text: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any], request_id: str
    ) -> Request:
        """A request with the one document of a conversation. Raises InvalidField, UnfitDocuments."""
        ...

    def of_texts(self, texts: Sequence[str], parameters: Mapping[str, Any], request_id: str) -> Request:
        """A request with a document for each text. Raises InvalidField, UnfitDocuments."""
        ...

    def read(self, documents: Content) -> list[Answered]:
        """The documents of a DataContentProto, in order. Raises GatewayError where they cannot be read."""
        ...


def unfit(name: str, value: object, wanted: str) -> UnfitDocuments:
    """The error of a field with a ``value`` of another kind than is ``wanted``."""
    kinds = (
        (str, "a string"),
        (bool, "a boolean"),
        (int | float, f"{value!s:.40}"),
        (list, "a list"),
        (Mapping, "an object"),
    )
    kind = next((words for types, words in kinds if isinstance(value, types)), type(value).__name__)
    return UnfitDocuments(f"{name} is {kind}, and {wanted} is wanted")


def usage_of(facts: Mapping[str, Any]) -> dict[str, int]:
    """The counts of tokens in ``usage``, with the total; empty where there are none."""
    usage = facts.get("usage")
    if not isinstance(usage, Mapping):
        return {}
    counts = ((name, whole_number(usage.get(name))) for name in _COUNTS)
    found = {name: count for name, count in counts if count is not None}
    if found:
        parts = (found.setdefault("prompt_tokens", 0), found.setdefault("completion_tokens", 0))
        found.setdefault("total_tokens", sum(parts))
    return found


def whole_number(value: object) -> int | None:
    """
    A count or an index that an executor tells, without its fraction; None for what can be neither.

    Executors are free to write anything, of which a Struct makes a double.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _EXACT:
        return None
    return int(value)


def field_at_fault(error: BadRequest, known: Mapping[str, str] = {}) -> InvalidField:
    """The error of a codec, for a client that knows ``known`` fields of documents by other names."""
    if not error.problems:
        return InvalidField(str(error))
    problem = error.problems[0]
    place = problem["loc"]
    names = [step for step in place if isinstance(step, str)] if isinstance(place, list | tuple) else []
    param = next((known.get(name, name) for name in reversed(names) if name not in _AROUND), None)
    return InvalidField(str(problem["msg"]), param)


def as_vector(array: object) -> Vector:
    """
    An array, a list or a number as little-endian floats of 32 bits. Raises UnfitDocuments for anything else.

    Of several dimensions all but one have to be 1. Numbers too large for such a float become infinite.
    numpy is loaded here, and not by gateways that make no embeddings.
    """
    import numpy as np

    try:
        found = np.asarray(array)
    except (TypeError, ValueError) as error:
        raise UnfitDocuments(f"embedding is no list of numbers: {error}") from error
    if found.dtype.kind not in "iuf":
        raise UnfitDocuments("embedding is no list of numbers")
    if found.ndim > 1 and max(found.shape) != found.size:
        raise UnfitDocuments(f"embedding is no list of numbers, but an array of shape {found.shape}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(found.reshape(-1), "<f4")
