"""
What a gateway costs at rest: CPU until it is ready, memory, and memory for each connection that is idle.

    python -m bench.idle [--connections 10000] [--only PROTOCOL]

It writes its section of docs/performance.md, unless it is for one protocol. Each has a gateway of its own,
whose memory is resident memory (VmRSS), before and with so many connections that have made a request (HTTP),
were answered (gRPC) or opened (WebSocket), and wait. The clients are in this process.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.http2 import frame
from bench.report import replace, table
from bench.sides import cpu_s
from tests.paths import ROOT
from tests.processes import PROTOCOLS, Child, ExecutorProcess, Gateway, external

_HTTP: Final = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
_WEBSOCKET: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# The preface, settings, and a ping whose answer says that the connection is served.
_GRPC: Final = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(4, 1, 0) + frame(6, 0, 0, bytes(8))
)
# What each protocol sends first, and what its answer has in it.
FIRST: Final = {
    "http": (_HTTP, b"200 OK"),
    "websocket": (_WEBSOCKET, b"101 Switching"),
    "grpc": (_GRPC, frame(6, 1, 0, bytes(8))),
}
# Descriptors besides those of connections.
_SPARE: Final = 500
PAGE: Final = ROOT / "docs" / "performance.md"
_SETTLED_S: Final = 1.0
_LONG_S: Final = 3600.0


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def connect(port: int, first: bytes, sign: bytes, number: int) -> socket.socket:
    """A connection that has been answered. It comes from an address of its own for each 20 000."""
    client = socket.socket()
    client.settimeout(60)
    # A port that an earlier connection to somewhere else still waits in will do.
    client.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
    client.bind((f"127.0.0.{2 + number // 20000}", 0))
    client.connect(("127.0.0.1", port))
    client.sendall(first)
    answer = b""
    while sign not in answer:
        more = client.recv(65536)
        if not more:
            raise ConnectionError(f"connection {number} was closed: {answer[:300]!r}")
        answer += more
    return client


@contextmanager
def gateway(protocols: Sequence[str], connections: int) -> Iterator[Gateway]:
    most = connections + _SPARE
    settings = {
        "max_connections": most,
        "max_connections_per_address": most,
        # Nothing is closed or asked meanwhile, but all timers are there.
        "http_idle_timeout": _LONG_S,
        "websocket_ping_interval": _LONG_S,
        "grpc_server_options": {"grpc.keepalive_time_ms": int(_LONG_S * 1000)},
        "grpc_server": "gatewayd",
    }
    executor = Child([sys.executable, "-m", "bench.executor"], cwd=ROOT)
    (found,) = executor.line(r"serves at \S+:(\d+)")
    try:
        one = Gateway(
            {"gateway": settings, "executors": [external("exec_a", int(found[1]))]}, protocols=protocols
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
    with gateway((protocol,), connections) as one:
        started_s = cpu_s((one.pid,))
        # What only the first requests load or make is not the connections'.
        clients = [connect(one.ports[protocol], first, sign, number) for number in range(100)]
        time.sleep(_SETTLED_S)
        before = resident_bytes(one.pid)
        try:
            for number in range(100, 100 + connections):
                clients.append(connect(one.ports[protocol], first, sign, number))
            time.sleep(_SETTLED_S)
            if len(os.listdir(f"/proc/{one.pid}/fd")) < connections:
                raise ConnectionError(f"{protocol}: connections were closed while others were opened")
            each = (resident_bytes(one.pid) - before) / connections
        finally:
            for client in clients:
                client.close()
        return started_s, before / 2**20, each / 2**10


def at_rest() -> Iterator[tuple[str, float, float]]:
    """Seconds of CPU and MiB of a gateway with all protocols, and of an executor's process with docarray."""
    with gateway(PROTOCOLS, 0) as one:
        started_s = cpu_s((one.pid,))
        time.sleep(_SETTLED_S)
        yield "a gateway for all three", started_s, resident_bytes(one.pid) / 2**20
    executor = ExecutorProcess("exec_a", "Same", [ROOT / "bench" / "documents.py"])
    try:
        yield "an executor, with docarray", cpu_s((executor.pid,)), resident_bytes(executor.pid) / 2**20
    finally:
        executor.stop()


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
    rows = []
    for protocol in FIRST:
        if options.only in protocol:
            started_s, memory, each = idle(protocol, options.connections)
            rows.append([f"a gateway for {protocol}", f"{started_s:.2f}", f"{memory:.0f}", f"{each:.1f}"])
            print(", ".join(rows[-1]), flush=True)
    if not options.only:
        rows += [[name, f"{started_s:.2f}", f"{memory:.0f}", ""] for name, started_s, memory in at_rest()]
    heads = ["process", "CPU until it listens, s", "memory, MiB", "each idle connection, KiB"]
    text = f"With {options.connections} idle connections:\n\n" + table(heads, rows)
    print(f"\n{text}")
    if not options.only:
        PAGE.write_text(replace(PAGE.read_text(), text, "bench.idle"))
        print(f"Written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
