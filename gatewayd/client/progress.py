"""The progress bar of ``post(show_progress=True)``: documents and requests answered so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gatewayd.client.response import Response


class Progress:
    """A context manager that shows a bar on the terminal's stderr. ``total`` is None where it is unknown."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("requests"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("posting", total=total)

    def __enter__(self) -> Callable[[Response], None]:
        self._bar.start()
        return lambda _: self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class NoProgress:
    """Nothing is shown."""

    def __enter__(self) -> Callable[[Response], None]:
        return lambda _: None

    def __exit__(self, *_: object) -> None:
        pass


def progress(shown: bool, inputs: Any, request_size: int) -> Progress | NoProgress:
    """The number of requests is known where the inputs have a length."""
    if not shown:
        return NoProgress()
    try:
        documents = len(inputs)
    except TypeError:
        return Progress(None)
    return Progress(-(-documents // request_size) if request_size > 0 else 1)
