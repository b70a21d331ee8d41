"""
The process behind a started Flow: spawned, waited for until it serves, ended with everything under it.

    start() ── "listening", "up" ..., "ready" ──> serving ── close(), or the end of this process
       └────── "failed", or its end ──> RuntimeFailToStart

The gateway gets one line of JSON on its standard input, which then stays open. When that ends, the gateway
stops (see ``gatewayd/service/child.py``), so nothing is left behind however this process ends. Executors stop
with the gateway in the same way.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from gatewayd.errors import BaseJinaException
from gatewayd.executor.by_value import own_path
from gatewayd.executor.spec import BRIEF

# After the grace period, for connections and executors to be closed. By feel.
_PATIENCE_S: Final = 20.0

Event = Mapping[str, Any]


class RuntimeFailToStart(SystemError, RuntimeError, BaseJinaException):
    """
    A Flow that cannot start; everything that had been started has ended.

    ``replica`` names the one that failed, None for the gateway. ``str(error)`` ends with the
    executor's own traceback.
    """

    def __init__(self, message: str, replica: str | None = None) -> None:
        self.replica = replica
        super().__init__(message)


class PortAlreadyUsed(RuntimeFailToStart):
    """A port that the gateway was to listen on is taken."""


class _Warned:
    """What the gateways of this process have warned of: once is enough."""

    of_strangers = False


class RunningGateway:
    """One gateway process. ``ports`` are those of its listeners, in their order."""

    def __init__(
        self, message: Mapping[str, Any], grace_s: float | None, on_event: Callable[[Event], None]
    ) -> None:
        """
        Start it and wait until all executors serve; ``on_event`` gets the events of the start.

        ``grace_s`` bounds what ``close`` waits for, None for no bound.

        Raises RuntimeFailToStart; then, as with any other exception (Ctrl-C), all has ended again.
        """
        self.ports: list[int] = []
        self._patience_s = None if grace_s is None else grace_s + _PATIENCE_S
        self._closing = threading.Lock()
        # Popen execs at once (vfork): no Python and no gRPC ever runs in a copy of this process.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gatewayd.service.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
        )
        try:
            self._send(
                {
                    **message,
                    "parent": os.getpid(),
                    "warns_of_strangers": not _Warned.of_strangers,
                }
            )
            for event in self._events():
                on_event(event)
                self._take(event)
        except BaseException:
            self._end(_PATIENCE_S)  # it has no requests to finish: it is quick without being hurried
            raise
        # Threads that outlive the main one are waited for before this is called; none of them is ours.
        atexit.register(self.close)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Its exit code when it has ended, None if it has not within ``timeout_s``."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """
        Let what is under way finish, and return when all processes have ended.

        Another Ctrl-C meanwhile ends them at once. A second call does nothing.
        """
        atexit.unregister(self.close)
        self._end(self._patience_s)

    def _end(self, patience_s: float | None) -> None:
        with self._closing:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
            except BaseException:
                self._process.kill()
                self._process.wait()
                raise
            self._process.wait()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        # If it has ended already, its events say so.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _events(self) -> Iterator[Event]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            yield event
            if event["event"] == "ready":
                return
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        raise RuntimeFailToStart(
            f"the gateway's process ended before it was ready ({how}); see what it wrote"
        )

    def _take(self, event: Event) -> None:
        if event["event"] == "listening":
            self.ports = list(event["ports"])
            _Warned.of_strangers |= event["open"]
        elif event["event"] == "failed":
            error = str(event["error"]).rstrip()
            if event["kind"] == "replica":
                raise RuntimeFailToStart(f"{event['replica']} cannot start:\n\n{error}", event["replica"])
            raise (PortAlreadyUsed if event["kind"] == "PortTaken" else RuntimeFailToStart)(error)


def _environment() -> dict[str, str]:
    """This process's, with the modules that it can import importable there."""
    return {BRIEF: "1", **os.environ, "PYTHONPATH": os.pathsep.join(own_path())}
