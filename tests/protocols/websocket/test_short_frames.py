"""Messages that are parsed by hand are those that Autobahn would have parsed, and the same."""

from __future__ import annotations

import struct

import pytest
from autobahn.websocket.protocol import WebSocketProtocol
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.protocols.websocket.short_frames import SHORT_BYTES, head, whole_message

MASKS = st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4))


def frame(first: int, payload: bytes, mask: bytes | None) -> bytes:
    size, masked = len(payload), 0 if mask is None else 0x80
    if size < 126:
        begin = bytes((first, masked | size))
    elif size < 1 << 16:
        begin = bytes((first, masked | 126)) + struct.pack(">H", size)
    else:
        begin = bytes((first, masked | 127)) + struct.pack(">Q", size)
    if mask is None:
        return begin + payload
    return begin + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


@given(st.binary(min_size=1, max_size=300), MASKS)
def test_a_binary_message_is_unmasked(payload: bytes, mask: bytes) -> None:
    assert whole_message(frame(0x82, payload, mask), 0) == (payload, True)


@given(st.text(min_size=1, max_size=200), MASKS)
def test_a_text_is_read_if_it_is_ascii_and_left_to_autobahn_if_not(text: str, mask: bytes) -> None:
    found = whole_message(frame(0x81, text.encode(), mask), 0)

    assert found == ((text.encode(), False) if text.isascii() else None)


@given(st.integers(0, 255), st.binary(max_size=140), st.none() | MASKS, st.binary(max_size=3))
def test_all_other_frames_are_left_to_autobahn(
    first: int, payload: bytes, mask: bytes | None, more: bytes
) -> None:
    usual = first in (0x81, 0x82) and mask is not None and not more and payload
    if not usual:
        assert whole_message(frame(first, payload, mask) + more, 0) is None
    whole = frame(0x82, payload, bytes(4))
    assert whole_message(whole[:-1], 0) is None


def test_lengths_that_are_not_minimal_are_left_to_autobahn() -> None:
    assert whole_message(bytes((0x82, 0x80 | 126)) + struct.pack(">H", 5) + bytes(4) + b"12345", 0) is None


def test_limits_are_autobahns_to_keep() -> None:
    assert whole_message(frame(0x82, b"123456", bytes(4)), 5) is None
    assert whole_message(frame(0x82, b"12345", bytes(4)), 5) is not None
    assert whole_message(frame(0x82, bytes(SHORT_BYTES + 1), bytes(4)), 0) is None


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
@pytest.mark.parametrize("binary", [True, False])
def test_what_stands_before_an_answer_is_what_autobahn_writes(size: int, binary: bool) -> None:
    sent: list[bytes] = []

    class Session(WebSocketProtocol):
        class factory:
            isServer = True

        maskServerFrames = False
        logFrames = False

        def __init__(self) -> None:
            self.trafficStats = type("", (), {"outgoingWebSocketFrames": 0})()

        def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
            sent.append(data)

    Session().sendFrame(2 if binary else 1, bytes(size))

    assert head(size, binary=binary) + bytes(size) == sent[0]
