"""The log of a worker, written into the master's."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger, LogLevel

from gatewayd.service.worker_messages import Logged
from gatewayd.telemetry.logs.forms import FIELDS, TRACEBACK


def repeat(worker: str, logged: Logged) -> None:
    """Log here what ``worker`` has logged, after its name, as its own event would have been."""
    details: dict[str, Any] = {FIELDS: logged.fields} if logged.fields else {}
    if logged.traceback is not None:
        details[TRACEBACK] = logged.traceback
    Logger(namespace=logged.namespace).emit(
        LogLevel.levelWithName(logged.level), "{worker}: {text}", worker=worker, text=logged.text, **details
    )
