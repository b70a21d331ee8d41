"""Few bytes that are many documents."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.security.conftest import MB, Bystander, Victim

pytestmark = pytest.mark.security

MILLION = b"[" + b",".join([b"{}"] * 1_000_000) + b"]"


def post(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_a_million_documents_in_three_megabytes(attack: Callable[..., Victim]) -> None:
    victim = attack(expose_graphql_endpoint=True)
    body = b'{"data":' + MILLION + b"}"
    chunks = b'{"data":[{"chunks":' + MILLION + b"}]}"
    query = json.dumps("query($d: [StrawberryDocumentInput!]) { docs(data: $d) { id } }").encode()
    with Bystander(victim) as bystander:
        for _ in range(3):
            assert post(victim.ports["http"], "/post", body)[0] == 413
            assert post(victim.ports["http"], "/search", chunks)[0] == 413
            found = post(
                victim.ports["http"],
                "/graphql",
                b'{"query":' + query + b',"variables":{"d":' + MILLION + b"}}",
            )
            assert b"more than 100000 documents" in found[1]
            with (
                connect(f"ws://127.0.0.1:{victim.ports['websocket']}/") as session,
                pytest.raises(ConnectionClosed) as closed,
            ):
                session.send(body.decode())
                session.recv(timeout=20)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009

    assert bystander.statuses == {200}
    assert bystander.percentile_s(0.99) < 1.0
    assert bystander.most_bytes < 200 * MB


@pytest.mark.parametrize(
    ("endpoint", "most_bytes"),
    [("/values", 150 * MB), ("/results", 150 * MB), ("/documents", 200 * MB)],
    ids=["tags", "parameters", "documents"],
)
def test_answers_of_many_small_values(attack: Callable[..., Victim], endpoint: str, most_bytes: int) -> None:
    victim = attack()
    with Bystander(victim, 0.005) as bystander:
        status, body = post(victim.ports["http"], "/post", json.dumps({"execEndpoint": endpoint}).encode())
    assert status == 200
    assert len(body) > 3 * MB
    assert bystander.most_bytes < most_bytes


@pytest.mark.parametrize("unit", ["[],", "{},", '{"a":1},', "[[1]],"])
def test_forty_megabytes_that_would_become_a_gigabyte(attack: Callable[..., Victim], unit: str) -> None:
    victim = attack()
    body = b'{"parameters":{"a":[' + unit.encode() * (40 * MB // len(unit)) + b"1]}}"
    with Bystander(victim) as bystander, ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda _: post(victim.ports["http"], "/post", body), range(4)))
    assert {status for status, _ in answers} == {503}
    assert bystander.statuses == {200}
    assert bystander.most_bytes < 500 * MB
