"""
The actor of one replica on Ray: it runs the executor's process on its node, and tells what becomes of it.

    driver ── start(spec) ──> actor ── standard input ──> python -m gatewayd.executor
           <── events() ────        <── descriptor 3, stdout, stderr ──

The executor serves its gRPC port from a process of its own, as it does without Ray: it has its own signals,
its own log level, and a crash of it is told rather than guessed. It ends when the actor does, because its
standard input ends then. Documents never come here.

The end of the node is told as well, as soon as its raylet has ended: Ray takes seconds to end what it has
started there, and to tell of it.

Ray is imported inside functions, so that the tests of what decides here need none.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# What is kept of an executor's output while the driver does not fetch it.
_MOST_EVENTS: Final = 1000
_LONGEST_LINE: Final = 64 * 1024
_LAST_LINES: Final = 20
# A driver asks again after this time, so that a connection without an end is not waited for for ever.
_POLL_S: Final = 20.0
_READ_BYTES: Final = 1 << 16
STDOUT, STDERR, REPORT = 1, 2, 3
# Ray's process on each node, the parent of all workers.
_RAYLET: Final = "raylet"


class ReplicaActor:
    """One replica: ``start`` first, then ``events`` again and again, at last ``stop``."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=_MOST_EVENTS)
        self._count = 0  # of all events so far
        self._changed = asyncio.Event()
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._pid: int | None = None
        self._stdin: int | None = None
        self._serves: dict[str, Any] | None = None
        self._report: asyncio.Future[dict[str, Any]] | None = None
        self._ended = asyncio.Event()
        self._waiting: asyncio.Task[None] | None = None

    async def start(self, spec: str, environment: Mapping[str, str]) -> dict[str, Any]:
        """
        Run the executor of ``spec``, a line of JSON (``ExecutorSpec``), on this node.

        Returns its ``address`` and ``pid``, and the node's ``node`` and ``ip``; or ``error``.
        """
        ip, node = _here()
        plain = {**json.loads(spec), "host": ip, "port": 0, "socket": None}
        loop = asyncio.get_running_loop()
        self._report = loop.create_future()
        pid, stdin, pipes = _spawn(
            ["-m", "gatewayd.executor", str(plain.get("deployment"))],
            {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": _path(), **environment},
        )
        self._pid, self._stdin = pid, stdin
        self._follow_node(loop)
        readers = [
            loop.create_task(self._read(descriptor, await _reader(pipe)))
            for descriptor, pipe in pipes.items()
        ]
        self._waiting = loop.create_task(self._wait(pid, readers))
        self._write(json.dumps(plain))
        report = await self._report
        if "error" in report:
            return report
        self._serves = {"address": report["address"], "pid": pid, "node": node, "ip": ip}
        self._serves["monitoring"] = report.get("monitoring")
        return self._serves

    def _follow_node(self, loop: asyncio.AbstractEventLoop) -> None:
        parent = os.getppid()
        try:
            name = Path(f"/proc/{parent}/comm").read_text().strip()
            descriptor = os.pidfd_open(parent) if name == _RAYLET else None
        except (OSError, AttributeError):
            descriptor = None  # no Linux: Ray itself will tell
        if descriptor is not None:
            loop.add_reader(descriptor, self._node_ended, loop, descriptor)

    def _node_ended(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        self._happened({"ended": "its Ray node has ended", "lines": [], "node": True})

    async def serves(self) -> dict[str, Any] | None:
        """As what ``start`` returned; None if it does not serve any more."""
        return None if self._ended.is_set() else self._serves

    async def tell(self, line: str) -> None:
        """Write a line of JSON to the executor's standard input."""
        self._write(line)

    async def events(self, seen: int) -> tuple[int, list[dict[str, Any]]]:
        """
        What has happened after the first ``seen`` events, and how many there are now.

        Waits for one. An event is ``{"line": ..., "descriptor": 1 or 2}`` or ``{"ended": cause, "lines":
        the last lines}``, with ``"node": True`` where it is the node that has ended.
        """
        if self._count <= seen and not self._ended.is_set():
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), _POLL_S)
            except TimeoutError:
                return self._count, []
        new = min(self._count - seen, len(self._events))
        found = [self._events[index] for index in range(len(self._events) - new, len(self._events))]
        if (left_out := self._count - seen - new) > 0:
            text = f"{left_out} more lines are left out of the log"
            found.insert(0, {"line": text, "descriptor": STDERR})
        return self._count, found

    async def stop(self, grace_s: float | None) -> None:
        """Send the executor SIGTERM, and SIGKILL after ``grace_s``, None for never; wait for its end."""
        if self._pid is None or self._ended.is_set():
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._ended.wait(), grace_s)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._ended.wait()

    def _signal(self, number: int) -> None:
        assert self._pid is not None
        try:
            os.kill(self._pid, number)
        except ProcessLookupError:
            self._changed.set()

    def _write(self, line: str) -> None:
        if self._stdin is not None and not self._ended.is_set():
            try:
                os.write(self._stdin, line.encode() + b"\n")
            except BrokenPipeError:
                self._changed.set()  # its end is about to be told

    def _happened(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        self._count += 1
        self._changed.set()

    async def _read(self, descriptor: int, reader: asyncio.StreamReader) -> None:
        rest = b""
        while data := await reader.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LONGEST_LINE and descriptor != REPORT:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._line(descriptor, line)
        if rest:
            self._line(descriptor, rest)

    def _line(self, descriptor: int, line: bytes) -> None:
        if descriptor != REPORT:
            text = line.decode("utf-8", "replace").rstrip("\r")
            if descriptor == STDERR:
                self._last_lines.append(text)
            self._happened({"line": text, "descriptor": descriptor})
        elif self._report is not None and not self._report.done():
            self._report.set_result(json.loads(line))

    async def _wait(self, pid: int, readers: list[asyncio.Task[None]]) -> None:
        _, status = await asyncio.get_running_loop().run_in_executor(None, os.waitpid, pid, 0)
        # What it printed last may still be in the pipes; a child of its own may keep them open.
        await asyncio.wait(readers, timeout=0.5)
        number = os.waitstatus_to_exitcode(status)
        cause = f"exit code {number}" if number >= 0 else f"killed by {signal.Signals(-number).name}"
        self._ended.set()
        self._happened({"ended": cause, "lines": list(self._last_lines)})
        if self._report is not None and not self._report.done():
            self._report.set_result({"error": "\n".join([cause, *self._last_lines])})


class Owner:
    """Says by its name that a gateway keeps the detached replicas of a namespace."""

    async def serves(self) -> bool:
        """Whether it is there."""
        return True


def _here() -> tuple[str, str]:
    """The address of this node, and its id."""
    import ray

    return ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id()


def _path() -> str:
    """Where this process finds modules, those of its runtime environment among them, without Ray's own."""
    return os.pathsep.join(each for each in sys.path if each and "thirdparty_files" not in each)


def _spawn(arguments: list[str], environment: Mapping[str, str]) -> tuple[int, int, dict[int, int]]:
    """A process of Python: its number, its standard input, and its pipes by its descriptors."""
    inner_in, stdin = _pipe()
    pipes, actions = {}, [(os.POSIX_SPAWN_DUP2, inner_in, 0)]
    inner = [inner_in]
    for descriptor in (STDOUT, STDERR, REPORT):
        pipes[descriptor], end = _pipe()
        inner.append(end)
        actions.append((os.POSIX_SPAWN_DUP2, end, descriptor))
    try:
        pid = os.posix_spawn(
            sys.executable, [sys.executable, *arguments], dict(environment), file_actions=actions
        )
    finally:
        for end in inner:
            os.close(end)
    return pid, stdin, pipes


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are none of those that the child has."""
    found = []
    for end in os.pipe():
        found.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, REPORT + 1))
        os.close(end)
    return found[0], found[1]


async def _reader(pipe: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb"))
    return reader
