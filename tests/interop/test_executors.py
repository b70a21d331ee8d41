"""Real Jina executors, started with its own command line, as external ones behind our gateway."""

import time

import pytest
from docarray import Document

from gatewayd import Client
from tests.interop.conftest import post

pytestmark = pytest.mark.interop

DOC = {"id": "d0", "text": "x"}


@pytest.fixture(scope="module")
def served(gateway, theirs):
    """
    HTTP port of our gateway in front of the given executors, once every one of them answers.

    ``listed``: and once it knows their endpoints. A head does not tell those of its shards.
    """

    def find(*executors, listed=True, **settings):
        port = gateway({"gateway": settings, "executors": list(executors)}).ports["http"]
        deadline = time.monotonic() + 60
        while True:
            answer = post(port, "/nobody", [DOC])
            skipped = answer["http"] == 200 and all(one["endTime"] is None for one in answer["routes"][1:])
            if skipped or (answer["http"] == 200 and not listed):
                return port
            assert time.monotonic() < deadline, answer
            time.sleep(0.1)

    return find


def texts(answer):
    return sorted((doc["text"] for doc in answer["data"]), key=str)


def test_one_executor(served, theirs):
    port = served(theirs("exec_a"))

    answer = post(port, "/tag", [DOC])

    assert texts(answer) == ["xA"]
    assert answer["data"][0]["tags"] == {"A": 1.0}
    assert [route["executor"] for route in answer["routes"]] == ["gateway", "exec_a"]
    # Started by hand, it is called what it was named, without a number of its replica.
    assert post(port, "/results", [DOC])["parameters"]["__results__"] == {"exec_a": {"n": 1.0, "who": "A"}}


def test_headers_that_are_forwarded_are_passed_over(served, theirs):
    port = served(theirs("exec_a"), forward_headers=["x-*", "authorization"])

    with Client(protocol="http", port=port) as client:
        headers = {"X-Tenant": "a", "Authorization": "Bearer b", "x-raw-bin": "AP8", "x-long": "v" * 2000}
        answer = client.post("/tag", Document(text="x"), headers=headers)

    assert answer.texts == ["xA"]


def test_an_exception_comes_with_its_traceback(served, theirs):
    answer = post(served(theirs("exec_a")), "/raise", [DOC])

    status = answer["header"]["status"]
    assert (answer["http"], status["code"], status["description"]) == (200, 1, "ValueError('boom', 1)")
    assert status["exception"]["name"] == "ValueError"
    assert any("boom" in line for line in status["exception"]["stacks"])


def test_a_chain(served, theirs):
    port = served(theirs("exec_a"), theirs("exec_b"), theirs("exec_c"))

    assert texts(post(port, "/tag", [DOC])) == ["xABC"]


def test_two_branches_and_a_join(served, theirs):
    port = served(
        theirs("exec_a", needs="gateway"),
        theirs("exec_b", needs="gateway"),
        theirs("exec_c", needs=["exec_a", "exec_b"]),
    )

    answer = post(port, "/params", [], parameters={"exec_a__k": 1, "exec_b__k": 2})

    assert texts(answer) == ["A", "B", "C"]
    assert {doc["text"]: doc["tags"].get("k") for doc in answer["data"]} == {"A": 1.0, "B": 2.0, "C": None}


def test_when(served, theirs):
    port = served(
        theirs("exec_a", needs="gateway", when={"tags__k": {"$lt": 2}}),
        theirs("exec_b", needs="gateway", when={"tags__k": {"$gte": 2}}),
        theirs("exec_c", needs=["exec_a", "exec_b"]),
    )

    answer = post(port, "/tag", [{"id": str(k), "text": "x", "tags": {"k": k}} for k in (3, 0, 2, 1)])

    assert [(doc["id"], doc["text"]) for doc in answer["data"]] == [
        ("3", "xBC"),
        ("0", "xAC"),
        ("2", "xBC"),
        ("1", "xAC"),
    ]


def test_floating(served, theirs):
    port = served(theirs("exec_a"), theirs("exec_b", floating=True))
    begun = time.monotonic()

    answer = post(port, "/sleep", [DOC], parameters={"t": 0, "exec_b__t": 20})

    assert time.monotonic() - begun < 15
    assert [route["executor"] for route in answer["routes"]] == ["gateway", "exec_a", "exec_b"]


def test_shards_behind_their_head(served, theirs):
    port = served(theirs("exec_s"), listed=False)

    every = post(port, "/search", [DOC])
    some = [post(port, "/any", [DOC])["data"] for _ in range(4)]

    assert sorted(doc["id"] for doc in every["data"]) == ["shard0", "shard1"]
    assert [len(one) for one in some] == [1, 1, 1, 1]
    assert {one[0]["id"] for one in some} == {"shard0", "shard1"}


def test_compression(served, theirs):
    port = served(theirs("exec_a"), compression="gzip")

    assert texts(post(port, "/tag", [DOC] * 3)) == ["xA"] * 3


# The last one: it ends an executor.
def test_no_request_is_lost_when_a_replica_is_killed(served, theirs):
    ports = [theirs.ports["r0"], theirs.ports["r1"]]
    port = served(theirs("r0") | {"name": "exec_r", "port": ports})

    def who(times):
        answers = [post(port, "/who", [DOC]) for _ in range(times)]
        assert [answer["http"] for answer in answers] == [200] * times
        return {answer["data"][0]["tags"]["pid"] for answer in answers}

    deadline = time.monotonic() + 30
    while len(who(10)) < 2:
        assert time.monotonic() < deadline
    theirs.processes["r0"].kill()

    assert len(who(30)) <= 2
    assert len(who(10)) == 1


def test_every_endpoint_that_they_bind_is_exposed(served, theirs):
    port = served(theirs("exec_a"), expose_endpoints="all")

    answer = post(port, "/tag", [DOC], path="/tag")

    assert texts(answer) == ["xA"]
    assert answer["header"]["execEndpoint"] == "/tag"
