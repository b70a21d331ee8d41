"""The executor behind the gateways that are attacked."""

from __future__ import annotations

from typing import Any

from docarray import Document, DocumentArray

from gatewayd import Executor, requests


class Target(Executor):
    """
    Passes documents on. ``/large`` answers every request with three megabytes, ``/values`` with a tag of some
    hundred thousand small values (4 MB of JSON), ``/results`` with parameters of as many, ``/documents`` with
    as many documents (27 MB of JSON).
    """

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
