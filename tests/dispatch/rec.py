"""The executors that the golden answers were captured with, as far as those need them."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.json_format import MessageToDict

from gatewayd.messages.request import Answer
from gatewayd.messages.wire import decode_answer
from gatewayd.pb import DataRequestProto, DocumentArrayProto, DocumentProto, StatusProto


def answer(name: str, endpoint: str, messages: Sequence[bytes]) -> Answer:
    """What the executor ``name`` (``exec_a`` has the letter A) answers to a call."""
    requests = [DataRequestProto.FromString(each) for each in messages]
    letter = name[-1].upper()
    result = DataRequestProto()
    result.CopyFrom(requests[0])
    docs = result.data.docs
    del docs.docs[:]
    for each in requests:
        docs.docs.extend(each.data.docs.docs)
    parameters = MessageToDict(result.parameters)

    if endpoint == "/raise_if" and parameters["who"] == letter:
        text = f"boom {letter}"
        status = StatusProto(code=StatusProto.ERROR, description=f"ValueError('{text}')")
        status.exception.name, status.exception.executor = "ValueError", "Rec"
        status.exception.args.append(text)
        status.exception.stacks.append("<volatile>")
        requests[0].header.status.CopyFrom(status)
        return decode_answer(requests[0].SerializeToString(), is_error=True)
    if endpoint in ("/tag", "/search"):
        for each in docs.docs:
            each.text += letter
            each.tags[letter] = len(docs.docs)
    elif endpoint == "/raise_if":
        for each in docs.docs:
            each.text += letter
    elif endpoint in ("/branch", "/branchj") and letter != "C":
        _branch(docs, letter)
    elif endpoint == "/swap" and letter != "C":
        swapped = [DocumentProto(id=f"x{letter}"), *reversed(list(docs.docs))]
        del docs.docs[:]
        docs.docs.extend(swapped)
    elif endpoint == "/new":
        _replace(docs, DocumentProto(id=f"n{letter}", text=f"new {letter}"))
    elif endpoint == "/results":
        result.parameters.get_or_create_struct("__results__").get_or_create_struct(f"{name}/rep-0").update(
            {"n": len(docs.docs), "who": letter}
        )
    elif endpoint == "/matrix":
        texts = [[each.text for each in request.data.docs.docs] for request in requests]
        seen = DocumentProto(id=f"made{letter}", text=letter)
        seen.tags.update(
            {
                "docs": [text for part in texts for text in part],
                "matrix": texts,
                "map": {
                    request.routes[-1].executor: part for request, part in zip(requests, texts, strict=True)
                },
            }
        )
        _replace(docs, seen)
    elif endpoint == "/params":
        seen = DocumentProto(id=f"made{letter}", text=letter)
        seen.tags.update({"kwargs": ["docs_map", "docs_matrix", "tracing_context"], "params": parameters})
        docs.docs.insert(0, seen)
    result.routes.add(executor=name)
    return decode_answer(result.SerializeToString())


def _replace(docs: DocumentArrayProto, document: DocumentProto) -> None:
    del docs.docs[:]
    docs.docs.append(document)


def _branch(docs: DocumentArrayProto, letter: str) -> None:
    for index, each in enumerate(docs.docs):
        each.text = f"text by {letter}"
        each.tags["who"] = letter
        each.chunks.add(id=f"c{letter}{index}", text=f"chunk {letter}", parent_id=each.id, granularity=1)
        match = each.matches.add(id=f"m{index}", adjacency=1)
        if letter == "A":
            match.text = "match A"
        else:
            match.uri = "match B uri"
            each.uri = "http://b"
            each.embedding.cls_name = "numpy"
            each.embedding.dense.buffer = b"\x00\x00\x80\x3f\x00\x00\x00\x40"
            each.embedding.dense.shape.append(2)
            each.embedding.dense.dtype = "<f4"
    docs.docs.add(id=f"new{letter}", text=f"new from {letter}")
