"""How many replicas of an executor there may be, and what decides it, as a Flow file writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from gatewayd.config.kinds import Refused, ValueKind, integer, integer_of, number_of, read_map, seconds

MOST_REPLICAS: Final = 1024


@attrs.frozen
class ScalingConfig:
    """
    From ``least`` to ``most`` replicas, as many as keep ``target_in_flight`` requests at each.

    One is added when more have been needed for ``up_after_s``, and one ends when fewer have been needed for
    ``down_after_s``; seconds.
    """

    most: int
    least: int = 1
    target_in_flight: float = 2.0
    up_after_s: float = 5.0
    down_after_s: float = 60.0

    @property
    def first(self) -> int:
        """How many are started with the gateway: one at least, which shows that the executor can start."""
        return max(1, self.least)


def _target(value: Any) -> float:
    number = number_of(value)
    if number <= 0:
        raise Refused
    return number


_KINDS: Final = {
    "min": integer(0, MOST_REPLICAS),
    "max": integer(1, MOST_REPLICAS),
    "target_in_flight": ValueKind("a number more than 0", _target),
    "up_after": seconds(zero=False),
    "down_after": seconds(zero=False),
}
_FIELDS: Final = {"min": "least", "max": "most", "up_after": "up_after_s", "down_after": "down_after_s"}


def _replicas(value: Any) -> int | ScalingConfig:
    if not isinstance(value, Mapping):
        number = integer_of(value)
        if not 1 <= number <= MOST_REPLICAS:
            raise Refused
        return number
    found = read_map(value, _KINDS)
    if "max" not in found:
        raise Refused(message="max is missing: the most replicas that there may be")
    if found.get("min", 1) > found["max"]:
        raise Refused(
            inside=("min",),
            message=f"found {found['min']}, which is more than max, {found['max']}; accepted: at most max",
        )
    return ScalingConfig(**{_FIELDS.get(name, name): each for name, each in found.items()})


REPLICAS: Final = ValueKind(
    f"an integer from 1 to {MOST_REPLICAS}, or a map such as {{min: 1, max: 3, target_in_flight: 2}}",
    _replicas,
    annotation="int | Mapping[str, Any]",
)
