"""What was measured, as values: saved as JSON, and one run compared with another by its ratios (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

import attrs

from bench.cases import GATEWAYD, JINA, NGHTTPX, Case

# A short run's ratios differ by so much from a long one's, on a quiet machine.
TOLERANCE: Final = 0.25
# nghttpx takes a few milliseconds in a short run's round.
_ROUGHER: Final = {NGHTTPX: 2}


@attrs.frozen
class Round:
    """
    One case on one side, once. Latencies are those at the case's rate; without one, of the closed loop.

    ``cpu_us``: per request. ``load_busy``: the share of a CPU that the load generator took.
    """

    cpu_us: float
    per_second: float
    load_busy: float
    median_ms: float
    p99_ms: float


@attrs.frozen
class Figures(Round):
    """Medians over rounds."""


def of_rounds(rounds: Sequence[Round]) -> Figures:
    names = [field.name for field in attrs.fields(Round)]
    return Figures(**{name: median(getattr(one, name) for one in rounds) for name in names})


@attrs.frozen
class Failed:
    """A side of a case (of all cases of a layout, where it did not start) without figures, and why."""

    case: str
    side: str
    reason: str


@attrs.frozen
class Run:
    """One run of the benchmarks. ``cases``: figures by the case's key, then by side."""

    date: str
    machine: str
    rounds: int
    seconds: float
    cases: Mapping[str, Mapping[str, Figures]]
    failed: Sequence[Failed] = ()

    def times(self, case: str, one: str = JINA, other: str = GATEWAYD) -> float | None:
        """How many times more CPU ``one`` takes than ``other``; None without figures of both."""
        sides = self.cases.get(case, {})
        return sides[one].cpu_us / sides[other].cpu_us if one in sides and other in sides else None


def to_json(run: Run) -> str:
    def short(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 4)
        if isinstance(value, dict):
            return {key: short(each) for key, each in value.items()}
        return [short(each) for each in value] if isinstance(value, list) else value

    return json.dumps(short(attrs.asdict(run)), indent=1) + "\n"


def from_json(text: str) -> Run:
    """Raises ValueError, KeyError or TypeError if the text is not what ``to_json`` writes."""
    found = json.loads(text)
    cases = {
        key: {side: Figures(**figures) for side, figures in sides.items()}
        for key, sides in found.pop("cases").items()
    }
    failed = [Failed(**one) for one in found.pop("failed")]
    return Run(**found, cases=cases, failed=failed)


def merged(saved: Run, new: Run) -> Run:
    """``saved`` with the cases of ``new``, and what failed in them then."""
    failed = [one for one in saved.failed if one.case not in new.cases]
    return attrs.evolve(saved, cases={**saved.cases, **new.cases}, failed=[*failed, *new.failed])


def worse(saved: Run, new: Run, cases: Sequence[Case], tolerance: float = TOLERANCE) -> list[str]:
    """
    Sentences about each ratio of CPU that is worse in the new run by more than ``tolerance`` (a share).

    Cases that have no ratio any more are worse as well; those that are in one run only by choice are not.
    """
    found = []
    for case in cases:
        for other in (JINA, NGHTTPX):
            before, now = saved.times(case.key, other), new.times(case.key, other)
            if before is None:
                continue
            if now is None:
                gone = [
                    one.reason for one in new.failed if one.case == case.key and one.side in (GATEWAYD, other)
                ]
                if gone:
                    found.append(f"{case.title}: no figures, where there were some: {gone[0]}")
            elif now < before * (1 - tolerance * _ROUGHER.get(other, 1)):
                found.append(
                    f"{case.title}: {other} takes {now:.2f} times our CPU, where it took {before:.2f} times"
                )
    return found
