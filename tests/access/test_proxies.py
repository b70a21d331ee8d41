"""From where a request comes that passed through proxies: as values, behind HAProxy, over every protocol."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_twisted
import requests
import websockets
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from gatewayd.access.proxies import FORWARDED, Proxies
from gatewayd.config import load_flow_text
from gatewayd.errors import ConfigError
from gatewayd.messages import methods, wire
from gatewayd.messages.request import Request
from gatewayd.protocols.admission import Admission
from tests.custom.serving import serving
from tests.paths import ROOT
from tests.processes import Gateway
from tests.protocols.harness import in_thread

TRUSTED = ("10.0.0.0/8", "127.0.0.1", "2001:db8::/32")
PEER = "10.0.0.1"


def client_of(value: str | None, peer: str = PEER, header: str = "x-forwarded-for") -> str:
    proxies = Proxies(TRUSTED, header)
    return proxies.client_of(peer, {header: value}.get)


@pytest.mark.parametrize(
    ("value", "client"),
    [
        (None, PEER),
        ("", PEER),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 10.2.3.4", "192.0.2.1"),
        ("10.9.9.9, 10.2.3.4", "10.9.9.9"),
        ("1.1.1.1, 192.0.2.1, 10.2.3.4", "192.0.2.1"),  # what the client itself wrote is not read
        ("1.1.1.1, unknown", PEER),
        ("1.1.1.1, 192.0.2.1:4711", "192.0.2.1"),
        ("[2001:470::1]:4711", "2001:470::1"),
        ("2001:470::1", "2001:470::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::7", "2001:db8::7"),
        ("1.1.1.1,", PEER),
        (" 192.0.2.1 ", "192.0.2.1"),
    ],
)
def test_the_last_hop_that_is_no_trusted_proxy_is_the_client(value: str | None, client: str) -> None:
    assert client_of(value) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=192.0.2.1", "192.0.2.1"),
        ("for=192.0.2.1;proto=https;by=10.0.0.1", "192.0.2.1"),
        ('For="[2001:470::1]:4711";host="a.example"', "2001:470::1"),
        ("for=1.1.1.1, for=192.0.2.1, for=10.0.0.2", "192.0.2.1"),
        ("for=_hidden", PEER),
        ("for=unknown", PEER),
        ("proto=http", PEER),
        ('for=1.1.1.1;host=", for=192.0.2.1', "192.0.2.1"),
        # What a client has sent as a host's name is no address.
        ('host="a;for=1.1.1.1";for=192.0.2.1', "192.0.2.1"),
        ("for=192.0.2.1;host=a;for=1.1.1.1", PEER),
        ('for=192.0.2.1;host="a,for=1.1.1.1"', PEER),
        ('for=192.0.2.1;host="a\\";for=1.1.1.1"', PEER),
    ],
)
def test_forwarded_says_the_same(value: str, client: str) -> None:
    assert client_of(value, header=FORWARDED) == client


def test_a_client_that_is_no_trusted_proxy_is_not_believed() -> None:
    assert client_of("192.0.2.1", peer="192.0.2.99") == "192.0.2.99"
    assert client_of("192.0.2.1", peer="") == ""
    assert Proxies().client_of(PEER, lambda name: "192.0.2.1") == PEER


def test_the_other_header_is_not_read() -> None:
    headers = {"x-forwarded-for": "192.0.2.1", "forwarded": "for=192.0.2.2"}
    assert Proxies(TRUSTED).client_of(PEER, headers.get) == "192.0.2.1"
    assert Proxies(TRUSTED, FORWARDED).client_of(PEER, headers.get) == "192.0.2.2"


def test_a_list_without_end_is_not_read_to_its_end() -> None:
    assert client_of("192.0.2.1" + ", 10.0.0.1" * 100_000) == "10.0.0.1"


@given(st.text(max_size=60), st.sampled_from(["x-forwarded-for", FORWARDED]))
def test_any_text_leads_to_an_address(value: str, header: str) -> None:
    last = ", 192.0.2.1" if header != FORWARDED else ", for=192.0.2.1"
    assert client_of(value + last, header=header) == "192.0.2.1"
    client_of(value, header=header)


@pytest.mark.parametrize("value", ["10.0.0.1/8", "proxy", "3", "[[]]"])
def test_what_is_no_network_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.trusted_proxies"):
        load_flow_text(f"jtype: Flow\ngateway: {{trusted_proxies: {value}}}", environ={})


def test_connections_of_proxies_do_not_count_by_address() -> None:
    admission = Admission(10, 1, Clock(), Proxies(TRUSTED).trusts)
    assert all(admission.admit(PEER) for _ in range(5))
    assert admission.admit("192.0.2.1")
    assert not admission.admit("192.0.2.1")
    for _ in range(5):
        admission.give_back(PEER)
    assert admission.open == 1
    assert all(admission.admit(PEER) for _ in range(9))
    assert not admission.admit(PEER)


# -- over real ports ------------------------------------------------------------------------------------

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}
RATES = [
    {"requests": 1, "per": 1000, "by": "address", "endpoints": [f"/{each}"]}
    for each in ("http", "grpc", "stream", "websocket", "haproxy")
]


@pytest.fixture(scope="module", params=["grpcio", "gatewayd"])
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    settings = {"rates": RATES, "trusted_proxies": ["127.0.0.1"], "grpc_server": request.param}
    gateway = Gateway({"gateway": settings, "executors": [REC]})
    yield gateway
    gateway.stop()


FORGED = "9.9.9.9"  # what a client may have written, before the proxy added its address


def test_over_http_each_client_behind_a_proxy_has_its_own_rate(gateway: Gateway) -> None:
    def status(client: str) -> int:
        headers = {"X-Forwarded-For": f"{FORGED}, {client}"}
        url = f"http://127.0.0.1:{gateway.ports['http']}/post"
        return requests.post(url, json={"execEndpoint": "/http"}, headers=headers, timeout=10).status_code

    assert [status("192.0.2.1"), status("192.0.2.1"), status("192.0.2.2")] == [200, 429, 200]
    gateway.line(r"a client at 192\.0\.2\.1 is refused")


def test_over_grpc_too(gateway: Gateway) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:

        def code(client: str, endpoint: str) -> Any:
            message = wire.encode_request(Request("r", endpoint))
            metadata = [("x-forwarded-for", f"{FORGED}, {client}")]
            try:
                if endpoint == "/grpc":
                    channel.unary_unary(methods.SINGLE)(message, timeout=10, metadata=metadata)
                else:
                    answers = channel.stream_stream(methods.STREAM)(
                        iter([message]), timeout=10, metadata=metadata
                    )
                    list(answers)
            except grpc.RpcError as error:
                return error.code().name
            return "OK"

        for endpoint in ("/grpc", "/stream"):
            found = [code(client, endpoint) for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2")]
            assert found == ["OK", "RESOURCE_EXHAUSTED", "OK"]


def test_over_websocket_too(gateway: Gateway) -> None:
    async def code(client: str) -> int:
        headers = {"X-Forwarded-For": f"{FORGED}, {client}"}
        url = f"ws://127.0.0.1:{gateway.ports['websocket']}/"
        try:
            async with websockets.connect(url, additional_headers=headers) as connection:
                await connection.send(json.dumps({"execEndpoint": "/websocket"}))
                await connection.recv()
        except websockets.ConnectionClosed as closed:
            return 0 if closed.rcvd is None else closed.rcvd.code
        return 1000

    assert [asyncio.run(code(client)) for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2")] == [
        1000,
        1013,
        1000,
    ]


HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend clients
    bind fd@{fd}
    option forwardfor
    default_backend gateway
backend gateway
    server one 127.0.0.1:{port}
"""


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed (a package of Debian)")
def test_behind_haproxy_clients_have_their_own_rates(gateway: Gateway, tmp_path: Path) -> None:
    assert HAPROXY is not None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = tmp_path / "haproxy.cfg"
        config.write_text(CONFIG.format(fd=listening.fileno(), port=gateway.ports["http"]))
        process = subprocess.Popen([HAPROXY, "-q", "-db", "-f", str(config)], pass_fds=[listening.fileno()])
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/post"

        def status(source: str) -> int:
            body, headers = {"execEndpoint": "/haproxy"}, {"X-Forwarded-For": FORGED}
            with requests.Session() as session:
                session.mount("http://", _From(source))
                return session.post(url, json=body, headers=headers, timeout=10).status_code

        try:
            assert [status("127.0.0.21"), status("127.0.0.21"), status("127.0.0.22")] == [200, 429, 200]
        finally:
            process.kill()
            process.wait()


class _From(requests.adapters.HTTPAdapter):
    """Connects from an address."""

    def __init__(self, source: str) -> None:
        self._source = source
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, source_address=(self._source, 0))


@pytest_twisted.ensureDeferred
async def test_an_asgi_application_sees_the_client() -> None:
    from gatewayd import Gateway as GatewayClass

    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(scope["client"])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    class WithApp(GatewayClass):
        def __init__(self) -> None:
            self.app = {"/app": application}

    async with serving(WithApp(), trusted_proxies=("127.0.0.1",)) as gateway:
        for headers in ({"X-Forwarded-For": "192.0.2.1"}, {}):
            await in_thread(requests.get, f"http://127.0.0.1:{gateway.port}/app", headers=headers, timeout=10)
    assert seen[0] == ("192.0.2.1", 0)
    assert (seen[1][0], seen[1][1] > 0) == ("127.0.0.1", True)
