"""The executors of the fault suite: they keep a book of what they were asked."""

from __future__ import annotations

import asyncio
import os
import time

from docarray import Document

from gatewayd import Executor, requests


class Counted(Executor):
    """Writes the id of every document into the file that the variable BOOK names, then answers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._book = os.open(os.environ["BOOK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @requests(on="/count")
    async def count(self, docs, **kwargs):
        os.write(self._book, b"".join(f"{os.getpid()} {doc.id}\n".encode() for doc in docs))

    @requests(on="/linger")
    async def linger(self, docs, **kwargs):
        """As count, but long enough under way to be caught there by whatever happens."""
        await self.count(docs)
        await asyncio.sleep(0.02)

    @requests(on="/slow")
    def slow(self, docs, **kwargs):
        """One at a time, 25 milliseconds each: a capacity of 40 requests a second."""
        time.sleep(0.025)

    @requests(on="/device")
    async def device(self, docs, **kwargs):
        """Long enough under way to be counted, and says which GPU it sees."""
        await self.linger(docs)
        for doc in docs:
            doc.text = os.environ.get("CUDA_VISIBLE_DEVICES", "")

    @requests(on="/die")
    async def die(self, docs, **kwargs):
        """Ends its process, as a bug in native code would."""
        await self.count(docs)
        os._exit(1)

    @requests(on="/tokens")
    async def tokens(self, doc: Document, parameters, **kwargs):
        """A stream of as many documents as are asked for, at most one each ``pause`` seconds."""
        for number in range(int(parameters["count"])):
            yield Document(id=str(number), text=f"token {number} of {doc.text}")
            await asyncio.sleep(parameters.get("pause", 0.0))
