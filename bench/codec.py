"""
Documents decoded and encoded again: docarray's own code against ours, on the same bytes, in turns.

    python -m bench.codec [--rounds 15]

The fastest of the rounds, of this thread's CPU. The ratio is docarray's to ours: 3 is a third of the cost.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from docarray import Document, DocumentArray
from docarray.proto.docarray_pb2 import DocumentArrayProto
from docarray.score import NamedScore

from gatewayd.messages.document_arrays import data_of, documents_of
from gatewayd.messages.wire import split

_DICE = np.random.default_rng(7)

SHAPES: dict[str, Callable[[int], Document]] = {
    "id alone": lambda number: Document(),
    "text": lambda number: Document(text=f"a document with a text, the number {number}"),
    "text and tags": lambda number: Document(text="hello", tags={"price": 5.5, "name": "a product"}),
    "blob of 1 KiB": lambda number: Document(blob=_DICE.bytes(1024), mime_type="image/png"),
    "embedding of 128 floats": lambda number: Document(embedding=_DICE.random(128, "f4")),
    "text, embedding and tags": lambda number: Document(
        text="hello", embedding=_DICE.random(128, "f4"), tags={"price": 5.5, "name": "a product"}
    ),
    "tensor of 3x32x32 bytes": lambda number: Document(
        tensor=_DICE.integers(0, 255, (3, 32, 32), dtype="u1")
    ),
    "tensor of 3x32x32 floats": lambda number: Document(tensor=_DICE.random((3, 32, 32), "f4")),
    "two scores": lambda number: Document(text="x", scores={key: NamedScore(value=0.5) for key in "ab"}),
    "five matches": lambda number: Document(text="x", matches=[Document(text="m") for _ in range(5)]),
}


def theirs(data: bytes) -> bytes:
    message = DocumentArrayProto.FromString(split(data)[0])
    return DocumentArray.from_protobuf(message).to_protobuf().SerializeToString()


def ours(data: bytes) -> bytes:
    return data_of(documents_of(data))


def cost_us(function: Callable[[bytes], bytes], data: bytes, times: int) -> float:
    begun = time.thread_time()
    for _ in range(times):
        function(data)
    return (time.thread_time() - begun) / times * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.codec")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    print("| documents | docarray, µs | ours | ratio |\n| --- | --- | --- | --- |")
    for count in (1, 100):
        for name, make in SHAPES.items():
            data = data_of(DocumentArray([make(number) for number in range(count)]))
            times = 200 // count
            pairs = [
                (cost_us(theirs, data, times), cost_us(ours, data, times)) for _ in range(arguments.rounds)
            ]
            their_us, our_us = (min(each) for each in zip(*pairs, strict=True))
            print(f"| {count} with {name} | {their_us:.0f} | {our_us:.0f} | {their_us / our_us:.1f} |")


if __name__ == "__main__":
    main()
