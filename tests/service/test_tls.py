"""A gateway with a certificate: every protocol over TLS, as its clients speak it, and nothing but TLS."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import websockets

from gatewayd.messages import wire
from gatewayd.messages.request import Request
from gatewayd.pb import DataRequestProto
from tests.certificates import Files, make, write_files
from tests.paths import ROOT
from tests.processes import Gateway, environment

pytestmark = pytest.mark.slow

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}
TWISTD = "from twisted.scripts.twistd import run; run()"
SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
JSON = "content-type: application/json"
BODY = json.dumps({"data": [{"id": "d0", "text": "x"}], "execEndpoint": "/tag"})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def gateway(files: Files) -> Iterator[Gateway]:
    gateway = Gateway({"gateway": files.settings, "executors": [REC]})
    yield gateway
    output = gateway.output
    assert gateway.stop() == 0
    assert "Traceback" not in output, output


@pytest.fixture(scope="module")
def trusting(files: Files) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(files.roots))


def handshake(port: int, context: ssl.SSLContext) -> tuple[str | None, str | None]:
    """The application protocol and the version that were agreed on."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.selected_alpn_protocol(), secure.version()


def grpc_tag(port: int, files: Files) -> DataRequestProto:
    credentials = grpc.ssl_channel_credentials(files.roots.read_bytes())
    document = DataRequestProto()
    document.data.docs.docs.add(id="d0", text="x")
    message = wire.encode_request(Request("r0", "/tag", documents=document.data.SerializeToString()))
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        return DataRequestProto.FromString(channel.unary_unary(SINGLE)(message, timeout=20))


def curl(port: int, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["curl", "-sSm", "20", *options, "-H", JSON, "-d", BODY, f"https://localhost:{port}/post"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_trusts_the_chain_by_its_root(gateway: Gateway, files: Files) -> None:
    done = curl(gateway.ports["http"], "--cacert", str(files.roots))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"][0]["text"] == "xA"


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_refuses_it_without_the_root(gateway: Gateway) -> None:
    assert curl(gateway.ports["http"]).returncode == 60  # peer certificate cannot be authenticated


def test_a_websocket_works_over_tls(gateway: Gateway, trusting: ssl.SSLContext) -> None:
    async def converse() -> Any:
        url = f"wss://localhost:{gateway.ports['websocket']}/"
        async with websockets.connect(url, ssl=trusting, proxy=None) as session:
            await session.send(BODY)
            return json.loads(await session.recv())

    assert asyncio.run(converse())["data"][0]["text"] == "xA"


def test_grpc_works_over_tls(gateway: Gateway, files: Files) -> None:
    answer = grpc_tag(gateway.ports["grpc"], files)

    (document,) = answer.data.docs.docs
    assert (document.id, document.text, document.tags["A"]) == ("d0", "xA", 1.0)


@pytest.mark.parametrize(
    ("protocol", "expected"), [("grpc", "h2"), ("http", "http/1.1"), ("websocket", "http/1.1")]
)
def test_every_port_speaks_tls_1_3_and_names_its_protocol(
    gateway: Gateway, trusting: ssl.SSLContext, protocol: str, expected: str
) -> None:
    trusting.set_alpn_protocols(["h2", "http/1.1"])

    assert handshake(gateway.ports[protocol], trusting) == (expected, "TLSv1.3")


@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_every_port_speaks_tls_1_2_with_modern_ciphers_only(
    gateway: Gateway, files: Files, protocol: str
) -> None:
    context = ssl.create_default_context(cafile=str(files.roots))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])

    assert handshake(gateway.ports[protocol], context)[1] == "TLSv1.2"

    context.set_ciphers("AES128-SHA:AES256-SHA:AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        handshake(gateway.ports[protocol], context)


@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_tls_1_0_and_1_1_are_refused(gateway: Gateway, files: Files, protocol: str, version: str) -> None:
    context = ssl.create_default_context(cafile=str(files.roots))
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that they are old is the point
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]

    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(gateway.ports[protocol], context)


@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_plain_text_to_a_tls_port_ends_and_others_are_served(
    gateway: Gateway, files: Files, trusting: ssl.SSLContext, protocol: str
) -> None:
    port = gateway.ports[protocol]
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        socket.create_connection(("127.0.0.1", port), timeout=10) as tcp,
        trusting.wrap_socket(tcp, server_hostname="localhost") as secure,
    ):
        plain.sendall(b"POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        received = b""
        try:
            while piece := plain.recv(65536):
                received += piece
        except ConnectionError:
            pass  # it may be reset, too

        assert b"HTTP/" not in received
        assert secure.version() is not None
        if protocol != "grpc":
            secure.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert secure.recv(65536).startswith(b"HTTP/1.1 200")
        else:
            assert grpc_tag(port, files).data.docs.docs[0].text == "xA"


def test_plain_grpc_to_a_tls_port_is_unavailable(gateway: Gateway) -> None:
    with (
        grpc.insecure_channel(f"localhost:{gateway.ports['grpc']}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(SINGLE)(b"", timeout=20)

    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_pair_that_does_not_match_ends_the_start_with_code_1(files: Files, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(make("other").key_pem())
    (tmp_path / "flow.yml").write_text(
        f"jtype: Flow\ngateway:\n  ssl_certfile: {files.chain}\n  ssl_keyfile: other.pem\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "gateway", "--config", "flow.yml"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert "flow.yml:4:" in done.stderr
    assert f"other.pem is not the key of the certificate in {files.chain}" in done.stderr
    assert "Traceback" not in done.stderr
