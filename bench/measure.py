"""Rounds: each case on each side, in turns, so that whatever else the machine does meets all sides alike."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from bench.cases import Case
from bench.figures import Failed, Figures, Round, of_rounds
from bench.sides import Side, cpu_s
from tests.paths import ROOT
from tests.processes import Child

# What a load may take beyond its time: the slowest answers, and a busy machine.
_PATIENCE_S: Final = 30.0


class Load:
    """The load generator's process for one case at one side."""

    def __init__(self, case: Case, side: Side, stack: contextlib.ExitStack) -> None:
        where = (str(side.ports[case.protocol]), str(case.concurrency))
        self._child = Child([sys.executable, "-m", "bench.load", case.kind, case.payload, *where], cwd=ROOT)
        stack.callback(self._child.stop)
        self._child.line("^ready", timeout_s=_PATIENCE_S)
        self._orders = 0

    def order(self, what: str, seconds: float) -> dict[str, Any]:
        self._orders += 1
        self._child.tell(what)
        lines = self._child.line("^RESULT (.*)$", count=self._orders, timeout_s=seconds + _PATIENCE_S)
        found: dict[str, Any] = json.loads(lines[-1][1])
        return found


def _round(case: Case, side: Side, load: Load, seconds: float) -> Round:
    before = cpu_s(side.pids)
    closed = load.order(f"closed {seconds}", seconds)
    cpu = cpu_s(side.pids) - before
    paced = load.order(f"open {seconds} {case.rate}", seconds) if case.rate else None
    return Round(
        cpu_us=cpu / closed["requests"] * 1e6,
        per_second=closed["requests"] / closed["seconds"],
        load_busy=closed["busy"],
        median_ms=paced["median_ms"] if paced else closed["median_ms"],
        p99_ms=paced["p99_ms"] if paced else closed["p99_ms"],
    )


def measure(
    case: Case, sides: Sequence[Side], rounds: int, seconds: float
) -> tuple[dict[str, Figures], list[Failed]]:
    """The figures of each side by its name, and what has failed: a side that fails is left out."""
    found: dict[str, list[Round]] = {}
    failed: list[Failed] = []
    loads: dict[str, Load] = {}
    with contextlib.ExitStack() as stack:
        taking_part = [side for side in sides if case.protocol in side.ports]
        for number in range(rounds):
            for side in taking_part if number % 2 else reversed(taking_part):
                if any(one.side == side.name for one in failed):
                    continue
                try:
                    if side.name not in loads:
                        loads[side.name] = Load(case, side, stack)
                    one = _round(case, side, loads[side.name], seconds)
                    found.setdefault(side.name, []).append(one)
                except (OSError, AssertionError) as error:
                    failed.append(Failed(case.key, side.name, str(error).strip()[-500:]))
                    found.pop(side.name, None)
    return {name: of_rounds(results) for name, results in found.items()}, failed
