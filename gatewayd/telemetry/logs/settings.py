"""
What a Flow file and the environment say of the log, put together.

The environment wins, as in the reference: ``JINA_LOG_LEVEL``, then ``JINA_LOG_CONFIG``. After it come
``log_level``, ``log_levels`` and ``log_format`` of the Flow file; ``log_config`` is for what they leave open.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gatewayd.config.log_config import LEVELS, LogConfig, LogConfigError, level_named, read_log_config
from gatewayd.config.model import GatewayConfig
from gatewayd.telemetry.logs.levels import Levels


@attrs.frozen
class LogSettings:
    """``problems`` are texts for the log on what could not be used."""

    level: str
    by_namespace: Mapping[str, str]
    log_format: str
    executors: str
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, gateway: GatewayConfig, environ: Mapping[str, str], *, default: str = "info") -> LogSettings:
        """``default`` is the level where nothing says one; what executors write is then from ``info`` on."""
        problems: list[str] = []
        chosen = LogConfig()
        if named := environ.get("JINA_LOG_CONFIG"):
            try:
                chosen = read_log_config(named)
            except LogConfigError as error:
                problems.append(f"JINA_LOG_CONFIG is not used: {error}")
            problems += [f"JINA_LOG_CONFIG: {text}" for text in chosen.ignored]
        level = chosen.level or gateway.log_level
        if named := environ.get("JINA_LOG_LEVEL"):
            if (found := level_named(named)) is None:
                problems.append(f"JINA_LOG_LEVEL: {named!r} is not used; accepted: {', '.join(LEVELS)}")
            level = found or level
        return cls(
            level or default,
            gateway.log_levels,
            chosen.log_format or gateway.log_format,
            level or "info",
            tuple(problems),
        )

    def levels(self) -> Levels:
        """As they are at the start."""
        return Levels(self.level, self.by_namespace, executors=self.executors)
