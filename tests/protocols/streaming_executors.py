"""Executors whose streams fail, or have no end; what clients must not see are the words with ``canary``."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

from docarray import Document

from gatewayd import Executor, requests


class Streams(Executor):
    """
    ``/fine`` gives two documents, ``/breaks`` one and then raises, ``/fails`` none; ``/endless`` goes on.
    """

    @requests(on="/fine")
    async def fine(self, doc: Document, **_: Any) -> AsyncIterator[Document]:
        yield Document(text="one")
        yield Document(text="two")

    @requests(on="/breaks")
    def breaks(self, doc: Document, **_: Any) -> Iterator[Document]:
        yield Document(text="one")
        raise RuntimeError("canary-argument", "/srv/canary/path.py", "10.1.2.3:4567")

    @requests(on="/fails")
    async def fails(self, doc: Document, **_: Any) -> AsyncIterator[Document]:
        raise RuntimeError("canary-argument", "/srv/canary/path.py", "10.1.2.3:4567")
        yield doc

    @requests(on="/endless")
    def endless(self, doc: Document, **_: Any) -> Iterator[Document]:
        for number in itertools.count():
            yield Document(id=str(number), text="x" * 100_000)
