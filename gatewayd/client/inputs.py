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
from typing import Any

import attrs

from gatewayd.client.documents import installed
from gatewayd.client.errors import BadClient, BadClientInput
from gatewayd.client.post import Post
from gatewayd.extras import docarray_generation
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request

Encode = Callable[[Request], bytes]


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


def single_message(post: Post, encode: Encode) -> Message:
    """
    The one request of a ``stream_doc``.

    Raises BadClientInput where its inputs are not one document, and as ``messages``.
    """
    make = _message_maker(post, encode)
    first = next(batches(post.inputs, 2), [])
    if len(first) != 1:
        found = "several" if first else "none"
        raise BadClientInput(f"stream_doc takes one document, which is answered with a stream; found {found}")
    return make(first)


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


def encoded_parameters(parameters: Any) -> bytes:
    """As a serialised Struct. Raises BadClient for what has no JSON form."""
    from gatewayd.messages.structs import struct_of

    given = _fields_of(parameters)
    # Executors of the reference look for __results__ and refuse a request without it as malformed, so the
    # reference's clients send it where there are no parameters; those of the second generation also where
    # there are none in a dict.
    if given is None or (not given and docarray_generation() is Generation.SECOND):
        given = {"__results__": {}}
    try:
        return struct_of(given)
    except TypeError as error:
        raise BadClient(str(error)) from error


def _fields_of(parameters: Any) -> Mapping[str, Any] | None:
    """A dict as it is, or the fields of a model of pydantic 1 or 2."""
    if parameters is None or isinstance(parameters, Mapping):
        return parameters
    dump = getattr(parameters, "model_dump", None) or getattr(parameters, "dict", None)
    if callable(dump) and not isinstance(parameters, type):
        fields: Mapping[str, Any] = dump()
        return fields
    raise BadClientInput(
        f"parameters: give a dict or a pydantic model; found a value of type {type(parameters).__name__}"
    )


def encoded_documents(documents: list[Any]) -> bytes:
    """As a serialised DataContentProto. Raises BadClientInput."""
    return installed().encoded(documents)


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
    while batch := [installed().document(item) for item in (items if size <= 0 else islice(items, size))]:
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
        batch.append(installed().document(item))
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


def _called(inputs: Any) -> Any:
    """What a function returns, and anything else as it is."""
    return inputs() if callable(inputs) and not installed().is_document(inputs) else inputs


def _items(inputs: Any) -> Iterator[Any]:
    documents = installed()
    if documents.is_one(inputs):
        return iter((inputs,))
    if not isinstance(inputs, Iterable):
        return iter((documents.document(inputs),))
    return iter(inputs)
