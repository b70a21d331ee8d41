"""Requests for embeddings, and the vectors of their answers."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from gatewayd.errors import InvalidField, TooManyDocuments
from gatewayd.messages.discovery import TypedEndpoint
from gatewayd.messages.openai.embeddings import (
    Embeddings,
    NoEmbedding,
    decode_embeddings,
    encode_embeddings,
)
from gatewayd.messages.openai.first import FirstForm
from gatewayd.messages.openai.forms import Answered, UnfitDocuments, as_vector
from gatewayd.messages.openai.second import SecondForm
from gatewayd.pb import DataContentProto
from gatewayd.pb.second import DataContentProto as SecondContent


def decoded(most: int = 10, **fields: Any) -> Embeddings:
    return decode_embeddings(json.dumps({"model": "m", "input": "a", **fields}).encode(), most)


def test_a_string_is_a_list_of_one() -> None:
    assert decoded(input="hello").texts == ["hello"]
    assert decoded(input=["b", "a"]).texts == ["b", "a"]


def test_model_dimensions_and_user_are_parameters() -> None:
    found = decoded(dimensions=64, user="u", encoding_format="base64")
    assert found.parameters == {"model": "m", "dimensions": 64, "user": "u"}
    assert found.base64
    assert not decoded().base64


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": None}, "input", "missing"),
        ({"input": []}, "input", "a list of strings"),
        ({"input": {}}, "input", "a list of strings"),
        ({"input": ["a", 1]}, "input", "a list of strings"),
        ({"input": [1, 2]}, "input", "tokens are not taken"),
        ({"input": [[1, 2]]}, "input", "tokens are not taken"),
        ({"encoding_format": "hex"}, "encoding_format", "float, base64"),
        ({"encoding_format": ["float"]}, "encoding_format", "float, base64"),
        ({"dimensions": 0}, "dimensions", "an integer from 1 up"),
        ({"model": ["m"]}, "model", "a string"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_by_name(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidField, match=words) as caught:
        decoded(**fields)
    assert caught.value.param == param


def test_more_texts_than_documents_allowed_are_refused() -> None:
    assert len(decoded(2, input=["a", "b"]).texts) == 2
    with pytest.raises(TooManyDocuments):
        decoded(2, input=["a", "b", "c"])


def test_each_text_is_a_document() -> None:
    request = FirstForm("/embed").of_texts(["a", "", "c"], {"model": "m"}, "id1")
    documents = DataContentProto.FromString(bytes(request.documents)).docs.docs
    assert [document.text for document in documents] == ["a", "", "c"]
    assert request.endpoint == "/embed"


def second(*names: str) -> SecondForm:
    schema = {"title": "T", "type": "object", "properties": {name: {"type": "string"} for name in names}}
    return SecondForm.of("/embed", TypedEndpoint(schema, schema, "T", "T"))


def test_each_text_is_a_document_of_the_second_generation() -> None:
    request = second("id", "text").of_texts(["a", "b"], {}, "id1")
    documents = SecondContent.FromString(bytes(request.documents)).docs.docs
    assert [document.data["text"].text for document in documents] == ["a", "b"]
    with pytest.raises(UnfitDocuments, match="no field text"):
        second("id").of_texts(["a"], {}, "id1")


# -- answers --------------------------------------------------------------------------------------------


def encoded(asked: Embeddings, *answered: Answered) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode_embeddings(asked, answered))
    return found


def test_vectors_are_answered_in_order() -> None:
    found = encoded(
        decoded(input=["a", "b"]),
        Answered(embedding=as_vector([1, 2])),
        Answered(embedding=as_vector([0.5, -1])),
    )
    assert found["object"] == "list"
    assert found["model"] == "m"
    assert found["data"] == [
        {"object": "embedding", "index": 0, "embedding": [1.0, 2.0]},
        {"object": "embedding", "index": 1, "embedding": [0.5, -1.0]},
    ]
    assert found["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


def test_base64_has_little_endian_floats_of_32_bits() -> None:
    found = encoded(decoded(encoding_format="base64"), Answered(embedding=as_vector([1, -2.5])))
    assert base64.b64decode(found["data"][0]["embedding"]) == struct.pack("<2f", 1, -2.5)


def test_tokens_are_summed() -> None:
    one = Answered(embedding=as_vector([1]), facts={"usage": {"prompt_tokens": 3.0}})
    assert encoded(decoded(input=["a", "b"]), one, one)["usage"] == {"prompt_tokens": 6, "total_tokens": 6}


def test_a_text_without_an_embedding_is_told() -> None:
    with pytest.raises(NoEmbedding, match="number 1"):
        encoded(decoded(input=["a", "b"]), Answered(embedding=as_vector([1])), Answered("b"))
    with pytest.raises(NoEmbedding, match="1 documents to 2 texts"):
        encoded(decoded(input=["a", "b"]), Answered(embedding=as_vector([1])))


def test_embeddings_of_either_generation_are_read() -> None:
    array = np.array([[1.0, 2.0]], dtype="<f8")  # some models answer a batch of one
    first = DataContentProto()
    embedding = first.docs.docs.add().embedding
    embedding.cls_name = "numpy"
    embedding.dense.buffer, embedding.dense.dtype = array.tobytes(), "<f8"
    embedding.dense.shape.extend(array.shape)
    content = SecondContent()
    dense = content.docs.docs.add().data["embedding"].ndarray.dense
    dense.buffer, dense.dtype = array.tobytes(), "<f8"
    dense.shape.extend(array.shape)
    numbers = content.docs.docs.add().data["embedding"].list.data
    numbers.add().float = 1.0
    numbers.add().integer = 2
    found = [
        *FirstForm("/embed").read(first.SerializeToString()),
        *second("text").read(content.SerializeToString()),
    ]
    for each in found:
        assert each.embedding is not None
        assert each.embedding.dtype == np.dtype("<f4")
        assert each.embedding.tolist() == [1.0, 2.0]


def test_what_is_no_vector_is_told() -> None:
    for odd in (["a"], ["1"], [[1, 2], [3]], [1, None], {"a": 1}, "1", [[1, 2], [3, 4]], [True]):
        with pytest.raises(UnfitDocuments, match="embedding is no list of numbers"):
            as_vector(odd)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 1e300])
def test_numbers_that_no_client_can_read_are_told(odd: float) -> None:
    with pytest.raises(NoEmbedding, match="llm answered an embedding with NaN or infinity, number 1"):
        encode_embeddings(
            decoded(input=["a", "b"]),
            [Answered(embedding=as_vector([1])), Answered(embedding=as_vector([1, odd]))],
            "llm",
        )
