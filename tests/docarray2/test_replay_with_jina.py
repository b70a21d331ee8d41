"""What our gateway has recorded is answered the same by the real Jina 3.34, as far as that can be asked."""

import subprocess
import sys

import pytest
from docarray import DocList

from gatewayd import Client
from tests.docarray2.golden import EXECUTORS
from tests.docarray2.jina import PROTOCOLS, Jina
from tests.paths import ROOT
from tests.processes import Gateway, environment
from tests.waiting import until

pytestmark = [pytest.mark.interop, pytest.mark.slow]

In, Out, Rich = EXECUTORS.In, EXECUTORS.Out, EXECUTORS.Rich


@pytest.fixture(scope="module")
def jina():
    jina = Jina()
    yield jina
    jina.stop()


@pytest.fixture(scope="module")
def executor(jina):
    return jina.executor("S")


@pytest.fixture(scope="module")
def ports(jina, executor):
    ports = jina.gateway("s", executor)
    with Client(port=ports["http"], protocol="http", host="127.0.0.1") as client:
        until(lambda: client.is_flow_ready(timeout=2), 60, "the real gateway gets ready")
    return ports


@pytest.fixture(scope="module")
def recording(executor, ports, tmp_path_factory):
    """Over each protocol: a typed request, and streams that end and that are left."""
    path = tmp_path_factory.mktemp("recorded") / "requests.jsonl"
    external = {"name": "s", "external": True, "host": "127.0.0.1", "port": executor}
    gateway = Gateway({"gateway": {"record": str(path)}, "executors": [external]})
    try:
        for protocol, port in gateway.ports.items():
            with Client(host="127.0.0.1", port=port, protocol=protocol) as client:
                until(lambda client=client: client.is_flow_ready(timeout=2), 60, "ours gets ready")
                client.post("/plain", In(text="a"), return_type=DocList[Out])
                assert len(list(client.stream_doc("/stream", In(text="hi"), return_type=Out))) == 3
                assert len(list(client.stream_doc("/richstream", Rich(title="t"), return_type=Rich))) == 2
        with Client(host="127.0.0.1", port=gateway.ports["grpc"]) as client:
            left = client.stream_doc("/slow", In(text="x", num=1000, price=0.05), return_type=Out)
            assert [next(left).text, next(left).text] == ["x 0", "x 1"]
            left.close()
        until(lambda: path.read_bytes().count(b"\n") > 10)
    finally:
        gateway.stop()
    return path


# ``/plain`` makes up the ids of its documents.
@pytest.mark.parametrize(
    ("protocol", "code", "said"),
    [
        ("grpc", 0, "10 of 10 answers are the same"),
        ("http", 0, "10 of 10 answers are the same"),
        ("websocket", 3, "3 of 3 answers are the same"),  # it has no streams there
    ],
)
def test_the_real_gateway_answers_the_same(recording, ports, protocol, code, said):
    scheme = dict(zip(PROTOCOLS, ("grpc", "http", "ws"), strict=True))[protocol]
    url = f"{scheme}://127.0.0.1:{ports[protocol]}"
    done = subprocess.run(
        [sys.executable, "-m", "gatewayd", "replay", str(recording), url, "--ignore", "data.docs[].id"],
        env=environment(COLUMNS="160"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr
    assert ("cannot be sent over websocket: 3 to /stream" in done.stderr) == (code == 3)
