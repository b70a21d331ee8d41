"""Which port gets which of the sockets that systemd passes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from twisted.logger import capturedLogs

from gatewayd.config import Listener
from gatewayd.service.systemd.sockets import GivenSocket, GivenSockets
from tests.processes import environment

GRPC = Listener(("grpc",), 12345)
WEB = Listener(("http", "websocket"), 8080)


@pytest.fixture
def given() -> Iterator[dict[str, GivenSocket]]:
    """Made-up sockets: none of them listens anywhere."""
    found = {
        key: GivenSocket(name, port, socket.socket())
        for key, name, port in [
            ("by port", "gatewayd.socket", 12345),
            ("by port, of IPv6", "gatewayd.socket", 12345),
            ("by name", "http", 80),
            ("by names", "http+websocket", 81),
            ("other", "admin", 9000),
            ("of a file", "http", None),
        ]
    }
    yield found
    for each in found.values():
        each.socket.close()


def sockets(given: dict[str, GivenSocket], *keys: str) -> list[socket.socket]:
    return [given[key].socket for key in keys]


def test_a_port_gets_all_that_have_its_number(given: dict[str, GivenSocket]) -> None:
    taken = GivenSockets(given.values()).for_listeners([GRPC, WEB])
    assert taken[0] == sockets(given, "by port", "by port, of IPv6")


def test_others_get_those_with_their_name(given: dict[str, GivenSocket]) -> None:
    taken = GivenSockets(given.values()).for_listeners([WEB, Listener(("websocket",))])
    assert taken == [sockets(given, "by name", "by names"), []]


def test_a_number_comes_before_a_name(given: dict[str, GivenSocket]) -> None:
    taken = GivenSockets(given.values()).for_listeners([Listener(("http",)), Listener(("http",), 80)])
    assert taken == [[], sockets(given, "by name")]


def test_what_is_no_port_of_clients_may_take_its_own(given: dict[str, GivenSocket]) -> None:
    left = GivenSockets(given.values())
    assert left.take("admin") == sockets(given, "other")
    assert left.take("admin") == []
    assert left.take("metrics", 81) == sockets(given, "by names")


def test_those_that_are_left_are_named_and_closed(given: dict[str, GivenSocket]) -> None:
    left = GivenSockets(given.values())
    left.for_listeners([GRPC, WEB])
    with capturedLogs() as events:
        left.refuse_rest()

    admin, of_file = (event["socket"] for event in events)
    assert admin == "admin (port 9000)"
    assert of_file.startswith("http (AF_INET")
    assert given["other"].socket.fileno() == -1
    assert given["by port"].socket.fileno() != -1


def test_without_the_variables_or_for_another_process_there_are_none() -> None:
    environ = {"LISTEN_FDS": "3", "LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDNAMES": "a:b:c"}
    assert GivenSockets.taken_from(environ, os.getpid()).for_listeners([WEB]) == [[]]
    assert not environ
    assert GivenSockets.taken_from({}, os.getpid()).for_listeners([WEB]) == [[]]


LOOK = """
import os, sys
from gatewayd.config import Listener
from gatewayd.errors import ConfigError
from gatewayd.service.systemd.sockets import GivenSockets
os.environ["LISTEN_PID"] = str(os.getpid())
try:
    found = GivenSockets.taken_from(os.environ, os.getpid())
except ConfigError as error:
    print(error)
else:
    (taken,) = found.for_listeners([Listener(("http",))])
    print(taken[0].getsockname()[1], os.get_inheritable(3), "LISTEN_FDS" in os.environ)
"""


def looked(passed: socket.socket) -> str:
    """What a process sees that has it as descriptor 3, named http."""
    launch = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.executable, sys.argv[2:])"
    done = subprocess.run(
        [sys.executable, "-c", launch, str(passed.fileno()), sys.executable, "-c", LOOK],
        env=environment(LISTEN_FDS="1", LISTEN_FDNAMES="http"),
        pass_fds=[passed.fileno()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_descriptors_become_sockets_that_no_child_inherits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        assert looked(passed) == f"{passed.getsockname()[1]} False False"


def test_a_socket_that_does_not_listen_is_refused_by_name() -> None:
    with socket.socket() as passed:
        passed.bind(("127.0.0.1", 0))
        assert looked(passed) == "LISTEN_FDS: socket http does not listen; the socket unit needs Accept=no"
