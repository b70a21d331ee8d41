"""slowhttptest (a package of Debian) with 1 000 connections, while an ordinary client keeps its times."""

from __future__ import annotations

import resource
import shutil
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.security import figures
from tests.security.conftest import MB, Bystander, Victim
from tests.security.test_connections import descriptors
from tests.waiting import until

pytestmark = pytest.mark.security

TOOL = shutil.which("slowhttptest")
CONNECTIONS = 1000
SECONDS = 12

# A head, a body and a reader, each with a few bytes a second.
MODES = {
    "heads": ("-H", "-x", "8"),
    "bodies": ("-B", "-s", "65536", "-x", "8", "-f", "application/json"),
    "readers": ("-X", "-w", "10", "-y", "20", "-n", "1", "-z", "5", "-k", "3"),
}


@pytest.mark.skipif(TOOL is None, reason="slowhttptest is not installed")
@pytest.mark.parametrize("mode", MODES)
def test_slowhttptest_with_1000_connections(attack: Callable[..., Victim], mode: str) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY and most < 4 * CONNECTIONS:
        pytest.skip(f"a process may have {most} descriptors here")
    with descriptors(4 * CONNECTIONS):
        victim = attack()
        path = "/openapi.json" if mode == "readers" else "/post"
        url = f"http://127.0.0.1:{victim.ports['http']}{path}"
        assert TOOL is not None
        command = [TOOL, *f"-c {CONNECTIONS} -r 500 -i 1 -l {SECONDS} -u {url}".split()]
        with Bystander(victim) as quiet:
            time.sleep(4.0)
        with subprocess.Popen(
            [*command, *MODES[mode]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as tool:
            until(lambda: victim.open_files() > 0.95 * CONNECTIONS, 15.0, victim.open_files)
            with Bystander(victim) as bystander:
                time.sleep(6.0)
            assert victim.open_files() > 0.95 * CONNECTIONS
            output = tool.communicate(timeout=60)[0]
    assert bystander.statuses == {200}, output[-2000:]
    assert bystander.most_bytes < 100 * MB
    figures.record(quiet=f"p99 {1000 * quiet.percentile_s(0.99):.0f} ms without it")
    assert bystander.percentile_s(0.99) < 2 * quiet.percentile_s(0.99) + 0.01
