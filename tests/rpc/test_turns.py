"""Which connections are opened next: the turns alone, and links on a clock that wait for them."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from gatewayd.rpc.channel import Channel, ChannelSettings
from gatewayd.rpc.turns import HANGS_S, Line, Place, Turn, Turns
from tests.rpc.peer import SETTINGS


class Asked:
    """Turns that were asked for by name, in the order in which they began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.turns: dict[str, Turn] = {}

    def ask(self, line: Line, *names: str, place: Place = "first") -> None:
        for name in names:
            self.turns[name] = line.turn(lambda name=name: self.begun.append(name), place)  # type: ignore[misc]
            self.turns[name].ask()

    def end(self, *names: str) -> None:
        for name in names:
            self.turns[name].end()


def test_no_more_than_the_limit_are_under_way_in_all_lines_together() -> None:
    turns, asked = Turns(2), Asked()
    asked.ask(turns.line(), "a1", "a2", "a3")
    asked.ask(turns.line(), "b1")
    assert asked.begun == ["a1", "a2"]
    assert turns.under_way == turns.waiting == 2

    asked.end("a1", "a1")
    assert turns.under_way == 2
    asked.end("a2", "b1", "a3")
    assert turns.under_way == turns.waiting == 0
    assert sorted(asked.begun) == ["a1", "a2", "a3", "b1"]


def test_a_line_of_thousands_does_not_keep_another_waiting() -> None:
    turns, asked = Turns(2), Asked()
    asked.ask(turns.line(), *(f"a{number}" for number in range(1000)))
    asked.ask(turns.line(), "b1", "b2")
    asked.end("a0")
    asked.end("a1")

    assert asked.begun[2:] == ["b1", "a2"]


def test_lines_that_requests_wait_for_come_first() -> None:
    turns, asked = Turns(1), Asked()
    needed: list[str] = []
    asked.ask(turns.line(), "a1", "a2")
    asked.ask(turns.line(lambda: bool(needed)), "b1", "b2")
    needed.append("a request")
    asked.end("a1")
    asked.end("b1")
    needed.clear()
    asked.end("b2")

    assert asked.begun == ["a1", "b1", "b2", "a2"]


def test_in_a_line_those_that_something_waits_for_come_first_and_those_that_failed_last() -> None:
    turns, asked = Turns(1), Asked()
    line = turns.line()
    asked.ask(line, "under way")
    asked.ask(line, "failed", place="again")
    asked.ask(line, "new", "hurried", "gone")
    asked.turns["hurried"].hurry()
    asked.end("gone")
    for name in ("under way", "hurried", "new", "failed"):
        asked.end(name)

    assert asked.begun == ["under way", "hurried", "new", "failed"]


def test_what_ends_while_it_begins_makes_room_for_the_next_without_depth() -> None:
    turns = Turns(1)
    line = turns.line()
    begun: list[int] = []
    first = line.turn(lambda: None, "first")
    first.ask()

    def ask(number: int) -> None:
        def begin() -> None:
            begun.append(number)
            turn.end()

        turn = line.turn(begin, "first")
        turn.ask()

    for number in range(5000):
        ask(number)
    first.end()

    assert begun == list(range(5000))
    assert turns.under_way == 0


def test_one_that_hangs_gives_way_to_one_that_waits_the_longest_first() -> None:
    turns, asked = Turns(2), Asked()
    line = turns.line()
    asked.ask(line, "a1", "a2")
    asked.turns["a2"].hang()
    asked.turns["a1"].hang()
    assert turns.under_way == 2  # nobody waits

    asked.ask(line, "a3")
    asked.ask(line, "a4")
    asked.ask(line, "a5")
    assert asked.begun == ["a1", "a2", "a3", "a4"]
    assert (turns.under_way, line.under_way, turns.waiting) == (2, 2, 1)

    # Its handshake ends after its turn.
    asked.end("a2")
    assert asked.begun == ["a1", "a2", "a3", "a4"]
    asked.turns["a3"].hang()
    assert asked.begun[4:] == ["a5"]
    asked.turns["a3"].hang()
    asked.end("a1", "a3", "a4", "a5")
    assert (turns.under_way, line.under_way, turns.waiting) == (0, 0, 0)


def test_one_that_has_ended_does_not_hang() -> None:
    turns, asked = Turns(1), Asked()
    line = turns.line()
    asked.ask(line, "a1")
    asked.turns["a1"].hang()
    asked.end("a1")
    asked.ask(line, "a2", "a3")

    assert asked.begun == ["a1", "a2"]


