"""Calls of one connection whose ends have others cancelled, asked for or begun, at random."""

from __future__ import annotations

import random
from collections.abc import Callable
from struct import pack
from typing import Any

from gatewayd.messages.headers import Headers
from gatewayd.messages.rope import Content
from gatewayd.rpc.call import CallError, prefix
from gatewayd.rpc.headers import encode
from gatewayd.rpc.http2 import Broken, Limits
from gatewayd.rpc.streaming import PulledCall
from tests.rpc.peer import HEAD, SETTINGS, Asked, Memory, frame

DATA, HEADERS, RST, SETTING, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
ANSWER = encode([(b":status", b"200"), (b"content-type", b"application/grpc")])
TRAILERS = encode([(b"grpc-status", b"0")])
MESSAGE = b"\0\0\0\0\2hi"
CANCELLED = CallError("CANCELLED", "nobody wants it any more")

Act = Callable[[Any], None]


class Owned(Memory):
    """It lets go of its connection as a link does."""

    def on_idle(self) -> None:
        super().on_idle()
        self.connection.lost("idle")

    def on_leaving(self, code: int, debug: bytes) -> None:
        super().on_leaving(code, debug)
        for stream in self.connection.take_waiting():
            stream.on_broken(Broken("there is no other connection", reached=False))


class Single(Asked):
    """A call with one answer, after which something is done."""

    __slots__ = ("act",)

    def __init__(self, message: bytes, act: Act) -> None:
        Asked.__init__(self, message)
        self.act = act

    def answered(
        self, message: Content, compressed: bool, encoding: str, is_error: bool, headers: Headers
    ) -> None:
        super().answered(message, compressed, encoding, is_error, headers)
        self.act(self)

    def failed(self, error: CallError) -> None:
        super().failed(error)
        self.act(self)


class Pulled(PulledCall):
    """A call that streams, the same after each answer."""

    __slots__ = ("act", "ends")

    def __init__(self, act: Act) -> None:
        PulledCall.__init__(self, HEAD.block(None), prefix(1, compressed=False), b"m", 1 << 20)
        self.act = act
        self.ends: list[CallError | None] = []

    def on_waiting(self) -> None:
        """It comes later."""

    def on_message(self, message: Content, compressed: bool, encoding: str, headers: Headers) -> None:
        self.act(self)

    def on_end(self, error: CallError | None) -> None:
        self.ends.append(error)
        self.act(self)

    def on_closed(self) -> None:
        self.act(self)

    def reset(self) -> None:
        if self.connection is not None:
            self.connection.cancel(self)


class Talk:
    """One connection, and a server that says anything."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.memory = Owned(Limits(window_bytes=1 << 20))
        self.calls: list[Single | Pulled] = []
        self.depth = 0

    def run(self) -> None:
        dice, connection = self.dice, self.memory.connection
        if dice.random() < 0.8:
            connection.receive(SETTINGS)
        for _ in range(dice.randint(1, 5)):
            self.begin()
        for _ in range(40):
            if connection.closed:
                break
            data = b"".join(self.said() for _ in range(dice.randint(1, 5)))
            size = dice.choice([7, len(data) or 1])
            for at in range(0, len(data), size):
                connection.receive(data[at : at + size])
            if dice.random() < 0.2:
                connection.pause()
            if dice.random() < 0.5:
                connection.resume()
            if dice.random() < 0.3:
                self.act(dice.choice(self.calls))
        if not connection.closed:
            connection.lost("the end")

    def begin(self) -> None:
        connection = self.memory.connection
        if len(self.calls) > 30 or connection.leaving or connection.closed:
            return
        call: Single | Pulled
        if self.dice.random() < 0.5:
            call = Single(b"x" * self.dice.choice([1, 70_000]), self.act)
        else:
            call = Pulled(self.act)
            call.pull()
        self.calls.append(call)
        connection.start(call)

    def act(self, call: Single | Pulled) -> None:
        if self.depth > 3:
            return
        self.depth += 1
        for _ in range(self.dice.randrange(3)):
            other = self.dice.choice(self.calls)
            match self.dice.randrange(5):
                case 0 if isinstance(other, Pulled):
                    other.drop()
                case 0:
                    other.give_up(CANCELLED)
                case 1:
                    self.begin()
                case 2 if isinstance(call, Pulled) and not call.waiting and not call.ends:
                    call.pull()
                case 3 if self.dice.random() < 0.1:
                    self.memory.connection.lost("closed from here")
                case 4 if isinstance(other, Pulled) and not other.waiting:
                    other.take(3, bytes)
        self.depth -= 1

    def said(self) -> bytes:
        """Some frames, mostly about calls that there are."""
        dice = self.dice
        stream_id = dice.choice([1, 3, 5, 7, 9, 11]) if dice.random() < 0.97 else dice.choice([0, 2, 101])
        head, message = frame(HEADERS, 4, stream_id, ANSWER), frame(DATA, 0, stream_id, MESSAGE)
        end = frame(HEADERS, 5, stream_id, TRAILERS)
        kinds = [
            head,
            head + message * dice.randint(1, 3),
            head + message + end,
            message,
            end,
            end,
            frame(DATA, dice.randint(0, 1), stream_id, MESSAGE[: dice.randrange(8)]),
            frame(RST, 0, stream_id, pack(">I", dice.choice([0, 2, 7, 8]))),
            frame(WINDOW, 0, dice.choice([0, stream_id]), pack(">I", dice.choice([1, 1000, 70_000]))),
            frame(SETTING, 0, 0, pack(">HI", dice.choice([3, 4]), dice.choice([0, 1, 10, 65_535, 100_000]))),
            frame(PING, 0, 0, bytes(8)),
        ]
        if dice.random() < 0.02:
            return frame(GOAWAY, 0, 0, pack(">II", dice.choice([0, 1, 3, 5, 2**31 - 1]), 0))
        return dice.choice(kinds)


def test_whatever_calls_do_to_each_other_each_ends_once_and_nothing_stays() -> None:
    for seed in range(1200):
        talk = Talk(seed)
        try:
            talk.run()
            assert talk.memory.idle
            for call in talk.calls:
                assert len(call.ends) < 2
                assert call.over or call.ends
        except Exception as error:
            raise AssertionError(f"the seed {seed}") from error
