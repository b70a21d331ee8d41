"""
How methods take documents: all of a request's, one at a time, or one that they answer with a stream.

    def f(self, docs: DocList[A], **kwargs) -> DocList[B]      all documents of the request
    def f(self, doc: A, **kwargs) -> B                         one after the other
    async def f(self, doc: A, **kwargs) -> B: yield ...        one, answered with any number; or ``def``

The names of the parameters decide, and whether the method yields. The types count in the second generation
only (spec 34/executor.md). Annotations that are texts (``from __future__ import annotations``) are read like
others.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Final

import attrs

_SCHEMAS: Final = "__gatewayd_schemas__"
_ITERATORS: Final = frozenset(
    {
        collections.abc.Generator,
        collections.abc.AsyncGenerator,
        collections.abc.Iterator,
        collections.abc.AsyncIterator,
        collections.abc.Iterable,
        collections.abc.AsyncIterable,
    }
)

Function = Callable[..., Any]


@attrs.frozen
class Form:
    """
    How one method takes documents.

    With ``single`` it gets one at a time, and with ``streams`` it answers that one with a stream. In the
    second generation ``input`` and ``output`` are the classes of documents, and ``parameters`` is a pydantic
    model or None; in the first they are None.
    """

    single: bool = False
    streams: bool = False
    input: Any = None
    output: Any = None
    parameters: Any = None


@attrs.frozen
class Annotations:
    """Those of what a method takes and returns; ``inspect.Parameter.empty`` where there are none."""

    documents: Any
    parameters: Any
    returned: Any


def mark_schemas(function: Function, request: Any, response: Any) -> None:
    """Keep ``request_schema`` and ``response_schema`` of a decorator; None keeps those of an earlier one."""
    former = getattr(function, _SCHEMAS, (None, None))
    setattr(function, _SCHEMAS, (request or former[0], response or former[1]))


def takes_one(function: Function) -> bool:
    """Whether a method names ``doc``, and not ``docs``."""
    parameters = inspect.signature(function).parameters
    return "doc" in parameters and "docs" not in parameters


def yields(function: Function) -> bool:
    """Whether a method is a generator, behind its decorators."""
    inner = inspect.unwrap(function)
    return any(
        inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in (function, inner)
    )


def is_iterator(annotation: Any) -> bool:
    """Whether it is ``AsyncGenerator[B, None]`` or its like."""
    return typing.get_origin(annotation) in _ITERATORS


def yielded(annotation: Any) -> Any:
    """``B`` of ``AsyncGenerator[B, None]`` and its like; what is none of them as it is."""
    if is_iterator(annotation):
        return typing.get_args(annotation)[0]
    return annotation


def without_none(annotation: Any) -> Any:
    """``A`` of ``Optional[A]``; what is none as it is."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kept = [each for each in typing.get_args(annotation) if each is not type(None)]
        if len(kept) == 1:
            return kept[0]
    return annotation


def annotations_of(function: Function, owner: type, where: str, documents: str) -> Annotations:
    """
    Those of a method of ``owner``, which ``where`` names in errors, and whose documents are ``documents``.

    Raises TypeError for one that cannot be read.
    """
    signature = inspect.signature(function)
    schemas = getattr(function, _SCHEMAS, (None, None))
    parameters = signature.parameters

    def of(name: str) -> Any:
        found = parameters[name].annotation if name in parameters else inspect.Parameter.empty
        return _evaluated(found, function, owner, f"{where}: the type of {name}")

    returned = _evaluated(signature.return_annotation, function, owner, f"{where}: the type that it returns")
    return Annotations(schemas[0] or of(documents), of("parameters"), schemas[1] or returned)


def _evaluated(annotation: Any, function: Function, owner: type, what: str) -> Any:
    if not isinstance(annotation, str):
        return annotation
    inner: Any = inspect.unwrap(function)
    # Classes of a function's body are reached where the method or its class uses them.
    names = dict(vars(owner))
    for name, cell in zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # it is assigned later
            continue
    try:
        return eval(annotation, inner.__globals__, names)
    except Exception as error:
        raise TypeError(
            f"{what}, {annotation!r}, cannot be read: {error}. Import it outside of TYPE_CHECKING, and "
            "define it in the module, or give request_schema= and response_schema= of @requests"
        ) from error
