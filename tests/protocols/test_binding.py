"""Ports that cannot be bound are found before anything is started; hosts of IPv6 work for every protocol."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import attrs
import grpc
import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor

from gatewayd.binding import addresses_of, bind_error
from gatewayd.bridge import Bridge
from gatewayd.config import Listener
from gatewayd.config.model import GatewayConfig
from gatewayd.errors import PortTaken
from gatewayd.protocols.binding import check_ports
from gatewayd.protocols.port import make_port
from tests.processes import Gateway, environment
from tests.protocols.harness import FakeDispatcher, backend, in_thread

pytestmark = pytest.mark.slow

reactor: Any = _reactor


def has_ipv6() -> bool:
    return bind_error("::1", 0) is None


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_named_with_its_protocols(taken: int) -> None:
    listeners = [Listener(("grpc",)), Listener(("http", "websocket"), taken)]
    with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{taken} for http\+websocket"):
        check_ports("127.0.0.1", listeners)


def test_a_port_is_free_again_right_after_a_connection_to_it_was_closed(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # this side closes first: TIME_WAIT is on the server's port
            client.recv(1)
    assert bind_error("127.0.0.1", port) is None


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_reported_in_the_words_of_the_system(host: str) -> None:
    assert bind_error(host, 0)


@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_no_executor_is_started_for_a_gateway_that_cannot_listen(
    tmp_path: Path, protocol: str, taken: int
) -> None:
    settings = f"{{protocol: {protocol}, port: {taken}, host: 127.0.0.1}}"
    (tmp_path / "flow.yml").write_text(f"jtype: Flow\ngateway: {settings}\nexecutors: [{{}}]\n")
    ended = subprocess.run(
        [sys.executable, "-m", "gatewayd", "serve", "flow.yml"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    output = ended.stdout + ended.stderr
    assert ended.returncode == 1, output
    assert "the gateway cannot start: gateway.port: cannot listen on" in output
    assert "starts as process" not in output
    assert "add_port" not in output  # gRPC's own line


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", ("127.0.0.1",)),
        ("::1", ("::1",)),
        ("fe80::1%eth0", ("fe80::1%eth0",)),
        ("no-such-host.invalid", ("no-such-host.invalid",)),
    ],
)
def test_an_address_stands_for_itself(host: str, addresses: tuple[str, ...]) -> None:
    assert addresses_of(host) == addresses


def test_all_interfaces_are_those_of_both_families_where_the_system_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everywhere = ("::",) if has_ipv6() else ("0.0.0.0",)
    assert [addresses_of(host) for host in ("0.0.0.0", "::", "")] == [everywhere] * 3

    def without_ipv6(*_: object) -> NoReturn:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", without_ipv6)
    assert addresses_of("::") == ("0.0.0.0",)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> str:
    """A host name that stands for loopback in both families, and for an address of another machine."""
    ask = socket.getaddrinfo

    def found(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "both.invalid":
            return ask(host, port, *rest, **more)
        names = ["127.0.0.1", "::1", "192.0.2.1"]
        return [each for name in names for each in ask(name, port, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return "both.invalid"


def reached(port: int) -> set[str]:
    """The addresses of loopback at which something listens."""
    found = set()
    for address in ("127.0.0.1", "::1"):
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=5):
            found.add(address)
    return found


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
@pytest_twisted.ensureDeferred
async def test_a_name_stands_for_all_its_addresses_on_this_machine(both: str) -> None:
    assert addresses_of(both) == ("127.0.0.1", "::1")
    gateway = GatewayConfig(host=both)
    bridge = Bridge(reactor)
    bridge.start()
    web = make_port(Listener(("http",)), backend(gateway, FakeDispatcher()))
    grpc_port = make_port(Listener(("grpc",)), attrs.evolve(backend(gateway, None), bridge=bridge))
    for port in (web, grpc_port):
        port.listen()
        assert await in_thread(reached, port.report().port) == {"127.0.0.1", "::1"}
    for port in (web, grpc_port):
        await port.drain(0.0)
        await port.stop()
    await bridge.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "families"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("0.0.0.0", {"127.0.0.1", "::1"}),
        ("::", {"127.0.0.1", "::1"}),
        ("::1", {"::1"}),
    ],
)
@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
def test_every_protocol_listens_on_the_same_families(host: str, families: set[str]) -> None:
    gateway = Gateway({"gateway": {"host": host}})
    try:
        assert {name: reached(port) for name, port in gateway.ports.items()} == dict.fromkeys(
            gateway.ports, families
        )
    finally:
        gateway.stop()


@pytest.mark.slow
@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize("host", ["::1", "::", "0.0.0.0"])
def test_executors_listen_on_hosts_of_ipv6(host: str) -> None:
    gateway = Gateway({"executors": [{"name": "a", "host": host}]}, protocols=["http"])
    try:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.ports["http"], timeout=20)
        connection.request("GET", "/dry_run")
        assert json.loads(connection.getresponse().read())["code"] == 0
        connection.close()
    finally:
        gateway.stop()


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize("host", ["::1", "::", "[::1]"])
def test_every_protocol_listens_on_a_host_of_ipv6(host: str) -> None:
    gateway = Gateway({"gateway": {"host": host}})
    try:
        connection = http.client.HTTPConnection("::1", gateway.ports["http"], timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        with grpc.insecure_channel(f"[::1]:{gateway.ports['grpc']}") as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
    finally:
        gateway.stop()
