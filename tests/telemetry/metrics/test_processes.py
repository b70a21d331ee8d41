"""What the system tells of processes."""

import os
import subprocess
import sys

from gatewayd.telemetry.metrics.processes import usage_of


def test_processes_that_are_there_have_memory_and_used_time():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    found = usage_of({"own": os.getpid(), "parent": os.getppid(), "gone": gone.pid})

    assert found.keys() == {"own", "parent"}
    assert found["own"].memory_bytes > 1_000_000
    assert found["own"].cpu_s > 0
