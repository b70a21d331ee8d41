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

    numpy is loaded here, and not by gateways that make no embeddings.
    """
    import numpy as np

    try:
        vector = np.asarray(array, dtype="<f4")
    except (TypeError, ValueError) as error:
        raise UnfitDocuments(f"an embedding is no list of numbers: {error}") from error
    return np.ascontiguousarray(vector.reshape(-1))
