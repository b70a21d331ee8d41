"""A request for embeddings, and its answer."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from gatewayd.errors import GatewayError, InvalidField, TooManyDocuments
from gatewayd.messages.json_form.groups import dumps
from gatewayd.messages.openai.fields import Check, Integer, checked, fields_of, model_name, text
from gatewayd.messages.openai.forms import Answered, usage_of

_PARAMETERS: Final[Mapping[str, Check]] = {"model": model_name, "dimensions": Integer(1), "user": text}
_FORMATS: Final = ("float", "base64")


class NoEmbedding(GatewayError):
    """An executor's answer does not have an embedding for each text."""


@attrs.frozen
class Embeddings:
    """What a client asks: ``texts`` to embed; with ``base64`` the answer has bytes for numbers."""

    model: str
    texts: Sequence[str] = attrs.field(repr=False)
    parameters: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    base64: bool = False


def decode_embeddings(body: bytes, max_documents: int) -> Embeddings:
    """Raises Unparsable, InvalidField, TooManyDocuments."""
    fields = fields_of(body)
    for name in ("model", "input"):
        if name not in fields:
            raise InvalidField("it is missing", name)
    encoding = fields.get("encoding_format", "float")
    if encoding not in _FORMATS:
        raise InvalidField(f"one of {', '.join(_FORMATS)} is wanted", "encoding_format")
    texts = _texts(fields["input"])
    if len(texts) > max_documents:
        raise TooManyDocuments(max_documents)
    parameters = checked(fields, _PARAMETERS)
    return Embeddings(parameters["model"], texts, parameters, encoding == "base64")


def _texts(value: Any) -> list[str]:
    found = [value] if type(value) is str else value
    if type(found) is not list or not found:
        raise InvalidField("a string or a list of strings is wanted", "input")
    if type(found[0]) in (int, list):
        raise InvalidField("tokens are not taken: send the text itself, or a list of texts", "input")
    if not all(type(each) is str for each in found):
        raise InvalidField("a string or a list of strings is wanted", "input")
    return found


def encode_embeddings(
    asked: Embeddings, answered: Sequence[Answered], executor: str = "an executor"
) -> bytes:
    """The body of the answer, which came from ``executor``. Raises NoEmbedding."""
    if len(answered) != len(asked.texts):
        raise NoEmbedding(f"{executor} answered {len(answered)} documents to {len(asked.texts)} texts")
    import numpy as np  # it is loaded already where there is a vector, and needed for nothing else

    data = []
    for index, each in enumerate(answered):
        vector = each.embedding
        if vector is None:
            raise NoEmbedding(f"{executor} answered a document without an embedding, number {index}")
        if not np.isfinite(vector).all():
            raise NoEmbedding(f"{executor} answered an embedding with NaN or infinity, number {index}")
        shown: object = base64.b64encode(vector.tobytes()).decode() if asked.base64 else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
    prompt = sum(usage_of(each.facts).get("prompt_tokens", 0) for each in answered)
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    return dumps({"object": "list", "data": data, "model": asked.model, "usage": usage})
