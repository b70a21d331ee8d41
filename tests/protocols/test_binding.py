"""Ports that cannot be bound are found before anything is started; hosts of IPv6 work for every protocol."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from gatewayd.config import Listener
from gatewayd.errors import PortTaken
from gatewayd.protocols.binding import bind_error, check_ports
from tests.processes import Gateway, environment


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
def test_an_address_that_is_not_ours_is_told_as_the_system_tells_it(host: str) -> None:
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
