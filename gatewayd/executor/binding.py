"""
Which method answers which endpoint: the decorators, and the table made from them for each class.

A decorator only marks the function, and ``bindings`` reads the marks when the class is created. That is why
decorators can be stacked in any order, and a method stays an ordinary method.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, overload

import attrs

from gatewayd.messages.discovery import DEFAULT

_ENDPOINTS: Final = "__gatewayd_endpoints__"
_BATCHING: Final = "__gatewayd_batching__"
_NEEDED: Final = frozenset({"docs", "parameters", "docs_matrix"})

Function = TypeVar("Function", bound=Callable[..., Any])


@attrs.frozen
class Batching:
    """
    How the requests of one endpoint are batched.

    A batch is processed once it has ``preferred_batch_size`` documents, or ``timeout_s`` after its first
    request.
    """

    preferred_batch_size: int = attrs.field(validator=attrs.validators.ge(1))
    timeout_s: float = attrs.field(default=10.0, validator=attrs.validators.ge(0))

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], where: str) -> Batching:
        """
        From ``{"preferred_batch_size": 4, "timeout": 100}``; the timeout is in milliseconds.

        Raises ValueError.
        """
        unknown = set(settings) - {"preferred_batch_size", "timeout"}
        if unknown:
            raise ValueError(
                f"dynamic_batching of {where}: unknown {', '.join(sorted(unknown))}; "
                "accepted are preferred_batch_size and timeout (ms)"
            )
        size, timeout = settings.get("preferred_batch_size"), settings.get("timeout", 10_000)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(
                f"dynamic_batching of {where}: preferred_batch_size must be 1 or more, not {size!r}"
            )
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or timeout < 0:
            raise ValueError(f"dynamic_batching of {where}: timeout must be 0 ms or more, not {timeout!r}")
        return cls(size, timeout / 1000)


@overload
def requests(func: Function) -> Function: ...
@overload
def requests(
    *,
    on: str | Iterable[str] | None = None,
    request_schema: type | None = None,
    response_schema: type | None = None,
) -> Callable[[Function], Function]: ...
def requests(
    func: Function | None = None,
    *,
    on: str | Iterable[str] | None = None,
    request_schema: type | None = None,
    response_schema: type | None = None,
) -> Function | Callable[[Function], Function]:
    """
    Bind a method to one endpoint, to several, or (without ``on``) to all that no other method binds.

    The method must accept ``**kwargs``, or ``docs``, ``parameters`` and ``docs_matrix``; this is checked when
    the class is created. The schemas are documentation only: documents are always docarray's
    ``DocumentArray``.
    """
    endpoints: tuple[str, ...]
    if on is None:
        endpoints = (DEFAULT,)
    elif isinstance(on, str):
        endpoints = (on,)
    else:
        endpoints = tuple(on)
        if not all(isinstance(endpoint, str) for endpoint in endpoints):
            raise TypeError(f"@requests(on=...) takes a text or a list of texts, not {on!r}")

    def mark(function: Function) -> Function:
        if not callable(function):
            raise TypeError(f"@requests decorates a method, not {function!r}")
        # In front, because the decorator written first is applied last.
        setattr(function, _ENDPOINTS, endpoints + getattr(function, _ENDPOINTS, ()))
        return function

    return mark if func is None else mark(func)


def dynamic_batching(
    *, preferred_batch_size: int | None = None, timeout: float = 10_000
) -> Callable[[Function], Function]:
    """
    Batch this method's requests; see ``Batching``. ``timeout`` is in milliseconds.

    The size may be omitted only if the executor's configuration sets it.
    """

    def mark(function: Function) -> Function:
        setattr(function, _BATCHING, {"preferred_batch_size": preferred_batch_size, "timeout": timeout})
        return function

    return mark


def monitor(*, name: str | None = None, documentation: str | None = None) -> Callable[[Function], Function]:
    """Time each call of a method under ``name`` (default ``<method>_seconds``); see ``Executor.monitor``."""

    def wrap(function: Function) -> Function:
        label = name or f"{function.__name__}_seconds"
        about = documentation or f"Time spent in {function.__name__}"
        wrapped: Any
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def timed_coroutine(self: Any, *args: Any, **kwargs: Any) -> Any:
                with self.monitor(label, about):
                    return await function(self, *args, **kwargs)

            wrapped = timed_coroutine
        elif inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def timed_async_generator(self: Any, *args: Any, **kwargs: Any) -> Any:
                with self.monitor(label, about):
                    async for one in function(self, *args, **kwargs):
                        yield one

            wrapped = timed_async_generator
        elif inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def timed_generator(self: Any, *args: Any, **kwargs: Any) -> Any:
                with self.monitor(label, about):
                    yield from function(self, *args, **kwargs)

            wrapped = timed_generator
        else:

            @functools.wraps(function)
            def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
                with self.monitor(label, about):
                    return function(self, *args, **kwargs)

            wrapped = timed
        return wrapped  # type: ignore[no-any-return]

    return wrap


def bindings(cls: type) -> dict[str, Callable[..., Any]]:
    """
    The functions that ``cls`` itself binds, by endpoint, in the order of definition.

    Raises TypeError for a method that cannot be called the way a request calls it.
    """
    bound: dict[str, Callable[..., Any]] = {}
    for name, attribute in vars(cls).items():
        function = attribute.__func__ if isinstance(attribute, staticmethod | classmethod) else attribute
        endpoints = getattr(function, _ENDPOINTS, ()) if callable(function) else ()
        if not endpoints:
            continue
        if isinstance(attribute, staticmethod | classmethod):
            raise TypeError(f"{cls.__name__}.{name}: @requests needs a method that takes self")
        _check_signature(cls, name, function)
        for endpoint in endpoints:
            bound[endpoint] = function
    return bound


def is_marked(attribute: object) -> bool:
    """Whether it is a method with ``@requests``."""
    return callable(attribute) and hasattr(attribute, _ENDPOINTS)


def accepted(function: Callable[..., Any]) -> frozenset[str] | None:
    """The keywords that ``function`` takes, None for any."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return frozenset(parameters)


def named(function: Callable[..., Any]) -> frozenset[str]:
    """The keywords that ``function`` names, without those that its ``**kwargs`` would take."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(each.name for each in parameters if each.kind is not each.VAR_KEYWORD)


def batching_mark(function: Callable[..., Any]) -> Mapping[str, Any] | None:
    """The settings of ``@dynamic_batching`` on ``function``, unchecked; None without it."""
    settings: Mapping[str, Any] | None = getattr(function, _BATCHING, None)
    return settings


def _check_signature(cls: type, name: str, function: Callable[..., Any]) -> None:
    keywords = accepted(function)
    if keywords is not None and not keywords >= _NEEDED:
        raise TypeError(
            f"{cls.__name__}.{name} is bound by @requests, so it must accept **kwargs, "
            f"or all of docs, parameters and docs_matrix; it accepts ({', '.join(sorted(keywords))})"
        )
