"""
The keywords of ``load_config``: where files are looked for, and what is put over what they say.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, TypedDict

import attrs

from gatewayd.client.post import check_keywords
from gatewayd.config.deployments import unwrapped
from gatewayd.config.document import parse
from gatewayd.config.files import read_text
from gatewayd.config.loader import (
    FlowDocument,
    Sources,
    read_flow,
    read_flow_mapping,
    read_flow_text,
    replaced,
    restore_texts,
    warnings_of,
)
from gatewayd.config.problems import Diagnostics, Place, Source
from gatewayd.flow.description import Description, as_flow_error, with_objects
from gatewayd.flow.settings import deployment, with_absolute_files

# A file, an open stream of YAML, YAML text, or the map that these hold.
FlowSource = str | Path | IO[str] | Mapping[str, Any]


class LoadKeywords(TypedDict, total=False):
    """Of ``load_config`` of a Flow or a Deployment."""

    context: Mapping[str, Any] | None
    """Gives ``${{ CONTEXT.x }}``."""
    substitute: bool
    """Whether variables are replaced."""
    uses_with: Mapping[str, Any] | None
    """Overrides entries of ``with``."""
    py_modules: str | Path | Sequence[str | Path] | None
    """Python files that executors import first."""
    extra_search_paths: str | Path | Iterable[str | Path] | None
    """Folders in which files are looked for first."""
    # The reference's, which have no effect there either.
    uses_metas: Mapping[str, Any] | None
    uses_requests: Mapping[str, str] | None
    uses_dynamic_batching: Mapping[str, Any] | None
    runtime_args: Mapping[str, Any] | None
    allow_py_modules: bool
    needs: Any
    include_gateway: bool
    noblock_on_start: bool


# What a user may expect to have an effect, and what has it.
_OF_EXECUTORS: Final = ("uses_metas", "uses_requests", "uses_dynamic_batching")


def loaded_flow(
    source: FlowSource, keywords: LoadKeywords, caller_folder: Path | None
) -> tuple[Description, bool]:
    """The Flow that ``source`` describes, and whether it asks for the asynchronous client."""
    description = _read_flow(source, _sources(keywords, caller_folder))
    with_ = dict(description.with_)
    asyncio = bool(with_.pop("asyncio", False))
    modules = _listed(keywords.get("py_modules"))
    if modules:
        with_["py_modules"] = [*map(str, modules), *_listed(with_.get("py_modules"))]
    description = attrs.evolve(description, with_=with_)
    if modules:
        description.config()
    return description, asyncio


def loaded_deployment(
    source: FlowSource, keywords: LoadKeywords, caller_folder: Path | None
) -> tuple[Description, bool]:
    """As ``loaded_flow``, for a Deployment: ``jtype: Deployment``, and its settings in ``with``."""
    sources = _sources(keywords, caller_folder)
    diagnostics = Diagnostics()
    with as_flow_error():
        value, where, folder = _content(source, sources, diagnostics)
        diagnostics.raise_problems()
        value = replaced(value, where, sources)
        unset = warnings_of(where)
        if not isinstance(value, dict) or value.get("jtype") != "Deployment":
            Place(where).refuse(
                "found another document; accepted: jtype: Deployment, with its settings in with"
            )
            diagnostics.raise_problems()
        folders = [folder, *sources.folders]
        deployment(*_settings(value, where, keywords), folders)
        restore_texts(value, where)
        description = deployment(*_settings(value, where, keywords), folders)
    asyncio = bool((value.get("with") or {}).get("asyncio", False))
    return attrs.evolve(description, loaded=frozenset([0]), gateway_loaded=True, unset=unset), asyncio


def _settings(
    value: Mapping[str, Any], where: Source, keywords: LoadKeywords
) -> tuple[dict[str, Any], Place]:
    """The settings of a Deployment's file, and their place."""
    inner, place = unwrapped(value, Place(where))
    settings = {word: each for word, each in inner.items() if word != "asyncio"}
    if modules := _listed(keywords.get("py_modules")):
        settings["py_modules"] = [*map(str, modules), *_listed(settings.get("py_modules"))]
    return settings, place


