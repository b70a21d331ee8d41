"""TLS over every protocol: an authority of one's own, certificates of clients, and what is refused."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from gatewayd.client.client import Client
from gatewayd.client.errors import BadClient, Unreachable
from tests.certificates import Files, make, write_files
from tests.client.conftest import REC, Waiting
from tests.client.forwarder import Forwarder
from tests.processes import Gateway

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(files: Files) -> Iterator[Gateway]:
    gateway = Gateway({"gateway": files.settings, "executors": [REC]})
    yield gateway
    gateway.stop()


@pytest.mark.parametrize("kind", [Client, Waiting])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_authority_of_ones_own_is_trusted_when_it_is_named(secure, files, protocol, host, kind):
    client = kind(
        host=host, port=secure.ports[protocol], protocol=protocol, tls=True, tls_ca_certfile=str(files.roots)
    )

    assert client.post("/tag", ["x", "y"], results_in_order=True).texts == ["xA", "yA"]
    assert client.is_flow_ready()
    client.close()


SCHEMES = {"grpc": "grpcs", "http": "https", "websocket": "wss"}


def test_a_scheme_says_tls_too(secure, files, protocol):
    address = f"{SCHEMES[protocol]}://localhost:{secure.ports[protocol]}"
    with Client(host=address, tls_ca_certfile=str(files.roots)) as client:
        assert client.post("/tag", "x").texts == ["xA"]


def test_the_systems_authorities_are_trusted_without_naming_them(secure, files, protocol, monkeypatch):
    # What an operator does who has no trust store to add to.
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.roots))
    with Client(host="localhost", port=secure.ports[protocol], protocol=protocol, tls=True) as client:
        assert client.post("/tag", "x").texts == ["xA"]


def test_an_unknown_authority_is_not_trusted(secure, protocol):
    client = Client(host="localhost", port=secure.ports[protocol], protocol=protocol, tls=True)

    with pytest.raises(Unreachable):
        client.post("/tag", "x")
    assert not client.is_flow_ready()


def test_a_client_without_tls_gets_no_answer_from_a_tls_port(secure, protocol):
    with pytest.raises((Unreachable, BadClient)):
        Client(host="localhost", port=secure.ports[protocol], protocol=protocol).post("/tag", "x")


def test_files_that_are_not_there_are_named(secure, protocol):
    client = Client(port=secure.ports[protocol], protocol=protocol, tls_ca_certfile="/nowhere/ca.pem")

    with pytest.raises(BadClient, match="TLS files cannot be"):
        client.post("/tag", "x")


# -- certificates of clients: a port in front of the gateway asks for them -----------------------------


@attrs.frozen
class Own:
    certificate: Path
    key: Path


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """A client's certificate, and the only authority that the port knows."""
    authority = make("clients", authority=True)
    person = authority.issue("somebody")
    (tmp_path / "clients.pem").write_bytes(authority.pem)
    (tmp_path / "own.pem").write_bytes(person.pem)
    (tmp_path / "own.key").write_bytes(person.key_pem())
    return Own(tmp_path / "own.pem", tmp_path / "own.key")


@pytest.fixture
def strict(gateway: Gateway, files: Files, own: Own, protocol: str) -> Iterator[Forwarder]:
    """Speaks TLS with those who show a certificate of that authority, in front of the gateway."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=own.key.with_name("clients.pem"))
    context.load_cert_chain(files.chain, files.key)
    context.verify_mode = ssl.CERT_REQUIRED
    if protocol == "grpc":
        context.set_alpn_protocols(["h2"])
    with Forwarder(gateway.ports[protocol], tls=context) as port:
        yield port


def test_a_client_shows_its_certificate(strict, files, own, protocol):
    with Client(
        host="localhost",
        port=strict.port,
        protocol=protocol,
        tls=True,
        tls_ca_certfile=str(files.roots),
        tls_certfile=str(own.certificate),
        tls_keyfile=str(own.key),
    ) as client:
        assert client.post("/tag", "x").texts == ["xA"]


def test_a_client_without_the_certificate_that_is_asked_for_gets_no_answer(strict, files, protocol):
    with (
        Client(
            host="localhost",
            port=strict.port,
            protocol=protocol,
            tls=True,
            tls_ca_certfile=str(files.roots),
        ) as client,
        pytest.raises(Unreachable),
    ):
        client.post("/tag", "x")
