"""
Turns ``uses`` and the keys around it, of an executor or of the gateway, into a class with absolute paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from gatewayd.config.document import parse
from gatewayd.config.files import Folder, read_text
from gatewayd.config.flow_kinds import USES
from gatewayd.config.keys import CONFIG_FILE, EXECUTOR
from gatewayd.config.model import ExecutorConfig, GatewayClass
from gatewayd.config.problems import Diagnostics, Place, Source, show, type_name
from gatewayd.config.sections import gather, model_arguments, read
from gatewayd.config.substitution import Variables, substitute

# The reference's own gateways: here protocols are settings.
_GATEWAYS: Final = {
    "GRPCGateway": "grpc",
    "HTTPGateway": "http",
    "WebSocketGateway": "websocket",
    "CompositeGateway": "[grpc, http]",
}
# The reference's names of the pass-through executor.
_PASS_THROUGH: Final = frozenset({"BaseExecutor", "Executor"})
_CLASS: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")
_TAGGED: Final = re.compile(r"![^\W\d][\w.:]*")
_FILE: Final = re.compile(r".+\.(yml|yaml|jaml)", re.DOTALL)


@attrs.frozen
class _Described:
    """An executor by its own configuration, before the Flow file's overrides."""

    uses: str | None = None
    with_: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    metas: Mapping[str, Any] = attrs.field(factory=dict)
    requests: Mapping[str, str] = attrs.field(factory=dict)
    dynamic_batching: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    py_modules: tuple[str, ...] = ()


def executor_config(values: Mapping[str, Any], place: Place, folder: Folder) -> ExecutorConfig:
    """
    The executor of one item of the list, from its checked ``values`` by key.

    Relative paths start at ``folder``, those in an executor's own file at that file's folder.
    """
    return _overridden(_described(values.get("uses"), place.inside("uses"), folder), values, place, folder)


def read_executor(
    content: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    folders: Sequence[Path],
    variables: Variables | None,
    name: str = "<text>",
) -> ExecutorConfig:
    """
    The executor of a configuration of its own: a file (a Path), YAML text, or their content.

    ``overrides`` are keys of an executor in a Flow file. Relative paths start at the file's folder, or at the
    first of ``folders``; what is not there is looked for in the others. Without ``variables``, nothing is
    replaced. Raises ConfigError.
    """
    diagnostics = Diagnostics()
    source, base = Source(name, diagnostics), folders[0]
    if isinstance(content, Path):
        source, base = Source(str(content), diagnostics), content.parent
        content = read_text(content, Place(source)) or ""
    value = parse(content, source) if isinstance(content, str) else content
    diagnostics.raise_problems()
    if variables is not None:
        value = substitute(value, source, variables)
    folder = Folder(base.absolute(), variables or Variables({}, {}), tuple(folders))
    place = Place(Source("Executor.load_config()", diagnostics))
    values = read(gather(EXECUTOR, overrides, place))
    config = _overridden(
        _configured(value, Place(source), folder), values, place, attrs.evolve(folder, path=folders[0])
    )
    diagnostics.raise_problems()
    return config


def _overridden(
    described: _Described, values: Mapping[str, Any], place: Place, folder: Folder
) -> ExecutorConfig:
    metas = dict(values.get("uses_metas", {}))
    modules = _modules_of(metas, place.inside("uses_metas"), folder)
    if "py_modules" in values:
        modules += folder.modules(values["py_modules"], place.inside("py_modules"))
    merged: dict[str, Any] = {
        "uses": described.uses,
        "uses_with": {**described.with_, **values.get("uses_with", {})},
        "uses_metas": {**described.metas, **metas},
        "uses_requests": {**described.requests, **values.get("uses_requests", {})},
        "uses_dynamic_batching": {**described.dynamic_batching, **values.get("uses_dynamic_batching", {})},
        "py_modules": tuple(dict.fromkeys(described.py_modules + modules)),
    }
    return ExecutorConfig(**model_arguments(EXECUTOR, values, ExecutorConfig, but=merged.keys()), **merged)


def gateway_class(values: Mapping[str, Any], place: Place, folder: Folder) -> GatewayClass | None:
    """
    The class that the gateway's ``uses`` names, from the checked ``values`` of its keys; None without one.

    As for executors, a file or map with ``jtype`` may stand in its place.
    """
    uses = values.get("uses")
    if uses is None:
        return None
    inside = place.inside("uses")
    before = len(place.source.diagnostics.problems)
    described = _described(uses, inside, folder)
    modules = described.py_modules
    if "py_modules" in values:
        modules += folder.modules(values["py_modules"], place.inside("py_modules"))
    name = described.uses
    if name in _GATEWAYS:
        inside.refuse(f"{name} is one of Jina's own; here that is protocol: {_GATEWAYS[name]}")
    elif name is None and len(place.source.diagnostics.problems) == before:
        inside.refuse("found no gateway class; name yours, or leave uses out for the gateway as it is")
    if name is None:
        return None
    return GatewayClass(
        uses=name,
        uses_with={**described.with_, **values.get("uses_with", {})},
        py_modules=tuple(dict.fromkeys(modules)),
        place=inside.where,
    )


def _described(uses: str | Mapping[str, Any] | None, place: Place, folder: Folder) -> _Described:
    if uses is None:
        return _Described()
    if isinstance(uses, Mapping):
        return _configured(uses, place, folder)
    text, uses = uses, uses.strip()
    if _TAGGED.fullmatch(uses):
        uses = uses[1:]  # YAML's tag for a class, without arguments
    if uses.startswith(("jtype", "!", "{")):
        return _configured(folder.document(text, f"{place.source.name} (uses)", place), place, folder)
    if _FILE.fullmatch(uses) and "\n" not in uses:
        opened = folder.open(uses, place)
        if opened is None:
            return _Described()
        return _configured(opened.value, Place(opened.source), opened.folder)
    if uses in _PASS_THROUGH:
        return _Described()
    if uses.endswith(".py"):
        place.refuse(f"found {show(uses)}, a file; put it into py_modules and the name of its class here")
    elif not _CLASS.fullmatch(uses):
        place.refuse_value(uses, USES.accepted)
    return _Described(uses=uses)


def _configured(value: Any, place: Place, folder: Folder) -> _Described:
    if not isinstance(value, Mapping):
        place.refuse(f"found {type_name(value)}; accepted: a map such as {{jtype: MyExecutor, with: {{}}}}")
        return _Described()
    layer = gather(CONFIG_FILE, value, place)
    values = read(layer)
    name: str = values.get("jtype", "BaseExecutor")
    if not _CLASS.fullmatch(name):
        place.inside("jtype").refuse_value(name, "a class such as MyExecutor, module.Class or module:Class")
    metas = dict(values.get("metas", {}))
    modules = _modules_of(metas, place.inside("metas"), folder)
    if "py_modules" in values:
        modules += folder.modules(values["py_modules"], place.inside("py_modules"))
    return _Described(
        uses=None if name in _PASS_THROUGH else name,
        with_=values.get("with", {}),
        metas=metas,
        requests=values.get("requests", {}),
        dynamic_batching=values.get("dynamic_batching", {}),
        py_modules=modules,
    )


def _modules_of(metas: dict[str, Any], place: Place, folder: Folder) -> tuple[str, ...]:
    """Take ``py_modules`` out of ``metas``."""
    modules = metas.pop("py_modules", None)
    if modules is None:
        return ()
    inside = place.inside("py_modules")
    texts = [modules] if isinstance(modules, str) else modules
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        inside.refuse_value(modules, "a text or a list of texts")
        return ()
    return folder.modules(tuple(texts), inside)
