"""HTTP and WebSocket on a TLS port: limits and backpressure are the same."""

import http.client
import json
import ssl

import pytest
import pytest_twisted
import websockets

from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.protocols.web_port import WebPort
from gatewayd.tls import load_identity
from tests.certificates import write_files
from tests.protocols.harness import FakeDispatcher, asyncio_client, backend, closed, in_thread


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
    identity = load_identity(str(files.chain), str(files.key))
    web = WebPort(Listener(("http", "websocket")), backend(gateway, FakeDispatcher(), identity=identity))
    web.listen()
    try:
        assert await in_thread(https, trusting, 100_000) == 200
        assert await in_thread(https, trusting, 100_001) == 413
        answers, code = await asyncio_client(wss)
        assert (len(answers), code) == (50, 1000)
        assert await in_thread(https, trusting, 2) == 200
    finally:
        await closed(web)
