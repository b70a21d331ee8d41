"""
Who gets in: identity x what is asked, in every protocol x rules. Every cell is tried, by clients of others.

What is expected is computed here, from the table's three dimensions alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import grpc
import pytest
import pytest_twisted
import requests
import websockets
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from websockets.sync.client import connect

from gatewayd.config.auth import AccessRule, AuthConfig, HookConfig, JwtConfig
from gatewayd.config.openai import OpenAIConfig
from gatewayd.messages import methods, wire
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request, Response
from gatewayd.pb import DataContentProto
from gatewayd.pb.second import SingleDocumentRequestProto as SecondSingle
from tests.access.gateway import Guarded, guarded
from tests.access.tokens import public_pem, token
from tests.golden34_data import endpoints_of
from tests.protocols.fake_streams import Streaming, of_text
from tests.protocols.harness import FakeDispatcher, answer_to, in_thread
from tests.protocols.http.test_streams import answers, out
from tests.protocols.streamed import StreamingDispatcher

reactor: Any = _reactor

LIMIT_S: Final = 10
SERVERS: Final = ("grpcio", "gatewayd")
OK, UNKNOWN, FORBIDDEN, UNDECIDED = "ok", "unknown caller", "forbidden", "undecided"

# -- what is asked ---------------------------------------------------------------------------------------

_HTTP: Final = {200: OK, 404: OK, 401: UNKNOWN, 403: FORBIDDEN, 503: UNDECIDED}
_GRPC: Final = {
    grpc.StatusCode.UNAUTHENTICATED: UNKNOWN,
    grpc.StatusCode.PERMISSION_DENIED: FORBIDDEN,
    grpc.StatusCode.UNAVAILABLE: UNDECIDED,
}
_CLOSED: Final = {(1008, True): FORBIDDEN, (1008, False): UNKNOWN}
_MESSAGE: Final = wire.encode_request(Request("r", "/search"))


@attrs.frozen
class Client:
    """Asks one gateway, with the headers of one identity."""

    gateway: Guarded
    headers: Mapping[str, str]
    channel: grpc.Channel
    session: requests.Session

    def http(self, method: str, path: str, **more: Any) -> str:
        response = self.session.request(
            method, self.gateway.url + path, headers=self.headers, timeout=LIMIT_S, **more
        )
        if response.status_code == 401:
            assert response.headers["WWW-Authenticate"].startswith(("Bearer", "Basic"))
        return _HTTP[response.status_code]

    def grpc(self, call: Callable[..., Any]) -> str:
        metadata = [(name.lower(), value) for name, value in self.headers.items()]
        try:
            call(metadata=metadata, timeout=LIMIT_S)
        except grpc.RpcError as error:
            return _GRPC[error.code()]  # type: ignore[attr-defined]
        return OK

    def unary(self, method: str, message: bytes) -> str:
        return self.grpc(lambda **more: self.channel.unary_unary(method)(message, **more))

    def stream(self) -> str:
        call = self.channel.stream_stream(methods.STREAM)
        return self.grpc(lambda **more: list(call(iter([_MESSAGE]), **more)))

    def server_stream(self, method: str, message: bytes) -> str:
        call = self.channel.unary_stream(method)
        return self.grpc(lambda **more: list(call(message, **more)))

    def reflection(self) -> str:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(self.channel)  # type: ignore[no-untyped-call]
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        return self.grpc(lambda **more: list(stub.ServerReflectionInfo(iter([asked]), **more)))

    def grpc_health(self) -> str:
        stub = health_pb2_grpc.HealthStub(self.channel)  # type: ignore[no-untyped-call]
        return self.grpc(lambda **more: stub.Check(health_pb2.HealthCheckRequest(), **more))

    def graphql(self) -> str:
        """The status of HTTP if it is an error, else that of the only field."""
        query = {"query": '{docs(execEndpoint: "/search") {id}}'}
        url = f"{self.gateway.url}/graphql"
        response = self.session.post(url, json=query, headers=self.headers, timeout=LIMIT_S)
        if response.status_code != 200:
            return _HTTP[response.status_code]
        errors = json.dumps(response.json().get("errors", ""))
        return FORBIDDEN if "may not call" in errors else UNKNOWN if "who calls" in errors else OK

    def subscription(self) -> str:
        """The same for an operation over WebSocket, whose handshake says who calls."""
        query = {"query": 'subscription {doc(execEndpoint: "/search") {id}}'}
        said = [{"type": "connection_init"}, {"id": "1", "type": "subscribe", "payload": query}]
        try:
            with connect(
                f"{self.gateway.ws_url}/graphql",
                subprotocols=["graphql-transport-ws"],  # type: ignore[list-item]
                additional_headers=self.headers,
                open_timeout=LIMIT_S,
                proxy=None,
            ) as connection:
                for message in said:
                    connection.send(json.dumps(message))
                acknowledged, first = (connection.recv(LIMIT_S) for _ in said)
        except websockets.exceptions.InvalidStatus as error:
            return _HTTP[error.response.status_code]
        assert json.loads(acknowledged)["type"] == "connection_ack"
        return FORBIDDEN if "may not call" in str(first) else UNKNOWN if "who calls" in str(first) else OK

    def graphiql(self) -> str:
        headers = {**self.headers, "Accept": "text/html"}
        response = self.session.get(f"{self.gateway.url}/graphql", headers=headers, timeout=LIMIT_S)
        return _HTTP[response.status_code]

    def websocket(self, path: str, message: str | None) -> str:
        try:
            with connect(
                self.gateway.ws_url + path, additional_headers=self.headers, open_timeout=LIMIT_S, proxy=None
            ) as connection:
                if message is not None:
                    connection.send(message)
                connection.recv(LIMIT_S)
        except websockets.exceptions.InvalidStatus as error:
            return _HTTP[error.response.status_code]
        except websockets.exceptions.ConnectionClosed as error:
            return _CLOSED[error.rcvd.code, "may not call" in error.rcvd.reason] if error.rcvd else "lost"
        return OK


@attrs.frozen
class Asked:
    """``name`` is what rules call it; None is for all who are known, and ``open`` for everybody."""

    ask: Callable[[Client], str]
    name: str | None = None
    open: bool = False


_SEARCH: Final = json.dumps({"data": [], "execEndpoint": "/search"})
ASKED: Final[dict[str, Asked]] = {
    "grpc unary": Asked(lambda client: client.unary(methods.SINGLE, _MESSAGE), "/search"),
    "grpc Call": Asked(Client.stream, "/search"),
    "grpc _status": Asked(lambda client: client.unary(methods.STATUS, b""), "/status"),
    "grpc dry_run": Asked(lambda client: client.unary(methods.DRY_RUN, b""), "/dry_run"),
    "grpc reflection": Asked(Client.reflection, "/docs"),
    "grpc health": Asked(Client.grpc_health, open=True),
    "http health": Asked(lambda client: client.http("GET", "/"), open=True),
    "http post": Asked(lambda client: client.http("POST", "/post", data=_SEARCH), "/search"),
    "http search": Asked(lambda client: client.http("POST", "/search", data='{"data": []}'), "/search"),
    "http other": Asked(lambda client: client.http("POST", "/index", data='{"data": []}'), "/index"),
    "http status": Asked(lambda client: client.http("GET", "/status"), "/status"),
    "http dry_run": Asked(lambda client: client.http("GET", "/dry_run"), "/dry_run"),
    "http docs": Asked(lambda client: client.http("GET", "/docs"), "/docs"),
    "http redoc": Asked(lambda client: client.http("GET", "/redoc"), "/docs"),
    "http openapi": Asked(lambda client: client.http("GET", "/openapi.json"), "/docs"),
    "http encoded": Asked(lambda client: client.http("GET", "/%73tatus"), "/status"),
    "http 404": Asked(lambda client: client.http("GET", "/nothing")),
    "http 404 post": Asked(lambda client: client.http("POST", "/nothing", data="x" * 100_000)),
    "graphql": Asked(Client.graphql, "/search"),
    "graphql subscription": Asked(Client.subscription, "/search"),
    "graphiql": Asked(Client.graphiql, "/docs"),
    "websocket": Asked(lambda client: client.websocket("/", _SEARCH), "/search"),
    "websocket dry_run": Asked(lambda client: client.websocket("/dry_run", None), "/dry_run"),
}

_TYPED: Final = {"id": "d", "text": "hi", "num": 3}
_DOCUMENT: Final = SecondSingle()
_DOCUMENT.header.exec_endpoint = "/stream"
_DOCUMENT.document.data["text"].text = "hi"
_STREAMED: Final = wire.encode_request(Request("r", "/stream", documents=out("hi")))
_AS_EVENTS: Final = {"Accept": "text/event-stream"}
_AS_LINES: Final = {"Accept": "application/x-ndjson"}


def _stream_doc(client: Client) -> str:
    return client.server_stream(methods.STREAM_DOC, _DOCUMENT.SerializeToString())


def _streaming_call(client: Client) -> str:
    call = client.channel.stream_stream(methods.STREAM)
    return client.grpc(lambda **more: list(call(iter([_STREAMED]), **more)))


def _post(path: str, accept: Mapping[str, str] = {}, body: Any = _TYPED) -> Callable[[Client], str]:
    return lambda client: attrs.evolve(client, headers={**client.headers, **accept}).http(
        "POST", path, json=body
    )


# Of a Flow of the second generation: typed routes, and what streams.
TYPED: Final[dict[str, Asked]] = {
    "grpc stream_doc": Asked(_stream_doc, "/stream"),
    "grpc Call": Asked(_streaming_call, "/stream"),
    "grpc discovery": Asked(lambda client: client.unary(methods.DISCOVERY, b""), "/docs"),
    "http typed": Asked(_post("/echo", body={"data": [_TYPED]}), "/echo"),
    "http typed post": Asked(_post("/post", body={"data": [_TYPED], "execEndpoint": "/echo"}), "/echo"),
    "http openapi": Asked(lambda client: client.http("GET", "/openapi.json"), "/docs"),
    "http events": Asked(lambda client: client.http("GET", "/stream", json=_TYPED), "/stream"),
    "http events of a query": Asked(lambda client: client.http("GET", "/stream?text=hi"), "/stream"),
    "http events by post": Asked(_post("/stream", _AS_EVENTS), "/stream"),
    "http lines": Asked(_post("/stream", _AS_LINES), "/stream"),
    "http typed 404": Asked(_post("/nothing")),
    "websocket typed": Asked(
        lambda client: client.websocket("/", json.dumps({"data": [_TYPED], "execEndpoint": "/echo"})), "/echo"
    ),
    "websocket stream": Asked(
        lambda client: client.websocket("/", json.dumps({"data": [_TYPED], "execEndpoint": "/stream"})),
        "/stream",
    ),
}

_CHAT: Final = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
_EMBED: Final = {"model": "m", "input": "hello"}
# Of a Flow with `openai`. Models are told to all who are known.
OPENAI: Final[dict[str, Asked]] = {
    "chat, whole": Asked(_post("/v1/chat/completions", body=_CHAT), "/chat"),
    "chat, streamed": Asked(_post("/v1/chat/completions", body={**_CHAT, "stream": True}), "/chat"),
    "embeddings": Asked(_post("/v1/embeddings", body=_EMBED), "/embed"),
    "models": Asked(lambda client: client.http("GET", "/v1/models")),
    "a model": Asked(lambda client: client.http("GET", "/v1/models/m")),
}

# -- who asks --------------------------------------------------------------------------------------------

KEY_A, KEY_B = "key-of-team-a", "key-of-team-b"
BAD = "wrong"  # an identity that is refused wherever it is looked at


def identities() -> dict[str, tuple[dict[str, str], str | None]]:
    """Headers, and the name that they stand for: None for a stranger, BAD for a wrong credential."""
    now = int(time.time())
    return {
        "none": ({}, None),
        "wrong key": ({"X-API-Key": "guessed"}, BAD),
        "empty key": ({"X-API-Key": ""}, BAD),
        "key a": ({"X-API-Key": KEY_A}, "team-a"),
        "key b": ({"X-API-Key": KEY_B}, "team-b"),
        "key a as bearer": ({"Authorization": f"Bearer {KEY_A}"}, "team-a"),
        "token": ({"Authorization": f"Bearer {token(aud='gw')}"}, "team-b"),
        "expired token": ({"Authorization": f"bearer {token(aud='gw', exp=now - 5)}"}, BAD),
        "token of others": ({"Authorization": f"Bearer {token(aud='them')}"}, BAD),
        "forged token": ({"Authorization": f"Bearer {token('other rsa', aud='gw')}"}, BAD),
        "password": ({"Authorization": "Basic YTpi"}, None),
        "wrong key, good token": ({"X-API-Key": "x", "Authorization": f"Bearer {token(aud='gw')}"}, BAD),
    }


RULES: Final[dict[str, tuple[AccessRule, ...] | None]] = {
    "no rules": None,
    "nothing": (),
    "search for a": (AccessRule(("/search",), ("team-a",)),),
    "all for a, search for all": (AccessRule(("/search",), ("*",)), AccessRule(("/*",), ("team-a",))),
    "search for strangers": (
        AccessRule(("/search",), ("anonymous",)),
        AccessRule(("/docs", "/status"), ("*",)),
    ),
    "docs for strangers, search by token": (
        AccessRule(("/docs",), ("anonymous",)),
        AccessRule(("/search",), ("token:team-b",)),
    ),
}


def expected(asked: Asked, name: str | None, means: str, rules: tuple[AccessRule, ...] | None) -> str:
    """One cell."""
    if asked.open:
        return OK
    if name == BAD:
        return UNKNOWN
    allowed: set[str] = set()
    if asked.name is None or rules is None:
        allowed = {"*"}
    else:
        for rule in rules:
            if any(
                asked.name == each or (each == "/*" and asked.name.startswith("/")) for each in rule.endpoints
            ):
                allowed = set(rule.allow)
                break
    if "anonymous" in allowed:
        return OK
    if name is None:
        return UNKNOWN
    return OK if allowed & {"*", name, f"{means}:{name}"} else FORBIDDEN


def tried(
    gateway: Guarded, shown: Mapping[str, Mapping[str, str]], asked_for: Mapping[str, Asked] = ASKED
) -> dict[tuple[str, str], str]:
    """Every cell of one table, by identity and by what is asked. Blocks."""
    found = {}
    with gateway.channel() as channel, requests.Session() as session:
        session.trust_env = False
        for identity, headers in shown.items():
            client = Client(gateway, headers, channel, session)
            for name, asked in asked_for.items():
                found[identity, name] = asked.ask(client)
    return found


def differing(found: Mapping[Any, str], wanted: Mapping[Any, str]) -> dict[Any, tuple[str, str]]:
    return {cell: (got, wanted[cell]) for cell, got in found.items() if got != wanted[cell]}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("rules", RULES)
@pytest_twisted.ensureDeferred
async def test_keys_and_tokens(rules: str, server: Literal["grpcio", "gatewayd"], tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(public_pem("rsa"))
    (tmp_path / "keys").write_text(f"team-b:sha256:{hashlib.sha256(KEY_B.encode()).hexdigest()}\n")
    auth = AuthConfig(
        api_keys={"team-a": (hashlib.sha256(KEY_A.encode()).hexdigest(),)},
        api_keys_file=str(tmp_path / "keys"),
        jwt=JwtConfig(str(tmp_path / "key.pem"), algorithms=("RS256",), audience=("gw",)),
        rules=RULES[rules],
    )
    who = identities()
    async with guarded(auth, grpc_server=server) as gateway:
        found = await in_thread(tried, gateway, {name: headers for name, (headers, _) in who.items()})
        let_through = {(request.endpoint, request.caller.name) for request in gateway.engine.requests}

    wanted = {
        (identity, name): expected(asked, caller, "token" if identity == "token" else "key", RULES[rules])
        for identity, (_, caller) in who.items()
        for name, asked in ASKED.items()
    }
    assert len(found) == len(who) * len(ASKED)
    assert differing(found, wanted) == {}
    # What was refused has not reached the engine.
    names = {
        (asked.name, who[identity][1])
        for (identity, name), result in wanted.items()
        if result is OK and (asked := ASKED[name]).name in ("/search", "/index")
    }
    assert let_through == names


STREAM_RULES: Final[dict[str, tuple[AccessRule, ...] | None]] = {
    "no rules": None,
    "nothing": (),
    "streams for a": (AccessRule(("/stream", "/chat"), ("team-a",)),),
    "echo and embed for all, streams by token": (
        AccessRule(("/echo", "/embed"), ("*",)),
        AccessRule(("/stream", "/chat"), ("token:team-b",)),
    ),
    "streams for strangers": (
        AccessRule(("/stream", "/chat"), ("anonymous",)),
        AccessRule(("/docs",), ("team-a",)),
    ),
}


def typed_engine() -> FakeDispatcher:
    def whole(request: Request) -> Response:
        return attrs.evolve(answer_to(request), documents=out("hi"))

    return StreamingDispatcher(whole, endpoints=endpoints_of("A", "S"), streamed=answers("a", "b"))


def openai_engine() -> FakeDispatcher:
    def embedding(request: Request) -> Response:
        content = DataContentProto()
        made = content.docs.docs.add().embedding
        made.cls_name = "numpy"
        made.dense.dtype, made.dense.buffer = "|u1", b"hi"
        made.dense.shape.append(2)
        return Response(request.request_id, request.endpoint, content.SerializeToString())

    return Streaming(embedding, speech=lambda request: [of_text(request, "hi"), None])


FLOWS: Final[dict[str, tuple[Callable[[], FakeDispatcher], Mapping[str, Asked], dict[str, Any]]]] = {
    "typed": (typed_engine, TYPED, {"docarray": Generation.SECOND}),
    "openai": (openai_engine, OPENAI, {"openai": OpenAIConfig("/chat", "/embed", models=("m",))}),
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("rules", STREAM_RULES)
@pytest_twisted.ensureDeferred
async def test_typed_routes_and_streams(
    rules: str, server: Literal["grpcio", "gatewayd"], flow: str, tmp_path: Path
) -> None:
    engine, asked_for, settings = FLOWS[flow]
    (tmp_path / "key.pem").write_bytes(public_pem("rsa"))
    auth = AuthConfig(
        api_keys={
            "team-a": (hashlib.sha256(KEY_A.encode()).hexdigest(),),
            "team-b": (hashlib.sha256(KEY_B.encode()).hexdigest(),),
        },
        jwt=JwtConfig(str(tmp_path / "key.pem"), algorithms=("RS256",), audience=("gw",)),
        rules=STREAM_RULES[rules],
    )
    who = identities()
    async with guarded(auth, engine=engine(), grpc_server=server, **settings) as gateway:
        shown = {name: headers for name, (headers, _) in who.items()}
        found = await in_thread(tried, gateway, shown, asked_for)
        let_through = {(request.endpoint, request.caller.name) for request in gateway.engine.requests}

    wanted = {
        (identity, name): expected(
            asked, caller, "token" if identity == "token" else "key", STREAM_RULES[rules]
        )
        for identity, (_, caller) in who.items()
        for name, asked in asked_for.items()
    }
    assert len(found) == len(who) * len(asked_for)
    assert differing(found, wanted) == {}
    names = {
        (asked.name, who[identity][1])
        for (identity, name), result in wanted.items()
        if result is OK and (asked := asked_for[name]).name not in (None, "/docs")
    }
    assert let_through == names


# -- the hook --------------------------------------------------------------------------------------------


class Judge(Resource):
    """The server of the user's: says yes, no, who-are-you, nothing at all, or nonsense."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked: list[dict[str, str]] = []

    def render(self, request: Any) -> Any:
        headers = {
            name.decode().lower(): values[0].decode()
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        self.asked.append({**headers, "path": request.uri.decode(), "method": request.method.decode()})
        word = headers.get("authorization", "nothing").rpartition(" ")[2]
        if word == "slow":
            return NOT_DONE_YET
        request.setResponseCode(
            {"yes": 204, "named": 200, "no": 403, "who": 401, "nothing": 401}.get(word, 500)
        )
        if word == "named":
            request.setHeader(b"X-Identity", b"team-a")
        if word == "who":
            request.setHeader(b"WWW-Authenticate", b'Basic realm="ours"')
        return b"an answer's body"


@contextlib.asynccontextmanager
async def judging() -> Any:
    judge = Judge()
    port = reactor.listenTCP(0, Site(judge), interface="127.0.0.1")
    try:
        yield judge, f"http://127.0.0.1:{port.getHost().port}/auth"
    finally:
        stopped: Deferred[None] | None = port.stopListening()
        if stopped is not None:
            await stopped


HOOK_RULES: Final = (AccessRule(("/search",), ("hook:team-a",)), AccessRule(("/*",), ("*",)))


@pytest.mark.parametrize("server", SERVERS)
@pytest_twisted.ensureDeferred
async def test_the_hook(server: Literal["grpcio", "gatewayd"]) -> None:
    who: dict[str, tuple[dict[str, str], str | None]] = {
        word: ({"Authorization": f"Digest {word}"} if word else {}, result)
        for word, result in {
            "": UNKNOWN,
            "who": UNKNOWN,
            "no": FORBIDDEN,
            "yes": None,
            "named": None,
            "slow": UNDECIDED,
            "broken": UNDECIDED,
        }.items()
    }
    async with judging() as (judge, url):
        auth = AuthConfig(hook=HookConfig(url, timeout_s=0.4, cache_s=60), rules=HOOK_RULES)
        async with guarded(auth, grpc_server=server) as gateway:
            found = await in_thread(tried, gateway, {word: headers for word, (headers, _) in who.items()})
    wanted = {
        (word, name): OK
        if asked.open
        else result or expected(asked, "team-a" if word == "named" else "hook", "hook", HOOK_RULES)
        for word, (_, result) in who.items()
        for name, asked in ASKED.items()
    }
    assert differing(found, wanted) == {}
    one = next(each for each in judge.asked if each["x-original-uri"] == "/nothing")
    assert {
        name: one[name] for name in ("x-original-method", "x-original-protocol", "x-real-ip", "method")
    } == {
        "x-original-method": "GET",
        "x-original-protocol": "http",
        "x-real-ip": "127.0.0.1",
        "method": "GET",
    }
    assert {each["x-original-protocol"] for each in judge.asked} == {"http", "websocket", "grpc"}
