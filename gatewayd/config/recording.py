"""What of requests is recorded in a file, and how that is written in a Flow file."""

from __future__ import annotations

from typing import Any, Final, Literal

import attrs

from gatewayd.config.kinds import TEXT, TEXTS, Refused, ValueKind, choice, integer, read_map, seconds, share
from gatewayd.messages.redacting import check_rule


@attrs.frozen
class RecordConfig:
    """
    The share ``sample`` of all requests goes to the file ``path``, and those that do not succeed, if
    ``keep`` is ``errors``, or that take longer than ``slower_than_s``.

    It holds at most ``max_bytes``, and then begins anew; the one before it is kept. ``redact`` are the rules
    of ``messages/redacting.py``.
    """

    path: str
    sample: float = 1.0
    max_bytes: int = 100_000_000
    redact: tuple[str, ...] = ()
    keep: Literal["sample", "errors"] = "sample"
    slower_than_s: float | None = None


def _redact(value: Any) -> tuple[str, ...]:
    rules = []
    for rule in TEXTS.read(value):
        try:
            rules.append(check_rule(rule))
        except ValueError as error:
            raise Refused(message=str(error)) from None
    return tuple(rules)


_KINDS: Final = {
    "path": TEXT,
    "sample": share(),
    "max_bytes": integer(64 * 1024),
    "keep": choice("sample", "errors"),
    "slower_than": seconds(zero=False),
    "redact": ValueKind(
        "a list of fields of documents, tags.NAME, fields.NAME, parameters or parameters.NAME", _redact
    ),
}


def _record(value: Any) -> RecordConfig:
    found = read_map({"path": value} if isinstance(value, str) else value, _KINDS)
    if not found.get("path"):
        raise Refused(message="path is missing: the file to write")
    if "slower_than" in found:
        found["slower_than_s"] = found.pop("slower_than")
    return RecordConfig(**found)


RECORD: Final = ValueKind(
    "a file, or a map such as {path: requests.jsonl, sample: 0.1, redact: [text]}",
    _record,
    annotation="str | Mapping[str, Any]",
)
