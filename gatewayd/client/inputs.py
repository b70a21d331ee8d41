"""
What the user passes as ``inputs``, cut into batches of documents.

Everything is an iterator over iterators: an input is asked for its next document when there is room
to send it, never before, so an endless generator needs the memory of one batch.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from gatewayd.client.errors import BadClientInput

_BLOBS: Final = (bytes, bytearray, memoryview)


def batches(inputs: Any, size: int) -> Iterator[list[Any]]:
    """
    Lists of at most ``size`` Documents; all in one where ``size`` is 0 or less.

    None gives one empty list, and no documents at all give nothing. Raises BadClientInput for what
    no Document can be made of, and whatever the user's own iterator raises.
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
    while batch := [document(item) for item in (items if size <= 0 else islice(items, size))]:
        yield batch


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


def document(item: Any) -> Any:
    """A Document of ``item``: itself, its fields, or its content. Raises BadClientInput."""
    from docarray import Document

    if isinstance(item, Document):
        return item
    try:
        if isinstance(item, Mapping):
            return Document(dict(item))
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
