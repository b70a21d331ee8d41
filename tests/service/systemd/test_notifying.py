"""What systemd is told, in memory; and the socket over which it is told."""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from gatewayd.service.systemd.environment import Systemd
from gatewayd.service.systemd.notifying import Notifier, NotifySocket


class Recorder:
    """What was sent, as lists of lines; those about time and pulse are kept apart."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.is_closed = False

    def send(self, message: str) -> None:
        self.sent.append(message.splitlines())

    def close(self) -> None:
        self.is_closed = True

    def lines(self, *names: str) -> list[str]:
        return [line for lines in self.sent for line in lines if line.partition("=")[0] in names]


class Setup:
    def __init__(self, watchdog_s: float | None = None) -> None:
        self.replicas, self.under_way = (0, 3), 12
        self.told, self.clock = Recorder(), Clock()
        self.notifier = Notifier(
            self.told,
            self.clock,
            watchdog_s=watchdog_s,
            replicas=lambda: self.replicas,
            under_way=lambda: self.under_way,
            monotonic_us=lambda: 4_000_000,
            pid=lambda: 77,
        )
        self.notifier.start()

    def happened(self, event: str, **more: object) -> None:
        self.notifier.happened({"event": event, **more})

    def serving(self) -> Setup:
        self.replicas = (3, 3)
        self.happened("listening", ports=[1, 2], open=False)
        self.happened("ready")
        return self

    @property
    def status(self) -> str:
        return self.told.lines("STATUS")[-1].partition("=")[2]


def test_it_begins_with_the_process_and_what_it_waits_for() -> None:
    setup = Setup()
    assert setup.told.sent[0] == [
        "MAINPID=77",
        "EXTEND_TIMEOUT_USEC=600000000",
        "STATUS=starting: 0 of 3 replicas are ready",
    ]

    setup.replicas = (2, 3)
    setup.happened("up", deployment="a", shard=0, replica=1)
    assert setup.status == "starting: 2 of 3 replicas are ready"
    assert not setup.told.lines("READY")


def test_it_is_ready_once() -> None:
    setup = Setup().serving()
    setup.happened("ready")

    assert setup.told.lines("READY") == ["READY=1"]
    assert setup.status == "serving 2 ports"


def test_a_status_follows_within_seconds_and_is_not_repeated() -> None:
    setup = Setup().serving()
    before = len(setup.told.sent)
    setup.clock.pump([1.0] * 20)
    assert len(setup.told.sent) == before

    setup.replicas = (1, 3)
    setup.clock.pump([1.0] * 5)
    assert setup.status == "serving 2 ports; 2 of 3 replicas are down"


def test_a_start_may_take_as_long_as_executors_need() -> None:
    setup = Setup()
    setup.clock.pump([1.0] * 100)
    assert setup.told.lines("EXTEND_TIMEOUT_USEC").count("EXTEND_TIMEOUT_USEC=30000000") == 100

    setup.serving()
    before = len(setup.told.lines("EXTEND_TIMEOUT_USEC"))
    setup.clock.pump([1.0] * 100)
    assert len(setup.told.lines("EXTEND_TIMEOUT_USEC")) == before


def test_the_watchdog_has_two_pulses_in_its_period_and_none_from_a_reactor_that_hangs() -> None:
    setup = Setup(watchdog_s=4.0)
    # Nothing is sent until the reactor runs, which may take as long as a gateway class loads.
    assert setup.told.lines("WATCHDOG_USEC", "WATCHDOG") == ["WATCHDOG_USEC=600000000"]
    setup.serving()
    assert setup.told.lines("WATCHDOG_USEC", "WATCHDOG")[1:] == ["WATCHDOG_USEC=4000000", "WATCHDOG=1"]
    setup.clock.advance(1.0)
    before = len(setup.told.lines("WATCHDOG"))
    setup.clock.pump([0.5] * 40)
    assert len(setup.told.lines("WATCHDOG")) - before == 10

    setup.clock.advance(0.0)
    assert len(setup.told.lines("WATCHDOG")) - before == 10
    setup.happened("reloading")
    setup.happened("reloaded")
    assert len(setup.told.lines("WATCHDOG_USEC")) == 2


def test_a_reload_is_told_from_its_beginning_to_its_end() -> None:
    setup = Setup().serving()
    setup.happened("reloading")
    assert setup.told.sent[-1] == ["RELOADING=1", "MONOTONIC_USEC=4000000", "STATUS=reloading"]

    setup.happened("reloaded")
    assert setup.told.sent[-1] == ["READY=1", "STATUS=serving 2 ports"]


def test_a_reload_that_is_refused_is_over_too_and_the_status_says_why_until_the_next_one() -> None:
    setup = Setup().serving()
    setup.happened("reloading")
    setup.happened("not_reloaded", error="flow.yml cannot be used:\nflow.yml:3:3: no key")
    assert setup.told.lines("READY") == ["READY=1"] * 2
    assert setup.status == (
        "serving 2 ports; the last reload changed nothing: flow.yml cannot be used: flow.yml:3:3: no key"
    )

    setup.happened("reloading")
    setup.happened("reloaded")
    assert setup.status == "serving 2 ports"


def test_while_it_drains_the_requests_are_counted_down() -> None:
    setup = Setup().serving()
    setup.notifier.stopping()
    assert setup.told.sent[-2] == ["STOPPING=1", "STATUS=draining: 12 requests under way"]
    assert setup.told.sent[-1] == ["EXTEND_TIMEOUT_USEC=30000000"]

    setup.under_way = 1
    setup.clock.advance(1.0)
    assert setup.status == "draining: 1 request under way"

    setup.notifier.stop()
    assert setup.told.is_closed
    assert not setup.clock.getDelayedCalls()


def test_a_start_that_fails_says_why_in_one_line() -> None:
    setup = Setup()
    setup.happened("failed", kind="replica", replica="a/rep-0", error="no room")
    assert setup.status == "starting: 0 of 3 replicas are ready"

    setup.happened("failed", kind="PortTaken", error="gateway.port:\n  taken" + " x" * 500)
    setup.notifier.stopping()
    assert setup.status.startswith("cannot start: gateway.port: taken x x")
    assert len(setup.status) <= 200


# -- the socket ------------------------------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The address of a socket that receives datagrams, as NOTIFY_SOCKET has it, and the socket."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@gatewayd-test-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{address[1:]}" if address[0] == "@" else address)
        receiver.settimeout(10)
        yield address, receiver


def test_a_message_is_one_datagram(systemd: tuple[str, socket.socket]) -> None:
    address, receiver = systemd
    sender = NotifySocket(address)
    sender.send("READY=1\nSTATUS=serving")
    assert receiver.recv(1 << 16) == b"READY=1\nSTATUS=serving"
    sender.close()
    sender.send("STOPPING=1")


def all_of(receiver: socket.socket) -> list[bytes]:
    """What has come until now."""
    receiver.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(receiver.recv(1 << 16))
    return found


def test_what_systemd_does_not_take_yet_is_sent_later(systemd: tuple[str, socket.socket]) -> None:
    address, receiver = systemd
    sender, sent = NotifySocket(address), 0
    while not sender._unsent:
        sender.send("STATUS=x")
        sent += 1
    sender.send("READY=1")
    before = all_of(receiver)
    sender.send("WATCHDOG=1")

    assert [*before, *all_of(receiver)] == [b"STATUS=x"] * sent + [b"READY=1", b"WATCHDOG=1"]
    sender.close()


def test_it_is_connected_again_after_it_was_lost(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        sender = NotifySocket(address)
    with capturedLogs() as events:
        sender.send("RELOADING=1")
        (tmp_path / "notify").unlink()
        sender.send("WATCHDOG=1")
    assert len(events) == 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        sender.send("READY=1")
        assert all_of(receiver) == [b"RELOADING=1", b"WATCHDOG=1", b"READY=1"]
    with capturedLogs() as events:
        sender.send("WATCHDOG=1")
    assert [event["error"] for event in events] == ["Connection refused"]  # another loss is told again
    sender.close()


def test_of_what_does_not_fit_pulses_are_dropped_first(tmp_path: Path) -> None:
    with capturedLogs():
        sender = NotifySocket(str(tmp_path / "nobody"))
        sender.send("READY=1\nSTATUS=serving")
        for _ in range(100):
            sender.send("WATCHDOG=1\nSTATUS=x")
        sender.send("RELOADING=1\nMONOTONIC_USEC=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "nobody"))
        sender.send("STOPPING=1")
        received = all_of(receiver)  # as much as the kernel takes at once
        sender.send("MAINPID=1")
        received += all_of(receiver)
    sender.close()
    pulses = [each for each in received if each == b"WATCHDOG=1\nSTATUS=x"]
    assert len(pulses) == 13
    assert [each for each in received if each not in pulses] == [
        b"READY=1\nSTATUS=serving", b"RELOADING=1\nMONOTONIC_USEC=1", b"STOPPING=1", b"MAINPID=1"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "reason"),
    [("/nobody/there", "No such file or directory"), ("vsock:2:1234", "the address is neither a path nor @")],
)
def test_that_nobody_is_there_is_logged_once_and_harms_nothing(address: str, reason: str) -> None:
    with capturedLogs() as events:
        sender = NotifySocket(address)
        sender.send("READY=1")
        sender.send("WATCHDOG=1")
        sender.close()

    (event,) = events
    assert event["log_level"].name == "warn"
    assert event["address"] == address
    assert event["error"].startswith(reason)


def test_that_it_has_gone_is_logged_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        sender = NotifySocket(str(tmp_path / "notify"))
    with capturedLogs() as events:
        sender.send("READY=1")
        sender.send("READY=1")

    (event,) = events
    assert event["error"] == "Connection refused"


def test_the_variables_are_taken_out_of_the_environment(tmp_path: Path) -> None:
    environ = {
        "PATH": "/bin",
        "NOTIFY_SOCKET": str(tmp_path / "none"),
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "LISTEN_FDS": "0",
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDNAMES": "",
    }
    found = Systemd.taken_from(environ, os.getpid())

    assert environ == {"PATH": "/bin"}
    assert found.sender is not None
    assert found.watchdog_s == 3.0


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "often"}]
)
def test_there_may_be_no_watchdog(environ: dict[str, str]) -> None:
    assert Systemd.taken_from(environ, os.getpid()).watchdog_s is None
