"""
The same conversations with both gRPC servers: equal results, or a difference that is listed here.

Random ones by gRPC's own client; odd ones by the h2 package, which says what that client would not.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import attrs
import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor

from gatewayd.bridge import Bridge
from gatewayd.config import GatewayConfig
from gatewayd.errors import BadRequest, DeadlineExceeded, ExecutorUnreachable, Overloaded
from gatewayd.messages import methods, wire
from gatewayd.messages.headers import AllowList
from gatewayd.messages.request import Request, Response
from gatewayd.pb import DataContentProto, DataRequestProto
from tests.protocols.grpc.servers import SERVERS, grpc_port
from tests.protocols.harness import FakeDispatcher, answer_to, in_thread

pytestmark = pytest.mark.slow

HEALTH = "/grpc.health.v1.Health/Check"
LIMIT = 100_000
# Between gRPC's two limits on metadata its client refuses answers at random.
OPTIONS = [("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20)]


def behave(request: Request) -> Response:
    """What becomes of a request is said by its endpoint."""
    kind = request.endpoint
    if kind == "/down":
        raise ExecutorUnreachable("exec_x", ["127.0.0.1:1"], "refused é%\n")
    if kind == "/late":
        raise DeadlineExceeded("exec_x", ["127.0.0.1:1"])
    if kind == "/full":
        raise Overloaded("no room " * 2000)
    if kind == "/bad":
        raise BadRequest("ü")
    headers = (("x-a", "1"), ("x-b-bin", "AAE")) if kind == "/headers" else ()
    if kind == "/big":
        content = DataContentProto()
        content.docs.docs.add(text="x" * 200_000)
        request = attrs.evolve(request, documents=content.SerializeToString())
    return attrs.evolve(answer_to(request), headers=headers)


@pytest_twisted.async_yield_fixture()
async def both() -> AsyncIterator[dict[str, int]]:
    """The port of each server."""
    bridge, ports = Bridge(reactor), {}
    bridge.start()
    for kind in SERVERS:
        gateway = GatewayConfig(host="127.0.0.1", max_message_bytes=LIMIT, forward_headers=("x-*",))
        ports[kind] = grpc_port(
            kind,
            bridge,
            FakeDispatcher(behave),
            gateway,
            lambda: {"jina": {"jina": "3.14.1"}, "envs": {}},
            prefetch=5,
            forwarded=AllowList.of(["x-*"], 500),
            max_message_bytes=LIMIT,
        )
        ports[kind].listen()
        ports[kind].set_serving()
    yield {kind: port.report().port for kind, port in ports.items()}
    for port in ports.values():
        await port.drain(-1.0)
    await bridge.stop()


# -- random conversations ----------------------------------------------------------------------------------

ENDPOINTS = st.sampled_from(["/", "/", "/", "/headers", "/big", "/down", "/late", "/full", "/bad"])
MESSAGES = st.one_of(
    st.tuples(st.integers(0, 99), ENDPOINTS, st.sampled_from([0, 10, 5000, 90_000])),
    st.binary(max_size=30),
    st.just("too long"),
)
METADATA = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["x-a", "x-b", "y"]), st.text("abc ,;=%", max_size=20).map(str.strip)),
        st.tuples(st.sampled_from(["x-a-bin", "y-bin"]), st.binary(max_size=20)),
        st.sampled_from([("__results_in_order__", "true"), ("__prefetch__", "2"), ("__prefetch__", "x")]),
        st.just(("x-long", "v" * 600)),
    ),
    max_size=4,
)
CALLS = st.one_of(
    st.tuples(
        st.sampled_from([methods.SINGLE, methods.SINGLE, methods.DRY_RUN, methods.STATUS, "/nope/x", HEALTH]),
        MESSAGES.map(lambda one: [one]),
        METADATA,
        st.sampled_from([None, grpc.Compression.Gzip, grpc.Compression.Deflate]),
    ),
    st.tuples(
        st.just(methods.STREAM),
        st.lists(MESSAGES, max_size=6),
        METADATA.map(lambda pairs: [*pairs, ("__results_in_order__", "true")]),
        st.sampled_from([None, grpc.Compression.Gzip]),
    ),
)


def encoded(one: Any) -> bytes:
    if one == "too long":
        return b"\x22\xe0\xa7\x12" + bytes(300_000)
    if isinstance(one, bytes):
        return one
    number, endpoint, size = one
    content = DataContentProto()
    content.docs.docs.add(text="x" * size)
    return wire.encode_request(Request(f"r{number}", endpoint, documents=content.SerializeToString()))


def told(answer: bytes) -> Any:
    """An answer without what differs from one call to the next."""
    return answer if len(answer) < 10 else DataRequestProto.FromString(answer)


def outcome(channel: grpc.Channel, call: Any) -> Any:
    path, contents, metadata, compression = call
    found: list[Any] = []
    more = {"metadata": metadata, "timeout": 20, "compression": compression}
    asking: Any
    if path == methods.STREAM:
        asking = channel.stream_stream(path)(iter([encoded(one) for one in contents]), **more)
    else:
        asking = channel.unary_stream(path)(encoded(contents[0]), **more)
    try:
        for answer in asking:
            found.append(told(answer) if path in (methods.STREAM, methods.SINGLE) else answer)
    except grpc.RpcError:
        pass
    trailing = sorted((key, value) for key, value in asking.trailing_metadata() or ())
    return found, asking.code().name, asking.details(), trailing


@pytest_twisted.ensureDeferred
async def test_random_conversations(both: dict[str, int]) -> None:
    channels = {kind: grpc.insecure_channel(f"127.0.0.1:{port}", OPTIONS) for kind, port in both.items()}

    @settings(deadline=None, max_examples=200)
    @given(call=CALLS)
    def converse(call: Any) -> None:
        theirs, ours = (outcome(channels[kind], call) for kind in SERVERS)
        if not same_but_listed(call, theirs, ours):
            assert ours == theirs, (ours, theirs, call)

    try:
        await in_thread(converse)
    finally:
        await in_thread(lambda: [channel.close() for channel in channels.values()])


@pytest_twisted.ensureDeferred
async def test_a_call_that_fails_keeps_the_headers_of_the_answers_before(both: dict[str, int]) -> None:
    ordered = [("__results_in_order__", "true")]
    call = methods.STREAM, [(1, "/headers", 0), (2, "/full", 0)], ordered, None

    def converse(kind: str) -> Any:
        with grpc.insecure_channel(f"127.0.0.1:{both[kind]}", OPTIONS) as channel:
            return outcome(channel, call)

    theirs, ours = [await in_thread(converse, kind) for kind in SERVERS]
    assert ours == theirs
    _, code, _, trailing = ours
    assert code == "RESOURCE_EXHAUSTED"
    assert [key for key, _ in trailing] == ["grpc-status-details-bin", "x-a", "x-b-bin"]


def same_but_listed(call: Any, theirs: Any, ours: Any) -> bool:
    path, contents, _, compression = call
    raw = any(isinstance(one, bytes) for one in contents)
    # The answers before it may arrive or not.
    if path == methods.STREAM and "too long" in contents and "RESOURCE_EXHAUSTED" in (ours[1], theirs[1]):
        return True
    # Requests before one that cannot be read get their answers from ours, from the other perhaps.
    if path == methods.STREAM and raw and theirs[1] in (ours[1], "INVALID_ARGUMENT"):
        return bool(ours[0][: len(theirs[0])] == theirs[0])
    # gRPC's server does not tell which messages are compressed, so their first bytes are looked at; and its
    # services answer what is not their message with UNKNOWN or INTERNAL.
    if (raw or path == HEALTH) and ours[1] == "INVALID_ARGUMENT":
        return theirs[1] in ("INVALID_ARGUMENT", "INTERNAL", "UNKNOWN")
    # Ours refuses a question for its health of more than 64 KiB; the other reads it first.
    if path == HEALTH and ours[1] == "RESOURCE_EXHAUSTED":
        return True
    # What gRPC's server refuses by its size has its own words.
    codes = ours[1], theirs[1]
    if codes == ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED") and "larger" in ours[2]:
        return True
    # An answer before the end of a stream meets the client's messages on their way.
    return path == methods.STREAM and compression is not None and ours[1] == theirs[1]


# -- odd and hostile ones ----------------------------------------------------------------------------------

HEAD = {
    ":method": "POST",
    ":scheme": "http",
    ":path": methods.SINGLE,
    ":authority": "a",
    "te": "trailers",
    "content-type": "application/grpc",
}
ASKED = wire.encode_request(Request("r", "/"))


def prefixed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + struct.pack(">I", len(message)) + message


def ask(port: int, head: dict[str, str], body: bytes, end: bool = True) -> str:
    """What the server says to one request: a status of gRPC or HTTP, a reset, or the end."""
    config = h2.config.H2Configuration(
        client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    client = h2.connection.H2Connection(config)
    client.initiate_connection()
    fields = [(name, value) for name, value in head.items() if value]
    client.send_headers(1, fields, end_stream=end and not body)
    for at in range(0, len(body), 16_384):
        client.send_data(1, body[at : at + 16_384], end_stream=end and at + 16_384 >= len(body))
    http_status = ""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
        connection.sendall(client.data_to_send())
        while True:
            try:
                data = connection.recv(1 << 16)
            except TimeoutError:
                return "nothing"
            if not data:
                return "closed"
            for event in client.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    found = {bytes(name).decode(): bytes(value).decode() for name, value in event.headers}
                    http_status = found.get(":status", http_status)
                    if "grpc-status" in found:
                        return f"grpc {found['grpc-status']}"
                if isinstance(event, h2.events.StreamEnded):
                    return f"http {http_status}"
                if isinstance(event, h2.events.StreamReset):
                    return f"reset {event.error_code}"
                if isinstance(event, h2.events.ConnectionTerminated):
                    return "closed"
            connection.sendall(client.data_to_send())


# The request, what gRPC's own server says to it, and what ours does: without a third, the same.
ODD: dict[str, tuple[dict[str, str], bytes, str, str | None]] = {
    "as it should be": ({}, prefixed(ASKED), "grpc 0", None),
    "nothing but te is missing": ({"te": ""}, prefixed(ASKED), "grpc 2", "grpc 0"),
    "an unknown method": ({":path": "/a/b"}, prefixed(ASKED), "grpc 12", None),
    "a path without a method": ({":path": "/a"}, prefixed(ASKED), "grpc 12", None),
    "a deadline that has passed": ({"grpc-timeout": "0S"}, prefixed(ASKED), "grpc 4", None),
    "no timeout at all": ({"grpc-timeout": "soon"}, prefixed(ASKED), "reset 2", "grpc 13"),
    "content-type with a kind": ({"content-type": "application/grpc+x"}, prefixed(ASKED), "grpc 0", None),
    "a message that is too long": ({}, prefixed(bytes(LIMIT + 1))[:1000], "nothing", "grpc 8"),
    "a message that is no protobuf": ({}, prefixed(b"\xff" * 9), "grpc 3", None),
    "GET": ({":method": "GET"}, prefixed(ASKED), "grpc 2", "http 405"),
    "no content-type": ({"content-type": ""}, prefixed(ASKED), "grpc 0", "http 415"),
    "HTML": ({"content-type": "text/html"}, prefixed(ASKED), "grpc 0", "http 415"),
    "an encoding that is not known": ({"grpc-encoding": "x"}, prefixed(ASKED), "reset 2", "grpc 12"),
    "a compressed message without an encoding": ({}, prefixed(ASKED, 1), "grpc 0", "grpc 13"),
    "a flag that is not known": ({}, prefixed(ASKED, 2), "grpc 0", "grpc 13"),
    "a value with spaces around it": ({"x-a": " 1 "}, prefixed(ASKED), "grpc 0", None),
    "a binary value that is none": ({"x-a-bin": "?"}, prefixed(ASKED), "reset 2", "grpc 0"),
    "a capital in a name": ({"X-a": "1"}, prefixed(ASKED), "reset 2", "reset 1"),
    "a line's end in a value": ({"x-a": "1\n2"}, prefixed(ASKED), "grpc 3", "reset 1"),
    "connection: close": ({"connection": "close"}, prefixed(ASKED), "grpc 0", "reset 1"),
    "te with another value": ({"te": "gzip"}, prefixed(ASKED), "reset 2", "reset 1"),
    "a pseudo-header that is not known": ({":x": "1"}, prefixed(ASKED), "reset 2", "reset 1"),
    "no path": ({":path": ""}, prefixed(ASKED), "grpc 2", "reset 1"),
    "no scheme": ({":scheme": ""}, prefixed(ASKED), "grpc 2", "reset 1"),
    "no authority": ({":authority": ""}, prefixed(ASKED), "grpc 2", "grpc 0"),
    "a content-length that fits": ({"content-length": "13"}, prefixed(ASKED), "grpc 0", None),
    "a content-length that does not": ({"content-length": "3"}, prefixed(ASKED), "grpc 0", "reset 1"),
    "more metadata than is forwarded": ({"x-a": "v" * 600}, prefixed(ASKED), "grpc 3", None),
    "a timeout of nine digits": ({"grpc-timeout": "123456789S"}, prefixed(ASKED), "grpc 0", "grpc 13"),
    "no message at all": ({}, b"", "nothing", "grpc 12"),
    "two messages": ({}, prefixed(ASKED) * 2, "grpc 0", "grpc 12"),
    "half a message": ({}, prefixed(ASKED)[:-1], "nothing", "grpc 13"),
    "an empty message": ({}, prefixed(b""), "grpc 0", None),
}


@pytest.mark.parametrize("case", ODD.values(), ids=ODD)
@pytest_twisted.ensureDeferred
async def test_odd_requests(
    both: dict[str, int], case: tuple[dict[str, str], bytes, str, str | None]
) -> None:
    head, body, theirs, ours = case
    whole = len(body) < 1000
    found = {kind: await in_thread(ask, port, {**HEAD, **head}, body, whole) for kind, port in both.items()}
    assert found == {"grpcio": theirs, "gatewayd": ours or theirs}
