"""
Renewed files at a gateway that serves: streams under way go on, new handshakes see the new certificate.

Clients are grpcio, websockets, http.client and openssl.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from cryptography import x509
from websockets.sync.client import connect

from gatewayd.pb import DataRequestProto
from tests.certificates import Party, make
from tests.paths import ROOT
from tests.processes import Gateway, environment

pytestmark = pytest.mark.slow

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}
STREAM = "/jina.JinaRPC/Call"
PROTOCOLS = ("grpc", "http", "websocket")
BODY = json.dumps({"data": [{"id": "d0", "text": "x"}], "execEndpoint": "/tag"})
RENEWED = r"server\.pem: the certificate of CN={} is renewed; it is valid until"
INTERVAL_S = 0.2

Names = Mapping[str, Sequence[x509.GeneralName]]
OTHER = (x509.DNSName("a.example.org"), x509.DNSName("*.wild.example.org"))


class Renewing:
    """
    A gateway whose files the test rewrites; ``root`` has signed every certificate of it.

    ``more`` has the alternative names of further pairs, which the config's ``names`` may replace.
    """

    def __init__(
        self, folder: Path, more: Names | None = None, names: Sequence[str] = (), **settings: Any
    ) -> None:
        self.folder = folder
        self.root = make("server authority", authority=True)
        self.roots = folder / "roots.pem"
        self.roots.write_bytes(self.root.pem)
        self.write(self.root.issue("first"))
        files = {"ssl_certfile": str(folder / "server.pem"), "ssl_keyfile": str(folder / "server.key")}
        pairs = []
        for name, found in (more or {}).items():
            self.write(self.root.issue(name, names=found), name)
            paths = {"certfile": str(folder / f"{name}.pem"), "keyfile": str(folder / f"{name}.key")}
            pairs.append({**paths, "names": list(names)})
        gateway = {**files, "ssl_reload_interval": INTERVAL_S, "ssl_certificates": pairs, **settings}
        self.gateway = Gateway({"gateway": gateway, "executors": [REC]})

    @property
    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.roots))

    def write(self, party: Party, name: str = "server") -> None:
        """Replace both files, one after the other, as certbot does."""
        for ending, content in (("pem", party.pem), ("key", party.key_pem())):
            (self.folder / "new").write_bytes(content)
            (self.folder / "new").replace(self.folder / f"{name}.{ending}")

    def renew(self, name: str) -> None:
        self.write(self.root.issue(name))
        self.gateway.line(RENEWED.format(name))

    def subject(self, protocol: str, server_name: str | None = "localhost") -> str:
        """Whose certificate a new handshake gets."""
        context = self.trusting
        context.check_hostname = False
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", self.gateway.ports[protocol]), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=server_name) as secure,
        ):
            der = secure.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).subject.rfc4514_string()


@pytest.fixture
def renewing(tmp_path: Path) -> Iterator[Renewing]:
    renewing = Renewing(tmp_path)
    yield renewing
    assert renewing.gateway.stop() == 0
    assert "Traceback" not in renewing.gateway.output


def grpc_request() -> bytes:
    request = DataRequestProto()
    request.header.exec_endpoint = "/tag"
    request.data.docs.docs.add(id="d0", text="x")
    return request.SerializeToString()


class Streams:
    """An open conversation over each protocol, on connections that stay."""

    def __init__(self, renewing: Renewing, stack: contextlib.ExitStack) -> None:
        ports = renewing.gateway.ports
        credentials = grpc.ssl_channel_credentials(renewing.roots.read_bytes())
        channel = stack.enter_context(grpc.secure_channel(f"localhost:{ports['grpc']}", credentials))
        self._asked = stack.enter_context(Asked())
        self._answers = channel.stream_stream(STREAM)(iter(self._asked), timeout=60)
        url = f"wss://localhost:{ports['websocket']}/"
        self._websocket = stack.enter_context(connect(url, ssl=renewing.trusting, proxy=None))
        self._http = http.client.HTTPSConnection(
            "localhost", ports["http"], context=renewing.trusting, timeout=20
        )
        stack.callback(self._http.close)
        self._http.connect()
        self._socket = self._http.sock

    def converse(self) -> None:
        """One request over each, on the connection of before."""
        self._asked.put(grpc_request())
        answer = DataRequestProto.FromString(next(self._answers))
        assert answer.data.docs.docs[0].text == "xA"
        self._websocket.send(BODY)
        assert json.loads(self._websocket.recv(20))["data"][0]["text"] == "xA"
        self._http.request("POST", "/post", BODY, {"content-type": "application/json"})
        assert json.loads(self._http.getresponse().read())["data"][0]["text"] == "xA"
        assert self._http.sock is self._socket


class Asked:
    """What a gRPC stream sends: what the test puts into it, until it is left."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)

    def put(self, message: bytes) -> None:
        self._queue.put(message)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._queue.get, None)


