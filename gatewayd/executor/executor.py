"""
The Executor base class, and the checks made when a user's class is created.

    class Indexer(Executor):
        def __init__(self, limit: int = 10, **kwargs):
            super().__init__(**kwargs)
            self.limit = limit

        @requests(on="/search")
        def search(self, docs, parameters, **kwargs): ...

``uses_with`` are keyword arguments of ``__init__``; the others (metas, runtime_args, ...) reach the base
class through ``**kwargs``. The rules are the reference's (spec executor.md).
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from gatewayd.callers import caller_folder
from gatewayd.executor.binding import (
    Batching,
    accepted,
    batching_mark,
    bindings,
    is_marked,
)
from gatewayd.executor.documents import form_of
from gatewayd.executor.forms import Form
from gatewayd.executor.logger import JinaLogger
from gatewayd.messages.discovery import DEFAULT, DRY_RUN

if TYPE_CHECKING:
    from gatewayd.executor.configured import Content

log = logging.getLogger(__name__)

Handler = Callable[..., Any]
E = TypeVar("E", bound="Executor")


def nothing(self: Executor, **kwargs: Any) -> None:
    """The handler of ``_jina_dry_run_``, and of every endpoint if a Deployment names no class."""


class Executor:
    """
    Base class of all executors. Used by itself, it returns every request unchanged.

    ``requests`` maps an endpoint to the function that answers it; ``metas`` has name, description,
    workspace and py_modules; ``runtime_args`` has name (``<deployment>/rep-0``), workspace, shard_id,
    shards and replicas, and ``metrics_registry``, Prometheus's registry where there is ``monitoring``, else
    None. It is empty outside a Flow. With ``tracing``, ``tracer`` and ``tracer_provider`` are
    OpenTelemetry's, and methods get the ``tracing_context`` that their own spans are below; without it these
    are None. ``meter`` is None.
    """

    _bound: ClassVar[Mapping[str, Handler]] = {DEFAULT: nothing}
    tracer: Any = None
    tracer_provider: Any = None
    meter: Any = None
    _given: dict[str, Any]
    _init_arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_init(cls)
        inherited: dict[str, Handler] = {}
        for base in reversed(cls.__mro__[1:]):
            # Executor's own pass-through is not inherited: a class answers only the endpoints that it binds.
            if issubclass(base, Executor) and base is not Executor:
                inherited.update(base.__dict__["_bound"])
        cls._bound = {**inherited, **bindings(cls)}

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        executor = super().__new__(cls)
        executor._given = {}
        executor._init_arguments = args, kwargs
        # An __init__ need not come to ours: that of a dataclass, or one without super().__init__().
        executor.configure()
        return executor

    def __init__(
        self,
        metas: Mapping[str, Any] | None = None,
        requests: Mapping[str, str] | None = None,
        runtime_args: Mapping[str, Any] | None = None,
        workspace: str | None = None,
        dynamic_batching: Mapping[str, Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        ``requests`` maps an endpoint to a method's name, and replaces that method's own endpoints.
        ``dynamic_batching`` maps an endpoint or a method's name to settings. None keeps what is set.

        Raises TypeError or ValueError if these name something that does not exist.
        """
        self.configure(
            metas=metas,
            requests=requests,
            runtime_args=runtime_args,
            workspace=workspace,
            dynamic_batching=dynamic_batching,
        )

    def configure(self, **given: Any) -> None:
        """
        Take the keywords of ``__init__``; None keeps what an earlier call set.

        The runtime calls this before ``__init__``, so that a subclass's ``__init__`` need not pass them on.
        """
        self._given |= {key: value for key, value in given.items() if value is not None}
        metas = {key: value for key, value in self._given.get("metas", {}).items() if value is not None}
        self.metas = SimpleNamespace(
            **{
                "name": type(self).__name__,
                "description": None,
                "workspace": None,
                "py_modules": None,
                **metas,
            }
        )
        self.runtime_args = SimpleNamespace(**self._given.get("runtime_args", {}))
        self.tracer_provider = getattr(self.runtime_args, "tracer_provider", None)
        if self.tracer_provider is not None:
            self.tracer = self.tracer_provider.get_tracer(
                getattr(self.runtime_args, "name", type(self).__name__)
            )
        self.logger = JinaLogger(self.metas.name)
        self.requests: dict[str, Handler] = self._rebound(self._given.get("requests", {}))
        self.forms: dict[str, Form] = {
            endpoint: form_of(function, type(self)) for endpoint, function in self.requests.items()
        }
        self.batching: dict[str, Batching] = self._batching(self._given.get("dynamic_batching", {}))

    @property
    def workspace(self) -> str:
        """
        This executor's own folder, absolute: ``<base>/<metas.name>/<shard_id>``.

        Created on first use, for its user alone, as are those of its parents that do not exist yet.

        The base is the first that is set of the runtime's workspace, the metas', the argument of
        ``__init__``, and a folder in the user's cache.
        """
        base = (
            getattr(self.runtime_args, "workspace", None)
            or self.metas.workspace
            or self._given.get("workspace")
            or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gatewayd"
        )
        folder = Path(base).expanduser().absolute() / self.metas.name
        shard = getattr(self.runtime_args, "shard_id", None)
        if shard is not None and shard >= 0:
            folder /= str(shard)
        _make_private(folder)
        return str(folder)

    def monitor(
        self, name: str | None = None, documentation: str | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """
        ``with self.monitor("x_seconds", "what is timed"):`` times a block, as the summary ``jina_x_seconds``.

        It does nothing where the executor has no ``monitoring``.
        """
        registry = getattr(self.runtime_args, "metrics_registry", None)
        if registry is None:
            return contextlib.nullcontext()
        from gatewayd.executor.metrics import timer

        return timer(registry, self.runtime_args.name, name or "block_seconds", documentation)

    def close(self) -> Any:
        """Called once after the last request, before the process ends. May be a coroutine function."""

    @classmethod
    def load_config(
        cls,
        source: Content,
        *,
        allow_py_modules: bool = True,
        substitute: bool = True,
        context: Mapping[str, Any] | None = None,
        uses_with: Mapping[str, Any] | None = None,
        uses_metas: Mapping[str, Any] | None = None,
        uses_requests: Mapping[str, str] | None = None,
        extra_search_paths: Iterable[str | Path] | None = None,
        py_modules: str | Iterable[str] | None = None,
        runtime_args: Mapping[str, Any] | None = None,
        uses_dynamic_batching: Mapping[str, Mapping[str, Any]] | None = None,
        **ignored: Any,
    ) -> Any:
        """
        The executor of a file, an open stream, YAML text or a map: the configuration that ``uses`` may name.

        It is created in this process. The class is that of its ``jtype``, or this one if it has none. Files
        are looked for in ``extra_search_paths``, the current folder and that of the calling code. ``context``
        gives ``${{ CONTEXT.x }}``, the environment ``${{ ENV.X }}``, unless ``substitute`` is False. The
        keywords with ``uses_`` override the configuration, as in ``Flow.add``; ``py_modules`` are imported
        besides its own, which ``allow_py_modules=False`` leaves out. Other keywords are ignored.

        Raises FileNotFoundError, ConfigError with every problem of the configuration, LoadError for a class
        that is not found, and what ``__init__`` raises.
        """
        from gatewayd.executor.configured import Loading, class_of, read_config

        if ignored:
            log.warning("%s.load_config ignores %s", cls.__name__, ", ".join(ignored))
        caller = caller_folder()
        folders = [*map(Path, extra_search_paths or ()), Path.cwd(), *([] if caller is None else [caller])]
        overrides = {
            "uses_with": uses_with,
            "uses_metas": uses_metas,
            "uses_requests": uses_requests,
            "uses_dynamic_batching": uses_dynamic_batching,
            "py_modules": [py_modules] if isinstance(py_modules, str) else py_modules,
        }
        loading = Loading(tuple(folders), context or {}, substitute, allow_py_modules, overrides)
        config = read_config(source, loading)
        found = class_of(config, Executor, loading.folders, cls)
        given = {
            "metas": config.uses_metas,
            "requests": config.uses_requests,
            "runtime_args": runtime_args,
            "dynamic_batching": config.uses_dynamic_batching,
        }
        return created(found, config.uses_with, given)

    def save_config(self, filename: str | Path) -> None:
        """
        Write a configuration for ``load_config`` and for ``uses``: the class, its arguments, and its metas.

        Raises TypeError for an argument that YAML does not have.
        """
        from gatewayd.executor.configured import arguments, to_yaml

        args, kwargs = self._init_arguments
        with_ = arguments(type(self).__init__, args, kwargs)
        Path(filename).write_text(to_yaml(type(self), with_, self._given), encoding="utf-8")

    @classmethod
    def serve(
        cls,
        uses_with: Mapping[str, Any] | None = None,
        uses_metas: Mapping[str, Any] | None = None,
        uses_requests: Mapping[str, str] | None = None,
        stop_event: Any = None,
        uses_dynamic_batching: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        """
        Serve this class behind a gateway, as a Deployment, until Ctrl-C, SIGTERM or ``stop_event``.

        The settings are those of ``Deployment``: ``port``, ``protocol``, ``name``, ``replicas`` ... Raises
        FlowError for settings that are not accepted, RuntimeFailToStart for an executor that cannot start.
        """
        # As a script would: what serves executors is made of them, so this module cannot name it.
        from gatewayd import Deployment

        keywords: dict[str, Any] = {
            **settings,
            "uses": cls,
            "uses_with": uses_with,
            "uses_metas": uses_metas,
            "uses_requests": uses_requests,
            "uses_dynamic_batching": uses_dynamic_batching,
        }
        served: Any = Deployment(**keywords)
        with served:
            served.block(stop_event)

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _rebound(self, overrides: Mapping[str, str]) -> dict[str, Handler]:
        """
        The class's endpoints with ``overrides`` applied, and the dry run last.

        An inherited endpoint keeps the decorated function, even if a subclass has an undecorated method of
        the same name [run].
        """
        moved: dict[str, Handler] = {}
        former: set[Handler] = set()
        for endpoint, name in overrides.items():
            marked = [vars(base)[name] for base in type(self).__mro__ if is_marked(vars(base).get(name))]
            if not marked:
                raise TypeError(self._no_such_method(endpoint, name))
            moved[endpoint] = getattr(type(self), name)
            former |= {moved[endpoint], *marked}
        kept = {endpoint: function for endpoint, function in self._bound.items() if function not in former}
        return {**kept, **moved, DRY_RUN: nothing}

    def _no_such_method(self, endpoint: str, name: str) -> str:
        cls = type(self)
        names = dict.fromkeys(function.__name__ for function in self._bound.values())
        wrong = f"{cls.__name__}.{name} has no @requests" if hasattr(cls, name) else "there is no such method"
        return (
            f"uses_requests: {endpoint} is to be answered by {name}, but {wrong}; "
            f"{cls.__name__} has {', '.join(names) or 'no method with @requests'}"
        )

    def _batching(self, configured: Mapping[str, Mapping[str, Any]]) -> dict[str, Batching]:
        names = {function.__name__ for function in self.requests.values()}
        for key in configured:
            if key not in self.requests and key not in names:
                raise ValueError(
                    f"dynamic_batching: {key!r} is neither an endpoint nor a bound method of "
                    f"{type(self).__name__}; there are {', '.join([*self.requests][:-1])}"
                )
        batching: dict[str, Batching] = {}
        for endpoint, function in self.requests.items():
            # Settings for the endpoint win over those for the method, and both over the decorator's.
            marked = batching_mark(function)
            settings = configured.get(endpoint, configured.get(function.__name__, marked))
            if settings is None:
                continue
            where, form = f"{type(self).__name__} {endpoint}", self.forms[endpoint]
            if form.streams:
                log.warning("dynamic_batching of %s has no effect: its answers are a stream", where)
                continue
            if form.parameters is not None:
                raise ValueError(
                    f"dynamic_batching of {where}: requests of an endpoint whose parameters are a "
                    f"{form.parameters.__name__} cannot share a batch; take them as a dict, or do not batch"
                )
            batching[endpoint] = Batching.from_settings(settings, where, marked)
        return batching


def created(cls: type[E], uses_with: Mapping[str, Any], given: Mapping[str, Any]) -> E:
    """
    An executor with the keywords ``uses_with``, of which the runtime knows what ``given`` says.

    Of ``given`` an ``__init__`` gets what it accepts. Raises what it raises.
    """
    executor = cls.__new__(cls, **uses_with)
    executor.configure(**given)
    accepts = accepted(cls.__init__)
    handed = {key: value for key, value in given.items() if accepts is None or key in accepts}
    cls.__init__(executor, **{**uses_with, **handed})
    return executor


def _check_init(cls: type) -> None:
    own = vars(cls).get("__init__")
    if own is None:
        return
    parameters = inspect.signature(own).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not takes_any and not {"metas", "requests", "runtime_args"} <= set(parameters):
        raise TypeError(
            f"{cls.__name__}.__init__ must accept **kwargs and hand it to super().__init__(**kwargs); "
            f"it accepts ({', '.join(parameters)})"
        )


def _make_private(folder: Path) -> None:
    """Path.mkdir gives its mode to the last folder only."""
    for each in (*reversed(folder.parents), folder):
        if not each.is_dir():
            each.mkdir(mode=0o700, exist_ok=True)
