"""The reactor of a gateway's processes serves descriptors as Twisted's does."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
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
    reactor: Any, pair: Any, caught_failures: list[Failure]
) -> None:
    one, other = pair

    def fail() -> None:
        raise ValueError("a mistake")

    ours = Selectable(one, fail)
    reactor.addReader(ours)
    other.send(b"hello")
    reactor.doIteration(0)
    assert [str(each.value) for each in ours.lost] == ["a mistake"]
    assert caught_failures.pop().check(ValueError)
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


class Lost(Protocol):
    """Writes down why its connection was lost."""

    def __init__(self) -> None:
        self.lost: list[Failure] = []

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:  # noqa: B008
        self.lost.append(reason)


def connected(reactor: Any, end: socket.socket, protocol: Protocol | None = None) -> Any:
    connection: Any = Connection(end, protocol or Lost(), reactor)
    connection.connected = 1
    return connection


def test_what_a_turn_has_written_leaves_at_its_end_and_epoll_is_not_asked(reactor: Any, pair: Any) -> None:
    one, other = pair
    connection = connected(reactor, one)
    connection.write(b"hel")
    connection.write(b"lo")
    other.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.recv(10)
    assert reactor.getWriters() == [connection]

    reactor.doIteration(0)

    assert other.recv(10) == b"hello"
    assert reactor.getWriters() == []
    assert one.fileno() not in reactor._selectables


def test_what_a_socket_does_not_take_is_left_to_epoll(reactor: Any, pair: Any) -> None:
    one, other = pair
    sent = bytes(4 << 20)
    connection = connected(reactor, one)
    connection.write(sent)
    reactor.doIteration(0)
    assert reactor.getWriters() == [connection]
    assert one.fileno() in reactor._selectables

    received = 0
    while received < len(sent):
        received += len(other.recv(1 << 20))
        connection.startWriting()  # it is no second time among those that have something to write
        reactor.doIteration(0)

    assert reactor.getWriters() == []


def test_a_connection_that_is_closed_in_the_turn_has_written_all(reactor: Any, pair: Any) -> None:
    one, other = pair
    protocol = Lost()
    connection = connected(reactor, one, protocol)
    connection.write(b"goodbye")
    connection.loseConnection()
    reactor.doIteration(0)

    assert other.recv(10) == b"goodbye"
    assert other.recv(10) == b""
    assert [each.type for each in protocol.lost] == [error.ConnectionDone]
    assert reactor.getWriters() == []


def test_a_connection_whose_client_has_left_is_lost(reactor: Any, pair: Any) -> None:
    one, other = pair
    other.close()
    protocol = Lost()
    connection = connected(reactor, one, protocol)
    connection.write(b"hello")
    reactor.doIteration(0)

    assert [each.type for each in protocol.lost] == [error.ConnectionLost]
    assert reactor.getWriters() == []


def test_all_that_is_removed_includes_what_has_something_to_write(reactor: Any, pair: Any) -> None:
    connection = connected(reactor, pair[0])
    connection.write(b"hello")

    assert connection in reactor.removeAll()
    assert reactor.getWriters() == []


def test_a_turn_ends_with_what_was_asked_for_behind_its_writes(
    reactor: Any, pair: Any, caught_failures: list[Failure]
) -> None:
    one, other = pair
    other.setblocking(False)
    connection = connected(reactor, one)
    found: list[object] = []

    def fail() -> None:
        raise ValueError("a mistake")

    reactor.when_turn_ends(found.append, "at once, as it does not run")
    assert len(found) == 1
    reactor.running = True
    reactor.when_turn_ends(lambda: found.append(other.recv(10)))
    reactor.when_turn_ends(fail)
    reactor.when_turn_ends(found.append, "after it")
    connection.write(b"hello")
    assert len(found) == 1
    reactor.doIteration(0)

    assert found[1:] == [b"hello", "after it"]
    assert caught_failures.pop().check(ValueError)


def test_the_wait_ends_for_timers_that_the_end_of_the_turn_has_set(reactor: Any) -> None:
    found: list[str] = []
    reactor.running = True
    reactor.when_turn_ends(lambda: reactor.callLater(0, found.append, "the timer"))

    reactor.doIteration(None)  # for ever
    reactor.runUntilCurrent()

    assert found == ["the timer"]


def test_a_connection_whose_write_fails_is_let_go_and_that_is_logged(
    reactor: Any, pair: Any, caught_failures: list[Failure]
) -> None:
    def fail() -> None:
        raise ValueError("a mistake")

    protocol = Lost()
    connection = connected(reactor, pair[0], protocol)
    connection.doWrite = fail
    connection.write(b"hello")
    reactor.doIteration(0)

    assert [str(each.value) for each in protocol.lost] == ["a mistake"]
    assert caught_failures.pop().check(ValueError)


def test_the_main_loop_serves_events_timers_and_other_threads_until_it_is_stopped(
    reactor: Any, pair: Any, caught_failures: list[Failure]
) -> None:
    one, other = pair
    found: list[object] = []

    def fail() -> None:
        raise ValueError("a mistake")

    def read() -> None:
        found.append(one.recv(10))
        threading.Thread(target=reactor.callFromThread, args=(reactor.callLater, 0.001, reactor.stop)).start()

    reactor.addReader(Selectable(one, read))
    reactor.callLater(0, other.send, b"hello")
    reactor.callLater(0, fail)
    reactor.addSystemEventTrigger("after", "shutdown", found.append, "shut down")
    reactor.run(installSignalHandlers=False)

    assert found == [b"hello", "shut down"]
    assert caught_failures.pop().check(ValueError)


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
