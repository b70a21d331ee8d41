"""What is measured, and what was wanted of it."""

from __future__ import annotations

from typing import Final

import attrs

GATEWAYD: Final = "gatewayd"
JINA: Final = "Jina"
NGHTTPX: Final = "nghttpx"
ALONE: Final = "no gateway"

# Layouts: what stands behind the gateways, and how they are started (bench/sides.py).
ONE, JOIN, CHAIN, GRAPHQL, TLS, EXECUTORS = "one", "join", "chain", "graphql", "tls", "executors"


@attrs.frozen
class Target:
    """
    Wanted figures: ``times`` less CPU than Jina; at most ``proxy`` times that of nghttpx.

    ``floor`` says why the target is missed where it is, and what it would take.
    """

    times: float
    proxy: float | None = None
    floor: str = ""


@attrs.frozen
class Case:
    """
    Requests of one kind (``kind`` and ``payload`` are bench/load.py's) at the port of ``protocol``.

    ``concurrency`` requests at a time, then, unless it is None, ``rate`` requests a second: less than a
    third of what the slower gateway can do.
    """

    key: str
    title: str
    layout: str
    kind: str
    payload: str
    protocol: str
    concurrency: int
    rate: float | None = None
    target: Target | None = None


_FRAMES: Final = (
    "interpreted code: both halves of HTTP/2, the crossing between two threads, the engine; nghttpx only "
    "forwards frames. It would take compiled modules, and a gRPC port on the thread of the engine"
)
_COPIES: Final = "the kernel's copies, which nghttpx has as well, and Python for each piece of a message"
_PARSING: Final = "twisted.web's parser and objects for each request; it would take an HTTP server of our own"
_FLOATS: Final = "12 800 floats read and written as JSON; it would take a parser that makes arrays of them"
_ENGINE: Final = "the engine and the call to the executor, in Python; it would take compiled modules"
_DOCUMENTS: Final = (
    "docarray's objects, which methods get; it would take documents that are decoded when read"
)

CASES: Final = (
    Case("grpc-1", "gRPC, 1 at a time", ONE, "grpc_unary", "small", "grpc", 1, None, Target(5, 3, _FRAMES)),
    Case("grpc-32", "gRPC, 32 at once", ONE, "grpc_unary", "small", "grpc", 32, 300, Target(7, 3, _FRAMES)),
    Case("grpc-trace", "gRPC, a new `traceparent` each", ONE, "grpc_trace", "small", "grpc", 32, 300),
    Case(
        "grpc-call",
        "gRPC `Call`, 32 streams",
        ONE,
        "grpc_stream",
        "small",
        "grpc",
        32,
        300,
        Target(5, 3.5, _FRAMES),
    ),
    Case(
        "grpc-1mb",
        "gRPC, 1 MB, 4 at once",
        ONE,
        "grpc_unary",
        "large",
        "grpc",
        4,
        40,
        Target(3.5, 1, _COPIES),
    ),
    Case("http-1", "HTTP, 1 document, 1 at a time", ONE, "http", "small_json", "http", 1),
    Case(
        "http-32",
        "HTTP, 1 document, 32 at once",
        ONE,
        "http",
        "small_json",
        "http",
        32,
        150,
        Target(12, floor=_PARSING),
    ),
    Case(
        "http-100",
        "HTTP, 100 embeddings, 2 at once",
        ONE,
        "http",
        "embeddings_json",
        "http",
        2,
        4,
        Target(32, floor=_FLOATS),
    ),
    Case(
        "ws-bytes",
        "WebSocket bytes, 32 at once",
        ONE,
        "websocket_bytes",
        "small",
        "websocket",
        32,
        300,
        Target(4, floor=_ENGINE),
    ),
    Case(
        "ws-json",
        "WebSocket JSON, 32 at once",
        ONE,
        "websocket_json",
        "small_json",
        "websocket",
        32,
        200,
        Target(6.5, floor=_ENGINE),
    ),
    Case("join", "gRPC, join of two executors", JOIN, "grpc_unary", "small", "grpc", 32, 100),
    Case("chain", "gRPC, chain of three executors", CHAIN, "grpc_unary", "small", "grpc", 32, 100),
    Case("graphql", "GraphQL, 8 at once", GRAPHQL, "graphql", "graphql", "http", 8, 30),
    Case("tls-grpc", "gRPC over TLS, 32 at once", TLS, "grpc_unary+tls", "small", "grpc", 32, 300),
    Case("tls-http", "HTTP over TLS, 32 at once", TLS, "http+tls", "small_json", "http", 32, 150),
    Case(
        "executor-1",
        "executor, 1 document, 32 at once",
        EXECUTORS,
        "grpc_unary",
        "one_document",
        "grpc",
        32,
        150,
        Target(4, floor=_DOCUMENTS),
    ),
    Case(
        "executor-100",
        "executor, 100 documents, 4 at once",
        EXECUTORS,
        "grpc_unary",
        "hundred_documents",
        "grpc",
        4,
        15,
        Target(4, floor=_DOCUMENTS),
    ),
)
