"""What a Client says of a connection that cannot be made: the likely cause, and the keyword to change."""

from __future__ import annotations

import attrs
import pytest

import gatewayd
from gatewayd.client.address import COMMAND_LINE, Certificates, parse_address
from gatewayd.client.certificate import server_name
from gatewayd.client.client import Client
from gatewayd.client.errors import BadClientInput, Unreachable
from gatewayd.client.hints import explained
from tests.certificates import make
from tests.processes import Gateway, free_ports

pytestmark = pytest.mark.slow

TARGET = parse_address("127.0.0.1", 1, "grpc", None, Certificates())


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    party = make("localhost")
    (folder / "own.pem").write_bytes(party.pem)
    (folder / "own.key").write_bytes(party.key_pem())
    gateway = Gateway(
        {"gateway": {"ssl_certfile": str(folder / "own.pem"), "ssl_keyfile": str(folder / "own.key")}}
    )
    yield gateway, str(folder / "own.pem")
    gateway.stop()


def test_an_unknown_authority_names_the_keyword_for_it(secure, protocol):
    gateway, _ = secure
    with (
        Client("localhost", gateway.ports[protocol], protocol, tls=True) as client,
        pytest.raises(Unreachable, match="tls_ca_certfile="),
    ):
        client.post("/", ["x"])


def test_the_error_names_the_host_that_the_certificate_lacks(secure, protocol):
    gateway, file = secure
    where = ("localhost", gateway.ports[protocol], protocol)
    with (
        Client(*where, tls=True, tls_ca_certfile=file, tls_server_name="other.example") as client,
        pytest.raises(Unreachable, match=r"not for other\.example"),
    ):
        client.post("/", ["x"])


def test_a_port_that_wants_tls_is_guessed(secure, protocol):
    gateway, _ = secure
    with (
        Client("localhost", gateway.ports[protocol], protocol) as client,
        pytest.raises(Unreachable, match=r"Does it need TLS"),
    ):
        client.post("/", ["x"])


def test_the_error_names_the_address_where_nothing_listens(protocol):
    port = free_ports(1)[0]
    with (
        Client("127.0.0.1", port, protocol) as client,
        pytest.raises(Unreachable, match=f"nobody listens on 127.0.0.1:{port}"),
    ):
        client.post("/", ["x"])


def test_a_certificate_and_its_key_go_together(tmp_path):
    own, key = tmp_path / "own.pem", tmp_path / "own.key"
    party = make("someone")
    own.write_bytes(party.pem)
    with pytest.raises(ValueError, match=r"^tls_certfile: .* name the file of its key with tls_keyfile=$"):
        Client(tls_certfile=str(own))
    with pytest.raises(
        ValueError, match=r"^tls_keyfile: a key needs its certificate; .* with tls_certfile=$"
    ):
        Client(tls_keyfile=str(key))
    with pytest.raises(ValueError, match="without TLS: use tls=True"):
        Client("http://localhost:1", tls_ca_certfile=str(own))

    own.write_bytes(party.key_pem() + party.pem)
    with Client(tls_certfile=str(own)):
        """As OpenSSL has it: the key is in the same file."""


TLS_TROUBLE = {
    "certificate verify failed: hostname mismatch": ("tls_server_name=", None),
    "certificate verify failed": ("tls_ca_certfile=", "--ca"),
    "tlsv13 alert certificate required": ("tls_certfile= and tls_keyfile=", "--cert and --key"),
}


@pytest.mark.parametrize("text", TLS_TROUBLE)
def test_hints_name_what_their_reader_can_change(text):
    keywords, options = TLS_TROUBLE[text]
    in_python = parse_address("https://localhost:1", None, None, None, Certificates())
    on_the_command_line = attrs.evolve(in_python, spelling=COMMAND_LINE)
    assert keywords in explained(text, in_python)
    shown = explained(text, on_the_command_line)
    assert "tls_" not in shown
    assert options is None or options in shown


def test_what_a_gateway_says_of_an_executor_is_not_taken_for_the_gateways_own_trouble():
    told = "Connection refused |Gateway: Communication error with deployment x"
    assert explained(told, TARGET) == told


def test_the_hosts_own_name_is_expected_where_the_certificate_has_it(tmp_path):
    (tmp_path / "own.pem").write_bytes(make("localhost").pem)

    assert server_name(str(tmp_path / "own.pem"), "127.0.0.1") is None
    assert server_name(str(tmp_path / "own.pem"), "10.0.0.1") == "localhost"


@pytest.mark.parametrize(
    ("given", "meant"), [("ca", "tls_ca_certfile"), ("prot", "protocol"), ("prefetsch", "prefetch")]
)
def test_an_unknown_keyword_names_the_one_that_was_meant(given, meant):
    with pytest.raises(TypeError, match=f"did you mean {meant}"):
        Client(**{given: "x"})


@pytest.mark.parametrize("parameters", [5, "x", [1]])
def test_parameters_that_are_no_dict_are_refused(gateway, parameters):
    with (
        Client(port=gateway.ports["grpc"]) as client,
        pytest.raises(BadClientInput, match="parameters: give a dict"),
    ):
        client.post("/", parameters=parameters)


def test_the_package_lists_what_it_offers():
    assert {"Client", "Executor", "Flow", "requests"} <= set(dir(gatewayd))


def test_an_error_behind_a_proxy_names_it_without_its_password(protocol, monkeypatch):
    (port,) = free_ports(1)
    for name in ("grpc_proxy", "https_proxy", "no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{port}")

    with (
        Client("gateway.example", 80, protocol, proxy=True) as client,
        pytest.raises(Unreachable, match=rf"through the proxy 127\.0\.0\.1:{port}, .*proxy=True") as caught,
    ):
        client.post("/", "x")
    assert "secret" not in str(caught.value)
