"""An executor with child processes, for tests of what becomes of them; the file ``pids`` gets their pids."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from docarray import DocumentArray

from gatewayd import Executor, requests

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(1000)
"""


def _popen() -> int:
    return subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid


def _stubborn() -> int:
    """One that only SIGKILL ends. It holds our output open, too."""
    child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    child.stdout.readline()
    return child.pid


def _fork() -> int:
    child = os.fork()
    if not child:
        time.sleep(1000)
        os._exit(0)
    return child


CHILDREN = {"popen": _popen, "stubborn": _stubborn, "fork": _fork}


class Parent(Executor):
    def __init__(self, pids, kind=None, load_forever=False, **kwargs):
        super().__init__(**kwargs)
        if kind is not None:
            with Path(pids).open("a") as file:
                file.write(f"{CHILDREN[kind]()}\n")
        if load_forever:
            time.sleep(1000)

    @requests(on="/end_one")
    def end_one(self, docs: DocumentArray, **kwargs):
        return _ended()

    @requests(on="/end_one_on_the_loop")
    async def end_one_on_the_loop(self, docs: DocumentArray, **kwargs):
        return _ended()


def _ended() -> dict[str, int]:
    """Fork a child, end it as ``multiprocessing`` does; its exit code."""
    child = multiprocessing.get_context("fork").Process(target=_wait)
    child.start()
    child.terminate()
    child.join()
    return {"code": child.exitcode}


def _wait() -> None:
    signal.pause()
