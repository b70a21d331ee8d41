"""
The keywords of ``load_config``: where files are looked for, and what is put over what they say.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

import attrs

from gatewayd.client.post import check_keywords
from gatewayd.config.loader import Sources
from gatewayd.flow.description import Description, FlowSource, read_source


class LoadKeywords(TypedDict, total=False):
    """Of ``Flow.load_config``."""

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
    # The reference's, which have no effect on a Flow there either.
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


def loaded(
    source: FlowSource, keywords: LoadKeywords, caller_folder: Path | None
) -> tuple[Description, bool]:
    """What ``source`` describes, and whether its ``with`` asks for the asynchronous client."""
    check_keywords("load_config()", keywords, LoadKeywords.__annotations__)
    for name in _OF_EXECUTORS:
        if keywords.get(name):
            warnings.warn(
                f"load_config(): {name} has no effect on a Flow, as in Jina; set it for an executor",
                stacklevel=3,
            )
    folders = [
        *map(Path, _listed(keywords.get("extra_search_paths"))),
        Path.cwd(),
        *([] if caller_folder is None else [caller_folder]),
    ]
    sources = Sources(
        context=keywords.get("context"),
        folders=tuple(folder.expanduser().absolute() for folder in folders),
        with_=keywords.get("uses_with") or {},
        parts=((),) if keywords.get("substitute", True) else (),
    )
    description = read_source(source, sources)
    with_ = dict(description.with_)
    asyncio = bool(with_.pop("asyncio", False))
    if modules := _listed(keywords.get("py_modules")):
        with_["py_modules"] = [*map(str, modules), *_listed(with_.get("py_modules"))]
    description = attrs.evolve(description, with_=with_)
    if modules:
        description.config()
    return description, asyncio


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str | Path) else list(value)
