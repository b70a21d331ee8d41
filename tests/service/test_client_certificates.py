"""Clients' certificates (mTLS): which clients every protocol accepts."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import grpc
import pytest
import requests
import websockets
from click.testing import CliRunner

from gatewayd import Client
from gatewayd.cli import main
from gatewayd.client.errors import Unreachable
from gatewayd.pb import DataRequestProto
from tests.certificates import Files, Party, make, write_files
from tests.paths import ROOT
from tests.processes import Gateway, environment

pytestmark = pytest.mark.slow

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}
SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
BODY = {"data": [{"id": "d0", "text": "x"}], "execEndpoint": "/tag"}
PROTOCOLS = ("grpc", "http", "websocket")


@attrs.frozen
class Shown:
    """What a client shows of itself; None is nothing."""

    certfile: Path | None = None
    keyfile: Path | None = None

    @property
    def pair(self) -> tuple[str, str] | None:
        return None if self.certfile is None else (str(self.certfile), str(self.keyfile))


@attrs.frozen
class Certificates:
    """The server's files, the authorities of its clients, and what clients show, by name."""

    server: Files
    client_ca: Path
    clients: dict[str, Shown]

    def gateway(self, **more: Any) -> Gateway:
        settings = {**self.server.settings, "ssl_client_ca": str(self.client_ca), **more}
        return Gateway({"gateway": settings, "executors": [REC]})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder, own = tmp_path_factory.mktemp("clients"), tmp_path_factory.mktemp("server")
    # Two authorities in one bundle; the second is itself signed by one that is not in it.
    first, above = make("first client authority", authority=True), make("above", authority=True)
    second = above.issue("second client authority", authority=True)
    middle = first.issue("intermediate", authority=True)
    (folder / "clients.pem").write_bytes(b"# ours\n" + first.pem + second.pem)

    def written(name: str, party: Party, chain: bytes = b"") -> Shown:
        shown = Shown(folder / f"{name}.pem", folder / f"{name}.key")
        shown.certfile.write_bytes(party.pem + chain)  # type: ignore[union-attr]
        shown.keyfile.write_bytes(party.key_pem())  # type: ignore[union-attr]
        return shown

    clients = {
        "good": written("good", first.issue("alice")),
        "of the second": written("second", second.issue("bob")),
        "of a chain": written("chain", middle.issue("carol"), middle.pem),
        "none": Shown(),
        "expired": written("expired", first.issue("alice", begin_days=-9, end_days=-8)),
        "a stranger": written("stranger", make("first client authority", authority=True).issue("alice")),
        "self-signed": written("self", make("alice")),
    }
    return Certificates(write_files(own), folder / "clients.pem", clients)


@pytest.fixture(scope="module")
def required(files: Certificates) -> Iterator[Gateway]:
    yield from served(files.gateway())


@pytest.fixture(scope="module")
def optional(files: Certificates) -> Iterator[Gateway]:
    yield from served(files.gateway(ssl_client_auth="optional", grpc_server="grpcio"))


def served(gateway: Gateway) -> Iterator[Gateway]:
    yield gateway
    output = gateway.output
    assert gateway.stop() == 0
    assert "Traceback" not in output, output


def over_http(port: int, files: Certificates, shown: Shown) -> str:
    url = f"https://localhost:{port}/post"
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(url, json=BODY, verify=str(files.server.roots), cert=shown.pair, timeout=20)
    return str(answer.json()["data"][0]["text"])


def over_websocket(port: int, files: Certificates, shown: Shown) -> str:
    context = ssl.create_default_context(cafile=str(files.server.roots))
    if shown.pair is not None:
        context.load_cert_chain(*shown.pair)

    async def converse() -> str:
        url = f"wss://localhost:{port}/"
        async with websockets.connect(url, ssl=context, proxy=None, open_timeout=20) as session:
            await session.send(json.dumps(BODY))
            return str(json.loads(await session.recv())["data"][0]["text"])

    return asyncio.run(converse())


def over_grpc(port: int, files: Certificates, shown: Shown) -> str:
    own = () if shown.keyfile is None else (shown.keyfile.read_bytes(), shown.certfile.read_bytes())  # type: ignore[union-attr]
    credentials = grpc.ssl_channel_credentials(files.server.roots.read_bytes(), *own)
    request = DataRequestProto()
    request.header.exec_endpoint = "/tag"
    request.data.docs.docs.add(id="d0", text="x")
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        answer = channel.unary_unary(SINGLE)(request.SerializeToString(), timeout=20)
    return str(DataRequestProto.FromString(answer).data.docs.docs[0].text)


ASK = {"grpc": over_grpc, "http": over_http, "websocket": over_websocket}
# What the libraries raise when the server ends the handshake, or the connection right after it.
REFUSALS = (requests.ConnectionError, grpc.RpcError, OSError, websockets.WebSocketException, EOFError)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("client", ["good", "of the second", "of a chain"])
def test_clients_of_the_authorities_are_served(
    required: Gateway, files: Certificates, protocol: str, client: str
) -> None:
    assert ASK[protocol](required.ports[protocol], files, files.clients[client]) == "xA"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("client", ["none", "expired", "a stranger", "self-signed"])
def test_all_others_are_refused(required: Gateway, files: Certificates, protocol: str, client: str) -> None:
    with pytest.raises(REFUSALS):
        ASK[protocol](required.ports[protocol], files, files.clients[client])


