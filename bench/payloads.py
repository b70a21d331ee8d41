"""What the benchmarks send: serialised DataRequestProtos, and bodies of POST /post."""

from __future__ import annotations

import json
import random
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


PAYLOADS: dict[str, Callable[[], bytes]] = {
    "small": small_message,
    "large": large_message,
    "small_json": small_json,
    "embeddings_json": embeddings_json,
}
