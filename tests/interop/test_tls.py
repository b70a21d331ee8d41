"""The real Jina client with ``tls=True``, the authority in its trust store, over every protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Files, write_files
from tests.interop.conftest import EXECUTORS, PLAIN
from tests.processes import PROTOCOLS, Child, Gateway, environment

pytestmark = pytest.mark.interop

REC = {"name": "exec_a", "uses": "Rec", "py_modules": [str(EXECUTORS)]}
# The trust store of each of its transports is made when the process starts.
POST = """
import json, sys
from docarray import Document, DocumentArray
from jina import Client
client = Client(host="localhost", port=int(sys.argv[1]), protocol=sys.argv[2], tls=True)
docs = client.post("/tag", inputs=DocumentArray([Document(id="d0", text="x")]))
print("ANSWER", json.dumps([[doc.id, doc.text] for doc in docs]), flush=True)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(files: Files) -> Iterator[Gateway]:
    gateway = Gateway({"gateway": files.settings, "executors": [REC]})
    yield gateway
    gateway.stop()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_posts_over_tls(
    secure: Gateway, files: Files, jina_python: str, protocol: str, tmp_path: Path
) -> None:
    roots = str(files.roots)
    trust = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": roots, "SSL_CERT_FILE": roots}
    arguments = [jina_python, "-c", POST, str(secure.ports[protocol]), protocol]
    client = Child(arguments, env=environment(**PLAIN, **trust), cwd=tmp_path)
    try:
        (answer,) = client.line("^ANSWER (.*)$", timeout_s=60)
    finally:
        client.stop()

    assert json.loads(answer[1]) == [["d0", "xA"]]
