"""The executor behind the gateways that are attacked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from docarray import Document, DocumentArray

from gatewayd import Executor, requests


class Target(Executor):
    """
    Passes documents on. ``/large`` answers every request with three megabytes, ``/values`` with a tag of some
    hundred thousand small values (4 MB of JSON), ``/results`` with parameters of as many, ``/documents`` with
    as many documents (27 MB of JSON). ``/endless`` streams documents of 100 kB without end, ``/flood`` those
    of a few bytes; ``/open`` tells how many of these streams its generators have not ended.
    """

    streams = 0

    @requests
    def echo(self, **_: Any) -> None:
        pass

    @requests(on="/values")
    def values(self, **_: Any) -> DocumentArray:
        return DocumentArray([Document(tags={"values": [{"v": 1}] * 200_000, "more": [1] * 500_000})])

    @requests(on="/documents")
    def documents(self, **_: Any) -> DocumentArray:
        return DocumentArray([Document(id="d", chunks=[Document(id="c") for _ in range(100_000)])])

    @requests(on="/results")
    def results(self, **_: Any) -> dict[str, Any]:
        return {"values": [{"v": 1}] * 100_000, "more": {str(n): n for n in range(200_000)}}

    @requests(on="/large")
    def large(self, **_: Any) -> DocumentArray:
        return DocumentArray([Document(text="x" * 3_000_000)])

    @requests(on="/endless")
    def endless(self, doc: Document, **_: Any) -> Iterator[Document]:
        yield from self._without_end("x" * 100_000)

    @requests(on="/flood")
    def flood(self, doc: Document, **_: Any) -> Iterator[Document]:
        yield from self._without_end("x")

    @requests(on="/open")
    def open_streams(self, **_: Any) -> dict[str, Any]:
        return {"streams": self.streams}

    def _without_end(self, text: str) -> Iterator[Document]:
        self.streams += 1
        try:
            for number in itertools.count():
                yield Document(id=str(number), text=text)
        finally:
            self.streams -= 1
