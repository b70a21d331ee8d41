"""Commands from other processes of this machine: who may give them, and what is answered."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs

from gatewayd.control import EXISTS, Answered, NotReached, address_of, ask, may_command
from gatewayd.service.commands import CommandSocket
from gatewayd.service.reloading import NotReloaded
from tests.protocols.harness import in_thread

pytestmark = pytest.mark.skipif(not EXISTS, reason="abstract sockets are Linux's")


@pytest.fixture
def waiting() -> Deferred[str]:
    return Deferred()


@pytest.fixture
def commands(waiting: Deferred[str]) -> Iterator[CommandSocket]:
    made = CommandSocket(
        reactor,
        {
            "good": lambda: succeed("done"),
            "bad": lambda: fail(NotReloaded("flow.yml:1:1: no\nflow.yml:2:1: neither")),
            "slow": lambda: waiting,
        },
        (NotReloaded,),
    )
    made.start()
    yield made
    pytest_twisted.blockon(made.stop())


@pytest_twisted.ensureDeferred
async def test_a_command_is_answered_when_it_is_done(commands: CommandSocket, waiting: Deferred[str]) -> None:
    assert await in_thread(ask, os.getpid(), "good") == Answered(True, "done")
    assert await in_thread(ask, os.getpid(), "bad") == Answered(
        False, "flow.yml:1:1: no\nflow.yml:2:1: neither"
    )
    assert not (await in_thread(ask, os.getpid(), "other")).ok

    slow = in_thread(ask, os.getpid(), "slow")
    assert await in_thread(ask, os.getpid(), "good")
    assert not slow.called
    waiting.callback("at last")
    assert await slow == Answered(True, "at last")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", b"{}\n", b"x" * 2000])
async def test_what_is_no_command_ends_the_connection(commands: CommandSocket, line: bytes) -> None:
    def send() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(address_of(os.getpid()))
            connection.sendall(line)
            return connection.recv(100)

    assert await in_thread(send) == b""


@pytest_twisted.ensureDeferred
async def test_connections_that_say_nothing_are_few_and_a_stop_ends_them(commands: CommandSocket) -> None:
    held = [socket.socket(socket.AF_UNIX) for _ in range(17)]
    for each in held:
        each.settimeout(20)
        await in_thread(each.connect, address_of(os.getpid()))

    assert await in_thread(held[-1].recv, 1) == b""
    await commands.stop()
    assert await in_thread(held[0].recv, 1) == b""
    for each in held:
        each.close()
    with pytest.raises(NotReached, match="it is no gatewayd"):
        await in_thread(ask, os.getpid(), "good")


def test_a_name_that_is_taken_is_warned_of(commands: CommandSocket) -> None:
    with capturedLogs() as logs:
        CommandSocket(reactor, {}, ()).start()

    assert [event for event in logs if "SIGHUP can" in (event["log_format"] or "")]


def test_only_root_and_the_own_user_may_command() -> None:
    own = os.geteuid()

    assert may_command(0)
    assert may_command(own)
    assert not may_command(own + 1)


def test_a_process_that_is_not_there_is_no_service() -> None:
    with pytest.raises(NotReached, match="there is no such process"):
        ask((1 << 22) - 3, "good")
