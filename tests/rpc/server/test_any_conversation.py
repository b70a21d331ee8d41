"""
Conversations at random, cut, shuffled and damaged: they end their connection at worst, and nothing stays.

A few thousand by default; `make fuzz-grpc` goes on for an hour. A failure names its seed.
"""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Iterator

import hpack
import pytest

from gatewayd.rpc.server.stream import Limits
from tests.rpc.server.clients import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW,
    Server,
    frame,
    head,
    message,
    number,
)

LIMITS = (
    Limits(),
    Limits(streams=2),
    Limits(window_bytes=65_535, stream_window_bytes=65_535),
    Limits(ping_interval_s=5.0),
)
SETTING_KEYS = (1, 2, 3, 4, 5, 6, 9)
SETTING_VALUES = (0, 1, 100, 4096, 16_384, 65_535, 1 << 20, 2**31 - 1, 2**32 - 1)


def conversation(dice: random.Random) -> list[bytes]:
    """The frames of a client that keeps the rules, more or less."""
    encoder = hpack.Encoder()
    settings = [
        struct.pack(">HI", dice.choice(SETTING_KEYS), dice.choice(SETTING_VALUES))
        for _ in range(dice.choice([0, 0, 1, 3]))
    ]
    parts = [PREFACE, frame(SETTINGS, 0, 0, b"".join(settings))]
    for stream_id in range(1, 2 * dice.randint(1, 8), 2):
        parts += request(dice, encoder, stream_id)
        parts += [other(dice, stream_id) for _ in range(dice.randint(0, 2))]
    return parts


def request(dice: random.Random, encoder: hpack.Encoder, stream_id: int) -> Iterator[bytes]:
    fields = head(__path=dice.choice(["/echo", "/held", "/stream", "/fail", "/nope"]))
    if dice.random() < 0.3:
        fields.append(("grpc-timeout", dice.choice(["1S", "0S", "5m", "x"])))
    if dice.random() < 0.5:
        fields.append(("x-a", "v" * dice.randint(0, 300)))
    block = encoder.encode(fields, huffman=dice.random() < 0.5)
    cut = dice.randint(0, len(block)) if dice.random() < 0.2 else len(block)
    yield frame(HEADERS, 4 * (cut == len(block)), stream_id, block[:cut])
    if cut < len(block):
        yield frame(CONTINUATION, 4, stream_id, block[cut:])
    contents = [dice.randbytes(dice.choice([0, 1, 20, 1000, 20_000])) for _ in range(dice.randint(0, 3))]
    data, at = b"".join(message(each, dice.random() < 0.05) for each in contents), 0
    while at < len(data):
        size = dice.choice([1, 9, 100, 5000, 16_000])
        piece, at = data[at : at + size], at + size
        padded = dice.random() < 0.1
        flags = int(at >= len(data)) + 8 * padded
        yield frame(DATA, flags, stream_id, b"\3" + piece + bytes(3) if padded else piece)


def other(dice: random.Random, stream_id: int) -> bytes:
    return dice.choice(
        [
            frame(WINDOW, 0, dice.choice([0, stream_id]), number(dice.choice([1, 100, 65_535, 2**31 - 1]))),
            frame(PING, dice.randint(0, 1), 0, dice.choice([b"gatewayd", b"goodbye!", bytes(8)])),
            frame(RST, 0, stream_id, number(8)),
            frame(SETTINGS, 1, 0),
            frame(GOAWAY, 0, 0, bytes(8)),
            frame(PRIORITY, 0, stream_id, number(0) + b"\0"),
        ]
    )


def damaged(dice: random.Random, parts: list[bytes]) -> bytes:
    chance = dice.random()
    if chance < 0.2:
        dice.shuffle(parts)
    elif chance < 0.4:
        parts = [part for part in parts if dice.random() < 0.9]
    data = bytearray(b"".join(parts))
    for _ in range(dice.choice([0, 0, 1, 2, 6])):
        at = dice.randrange(len(data) + 1)
        data[at : at + dice.choice([0, 1, 1, 20])] = dice.randbytes(dice.choice([0, 1, 1, 20]))
    return bytes(data)


def talk(seed: int) -> None:
    dice = random.Random(seed)
    data, at = damaged(dice, conversation(dice)), 0
    server = Server(
        dice.choice(LIMITS),
        max_unsent_bytes=dice.choice([0, 1000, 1 << 20]),
        held=dice.choice([1 << 30, 30_000]),
    )
    while at < len(data):
        size = dice.choice([1, 7, 50, 1000, 1 << 16])
        server.receive(data[at : at + size])
        at += size
        meanwhile(dice, server)
    server.frames()  # are frames
    server.connection.lost()
    server.connection.release()
    for call in server.waiting:
        call.respond(b"too late")
        call.fail("INTERNAL", "too late")
    assert server.held.held_bytes == server.connection.unsent_bytes == 0
    assert not server.settings.timeouts._waiters
    assert all(call.over for call in server.calls)


def meanwhile(dice: random.Random, server: Server) -> None:
    chance = dice.random()
    if chance < 0.05:
        server.connection.pause()
    elif chance < 0.3:
        server.connection.resume()
    elif chance < 0.4 and server.waiting:
        call = server.waiting.pop(dice.randrange(len(server.waiting)))
        call.respond(dice.randbytes(dice.choice([0, 100, 70_000])))
    elif chance < 0.43:
        server.clock.advance(1)
    elif chance < 0.44:
        server.connection.drain()
    elif chance < 0.45:
        server.connection.refuse()
    elif chance < 0.55:
        server.connection.conduct.refill()


@pytest.mark.slow
def test_any_conversation_ends_its_connection_at_worst() -> None:
    until_s = time.monotonic() + float(os.environ.get("GATEWAYD_FUZZ_S", "3"))
    seed = random.randrange(1 << 40)
    while time.monotonic() < until_s:
        seed += 1
        try:
            talk(seed)
        except Exception as error:
            raise AssertionError(f"the conversation with the seed {seed} failed") from error
