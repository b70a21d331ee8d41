"""What the benchmarks send: serialised DataRequestProtos, and bodies of POST /post."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from gatewayd.pb import DataRequestProto


def small_message() -> bytes:
    request = DataRequestProto()
    request.header.request_id = "0" * 32
    request.header.exec_endpoint = "/search"
    request.data.docs.docs.add(id="d0", text="hello, world")
    return request.SerializeToString()


def documents_message(fill: Callable[[Any, int], None]) -> bytes:
    """100 documents with what ``fill`` gives each of them."""
    request = DataRequestProto()
    request.header.request_id = "0" * 32
    request.header.exec_endpoint = "/search"
    for number in range(100):
        fill(request.data.docs.docs.add(id=f"{number:032x}"), number)
    return request.SerializeToString()


def with_text(document: Any, number: int) -> None:
    document.text = f"a document with a text, the number {number}"


def with_embedding(document: Any, number: int) -> None:
    document.text = "hello"
    _add_array(document.embedding, random.Random(number).randbytes(512), [128], "<f4")


def with_embedding_and_tags(document: Any, number: int) -> None:
    with_embedding(document, number)
    document.tags.update({"price": 5.5, "name": "a product"})


def with_tensor(document: Any, number: int) -> None:
    _add_array(document.tensor, random.Random(number).randbytes(3 * 32 * 32), [3, 32, 32], "|u1")


def _add_array(array: Any, content: bytes, shape: list[int], dtype: str) -> None:
    array.cls_name = "numpy"
    array.dense.buffer, array.dense.dtype = content, dtype
    array.dense.shape.extend(shape)


def large_message() -> bytes:
    request = DataRequestProto()
    request.header.request_id = "0" * 32
    request.header.exec_endpoint = "/search"
    request.data.docs.docs.add(id="d0", blob=bytes(1 << 20))
    return request.SerializeToString()


def small_json() -> bytes:
    return json.dumps({"data": [{"id": "d0", "text": "hello, world"}], "execEndpoint": "/search"}).encode()


def embeddings_json() -> bytes:
    dice = random.Random(7)
    documents = [
        {"id": f"d{number}", "text": "hello", "embedding": [dice.random() for _ in range(128)]}
        for number in range(100)
    ]
    return json.dumps({"data": documents, "execEndpoint": "/search"}).encode()


def embeddings_message(count: int) -> bytes:
    """For executors that read and write: texts, tags and embeddings of 128 floats."""
    dice = random.Random(7)
    request = DataRequestProto()
    request.header.request_id = "0" * 32
    request.header.exec_endpoint = "/search"
    for number in range(count):
        document = request.data.docs.docs.add(id=f"d{number}", text="hello, world")
        document.tags["category"] = "fruit"
        dense = document.embedding.dense
        dense.buffer = struct.pack("<128f", *(dice.random() for _ in range(128)))
        dense.shape.append(128)
        dense.dtype = "<f4"
        document.embedding.cls_name = "numpy"
    return request.SerializeToString()


def graphql_query() -> bytes:
    query = '{docs(data: [{id: "d0", text: "hello, world"}], execEndpoint: "/search") {id text}}'
    return json.dumps({"query": query}).encode()


PAYLOADS: dict[str, Callable[[], bytes]] = {
    "small": small_message,
    "texts": partial(documents_message, with_text),
    "embeddings": partial(documents_message, with_embedding),
    "embeddings_tags": partial(documents_message, with_embedding_and_tags),
    "tensors": partial(documents_message, with_tensor),
    "large": large_message,
    "small_json": small_json,
    "embeddings_json": embeddings_json,
    "one_document": lambda: embeddings_message(1),
    "hundred_documents": lambda: embeddings_message(100),
    "graphql": graphql_query,
}
