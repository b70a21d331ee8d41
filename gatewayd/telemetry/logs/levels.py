"""
Which events are in the log: those of at least a level, which may differ by namespace (pure).

A namespace is the name of the module that writes, ``executor.<deployment>`` for the output of executors, or
``gatewayd.access`` for lines of the access log that have no file of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# In the order of their urgency, by the names that Twisted's logger has for them.
RANKS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warn": 30, "error": 40, "critical": 50}
EXECUTORS: Final = "executor"
ACCESS: Final = "gatewayd.access"

# Namespaces are modules and deployments: no log has nearly as many, but a library's loggers may be numbered.
_MOST_REMEMBERED: Final = 1000


class Levels:
    """
    The least level of each namespace. Any thread may ask; the reactor thread alone changes them.

    A level that is set for a namespace holds for all below it (``gatewayd.pool`` for ``gatewayd.pool.dns``).
    What executors write has passed their own level (``of_executor``), so all of it is admitted, unless a
    level is set for ``executor`` or one of them.
    """

    def __init__(
        self, base: str = "info", by_namespace: Mapping[str, str] = {}, *, executors: str | None = None
    ) -> None:
        """All levels are keys of RANKS. ``executors`` is what their own level is, if not the base."""
        self._levels = {"": base, **by_namespace}
        self._executors = executors
        self._found: dict[str, int] = {}

    @property
    def base(self) -> str:
        """The level of namespaces for which none is set."""
        return self._levels[""]

    @property
    def least(self) -> str:
        """The lowest of all levels but those of executors, which are other processes."""
        levels = [level for name, level in self._levels.items() if not _is_below(name, EXECUTORS)]
        return min(levels, key=RANKS.__getitem__)

    def admits(self, namespace: str, level: str) -> bool:
        """Whether an event of this level is in the log."""
        found = self._found
        least = found.get(namespace)
        if least is None:
            if len(found) >= _MOST_REMEMBERED:
                found.clear()
            least = found[namespace] = self._least(namespace)
        return RANKS.get(level, RANKS["critical"]) >= least

    def of_executor(self, deployment: str) -> str:
        """The least level that the executors of a deployment are to write."""
        return self._set_for(f"{EXECUTORS}.{deployment}") or self._executors or self.base

    def set(self, level: str, namespace: str = "") -> None:
        """From now on; an empty ``namespace`` is the base. Raises ValueError for what is no level."""
        if level not in RANKS:
            raise ValueError(f"{level!r} is no level of the log; accepted: {', '.join(RANKS)}")
        if not namespace:
            self._executors = None
        # A new map: another thread may be looking at the old one.
        self._levels = {**self._levels, namespace: level}
        self._found = {}

    def _least(self, namespace: str) -> int:
        level = self._set_for(namespace)
        if level is None:
            level = "debug" if _is_below(namespace, EXECUTORS) else self.base
            # Who asks for an access log wants it, whatever the level of the rest.
            level = "info" if namespace == ACCESS else level
        return RANKS[level]

    def _set_for(self, namespace: str) -> str | None:
        """The level that is set for it, or for the nearest namespace above it."""
        levels = self._levels
        while namespace:
            if namespace in levels:
                return levels[namespace]
            namespace = namespace.rpartition(".")[0]
        return None


def _is_below(namespace: str, other: str) -> bool:
    return f"{namespace}.".startswith(f"{other}.")
