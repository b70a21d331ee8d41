"""``gatewayd replay``: recorded by one gateway, sent again to another, over every protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from docarray import Document
from websockets.sync.client import connect

from gatewayd import Client
from gatewayd.cli import replaying
from gatewayd.cli.replay_report import Outcome, Unsendable
from gatewayd.client.address import Certificates, parse_address
from gatewayd.client.errors import BadServerFlow
from gatewayd.pb import DataRequestProto
from gatewayd.recording import Answers, Heading, Recorded, heading_of, recorded_of
from tests.paths import ROOT
from tests.processes import PROTOCOLS, Gateway, environment
from tests.waiting import until

pytestmark = pytest.mark.slow

EXECUTORS = """
from docarray import Document
from gatewayd import Executor, requests

class Shop(Executor):
    def __init__(self, word='red', **kwargs):
        super().__init__(**kwargs)
        self.word = word

    @requests(on='/search')
    def search(self, docs, **kwargs):
        for doc in docs:
            doc.tags['found'] = f'{self.word} {doc.text}'

    @requests(on='/raise')
    def fail(self, **kwargs):
        raise ValueError('boom')

    @requests(on='/words')
    async def words(self, doc, **kwargs):
        for number, word in enumerate([*doc.text.split(), self.word]):
            yield Document(id=f'{doc.id}{number}', text=word)

    @requests(on='/break')
    async def break_off(self, doc, **kwargs):
        yield Document(id='0', text='first')
        raise ValueError('boom')

    @requests(on='/endless')
    async def endless(self, doc, **kwargs):
        number = 0
        while True:
            yield Document(id=str(number), text=self.word)
            number += 1
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "shop.py"
    path.write_text(EXECUTORS)
    return path


def shop(module: Path, **gateway: Any) -> dict[str, Any]:
    word = gateway.pop("word", "red")
    executor = {"name": "shop", "uses": "Shop", "py_modules": [str(module)], "uses_with": {"word": word}}
    return {"with": {"name": "shop"}, "gateway": gateway, "executors": [executor]}


@pytest.fixture(scope="module")
def recording(module: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One request over each protocol, and one that an executor fails."""
    path = tmp_path_factory.mktemp("recorded") / "requests.jsonl"
    gateway = Gateway(shop(module, record={"path": str(path)}))
    try:
        for protocol in PROTOCOLS:
            with Client(protocol=protocol, port=gateway.ports[protocol]) as client:
                client.post("/search", Document(id=protocol, text="apple"), parameters={"limit": 2})
        with Client(port=gateway.ports["grpc"]) as client:
            client.post("/raise", Document(id="x"), continue_on_error=True)
        # Before it stops: nobody has to stop a gateway to read what it records.
        until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 5)
    finally:
        gateway.stop()
    assert "are recorded in" in gateway.output
    return path


@pytest.fixture(scope="module")
def same(module: Path) -> Iterator[Gateway]:
    gateway = Gateway(shop(module))
    until(lambda: streams_are_known(gateway))
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def other(module: Path) -> Iterator[Gateway]:
    gateway = Gateway(shop(module, word="green"))
    until(lambda: streams_are_known(gateway))
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def streams(module: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Streams over each protocol, as they end, break and are left; one of two documents, a chat's."""
    path = tmp_path_factory.mktemp("streams") / "requests.jsonl"
    doors = {"openai": {"chat": "/words"}, "expose_graphql_endpoint": True}
    gateway = Gateway(shop(module, record={"path": str(path)}, **doors))
    try:
        until(lambda: streams_are_known(gateway))
        for protocol in PROTOCOLS:
            with Client(protocol=protocol, port=gateway.ports[protocol]) as client:
                assert len(list(client.stream_doc("/words", Document(id=protocol, text="a b")))) == 3
        with Client(port=gateway.ports["grpc"]) as client:
            with pytest.raises(BadServerFlow):
                list(client.stream_doc("/break", Document(text="x")))
            endless = client.stream_doc("/endless", Document(text="x"))
            assert [next(endless).id for _ in range(3)] == ["0", "1", "2"]
            endless.close()
        several = DataRequestProto()
        for name in "xy":
            several.data.docs.docs.add(id=name, text=name)
        asked = Request(
            f"http://127.0.0.1:{gateway.ports['http']}/words",
            several.SerializeToString(),
            {"Content-Type": "application/x-protobuf", "Accept": "application/x-ndjson"},
        )
        with urlopen(asked, timeout=30) as answer:
            assert len(answer.read().splitlines()) == 4
        chat = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "a b"}]}
        door = f"http://127.0.0.1:{gateway.ports['http']}/v1/chat/completions"
        asked = Request(door, json.dumps(chat).encode(), {"Content-Type": "application/json"})
        with urlopen(asked, timeout=30) as answer:
            assert b"[DONE]" in answer.read()
        assert subscribed(gateway.ports["http"]) == ["a", "red"]
        until(lambda: path.read_bytes().count(b"\n") >= 9)
    finally:
        gateway.stop()
    return path


