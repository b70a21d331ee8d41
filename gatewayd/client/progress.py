"""The progress bar of ``post(show_progress=True)``: documents and requests answered so far."""

from __future__ import annotations

from collections.abc import Callable

from gatewayd.client.post import Post
from gatewayd.client.response import Response


class Progress:
    """A context manager that shows a bar on the terminal's stderr. ``total`` is None if unknown."""

    def __init__(self, total: int | None, what: str = "requests") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(what),
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
    """Shows nothing."""

    def __enter__(self) -> Callable[[Response], None]:
        return lambda _: None

    def __exit__(self, *_: object) -> None:
        pass


def progress(post: Post) -> Progress | NoProgress:
    """The number of requests is known where the inputs have a length, or the user tells it."""
    if not post.show_progress:
        return NoProgress()
    try:
        documents = len(post.inputs) if post.total_docs is None else post.total_docs
    except TypeError:
        return Progress(None)
    return Progress(-(-documents // post.request_size) if post.request_size > 0 else 1)


def streaming_progress(post: Post) -> Progress | NoProgress:
    """Of a stream, whose length nobody knows."""
    return Progress(None, "documents") if post.show_progress else NoProgress()
