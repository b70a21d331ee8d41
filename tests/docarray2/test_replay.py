"""``gatewayd replay`` of documents of docarray 0.40 and later: typed requests, and streams."""

import json
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest
from docarray import DocList

from gatewayd import Client, Flow
from gatewayd.client.errors import BadServer, BadServerFlow
from gatewayd.recording import recorded_of
from tests.docarray2.golden import EXECUTORS, SOURCE
from tests.paths import ROOT
from tests.processes import environment
from tests.waiting import until

pytestmark = pytest.mark.slow

In, Out, Rich = EXECUTORS.In, EXECUTORS.Out, EXECUTORS.Rich
SCHEMES = {"grpc": "grpc", "http": "http", "websocket": "ws"}
REQUESTS = 18

# A and S of the golden data in one executor, which makes up no ids.
BOTH = """
class Both(S):
    @requests(on="/echo")
    def echo(self, docs: DocList[In], **kwargs) -> DocList[In]:
        for doc in docs:
            doc.text += "!"
        return docs

    @requests(on="/rich")
    def rich(self, docs: DocList[Rich], **kwargs) -> DocList[Rich]:
        return docs

    @requests(on="/raise")
    def fail(self, docs: DocList[In], **kwargs) -> DocList[In]:
        raise ValueError("boom")
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("recorded") / "requests.jsonl"


@pytest.fixture(scope="module")
def flow(tmp_path_factory, path):
    source = tmp_path_factory.mktemp("flow") / "both.py"
    source.write_text(SOURCE.read_text().replace("from jina import", "from gatewayd import") + BOTH)
    described = Flow(
        protocol=list(SCHEMES), record={"path": str(path)}, env={"PYTHONWARNINGS": "ignore"}
    ).add(name="both", uses="Both", py_modules=str(source))
    with described as flow:
        yield flow


@pytest.fixture(scope="module")
def recording(flow, path, tmp_path_factory):
    """What clients ask over each protocol; a copy, as what is replayed is recorded too."""
    for protocol, port in zip(SCHEMES, flow.port, strict=True):
        with Client(host="127.0.0.1", port=port, protocol=protocol) as client:
            client.post("/echo", [In(text="a"), In(text="b")], return_type=DocList[In])
            client.post("/rich", Rich(title="t"), return_type=Rich)
            with pytest.raises(BadServer):
                client.post("/raise", In(text="a"))
            assert len(list(client.stream_doc("/stream", In(text="hi"), return_type=Out))) == 3
            with pytest.raises(BadServerFlow):
                list(client.stream_doc("/midraise", In(text="x"), return_type=Out))
    port = flow.port[1]
    body = json.dumps({"data": [{"id": "typed", "text": "a"}], "parameters": {"k": 1}}).encode()
    for query, content, forms in (
        ("echo", body, {"Content-Type": "application/json"}),
        ("stream?id=q&text=hi&num=2", None, {"Accept": "application/x-ndjson"}),
        ("stream?id=q&text=hi&num=2", None, {"Accept": "text/event-stream"}),
    ):
        with urlopen(Request(f"http://127.0.0.1:{port}/{query}", content, forms), timeout=30) as answer:
            assert answer.read()
    until(lambda: path.read_bytes().count(b"\n") > REQUESTS)
    copied = tmp_path_factory.mktemp("copied") / "requests.jsonl"
    copied.write_bytes(path.read_bytes())
    return copied


def test_typed_requests_and_streams_are_recorded(recording):
    found = [*recorded_of(recording.read_bytes().splitlines(True)[1:])]

    assert len(found) == REQUESTS
    streams = [each for each in found if each.answers is not None]
    assert {each.endpoint for each in streams} == {"/stream", "/midraise"}
    assert sorted(each.answers.count for each in streams) == [2] * 5 + [3] * 3


@pytest.mark.parametrize("protocol", SCHEMES)
def test_they_are_answered_the_same(flow, recording, protocol):
    port = flow.port[list(SCHEMES).index(protocol)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "gatewayd",
            "replay",
            str(recording),
            f"{SCHEMES[protocol]}://127.0.0.1:{port}",
        ],
        env=environment(COLUMNS="160"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert (done.returncode, f"{REQUESTS} of {REQUESTS} answers are the same" in done.stdout) == (0, True), (
        done.stdout + done.stderr
    )