class Many:
    """Channels to addresses in memory that share turns, and are tried in the order of their numbers."""

    def __init__(self, count: int, limit: int) -> None:
        self.clock = MemoryReactorClock()
        self.turns = Turns(limit)
        self.states: list[list[str]] = [[] for _ in range(count)]
        settings = ChannelSettings(connect_timeout_s=0.8, reconnect_s=0.1, line=self.turns.line())
        self.channels = [
            Channel(self.clock, f"unix:/{number}", settings, self.states[number].append)
            for number in range(count)
        ]

    @property
    def tried(self) -> list[int]:
        """The numbers of the addresses that were connected to, attempt by attempt."""
        return [int(client[0].rpartition("/")[2]) for client in self.clock.unixClients]

    def greet(self, attempt: int) -> Any:
        """The server of this attempt accepts, and sends its settings."""
        protocol = self.clock.unixClients[attempt][1].buildProtocol(None)
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(SETTINGS)
        return protocol

    def refuse(self, attempt: int) -> None:
        factory, connector = self.clock.unixClients[attempt][1], self.clock.connectors[attempt]
        factory.clientConnectionFailed(connector, ConnectionRefusedError())


def test_two_thousand_channels_are_connected_one_after_the_other() -> None:
    many = Many(2000, limit=64)
    assert many.tried == list(range(64))
    for number in range(2000):
        many.greet(number)
        assert many.turns.under_way <= 64

    assert all(states == ["connecting", "ready"] for states in many.states)
    assert many.turns.under_way == many.turns.waiting == 0


def test_the_time_for_a_connection_begins_with_its_handshake() -> None:
    many = Many(3, limit=1)
    many.clock.advance(0.09)
    many.greet(0)
    many.clock.advance(0.75)
    assert many.states[1] == ["connecting"]
    many.clock.advance(0.06)

    assert many.states[1] == ["connecting", "failed"]
    assert many.tried == [0, 1, 2]


def test_a_thousand_that_are_silent_delay_the_others_for_less_than_two_seconds() -> None:
    many = Many(1001, limit=64)
    while 1000 not in many.tried:
        assert many.turns.under_way == 64
        many.clock.advance(0.01)
    many.greet(many.tried.index(1000))

    assert many.clock.seconds() < 1000 / 64 * HANGS_S + 0.2
    assert many.states[1000] == ["connecting", "ready"]


def test_silent_ones_keep_their_turns_while_nobody_waits_and_are_given_up_in_time() -> None:
    many = Many(4, limit=4)
    many.clock.advance(0.5)
    assert many.turns.under_way == 4
    many.clock.advance(0.29)
    assert all(states == ["connecting"] for states in many.states)
    many.clock.advance(0.02)
    assert all(states == ["connecting", "failed"] for states in many.states)


def test_a_channel_that_waits_for_its_turn_may_be_closed() -> None:
    many = Many(3, limit=1)
    done: list[None] = []
    for channel in (many.channels[1], many.channels[0]):
        channel.close().addCallback(done.append)

    assert done == [None, None]
    assert many.tried == [0, 2]


def test_a_connection_that_is_lost_waits_for_its_turn_and_comes_before_those_that_fail() -> None:
    many = Many(4, limit=1)
    lost = many.greet(0)
    many.refuse(1)
    many.clock.advance(0.05)
    many.greet(2)
    assert many.tried == [0, 1, 2, 3]
    lost.connectionLost(Failure(ConnectionDone()))
    # Both are to be tried 0.08 to 0.12 s after they were before.
    many.clock.advance(0.08)
    assert many.turns.waiting == 2

    many.greet(3)
    assert many.tried == [0, 1, 2, 3, 0]


def test_thousands_that_refuse_are_tried_no_more_often_than_the_limit_would_be() -> None:
    many = Many(640, limit=64)
    tried = 0
    while many.clock.seconds() < 10.0:
        for attempt in range(tried, len(many.tried)):
            many.refuse(attempt)
            tried += 1
        many.clock.advance(0.01)

    # 64 that refuse would be tried ten times a second each.
    assert 5_000 <= tried <= 640 + 64 * 10 * 10
    assert min(many.tried.count(number) for number in range(640)) >= 8

    for attempt in range(tried, len(many.tried)):
        many.greet(attempt)
    assert many.turns.failed < 640
