"""
The documents that methods get: those of the docarray that is installed, which decides the generation of the
process.

Each generation has a module of its own: ``first`` and ``second``. Neither knows requests; ``handling.py`` and
``generators.py`` know neither.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from gatewayd.executor.forms import Form, annotations_of, is_iterator, takes_one, yields
from gatewayd.extras import docarray_generation, require_executor_docarray
from gatewayd.messages.generations import Generation


class Documents(Protocol):
    """
    What methods are given and give. An array is a DocumentArray or a DocList; a document is one of its items.

    ``array`` and ``document`` are what errors call the types. ``has_array_types`` says whether ``write``
    converts the arrays in documents.
    """

    array: str
    document: str
    has_array_types: bool

    def read(self, data: bytes, form: Form) -> Any:
        """
        The array in a DataContentProto; no bytes are an empty one.

        Raises Malformed, a BadRequest for documents of the other generation, and the library's own errors for
        those that are not of the form's class.
        """

    def read_one(self, data: bytes, form: Form) -> Any:
        """The document in a SingleDocumentRequestProto's field. Raises as ``read``."""

    def write(self, array: Any, array_type: Any) -> bytes:
        """The DataContentProto of an array. Raises the library's errors for what cannot be written."""

    def write_one(self, document: Any) -> bytes:
        """The document for a SingleDocumentRequestProto. Raises the library's errors."""

    def array_of(self, documents: Iterable[Any], form: Form) -> Any:
        """An array of the form's input."""

    def answers_of(self, documents: Iterable[Any]) -> Any:
        """An array of documents of any class."""

    def is_array(self, value: object) -> bool: ...

    def is_document(self, value: object) -> bool: ...

    def misfit(self, value: object, form: Form) -> str | None:
        """Why ``value`` is not what a generator of this form yields; None for one that is."""

    def parameters(self, form: Form, parameters: Mapping[str, Any]) -> Any:
        """What the method gets as its parameters. Raises the library's errors for those that do not fit."""

    def schemas(self, forms: Mapping[str, Form]) -> dict[str, Any] | None:
        """What is told of each endpoint's types (spec 34/wire.md), None where they are untyped."""


def form_of(function: Callable[..., Any], owner: type) -> Form:
    """
    The form of a method of the class ``owner``.

    Raises TypeError, in the second generation, for annotations that are no types of documents, or that cannot
    be read.
    """
    single = takes_one(function)
    if docarray_generation() is not Generation.SECOND:
        return Form(single, single and yields(function))
    from gatewayd.executor.second import typed

    where = f"{owner.__name__}.{function.__name__}"
    annotations = annotations_of(function, owner, where, "doc" if single else "docs")
    streams = single and (yields(function) or is_iterator(annotations.returned))
    return typed(Form(single, streams), annotations, where)


@functools.cache
def installed() -> Documents:
    """Those of the docarray that is installed. Raises ImportError if there is none."""
    require_executor_docarray("documents in Python need")
    if docarray_generation() is Generation.SECOND:
        from gatewayd.executor.second import SecondDocuments

        return SecondDocuments()
    from gatewayd.executor.first import FirstDocuments

    return FirstDocuments()
