"""The command's output: results on stdout, everything else on stderr, colours only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import IO, Any

import click


def _coloured(stream: IO[str]) -> bool:
    # https://no-color.org
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(text: str, **style: Any) -> None:
    """Print a line of the result."""
    click.echo(click.style(text, **style) if _coloured(sys.stdout) else text)


def note(text: str) -> None:
    """Print a line of progress."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """Print a warning: something may not be as the user intended."""
    word = click.style("warning:", fg="yellow") if _coloured(sys.stderr) else "warning:"
    click.echo(f"{word} {text}", err=True)


def fail(text: str, code: int = 1) -> int:
    """Print why the command failed. Returns the exit ``code``."""
    word = click.style("gatewayd:", fg="red") if _coloured(sys.stderr) else "gatewayd:"
    click.echo(f"{word} {text}", err=True)
    return code


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
