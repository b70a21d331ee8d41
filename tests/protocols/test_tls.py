"""HTTP and WebSocket on a TLS port: limits and backpressure are the same."""

import http.client
import json
import socket
import ssl

import attrs
import pytest
import pytest_twisted
import websockets

from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.protocols import tcp
from gatewayd.protocols.web_port import WebPort
from gatewayd.tls.credentials import Authorities
from gatewayd.tls.peer import PeerNames, names_of_transport
from tests.certificates import make, write_files
from tests.protocols.harness import (
    FakeDispatcher,
    answer_to,
    asyncio_client,
    backend,
    closed,
    in_thread,
    served,
    until,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("tls"))


@pytest_twisted.ensureDeferred
async def test_a_tls_port_serves_both_and_holds_its_limits(files):
    def https(context, size):
        connection = http.client.HTTPSConnection("localhost", web.report().port, context=context, timeout=10)
        try:
            connection.request("POST", "/post", b"{}".ljust(size))
            return connection.getresponse().status
        finally:
            connection.close()

    async def wss():
        url = f"wss://localhost:{web.report().port}/"
        async with websockets.connect(url, ssl=trusting, compression=None, proxy=None) as session:
            for _ in range(50):
                await session.send(json.dumps({"data": [{"text": "x" * 50_000}]}))
            await session.send("{}")
            return [len(m) async for m in session], session.close_code

    trusting = ssl.create_default_context(cafile=str(files.roots))
    gateway = GatewayConfig(host="127.0.0.1", max_message_bytes=100_000, prefetch=3)
    tls = files.credentials
    web = WebPort(Listener(("http", "websocket")), backend(gateway, FakeDispatcher(), tls=tls))
    web.listen()
    try:
        assert await in_thread(https, trusting, 100_000) == 200
        assert await in_thread(https, trusting, 100_001) == 413
        answers, code = await asyncio_client(wss)
        assert (len(answers), code) == (50, 1000)
        assert await in_thread(https, trusting, 2) == 200
    finally:
        await closed(web)


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_takes_too_long_ends_the_connection(files, monkeypatch):
    def half_open(sent):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
            connection.sendall(sent)
            try:
                while connection.recv(10_000):
                    pass
            except ConnectionResetError:
                pass

    def whole():
        """A session stays, however long its client is silent after the handshake."""
        connection = http.client.HTTPSConnection("localhost", gateway.port, context=trusting, timeout=10)
        connection.connect()
        for sent in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"):
            half_open(sent)
        connection.request("POST", "/post", b"{}")
        status = connection.getresponse().status
        connection.close()
        return status

    monkeypatch.setattr(tcp, "HANDSHAKE_S", 0.3)
    trusting = ssl.create_default_context(cafile=str(files.roots))
    tls = files.credentials
    async with served(tls=tls) as gateway:
        assert await in_thread(whole) == 200
        await until(lambda: gateway.web.site.admission.open == 0)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_a_resumed_session_has_its_clients_certificate(files, tmp_path, version):
    def ask(session):
        with (
            socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as secure,
        ):
            secure.sendall(b"POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
            assert secure.recv(65536).startswith(b"HTTP/1.1 200")
            return secure.session, secure.session_reused

    def note(request):
        (channel,) = gateway.connections
        seen.append(names_of_transport(channel.transport))
        return answer_to(request)

    seen = []
    root = make("clients' authority", authority=True)
    client = root.issue("alice", names=())
    (tmp_path / "alice.pem").write_bytes(client.pem + client.key_pem())
    context = ssl.create_default_context(cafile=str(files.roots))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.load_cert_chain(tmp_path / "alice.pem")
    tls = attrs.evolve(files.credentials, authorities=Authorities("clients.pem", root.pem, 1))
    async with served(dispatcher=FakeDispatcher(note), tls=tls) as gateway:
        session, _ = await in_thread(ask, None)
        await until(lambda: not gateway.connections)
        _, reused = await in_thread(ask, session)

    assert reused
    assert seen == [PeerNames("alice"), PeerNames("alice")]