def _sources(keywords: LoadKeywords, caller_folder: Path | None) -> Sources:
    check_keywords("load_config()", keywords, LoadKeywords.__annotations__)
    for name in _OF_EXECUTORS:
        if keywords.get(name):
            warnings.warn(
                f"load_config(): {name} has no effect here, as in Jina; set it for an executor",
                stacklevel=4,
            )
    folders = [
        *map(Path, _listed(keywords.get("extra_search_paths"))),
        Path.cwd(),
        *([] if caller_folder is None else [caller_folder]),
    ]
    return Sources(
        context=keywords.get("context"),
        folders=tuple(folder.expanduser().absolute() for folder in folders),
        with_=keywords.get("uses_with") or {},
        parts=((),) if keywords.get("substitute", True) else (),
    )


def _read_flow(source: FlowSource, sources: Sources) -> Description:
    """
    A text is YAML when it has several lines or begins with ``jtype`` or ``!``, else the name of a file.

    Raises FileNotFoundError, or FlowError with all problems of it.
    """
    with as_flow_error():
        folders = [Path.cwd(), *sources.folders]
        if isinstance(source, Mapping):
            described = _described(source, folders)
            plain, _ = described.separated()
            # With keys that no Flow has, so that they are refused.
            found = read_flow_mapping({**source, **plain}, sources, base_dir=Path.cwd())
            content = found.mapping
            executors = zip(described.executors, content.get("executors", ()), strict=True)
            return attrs.evolve(
                described,
                with_=content.get("with", {}),
                gateway=with_objects(content.get("gateway", {}), described.gateway),
                executors=tuple(with_objects(plain_item, item) for item, plain_item in executors),
                unset=found.unset,
            )
        if isinstance(source, str | Path) and not _is_yaml(source):
            path = _found(source, sources.folders)
            return _loaded(read_flow(path, sources), [path.parent, *sources.folders])
        text, name = _text(source)
        return _loaded(read_flow_text(text, sources, base_dir=Path.cwd(), name=name), folders)


def _content(source: FlowSource, sources: Sources, diagnostics: Diagnostics) -> tuple[Any, Source, Path]:
    """What ``source`` holds, its name for messages, and where paths in it start."""
    if isinstance(source, Mapping):
        return dict(source), Source("Deployment", diagnostics), Path.cwd()
    if isinstance(source, str | Path) and not _is_yaml(source):
        path = _found(source, sources.folders)
        where = Source(str(path), diagnostics)
        return parse(read_text(path, Place(where)) or "", where), where, path.parent
    text, name = _text(source)
    where = Source(name, diagnostics)
    return parse(text, where), where, Path.cwd()


def _text(source: str | Path | IO[str]) -> tuple[str, str]:
    """YAML, and its name for messages."""
    text = str(source) if isinstance(source, str | Path) else source.read()
    return text, str(getattr(source, "name", None) or "<text>")


def _is_yaml(source: str | Path) -> bool:
    return isinstance(source, str) and ("\n" in source or source.startswith(("jtype", "!", "{")))


def _found(name: str | Path, folders: Iterable[Path]) -> Path:
    for folder in folders:
        if (path := (folder / Path(name).expanduser()).absolute()).is_file():
            return path
    raise FileNotFoundError(f"can not find {name}, looked in {', '.join(map(str, folders))}")


def _loaded(document: FlowDocument, folders: list[Path]) -> Description:
    return attrs.evolve(_described(document.mapping, folders), unset=document.unset)


def _described(value: Mapping[str, Any], folders: list[Path]) -> Description:
    executors = value.get("executors") or value.get("deployments") or []
    if not isinstance(executors, list | tuple):  # refused when the whole is read
        executors = ()
    return Description(
        with_=dict(value.get("with") or {}),
        gateway=with_absolute_files(value.get("gateway") or {}, folders),
        executors=tuple(with_absolute_files(item, folders) for item in executors),
        base_dir=str(folders[0]),
        folders=tuple(folders[1:]),
        loaded=frozenset(range(len(executors))),
        gateway_loaded=True,
    )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str | Path) else list(value)
