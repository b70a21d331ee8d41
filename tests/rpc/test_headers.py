"""Header blocks, compared with what the hpack package makes of them."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.rpc.headers import Blocks, Unreadable, encode

NAMES = st.sampled_from([b":status", b"content-type", b"grpc-status", b"grpc-message", b"x", b"y" * 200])
VALUES = st.one_of(st.sampled_from([b"200", b"0", b"application/grpc", b""]), st.binary(max_size=300))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5)


@given(FIELDS)
def test_what_is_encoded_reads_the_same_elsewhere(fields: list[tuple[bytes, bytes]]) -> None:
    assert Decoder().decode(encode(fields), raw=True) == fields


@given(
    st.lists(st.tuples(FIELDS, st.sampled_from(["indexed", "literal", "huffman", "resized"])), max_size=20)
)
def test_remembering_blocks_changes_nothing(turns: list[tuple[list[tuple[bytes, bytes]], str]]) -> None:
    encoder = Encoder()
    blocks = Blocks(list, 1 << 16)
    for fields, how in turns:
        if how == "resized":
            encoder.header_table_size = 100 if encoder.header_table_size > 100 else 4000
        block = encode(fields) if how == "literal" else encoder.encode(fields, huffman=how == "huffman")
        assert blocks.decode(block) == fields
        assert blocks.decode(encode(fields)) == fields


def test_a_block_that_refers_to_the_table_is_read_once() -> None:
    read = []
    encoder = Encoder()
    blocks = Blocks(lambda fields: read.append(fields) or list(fields), 1 << 16)
    fields = [(b":status", b"200"), (b"content-type", b"application/grpc")]
    for _ in range(5):
        assert blocks.decode(encoder.encode(fields)) == fields

    assert len(read) == 2


@given(st.binary(max_size=64))
def test_garbage_is_unreadable_and_nothing_else(block: bytes) -> None:
    blocks = Blocks(list, 1 << 10)
    try:
        blocks.decode(block)
    except Unreadable:
        return
    assert blocks.decode(encode([(b"a", b"b")])) == [(b"a", b"b")]


def test_a_block_that_unfolds_to_more_than_the_limit_is_unreadable() -> None:
    encoder = Encoder()
    bomb = encoder.encode([(b"x", b"y" * 3000)]) + b"\xbe" * 100
    with pytest.raises(Unreadable):
        Blocks(list, 1 << 14).decode(bomb)
