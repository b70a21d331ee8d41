"""
What it costs a gateway to be watched: CPU for each request with metrics, access log and traces, and without.

    python -m bench.watching [--sets 6] [--rounds 8] [--seconds 0.35]

Gateways of ours that differ in nothing else, in front of one executor, taking turns in short rounds. Two
processes of one program differ by a few percent for as long as they live, so a few sets of gateways are
measured, each started anew, and in each of them a second one that nothing watches. What is told is the median
of what was added in all rounds, and the lowest and the highest median of a set: what is below that of the
second one, the figure does not say. What is wanted of metrics is at most 3 %.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Final

from bench.cases import CASES
from bench.idle import PAGE
from bench.report import replace, table
from bench.sides import Side, side, wait_until_it_answers
from bench.workers import Round, measure
from tests.paths import ROOT
from tests.processes import Child, Gateway, external

_KEYS: Final = ("grpc-32", "http-32", "ws-bytes")
_PLAIN: Final = "not watched"


def _settings(folder: str) -> Mapping[str, Mapping[str, Any]]:
    """The gateways that are compared, by what watches them."""
    return {
        _PLAIN: {},
        "not watched, either": {},
        "metrics": {"admin_port": 0},
        "access log": {"access_log": {"path": f"{folder}/access.log"}},
        "traces, none kept": {
            "tracing": True,
            "traces_exporter_host": "127.0.0.1",
            "traces_exporter_port": 1,
            "traces_sample": 0.0,
        },
    }


@contextlib.contextmanager
def gateways() -> Iterator[list[Side]]:
    """Each of them, ready, behind it the same executor."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        executor = Child([sys.executable, "-m", "bench.executor"], cwd=ROOT)
        stack.callback(executor.stop)
        (found,) = executor.line(r"serves at (\S+)")
        at = external("exec_a", int(found[1].rpartition(":")[2]))
        started = []
        for name, settings in _settings(folder).items():
            gateway = Gateway({"gateway": dict(settings), "executors": [at]})
            stack.callback(gateway.stop)
            started.append((name, gateway))
        for _, gateway in started:
            wait_until_it_answers(gateway.ports["http"], "http", gateway)
        yield [side(name, gateway.pid, gateway.ports) for name, gateway in started]


def added(sets: Sequence[Sequence[Sequence[Round]]]) -> list[str]:
    """
    What each side but the first takes more than the first, in words; of each set the rounds of every side.

    Rounds are compared with the first side's of the same number.
    """
    ratios = [
        [
            [after.cpu_us / before.cpu_us - 1 for before, after in zip(plain, each, strict=True)]
            for each in watched
        ]
        for plain, *watched in sets
    ]
    found = []
    for of_sets in zip(*ratios, strict=True):
        medians = [median(each) for each in of_sets]
        middle = median(ratio for each in of_sets for ratio in each)
        low, high = min(medians), max(medians)
        found.append(f"{middle * 100:+.1f} % ({low * 100:+.1f} to {high * 100:+.1f})")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.watching")
    parser.add_argument("--sets", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.35)
    arguments = parser.parse_args()
    cases = [case for case in CASES if case.key in _KEYS]
    measured: list[list[list[list[Round]]]] = [[] for _ in cases]
    for number in range(1, arguments.sets + 1):
        with gateways() as running:
            names = [one.name for one in running]
            for case, sets in zip(cases, measured, strict=True):
                sides = [(one, [one.pids[0]]) for one in running]
                sets.append(measure(case, sides, arguments.rounds, arguments.seconds))
                print(f"set {number}, {case.title}: {', '.join(added(sets[-1:]))}", flush=True)
    rows = [
        [case.title, f"{median(each.cpu_us for plain, *_ in sets for each in plain):.0f}", *added(sets)]
        for case, sets in zip(cases, measured, strict=True)
    ]
    text = (
        "CPU for each request, and what is added to it: the median of all rounds, and in brackets the lowest "
        f"and the highest median of {arguments.sets} sets of gateways:\n\n"
        + table(["case", f"{_PLAIN}, µs", *names[1:]], rows)
    )
    print(f"\n{text}")
    PAGE.write_text(replace(PAGE.read_text(), text, "bench.watching"))
    print(f"Written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
