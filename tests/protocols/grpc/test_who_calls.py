"""Both gRPC servers ask the access control who calls, before anything of the request is read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
import pytest_twisted
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThread

from gatewayd.access.control import AccessControl, Question
from gatewayd.access.credentials import Credentials
from gatewayd.bridge import Bridge
from gatewayd.config import GatewayConfig
from gatewayd.errors import Forbidden, Unauthenticated
from gatewayd.messages.caller import Caller
from tests.protocols.grpc.servers import SERVERS, grpc_port
from tests.protocols.grpc.test_grpc import (
    CALL,
    DRY_RUN,
    SINGLE,
    STATUS,
    Port,
    Requests,
    ids,
    message,
)
from tests.protocols.harness import FakeDispatcher


class KeyAccess(AccessControl):
    """Knows Ann at once, and Bob after a question; Bob may see nothing of the gateway itself."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Credentials] = []

    def identify(self, credentials: Credentials) -> Caller | Question:
        self.seen.append(credentials)
        key = credentials.header("authorization")
        if key == "ann":
            return Caller("ann", credentials.address, "key")
        if key in ("bob", "mallory"):
            return Question((), key, "POST", credentials.target, "grpc")
        raise Unauthenticated("who are you?")

    def ask(self, question: Question) -> Deferred[Caller]:
        return (
            fail(Unauthenticated("who are you?")) if question.address == "mallory" else succeed(Caller("bob"))
        )

    def admit(self, caller: Caller, *names: str) -> None:
        if caller.name == "bob":
            raise Forbidden(names[0])


@pytest_twisted.async_yield_fixture(params=SERVERS)
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Port, KeyAccess]]:
    bridge, dispatcher, access = Bridge(reactor), FakeDispatcher(), KeyAccess()
    bridge.start()
    gateway = GatewayConfig(host="127.0.0.1")
    server = grpc_port(request.param, bridge, dispatcher, gateway, dict, prefetch=10, access=access)
    server.listen()
    server.set_serving()
    address = f"127.0.0.1:{server.report().port}"
    channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    yield Port(server, dispatcher, channel, address), access
    await deferToThread(channel.close)
    await server.drain(-1.0)
    await bridge.stop()


def ask(channel: grpc.Channel, path: str, key: str) -> str:
    """The code of a call, and who called."""
    asked = channel.unary_unary(path).future(message("r"), metadata=(("authorization", key),), timeout=10)
    return str(asked.code().name)


@pytest.mark.parametrize(
    ("key", "codes"),
    [
        ("ann", ["OK", "OK", "OK"]),
        ("bob", ["OK", "PERMISSION_DENIED", "PERMISSION_DENIED"]),
        ("mallory", ["UNAUTHENTICATED"] * 3),
        ("", ["UNAUTHENTICATED"] * 3),
    ],
)
@pytest_twisted.ensureDeferred
async def test_unary_methods(kept: tuple[Port, KeyAccess], key: str, codes: list[str]) -> None:
    port, access = kept
    found = [await deferToThread(ask, port.channel, path, key) for path in (SINGLE, DRY_RUN, STATUS)]
    assert found == codes
    callers = [request.caller.name for request in port.dispatcher.requests]
    assert callers == ([key] if codes[0] == "OK" else [])
    assert {credentials.address for credentials in access.seen} == {"127.0.0.1"}


@pytest.mark.parametrize(("key", "code"), [("ann", "OK"), ("bob", "OK"), ("mallory", "UNAUTHENTICATED")])
@pytest_twisted.ensureDeferred
async def test_streams(kept: tuple[Port, KeyAccess], key: str, code: str) -> None:
    port, _ = kept
    requests = Requests(message("r1"), message("r2"))
    requests.end()
    metadata = (("authorization", key), ("__results_in_order__", "true"))

    def converse() -> tuple[list[str], str]:
        call: Any = port.channel.stream_stream(CALL)(iter(requests), metadata=metadata, timeout=10)
        answers = []
        with suppress(grpc.RpcError):
            answers += list(call)
        return ids(answers), call.code().name

    assert await deferToThread(converse) == (["r1", "r2"] if code == "OK" else [], code)
    assert {request.caller.name for request in port.dispatcher.requests} == ({key} if code == "OK" else set())


@pytest_twisted.ensureDeferred
async def test_a_request_of_megabytes_waits_for_the_answer_and_arrives_whole(
    kept: tuple[Port, KeyAccess],
) -> None:
    port, _ = kept
    body = message("r", documents=b"\x0a\x00" + b"\x1a\x80\x80\x80\x02" + bytes(1 << 22))

    def converse() -> bytes:
        asked = port.channel.unary_unary(SINGLE).future(
            body, metadata=(("authorization", "bob"),), timeout=20
        )
        asked.code()
        return body

    await deferToThread(converse)
    assert [len(request.documents) for request in port.dispatcher.requests] == [(1 << 22) + 7]


@pytest_twisted.ensureDeferred
async def test_health_is_for_everybody_and_reflection_is_not(kept: tuple[Port, KeyAccess]) -> None:
    port, _ = kept
    check = health_pb2_grpc.HealthStub(port.channel).Check
    assert (await deferToThread(check, health_pb2.HealthCheckRequest(), timeout=10)).status == 1
    reflect = reflection_pb2_grpc.ServerReflectionStub(port.channel).ServerReflectionInfo

    def list_services(key: str) -> str:
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        call = reflect(iter([question]), metadata=(("authorization", key),), timeout=10)
        with suppress(grpc.RpcError):
            list(call)
        return str(call.code().name)

    assert [await deferToThread(list_services, key) for key in ("ann", "bob", "x")] == [
        "OK",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
    ]
