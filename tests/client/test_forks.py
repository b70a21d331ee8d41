"""Clients in processes that were forked from one that has used them, and what both can still do then."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gatewayd.client import loop
from gatewayd.client.client import Client
from gatewayd.client.errors import BadClient, BadServer, TimedOut, Unreachable
from tests.processes import PROTOCOLS, Gateway, environment, free_ports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]

PRELUDE = """
import asyncio, gc, json, multiprocessing, os, sys
from gatewayd import Client

ports = json.loads(sys.argv[1])

def clients(**keywords):
    return [Client(host="127.0.0.1", port=port, protocol=name, **keywords) for name, port in ports.items()]

def right(client):
    answers = client.post("/tag", [f"{n}" for n in range(30)], request_size=1, results_in_order=True)
    assert answers.texts == [f"{n}A" for n in range(30)], answers.texts
    assert client.is_flow_ready()

async def all_right(found):
    for client in found:
        answers = [docs.texts async for docs in client.post("/tag", "x")]
        assert answers == [["xA"]], answers
        assert await client.is_flow_ready()

def ended_well(pid):
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
"""


def run_python(code: str, *arguments: object) -> str:
    """What a script prints that comes after PRELUDE."""
    whole = PRELUDE + textwrap.dedent(code)
    done = subprocess.run(
        # A fork of a process with threads: that is what is tested.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", whole, *(str(one) for one in arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "Unclosed" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.exit(0)"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_children_and_their_parent_go_on(gateway: Gateway, protocol: str, ending: str) -> None:
    """As a server does that forks its workers: one after the other, each with children of its own."""
    code = f"""
        (client,) = clients()
        right(client)
        for worker in range(3):
            child = os.fork()
            if not child:
                right(client)
                right(*clients())
                grandchild = os.fork()
                if not grandchild:
                    right(client)
                    os._exit(0)
                ended_well(grandchild)
                right(client)
                if worker == 1:
                    client.close()
                del client
                gc.collect()
                {ending}
            right(client)
            ended_well(child)
            # Over the connection that it had before, too: the child has let it alone.
            right(client)
        print("fine")
    """
    assert run_python(code, json.dumps({protocol: gateway.ports[protocol]})) == "fine\n"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pool_of_forked_processes_posts(gateway: Gateway, protocol: str) -> None:
    code = """
        (client,) = clients()
        right(client)

        def work(number):
            return client.post("/tag", str(number)).texts[0]

        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(work, range(4)))
        right(client)
    """
    assert run_python(code, json.dumps({protocol: gateway.ports[protocol]})) == "['0A', '1A', '2A', '3A']\n"


def test_asynchronous_clients_in_a_forked_child(gateway: Gateway) -> None:
    code = """
        found = clients(asyncio=True)

        asyncio.run(all_right(found))
        child = os.fork()
        if not child:
            asyncio.run(all_right(found))
            asyncio.run(all_right(clients(asyncio=True)))
            sys.exit()
        ended_well(child)
        asyncio.run(all_right(found))
        print("fine")
    """
    assert run_python(code, json.dumps(gateway.ports)) == "fine\n"


def test_a_fork_in_the_midst_of_a_post(gateway: Gateway) -> None:
    code = """
        import threading
        found = clients()
        for client in found:
            right(client)
        asleep = [
            threading.Thread(target=client.post, args=("/asleep", "x"), kwargs={"parameters": {"t": 1.0}})
            for client in found
        ]
        for thread in asleep:
            thread.start()
        child = os.fork()
        if not child:
            for client in found:
                right(client)
            sys.exit()
        ended_well(child)
        for thread in asleep:
            thread.join(20)
        for client in found:
            right(client)
        print("fine")
    """
    assert run_python(code, json.dumps(gateway.ports)) == "fine\n"


def test_a_flow_is_asked_by_forked_children(tmp_path: Path) -> None:
    code = """
        from gatewayd import Executor, Flow, requests

        class Shouting(Executor):
            @requests
            def shout(self, docs, **_):
                for doc in docs:
                    doc.text += "!"

        for protocol in ("grpc", "http"):
            with Flow(protocol=protocol).add(uses=Shouting) as flow:
                assert flow.post("/", "x").texts == ["x!"]
                child = os.fork()
                if not child:
                    assert flow.post("/", "x").texts == ["x!"]
                    sys.exit()  # leaves the with block, here too
                ended_well(child)
                assert flow.post("/", "x").texts == ["x!"]
        print("fine")
    """
    assert run_python(code, "{}") == "fine\n"


# -- the transport of forked processes beside gRPC's own ------------------------------------------------


@pytest.fixture(params=["grpc's library", "our own"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_grpc_was_parents", request.param == "our own")


@pytest.fixture
def connect(gateway: Gateway, library: None) -> Iterator[Callable[..., Any]]:
    opened: list[Any] = []

    def connect(**keywords: Any) -> Any:
        keywords.setdefault("port", gateway.ports["grpc"])
        opened.append(Client(host="127.0.0.1", protocol="grpc", **keywords))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


@pytest.mark.parametrize("compression", ["Gzip", "deflate", "NoCompression", grpc.Compression.Gzip, None])
@pytest.mark.parametrize("stream", [True, False])
def test_large_and_many_requests_come_back_whole(connect, compression, stream):
    texts = [str(number) * 100_000 for number in range(5)] + [str(number) for number in range(300)]
    answers = connect().post(
        "/tag", texts, request_size=1, results_in_order=True, compression=compression, stream=stream
    )
    assert answers.texts == [f"{text}A" for text in texts]


def test_a_deadline_ends_a_call(connect):
    client = connect()
    with pytest.raises(TimedOut):
        client.post("/asleep", "x", parameters={"t": 5.0}, timeout=0.3)
    assert client.post("/tag", "x").texts == ["xA"]


def test_an_executor_that_fails_has_its_traceback(connect):
    with pytest.raises(BadServer, match="The executor's traceback"):
        connect().post("/raise", "x")


def test_metadata_and_headers_that_cannot_be_sent_are_refused(connect):
    with pytest.raises(BadClient):
        connect().post("/tag", "x", headers={"x-name": "caf\u00e9"})
    assert connect().post("/tag", "x", metadata=(("x-a", "1"), ("x-b-bin", b"\0\xff"))).texts == ["xA"]


def test_a_port_without_a_listener(connect):
    (port,) = free_ports(1)
    with pytest.raises(Unreachable, match=f"nobody listens on 127.0.0.1:{port}") as caught:
        connect(port=port).post("/tag", "x")
    assert caught.value.code == "UNAVAILABLE"
    assert connect(port=port).is_flow_ready() is False


def test_a_server_of_another_protocol(connect, gateway):
    with pytest.raises(Unreachable, match="speak grpc"):
        connect(port=gateway.ports["http"]).post("/tag", "x")


def test_a_server_that_hangs_up_is_connected_to_again(connect, gateway):
    """The first connection is lost before it is used; the second reaches the gateway."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for lost in (True, False):
                ours, _ = listening.accept()
                if lost:
                    ours.close()
                    continue
                theirs = socket.create_connection(("127.0.0.1", gateway.ports["grpc"]))
                for source, sink in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=_copy, args=(source, sink), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        client = connect(port=listening.getsockname()[1])
        assert client.post("/tag", "x", max_attempts=5).texts == ["xA"]
        client.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with source, sink:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass


def test_a_proxy_cannot_be_used_for_grpc_in_a_forked_process(monkeypatch, gateway):
    monkeypatch.setattr(loop, "_grpc_was_parents", True)
    for name in ("grpc_proxy", "https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:1")
    with (
        Client("gateway.example", 80, "grpc", proxy=True) as client,
        pytest.raises(BadClient, match=r"the proxy 127\.0\.0\.1:1 .* forked") as caught,
    ):
        client.post("/", "x")
    assert "secret" not in str(caught.value)
