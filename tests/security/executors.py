"""The executor behind the gateways that are attacked."""

from __future__ import annotations

from typing import Any

from docarray import Document, DocumentArray

from gatewayd import Executor, requests


class Target(Executor):
    """Passes documents on; on ``/large`` every request is answered with three megabytes."""

    @requests
    def echo(self, **_: Any) -> None:
        pass

    @requests(on="/large")
    def large(self, **_: Any) -> DocumentArray:
        return DocumentArray([Document(text="x" * 3_000_000)])
