"""
Every test that makes up its input, again and again with other input, for FUZZ_SECONDS (600).

    python -m tests.fuzz [ARGUMENT OF PYTEST ...]

A failure ends it, with the input that causes it and a seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.paths import ROOT

HERE = Path(__file__).parent


def files() -> list[str]:
    """The test files that use hypothesis, or dice of their own."""
    found = [path for path in (ROOT / "tests").rglob("test_*.py") if "import given" in path.read_text()]
    return sorted(str(path.relative_to(ROOT)) for path in (*found, HERE / "test_garbage_on_every_port.py"))


def main(arguments: list[str]) -> int:
    end = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "600"))
    rounds = 0
    while rounds == 0 or time.monotonic() < end:
        seed = int.from_bytes(os.urandom(3), "big")
        command = [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-m",
                "not interop and not faults and not security and not grpc_clients and not graphql_clients "
                "and not openai and not kubernetes and not ray",
            ),
            *(f"--hypothesis-seed={seed}", "--hypothesis-profile=fuzz", *files(), *arguments),
        ]
        code = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "GATEWAYD_FUZZ_SEED": str(seed)}
        ).returncode
        if code:
            sys.stdout.write(f"round {rounds + 1} failed with the seed {seed}\n")
            return code
        rounds += 1
    sys.stdout.write(f"{rounds} rounds, and nothing was found\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
