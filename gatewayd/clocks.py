"""The narrow views of a reactor: its clock, and its outgoing connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """The part of IDelayedCall that is used here."""

    def active(self) -> bool: ...
    def cancel(self) -> None: ...


class Clock(Protocol):
    """The part of IReactorTime that is used here."""

    def seconds(self) -> float: ...
    def callLater(self, delay: float, callable: Callable[..., object], *args: Any) -> Timer: ...


class Connector(Clock, Protocol):
    """The parts of IReactorTCP and IReactorPluggableNameResolver that an endpoint of a client uses."""

    nameResolver: Any

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> Any: ...
