"""
What the user passes as ``inputs``, cut into batches of documents, each a request ready to be sent.

Everything is an iterator over iterators: an input is asked for its next document when there is room
to send it, never before, so an endless generator needs the memory of one batch.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from itertools import islice
from typing import Any, Final

import attrs

from gatewayd.client.errors import BadClient, BadClientInput
from gatewayd.client.post import Post
from gatewayd.messages.request import Request

Encode = Callable[[Request], bytes]

_BLOBS: Final = (bytes, bytearray, memoryview)


@attrs.frozen
class Message:
    """A request in the form of its protocol, ready to be sent."""

    request_id: str
    payload: bytes


def messages(post: Post, encode: Encode) -> Iterator[Message]:
    """
    The requests of a post; ``encode`` gives each the form of its protocol.

    Raises BadClient where ``parameters`` have no JSON form, as soon as this is called. Iterating raises
    BadClientInput for what cannot be sent, and what the user's own iterator raises.
    """
    make = _message_maker(post, encode)
    return map(make, batches(post.inputs, post.request_size))


def async_messages(post: Post, encode: Encode) -> AsyncGenerator[Message, None]:
    """As ``messages``, for inputs that may be awaitable or iterated asynchronously."""
    make = _message_maker(post, encode)

    async def made() -> AsyncGenerator[Message, None]:
        async with aclosing(async_batches(post.inputs, post.request_size)) as cut:
            async for batch in cut:
                yield make(batch)

    return made()


def _message_maker(post: Post, encode: Encode) -> Callable[[list[Any]], Message]:
    parameters = encoded_parameters(post.parameters)

    def make(documents: list[Any]) -> Message:
        request = Request(
            request_id=uuid.uuid4().hex,
            endpoint=post.on,
            target=post.target_executor or "",
            parameters=parameters,
            documents=encoded_documents(documents) if documents else b"",
        )
        return Message(request.request_id, encode(request))

    return make


def encoded_parameters(parameters: Mapping[str, Any] | None) -> bytes:
    """As a serialised Struct. Raises BadClient for what has no JSON form."""
    from gatewayd.messages.structs import struct_of

    if parameters is not None and not isinstance(parameters, Mapping):
        raise BadClientInput(f"parameters: give a dict; found a value of type {type(parameters).__name__}")
    try:
        # Executors of the reference look for __results__ and refuse a request without it as malformed, so
        # the reference's client sends it where there are no parameters.
        return struct_of({"__results__": {}} if parameters is None else parameters)
    except TypeError as error:
        raise BadClient(str(error)) from error


def encoded_documents(documents: list[Any]) -> bytes:
    """As a serialised DataContentProto. Raises BadClientInput."""
    from docarray import DocumentArray

    from gatewayd.messages.document_arrays import data_of

    try:
        return data_of(DocumentArray(documents))
    except (TypeError, ValueError, AttributeError) as error:  # docarray's, for fields of a wrong type
        raise BadClientInput(f"the documents cannot be sent: {error}") from error


def batches(inputs: Any, size: int) -> Iterator[list[Any]]:
    """
    Lists of at most ``size`` Documents; all in one where ``size`` is 0 or less.

    None gives one empty list, and so does a collection without documents: the request is for its parameters
    then. An iterator without documents, which may only have run out, gives nothing. Raises BadClientInput
    for anything that no Document can be made of, and what the user's own iterator raises.
    """
    inputs = _called(inputs)
    if inspect.iscoroutine(inputs):
        inputs.close()
    if inspect.isawaitable(inputs) or isinstance(inputs, AsyncIterable):
        raise BadClientInput("asynchronous inputs need an asynchronous client: Client(asyncio=True)")
    if inputs is None:
        yield []
        return
    items = _items(inputs)
    empty = not isinstance(inputs, Iterator)
    while batch := [document(item) for item in (items if size <= 0 else islice(items, size))]:
        empty = False
        yield batch
    if empty:
        yield []


async def async_batches(inputs: Any, size: int) -> AsyncGenerator[list[Any], None]:
    """As ``batches``, for inputs that may be awaitable or iterated asynchronously."""
    inputs = _called(inputs)
    if inspect.isawaitable(inputs):
        inputs = await inputs
    if not isinstance(inputs, AsyncIterable):
        for batch in batches(inputs, size):
            yield batch
        return
    batch = []
    async for item in inputs:
        batch.append(document(item))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def check(inputs: Any) -> None:
    """
    Raises BadClientInput if no document can be made of the first of ``inputs``.

    An iterator is not looked into: what is taken from it would be missing afterwards.
    """
    inputs = _called(inputs)
    if not isinstance(inputs, Iterator | AsyncIterable) and not inspect.isawaitable(inputs):
        next(batches(inputs, 1))


def document(item: Any) -> Any:
    """A Document of ``item``: itself, its fields, or its content. Raises BadClientInput."""
    from docarray import Document

    if isinstance(item, Document):
        return item
    try:
        if isinstance(item, Mapping):
            return Document(_fields(item))
        if isinstance(item, str):
            return Document(text=item)
        if isinstance(item, _BLOBS):
            return Document(blob=bytes(item))
        if _is_array(item) or (isinstance(item, list | tuple) and _is_numbers(item)):
            return Document(tensor=item)
    except (TypeError, ValueError) as error:
        raise BadClientInput(f"no Document can be made of this {type(item).__name__}: {error}") from error
    raise BadClientInput(
        f"no Document can be made of a {type(item).__name__}; "
        "give Documents, dicts, texts, bytes or arrays, one or an iterable of them"
    )


def _fields(item: Mapping[str, Any]) -> dict[str, Any]:
    """
    A document's fields, from a dict as ``Document.to_dict`` and JSON have them.

    Documents and scores in it become docarray's, what is None is left out.
    """
    from docarray.score import NamedScore

    fields = {name: value for name, value in item.items() if value is not None}
    for name in ("chunks", "matches"):
        if isinstance(fields.get(name), list | tuple):
            fields[name] = [document(child) for child in fields[name]]
    for name in ("scores", "evaluations"):
        if isinstance(fields.get(name), Mapping):
            fields[name] = {
                key: NamedScore(**{part: found for part, found in score.items() if found is not None})
                if isinstance(score, Mapping)
                else score
                for key, score in fields[name].items()
            }
    return fields


def _called(inputs: Any) -> Any:
    """What a function returns, and anything else as it is."""
    from docarray import Document

    return inputs() if callable(inputs) and not isinstance(inputs, Document) else inputs


def _items(inputs: Any) -> Iterator[Any]:
    from docarray import Document

    if isinstance(inputs, Document | Mapping | str | bytes | bytearray | memoryview):
        return iter((inputs,))
    if _is_array(inputs) and len(inputs.shape) < 2:
        # The rows of a matrix are documents, but the numbers of a vector are not.
        return iter((inputs,))
    if not isinstance(inputs, Iterable):
        return iter((document(inputs),))
    return iter(inputs)


def _is_array(item: Any) -> bool:
    """numpy's, or any other library's: nothing is imported to find out."""
    return hasattr(item, "shape") and hasattr(item, "dtype")


def _is_numbers(item: Any) -> bool:
    while isinstance(item, list | tuple) and item:
        item = item[0]
    return isinstance(item, int | float)
