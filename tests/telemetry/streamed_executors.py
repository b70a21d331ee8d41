"""An executor whose streams end in each of the ways in which streams end, and one that comes behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from docarray import Document, DocumentArray

from gatewayd import Executor, requests


class Streams(Executor):
    """``/fine`` gives three documents, ``/breaks`` one and then raises; the others one, and then wait."""

    @requests(on="/fine")
    async def fine(self, doc: Document, **_: Any) -> AsyncIterator[Document]:
        for word in ("one", "two", "three"):
            yield Document(text=word)

    @requests(on="/breaks")
    def breaks(self, doc: Document, **_: Any) -> Iterator[Document]:
        yield Document(text="one")
        raise RuntimeError("no more")

    @requests(on=["/left", "/late"])
    async def wait(self, doc: Document, **_: Any) -> AsyncIterator[Document]:
        yield Document(text="one")
        await asyncio.sleep(60)

    @requests(on="/many")
    async def many(self, doc: Document, **_: Any) -> AsyncIterator[Document]:
        for number in range(300):
            yield Document(text=str(number))


class Behind(Executor):
    """What takes each document of a stream as a request of its own."""

    @requests(on=["/fine", "/breaks", "/left", "/late", "/many"])
    def pass_on(self, docs: DocumentArray, **_: Any) -> None:
        pass
