"""
What a Client makes of inputs and of answers: documents of the docarray that is installed.

Each generation has a module of its own, ``first`` and ``second``; nothing else of a Client knows them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Protocol

from gatewayd.extras import docarray_generation, require_client_docarray
from gatewayd.messages.generations import Generation


class Documents(Protocol):
    """
    Documents as users have them. An array is a DocumentArray, or a DocList.

    ``return_type`` is that of a post: without effect in the first generation; in the second ``DocList[X]``,
    X, or None.
    """

    def is_document(self, value: object) -> bool: ...

    def is_one(self, inputs: object) -> bool:
        """Whether ``inputs`` are one document, or what one is made of, and not an iterable of them."""

    def document(self, item: Any) -> Any:
        """A document of ``item``. Raises BadClientInput."""

    def encoded(self, documents: list[Any]) -> bytes:
        """As a DataContentProto. Raises BadClientInput."""

    def encoded_one(self, document: Any) -> bytes:
        """As a DocumentProto or DocProto. Raises BadClientInput."""

    def decoded(self, data: bytes, return_type: Any) -> Any:
        """The array of a DataContentProto; no bytes are an empty one. Raises BadServerFlow."""

    def check_return_type(self, return_type: Any) -> None:
        """Raises TypeError for what is none."""

    def joined(self, arrays: Iterable[Any], return_type: Any) -> Any:
        """What a post returns: one array of all documents, or a single document where that was asked for."""

    def shown(self, array: Any, return_type: Any) -> Any:
        """What an asynchronous post yields for one answer."""

    def probe(self) -> Any:
        """The inputs of a request that any executor answers."""


@functools.cache
def installed() -> Documents:
    """Those of the docarray that is installed. Raises ImportError if there is none."""
    require_client_docarray("documents in Python need")
    if docarray_generation() is Generation.SECOND:
        from gatewayd.client.second import SecondDocuments

        return SecondDocuments()
    from gatewayd.client.first import FirstDocuments

    return FirstDocuments()
