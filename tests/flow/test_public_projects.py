"""
What public projects do with the API, made again: their files and clients, with the one changed import.

Each folder of ``public_projects`` is shaped like a project: an encoder with a client of its own around
``Client``, an indexer on disk, a Flow of image generators that meet, and a new project's template.
"""

import asyncio
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from docarray import Document, DocumentArray

from gatewayd import Client, Executor, Flow, requests
from gatewayd.excepts import BadServer, NetworkError
from tests.processes import Child, environment, free_ports, runs
from tests.waiting import until

PROJECTS = Path(__file__).parent / "public_projects"
PROTOCOLS = ["grpc", "http", "websocket"]


def loaded(path: Path) -> ModuleType:
    """A project's file, as it would be imported beside the test."""
    spec = importlib.util.spec_from_file_location(f"public_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EncodingClient = loaded(PROJECTS / "clip" / "client.py").EncodingClient
Encoder = loaded(PROJECTS / "clip" / "executors" / "encoder.py").Encoder
Indexer = loaded(PROJECTS / "indexer" / "executor.py").Indexer


def copied(project: str, folder: Path, ports: dict[int, int]) -> Path:
    """The project in a folder of its own, with the ports it writes replaced by free ones."""
    target = folder / project
    shutil.copytree(PROJECTS / project, target, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*target.rglob("*.yml"), *target.rglob("client.py")]:
        text = path.read_text()
        for written, free in ports.items():
            text = text.replace(str(written), str(free))
        path.write_text(text)
    return target


def wait_until_ready(child: Child, port: int) -> None:
    client = Client(port=port)
    until(lambda: client.is_flow_ready() or not runs(child.pid), timeout_s=60, what=lambda: child.output)
    assert runs(child.pid), child.output


# A Flow file with an executor in it, and a client that hides ours.


@pytest.fixture(scope="module", params=PROTOCOLS)
def server(request) -> Iterator[str]:
    with Flow(protocol=request.param).add(name="encoder", uses=Encoder, uses_with={"size": 4}) as flow:
        yield f"{request.param}://0.0.0.0:{flow.port}"


@pytest.mark.slow
def test_a_module_that_loads_a_flow_file_beside_itself_serves_it_from_any_folder(tmp_path):
    (port,) = free_ports(1)
    project = copied("clip", tmp_path, {51000: port})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    child = Child([sys.executable, str(project)], cwd=elsewhere, env=environment())
    try:
        wait_until_ready(child, port)
        assert EncodingClient(f"grpc://0.0.0.0:{port}").encode(["a", "b"]).shape == (2, 4)
    finally:
        assert child.stop() == 0, child.output


@pytest.mark.slow
def test_an_encoder_before_a_sharded_indexer_finds_the_nearest(tmp_path):
    (port,) = free_ports(1)
    project = copied("clip", tmp_path, {61000: port})
    shutil.copy(PROJECTS / "indexer" / "executor.py", project)
    path = f"{project}:{environment()['PYTHONPATH']}"
    command = [sys.executable, ".", "search-flow.yml"]
    child = Child(command, cwd=project, env=environment(PYTHONPATH=path))
    try:
        wait_until_ready(child, port)
        client = EncodingClient(f"grpc://0.0.0.0:{port}")
        docs = DocumentArray(Document(id=text, text=text) for text in ("abcd", "bcde", "wxyz", "0123"))
        # One request for each, so that both shards get some.
        assert client.index(docs, batch_size=1).embeddings.shape == (4, 8)
        asked = [Document(text="abcd"), Document(text="0123")]
        for found in (client.search(asked, limit=2), asyncio.run(client.asearch(asked, limit=2))):
            assert [min(doc.matches, key=distance).id for doc in found] == ["abcd", "0123"]
            assert all(len(doc.matches) == 4 for doc in found)  # two of each shard
    finally:
        assert child.stop() == 0, child.output
    assert sorted(each.name for each in (project / "workspace" / "Indexer").iterdir()) == ["0", "1"]


def distance(match: Document) -> float:
    return match.scores["euclidean"].value


@pytest.mark.slow
@pytest.mark.parametrize("shape", [list, tuple])
def test_texts_become_an_array(server, shape):
    client = EncodingClient(server)

    assert client.encode(shape(["hello", "world", "!"])).shape == (3, 4)
    assert client.progress == 3


@pytest.mark.slow
def test_a_generator_has_no_length(server):
    client = EncodingClient(server)

    with pytest.warns(UserWarning, match="length of the input is unknown"):
        found = client.encode((f"text {i}" for i in range(30)), batch_size=4)

    assert found.shape == (30, 4)


@pytest.mark.slow
@pytest.mark.parametrize("empty", [[], DocumentArray()])
def test_nothing_in_is_nothing_out(server, empty):
    assert len(EncodingClient(server).encode(empty)) == 0
    assert len(asyncio.run(EncodingClient(server).aencode(empty))) == 0


@pytest.mark.slow
def test_documents_are_filled_in_their_order_and_remain_the_callers(server):
    docs = DocumentArray(Document(id=str(i), text=f"hello {i}") for i in range(20))

    found = EncodingClient(server).encode(docs, batch_size=1, prefetch=3)

    assert [doc.id for doc in found] == [str(i) for i in range(20)]
    assert all(one is other for one, other in zip(docs, found, strict=True))
    assert found.embeddings.dtype == np.float32
    assert docs.texts == [f"hello {i}" for i in range(20)]


@pytest.mark.slow
def test_parameters_reach_the_executor(server):
    docs = DocumentArray([Document(chunks=[Document(text="a"), Document(blob=b"image")])])
    host, _, port = server.rpartition(":")
    client = Client(host=host, port=int(port))

    kept = client.post("/", docs, parameters={"access_paths": "@c"})
    dropped = client.post(
        "/encode/some-model",
        docs,
        parameters={"access_paths": "@c", "minibatch_size": 1, "drop_image_content": True},
    )

    assert kept[0].chunks.embeddings.shape == (2, 4)
    assert [doc.blob for doc in kept[0].chunks] == [b"", b"image"]
    assert [doc.blob for doc in dropped[0].chunks] == [b"", b""]


@pytest.mark.slow
def test_callbacks_of_ones_own(server):
    done, failed, always = [], [], []

    found = EncodingClient(server).encode(
        DocumentArray([Document(text="hello")]),
        on_done=done.append,
        on_error=failed.append,
        on_always=always.append,
    )

    assert found is None
    assert (len(done), len(failed), len(always)) == (1, 0, 1)


@pytest.mark.slow
def test_matches_are_ranked(server):
    def asked():
        matches = [Document(text="z!z!"), Document(text="abce"), Document(text="abcd")]
        return DocumentArray([Document(text="abcd", matches=matches)])

    waited = EncodingClient(server).rank(asked())
    awaited = asyncio.run(EncodingClient(server).arank(asked()))

    for ranked in (waited, awaited):
        assert ranked["@m"].texts == ["abcd", "abce", "z!z!"]
        scores = [match.scores["clip_score"].value for match in ranked[0].matches]
        assert scores == sorted(scores, reverse=True)
        assert ranked[0].matches[0].scores["clip_score"].op_name == "cosine"


@pytest.mark.slow
def test_the_async_client_beside_other_work(server):
    async def both():
        return await asyncio.gather(
            EncodingClient(server).aencode(["hello world"] * 10, batch_size=3), asyncio.sleep(0.01)
        )

    assert asyncio.run(both())[0].shape == (10, 4)


@pytest.mark.slow
def test_times_are_read_from_the_routes(server):
    for content in ("", "hello"):
        times = EncodingClient(server).profile(content)
        assert times["Roundtrip"] >= times["Server"] >= times["Encoder"] >= 0


@pytest.mark.slow
def test_a_token_is_sent_and_another_type_is_refused(server):
    client = EncodingClient(server, credential={"Authorization": "token"})

    assert client.encode(["a"]).shape == (1, 4)
    with pytest.raises(Exception, match="unsupported input type 1"):
        client.encode([1])


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_executor_that_fails_calls_on_error(protocol):
    with Flow(protocol=protocol).add(uses=Failing) as flow:
        client = EncodingClient(f"{protocol}://0.0.0.0:{flow.port}")
        done, failed, always = [], [], []
        found = client.encode(
            DocumentArray([Document(text="hello")]),
            on_done=done.append,
            on_error=failed.append,
            on_always=always.append,
        )
        with pytest.raises(BadServer, match="division by zero"):
            client.encode(["hello"])
        with pytest.raises(BadServer, match="division by zero"):
            asyncio.run(client.aencode(["hello"]))

    assert found is None
    assert (len(done), len(failed), len(always)) == (0, 1, 1)
    assert "division by zero" in failed[0].header.status.description


@pytest.mark.slow
def test_an_executor_may_ask_another_flow():
    with (
        Flow().add(uses=Encoder, uses_with={"size": 4}) as encoders,
        Flow(protocol="http").add(
            uses=Asking, uses_with={"server": f"grpc://0.0.0.0:{encoders.port}"}
        ) as flow,
    ):

        def ask(tag):
            docs = DocumentArray(Document(id=f"{tag}_{i}", text="hello") for i in range(6))
            return Client(port=flow.port, protocol="http").post("/", docs, request_size=2)

        with ThreadPool(3) as pool:
            answers = pool.map(ask, ["a", "b", "c"])

    for tag, answer in zip("abc", answers, strict=True):
        assert {doc.id[0] for doc in answer} == {tag}
        assert answer.embeddings.shape == (6, 4)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_not_there_is_told_to_on_error_or_raised(protocol):
    client = EncodingClient(f"{protocol}://127.0.0.1:{free_ports(1)[0]}")

    with pytest.raises(NetworkError):
        client.encode(["a"])
    with pytest.raises(ValueError, match="other"):
        EncodingClient("other://0.0.0.0:1")
    with pytest.raises(TypeError, match="iterable"):
        client.encode("a")


class Failing(Executor):
    @requests
    def fail(self, docs, **kwargs):
        return 1 / 0


class Asking(Executor):
    def __init__(self, server: str = "", **kwargs):
        super().__init__(**kwargs)
        self._client = EncodingClient(server)

    @requests
    async def ask(self, docs, **kwargs):
        return await self._client.aencode(docs, batch_size=2)


# An executor on disk: by itself, as its unit tests use it, and in a Flow.


@pytest.fixture
def docs() -> DocumentArray:
    return DocumentArray(
        Document(id=f"doc{i}", embedding=row, tags={"even": i % 2 == 0})
        for i, row in enumerate(np.eye(4), start=1)
    )


@pytest.fixture
def metas(tmp_path) -> dict[str, str]:
    return {"workspace": str(tmp_path / "workspace")}


def test_its_configuration_is_loaded():
    executor = Executor.load_config(str(PROJECTS / "indexer" / "config.yml"))

    assert executor._match_args == {}
    assert type(executor).__name__ == "Indexer"


def test_by_itself_it_keeps_what_it_was_given(metas, docs):
    indexer = Indexer(metas=metas, table_name="kept")
    indexer.index(docs)
    indexer.update(DocumentArray([Document(id="doc1", embedding=np.array([0, 0, 0, 1]))]))
    indexer.delete({"ids": ["doc2"]})
    indexer.delete({})
    again = Indexer(metas=metas, table_name="kept")

    assert again.table_name == "kept"
    assert sorted(doc.id for doc in again._index) == ["doc1", "doc3", "doc4"]
    assert again._index["doc1"].embedding.tolist() == [0, 0, 0, 1]
    again.index(docs=DocumentArray())
    again.clear()
    assert len(again._index) == 0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_by_itself_it_finds_the_nearest(metas, docs, metric):
    indexer = Indexer(match_args={"metric": metric}, metas=metas)
    indexer.index(docs)
    asked = deepcopy(docs)

    for parameters, count in ((None, 4), ({"limit": 1, "unknown": 1, "self": 2}, 1), ({}, 4)):
        indexer.search(asked, parameters=parameters)
        assert [len(doc.matches) for doc in asked] == [count] * 4
        assert [doc.matches[0].id for doc in asked] == ["doc1", "doc2", "doc3", "doc4"]


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_in_a_flow_every_endpoint_does_its_part(metas, docs, protocol):
    with Flow(protocol=protocol).add(uses=Indexer, uses_metas=metas) as flow:
        flow.index(docs)
        with pytest.warns(UserWarning, match="return_results"):
            found = flow.search(inputs=docs, parameters={"limit": 2}, return_results=True)
        assert [doc.matches[0].id for doc in found] == [doc.id for doc in docs]
        assert [len(doc.matches) for doc in found] == [2] * 4

        filled = flow.post("/fill_embedding", [Document(id="doc3")])
        assert filled[0].embedding.tolist() == [0, 0, 1, 0]

        even = flow.post("/filter", parameters={"query": {"tags__even": {"$eq": True}}})
        assert sorted(doc.id for doc in even) == ["doc2", "doc4"]

        flow.update([Document(id="doc1", embedding=np.array([5, 5, 5, 5])), Document(id="unknown")])
        flow.delete(parameters={"ids": ["doc2", "doc3"]}, inputs=[])
        kept = flow.search(Document(embedding=np.array([1, 1, 1, 1])))
        assert sorted(match.id for match in kept[0].matches) == ["doc1", "doc4"]

        flow.post("/status")
        flow.post("/clear")
        assert not flow.search(Document(embedding=np.array([1, 1, 1, 1])))[0].matches


@pytest.mark.slow
@pytest.mark.parametrize("uses", [Indexer, str(PROJECTS / "indexer" / "config.yml")])
def test_what_is_indexed_is_there_when_the_flow_runs_again(metas, docs, uses):
    flow = Flow().add(uses=uses, uses_metas=metas)

    with flow:
        flow.index(docs)
        first = flow.search(inputs=docs)
    with flow:
        second = flow.search(inputs=docs)

    assert [match.id for match in first[0].matches] == [match.id for match in second[0].matches]
    assert len(second[0].matches) == 4


# Generators that run beside each other and meet, with environments of their own.


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("images")
    project = copied("images", folder, {51005: port})
    gpus = folder / "nvidia-smi"
    gpus.write_text('#!/bin/sh\nfor i in 0 1 2; do echo "GPU $i: Some model (UUID: GPU-$i)"; done\n')
    gpus.chmod(0o755)
    command = [sys.executable, "-m", "gatewayd", "serve", "flow.yml"]
    child = Child(command, cwd=project, env=environment(PATH=f"{folder}:/usr/bin:/bin"))
    try:
        wait_until_ready(child, port)
        yield port
    finally:
        assert child.stop() == 0, child.output


@pytest.mark.slow
def test_what_the_branches_made_is_joined_and_reranked(port):
    client = Client(host=f"grpc://0.0.0.0:{port}")
    answer = client.post("/", Document(text="a cat"), parameters={"num_images": 2})[0]

    assert answer.text == "a cat"
    tags = [match.tags for match in answer.matches]
    assert sorted(tag["generator"] for tag in tags) == ["diffusion", "diffusion", "dream", "dream"]
    dreams = [tag for tag in tags if tag["generator"] == "dream"]
    assert {(tag["devices"], tag["log_level"]) for tag in dreams} == {("0", "debug")}
    diffused = [tag for tag in tags if tag["generator"] == "diffusion"]
    assert {(tag["skipped"], tag["model"]) for tag in diffused} == {(50, "../model")}


@pytest.mark.slow
def test_replicas_take_turns_with_the_devices(port):
    client = Client(host="grpc://0.0.0.0", port=port)
    seen: set[str] = set()
    for _ in range(100):
        seen |= {match.tags["devices"] for match in client.post("/", Document(text="x"))["@m"]}
        if seen == {"0", "1", "2"}:
            break

    assert seen == {"0", "1", "2"}


@pytest.mark.slow
def test_one_executor_is_addressed_and_an_endpoint_skips_those_without_it(port):
    client = Client(host=f"grpc://0.0.0.0:{port}")
    images = client.post("/", Document(text="a cat"), target_executor="dream", parameters={"num_images": 3})
    assert len(images[0].matches) == 3

    favourite = images[0].matches[0]
    finished = client.post("/upscale", favourite)[0]

    assert finished.tags["upscaled_on"] == "1"
    assert finished.tags["finish_time"] > 0
    assert finished.blob == b""
    assert finished.uri.startswith("data:image/png;")


# A new project: served from its own folder, and asked by the client beside it.


@pytest.mark.slow
def test_it_is_served_and_asked(tmp_path):
    ports = dict(zip((54321, 54322, 54323), free_ports(3), strict=True))
    project = copied("template", tmp_path, ports)
    child = Child([sys.executable, "-m", "gatewayd", "serve", "flow.yml"], cwd=project, env=environment())
    try:
        wait_until_ready(child, ports[54321])
        asked = subprocess.run(
            [sys.executable, "client.py"],
            cwd=project,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        for protocol, port in zip(PROTOCOLS, ports.values(), strict=True):
            client = Client(port=port, protocol=protocol)
            assert client.post("/", DocumentArray.empty(2)).texts == ["good morning", "good night"]
    finally:
        assert child.stop() == 0, child.output

    assert asked.stdout.strip() == "['good morning', 'good night']"
