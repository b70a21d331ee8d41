"""schemathesis, from the gateway's own OpenAPI: no 500, no answer of another kind, nothing invalid taken."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.security.conftest import Victim

pytestmark = pytest.mark.security

TOOL = ROOT / ".venv-security" / "bin" / "schemathesis"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "invalid_bodies_are_refused",
)


@pytest.mark.skipif(not TOOL.exists(), reason="make security installs schemathesis")
def test_what_openapi_says_is_true(attack: Callable[..., Victim], tmp_path: Path) -> None:
    victim = attack(expose_graphql_endpoint=True, expose_endpoints={"/echo": {}})
    command = [
        str(TOOL), "run", f"http://127.0.0.1:{victim.ports['http']}/openapi.json", "--no-color",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "30", "--checks", ",".join(CHECKS),
        # Streams without end, which test_streams.py attacks.
        "--exclude-path-regex", "^/(endless|flood)$",
    ]  # fmt: skip
    hooks = {"SCHEMATHESIS_HOOKS": "tests.security.schemathesis_checks", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        command, env={**os.environ, **hooks}, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )

    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
