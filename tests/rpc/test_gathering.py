"""Many buffers to a plain socket: nothing is lost or changes places, however little the socket takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.rpc.gathering import HIGH_WATER_BYTES, Gathering


class Socket:
    """Takes as much as it ``may``, and fails like one that is full, or broken, when that is nothing."""

    def __init__(self, may: Iterable[int]) -> None:
        self.may = iter(may)
        self.taken = bytearray()
        self.broken = False

    def sendmsg(self, buffers: list[bytes]) -> int:
        most = next(self.may, 1 << 30)
        if self.broken:
            raise ConnectionResetError
        if not most:
            raise BlockingIOError
        taken = b"".join(buffers)[:most]
        self.taken += taken
        return len(taken)


class Transport:
    """Twisted's, as far as writing goes: it writes when the reactor says so."""

    def __init__(self, may: Iterable[int] = ()) -> None:
        self.socket = Socket(may)
        self.given = bytearray()
        self.producer: Any = None
        self.largest = 0

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert not streaming
        self.producer = producer
        producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.given += data
        self.largest = max(self.largest, len(data))

    def turn(self) -> None:
        """The socket takes more."""
        self.socket.taken += self.given
        self.given.clear()
        if self.producer is not None:
            self.producer.resumeProducing()


class Pair:
    def __init__(self, may: Iterable[int] = ()) -> None:
        self.log: list[str] = []
        self.transport = Transport(may)
        self.gathering = Gathering(
            self.transport, lambda: self.log.append("pause"), lambda: self.log.append("resume")
        )
        self.gathering.start()


WRITES = st.lists(st.lists(st.binary(max_size=20_000), max_size=5), max_size=5)


@given(WRITES, st.lists(st.integers(0, 30_000), max_size=9))
def test_all_arrives_in_order(writes: list[list[bytes]], may: list[int]) -> None:
    pair = Pair(may)
    for buffers in writes:
        pair.gathering.write_all([*buffers])
        pair.transport.turn()
    for _ in range(99):
        pair.transport.turn()
    assert bytes(pair.transport.socket.taken) == b"".join(b"".join(buffers) for buffers in writes)
    assert pair.log.count("pause") == pair.log.count("resume")


def test_long_writes_go_to_the_socket_at_once() -> None:
    pair = Pair()
    pair.gathering.write_all([b"x" * 100_000, memoryview(b"y" * 100_000)])
    assert len(pair.transport.socket.taken) == 200_000
    assert pair.transport.largest == 0
    assert pair.log == []


def test_only_a_small_piece_of_what_waits_is_copied() -> None:
    pair = Pair([100_000, 0, 0])
    pair.gathering.write_all([bytes(100_000), bytes(1_000_000)])
    assert pair.log == ["pause"]
    assert pair.transport.largest <= 4096
    pair.transport.turn()
    pair.transport.turn()
    assert pair.log == ["pause"]
    pair.transport.turn()
    assert pair.log == ["pause", "resume"]
    assert len(pair.transport.socket.taken) == 1_100_000
    assert pair.transport.largest <= 4096


def test_what_the_transport_still_has_goes_first() -> None:
    pair = Pair()
    pair.transport.write(b"first")
    pair.gathering.with_transport += 5
    pair.gathering.write_all([b"second"])
    assert bytes(pair.transport.socket.taken) == b""
    pair.transport.turn()
    assert bytes(pair.transport.socket.taken) == b"firstsecond"


def test_a_transport_that_is_to_be_closed_gets_the_rest() -> None:
    pair = Pair([0])
    pair.gathering.write_all([bytes(HIGH_WATER_BYTES), b"end"])
    pair.gathering.finish()
    assert len(pair.transport.given) == HIGH_WATER_BYTES + 3
    assert pair.transport.producer is None


def test_a_broken_socket_is_left_to_the_transport() -> None:
    pair = Pair()
    pair.transport.socket.broken = True
    pair.gathering.write_all([bytes(10_000)])
    assert 0 < len(pair.transport.given) <= 4096


def test_nothing_is_kept_when_the_transport_is_lost() -> None:
    pair = Pair([0])
    pair.gathering.write_all([bytes(10_000)])
    pair.gathering.stopProducing()
    assert not pair.gathering.waiting
