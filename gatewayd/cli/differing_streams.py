"""
What differs between the answers of two streams, document by document (pure).

    answers[2].data.docs[0].text  'a red apple' → 'a green apple'
    answers[5].missing            data { docs { docs { id: "5" ... →
    answers[5].extra                                               → data { docs { docs { id: "7" ...
    answers.order                 1, 2, 3 → 1, 3, 2
    answers.length                9000 → 8000             of a record that was cut

Answers belong together by their documents' ids, where they have any that both streams know; else by what is
in them, and what is the same in neither is compared in its order. Indices are those of the stream in which an
answer is: of the one before, unless it is extra.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

import attrs

from gatewayd.cli.differing import Carried, Difference, Ignored, differences, parsed, shown

# Of answers in both streams: looking for those that are the same takes time by their product.
_MOST_PAIRS: Final = 4_000_000
_SHOWN_IDS: Final = 8
_MOST: Final = 100


@attrs.frozen
class _Alignment:
    """Which answers belong together, by their indices, and which are in one stream alone."""

    pairs: Sequence[tuple[int, int]]
    missing: Sequence[int]
    extra: Sequence[int]
    order: tuple[str, str] | None = None


def differences_of_streams(
    before: Sequence[bytes],
    now: Sequence[bytes],
    *,
    ignored: Ignored,
    tolerance: float = 0.0,
    carried: Carried = Carried.ALL,
) -> list[Difference]:
    """Of two lists of DataRequestProtos, at most a hundred. Raises DecodeError."""

    def compare(one: bytes, other: bytes) -> list[Difference]:
        return differences(one, other, ignored=ignored, tolerance=tolerance, carried=carried)

    in_order = [compare(one, other) for one, other in zip(before, now, strict=False)]
    if len(before) == len(now) and not any(in_order):
        return []
    ones, others = ([parsed(each) for each in several] for several in (before, now))
    found: list[Difference] = []
    for each in _all(ones, others, _aligned(ones, others, ignored), before, now, compare):
        if each.field not in ignored:
            found.append(each)
            if len(found) == _MOST:
                break
    return found


def _all(
    ones: Sequence[Any],
    others: Sequence[Any],
    aligned: _Alignment,
    before: Sequence[bytes],
    now: Sequence[bytes],
    compare: Any,
) -> Iterator[Difference]:
    for index in aligned.missing:
        yield Difference(f"answers[{index}].missing", shown(ones[index].data), "")
    for index in aligned.extra:
        yield Difference(f"answers[{index}].extra", "", shown(others[index].data))
    if aligned.order is not None:
        yield Difference("answers.order", *aligned.order)
    for one, other in aligned.pairs:
        for each in compare(before[one], now[other]):
            yield attrs.evolve(each, field=f"answers[{one}].{each.field}")


def _aligned(before: Sequence[Any], now: Sequence[Any], ignored: Ignored) -> _Alignment:
    if "data.docs[0].id" not in ignored:
        ids = [[_id_of(each) for each in several] for several in (before, now)]
        if all(all(each) and len({*each}) == len(each) for each in ids) and {*ids[0]} & {*ids[1]}:
            return _by_ids(*ids)
    if len(before) * len(now) > _MOST_PAIRS:
        return _as_they_come(len(before), len(now))
    return _by_content(*([_digest(each, ignored) for each in several] for several in (before, now)))


def _by_ids(before: list[str], now: list[str]) -> _Alignment:
    there, here = ({each: index for index, each in enumerate(several)} for several in (before, now))
    common = [each for each in before if each in here]
    moved = [each for each in now if each in there]
    return _Alignment(
        pairs=[(there[each], here[each]) for each in common],
        missing=[index for index, each in enumerate(before) if each not in here],
        extra=[index for index, each in enumerate(now) if each not in there],
        order=None if common == moved else _order(common, moved),
    )


def _order(before: Sequence[str], now: Sequence[str]) -> tuple[str, str]:
    """The part of both in which they differ, from its beginning on."""
    begin = next(index for index, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1])
    shown_of = [", ".join(several[begin : begin + _SHOWN_IDS]) for several in (before, now)]
    more = ", ..." if len(before) > begin + _SHOWN_IDS else ""
    return f"{shown_of[0]}{more}", f"{shown_of[1]}{more}"


def _by_content(before: list[bytes], now: list[bytes]) -> _Alignment:
    pairs: list[tuple[int, int]] = []
    missing: list[int] = []
    extra: list[int] = []
    for kind, one, one_end, other, other_end in SequenceMatcher(None, before, now, False).get_opcodes():
        ones, others = range(one, one_end), range(other, other_end)
        if kind in ("equal", "replace"):
            pairs += zip(ones, others, strict=False)
            ones, others = ones[len(others) :], others[len(ones) :]
        missing += ones
        extra += others
    moved: list[tuple[int, int]] = []
    for index in (*missing,):
        place = next((each for each in extra if now[each] == before[index]), None)
        if place is not None:
            missing.remove(index)
            extra.remove(place)
            moved.append((index, place))
    order = None
    if moved:
        places = [", ".join(str(pair[side]) for pair in moved[:_SHOWN_IDS]) for side in (0, 1)]
        order = f"at {places[0]}", f"at {places[1]}"
    return _Alignment([*pairs, *moved], missing, extra, order)


def _as_they_come(before: int, now: int) -> _Alignment:
    both = min(before, now)
    return _Alignment([(each, each) for each in range(both)], range(both, before), range(both, now))


def _id_of(message: Any) -> str:
    """The ids of its documents; nothing if one has none."""
    ids = []
    for document in message.data.docs.docs:
        if document.DESCRIPTOR.name == "DocProto":
            found = document.data["id"].text if "id" in document.data else ""
        else:
            found = document.id
        if not found:
            return ""
        ids.append(found)
    return " ".join(ids)


def _digest(message: Any, ignored: Ignored) -> bytes:
    """The same for answers whose documents are the same, but for fields that are ignored."""
    digest = hashlib.blake2b(digest_size=16)
    for document in message.data.docs.docs:
        if document.DESCRIPTOR.name == "DocProto":
            names = [name for name in sorted(document.data) if f"data.docs[0].{name}" not in ignored]
            for name in names:
                digest.update(name.encode())
                digest.update(document.data[name].SerializeToString(deterministic=True))
        else:
            copied = type(document)()
            copied.CopyFrom(document)
            for field in document.DESCRIPTOR.fields:
                if f"data.docs[0].{field.name}" in ignored:
                    copied.ClearField(field.name)
            digest.update(copied.SerializeToString(deterministic=True))
        digest.update(b"\0")
    if message.data.docs_bytes:
        digest.update(message.data.docs_bytes)
    return digest.digest()
