"""Header blocks, compared with what the hpack package makes of them."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.rpc.headers import Blocks, BlockTooLarge, Unreadable, encode

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


# A number stands for so many bytes: values of this size are not drawn, since Hypothesis warns of their reprs.
LARGE = st.one_of(VALUES, st.integers(3_000, 70_000))


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(NAMES, LARGE), max_size=4), st.sampled_from(["literal", "indexed"])),
        max_size=8,
    )
)
def test_a_list_that_is_too_large_costs_itself_alone(
    turns: list[tuple[list[tuple[bytes, bytes | int]], str]],
) -> None:
    encoder = Encoder()
    blocks = Blocks(list, 40_000)
    for drawn, how in turns:
        fields = [(name, value if isinstance(value, bytes) else b"v" * value) for name, value in drawn]
        block = encode(fields) if how == "literal" else encoder.encode(fields, huffman=False)
        size = sum(len(name) + len(value) + 32 for name, value in fields)
        if len(block) > 40_000 or size > 40_000:
            with pytest.raises(BlockTooLarge):
                blocks.decode(block)
        else:
            assert blocks.decode(block) == fields


def test_long_names_and_huffman_texts_are_passed_over_too() -> None:
    encoder = Encoder()
    blocks = Blocks(list, 10_000)
    small = [(b"a", b"b" * 50), (b"grpc-status", b"0")]
    assert blocks.decode(encoder.encode(small)) == small
    for large in ([(b"n" * 30_000, b"v")], [(b"a", b"~\\" * 15_000)], [(b"q", b"e" * 40_000)]):
        with pytest.raises(BlockTooLarge):
            blocks.decode(encoder.encode(large, huffman=True))
        assert blocks.decode(encoder.encode(small)) == small


@pytest.mark.parametrize("cut", [1, 2, 30_000, 60_000])
def test_a_large_block_that_ends_too_early_is_unreadable(cut: int) -> None:
    block = encode([(b"x", b"y" * 70_000)])
    with pytest.raises(Unreadable):
        Blocks(list, 1000).decode(block[:-cut])


def test_a_list_that_is_too_large_to_decode_says_so() -> None:
    with pytest.raises(Unreadable) as caught:
        Blocks(list, 1000).decode(encode([(b"x", b"y" * 100)] * 1000))
    assert caught.value.oversized
