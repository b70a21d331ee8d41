"""
Which parameters each Executor gets, and which the client gets back.

Parameters are serialised Structs. Most requests have none, or only ones for every Executor:
those bytes pass through unchanged. They are parsed only where a key may be meant for one Executor (it
contains ``__``, or is an Executor's name), or where results have been collected.

The rules are those of spec dispatch.md, Parameters and ``__results__``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from gatewayd.errors import TooManyValues
from gatewayd.messages.wire import Malformed
from gatewayd.pb import Struct, Value

RESULTS: Final = "__results__"
_RESULTS_KEY: Final = RESULTS.encode()
_SEPARATOR: Final = "__"
_FIELD_1: Final = b"\x0a"

# {"__results__": {}}: what the reference's client sends when it has no parameters, what its executors
# send back, and what a join sees. A map's entries may stand in any order, and the last one of a key
# counts, so these bytes can be appended to any Struct.
EMPTY_RESULTS: Final = Struct(fields={RESULTS: Value(struct_value=Struct())}).SerializeToString()


class Parameters:
    """
    One request's parameters, as each Executor sees them.

    Any method raises Malformed if the bytes are not a Struct.
    """

    __slots__ = ("_fields", "_kept", "_last", "_maybe_scoped", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._maybe_scoped = b"__" in raw and raw != EMPTY_RESULTS
        self._fields: Mapping[str, Value] | None = None
        self._kept: dict[tuple[str, bool], bytes] | None = None  # by executor, and whether for a join
        self._last: tuple[Sequence[bytes], bytes] | None = (
            None  # of ``with_results``: answers, and the result
        )

    def keep(self) -> None:
        """What executors and the client get is kept from now on: each document of a stream asks for it."""
        if self._kept is None:
            self._kept = {}

    def for_executor(self, name: str) -> bytes:
        """
        What the Deployment ``name`` gets.

        ``name__key`` becomes ``key``, for this Deployment only; those of other Deployments are removed. A
        map under the key ``name`` is spread out last, and stays. The key is split at its last ``__``.
        """
        if not self._raw or not (self._maybe_scoped or name.encode() in self._raw):
            return self._raw
        kept = self._kept
        if kept is not None and (name, False) in kept:
            return kept[name, False]
        if self._fields is None:
            self._fields = parse(self._raw).fields
        mine = _scoped(self._fields, name)
        found = self._raw if mine is None else mine
        if kept is not None:
            kept[name, False] = found
        return found

    def for_join(self, name: str) -> bytes:
        """The same, and ``__results__`` is always there, as after the reference's merge."""
        kept = self._kept
        if kept is not None and (name, True) in kept:
            return kept[name, True]
        mine = self.for_executor(name)
        if not (mine == EMPTY_RESULTS or (_RESULTS_KEY in mine and RESULTS in parse(mine).fields)):
            mine += EMPTY_RESULTS
        if kept is not None:
            kept[name, True] = mine
        return mine

    def with_results(self, answers: Sequence[bytes]) -> bytes:
        """
        What the client gets: its own parameters, and the ``__results__`` of all ``answers``.

        Where two answers have the same name in ``__results__``, the later one counts. Without any
        result the client's own ``__results__`` stay as they are.
        """
        # For most documents of a stream they are what they were for the one before, and they may be long.
        if self._last is not None and self._last[0] == answers:
            return self._last[1]
        collected: Struct | None = None
        for answer in answers:
            if _RESULTS_KEY in answer and answer != EMPTY_RESULTS:
                collected = Struct() if collected is None else collected
                results = parse(answer).fields
                if RESULTS in results:
                    for name, value in results[RESULTS].struct_value.fields.items():
                        collected.fields[name].CopyFrom(value)
        if collected is None or not collected.fields:
            return self._raw
        whole = parse(self._raw)
        whole.fields[RESULTS].struct_value.CopyFrom(collected)
        found = whole.SerializeToString()
        if self._kept is not None:
            self._last = answers, found
        return found


def check_values(raw: bytes, most: int) -> None:
    """
    Raises TooManyValues for more than ``most`` values, as far as that is seen without reading them.

    Each entry of a map and each item of a list begins with the byte of field 1, which is a line's end in
    texts: those count as well. To read a million values, protobuf stops the process for a third of a second.
    """
    if raw.count(_FIELD_1) > most:
        raise TooManyValues(most)


def parse(raw: bytes) -> Struct:
    """The Struct in ``raw``. Raises Malformed."""
    try:
        return Struct.FromString(raw)
    except DecodeError as error:
        raise Malformed(f"the parameters are not a Struct: {error}") from error


def _scoped(fields: Mapping[str, Value], name: str) -> bytes | None:
    """``fields`` as ``name`` sees them; None where it sees all of them unchanged."""
    shared: dict[str, Value] = {}
    own: dict[str, Value] = {}
    for key, value in fields.items():
        executor, _, parameter = key.rpartition(_SEPARATOR)
        # A leading or trailing "__" leaves one side empty: such keys are for every Executor.
        if not executor or not parameter or key.startswith(_SEPARATOR):
            shared[key] = value
        elif executor == name:
            own[parameter] = value
    spread = fields[name].struct_value.fields if name in fields else {}
    if len(shared) == len(fields) and not spread:
        return None
    seen = Struct()
    for source in (shared, own, spread):
        for key, value in source.items():
            seen.fields[key].CopyFrom(value)
    return seen.SerializeToString()
