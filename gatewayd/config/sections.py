"""
One map read by its section of the key table: unknown keys refused, values checked and converted.

First ``gather`` says which keys were given and where, then layers are put over each other (``with``
under a section's own), then ``read`` turns what is left into the model's values.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Final

import attrs

from gatewayd.config.keys import EXECUTOR, FLOW, GATEWAY, IGNORED, NOT_YET, SUPPORTED, Key, Section
from gatewayd.config.kinds import Refused
from gatewayd.config.problems import Place, nearest, show


@attrs.frozen
class Given:
    """A value as written, and where."""

    key: Key
    value: Any
    place: Place


Layer = dict[str, Given]  # by Key.name; null in a file means "not given" and is not in here


def gather(section: Section, mapping: Mapping[str, Any], place: Place, *, free_prefix: str = "") -> Layer:
    """What ``mapping`` gives; unknown keys are reported, but for those that start with ``free_prefix``."""
    layer: Layer = {}
    written: dict[str, str] = {}
    for word, value in mapping.items():
        key = section.find(word)
        inside = place.inside(word)
        if key is None:
            if not (free_prefix and word.startswith(free_prefix)):
                inside.refuse(_unknown(word, (section,), section.title))
        elif key.name in written:
            inside.refuse(f"means the same as {written[key.name]}, which is given too; give one of them")
        else:
            written[key.name] = word
            if value is not None:
                layer[key.name] = Given(key, value, inside)
    return layer


# So many words can be read at a glance; of more, only those that come near.
_FEW: Final = 12


def _unknown(word: str, sections: Iterable[Section], title: str) -> str:
    keys = [key for section in sections for key in section.keys]
    known = sorted({key.name for key in keys})
    # An alias is worth a word only where no name comes near.
    near = nearest(word, known, most=3) or nearest(
        word, [each for key in keys for each in key.aliases], most=1
    )
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif len(known) <= _FEW:
        hint = f"accepted: {', '.join(known)}"
    else:
        hint = "the page Flow file of the reference has all keys"
    return f"unknown key of the {title}; {hint}"


@attrs.frozen
class Spread:
    """What the Flow's ``with`` gives to the Flow itself, to its gateway and to its executors."""

    flow: Layer
    gateway: Layer
    executors: Layer


def spread(mapping: Mapping[str, Any], place: Place) -> Spread:
    """Deal the keys of ``with`` out (spec flow-yaml.md, "How with spreads")."""
    result = Spread({}, {}, {})
    for word, value in mapping.items():
        inside = place.inside(word)
        if own := FLOW.find(word):
            if value is not None:
                result.flow[own.name] = Given(own, value, inside)
            continue
        takers = [
            (key, layer)
            for section, layer in ((GATEWAY, result.gateway), (EXECUTOR, result.executors))
            if (key := section.find(word)) is not None
        ]
        if not takers:
            inside.refuse(_unknown(word, (FLOW, GATEWAY, EXECUTOR), "with"))
            continue
        takers = [(key, layer) for key, layer in takers if key.spreads]
        if not takers:
            inside.refuse("this key is set in the gateway or in an executor, not in with")
            continue
        # Where one of them supports it, it does its work there, and the other need not be told of.
        able = [taker for taker in takers if taker[0].status == SUPPORTED]
        refusing = [taker for taker in takers if taker[0].status == NOT_YET]
        for key, layer in able or (refusing or takers)[:1]:
            if key.name in layer:
                inside.refuse(f"means the same as {layer[key.name].place.path[-1]}; give one of them")
            elif value is not None:
                layer[key.name] = Given(key, value, inside)
    return result


def read(layer: Layer) -> dict[str, Any]:
    """
    The model's values, by ``Key.name``, of what was given and is supported.

    What is not accepted is reported and left out, so that the model's default stands in for it.
    """
    values: dict[str, Any] = {}
    for name, given in layer.items():
        value = read_value(given)
        if value is not ...:
            values[name] = value
    return values


def model_arguments(
    section: Section, values: Mapping[str, Any], model: type, *, but: Container[str]
) -> dict[str, Any]:
    """
    The checked ``values`` of a section, by ``Key.name``, as arguments of ``model``: those that it has.

    A key of the table whose field the model has arrives without being named anywhere else. ``but`` are
    fields that the caller works out.
    """
    fields = attrs.fields_dict(model)
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = section.find(name)
        if key is not None and key.field in fields and key.field not in but:
            found[key.field] = value
    return found


def read_value(given: Given) -> Any:
    """One value, or ``...`` if there is nothing to use."""
    key = given.key
    try:
        literal = (
            given.place.source.literal(given.place.path, given.value) if key.kind.literal else given.value
        )
        value = key.kind.read(literal)
        if key.status != SUPPORTED:
            if key.default is None or value != key.kind.read(key.default):
                _tell(given)
            return ...
        return value
    except Refused as refused:
        report(refused, given)
    return ...


def _tell(given: Given) -> None:
    key = given.key
    if key.status == IGNORED:
        given.place.warn(f"ignored: {key.doc}")
        return
    default = "leave it out" if key.default is None else f"leave it out or set it to {show(key.default)}"
    given.place.refuse(f"not supported yet ({key.doc.rstrip('.')}); {default}")


def report(refused: Refused, given: Given) -> None:
    """Tell a refused value at the part of it that is wrong."""
    place = given.place.inside(*refused.inside)
    if refused.message:
        place.refuse(refused.message)
    else:
        found = given.value if refused.found is ... else refused.found
        place.refuse_value(found, refused.accepted or given.key.kind.accepted, secret=given.key.secret)
