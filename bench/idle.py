"""
What a gateway costs at rest: CPU until it is ready, memory, and memory for each connection that is idle.

    python -m bench.idle [--connections 10000]

A gateway of its own for each protocol; its memory is resident memory (VmRSS), before and with so many
connections that have made one request each (HTTP, gRPC) or were opened (WebSocket), and wait. The clients are
in this process.
"""

from __future__ import annotations

import argparse
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.http2 import frame
from bench.sides import cpu_s
from tests.paths import ROOT
from tests.processes import Child, Gateway, external

_HTTP: Final = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
_WEBSOCKET: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# The preface, settings, and a ping whose answer says that the connection is served.
_GRPC: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(6, 0, 0, bytes(8))
# What each protocol sends first, and what its answer has in it.
FIRST: Final = {
    "http": (_HTTP, b"200 OK"),
    "websocket": (_WEBSOCKET, b"101 Switching"),
    "grpc": (_GRPC, frame(6, 1, 0, bytes(8))),
}
# Descriptors besides those of connections.
_SPARE: Final = 500
_SETTLED_S: Final = 1.0


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def connect(port: int, first: bytes, sign: bytes, number: int) -> socket.socket:
    """A connection that has been answered. It comes from an address of its own for each 20 000."""
    client = socket.create_connection(("127.0.0.1", port), 60, (f"127.0.0.{2 + number // 20000}", 0))
    client.sendall(first)
    answer = b""
    while sign not in answer:
        more = client.recv(65536)
        if not more:
            raise ConnectionError(f"connection {number} was closed: {answer[:300]!r}")
        answer += more
    return client


@contextmanager
def gateway(protocol: str, connections: int) -> Iterator[Gateway]:
    most = connections + _SPARE
    settings = {
        "max_connections": most,
        "max_connections_per_address": most,
        "grpc_server": "gatewayd",
    }
    executor = Child([sys.executable, "-m", "bench.executor"], cwd=ROOT)
    (found,) = executor.line(r"serves at \S+:(\d+)")
    try:
        one = Gateway(
            {"gateway": settings, "executors": [external("exec_a", int(found[1]))]}, protocols=(protocol,)
        )
        try:
            yield one
        finally:
            one.stop()
    finally:
        executor.stop()


def idle(protocol: str, connections: int) -> tuple[float, float, float]:
    """Seconds of CPU until the gateway listens; its memory in MiB; KiB for each connection."""
    first, sign = FIRST[protocol]
    with gateway(protocol, connections) as one:
        started_s = cpu_s((one.pid,))
        # What only the first requests load or make is not the connections'.
        clients = [connect(one.ports[protocol], first, sign, number) for number in range(100)]
        time.sleep(_SETTLED_S)
        before = resident_bytes(one.pid)
        try:
            for number in range(100, 100 + connections):
                clients.append(connect(one.ports[protocol], first, sign, number))
            time.sleep(_SETTLED_S)
            each = (resident_bytes(one.pid) - before) / connections
        finally:
            for client in clients:
                client.close()
        return started_s, before / 2**20, each / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.idle")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--only", default="", help="one protocol")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = options.connections + _SPARE
    if most != resource.RLIM_INFINITY and most < wanted:
        sys.exit(f"{wanted} open files are needed, and this process may have {most} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    print(f"{options.connections} idle connections\n")
    print("| protocol | CPU until it listens, s | memory, MiB | a connection, KiB |")
    print("| --- | --- | --- | --- |")
    for protocol in FIRST:
        if options.only in protocol:
            started_s, memory, each = idle(protocol, options.connections)
            print(f"| {protocol} | {started_s:.2f} | {memory:.0f} | {each:.1f} |", flush=True)


if __name__ == "__main__":
    main()
