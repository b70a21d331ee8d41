"""
Huffman-coded texts (RFC 7541 section 5.2 and appendix B), decoded a byte at a time.

The code is canonical: among codes of one length the characters count upwards, so their lengths say it all. A
state is the part of a code that has been read so far. What a byte makes of it is worked out when it first
happens: 256 times for each of 256 states at the most.
"""

from __future__ import annotations

from typing import Final


class NotHuffman(Exception):
    """The bytes are not a coded text."""


def decode_huffman(coded: bytes) -> bytes:
    """Raises NotHuffman."""
    state, parts = _START, []
    for byte in coded:
        part, state = state[byte]
        parts.append(part)
    if not state.may_end:
        raise NotHuffman("its padding is wrong")
    return b"".join(parts)


# The characters of each length of codes, in bits. A code of 30 bits more is that of the end, EOS.
_CHARACTERS: Final[dict[int, bytes]] = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\0$@[]~",
    14: b"^}",
    15: b"<`{",
    19: b"\\\xc3\xd0",
    20: bytes.fromhex("808283a2b8c2e0e2"),
    21: bytes.fromhex("99a1a7acb0b1b3d1d8d9e3e5e6"),
    22: bytes.fromhex("818485868892 9a9ca0a3a4a9aaadb2b5b9babbbdbec4c6e4e8e9"),
    23: bytes.fromhex("01 8789 8a8b8c8d8f 9395969798 9b9d9e a5a6a8aeaf b4b6b7bcbf c5 e7ef"),
    24: bytes.fromhex("09 8e 909194 9f ab ce d7 e1ec ed"),
    25: bytes.fromhex("c7cf eaeb"),
    26: bytes.fromhex("c0c1c8c9cacd d2d5dadb eef0f2f3ff"),
    27: bytes.fromhex("cbccd3d4d6dddedf f1f4f5f6f7f8fafbfcfdfe"),
    28: bytes.fromhex("02030405060708 0b0c0e0f 1011121314151718191a1b1c1d1e1f 7fdcf9"),
    30: b"\n\r\x16",
}
_EOS: Final = (30, (1 << 30) - 1)


class _State(dict[int, "tuple[bytes, _State]"]):
    """What each byte adds to the text after the bits of ``path``, and the state that follows."""

    def __init__(self, path: tuple[int, int]) -> None:
        super().__init__()
        self._path = path
        length, bits = path
        # What is left is padding if it is less than a byte, and the beginning of EOS: nothing but ones.
        self.may_end = length < 8 and bits == (1 << length) - 1

    def __missing__(self, byte: int) -> tuple[bytes, _State]:
        text = bytearray()
        length, bits = self._path
        for place in range(7, -1, -1):
            length, bits = length + 1, bits << 1 | byte >> place & 1
            if (length, bits) == _EOS:
                raise NotHuffman("it contains the end")
            character = _CODES.get((length, bits))
            if character is not None:
                text.append(character)
                length = bits = 0
        path = length, bits
        # Two threads may come here at once: they find the same.
        found = self[byte] = bytes(text), _STATES.get(path) or _STATES.setdefault(path, _State(path))
        return found


def _codes() -> dict[tuple[int, int], int]:
    """The character of each code, which is its length and its bits."""
    codes: dict[tuple[int, int], int] = {}
    code = before = 0
    for length, characters in _CHARACTERS.items():
        code <<= length - before
        before = length
        for character in characters:
            codes[length, code] = character
            code += 1
    return codes


_CODES: Final = _codes()
_START: Final = _State((0, 0))
_STATES: Final[dict[tuple[int, int], _State]] = {(0, 0): _START}
