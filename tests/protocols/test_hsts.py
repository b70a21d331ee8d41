"""Strict-Transport-Security: in every answer over TLS once it is asked for, and in no other."""

from __future__ import annotations

import re
import socket
import ssl

import pytest
import pytest_twisted

from tests.certificates import Files, write_files
from tests.protocols.harness import in_thread, served

UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"
PREFLIGHT = b"Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n"
REQUESTS = {
    "200": b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "404": b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "422": b"POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{",
    "400": b"GET /status HTTP/1.1\r\n\r\n",
    "413": b"POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n",
    "200 of a preflight": b"OPTIONS /post HTTP/1.1\r\nHost: localhost\r\n" + PREFLIGHT + b"\r\n",
    "101": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + VERSION + b"\r\n",
    "400 of a handshake": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + b"\r\n",
    "403 of a handshake": b"GET /other HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + VERSION + b"\r\n",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("tls"))


def head(port: int, request: bytes, files: Files | None) -> bytes:
    """The head of the answer, over TLS where there are files."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        if files is not None:
            context = ssl.create_default_context(cafile=str(files.roots))
            connection = context.wrap_socket(connection, server_hostname="localhost")
        with connection:
            connection.sendall(request)
            received = b""
            while b"\r\n\r\n" not in received:
                piece = connection.recv(65536)
                assert piece, received
                received += piece
    return received.partition(b"\r\n\r\n")[0]


@pytest_twisted.ensureDeferred
async def test_every_answer_over_tls_has_it(files: Files) -> None:
    settings = {"hsts": 31536000, "cors": ("*",), "max_message_bytes": 1000}
    async with served(("http", "websocket"), tls=files.credentials, **settings) as gateway:
        for name, request in REQUESTS.items():
            found = await in_thread(head, gateway.port, request, files)

            assert found.startswith(b"HTTP/1.1 " + name[:3].encode()), found
            values = re.findall(rb"(?i)\r\nstrict-transport-security: ([^\r]*)", found)
            assert values == [b"max-age=31536000"], (name, found)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("tls", "hsts"), [(True, 0), (False, 100)], ids=["not asked for", "without TLS"])
async def test_no_other_answer_has_it(files: Files, tls: bool, hsts: int) -> None:
    credentials = files.credentials if tls else None
    settings = {"hsts": hsts, "cors": ("*",), "max_message_bytes": 1000}
    async with served(("http", "websocket"), tls=credentials, **settings) as gateway:
        for request in REQUESTS.values():
            found = await in_thread(head, gateway.port, request, files if tls else None)

            assert b"strict-transport-security" not in found.lower()
