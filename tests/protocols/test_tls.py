"""HTTP and WebSocket on a TLS port: limits and backpressure are the same."""

import datetime
import http.client
import json
import ssl

import pytest
import pytest_twisted
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.threads import deferToThread

from gatewayd.config.model import GatewayConfig
from gatewayd.protocols.listener import build_site

from .harness import FakeDispatcher, asyncio_client, in_thread, reactor, status_maps


def self_signed():
    """A certificate for localhost with its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


@pytest.fixture(scope="module")
def certificate():
    return self_signed()


@pytest_twisted.ensureDeferred
async def test_a_tls_port_serves_both_and_holds_its_limits(certificate):
    def https(context, size):
        connection = http.client.HTTPSConnection(
            "localhost", port.getHost().port, context=context, timeout=10
        )
        try:
            connection.request("POST", "/post", b"{}".ljust(size))
            return connection.getresponse().status
        finally:
            connection.close()

    async def wss():
        url = f"wss://localhost:{port.getHost().port}/"
        async with websockets.connect(url, ssl=trusting, compression=None, proxy=None) as session:
            for _ in range(50):
                await session.send(json.dumps({"data": [{"text": "x" * 50_000}]}))
            await session.send("{}")
            return [len(m) async for m in session], session.close_code

    pem, key = certificate
    trusting = ssl.create_default_context(cadata=pem.decode())
    gateway = GatewayConfig(max_message_bytes=100_000, prefetch=3)
    site = build_site(("http", "websocket"), gateway, FakeDispatcher(), status_maps, deferToThread, reactor)
    options = PrivateCertificate.loadPEM(pem + key).options()
    port = reactor.listenSSL(0, site, options, interface="127.0.0.1")
    try:
        assert await in_thread(https, trusting, 100_000) == 200
        assert await in_thread(https, trusting, 100_001) == 413
        answers, code = await asyncio_client(wss)
        assert (len(answers), code) == (50, 1000)
        assert await in_thread(https, trusting, 2) == 200
    finally:
        await port.stopListening()
        await site.close_all(0.0)
