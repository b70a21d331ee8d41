"""
Requests to and answers from the typed routes of Jina 3.34's gateways, with a DataRequestProto at this end.

Only servers that don't take protobuf are spoken to in this form (spec 34/client.md). JSON has no bytes: those
that are text in UTF-8 are sent as it, others are refused by name. What comes back says nothing of types:
docarray converts it by the class that the answer is read as.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np
import orjson

from gatewayd.client.errors import BadClientInput
from gatewayd.client.transports import json_form
from gatewayd.errors import GatewayError
from gatewayd.messages.request import Request
from gatewayd.messages.second.reading import UNKNOWN
from gatewayd.messages.second.writing import documents_in
from gatewayd.pb.second import DataContentProto, NodeProto

_INT32: Final = range(-(2**31), 2**31)
_ELSEWHERE: Final = "this server takes nothing but JSON over HTTP: post over grpc or websocket"


def encode(request: Request) -> bytes:
    """The body of a POST to a typed route. Raises BadClientInput for documents that have no JSON form."""
    body = json_form.beside_documents(request)
    body["data"] = [document_body(each) for each in documents_in(request.documents)]
    json_form.check_finite({"parameters": body["parameters"]})
    return orjson.dumps(body)


def document_body(document: Any) -> Any:
    """The JSON value of a DocProto. Raises BadClientInput."""
    for key in document.data:
        if problem := next(_unwritable(document.data[key], key), None):
            raise BadClientInput(problem)
    try:
        return orjson.loads(
            orjson.dumps(UNKNOWN.answers.write_document(document), option=orjson.OPT_SERIALIZE_NUMPY)
        )
    except (GatewayError, orjson.JSONEncodeError) as error:
        raise BadClientInput(f"the documents have no JSON form: {error}") from error


def content_of(documents: list[Any]) -> bytes:
    """The DataContentProto of JSON's documents. Raises TypeError, AttributeError, for what are none."""
    content = DataContentProto()
    content.docs.SetInParent()
    for one in documents:
        document = content.docs.docs.add()
        for key, value in one.items():
            _fill(document.data[key], value)
        if "id" in document.data:
            document.data["id"].type = "id"
    return content.SerializeToString()


decode = partial(json_form.decode, content_of=content_of)


def _fill(node: NodeProto, value: Any) -> None:
    match value:
        case None:
            pass
        case bool():
            node.boolean = value
        case int() if value in _INT32:
            node.integer = value
        case int() | float():
            node.float = value
        case str():
            node.text = value
        case list():
            node.list.SetInParent()
            for item in value:
                _fill(node.list.data.add(), item)
        case _:
            node.dict.SetInParent()
            for key, item in value.items():
                _fill(node.dict.data[key], item)


def _unwritable(node: NodeProto, where: str) -> Iterator[str]:
    """What JSON cannot say of a value, with its place."""
    kind = node.WhichOneof("content")
    if kind == "blob":
        try:
            node.blob.decode()
        except UnicodeDecodeError:
            yield f"{where} holds bytes that are no text in UTF-8, which JSON lacks, and {_ELSEWHERE}"
    elif kind == "float" and not math.isfinite(node.float):
        yield f"{where} holds NaN or infinity, which JSON lacks, and {_ELSEWHERE}"
    elif kind == "ndarray":
        dense = node.ndarray.dense
        if (
            np.dtype(dense.dtype).kind == "f"
            and not np.isfinite(np.frombuffer(dense.buffer, dense.dtype)).all()
        ):
            yield f"{where} holds NaN or infinity, which JSON lacks, and {_ELSEWHERE}"
    elif kind == "doc":
        yield from _unwritable_in(node.doc, where)
    elif kind == "doc_array":
        for index, document in enumerate(node.doc_array.docs):
            yield from _unwritable_in(document, f"{where}[{index}]")
    elif kind in ("list", "set", "tuple"):
        for index, item in enumerate(getattr(node, kind).data):
            yield from _unwritable(item, f"{where}[{index}]")
    elif kind == "dict":
        yield from _unwritable_in(node.dict, where)


def _unwritable_in(holder: Any, where: str) -> Iterator[str]:
    for key in holder.data:
        yield from _unwritable(holder.data[key], f"{where}.{key}")
