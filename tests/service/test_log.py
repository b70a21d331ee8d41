"""What a gateway writes to its log: its own lines, and none of Twisted's about ports and factories."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import write_files
from tests.paths import ROOT
from tests.processes import Gateway

pytestmark = pytest.mark.slow

EXECUTORS = str(ROOT / "tests" / "executors.py")
# GatewaySite starting on 8080; (TCP Port 8080 Closed); Starting factory <...>; Stopping factory <...>
TWISTED = re.compile(r"\w+ starting on \d+|\(\w+ Port \d+ Closed\)|(Starting|Stopping) factory|<twisted\.")


def log_of(gateway: Mapping[str, Any]) -> str:
    """All that is written from the start to the end."""
    running = Gateway(
        {"gateway": gateway, "executors": [{"name": "exec_a", "uses": "Rec", "py_modules": [EXECUTORS]}]}
    )
    try:
        running.line(r"exec_a: \S+ connected")
    finally:
        assert running.stop() == 0
    return running.output


def test_the_log_has_no_lines_of_twisted_about_ports_and_factories() -> None:
    log = log_of({})
    assert "http on " in log
    assert "stopped" in log
    assert not TWISTED.findall(log), log


def test_neither_with_tls(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    log = log_of({"ssl_certfile": str(files.chain), "ssl_keyfile": str(files.key)})
    assert not TWISTED.findall(log), log
