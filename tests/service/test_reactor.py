"""The reactor of a gateway's processes serves descriptors as Twisted's does."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import error
from twisted.python.failure import Failure

from tests.processes import environment

epoll = pytest.importorskip("gatewayd.service.epoll")


class Selectable:
    """One end of a pair of sockets."""

    def __init__(self, end: socket.socket, read: Callable[[], object]) -> None:
        self._end = end
        self.doRead = read
        self.lost: list[Failure] = []

    def fileno(self) -> int:
        return self._end.fileno()

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.fixture
def reactor(pair: object) -> Iterator[Any]:
    reactor = epoll.GatewayReactor()
    yield reactor
    for each in reactor.removeAll():
        each.connectionLost(Failure(error.ConnectionDone()))
    reactor._poller.close()


def test_what_is_ready_is_served_and_what_is_lost_is_told(reactor: Any, pair: Any) -> None:
    one, other = pair
    found: list[bytes] = []

    def read() -> object:
        found.append(one.recv(10))
        return None if found[-1] else error.ConnectionDone()

    ours = Selectable(one, read)
    reactor.addReader(ours)
    reactor.doIteration(0)
    assert found == []

    other.send(b"hello")
    reactor.doIteration(None)
    assert found == [b"hello"]

    other.close()
    reactor.doIteration(0)
    assert [each.type for each in ours.lost] == [error.ConnectionDone]
    assert ours not in reactor.getReaders()


def test_one_whose_read_fails_is_let_go_and_that_is_logged(
    reactor: Any, pair: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    one, other = pair

    def fail() -> None:
        raise ValueError("a mistake")

    ours = Selectable(one, fail)
    reactor.addReader(ours)
    other.send(b"hello")
    reactor.doIteration(0)
    assert [str(each.value) for each in ours.lost] == ["a mistake"]
    assert "ValueError: a mistake" in capfd.readouterr().err
    assert ours not in reactor.getReaders()


def test_one_that_another_removed_in_the_same_round_is_not_served(reactor: Any, pair: Any) -> None:
    one, other = pair
    served: list[str] = []

    def serve(name: str, another: Callable[[], Selectable]) -> Callable[[], None]:
        def read() -> None:
            served.append(name)
            reactor.removeReader(another())

        return read

    first = Selectable(one, serve("first", lambda: second))
    second = Selectable(other, serve("second", lambda: first))
    for each, end in ((first, other), (second, one)):
        reactor.addReader(each)
        end.send(b"x")
    reactor.doIteration(0)
    assert len(served) == 1


@pytest.mark.parametrize(("before", "expected"), [("", "GatewayReactor"), ("poll", "PollReactor")])
def test_it_is_the_one_that_runs_unless_another_was_asked_for(before: str, expected: str) -> None:
    choose = f"from twisted.internet import {before}reactor; {before}reactor.install()\n" if before else ""
    code = (
        f"{choose}from gatewayd.service import plugin, reactor\nreactor.install_reactor()\n"
        "from twisted.internet import reactor\nprint(type(reactor).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.strip() == expected
