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

from gatewayd.executor.forms import mark_schemas, takes_one, yields
from gatewayd.extras import docarray_generation
from gatewayd.messages.discovery import DEFAULT
from gatewayd.messages.generations import Generation

_ENDPOINTS: Final = "__gatewayd_endpoints__"
_BATCHING: Final = "__gatewayd_batching__"
_NEEDED: Final = frozenset({"docs", "parameters", "docs_matrix"})
_NEEDED_FOR_ONE: Final = frozenset({"doc", "parameters"})
_SETTINGS: Final = ("preferred_batch_size", "timeout", "flush_all", "custom_metric", "use_custom_metric")

Function = TypeVar("Function", bound=Callable[..., Any])


@attrs.frozen
class Batching:
    """
    How the requests of one endpoint are batched.

    A batch is processed once it has ``preferred_batch_size`` documents, or ``timeout_s`` after its first
    request. With ``flush_all`` the method gets all of its documents, else at most that many in each call.

    ``metric`` gives what one document counts for, where that is not 1. A document that counts for more than
    ``preferred_batch_size`` is in a call of its own.
    """

    preferred_batch_size: int = attrs.field(validator=attrs.validators.ge(1))
    timeout_s: float = attrs.field(default=10.0, validator=attrs.validators.ge(0))
    flush_all: bool = True
    metric: Callable[[Any], float] | None = None

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], where: str, marked: Mapping[str, Any] | None = None
    ) -> Batching:
        """
        From ``{"preferred_batch_size": 4, "timeout": 100}``; the timeout is in milliseconds.

        ``flush_all`` is in the first generation of documents True where it is not set, in the second False,
        as in the releases of the reference that speak them. ``marked`` are the decorator's settings: its
        metric is no matter of configuration, which may only say whether it is used. Raises ValueError.
        """
        settings = {
            **{key: value for key, value in (marked or {}).items() if key.endswith("custom_metric")},
            **settings,
        }
        unknown = set(settings) - set(_SETTINGS)
        if unknown:
            raise ValueError(
                f"dynamic_batching of {where}: unknown {', '.join(sorted(unknown))}; "
                "accepted are preferred_batch_size, timeout (ms), flush_all and use_custom_metric"
            )
        size, timeout = settings.get("preferred_batch_size"), settings.get("timeout", 10_000)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(
                f"dynamic_batching of {where}: preferred_batch_size must be 1 or more, not {size!r}"
            )
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or timeout < 0:
            raise ValueError(f"dynamic_batching of {where}: timeout must be 0 ms or more, not {timeout!r}")
        flush_all = settings.get("flush_all")
        if flush_all is None:
            flush_all = docarray_generation() is not Generation.SECOND
        if not isinstance(flush_all, bool):
            raise ValueError(
                f"dynamic_batching of {where}: flush_all must be true or false, not {flush_all!r}"
            )
        return cls(size, timeout / 1000, flush_all, _metric(settings, where))


def _metric(settings: Mapping[str, Any], where: str) -> Callable[[Any], float] | None:
    """The function that measures documents, if it is to be used. Raises ValueError."""
    metric, is_used = settings.get("custom_metric"), settings.get("use_custom_metric", False)
    if not isinstance(is_used, bool):
        raise ValueError(
            f"dynamic_batching of {where}: use_custom_metric must be true or false, not {is_used!r}"
        )
    if not is_used:
        return None
    if not callable(metric):
        raise ValueError(
            f"dynamic_batching of {where}: use_custom_metric needs a custom_metric in the method's "
            f"@dynamic_batching, a function of one document that returns a number, not {metric!r}"
        )
    found: Callable[[Any], float] = metric
    return found


@overload
def requests(func: Function) -> Function: ...
@overload
def requests(
    *,
    on: str | Iterable[str] | None = None,
    request_schema: Any = None,
    response_schema: Any = None,
) -> Callable[[Function], Function]: ...
def requests(
    func: Function | None = None,
    *,
    on: str | Iterable[str] | None = None,
    request_schema: Any = None,
    response_schema: Any = None,
) -> Function | Callable[[Function], Function]:
    """
    Bind a method to one endpoint, to several, or (without ``on``) to all that no other method binds.

    The method must accept ``**kwargs``, or ``docs``, ``parameters`` and ``docs_matrix``; this is checked when
    the class is created. One that takes ``doc`` in place of ``docs`` gets one document at a time, and may
    answer it with a stream, if it yields (``gatewayd.executor.forms``). The schemas are the types of
    documents that it takes and returns, in place of its annotations; with docarray 0.21 they are
    documentation only.
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
        if request_schema is not None or response_schema is not None:
            mark_schemas(function, request_schema, response_schema)
        return function

    return mark if func is None else mark(func)


def dynamic_batching(
    *,
    preferred_batch_size: int | None = None,
    timeout: float = 10_000,
    flush_all: bool | None = None,
    use_dynamic_batching: bool = True,
    custom_metric: Callable[..., Any] | None = None,
    use_custom_metric: bool = False,
) -> Callable[[Function], Function]:
    """
    Batch this method's requests; see ``Batching``. ``timeout`` is in milliseconds.

    The size may be omitted only if the executor's configuration sets it. Without ``flush_all`` the method
    gets at most that many documents at once with docarray 0.40 and later, and all that wait with 0.21.

    ``use_dynamic_batching=False`` leaves the method as it is. With ``use_custom_metric`` the size is not a
    number of documents, but the sum of what ``custom_metric(document)`` returns for each, such as the
    length of its text.
    """
    if not use_dynamic_batching:
        return lambda function: function
    settings = {
        "preferred_batch_size": preferred_batch_size,
        "timeout": timeout,
        "flush_all": flush_all,
        "custom_metric": custom_metric,
        "use_custom_metric": use_custom_metric,
    }

    def mark(function: Function) -> Function:
        setattr(function, _BATCHING, settings)
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
    if takes_one(function):
        if keywords is not None and not keywords >= _NEEDED_FOR_ONE:
            raise TypeError(
                f"{cls.__name__}.{name} is bound by @requests, so it must accept **kwargs, "
                f"or doc and parameters; it accepts ({', '.join(sorted(keywords))})"
            )
        return
    if keywords is not None and not keywords >= _NEEDED:
        raise TypeError(
            f"{cls.__name__}.{name} is bound by @requests, so it must accept **kwargs, "
            f"or all of docs, parameters and docs_matrix; it accepts ({', '.join(sorted(keywords))})"
        )
    if docarray_generation() is Generation.SECOND and yields(function):
        raise TypeError(
            f"{cls.__name__}.{name} yields, so it answers one document with a stream: it must take doc, a "
            "document, in place of docs"
        )