def streams_are_known(gateway: Gateway) -> bool:
    """Whether the executor has told which endpoints stream: they have a path then, which has no PUT."""
    try:
        urlopen(Request(f"http://127.0.0.1:{gateway.ports['http']}/words", method="PUT"), timeout=30)
    except HTTPError as error:
        return error.code == 405
    return False


def subscribed(port: int) -> list[str]:
    """The texts that a subscription of GraphQL's has."""
    query = 'subscription { doc(data: {id: "s", text: "a"}, execEndpoint: "/words") { text } }'
    url = f"ws://127.0.0.1:{port}/graphql"
    texts = []
    with connect(url, subprotocols=["graphql-transport-ws"]) as client:  # type: ignore[list-item]
        client.send('{"type": "connection_init"}')
        assert json.loads(client.recv())["type"] == "connection_ack"
        client.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": query}}))
        while (got := json.loads(client.recv()))["type"] == "next":
            texts.append(got["payload"]["data"]["doc"]["text"])
    return texts


def replayed(file: Path, url: str, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "gatewayd", "replay", str(file), url, *options],
        env=environment(COLUMNS="160"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def scheme(protocol: str) -> str:
    return {"grpc": "grpc", "http": "http", "websocket": "ws"}[protocol]


def url_of(gateway: Gateway, protocol: str) -> str:
    return f"{scheme(protocol)}://127.0.0.1:{gateway.ports[protocol]}"


def test_what_is_recorded(recording: Path) -> None:
    lines = recording.read_bytes().splitlines(keepends=True)
    found = [*recorded_of(lines[1:])]

    assert heading_of(lines[0]).flow == "shop"
    assert [(each.protocol, each.endpoint, each.outcome) for each in found] == [
        ("grpc", "/search", "ok"),
        ("http", "/search", "ok"),
        ("websocket", "/search", "ok"),
        ("grpc", "/raise", "executor_error"),
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_gateway_answers_the_same(recording: Path, same: Gateway, protocol: str) -> None:
    code, output = replayed(recording, url_of(same, protocol))

    assert (code, "4 of 4 answers are the same" in output) == (0, True), output


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_differs_field_by_field(recording: Path, other: Gateway, protocol: str) -> None:
    code, output = replayed(recording, url_of(other, protocol))

    assert code == 1, output
    assert "data.docs[0].tags.found" in output
    assert "'red apple'" in output
    assert "'green apple'" in output
    assert "fields that differ: data.docs[].tags.found (3)" in output
    assert "1 of 4 answers are the same" in output


def test_a_field_that_may_differ(recording: Path, other: Gateway) -> None:
    code, output = replayed(recording, url_of(other, "grpc"), "--ignore", "data.docs[].tags.found")

    assert (code, "4 of 4" in output) == (0, True), output


@pytest.mark.parametrize("options", [("--rate", "100"), ("--recorded",), ("--recorded", "--speed", "10")])
def test_the_pace(recording: Path, same: Gateway, options: tuple[str, ...]) -> None:
    code, output = replayed(recording, url_of(same, "http"), *options)

    assert (code, "4 of 4" in output) == (0, True), output


def test_no_more_than_the_limit(recording: Path, same: Gateway) -> None:
    code, output = replayed(recording, url_of(same, "grpc"), "--limit", "2")

    assert (code, "2 of 2 answers are the same" in output) == (0, True), output


def test_a_replay_that_is_stopped_reports_what_was_answered(
    recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def until_ctrl_c(requests: Iterator[Recorded], *_: Any) -> Iterator[Outcome | Unsendable]:
        first = next(requests)
        yield Outcome(first, "ok", 0.1, first.response)
        raise KeyboardInterrupt

    monkeypatch.setattr(replaying, "_replayed", until_ctrl_c)
    address = parse_address("grpc://127.0.0.1:1", None, None, None, Certificates())
    code = replaying.replay(
        recording, address, replaying.Pace(), headers=(), timeout_s=1.0, ignore=(), tolerance=0.0
    )

    told = capsys.readouterr()
    assert code == 0
    assert "stopped: this is of the requests that were answered" in told.err
    assert "1 of 1 answers are the same" in told.out


def test_what_the_protocol_cannot_carry_is_told_and_counted(tmp_path: Path, capsys: Any) -> None:
    asked = DataRequestProto()
    asked.header.exec_endpoint = "/words"
    several = [
        Recorded(1.0, 1.0, "http", "/words", f"r{number}", "ok", asked.SerializeToString(), answers=Answers())
        for number in range(2)
    ]
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"".join([Heading(None, 1.0).to_line(), *(each.to_line() for each in several)]))

    address = parse_address("grpc://127.0.0.1:1", None, None, None, Certificates())
    code = replaying.replay(
        path, address, replaying.Pace(), headers=(), timeout_s=1.0, ignore=(), tolerance=0.0
    )

    told = capsys.readouterr()
    assert code == 3
    assert "cannot be sent over grpc: 2 to /words: stream_doc takes one document" in told.err
    assert "0 of 0 answers are the same" in told.out


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_gateway_that_is_not_there_ends_it_at_once(recording: Path, protocol: str) -> None:
    code, output = replayed(recording, f"{scheme(protocol)}://127.0.0.1:1")

    assert code == 2
    assert output.startswith("gatewayd: the gateway cannot be reached: ")
    assert "nobody listens on 127.0.0.1:1" in output
    assert len(output.splitlines()) == 1


def test_an_executor_that_is_not_there_is_an_answer(recording: Path) -> None:
    flow = {"gateway": {}, "executors": [{"name": "gone", "external": True, "host": "127.0.0.1", "port": 1}]}
    gateway = Gateway(flow, protocols=["grpc"])
    try:
        code, output = replayed(recording, url_of(gateway, "grpc"))
    finally:
        gateway.stop()

    assert (code, "0 of 4 answers are the same" in output) == (1, True), output


def test_what_is_recorded_meanwhile_is_not_sent(recording: Path, module: Path, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(recording.read_bytes())
    gateway = Gateway(shop(module, record=str(path)), protocols=["grpc"])
    try:
        code, output = replayed(path, url_of(gateway, "grpc"), "--rate", "5")
    finally:
        gateway.stop()

    assert (code, "4 of 4 answers are the same" in output) == (0, True), output


def test_what_is_recorded_of_streams(streams: Path) -> None:
    found = {
        (each.protocol, each.endpoint): each
        for each in recorded_of(streams.read_bytes().splitlines(True)[1:])
    }

    assert {protocol for protocol, _ in found} == {"grpc", "http", "websocket", "graphql"}
    ended, broken, left = (found["grpc", name] for name in ("/words", "/break", "/endless"))
    assert (ended.outcome, broken.outcome, left.outcome) == ("ok", "executor_error", "cancelled")
    for each, fewest in ((ended, 3), (broken, 1), (left, 3)):
        assert each.answers is not None
        assert each.answers.count >= fewest
        times = [at_s for at_s, _ in each.answers.kept]
        assert times == sorted(times)
        assert each.answers.first_s == times[0]
        assert times[-1] <= each.took_s


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_streams_are_answered_the_same(streams: Path, same: Gateway, protocol: str) -> None:
    code, output = replayed(streams, url_of(same, protocol))

    assert (code, "8 of 8 answers are the same" in output) == (0, True), output
    assert "first p50 before" in output


def test_streams_of_another_differ_document_by_document(streams: Path, other: Gateway) -> None:
    code, output = replayed(streams, url_of(other, "http"))

    assert code == 1, output
    assert "answers[2].data.docs[0].text" in output
    assert "'red'" in output
    assert "'green'" in output
    assert "1 of 8 answers are the same" in output  # the one that breaks
    assert "of the answers to 8 requests, documents alone were compared" in output


def test_what_is_no_recording(tmp_path: Path) -> None:
    for content in (b"", b"hello\n"):
        (tmp_path / "file").write_bytes(content)
        code, output = replayed(tmp_path / "file", "grpc://127.0.0.1:1")
        assert (code, "is no recording" in output) == (1, True), output


def test_wrong_use(recording: Path) -> None:
    code, output = replayed(recording, "grpc://127.0.0.1:1", "--rate", "1", "--recorded")

    assert (code, "give one of them" in output) == (2, True), output


def test_each_worker_has_a_file_of_its_own(module: Path, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    gateway = Gateway(shop(module, record=str(path), workers=2), protocols=["grpc"])
    try:
        with Client(port=gateway.ports["grpc"]) as client:
            until(client.is_flow_ready)
            client.post("/search", Document(text="apple"))
    finally:
        gateway.stop()

    files = sorted(os.listdir(tmp_path))
    assert files
    assert {*files} <= {"requests.jsonl.w0", "requests.jsonl.w1"}


def test_a_file_that_cannot_be_written_is_refused_at_the_start(module: Path, tmp_path: Path) -> None:
    flow = shop(module, record=str(tmp_path / "missing" / "requests.jsonl"))
    with pytest.raises(AssertionError, match=r"gateway\.record: .* cannot be written: No such file"):
        Gateway(flow, protocols=["grpc"])
