"""Who a client is by its certificate: the same names from Twisted and from gRPC."""

from __future__ import annotations

from concurrent import futures
from typing import Any

import grpc
import pytest
from cryptography import x509
from OpenSSL import crypto

from gatewayd.tls.peer import PeerNames, names_of_auth_context, names_of_transport
from tests.certificates import Party, make

SPIFFE = "spiffe://example.org/team-a"
EVERY = (
    x509.DNSName("a.example.org"),
    x509.DNSName("b.example.org"),
    x509.UniformResourceIdentifier(SPIFFE),
    x509.RFC822Name("a@example.org"),
)
NAMES = PeerNames("alice", ("a.example.org", "b.example.org"), (SPIFFE,), ("a@example.org",))


class Transport:
    def __init__(self, certificate: x509.Certificate | None) -> None:
        self._certificate = certificate

    def getPeerCertificate(self) -> crypto.X509 | None:
        return None if self._certificate is None else crypto.X509.from_cryptography(self._certificate)


def auth_context(party: Party) -> dict[str, list[bytes]]:
    return {"transport_security_type": [b"ssl"], "x509_pem_cert": [party.pem]}


@pytest.fixture(scope="module")
def alice() -> Party:
    return make("alice", names=EVERY)


def test_a_transport_and_a_grpc_call_tell_the_same_names(alice: Party) -> None:
    assert names_of_transport(Transport(alice.certificate)) == NAMES
    assert names_of_auth_context(auth_context(alice)) == NAMES


@pytest.mark.parametrize("transport", [object(), Transport(None)], ids=["no TLS", "no certificate"])
def test_who_shows_no_certificate_has_no_names(transport: Any) -> None:
    assert names_of_transport(transport) is None


@pytest.mark.parametrize("given", [{}, {"transport_security_type": [b"ssl"]}, {"x509_pem_cert": []}], ids=str)
def test_a_call_without_a_certificate_has_no_names(given: Any) -> None:
    assert names_of_auth_context(given) is None


def test_a_certificate_without_alternative_names_has_its_subject() -> None:
    assert names_of_auth_context(auth_context(make("bob", names=()))) == PeerNames("bob")


def test_two_common_names_are_none() -> None:
    assert names_of_auth_context(auth_context(make(("alice", "bob"), names=()))) == PeerNames()


def test_grpc_tells_the_certificate_that_it_has_verified(alice: Party) -> None:
    root = make("root", authority=True)
    own, client = root.issue(), root.issue("alice", names=EVERY)
    seen: list[PeerNames | None] = []

    def answer(_message: bytes, context: grpc.ServicerContext) -> bytes:
        seen.append(names_of_auth_context(context.auth_context()))
        return b""

    server = grpc.server(futures.ThreadPoolExecutor(1))
    method = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"b": method}),))
    credentials = grpc.ssl_server_credentials([(own.key_pem(), own.pem)], root.pem, True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        showing = grpc.ssl_channel_credentials(root.pem, client.key_pem(), client.pem)
        with grpc.secure_channel(f"localhost:{port}", showing) as channel:
            channel.unary_unary("/a/b")(b"", timeout=20)
    finally:
        server.stop(None).wait(20)

    assert seen == [NAMES]
