"""
The keywords of ``Flow``, ``config_gateway``, ``add`` and ``Deployment``, checked as the keys of a file are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gatewayd.config.files import FILE_ENDINGS
from gatewayd.config.graph import START
from gatewayd.config.keys import DEPLOYMENT, EXECUTOR, GATEWAY, SUPPORTED, Section
from gatewayd.config.problems import Diagnostics, Place, Source
from gatewayd.config.sections import gather, read, spread
from gatewayd.config.substitution import holds_reference
from gatewayd.flow.description import (
    ROLES,
    Description,
    FlowError,
    FlowTopologyError,
    as_flow_error,
    gateway_parted,
    parted,
    plain_values,
)


def checked_with(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of ``Flow(...)``. Raises FlowError for unknown ones and values that are not accepted."""
    diagnostics = Diagnostics()
    dealt = spread(plain_values(settings), Place(Source("Flow()", diagnostics)))
    for layer in (dealt.flow, dealt.gateway, dealt.executors):
        read(layer)
    with as_flow_error():
        diagnostics.raise_problems()
    return {word: value for word, value in settings.items() if value is not None}


def checked_gateway(settings: Mapping[str, Any], *, caller_folder: Path | None) -> dict[str, Any]:
    """
    Keywords of ``config_gateway(...)``, as ``checked_with``; aliases by their key's own name.

    Files are looked for in the current folder, then in that of the calling code.
    """
    place = _keywords_of("Flow.config_gateway()")
    _check(GATEWAY, gateway_parted(settings)[0], place)
    _raise_problems(place)
    files: dict[str, Any] = with_absolute_files(_named(GATEWAY, settings), _folders(caller_folder))
    return files


def checked_executor(settings: Mapping[str, Any], *, caller_folder: Path | None) -> dict[str, Any]:
    """
    Keywords of ``add(...)``, as ``checked_gateway``.

    Files are looked for in the current folder, then in that of the calling code.
    """
    place = _keywords_of("Flow.add()")
    _check_executor(settings, place)
    _raise_problems(place)
    files: dict[str, Any] = with_absolute_files(_named(EXECUTOR, settings), _folders(caller_folder))
    return files


def described_deployment(settings: Mapping[str, Any], *, caller_folder: Path | None) -> Description:
    """What the keywords of ``Deployment(...)`` say. Raises FlowError."""
    return deployment(settings, _keywords_of("Deployment()"), _folders(caller_folder))


def deployment(settings: Mapping[str, Any], place: Place, folders: list[Path]) -> Description:
    """The Description of a Deployment, whose ``settings`` stand at ``place``. Raises FlowError."""
    external = settings.get("external") in (True, "true")
    gateway: dict[str, Any] = {}
    executor: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for word, value in settings.items():
        key = DEPLOYMENT.find(word)
        if key is None:
            unknown[word] = value
        # The address of an external executor; its gateway gets a free port.
        elif (external and key.name in ("host", "port")) or GATEWAY.find(word) is not key:
            executor[word] = value
        else:
            gateway[word] = value
            if EXECUTOR.find(word) is key and key.status == SUPPORTED:
                executor[word] = value
    gather(DEPLOYMENT, unknown, place)
    _check(GATEWAY, gateway, place)
    _check_executor(executor, place)
    _raise_problems(place)
    return Description(
        gateway=_named(GATEWAY, gateway),
        executors=(with_absolute_files(_named(EXECUTOR, executor), folders),),
        base_dir=str(folders[0]),
        folders=tuple(folders[1:]),
    )


def _keywords_of(function: str) -> Place:
    return Place(Source(function, Diagnostics()))


def _check(section: Section, settings: Mapping[str, Any], place: Place) -> None:
    read(gather(section, plain_values(settings), place))


def _check_executor(settings: Mapping[str, Any], place: Place) -> None:
    plain, _ = parted(settings)
    # What variables hold is looked at when it is known, as the rest of the Flow is.
    _check(EXECUTOR, {word: value for word, value in plain.items() if not holds_reference(value)}, place)
    name, needs = settings.get("name"), settings.get("needs")
    if name is None:
        return
    if name == START:
        raise FlowError(
            "name: gateway is reserved: it is what `needs` calls the start of the Flow. Choose another name; "
            "the gateway's own settings are those of config_gateway()"
        )
    if not str(name).isidentifier() and not holds_reference(name):
        raise FlowError(f"name: {name} is invalid, please follow the python variable name conventions")
    if name in ([needs] if isinstance(needs, str) else needs or ()):
        raise FlowTopologyError("the income/output of a deployment can not be itself")


def _raise_problems(place: Place) -> None:
    with as_flow_error():
        place.source.diagnostics.raise_problems()


def _named(section: Section, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` by the names of their keys, without those that are not set."""
    named = {}
    for word, value in settings.items():
        key = section.find(word)
        if value is not None:
            named[word if key is None else key.name] = value
    return named


def with_absolute_files(item: Any, folders: list[Path]) -> Any:
    """An entry of the list of executors, or the gateway's settings, with the files that they name found."""
    if isinstance(item, str):
        return _absolute(item, folders) if item.endswith(FILE_ENDINGS) else item
    if not isinstance(item, Mapping):
        return item
    result = dict(item)
    for key in ROLES:
        value = result.get(key)
        if isinstance(value, str) and value.endswith(FILE_ENDINGS) and "\n" not in value:
            result[key] = _absolute(value, folders)
    modules = result.get("py_modules")
    if modules is not None:
        listed = [modules] if isinstance(modules, str | Path) else modules
        # A name without a file may be that of a module, such as package.module.
        files = [_absolute(str(module), folders) for module in listed]
        result["py_modules"] = [
            file if Path(file).exists() else str(module) for file, module in zip(files, listed, strict=True)
        ]
    return result


def _folders(caller_folder: Path | None) -> list[Path]:
    return [Path.cwd()] if caller_folder is None else [Path.cwd(), caller_folder]


def _absolute(name: str, folders: list[Path]) -> str:
    if holds_reference(name):
        return name
    candidates = [(folder / Path(name).expanduser()).absolute() for folder in folders]
    return str(next((path for path in candidates if path.exists()), candidates[0]))
