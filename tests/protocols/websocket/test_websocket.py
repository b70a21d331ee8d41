"""WebSocket over real sockets with the websockets client: the golden conversations, and faults."""

import asyncio
import http.client
import json
import re
import socket
import threading

import attrs
import pytest
import pytest_twisted
import websockets
from twisted.internet.defer import Deferred

from gatewayd.errors import DeadlineExceeded, ExecutorUnreachable, Overloaded
from gatewayd.messages import wire
from gatewayd.messages.request import Request
from gatewayd.pb import DataContentProto, StatusProto
from gatewayd.protocols.websocket.errors import truncated
from tests.paths import GOLDEN
from tests.protocols.harness import (
    FakeDispatcher,
    answer_to,
    asyncio_client,
    in_thread,
    reactor,
    served,
    until,
)

RECORDED = json.loads((GOLDEN / "websocket.json").read_text())
CONVERSATIONS = {c["name"]: c for c in RECORDED["conversations"]}
DOWN = ExecutorUnreachable(
    "exec_x", ["127.0.0.1:1"], "failed to connect to all addresses; last error: refused"
)
LATE = DeadlineExceeded("exec_a", ["127.0.0.1:1"])

# Where the reference drops the connection, or says nothing, we close with a code (spec websocket.md).
MENDED = {
    "json: data key missing": None,
    "json: not json": 1007,
    "json: wrong type": 1008,
    "json: a list": 1008,
    "json: binary frame in json mode": 1003,
    "bytes: 01 is NOT a sentinel": 1007,
    "bytes: empty binary frame": 1007,
    "bytes: text frame in bytes mode": 1003,
    "bytes: malformed protobuf": 1007,
}


def connect(gateway, path="/", subprotocol=None, **options):
    offered = [subprotocol] if isinstance(subprotocol, str) else subprotocol
    return websockets.connect(
        gateway.ws_url + path, subprotocols=offered, compression=None, proxy=None, **options
    )


def request_bytes(request_id, endpoint="/tag", documents=b"\x0a\x08\x0a\x06\x0a\x02d0\x1a\x00"):
    return wire.encode_request(Request(request_id, endpoint, documents=documents))


async def closed_with(session):
    """The code and reason of the server's close frame."""
    await asyncio.wait_for(session.wait_closed(), 10)
    return session.close_code, session.close_reason


def dispatcher_for(case):
    if "down" in case["name"]:
        return failing(DOWN)
    if "timeout" in case["name"]:
        return failing(LATE)
    if "order" in case["name"]:
        return FakeDispatcher(slow_ones_later)
    return FakeDispatcher()


def failing(error):
    def fails(request):
        raise error

    return FakeDispatcher(fails, dry_run_error=error)


def slow_ones_later(request):
    answer = Deferred()
    reactor.callLater(0.1 if b"slow" in request.documents else 0, answer.callback, answer_to(request))
    return answer


def same_but_for_the_port(text, golden_text):
    return re.sub(r"\d+'", "<port>'", text) == golden_text


@pytest.mark.parametrize("name", [n for n in CONVERSATIONS if n != "unknown path"])
@pytest_twisted.ensureDeferred
async def test_the_golden_conversation_is_held(name):
    case = CONVERSATIONS[name]

    async def conversation():
        async with connect(gateway, case["path"], case["offered_subprotocol"]) as session:
            for step in case["conversation"]:
                if "client" in step:
                    sent = step["client"]
                    await session.send(sent["text"] if "text" in sent else bytes.fromhex(sent["binary_hex"]))
                elif name in MENDED:
                    if MENDED[name] is None:
                        assert json.loads(await session.recv())["header"]["exec_endpoint"] == "/new"
                        return
                    assert (await closed_with(session))[0] == MENDED[name]
                elif "server_close" in step:
                    code, reason = await closed_with(session)
                    assert code == step["server_close"]["code"]
                    assert same_but_for_the_port(reason, step["server_close"]["reason"])
                else:
                    check(await asyncio.wait_for(session.recv(), 10), step["server"])

    async with served(("websocket",), dispatcher_for(case)) as gateway:
        await asyncio_client(conversation)


def check(frame, expected):
    if "text_json" in expected:
        found, golden = json.loads(frame), expected["text_json"]
        if not golden:
            assert found == {}
            return
        assert list(found) == list(golden)
        assert found["header"]["exec_endpoint"] == golden["header"]["exec_endpoint"]
        if "status" not in golden["header"]:
            assert set(found["header"]) == set(golden["header"])
        if golden["header"]["exec_endpoint"] != "/new":  # the fake passes documents through
            assert [d["id"] for d in found["data"]] == [d["id"] for d in golden["data"]]
    elif "binary_StatusProto" in expected:
        assert frame == bytes.fromhex(expected["binary_StatusProto"]["hex"])
    else:
        golden = expected["binary_DataRequestProto"]
        found = wire.decode_request(frame)
        assert found.request_id == golden["header"]["request_id"]
        assert found.endpoint == golden["header"]["exec_endpoint"]


