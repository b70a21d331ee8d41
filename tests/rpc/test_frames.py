"""Frames are the same wherever what is received was cut, and long pieces of them are not copied."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.messages.rope import Buffer
from gatewayd.rpc.frames import (
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    PADDED,
    PING,
    FrameReader,
    Violation,
    frame,
)


class Handler:
    """Remembers what it was handed; pieces of one DATA frame are put together."""

    def __init__(self) -> None:
        self.log: list[tuple[object, ...]] = []
        self.pieces: list[Buffer] = []
        self.open: dict[int, bytearray] = {}

    def on_data(self, flags: int, stream_id: int, payload: Buffer) -> None:
        self.pieces.append(payload)
        content = self.open.setdefault(stream_id, bytearray())
        content += payload
        if flags & END_STREAM:
            self.log.append(("data", flags, stream_id, bytes(self.open.pop(stream_id))))

    def on_block(self, stream_id: int, ended: bool, block: bytes) -> None:
        assert type(block) is bytes
        self.log.append(("block", stream_id, ended, block))

    def on_window_update(self, stream_id: int, payload: bytes) -> None:
        self.log.append(("window", stream_id, payload))

    def on_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        assert type(payload) is bytes
        self.log.append((kind, flags, stream_id, payload))


def reader(handler: Handler) -> FrameReader:
    found = FrameReader(
        handler, frame_bytes=1 << 20, whole_bytes=1 << 16, block_bytes=1 << 17, block_frames=8, peer="client"
    )
    found.ready = True
    return found


SIZES = st.one_of(st.integers(0, 3000), st.integers(16_000, 17_000), st.integers(60_000, 300_000))
FRAMES = st.lists(
    st.one_of(
        st.builds(lambda size: frame(0, END_STREAM, 1, bytes(size)), SIZES),
        st.builds(lambda size, pad: frame(0, END_STREAM | PADDED, 3, bytes([pad]) + bytes(size + pad)),
                  st.integers(0, 30_000), st.integers(0, 255)),
        st.builds(lambda size: frame(HEADERS, 4, 5, bytes(size)), st.integers(0, 30_000)),
        st.just(frame(PING, 0, 0, b"12345678")),
        st.just(frame(8, 0, 0, b"1234")),
    ),
    max_size=6,
)  # fmt: skip


@settings(deadline=None)
@given(FRAMES, st.lists(st.integers(0, 1 << 30), max_size=12))
def test_frames_are_the_same_wherever_they_were_cut(frames: list[bytes], at: list[int]) -> None:
    sent = b"".join(frames)
    whole, pieces = Handler(), Handler()
    for each in frames:
        reader(whole).feed(each)
    cutting = reader(pieces)
    begin = 0
    for end in [*sorted(position % (len(sent) + 1) for position in at), len(sent)]:
        cutting.feed(sent[begin:end])
        begin = end
    assert pieces.log == whole.log


def test_what_arrives_of_a_long_frame_is_handed_on_without_a_copy() -> None:
    sent = frame(0, END_STREAM, 1, bytes(1 << 20))
    parts = [sent[begin : begin + 200_000] for begin in range(0, len(sent), 200_000)]
    handler = Handler()
    reading = reader(handler)
    for part in parts:
        reading.feed(part)
    kept = [piece.obj if isinstance(piece, memoryview) else piece for piece in handler.pieces]
    assert [found is part for found, part in zip(kept, parts, strict=True)] == [True] * len(parts)


def test_a_beginning_that_was_cut_short_does_not_cost_a_copy_of_what_follows() -> None:
    sent = frame(0, END_STREAM, 1, bytes(1 << 18))
    handler = Handler()
    reading = reader(handler)
    reading.feed(sent[:5])
    reading.feed(sent[5:])
    assert [len(piece) for piece in handler.pieces if isinstance(piece, memoryview)] == [(1 << 18) - 512]


def test_a_piece_keeps_at_most_twice_its_size_in_memory() -> None:
    sent = frame(0, 0, 1, bytes(20_000)) + frame(0, END_STREAM, 3, bytes(100_000))
    handler = Handler()
    reader(handler).feed(sent)
    small, large = handler.pieces
    assert isinstance(small, bytes)
    assert isinstance(large, memoryview)


def test_a_long_frame_has_to_be_plain_data_wherever_it_was_cut() -> None:
    for kind, flags in ((0, PADDED), (HEADERS, 4), (PING, 0), (99, 0)):
        sent = frame(kind, flags, 1, bytes((1 << 16) + 1))
        for until in (9, 1000, len(sent)):
            with pytest.raises(Violation) as raised:
                reader(Handler()).feed(sent[:until])
            assert raised.value.code == ENHANCE_YOUR_CALM
