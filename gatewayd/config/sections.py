"""
Reads one map by its section of the key table: refuses unknown keys, checks and converts values.

``gather`` collects the keys that are present and their places. Layers are then merged: a section's own keys
override those of ``with``. ``read`` converts the result to the model's values.
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
    value: Any = attrs.field(repr=False)
    place: Place


Layer = dict[str, Given]  # by Key.name; a null in the file counts as absent


def gather(section: Section, mapping: Mapping[str, Any], place: Place, *, free_prefix: str = "") -> Layer:
    """The keys of ``mapping``. Unknown ones are reported, unless they start with ``free_prefix``."""
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


# A list of this many keys can be read at a glance; of a longer one only similar keys are suggested.
_FEW: Final = 12


def _unknown(word: str, sections: Iterable[Section], title: str) -> str:
    keys = [key for section in sections for key in section.keys]
    known = sorted({key.name for key in keys})
    # Suggest an alias only where no name is similar.
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
    """Distribute the keys of ``with`` (spec flow-yaml.md, "How with spreads")."""
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
        # If either supports the key, it takes effect there and the other one does not report it.
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
    The model's values, by ``Key.name``, of the keys that are present and supported.

    Values that are refused are reported and left out, so that the model's defaults apply.
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
    Those of the checked ``values``, by ``Key.name``, that ``model`` has a field for, as its arguments.

    A new key only has to be added to the table and to the model: no third list names it. ``but`` are fields
    that the caller computes.
    """
    fields = attrs.fields_dict(model)
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = section.find(name)
        if key is not None and key.field in fields and key.field not in but:
            found[key.field] = value
    return found


def read_value(given: Given) -> Any:
    """The converted value, or ``...`` if it is refused or not supported."""
    key = given.key
    try:
        literal = (
            given.place.source.literal(given.place.path, given.value) if key.kind.literal else given.value
        )
        value = key.kind.read(literal)
        if key.status != SUPPORTED:
            if key.default is None or value != key.kind.read(key.default):
                _report_unsupported(given)
            return ...
        return value
    except Refused as refused:
        _report_refused(refused, given)
    return ...


def _report_unsupported(given: Given) -> None:
    key = given.key
    if key.status == IGNORED:
        given.place.warn(f"ignored: {key.doc}")
        return
    default = "leave it out" if key.default is None else f"leave it out or set it to {show(key.default)}"
    given.place.refuse(f"not supported yet ({key.doc.rstrip('.')}); {default}")


def _report_refused(refused: Refused, given: Given) -> None:
    """Report a refused value at the part of it that is wrong."""
    place = given.place.inside(*refused.inside)
    if refused.message:
        place.refuse(refused.message)
    else:
        found = given.value if refused.found is ... else refused.found
        place.refuse_value(found, refused.accepted or given.key.kind.accepted, secret=given.key.secret)
