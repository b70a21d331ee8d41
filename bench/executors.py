"""
More of what executors cost against the real Jina's than ``python -m bench`` measures: kinds of documents.

    python -m bench.executors [--rounds 5] [--seconds 1.5] [--only WORD]

CPU of the executor's process for each request, without a gateway. The ratio is Jina's to ours: 4 is a
quarter.
"""

from __future__ import annotations

import argparse

from bench.cases import EXECUTORS, GATEWAYD, JINA, Case
from bench.measure import measure
from bench.sides import Layout


def _case(title: str, kind: str, payload: str, concurrency: int) -> Case:
    return Case(payload, title, EXECUTORS, kind, payload, "grpc", concurrency)


CASES = (
    _case("1 document, 1 at a time", "grpc_unary", "small", 1),
    _case("1 document, 32 at once", "grpc_unary", "small", 32),
    _case("1 document, `Call`, 32 streams", "grpc_stream", "small", 32),
    _case("100 documents with a text, 4 at once", "grpc_unary", "texts", 4),
    _case("100 documents with 128 floats, 4 at once", "grpc_unary", "embeddings", 4),
    _case("100 documents with 128 floats and tags, 4 at once", "grpc_unary", "embeddings_tags", 4),
    _case("100 documents with 3x32x32 bytes, 4 at once", "grpc_unary", "tensors", 4),
    _case("1 MB, 4 at once", "grpc_unary", "large", 4),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.executors")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    print("| case | Jina, µs of CPU | gatewayd | ratio | p99, ms |\n| --- | --- | --- | --- | --- |")
    with Layout(EXECUTORS, (GATEWAYD, JINA)) as layout:
        for case in CASES:
            if arguments.only not in case.title:
                continue
            figures, failed = measure(case, layout.sides, arguments.rounds, arguments.seconds)
            for one in failed:
                print(one)
            if figures.keys() != {GATEWAYD, JINA}:
                continue
            theirs, ours = figures[JINA], figures[GATEWAYD]
            print(
                f"| {case.title} | {theirs.cpu_us:.0f} | {ours.cpu_us:.0f} "
                f"| {theirs.cpu_us / ours.cpu_us:.2f} | {theirs.p99_ms:.1f}, {ours.p99_ms:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
