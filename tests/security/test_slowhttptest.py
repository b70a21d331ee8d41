"""slowhttptest (a package of Debian) with 1 000 connections, while an ordinary client keeps its times."""

from __future__ import annotations

import resource
import shutil
import signal
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
SECONDS = 60  # at the most: it is ended when enough has been seen

# Quiet times and attacks take turns, with some 240 answers in each. Other work on the machine comes and goes
# and only adds to what an answer takes, so the calmest of each are compared. The tool sends to all its
# connections once a second: that is in every one.
ROUNDS = 4
ROUND_S = 6.0

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
        quiet, attacked = [], []
        for _ in range(ROUNDS):
            until(lambda: victim.open_files() < 0.1 * CONNECTIONS, 30.0, victim.open_files)
            with Bystander(victim) as bystander:
                time.sleep(ROUND_S)
            quiet.append(bystander.percentile_s(0.99))
            with subprocess.Popen(
                [*command, *MODES[mode]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            ) as tool:
                until(lambda: victim.open_files() > 0.95 * CONNECTIONS, 15.0, victim.open_files)
                with Bystander(victim) as bystander:
                    time.sleep(ROUND_S)
                assert victim.open_files() > 0.95 * CONNECTIONS
                tool.send_signal(signal.SIGINT)
                output = tool.communicate(timeout=60)[0]
            attacked.append(bystander.percentile_s(0.99))
            assert bystander.statuses == {200}, output[-2000:]
            assert bystander.most_bytes < 100 * MB
    figures.record(p99=f"{1000 * min(attacked):.0f}", quiet=f"p99 {1000 * min(quiet):.0f} ms without it")
    assert min(attacked) < 2 * min(quiet) + 0.01, (attacked, quiet)
