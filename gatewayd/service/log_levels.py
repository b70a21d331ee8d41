"""The action of the admin site that changes what is logged while the gateway serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from gatewayd.admin.actions import Action
from gatewayd.errors import BadRequest


def log_level_action(set_level: Callable[[str, str], None]) -> Action:
    """``set_level(level, namespace)`` raises ValueError for what is no level."""

    def run(arguments: Mapping[str, Any]) -> Deferred[str]:
        level, namespace = str(arguments.get("level", "")).lower(), str(arguments.get("namespace", ""))
        level = "warn" if level == "warning" else level
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
