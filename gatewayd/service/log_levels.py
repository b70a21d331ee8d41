"""The action of the admin site that changes what is logged while the gateway serves."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed

from gatewayd.admin.actions import Action
from gatewayd.errors import BadRequest
from gatewayd.telemetry.logs.levels import ACCESS, EXECUTORS

_OWN: Final = __name__.partition(".")[0]
_FOLDER: Final = Path(__file__).parents[1]


def log_level_action(
    set_level: Callable[[str, str], None],
    deployments: Callable[[], Collection[str]],
    configured: Collection[str] = (),
) -> Action:
    """
    ``set_level(level, namespace)`` raises ValueError for what is no level. ``deployments()`` are those whose
    executors write to the log now; the ``configured`` namespaces are known without being looked for.
    """

    def run(arguments: Mapping[str, Any]) -> Deferred[str]:
        level, namespace = str(arguments.get("level", "")).lower(), str(arguments.get("namespace", ""))
        level = "warn" if level == "warning" else level
        is_given = namespace and namespace not in configured
        if is_given and (problem := _problem_of(namespace, deployments())):
            return fail(BadRequest(problem))
        try:
            set_level(level, namespace)
        except ValueError as error:
            return fail(BadRequest(str(error)))
        return succeed(f"{namespace or 'all'}: {level}")

    return Action(
        "log_level",
        "Log what is at least of this level from now on, until the next start.",
        run,
        {
            "level": "debug, info, warn, error or critical",
            "namespace": "the part that it is for, such as gatewayd.pool, or executor.NAME; all without",
        },
        required=("level",),
    )


def _problem_of(namespace: str, deployments: Collection[str]) -> str | None:
    """Why nothing in the log has this namespace or one below it; None if something may."""
    top, _, below = namespace.partition(".")
    if top == EXECUTORS:
        if not below or below in deployments:
            return None
        known = ", ".join(sorted(deployments)) or "none"
        return f"namespace: no executor {below[:80]!r} writes to the log; there are: {known}"
    if top == _OWN:
        known_here = namespace == ACCESS or _is_module(below)
    else:
        # Of other packages, and loggers of any name, it is known only whether there are such.
        known_here = namespace in logging.root.manager.loggerDict or _is_package(top)
    if known_here:
        return None
    return (
        f"namespace: nothing is called {namespace[:80]!r}; give a module such as {_OWN}.pool or twisted, "
        f"the name of a logger, {EXECUTORS}, or {EXECUTORS}.NAME"
    )


def _is_module(below: str) -> bool:
    """Whether gatewayd has it. Looks at files: what another process imports need not be imported here."""
    parts = below.split(".") if below else []
    if not all(map(str.isidentifier, parts)):
        return False
    place = _FOLDER.joinpath(*parts)
    return place.is_dir() or place.with_suffix(".py").is_file()


def _is_package(top: str) -> bool:
    return top in sys.modules or (top.isidentifier() and importlib.util.find_spec(top) is not None)