@pytest.mark.parametrize("protocol", ["http", "websocket"])
@pytest.mark.parametrize("client", ["none", "good"])
def test_where_it_is_optional_clients_without_are_served(
    optional: Gateway, files: Certificates, protocol: str, client: str
) -> None:
    assert ASK[protocol](optional.ports[protocol], files, files.clients[client]) == "xA"


@pytest.mark.parametrize("protocol", ["http", "websocket"])
@pytest.mark.parametrize("client", ["expired", "a stranger", "self-signed"])
def test_where_it_is_optional_a_bad_one_is_refused_all_the_same(
    optional: Gateway, files: Certificates, protocol: str, client: str
) -> None:
    with pytest.raises(REFUSALS):
        ASK[protocol](optional.ports[protocol], files, files.clients[client])


def test_where_it_is_optional_grpcios_server_asks_for_none_and_the_start_says_so(
    optional: Gateway, files: Certificates
) -> None:
    for client in ("none", "good", "a stranger"):
        assert over_grpc(optional.ports["grpc"], files, files.clients[client]) == "xA"
    assert "over gRPC, clients are asked for none" in optional.output


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
@pytest.mark.parametrize("protocol", ["http", "websocket"])  # gRPC's server leaves the names out
def test_clients_are_told_which_authorities_are_accepted(required: Gateway, protocol: str) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{required.ports[protocol]}", "-alpn", "h2"]
    done = subprocess.run(command, env=environment(), input=b"", capture_output=True, timeout=30, check=False)

    names = done.stdout.partition(b"Acceptable client certificate CA names")[2].partition(b"Requested")[0]
    assert [b"first client authority" in names, b"second client authority" in names] == [True, True]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_our_own_client_shows_its_certificate(required: Gateway, files: Certificates, protocol: str) -> None:
    good = files.clients["good"]
    with Client(
        "localhost",
        required.ports[protocol],
        protocol,
        tls_ca_certfile=str(files.server.roots),
        tls_certfile=str(good.certfile),
        tls_keyfile=str(good.keyfile),
    ) as client:
        assert client.post("/tag", ["x"])[0].text == "xA"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_may_have_both_in_one_file(
    required: Gateway, files: Certificates, tmp_path: Path, protocol: str
) -> None:
    good = files.clients["good"]
    assert good.certfile is not None
    assert good.keyfile is not None
    both = tmp_path / "both.pem"
    both.write_bytes(good.certfile.read_bytes() + good.keyfile.read_bytes())
    where = ("localhost", required.ports[protocol], protocol)
    with Client(*where, tls_ca_certfile=str(files.server.roots), tls_certfile=str(both)) as client:
        assert client.post("/tag", ["x"])[0].text == "xA"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("command", ["ping", "status"])
def test_the_command_shows_a_certificate(
    required: Gateway, files: Certificates, protocol: str, command: str
) -> None:
    scheme = {"grpc": "grpcs", "http": "https", "websocket": "wss"}[protocol]
    url = f"{scheme}://localhost:{required.ports[protocol]}"
    trusting = [command, url, "--ca", str(files.server.roots)]
    good = files.clients["good"]

    without = CliRunner().invoke(main, trusting)
    shown = CliRunner().invoke(main, [*trusting, "--cert", str(good.certfile), "--key", str(good.keyfile)])

    assert (without.exit_code, shown.exit_code) == (1, 0), (without.output, shown.output)


@pytest.mark.parametrize("auth", ["required", "optional"])
def test_the_gateways_own_grpc_server_asks_as_the_others(files: Certificates, auth: str) -> None:
    gateway = files.gateway(ssl_client_auth=auth, grpc_server="gatewayd")
    served: dict[str, bool] = {}
    for name, shown in files.clients.items():
        try:
            served[name] = over_grpc(gateway.ports["grpc"], files, shown) == "xA"
        except grpc.RpcError:
            served[name] = False

    accepted = {"good", "of the second", "of a chain"} | ({"none"} if auth == "optional" else set())
    assert {name for name, is_served in served.items() if is_served} == accepted
    assert gateway.stop() == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_our_own_client_says_what_is_missing(required: Gateway, files: Certificates, protocol: str) -> None:
    where = ("localhost", required.ports[protocol], protocol)
    with (
        Client(*where, tls_ca_certfile=str(files.server.roots)) as client,
        pytest.raises(Unreachable, match="tls_certfile="),
    ):
        client.post("/tag", ["x"])


# -- certificates that name callers ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(files: Certificates) -> Iterator[Gateway]:
    auth = {"certificate_identity": "subject", "rules": [{"endpoints": ["/tag"], "allow": ["alice"]}]}
    yield from served(files.gateway(auth=auth))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_certificate_names_its_caller_to_rules(named: Gateway, files: Certificates, protocol: str) -> None:
    assert ASK[protocol](named.ports[protocol], files, files.clients["good"]) == "xA"
    with pytest.raises((KeyError, grpc.RpcError, websockets.ConnectionClosed)) as caught:
        ASK[protocol](named.ports[protocol], files, files.clients["of the second"])
    if isinstance(caught.value, grpc.RpcError):
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    elif isinstance(caught.value, websockets.ConnectionClosed):
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1008
