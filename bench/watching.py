"""
What it costs a gateway to be watched: CPU for each request with metrics, access log and traces, and without.

    python -m bench.watching [--rounds 9] [--seconds 2]

Gateways of ours in front of one executor, in the same run, taking turns; medians over the rounds. What is
wanted of metrics is at most 3 %.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any, Final

from bench.cases import CASES
from bench.idle import PAGE
from bench.report import replace, table
from bench.sides import Side, side, wait_until_it_answers
from bench.workers import measure
from tests.paths import ROOT
from tests.processes import Child, Gateway, external

_KEYS: Final = ("grpc-32", "http-32", "ws-bytes")
_PLAIN: Final = "not watched"


def _settings(folder: str) -> Mapping[str, Mapping[str, Any]]:
    """The gateways that are compared, by what watches them."""
    return {
        _PLAIN: {},
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
        running = []
        for name, settings in _settings(folder).items():
            gateway = Gateway({"gateway": dict(settings), "executors": [at]})
            stack.callback(gateway.stop)
            wait_until_it_answers(gateway.ports["http"], "http", gateway)
            running.append(side(name, gateway.pid, gateway.ports))
        yield running


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.watching")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    rows = []
    with gateways() as running:
        for case in CASES:
            if case.key not in _KEYS:
                continue
            found = measure(
                case, [(one, [one.pids[0]]) for one in running], arguments.rounds, arguments.seconds
            )
            plain, *watched = found
            ratios = [
                median(after.cpu_us / before.cpu_us for before, after in zip(plain, each, strict=True))
                for each in watched
            ]
            rows.append(
                [
                    case.title,
                    f"{median(each.cpu_us for each in plain):.0f}",
                    *(f"{(ratio - 1) * 100:+.1f} %" for ratio in ratios),
                ]
            )
            print(", ".join(rows[-1]), flush=True)
        heads = ["case", f"{_PLAIN}, µs", *(one.name for one in running[1:])]
    text = "CPU for each request, and what is added to it:\n\n" + table(heads, rows)
    print(f"\n{text}")
    PAGE.write_text(replace(PAGE.read_text(), text, "bench.watching"))
    print(f"Written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