def test_the_librarys_grpc_server_renews_as_the_others(tmp_path: Path) -> None:
    renewing = Renewing(tmp_path, {"other": OTHER}, grpc_server="grpcio")
    with contextlib.ExitStack() as stack:
        streams = Streams(renewing, stack)
        streams.converse()
        renewing.renew("second")
        assert renewing.subject("grpc") == "CN=second"
        assert renewing.subject("grpc", "a.example.org") == "CN=other"
        streams.converse()
    assert renewing.gateway.stop() == 0


def test_streams_go_on_over_renewals_and_new_handshakes_see_the_new_certificate(renewing: Renewing) -> None:
    with contextlib.ExitStack() as stack:
        streams = Streams(renewing, stack)
        streams.converse()
        for name in ("second", "third"):
            renewing.renew(name)
            assert [renewing.subject(protocol) for protocol in PROTOCOLS] == [f"CN={name}"] * 3
            streams.converse()


def test_a_bad_pair_is_refused_and_the_old_one_serves_on(renewing: Renewing) -> None:
    (renewing.folder / "server.key").write_bytes(make("another").key_pem())

    renewing.gateway.line(r"#error\] .*server\.key is not the key of .*; what was read before stays in use")
    assert [renewing.subject(protocol) for protocol in PROTOCOLS] == ["CN=first"] * 3

    renewing.renew("second")
    assert [renewing.subject(protocol) for protocol in PROTOCOLS] == ["CN=second"] * 3


def test_a_file_that_is_written_slowly_is_taken_up_when_it_is_whole(renewing: Renewing) -> None:
    party = renewing.root.issue("second")
    (renewing.folder / "server.key").write_bytes(party.key_pem())
    with (renewing.folder / "server.pem").open("wb") as certfile:
        for begin in range(0, len(party.pem), 100):
            certfile.write(party.pem[begin : begin + 100])
            certfile.flush()
            assert renewing.subject("http") == "CN=first"
            time.sleep(INTERVAL_S / 2)  # not a wait: that the file is slow is what is tested

    renewing.gateway.line(RENEWED.format("second"))
    assert "#error" not in renewing.gateway.output
    assert [renewing.subject(protocol) for protocol in PROTOCOLS] == ["CN=second"] * 3


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_session_of_before_is_not_resumed_but_the_client_is_served(
    renewing: Renewing, version: str
) -> None:
    context = renewing.trusting
    context.maximum_version = context.minimum_version = ssl.TLSVersion[version]

    _, session = ask_status(renewing, context, "localhost")
    assert ask_status(renewing, context, "localhost", session)[0] is True
    renewing.renew("second")
    assert ask_status(renewing, context, "localhost", session)[0] is False


def ask_status(
    renewing: Renewing, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None = None
) -> tuple[bool | None, ssl.SSLSession | None]:
    """Whether the session was resumed, and the one that another connection may resume."""
    with (
        socket.create_connection(("127.0.0.1", renewing.gateway.ports["http"]), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=name, session=session) as secure,
    ):
        secure.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert secure.recv(65536).startswith(b"HTTP/1.1 200")
        return secure.session_reused, secure.session


