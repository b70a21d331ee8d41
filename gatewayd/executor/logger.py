"""An executor's logger: the standard library's, with the few methods that the reference's has besides."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, Final, Self

SUCCESS: Final = 25
logging.addLevelName(SUCCESS, "SUCCESS")


class JinaLogger(logging.LoggerAdapter[logging.Logger]):
    """
    ``logging.getLogger(context)``, with ``success`` between info and warning; a ``quiet`` one writes nothing.

    In an executor what it writes goes to gatewayd's log; elsewhere ``logging`` has to be configured as usual.
    Other keywords of the reference's are accepted and without effect.
    """

    def __init__(
        self,
        context: str,
        name: str | None = None,
        log_config: str | None = None,
        quiet: bool = False,
        **ignored: Any,
    ) -> None:
        super().__init__(logging.getLogger(context), {})
        self.quiet = quiet

    def __getattr__(self, attribute: str) -> Any:
        # The rest of a Logger, such as addHandler. While a copy is made there is no logger yet.
        if attribute == "logger":
            raise AttributeError(attribute)
        return getattr(self.logger, attribute)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Unchanged; that of LoggerAdapter would drop ``extra``."""
        return msg, kwargs

    def isEnabledFor(self, level: int) -> bool:
        """Whether a line of ``level`` is written."""
        return not self.quiet and super().isEnabledFor(level)

    def success(self, message: object, *args: object, **keywords: Any) -> None:
        """Write a line of the level SUCCESS."""
        self.log(SUCCESS, message, *args, **{"stacklevel": 2, **keywords})

    def close(self) -> None:
        """Nothing has to be closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