@pytest_twisted.ensureDeferred
async def test_the_id_of_a_json_frame_is_that_of_its_answer():
    frames = [
        {"data": [{"text": "slow"}], "requestId": "a"},
        {"data": [{"text": "x"}], "header": {"request_id": "b"}},
        {"data": [{"text": "x"}]},
    ]

    async def conversation():
        async with connect(gateway, subprotocol="json") as session:
            for frame in frames:
                await session.send(json.dumps(frame))
            answers = [json.loads(await session.recv()) for _ in frames]
        ids = [answer["header"]["request_id"] for answer in answers]
        assert (ids[0], len(ids[1]), ids[2]) == ("b", 32, "a")
        assert answers[2]["data"][0]["text"] == "slow"

    async with served(("websocket",), FakeDispatcher(slow_ones_later)) as gateway:
        await asyncio_client(conversation)


@pytest.mark.parametrize("subprotocol", ["json", "bytes"])
@pytest.mark.parametrize(
    ("query", "in_order"),
    [
        ("", False),
        ("?other=1", False),
        ("?results_in_order=false", False),
        ("?results_in_order=true", True),
        ("?a=b&results_in_order=1", True),
        ("?results_in_order", True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_answers_come_in_the_order_of_the_requests_where_the_url_asks_for_it(
    query, in_order, subprotocol
):
    sent = [("1", "slow"), ("2", "x"), ("3", "slow"), ("4", "y")]

    def frame(name, text):
        if subprotocol == "json":
            return json.dumps({"requestId": name, "data": [{"text": text}]})
        documents = DataContentProto()
        documents.docs.docs.add(text=text)
        return request_bytes(name, documents=documents.SerializeToString())

    def name_of(answer):
        if subprotocol == "json":
            return json.loads(answer)["header"]["request_id"]
        return wire.decode_request(answer).request_id

    async def conversation():
        async with connect(gateway, "/" + query, subprotocol) as session:
            for name, text in sent:
                await session.send(frame(name, text))
            await session.send("{}" if subprotocol == "json" else b"\0")
            answers = [name_of(answer) async for answer in session]
        assert answers == (["1", "2", "3", "4"] if in_order else ["2", "4", "1", "3"])

    async with served(("websocket",), FakeDispatcher(slow_ones_later)) as gateway:
        await asyncio_client(conversation)


@pytest_twisted.ensureDeferred
async def test_an_order_that_cannot_be_understood_is_refused():
    async def conversation():
        with pytest.raises(websockets.InvalidStatus) as refusal:
            async with connect(gateway, "/?results_in_order=maybe"):
                pass
        assert refusal.value.response.status_code == 422
        assert b"results_in_order" in refusal.value.response.body

    async with served(("websocket",)) as gateway:
        await asyncio_client(conversation)


@pytest_twisted.ensureDeferred
async def test_an_unknown_path_is_refused_with_403():
    async def conversation():
        with pytest.raises(websockets.InvalidStatus) as refusal:
            async with connect(gateway, "/nope"):
                pass
        assert refusal.value.response.status_code == 403

    async with served(("websocket",)) as gateway:
        await asyncio_client(conversation)


@pytest.mark.parametrize(
    ("offered", "confirmed", "first"),
    [
        (None, None, str),
        ("json", "json", str),
        ("bytes", "bytes", bytes),
        ("foo", None, str),
        (["bytes", "json"], "json", str),
        (["foo", "bytes"], None, str),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_subprotocol_chooses_the_mode_and_is_confirmed_where_offered(offered, confirmed, first):
    async def conversation():
        async with connect(gateway, "/dry_run", offered) as session:
            assert session.subprotocol == confirmed
            assert type(await session.recv()) is first

    async with served(("websocket",)) as gateway:
        await asyncio_client(conversation)


@pytest.mark.parametrize(
    "step", RECORDED["http_on_websocket_port"], ids=lambda s: f"{s['method']} {s['path']}"
)
@pytest_twisted.ensureDeferred
async def test_the_port_serves_a_few_http_paths(step):
    def ask():
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        connection.request(step["method"], step["path"], b"{}" if step["method"] == "POST" else None)
        answer = connection.getresponse()
        html = answer.headers["content-type"].startswith("text/html")
        found = answer.status, None if html else json.loads(answer.read())
        connection.close()
        return found

    # The settings of the HTTP gateway have no say here.
    async with served(("websocket",), no_debug_endpoints=True, cors=("*",)) as gateway:
        status, body = await in_thread(ask)
        assert status == step["status"]
        if step["path"] == "/openapi.json":
            assert sorted(body["paths"]) == step["body"]["paths"]
        elif step["path"] not in ("/status", "/docs"):
            assert body == step["body"]


@pytest_twisted.ensureDeferred
async def test_one_port_serves_http_and_websocket():
    async def conversation():
        async with connect(gateway, "/") as session:
            await session.send('{"data": null}')
            assert json.loads(await session.recv())["header"]["exec_endpoint"] == "/"

    def post():
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        connection.request("POST", "/index", b"{}")
        status = connection.getresponse().status
        connection.close()
        return status

    async with served(("http", "websocket")) as gateway:
        await asyncio_client(conversation)
        assert await in_thread(post) == 200


@pytest_twisted.ensureDeferred
async def test_no_more_than_the_window_is_under_way_and_reading_stops():
    async def conversation():
        async with connect(gateway, subprotocol="bytes") as session:
            for number in range(20):
                await session.send(request_bytes(f"r{number}"))
            await asyncio.to_thread(full.wait, 10)
            for _ in range(20):
                answers.append(wire.decode_request(await session.recv()).request_id)

    full, answers = threading.Event(), []
    engine = FakeDispatcher(held=True)
    async with served(("websocket",), engine, prefetch=3) as gateway:
        talking = asyncio_client(conversation)
        await until(lambda: len(engine.waiting) == 3)
        full.set()
        most = 0
        while len(engine.requests) < 20 or engine.waiting:
            most = max(most, len(engine.waiting))
            if engine.waiting:
                engine.settle(next(iter(engine.waiting)))
            await until(lambda: engine.waiting or len(engine.requests) == 20)
        await talking
    assert most <= 3
    assert sorted(answers) == sorted(f"r{n}" for n in range(20))


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_stops_being_read_from():
    documents = b"\x0a\x00" + b"\x1a\x80\x80\x04" + b"d" * 65536  # an unknown field, passed through

    async def conversation():
        async with connect(gateway, subprotocol="bytes", max_queue=1) as session:

            async def write():
                for number in range(1000):
                    await session.send(request_bytes(f"r{number}", documents=documents))
                await session.send(b"\0")

            writing = asyncio.ensure_future(write())
            await asyncio.to_thread(seen.wait, 10)
            found = [wire.decode_request(m).request_id async for m in session]
            await writing
            return found, session.close_code

    seen = threading.Event()
    async with served(("websocket",)) as gateway:
        talking = asyncio_client(conversation)
        engine = gateway.dispatcher
        # 64 MB would be answered in no time; what stops it is that nobody reads.
        await until(lambda: engine.requests)
        count = -1
        while count != len(engine.requests):
            count = len(engine.requests)
            await in_thread(seen.wait, 0.5)
        assert count < 900
        seen.set()
        found, code = await talking
        assert sorted(found) == sorted(f"r{n}" for n in range(1000))
        assert code == 1000


@pytest.mark.parametrize("abruptly", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_cancels_what_is_under_way(abruptly):
    async def conversation():
        session = await connect(gateway, subprotocol="bytes")
        await session.send(request_bytes("a"))
        await session.send(request_bytes("b"))
        await asyncio.to_thread(seen.wait, 10)
        if abruptly:
            session.transport.abort()
        else:
            await session.close()

    engine, seen = FakeDispatcher(held=True), threading.Event()
    async with served(("websocket",), engine) as gateway:
        talking = asyncio_client(conversation)
        await until(lambda: len(engine.waiting) == 2)
        seen.set()
        await talking
        await until(lambda: sorted(engine.cancelled) == ["a", "b"])
        await until(lambda: not gateway.connections)


@pytest_twisted.ensureDeferred
async def test_a_message_above_the_limit_closes_with_1009_and_answers_may_be_larger():
    async def conversation():
        async with connect(gateway, subprotocol="bytes", max_size=None) as session:
            await session.send(request_bytes("a"))
            assert len(await session.recv()) > 5000
            await session.send(b"x" * 1001)
            assert (await closed_with(session))[0] == 1009

    def grown(request):
        return attrs.evolve(answer_to(request), documents=b"\x0a\x00\x1a\x90\x4e" + b"d" * 10000)

    async with served(("websocket",), FakeDispatcher(grown), max_message_bytes=1000) as gateway:
        await asyncio_client(conversation)


@pytest.mark.parametrize(
    ("error", "code"), [(DOWN, 1011), (Overloaded("too many"), 1013), (RuntimeError("secret"), 1011)]
)
@pytest_twisted.ensureDeferred
async def test_what_the_dispatcher_raises_closes_with_its_code(error, code, caught_failures):
    async def conversation():
        async with connect(gateway) as session:
            await session.send('{"data": null}')
            found, reason = await closed_with(session)
            assert found == code
            assert "secret" not in reason

    async with served(("websocket",), failing(error)) as gateway:
        await asyncio_client(conversation)
    caught_failures.clear()


@pytest_twisted.ensureDeferred
async def test_a_dry_run_that_fails_for_another_reason_says_so_in_both_modes():
    async def conversation():
        async with connect(gateway, "/dry_run") as session:
            assert json.loads(await session.recv())["code"] == "ERROR"
            assert (await closed_with(session))[0] == 1000
        async with connect(gateway, "/dry_run", "bytes") as session:
            status = StatusProto.FromString(await session.recv())
            assert (status.code, status.description) == (StatusProto.ERROR, "too many")

    async with served(("websocket",), failing(Overloaded("too many"))) as gateway:
        await asyncio_client(conversation)


@pytest_twisted.ensureDeferred
async def test_stopping_delivers_pending_answers_then_closes_with_1001():
    async def conversation():
        async with connect(gateway, subprotocol="bytes") as session:
            await session.send(request_bytes("a"))
            answer = wire.decode_request(await session.recv()).request_id
            return answer, await closed_with(session)

    engine = FakeDispatcher(held=True)
    async with served(("websocket",), engine) as gateway:
        talking = asyncio_client(conversation)
        await until(lambda: engine.waiting)
        closing = gateway.connections.close_all(5.0)
        engine.settle("a")
        answer, (code, _) = await talking
        assert (answer, code) == ("a", 1001)
        await closing


@pytest_twisted.ensureDeferred
async def test_stopping_does_not_wait_longer_than_the_grace_period():
    async def conversation():
        async with connect(gateway, subprotocol="bytes") as session:
            await session.send(request_bytes("a"))
            return await closed_with(session)

    engine = FakeDispatcher(held=True)
    async with served(("websocket",), engine) as gateway:
        talking = asyncio_client(conversation)
        await until(lambda: engine.waiting)
        await gateway.connections.close_all(0.05)
        assert (await talking)[0] == 1001
        assert engine.cancelled == ["a"]


@pytest_twisted.ensureDeferred
async def test_a_connection_that_becomes_a_websocket_while_the_port_drains_is_closed_with_1001():
    async with served(("http", "websocket")) as gateway:
        client = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        head = (
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        client.sendall(head[:40])
        await until(lambda: any(channel.requests for channel in gateway.connections))

        drained = gateway.web.drain(5.0)
        client.sendall(head[40:])
        received = await in_thread(client.recv, 4096)
        while b"\x03\xe9" not in received:
            received += await in_thread(client.recv, 4096)
        assert not drained.called
        client.close()

        await drained
        assert received.startswith(b"HTTP/1.1 101 ")


@pytest_twisted.ensureDeferred
async def test_a_window_full_of_one_is_worked_off_with_answers_that_come_at_once():
    async def conversation():
        async with connect(gateway) as session:
            for _ in range(200):
                await session.send('{"data": null}')
            await session.send("{}")
            return [m async for m in session], session.close_code

    async with served(("websocket",), prefetch=1) as gateway:
        answers, code = await asyncio_client(conversation)
        assert (len(answers), code) == (200, 1000)


@pytest_twisted.ensureDeferred
async def test_large_json_frames_are_converted_off_the_reactor_thread():
    async def conversation():
        async with connect(gateway) as session:
            await session.send(json.dumps({"data": [{"id": "d0", "text": "x" * 300_000}]}))
            return json.loads(await session.recv())["data"][0]["text"]

    async with served(("websocket",)) as gateway:
        assert await asyncio_client(conversation) == "x" * 300_000


@pytest_twisted.ensureDeferred
async def test_garbage_after_the_handshake_closes_that_connection_only():
    def garbage():
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
            client.sendall(b"\xff\xff" + b"garbage" * 100)
            answer = client.recv(4096)
            return answer[0], int.from_bytes(answer[2:4], "big")

    async def conversation():
        async with connect(gateway) as session:
            assert await in_a_thread(garbage) == (0x88, 1002)
            await session.send('{"data": null}')
            assert json.loads(await session.recv())["data"] == []

    in_a_thread = asyncio.to_thread
    async with served(("websocket",)) as gateway:
        await asyncio_client(conversation)


@pytest.mark.parametrize("missing", ["Sec-WebSocket-Key", "Sec-WebSocket-Version", "Connection"])
@pytest_twisted.ensureDeferred
async def test_a_broken_handshake_is_an_http_error(missing):
    headers = {
        "Host": "x",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    del headers[missing]

    def shake():
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
            lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
            client.sendall(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())
            return client.recv(4096)

    async with served(("websocket",)) as gateway:
        assert (await in_thread(shake)).startswith(b"HTTP/1.1 4")


def test_a_reason_is_cut_between_characters():
    assert truncated("ä" * 100) == ("ä" * 61).encode()
    assert truncated("fine") == b"fine"
