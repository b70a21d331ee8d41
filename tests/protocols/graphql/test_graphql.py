"""/graphql: the recorded answers, limits, what runs at once, and what a client that leaves cancels."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import pytest
import pytest_twisted
from graphql import parse
from twisted.internet.defer import Deferred

from gatewayd.errors import ExecutorUnreachable
from gatewayd.messages.request import Request, Response
from gatewayd.messages.structs import read_struct
from gatewayd.pb import DataContentProto, StatusProto, Struct
from gatewayd.protocols.graphql.limits import QueryLimits, check_size
from gatewayd.protocols.graphql.resource import Queries
from tests.golden_replay.speaking import load
from tests.paths import ROOT
from tests.processes import Gateway
from tests.protocols.harness import FakeDispatcher, Served, answer_to, in_thread, served, until

pytestmark = pytest.mark.slow

GOLDEN = load("graphql.json")
REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}

TOKENS = "has more than 200 tokens, or comments (gateway.graphql_max_tokens)"
LIMITS = QueryLimits(query_bytes=256 * 1024, tokens=5000, depth=32, fields=1000, root_fields=50)

# What is answered otherwise than it was recorded, on purpose (spec graphql.md, Reference bugs to avoid).
BETTER: dict[str, Any] = {
    "no data argument": {"data": {"docs": [{"id": "nA"}]}},
    "tags in as a JSON string": {"data": {"docs": [{"id": "d0", "tags": {"a": 1.0}}]}},
    "tensor/blob/scores/chunks in": {
        "data": {
            "docs": [
                {
                    "id": "d0", "embedding": [1.0, 2.0], "blob": None, "tensor": None,
                    "chunks": [{"id": "c0", "text": "c", "parentId": "d0"}],
                    "scores": [{"name": "s", "score": {"value": 0.5}}],
                },
                {"id": "d1", "embedding": None, "blob": "AAH+/w==", "tensor": None, "chunks": None,
                 "scores": None},
                {"id": "d2", "embedding": None, "blob": None, "tensor": [[1, 2], [3, 4]], "chunks": None,
                 "scores": None},
            ]
        }
    },
    "targetExecutor": {
        "data": {"docs": [{"id": "d0", "text": "x"}]},
        "extensions": {
            "hints": ["no executor has a name that target_executor 'zzz' matches; they are 'exec_a'"]
        },
    },
    "tags in as literal object": {"data": {"docs": [{"id": "d0", "tags": {"a": 1.0}}]}},
    "tags in by variable (object)": {"data": {"docs": [{"id": "d0", "tags": {"a": 2.0}}]}},
}  # fmt: skip


def ask(port: int, body: Any = None, query: str = "", **headers: str) -> tuple[int, str, Any]:
    """Status, content type and (parsed) body of one exchange."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    url = f"http://127.0.0.1:{port}/graphql{query}"
    request = urllib.request.Request(
        url, data, {"content-type": "application/json", **headers} if data else headers
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            status, kind, text = answer.status, answer.headers["content-type"], answer.read()
    except urllib.error.HTTPError as error:
        status, kind, text = error.code, error.headers["content-type"], error.read()
    return status, kind, json.loads(text) if kind == "application/json" else text.decode()


@pytest.fixture(scope="module")
def recorded_flow() -> Iterator[Gateway]:
    gateway = Gateway({"gateway": {"expose_graphql_endpoint": True}, "executors": [REC]})
    yield gateway
    assert gateway.stop() == 0


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_a_recorded_exchange_goes_as_recorded(recorded_flow: Gateway, case: dict[str, Any]) -> None:
    asked, recorded = case["request"], case["response"]
    port = recorded_flow.ports["http"]
    if asked["method"] == "GET":
        query = "?" + urllib.parse.urlencode({"query": asked["query"]}) if asked["query"] else ""
        html = "html" in case["name"]
        status, kind, body = ask(port, query=query, accept="text/html" if html else "*/*")
    elif "raw" in asked:
        status, kind, body = ask(port, asked["raw"].encode())
    else:
        status, kind, body = ask(port, {"query": asked["query"], "variables": asked["variables"]})

    assert (status, kind) == (recorded["status"], recorded["content_type"])
    if case["name"] == "GET html":
        assert "GraphiQL" in body
    elif case["name"] == "blob in":
        (document,) = body["data"]["docs"]
        assert document["mimeType"].endswith(r"blob b'\x00\x01\xfe\xff'")
    elif case["name"] == "executor raises":
        (error,) = body["errors"]
        assert body["data"] == recorded["body"]["data"]
        assert error["path"] == ["docs"]
        assert "boom" in error["message"]
        assert error["extensions"] == {"executor": "Rec", "exception": "ValueError"}
    else:
        assert body == BETTER.get(case["name"], recorded["body"])


def test_the_schema_is_the_recorded_one(recorded_flow: Gateway) -> None:
    kinds = "kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } }"
    query = (
        "{ __schema { queryType { name } mutationType { name } types { kind name description "
        f"fields {{ name args {{ name defaultValue type {{ {kinds} }} }} type {{ {kinds} }} }} "
        f"inputFields {{ name defaultValue type {{ {kinds} }} }} interfaces {{ name }} }} }} }}"
    )
    _, _, body = ask(recorded_flow.ports["http"], {"query": query})
    found = body["data"]["__schema"]

    assert found["queryType"] == GOLDEN["introspection"]["queryType"]
    assert found["mutationType"] == GOLDEN["introspection"]["mutationType"]
    types = {one["name"]: one for one in found["types"] if not one["name"].startswith("__")}
    recorded = {one["name"]: one for one in GOLDEN["introspection"]["types"] if one["name"][:2] != "__"}
    del types["Subscription"]  # which the reference does not have
    assert sorted(types) == sorted(recorded)
    for name, one in recorded.items():
        assert part_of(one, types[name]), f"{name}\nrecorded {one}\nfound {types[name]}"


def part_of(recorded: Any, found: Any) -> bool:
    """Whether ``found`` is what was recorded, which does not show types in full."""
    if isinstance(recorded, dict):
        return isinstance(found, dict) and all(part_of(value, found[key]) for key, value in recorded.items())
    if isinstance(recorded, list):
        return len(recorded) == len(found) and all(map(part_of, recorded, found))
    return found is not None if recorded == "<free text>" else bool(recorded == found)


def test_an_unreachable_executor_is_an_error_without_data() -> None:
    gone = {"name": "exec_x", "external": True, "host": "127.0.0.1", "port": 1}
    gateway = Gateway(
        {"gateway": {"expose_graphql_endpoint": True, "retries": 0}, "executors": [gone]}, protocols=["http"]
    )
    try:
        status, _, body = ask(gateway.ports["http"], {"query": "{ docs { id } }"})
    finally:
        gateway.stop()

    assert status == 200
    assert body["data"] is None
    assert body["errors"][0]["path"] == ["docs"]
    assert "Communication error with deployment exec_x" in body["errors"][0]["message"]


# -- with a dispatcher that the test commands ---------------------------------------------------------


@contextlib.asynccontextmanager
async def serving(dispatcher: FakeDispatcher, **settings: Any) -> AsyncIterator[Served]:
    async with served(("http",), dispatcher, expose_graphql_endpoint=True, **settings) as gateway:
        yield gateway


def query(text: str, **more: Any) -> dict[str, Any]:
    return {"query": text, **more}


@pytest_twisted.ensureDeferred
async def test_fields_of_a_query_run_at_once() -> None:
    dispatcher = FakeDispatcher(held=True)
    async with serving(dispatcher) as gateway:
        text = '{ a: docs(execEndpoint: "/a") { id } b: docs(execEndpoint: "/b") { id } }'
        answer = in_thread(ask, gateway.port, query(text), **{"x-request-id": "r"})
        await until(lambda: len(dispatcher.waiting) == 2)
        assert {one.request_id: one.endpoint for one in dispatcher.requests} == {"r": "/a", "r.2": "/b"}
        dispatcher.settle("r.2")
        dispatcher.settle("r")
        assert (await answer)[2] == {"data": {"a": [], "b": []}}


@pytest_twisted.ensureDeferred
async def test_fields_of_a_mutation_run_one_after_the_other() -> None:
    dispatcher = FakeDispatcher(held=True)
    async with serving(dispatcher) as gateway:
        text = 'mutation { a: docs(execEndpoint: "/a") { id } b: docs(execEndpoint: "/b") { id } }'
        answer = in_thread(ask, gateway.port, query(text), **{"x-request-id": "r"})
        await until(lambda: "r" in dispatcher.waiting)
        assert [one.endpoint for one in dispatcher.requests] == ["/a"]
        dispatcher.settle("r")
        await until(lambda: "r.2" in dispatcher.waiting)
        dispatcher.settle("r.2")
        assert (await answer)[2] == {"data": {"a": [], "b": []}}


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_cancels_every_field() -> None:
    dispatcher = FakeDispatcher(held=True)
    async with serving(dispatcher) as gateway:
        body = json.dumps(query("{ a: docs { id } b: docs { id } }")).encode()
        client = socket.create_connection(("127.0.0.1", gateway.port))
        client.sendall(b"POST /graphql HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\n")
        client.sendall(b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await until(lambda: len(dispatcher.waiting) == 2)
        client.close()
        await until(lambda: sorted(dispatcher.cancelled) == ["r", "r.2"])


@pytest_twisted.ensureDeferred
async def test_a_field_that_fails_cancels_the_others() -> None:
    waiting: Deferred[Response] = Deferred()

    def behave(request: Request) -> Any:
        if request.endpoint == "/a":
            raise ExecutorUnreachable("exec_x", ["127.0.0.1:1"], "refused")
        return waiting

    async with serving(FakeDispatcher(behave)) as gateway:
        text = '{ a: docs(execEndpoint: "/a") { id } b: docs(execEndpoint: "/b") { id } }'
        _, _, body = await in_thread(ask, gateway.port, query(text))
        assert body["data"] is None
        assert body["errors"][0]["path"] == ["a"]
        await until(lambda: waiting.called)


@pytest_twisted.ensureDeferred
async def test_an_executors_failure_leaves_the_data_of_its_field_and_of_others() -> None:
    failed = StatusProto(code=StatusProto.ERROR, description="ValueError('boom')")

    def behave(request: Request) -> Response:
        response = answer_to(request)
        if request.endpoint == "/a":
            return Response(response.request_id, "/a", response.documents, status=failed.SerializeToString())
        return response

    async with serving(FakeDispatcher(behave)) as gateway:
        text = (
            '{ a: docs(execEndpoint: "/a", data: [{id: "x"}]) { id } b: docs(data: [{id: "y"}]) { text id } }'
        )
        _, _, body = await in_thread(ask, gateway.port, query(text))
        assert body["data"] == {"a": [{"id": "x"}], "b": [{"text": None, "id": "y"}]}
        assert [(error["message"], error["path"]) for error in body["errors"]] == [
            ("ValueError('boom')", ["a"])
        ]


OBJECT = {"s": "x", "n": 1.5, "o": {"list": [1.0, None, True, {}]}}
LITERAL = '{s: "x", n: 1.5, o: {list: [1, null, true, {}]}}'


@pytest.mark.parametrize(
    ("tags", "parameters", "variables"),
    [
        ("$t", "$p", {"t": OBJECT, "p": OBJECT}),
        ("$t", "$p", {"t": json.dumps(OBJECT), "p": json.dumps(OBJECT)}),
        (LITERAL, LITERAL, {}),
        ("{s: $s, n: 1.5, o: $o}", "{s: $s, n: 1.5, o: $o}", {"s": "x", "o": OBJECT["o"]}),
        ("{s: $s, u: $u, n: 1.5, o: $o}", "$p", {"s": "x", "o": OBJECT["o"], "p": OBJECT}),
    ],
    ids=["objects", "texts", "literals", "variables in literals", "one without a value"],
)
@pytest_twisted.ensureDeferred
async def test_tags_and_parameters_are_objects_or_texts_that_hold_them(
    tags: str, parameters: str, variables: dict[str, Any]
) -> None:
    dispatcher = FakeDispatcher()
    async with serving(dispatcher) as gateway:
        types = {name: "String" if name == "s" else "JSONScalar" for name in "soptu"}
        used = [f"${name}: {kind}" for name, kind in types.items() if f"${name}" in tags + parameters]
        text = f"query ({' '.join(used)})" if used else "query"
        text += f"{{ docs(data: [{{tags: {tags}}}], parameters: {parameters}) {{ tags }} }}"
        _, _, body = await in_thread(ask, gateway.port, query(text, variables=variables))
        assert body == {"data": {"docs": [{"tags": OBJECT}]}}
        assert read_struct(Struct.FromString(dispatcher.requests[0].parameters)) == OBJECT


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[1]", "parameters: value is not a valid dict"),
        ("5", "parameters: value is not a valid dict"),
        ('"not json"', "JSONScalar"),
        ("{a: $missing}", "$missing"),
        ("{a: 1" + "0" * 400 + "}", "JSONScalar"),
        ("{a: " * 60 + "1" + "}" * 60, "nested too deeply"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_parameters_that_are_no_object_are_refused(value: str, words: str) -> None:
    dispatcher = FakeDispatcher()
    async with serving(dispatcher) as gateway:
        text = f"{{ docs(parameters: {value}) {{ id }} }}"
        status, _, body = await in_thread(ask, gateway.port, query(text))
        assert (status, body["data"]) == (200, None)
        assert words in body["errors"][0]["message"]
        assert not dispatcher.requests


@pytest_twisted.ensureDeferred
async def test_a_bug_is_logged_and_not_shown(caught_failures: list[Any]) -> None:
    def behave(request: Request) -> Response:
        raise ZeroDivisionError("secret")

    async with serving(FakeDispatcher(behave)) as gateway:
        _, _, body = await in_thread(ask, gateway.port, query("{ docs { id } }"), **{"x-request-id": "r7"})
        assert body["errors"][0]["message"] == "internal error; the log has it as request r7"
        await until(lambda: caught_failures)
        assert caught_failures.pop().check(ZeroDivisionError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{ docs { id " + "#" * 2000 + "\n} }", "larger than 1000 bytes (gateway.graphql_max_query_bytes)"),
        ("{ docs { " + "id " * 197 + "} }", TOKENS),
        ("{ docs { id } }" + "#\n" * 201, TOKENS),
        ("{ docs { " + "id " * 60 + "} }", "has 61 fields; the limit is 50 (gateway.graphql_max_fields)"),
        ("{ docs " + "{ chunks " * 9 + "{ id" + " }" * 11, "has 11 levels of fields; the limit is 10"),
        (
            "{" + " ".join(f"a{n}: docs {{ id }}" for n in range(4)) + "}",
            "has 4 fields at its root; the limit",
        ),
        (
            "{ docs { ...a } } fragment a on StrawberryDocument { ...b ...b ...b ...b ...b } "
            "fragment b on StrawberryDocument { ...c ...c ...c ...c } "
            "fragment c on StrawberryDocument { id text uri }",
            "has 61 fields",
        ),
        ("{ docs " + "{ chunks" * 90, "Syntax Error"),
    ],
    ids=["bytes", "tokens", "comments", "fields", "depth", "roots", "fragments", "unclosed"],
)
@pytest_twisted.ensureDeferred
async def test_too_large_queries_are_refused_by_name(text: str, words: str) -> None:
    limits = {"query_bytes": 1000, "tokens": 200, "depth": 10, "fields": 50, "root_fields": 3}
    settings = {f"graphql_max_{name}": limit for name, limit in limits.items()}
    dispatcher = FakeDispatcher()
    async with serving(dispatcher, **settings) as gateway:
        status, _, body = await in_thread(ask, gateway.port, query(text))
        assert status == 200
        assert body["data"] is None
        assert words in body["errors"][0]["message"]
        assert not dispatcher.requests


SAME = "chunks { id } "


@pytest.mark.parametrize(
    "text",
    [
        "{ docs { " + "id " * 120 + "} }",
        "{ docs { " + SAME * 99 + "...a } } fragment a on StrawberryDocument { " + SAME * 20 + "}",
        "{ docs { " + "chunks { " + "text " * 60 + "} ... { chunks { " + "text " * 60 + "} } } }",
        "{ docs { id } }" + "".join(f" fragment f{n} on StrawberryDocument {{ id }}" for n in range(120)),
        "".join(f" query q{n} {{ docs {{ ...f }} }}" for n in range(30))
        + " fragment f on StrawberryDocument { "
        + "id " * 20
        + "}",
    ],
    ids=["fields", "over a fragment", "merged", "fragments", "operations"],
)
def test_what_validation_would_compare_too_often_is_refused(text: str) -> None:
    (error,) = check_size(parse(text), LIMITS)
    assert "make more than 5000 pairs" in error.message


@pytest.mark.parametrize(
    "text",
    [
        "{ docs { " + " ".join(f"a{n}: id" for n in range(900)) + "} }",
        "{ docs { " + SAME * 60 + "} }",
        "{" + " ".join(f"a{n}: docs {{ id text tags chunks {{ id }} }}" for n in range(50)) + "}",
        "{ docs { ...a ...a ...b } } fragment a on StrawberryDocument { ...b } "
        "fragment b on StrawberryDocument { ...a id }",
        "{ docs { ...a } } fragment a on StrawberryDocument { chunks { ...a } b: chunks { ...a } }",
    ],
    ids=["aliases", "some of the same", "requests", "fragments that use each other", "itself, twice"],
)
def test_what_validation_compares_in_milliseconds_is_not_refused(text: str) -> None:
    assert not check_size(parse(text), LIMITS)


def test_many_ways_through_fragments_that_use_each_other_are_not_all_taken() -> None:
    spreads = " ".join(f"a{n}: chunks {{ ...f{n} }}" for n in range(12))
    fragments = "".join(f" fragment f{n} on StrawberryDocument {{ {spreads} }}" for n in range(12))
    document = parse("{ docs { ...f0 } }" + fragments)
    assert check_size(document, LIMITS)
    unlimited = QueryLimits(query_bytes=1 << 20, tokens=5000, depth=10_000, fields=1 << 60, root_fields=50)
    (error,) = check_size(document, unlimited)
    assert "uses fragments" in error.message


def test_the_queries_that_are_kept_are_bounded_together() -> None:
    queries = Queries(LIMITS)
    for number in range(1000):
        assert not isinstance(queries.prepared(f"{{ docs {{ a{number}: id {' ' * 500} }} }}"), list)
        assert isinstance(queries.prepared(f"{{ docs {{ nothing{number} }} }}"), list)
    assert sum(map(len, queries._known)) == queries._known_length
    assert 60_000 < queries._known_length <= 64 * 1024
    assert queries.prepared(last := next(reversed(queries._known))) is queries._known[last]


ANSWERS = DataContentProto()
for name in ("a", "b", "c"):
    ANSWERS.docs.docs.add(id=name, text="x" * 1000).tags.fields["k"].string_value = "y" * 1000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{ docs { id text tags } }", ""),
        (
            "{ docs { " + " ".join(f"a{n}: id" for n in range(40)) + " } }",
            "more than 100 fields (gateway.gra",
        ),
        (
            "{" + " ".join(f"a{n}: docs {{ id }}" for n in range(40)) + "}",
            "more than 100 fields (gateway.gra",
        ),
        ("{ docs { a: text b: text c: text d: text } }", "more than 10000 bytes (gateway.max_unsent_bytes)"),
        ("{ docs { a: tags b: tags c: tags d: tags } }", "more than 10000 bytes (gateway.max_unsent_bytes)"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_is_bounded_while_it_is_put_together(text: str, words: str) -> None:
    def behaviour(request: Request) -> Response:
        return attrs.evolve(answer_to(request), documents=ANSWERS.SerializeToString())

    async with serving(FakeDispatcher(behaviour), graphql_max_values=100, max_unsent_bytes=10_000) as gateway:
        status, _, body = await in_thread(ask, gateway.port, query(text))
        assert status == 200
        if words:
            assert body["data"] is None
            assert words in body["errors"][0]["message"]
            assert len(body["errors"]) == 1
        else:
            assert body["data"]["docs"][2]["tags"] == {"k": "y" * 1000}
        # The next query is served.
        assert (await in_thread(ask, gateway.port, query("{ docs { id } }")))[2]["data"]["docs"][0][
            "id"
        ] == "a"
        assert gateway.buffers.held_bytes == 0


@pytest.mark.parametrize("text", ["{" * 100_000, "{ docs(data: " + "[" * 100_000, "{ a" * 30_000])
@pytest_twisted.ensureDeferred
async def test_a_query_nested_without_end_is_an_error_and_no_crash(text: str) -> None:
    async with serving(FakeDispatcher(), graphql_max_query_bytes=1 << 20) as gateway:
        status, _, body = await in_thread(ask, gateway.port, query(text))
        assert status == 200
        assert body["errors"]


def test_a_fragment_that_uses_itself_is_measured_and_left_to_validation() -> None:
    document = parse("{ docs { ...a } } fragment a on StrawberryDocument { id ...a }")

    assert not check_size(document, LIMITS)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "Unable to parse request body as JSON"),
        (b"\xff", "Unable to parse request body as JSON"),
        ({"query": 1}, "No GraphQL query found in the request"),
        ({"query": "{ docs { id } }", "variables": [1]}, "variables must be an object"),
        ({"query": "{ docs { id } }", "operationName": 1}, "operationName must be a text"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_no_question_is_400_with_the_reason(body: Any, words: str) -> None:
    async with serving(FakeDispatcher()) as gateway:
        assert await in_thread(ask, gateway.port, body) == (400, "text/plain; charset=utf-8", words)


@pytest_twisted.ensureDeferred
async def test_get_takes_variables_and_the_name_of_an_operation() -> None:
    dispatcher = FakeDispatcher()
    text = "query a($t: String) { docs(data: [{text: $t}]) { text } } query b { docs { id } }"
    asked = {"query": text, "variables": '{"t": "hi"}', "operationName": "a"}
    async with serving(dispatcher) as gateway:
        _, _, body = await in_thread(ask, gateway.port, query="?" + urllib.parse.urlencode(asked))
        assert body == {"data": {"docs": [{"text": "hi"}]}}


@pytest_twisted.ensureDeferred
async def test_an_operation_that_is_not_there_is_an_error() -> None:
    async with serving(FakeDispatcher()) as gateway:
        _, _, body = await in_thread(ask, gateway.port, query("query a { docs { id } }", operationName="b"))
        assert body["errors"][0]["message"] == "Unknown operation named 'b'."


@pytest_twisted.ensureDeferred
async def test_it_is_not_there_unless_it_is_switched_on() -> None:
    async with served(("http",)) as gateway:
        assert (await in_thread(ask, gateway.port, {"query": "{ docs { id } }"}))[0] == 404


WITH_DATA = "query($data: [StrawberryDocumentInput!]) { docs(data: $data) { id } }"


@pytest.mark.parametrize(
    "body",
    [
        query(WITH_DATA, variables={"data": [{}, {}, {}]}),
        query(WITH_DATA, variables={"data": [{"chunks": [{}, {}]}]}),
        query(WITH_DATA, variables={"data": [{"scores": [{"name": "a", "score": {}}] * 3}]}),
        query("{ docs(data: [{}, {}, {}]) { id } }"),
        query("{ a: docs(data: [{}, {}]) { id } b: docs(data: [{}]) { id } }"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_more_documents_than_allowed_are_refused(body: Any) -> None:
    async with serving(FakeDispatcher(), max_documents=2) as gateway:
        _, _, answer = await in_thread(ask, gateway.port, body)
        assert answer["data"] is None
        assert "more than 2 documents" in answer["errors"][0]["message"]


@pytest_twisted.ensureDeferred
async def test_values_of_any_kind_are_no_documents() -> None:
    body = query(WITH_DATA, variables={"data": [{"tags": {"a": [{}] * 9}, "tensor": [[1.0]] * 9}]})
    async with serving(FakeDispatcher(), max_documents=2) as gateway:
        _, _, answer = await in_thread(ask, gateway.port, body)
        assert len(answer["data"]["docs"]) == 1
