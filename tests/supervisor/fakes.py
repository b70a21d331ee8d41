"""Processes that are made up: what a test starts, moves and ends through a reactor of its own."""

import json

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gatewayd.executor.spec import ExecutorSpec


class FakeProcess:
    """The transport of one spawned process, moved by the test."""

    def __init__(self, pid, protocol, env, args, descriptors):
        self.pid, self.protocol, self.env = pid, protocol, env
        self.args, self.descriptors = args, descriptors
        self.written, self.signals, self.exited = b"", [], False
        protocol.makeConnection(self)

    def writeToChild(self, descriptor, data):
        assert descriptor == 0
        self.written += data

    def signalProcess(self, name):
        if self.exited:
            raise ProcessExitedAlready
        self.signals.append(name)

    def loseConnection(self):
        pass

    def closeChildFD(self, descriptor):
        pass

    @property
    def lines(self):
        """What was written to it."""
        return self.written.splitlines(keepends=True)

    @property
    def spec(self):
        return ExecutorSpec.from_line(self.lines[0])

    def report(self, **event):
        self.protocol.childDataReceived(3, json.dumps(event).encode() + b"\n")

    def serve(self):
        self.report(event="ready", address=f"127.0.0.1:{self.pid}")

    def exit(self, code=None, signal=None):
        self.exited = True
        reason = Failure(ProcessTerminated(code, signal) if code or signal else ProcessDone(0))
        self.protocol.processExited(reason)
        self.protocol.processEnded(reason)


class FakeGroups:
    """``os.killpg``, for the groups that a test says there are."""

    def __init__(self):
        self.alive, self.signals = set(), []

    def kill(self, group, number):
        if group not in self.alive:
            raise ProcessLookupError
        self.signals.append((group, number))


class FakeReactor(Clock):
    def __init__(self):
        super().__init__()
        self.processes = []

    def callFromThread(self, function, *args):
        function(*args)

    def spawnProcess(self, protocol, executable, args=(), env=None, *, childFDs=None):
        assert {0: "w", 1: "r", 2: "r", 3: "r"}.items() <= childFDs.items()
        inherited = {number: ours for number, ours in childFDs.items() if number > 3}
        self.processes.append(FakeProcess(1000 + len(self.processes), protocol, env, args, inherited))
        return self.processes[-1]
