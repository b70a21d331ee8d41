"""What the benchmarks send: serialised DataRequestProtos, and bodies of POST /post."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable

from gatewayd.pb import DataRequestProto


def small_message() -> bytes:
    request = DataRequestProto()
    request.header.request_id = "0" * 32
    request.header.exec_endpoint = "/search"
    request.data.docs.docs.add(id="d0", text="hello, world")
    return request.SerializeToString()


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
    "large": large_message,
    "small_json": small_json,
    "embeddings_json": embeddings_json,
    "one_document": lambda: embeddings_message(1),
    "hundred_documents": lambda: embeddings_message(100),
    "graphql": graphql_query,
}
