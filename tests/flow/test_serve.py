"""``Executor.serve``: a class served alone, from its own script."""

import os
import signal
import sys
import threading

import pytest
from docarray import Document

from gatewayd import Client, Executor, requests
from gatewayd.flow.flow import FlowError
from tests.processes import Child, free_ports, runs
from tests.waiting import until

pytestmark = pytest.mark.slow


class Served(Executor):
    def __init__(self, word="", **kwargs):
        super().__init__(**kwargs)
        self.word = word

    @requests(on="/say")
    def say(self, docs, **kwargs):
        docs[0].text = f"{self.word} {self.metas.name} {self.runtime_args.name}"


@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_a_class_is_served_until_the_event_is_set(protocol):
    (port,) = free_ports(1)
    stop = threading.Event()
    serving = threading.Thread(
        target=Served.serve,
        kwargs={
            "uses_with": {"word": "hello"},
            "uses_metas": {"name": "mine"},
            "uses_requests": {"/tell": "say"},
            "uses_dynamic_batching": {"/tell": {"preferred_batch_size": 1}},
            "stop_event": stop,
            "reload": False,
            "name": "one",
            "port": port,
            "protocol": protocol,
            "host": "127.0.0.1",
        },
    )
    serving.start()
    try:
        client = Client(host="127.0.0.1", port=port, protocol=protocol)
        until(client.is_flow_ready)
        assert client.post("/tell", Document()).texts == ["hello mine one/rep-0"]
    finally:
        stop.set()
        serving.join(30)
    assert not serving.is_alive()


def test_a_script_serves_its_class_until_it_is_told_to_stop(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from gatewayd import Executor, requests\n"
        "class Mine(Executor):\n"
        "    @requests\n"
        "    def say(self, docs, **kwargs):\n"
        "        docs[0].text = 'said'\n"
        "Mine.serve(protocol='http', host='127.0.0.1')\n"
        "print('returned')\n"
    )
    child = Child([sys.executable, str(script)], cwd=tmp_path)
    try:
        (match,) = child.line(r"http://127\.0\.0\.1:(\d+)")
        assert Client(f"http://127.0.0.1:{match[1]}").post("/", Document()).texts == ["said"]
        os.kill(child.pid, signal.SIGTERM)
        child.line("^returned$")
        until(lambda: not runs(child.pid))
    finally:
        assert child.stop() == 0


def test_settings_that_are_not_accepted_are_refused():
    with pytest.raises(FlowError, match="did you mean replicas"):
        Served.serve(replcas=2)
