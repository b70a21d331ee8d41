"""
CPU time of the engine alone: wire decoding, dispatcher, traversal, wire encoding, for chains of Deployments.

    python bench/engine.py [requests]

The pool is in memory and answers at once with what it was sent, decoding it as the real one does; no
socket, no thread. Prints microseconds a request, the best of many short rounds: what the code costs
when nothing else has the machine's caches (docs/performance.md).
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.task import Clock

from gatewayd.config import DeploymentConfig
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.dispatch.topology import Topology
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.formats import FIRST
from gatewayd.messages.request import Answer, Call, Request, Response
from gatewayd.messages.wire import decode_answer, decode_request, encode_request, encode_response
from gatewayd.pb import DataContentProto

ROUNDS = 60
LENGTHS = (1, 2, 4, 8)


class EchoPool:
    """Every Deployment answers at once with the message it was sent."""

    format = FIRST

    def send(self, deployment: str, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        return succeed(decode_answer(call.messages[0]))

    def serves(self, deployment: str, endpoint: str) -> bool:
        return True

    def endpoints(self) -> Endpoints:
        return Endpoints()


def chain(length: int) -> Dispatcher:
    names = ["gateway", *(f"executor{index}" for index in range(length))]
    deployments = [DeploymentConfig(name, needs=(before,)) for before, name in itertools.pairwise(names)]
    return Dispatcher(Topology.from_deployments(deployments), EchoPool(), Clock(), execute)


def message(documents: int) -> bytes:
    content = DataContentProto()
    for index in range(documents):
        content.docs.docs.add(id=f"d{index}", text="hello, world")
    return encode_request(Request("0" * 32, "/search", documents=content.SerializeToString()))


def microseconds(function: Callable[[], Any], times: int) -> float:
    best, each = float("inf"), max(1, times // ROUNDS)
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(each):
            function()
        best = min(best, time.process_time() - begun)
    return best / each * 1e6


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for documents in (1, 1000):
        asked = message(documents)
        for length in LENGTHS:
            dispatcher = chain(length)
            answers: list[bytes] = []

            def give(response: Response, answers: list[bytes] = answers) -> None:
                answers[:] = [encode_response(response)]

            def once(dispatcher: Dispatcher = dispatcher, give: Callable[[Response], None] = give) -> None:
                dispatcher.dispatch(decode_request(asked)).addCallback(give)  # noqa: B023

            spent = microseconds(once, times)
            assert answers
            assert dispatcher.in_flight == 0
            print(f"chain of {length}, {len(asked):6} bytes: {spent:6.1f} us a request")


if __name__ == "__main__":
    main()
