"""Threads, loops, interrupts, and that connections end with their client."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gatewayd.client.client import Client
from gatewayd.client.errors import Unreachable
from tests.client.forwarder import Forwarder
from tests.processes import PROTOCOLS, Child, environment
from tests.waiting import until

pytestmark = pytest.mark.slow


def run_python(code: str, *arguments: object, timeout_s: float = 60) -> str:
    command = [sys.executable, "-X", "dev", "-c", textwrap.dedent(code), *(str(one) for one in arguments)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "Unclosed" not in done.stderr, done.stderr
    assert "never awaited" not in done.stderr, done.stderr
    return done.stdout


def test_many_threads_may_use_one_client(client):
    def post(number):
        texts = [f"{number}-{index}" for index in range(20)]
        got = client.post("/tag", texts, request_size=3, results_in_order=True)
        return got.texts == [f"{text}A" for text in texts]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(post, range(40)))


def test_all_clients_share_one_thread(gateway):
    clients = [Client(host="127.0.0.1", port=gateway.ports[name], protocol=name) for name in PROTOCOLS]
    for client in clients:
        assert client.post("/tag", "x").texts == ["xA"]

    assert [thread.name for thread in threading.enumerate()].count("gatewayd client") == 1


def test_a_waiting_client_works_inside_a_running_loop(client):
    async def cell():
        return client.post("/tag", "x").texts

    assert asyncio.run(cell()) == ["xA"]


def test_an_asynchronous_client_may_be_used_in_one_loop_after_the_other(gateway, protocol):
    client = Client(host="127.0.0.1", port=gateway.ports[protocol], protocol=protocol, asyncio=True)

    async def post():
        return [docs.texts async for docs in client.post("/tag", "x")]

    assert [asyncio.run(post()) for _ in range(3)] == [[["xA"]]] * 3
    asyncio.run(client.close())


def test_an_asynchronous_client_does_many_things_at_once(gateway, protocol):
    async def main():
        async with Client(
            host="127.0.0.1", port=gateway.ports[protocol], protocol=protocol, asyncio=True
        ) as client:

            async def post(number):
                return [
                    docs.texts async for docs in client.post("/asleep", str(number), parameters={"t": 1.0})
                ]

            begin = time.monotonic()
            found = await asyncio.gather(*(post(number) for number in range(10)))
            assert time.monotonic() - begin < 8  # one after the other they would take 10
            return found

    assert asyncio.run(main()) == [[[str(number)]] for number in range(10)]


@pytest.mark.parametrize("ending", ["close", "with", "garbage"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_connections_end_with_their_client(gateway, protocol, ending):
    with Forwarder(gateway.ports[protocol]) as wire:
        client = Client(host="127.0.0.1", port=wire.port, protocol=protocol)
        if ending == "with":
            with client:
                client.post("/tag", "x")
        else:
            client.post("/tag", "x")
            assert wire.alive
            if ending == "close":
                client.close()
        if ending == "garbage":
            del client
            gc.collect()
        until(lambda: not wire.alive, what="the end of the connection")


def test_closing_ends_a_post_that_is_under_way(gateway, protocol):
    wire = Forwarder(gateway.ports[protocol])
    client = Client(host="127.0.0.1", port=wire.port, protocol=protocol)
    failures = []

    def post():
        try:
            client.post("/asleep", "x", parameters={"t": 3})
        except Exception as error:
            failures.append(error)

    poster = threading.Thread(target=post)
    poster.start()
    until(lambda: wire.alive, what="the connection of the post")
    client.close()
    poster.join(15)

    assert [isinstance(error, Unreachable) for error in failures] == [True]
    assert client.post("/tag", "x").texts == ["xA"]
    client.close()
    wire.close()


INTERRUPTED = """
    import sys
    from gatewayd import Client
    client = Client(host="127.0.0.1", port=int(sys.argv[2]), protocol=sys.argv[1])
    # Everything is imported by now: an interrupt in the midst of an import may be lost in Python itself.
    client.post("/tag", "x")

    def inputs():
        yield "x"
        print("ready", flush=True)  # the request is under way

    try:
        client.post("/asleep", inputs, request_size=1, parameters={"t": 8})
    except KeyboardInterrupt:
        print("interrupted", client.post("/tag", "x").texts, flush=True)
"""


def test_ctrl_c_ends_a_post_and_leaves_the_client_usable(gateway, protocol):
    child = Child(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), protocol, str(gateway.ports[protocol])]
    )
    try:
        child.line("^ready")
        os.kill(child.pid, signal.SIGINT)
        child.line(r"^interrupted \['xA'\]")
    finally:
        child.stop()
    assert "Traceback" not in child.output


def test_importing_brings_little_and_nothing_that_is_not_used():
    loaded = json.loads(
        run_python(
            """
            import json, sys
            before = set(sys.modules)
            import gatewayd
            from gatewayd import Client
            Client()
            print(json.dumps(sorted(set(sys.modules) - before)))
            """
        )
    )

    assert not {"twisted", "docarray", "grpc", "aiohttp", "rich", "numpy"} & set(loaded)
    # asyncio and ssl are most of them.
    assert len(loaded) < 300, loaded


def test_a_process_that_posts_never_imports_twisted(gateway):
    run_python(
        """
        import json, sys
        from gatewayd import Client
        for protocol, port in json.loads(sys.argv[1]).items():
            client = Client(host="127.0.0.1", port=port, protocol=protocol)
            assert client.post("/tag", "x").texts == ["xA"]
        assert "twisted" not in sys.modules
        """,
        json.dumps(gateway.ports),
    )
