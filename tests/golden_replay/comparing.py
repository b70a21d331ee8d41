"""
Recorded against received: equal but for what a recording marks as volatile.

``"<volatile>"`` stands for any value that is there (not null), ``["<volatile>"]`` for any list, and
``<port>`` inside a text for a port number. Numbers are equal by value; a boolean is no number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

VOLATILE = "<volatile>"
GONE = object()
# gRPC's own text for a refused connection, which releases word differently: as recorded, and others.
REFUSED = "Failed to connect to remote host: Connection refused"
REFUSED_NOW = ("Failed to connect to remote host: connect: Connection refused (111)",)


def differences(recorded: Any, received: Any, place: str = "") -> list[str]:
    """Every place where they differ, as text; empty when they are equal."""
    return list(_differences(recorded, received, place or "answer"))


def _differences(recorded: Any, received: Any, place: str) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(received, dict):
        for key in recorded.keys() | received.keys():
            if key not in received:
                yield f"{place}.{key} is missing; recorded {recorded[key]!r}"
            elif key not in recorded:
                yield f"{place}.{key} is too much: {received[key]!r}"
            else:
                yield from _differences(recorded[key], received[key], f"{place}.{key}")
    elif recorded == [VOLATILE] and isinstance(received, list):
        return
    elif isinstance(recorded, list) and isinstance(received, list) and len(recorded) == len(received):
        for index, (one, other) in enumerate(zip(recorded, received, strict=True)):
            yield from _differences(one, other, f"{place}[{index}]")
    elif not _same(recorded, received):
        yield f"{place}: recorded {recorded!r}, received {received!r}"


def _same(recorded: Any, received: Any) -> bool:
    if recorded == VOLATILE:
        return received is not None
    if isinstance(recorded, str) and isinstance(received, str):
        for wording in REFUSED_NOW:
            received = received.replace(wording, REFUSED)
        pattern = re.escape(recorded).replace("<port>", r"\d+").replace("<volatile>", ".*")
        return re.fullmatch(pattern, received, re.DOTALL) is not None
    if isinstance(recorded, bool) or isinstance(received, bool):
        return recorded is received
    return bool(recorded == received)


def replaced(recorded: Any, path: str, instead: Any) -> Any:
    """A copy of ``recorded`` with another value at ``path`` (``json.data.0.tensor``), or none (GONE)."""
    head, dot, rest = path.partition(".")
    if isinstance(recorded, list):
        index = int(head)
        changed = replaced(recorded[index], rest, instead) if dot else instead
        return [*recorded[:index], *([] if changed is GONE else [changed]), *recorded[index + 1 :]]
    if instead is GONE and not dot:
        return {key: value for key, value in recorded.items() if key != head}
    return {**recorded, head: replaced(recorded[head], rest, instead) if dot else instead}
