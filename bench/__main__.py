"""
Our gateway against the real Jina gateway: the same executor behind both, in the same run, on loopback.

    python -m bench [--quick] [--only WORD] [--no-jina]    measure; a whole run writes its pages
    python -m bench --only WORD --merge                    these cases again, where one had no figures
    python -m bench --check                                a short run against the saved ratios
    python -m bench --redraw                               the pages from the saved figures

Rounds alternate between the sides, and the figures are medians over the rounds. CPU is user and system time
of the gateway's process. The real Jina is the interpreter that GATEWAYD_JINA_PYTHON names
(.venv-jina/bin/python); nghttpx takes part in gRPC's cases where it is installed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from bench import report
from bench.cases import ALONE, CASES, GATEWAYD, JINA, NGHTTPX, Case
from bench.figures import TOLERANCE, Failed, Figures, Run, from_json, merged, to_json, worse
from bench.measure import measure
from bench.sides import GRPC_SERVER, JINA_PYTHON, Layout
from tests.paths import ROOT

FIGURES: Final = ROOT / "bench" / "figures.json"
PAGE: Final = ROOT / "docs" / "performance.md"
HOME: Final = ROOT / "docs" / "index.md"
PLOT: Final = ROOT / "docs" / "images" / "benchmark.svg"


def machine(grpc_server: str) -> str:
    linux, python = platform.release().split("-")[0], platform.python_version()
    where = f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {linux}, Python {python}"
    return f"{where}; grpc_server: {grpc_server}"


def run(cases: Sequence[Case], wanted: tuple[str, ...], rounds: int, seconds: float, grpc_server: str) -> Run:
    """Measure, and print how it goes. What fails is told by name, and ends nothing."""
    found: dict[str, dict[str, Figures]] = {}
    failed: list[Failed] = []
    begun = time.monotonic()
    for name, group in groupby(cases, key=lambda case: case.layout):
        of_layout = list(group)
        try:
            with Layout(name, wanted, grpc_server) as layout:
                for side, reason in layout.missing.items():
                    print(f"    {name}: {side} takes no part: {reason}", flush=True)
                    failed += [Failed(case.key, side, reason[-500:]) for case in of_layout]
                for case in of_layout:
                    figures, gone = measure(case, layout.sides, rounds, seconds)
                    found[case.key] = figures
                    failed += gone
                    print(f"{time.monotonic() - begun:6.0f} s  {report.line(case, figures)}", flush=True)
                    for one in gone:
                        print(f"    {one.side} has failed: {one.reason}", flush=True)
        except (OSError, AssertionError) as error:
            print(f"    {name}: nothing could be started: {error}", flush=True)
            failed += [Failed(case.key, GATEWAYD, str(error)[-500:]) for case in of_layout]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Run(today, machine(grpc_server), rounds, seconds, found, failed)


def check(cases: Sequence[Case], wanted: tuple[str, ...], grpc_server: str) -> int:
    saved = from_json(FIGURES.read_text())
    found = worse(saved, run(cases, wanted, 2, 0.5, grpc_server), cases)
    print(f"\nAgainst the run of {saved.date}, tolerance {TOLERANCE:.0%}:")
    for sentence in found:
        print(f"WORSE  {sentence}")
    print("" if found else "No ratio is worse.")
    return 1 if found else 0


def write(done: Run) -> None:
    FIGURES.write_text(to_json(done))
    PLOT.write_text(report.plot(done, CASES))
    PAGE.write_text(report.replace(PAGE.read_text(), report.markdown(done, CASES)))
    HOME.write_text(report.replace(HOME.read_text(), report.summary(done, CASES)))
    print("\nWritten: " + ", ".join(str(path.relative_to(ROOT)) for path in (FIGURES, PLOT, PAGE, HOME)))


def main() -> int:
    # Ends the processes that it has started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two short rounds; figures are rough")
    parser.add_argument(
        "--check", action="store_true", help="compare a quick run's ratios with the saved ones"
    )
    parser.add_argument("--redraw", action="store_true", help="write the pages from the saved figures")
    parser.add_argument("--only", default="", help="only cases whose title or key holds this text")
    parser.add_argument(
        "--merge", action="store_true", help="with --only: these cases replace the saved ones"
    )
    parser.add_argument("--no-jina", action="store_true", help="without the real Jina")
    parser.add_argument(
        "--grpc-server", choices=("grpcio", "gatewayd"), default=GRPC_SERVER, help="our gateway's"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round's two halves")
    options = parser.parse_args()
    if options.redraw:
        write(from_json(FIGURES.read_text()))
        return 0
    if not options.no_jina and not Path(JINA_PYTHON).exists():
        sys.exit(f"there is no {JINA_PYTHON}: `make bench` installs the real Jina, or use --no-jina")
    cases = [case for case in CASES if options.only in case.title or options.only == case.key]
    if not cases:
        sys.exit(f"no case has {options.only!r} in its title: {', '.join(case.key for case in CASES)}")
    wanted = tuple(name for name in (GATEWAYD, JINA, NGHTTPX, ALONE) if name != JINA or not options.no_jina)
    if options.check:
        return check(cases, wanted, options.grpc_server)
    rounds, seconds = (2, 0.5) if options.quick else (options.rounds, options.seconds)
    print(f"{rounds} rounds of {seconds} s (and as long at a fixed rate), in turns; {os.cpu_count()} CPUs\n")
    done = run(cases, wanted, rounds, seconds, options.grpc_server)
    print("\n" + report.markdown(done, cases))
    if options.merge and not (options.quick or options.no_jina):
        write(merged(from_json(FIGURES.read_text()), done))
    elif options.quick or options.only or options.no_jina:
        print("Nothing is written: only a whole run is (without --quick, --only, --no-jina), or --merge.")
    else:
        write(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