def test_renewed_authorities_of_clients_hold_for_new_connections(tmp_path: Path) -> None:
    one, other = make("one", authority=True), make("other", authority=True)
    (tmp_path / "clients.pem").write_bytes(one.pem)
    renewing = Renewing(tmp_path, ssl_client_ca=str(tmp_path / "clients.pem"))
    ports = renewing.gateway.ports

    def over_grpc(shown: Party) -> grpc.Channel:
        own = (shown.key_pem(), shown.pem)
        credentials = grpc.ssl_channel_credentials(renewing.roots.read_bytes(), *own)
        return grpc.secure_channel(f"localhost:{ports['grpc']}", credentials)

    def call(channel: grpc.Channel) -> None:
        channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")(grpc_request(), timeout=20)

    def over_http(shown: Party) -> int:
        (tmp_path / "shown.pem").write_bytes(shown.pem + shown.key_pem())
        context = renewing.trusting
        context.load_cert_chain(tmp_path / "shown.pem")
        connection = http.client.HTTPSConnection("localhost", ports["http"], context=context, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", "/status")
            return connection.getresponse().status

    alice, bob = one.issue("alice"), other.issue("bob")
    with over_grpc(alice) as there:
        call(there)
        assert over_http(alice) == 200
        (tmp_path / "clients.pem").write_bytes(other.pem)
        renewing.gateway.line(r"clients\.pem: the authorities are renewed; there are 1")

        call(there)
        with over_grpc(bob) as channel:
            call(channel)
        assert over_http(bob) == 200
        with over_grpc(alice) as channel, pytest.raises(grpc.RpcError):
            call(channel)
        with pytest.raises(OSError):
            over_http(alice)
    assert renewing.gateway.stop() == 0


def test_each_server_name_has_its_certificate_also_after_a_renewal(tmp_path: Path) -> None:
    renewing = Renewing(tmp_path, {"other": OTHER})
    expected = {
        "localhost": "CN=first",
        "a.example.org": "CN=other",
        "x.wild.example.org": "CN=other",
        "x.y.wild.example.org": "CN=first",
        "wild.example.org": "CN=first",
        "unknown.example": "CN=first",
        None: "CN=first",
    }

    def seen(protocol: str) -> dict[str | None, str]:
        return {name: renewing.subject(protocol, name) for name in expected}

    for protocol in PROTOCOLS:
        assert seen(protocol) == expected
    renewing.write(renewing.root.issue("another", names=OTHER), "other")
    renewing.gateway.line(r"other\.pem: the certificate of CN=another is renewed")
    expected = {name: value.replace("other", "another") for name, value in expected.items()}
    for protocol in PROTOCOLS:
        assert seen(protocol) == expected
    assert renewing.gateway.stop() == 0


def test_names_of_the_config_replace_those_of_the_certificate(tmp_path: Path) -> None:
    renewing = Renewing(tmp_path, {"other": OTHER}, names=["B.example.org"])

    found = {name: renewing.subject("http", name) for name in ("a.example.org", "b.example.org")}

    assert found == {"a.example.org": "CN=first", "b.example.org": "CN=other"}
    assert renewing.gateway.stop() == 0


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_sessions_are_resumed_with_a_certificate_that_is_not_the_default(
    tmp_path: Path, version: str
) -> None:
    renewing = Renewing(tmp_path, {"other": OTHER})
    context = renewing.trusting
    context.maximum_version = context.minimum_version = ssl.TLSVersion[version]

    _, session = ask_status(renewing, context, "a.example.org")
    assert ask_status(renewing, context, "a.example.org", session)[0] is True
    assert ask_status(renewing, context, "a.example.org", None)[0] is False
    assert renewing.gateway.stop() == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_openssl_sees_the_new_certificate(renewing: Renewing, protocol: str) -> None:
    renewing.renew("second")
    where = f"127.0.0.1:{renewing.gateway.ports[protocol]}"
    command = ["openssl", "s_client", "-connect", where, "-alpn", "h2", "-CAfile", str(renewing.roots)]
    done = subprocess.run(command, env=environment(), input=b"", capture_output=True, timeout=30, check=False)

    assert b"subject=CN" in done.stdout
    assert b"second" in done.stdout.partition(b"subject=")[2].splitlines()[0]
    assert b"Verify return code: 0 (ok)" in done.stdout
