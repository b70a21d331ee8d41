"""Our executors with docarray 0.41, between the real gateway and client of Jina 3.34."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import PLAIN, post
from tests.paths import ROOT
from tests.processes import Child, ExecutorProcess, environment, free_ports
from tests.waiting import until

pytestmark = pytest.mark.interop

GOLDEN34 = ROOT / "tests" / "golden34"
SIDE = Path(__file__).parent / "jina34_side"
GENERATORS = """
from docarray import Document
from gatewayd import Executor, requests


class Words(Executor):
    @requests(on="/words")
    async def words(self, doc, **kwargs):
        for word in doc.text.split():
            yield Document(text=word)

    @requests(on="/shout")
    def shout(self, docs, **kwargs):
        for doc in docs:
            doc.text = doc.text.upper()
"""


def python(variable: str, folder: str) -> str:
    path = os.environ.get(variable, str(ROOT / folder / "bin" / "python"))
    if not Path(path).exists():
        pytest.fail(f"there is no {path}: run `make test-interop`, or name one in {variable}", pytrace=False)
    return path


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What came of each case of jina34_side/conversation.py."""
    reference = python("GATEWAYD_JINA34_PYTHON", ".venv-jina34")
    ours = python("GATEWAYD_DOCARRAY2_PYTHON", ".venv-docarray2")
    module = tmp_path_factory.mktemp("executors") / "ours.py"
    source = (GOLDEN34 / "executors.py").read_text().replace("from jina import", "from gatewayd import")
    module.write_text(source)
    ports = free_ports(2)
    plain = environment(**PLAIN)
    started: list[Child] = []
    try:
        for name, port in zip(("a", "s"), ports, strict=True):
            executor = ExecutorProcess(name, name.upper(), [module], python=ours)
            started.append(executor)
            command = [
                *(reference, "-m", "jina", "gateway", "--protocol", "GRPC", "--host", "127.0.0.1"),
                *("--port", str(port)),
                *("--graph-description", json.dumps({"start-gateway": [name], name: ["end-gateway"]})),
                *("--deployments-addresses", json.dumps({name: [executor.address]})),
            ]
            started.append(Child(command, env=plain, group=True))
        client = [reference, str(SIDE / "conversation.py"), *map(str, ports), str(GOLDEN34)]
        # It has no port before it has the schemas of its executors.
        until(lambda: all(_listens(port) for port in ports), 60)
        started.append(Child(client, env=plain))
        (found,) = started[-1].line("^ANSWERS (.*)$", timeout_s=60)
        yield json.loads(found[1])
    finally:
        for child in reversed(started):
            child.kill()
            child.stop()


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


EXPECTED = {
    "ready": True,
    "echo": ["a!", "b!"],
    "len": [1, 1],
    "single": [1, 1],
    "rich": "t!",
    "params": "Params(top=3, scale=1.0, label=None)",
    "optparams": "OptParams(top=7)",
    "unbound": ["a", "b"],
    "stream": ["hi 0", "hi 1", "hi 2"],
    "plain stream": ["hi 0", "hi 1", "hi 2"],
    "stream of rich": 300_000,
    "stream left": ["hi 0", "hi 1"],
}


@pytest.mark.parametrize("case", EXPECTED)
def test_the_client_gets_what_the_method_gives(answers: dict[str, Any], case: str) -> None:
    assert answers[case] == EXPECTED[case]


@pytest.mark.parametrize(
    ("case", "error"),
    [("raise", "ValueError('boom', 1)"), ("params missing", "1 validation error for Params")],
)
def test_the_client_raises_what_the_method_raises(answers: dict[str, Any], case: str, error: str) -> None:
    assert answers[case].startswith("BadServer: ")
    assert error in answers[case].replace("\\'", "'")


def test_a_stream_that_fails_has_its_first_documents(answers: dict[str, Any]) -> None:
    # The real gateway then sends the whole request again, and hides the error (spec 34/streaming.md).
    assert answers["stream raises"][:2] == ["first", "second"]


def test_the_client_raises_at_a_document_of_another_class(answers: dict[str, Any]) -> None:
    first, error = answers["stream of another class"]
    assert first == "first"
    assert "output document type In does not match the endpoint output type Out" in error


def test_the_gateway_of_3_14_takes_an_executor_that_has_generators_too(
    their_gateway: Callable[..., dict[str, int]], tmp_path: Path
) -> None:
    """It ends at a service that it does not know: the first generation's reflection has no stream_doc."""
    module = tmp_path / "words.py"
    module.write_text(GENERATORS)
    executor = ExecutorProcess("words", "Words", [module])
    try:
        ports = their_gateway(
            {"start-gateway": ["words"], "words": ["end-gateway"]}, {"words": executor.address}
        )
        until(lambda: _listens(ports["http"]), 60)

        answer = post(ports["http"], "/shout", [{"text": "a"}])
    finally:
        executor.stop()

    assert (answer["http"], answer["data"][0]["text"]) == (200, "A")
