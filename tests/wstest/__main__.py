"""
Runs Autobahn|Testsuite's fuzzing client against the echo: ``python -m tests.wstest WSTEST [CASE ...]``.

``WSTEST`` is the suite's command, which needs Python 2.7. The exit code is 1 if a case ended otherwise
than it should, told case by case; the suite's own report is left in ``build/wstest``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

from tests.paths import ROOT

REPORTS = ROOT / "build" / "wstest"

# The suite's words for a case that went as RFC 6455 wants, or may, have it.
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


def main(command: str, cases: list[str]) -> int:
    """The exit code."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    echo = subprocess.Popen(
        [sys.executable, "-m", "tests.wstest.echo"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert echo.stdout is not None
        port = int(echo.stdout.readline())
        spec = REPORTS / "fuzzingclient.json"
        spec.write_text(json.dumps(_spec(port, cases or ["*"])))
        subprocess.run(
            [command, "-m", "fuzzingclient", "-s", str(spec)], check=True, stdout=subprocess.DEVNULL
        )
    finally:
        echo.kill()
        echo.wait()
    return _told(json.loads((REPORTS / "index.json").read_text())["gatewayd"])


def _spec(port: int, cases: list[str]) -> dict[str, object]:
    return {
        "outdir": str(REPORTS),
        "servers": [{"agent": "gatewayd", "url": f"ws://127.0.0.1:{port}/"}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }


def _told(results: dict[str, dict[str, str]]) -> int:
    bad = {
        case: result
        for case, result in results.items()
        if not {result["behavior"], result["behaviorClose"]} <= GOOD
    }
    for case, result in sorted(bad.items()):
        sys.stdout.write(f"{case}: {result['behavior']}, closing {result['behaviorClose']}\n")
    counts = Counter(result["behavior"] for result in results.values())
    told = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    sys.stdout.write(f"{len(results)} cases: {told}; {len(bad)} not as they should be\n")
    return 1 if bad or not results else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
