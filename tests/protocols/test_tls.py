"""HTTP and WebSocket on a TLS port: limits and backpressure are the same."""

import http.client
import json
import socket
import ssl

import pytest
import pytest_twisted
import websockets

from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.protocols import tcp
from gatewayd.protocols.web_port import WebPort
from tests.certificates import write_files
from tests.protocols.harness import FakeDispatcher, asyncio_client, backend, closed, in_thread, served, until


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
