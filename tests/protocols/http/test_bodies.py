"""HTTP bodies in both forms, compressed or not, with the limits that hold for all of them together."""

import gzip
import http.client
import json
import socket

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from gatewayd.errors import ExecutorUnreachable, Overloaded
from gatewayd.messages import wire
from gatewayd.messages.request import Request
from gatewayd.pb import DataRequestProto, StatusProto
from tests.protocols.harness import FakeDispatcher, answer_to, in_thread, read_all, served, until
from tests.protocols.http.test_http import call
from tests.protocols.http.test_limits import HEAD, talk

PROTOBUF = "application/x-protobuf"
# One document d0, in a field that no DocumentArrayProto has besides: documents are not looked into.
DOCUMENTS = b"\x0a\x06\x0a\x04\x0a\x02d0\x98\x06\x01"


def message(**more):
    return wire.encode_request(
        Request(**{"request_id": "r1", "endpoint": "/tag", "documents": DOCUMENTS, **more})
    )


@pytest_twisted.ensureDeferred
async def test_protobuf_bodies_pass_through_and_are_answered_in_protobuf():
    async with served() as gateway:
        body = message(target="a.*", timeout_s=2.5)
        status, headers, answer = await in_thread(
            call, gateway.port, "POST", "/post", body, {"Content-Type": PROTOBUF}
        )
        (request,) = gateway.dispatcher.requests
        assert (request.request_id, request.endpoint, request.target) == ("r1", "/tag", "a.*")
        assert (request.documents, request.timeout_s) == (DOCUMENTS, 2.5)
        assert (status, headers["content-type"], headers["x-request-id"]) == (200, PROTOBUF, "r1")
        assert wire.decode_request(answer).documents == DOCUMENTS
        assert [route.executor for route in DataRequestProto.FromString(answer).routes] == [
            "gateway",
            "exec_a",
        ]


@pytest_twisted.ensureDeferred
async def test_a_path_and_a_header_win_over_what_a_protobuf_body_says():
    async with served() as gateway:
        headers = {"Content-Type": PROTOBUF, "X-Request-ID": "mine"}
        _, answered, _ = await in_thread(call, gateway.port, "POST", "/index", message(), headers)
        await in_thread(call, gateway.port, "POST", "/post", b"", {"Content-Type": PROTOBUF})
        first, second = gateway.dispatcher.requests
        assert (first.endpoint, first.request_id, answered["x-request-id"]) == ("/index", "mine", "mine")
        assert (second.endpoint, len(second.request_id)) == ("/", 32)


@pytest_twisted.ensureDeferred
async def test_each_form_can_be_asked_in_and_answered_in():
    async with served() as gateway:
        for sent, content_type in ((b'{"data": [{"id": "d0"}]}', "application/json"), (message(), PROTOBUF)):
            for accept in ("application/json", PROTOBUF):
                headers = {"Content-Type": content_type, "Accept": accept}
                status, answered, answer = await in_thread(call, gateway.port, "POST", "/post", sent, headers)
                assert (status, answered["content-type"]) == (200, accept)
                assert "Accept" in answered["vary"]
                if accept == PROTOBUF:
                    assert [d.id for d in DataRequestProto.FromString(answer).data.docs.docs] == ["d0"]
                else:
                    assert [d["id"] for d in json.loads(answer)["data"]] == ["d0"]


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_read_or_answered_has_a_status_of_its_own():
    async with served() as gateway:
        for headers, status, text in (
            ({"Accept": "text/html"}, 406, "application/x-protobuf"),
            ({"Content-Encoding": "br"}, 415, "gzip or deflate"),
            ({"Content-Encoding": "gzip, gzip"}, 415, "gzip or deflate"),
            ({"Content-Encoding": "gzip"}, 422, "Content-Encoding"),
            ({"Content-Type": PROTOBUF}, 422, "not a DataRequestProto"),
            ({"Content-Type": "text/plain"}, 422, "value is not a valid dict"),
            ({"X-Request-Timeout": "soon"}, 422, "X-Request-Timeout"),
        ):
            headers = {"X-Request-ID": "mine", **headers}
            found, answered, answer = await in_thread(call, gateway.port, "POST", "/post", b"\xff{}", headers)
            assert (found, answered["x-request-id"]) == (status, "mine"), headers
            assert text in json.dumps(json.loads(answer)["detail"])
        assert not gateway.dispatcher.requests


@pytest_twisted.ensureDeferred
async def test_a_network_error_has_the_form_that_was_asked_for():
    def refuse(request):
        raise ExecutorUnreachable("exec_x", ["127.0.0.1:1"], "refused")

    async with served(dispatcher=FakeDispatcher(refuse)) as gateway:
        status, headers, answer = await in_thread(
            call, gateway.port, "POST", "/post", message(), {"Content-Type": PROTOBUF}
        )
        answer = DataRequestProto.FromString(answer)
        assert (status, headers["content-type"]) == (503, PROTOBUF)
        assert answer.header.status.code == StatusProto.ERROR
        assert "exec_x" in answer.header.status.description
        assert [d.id for d in answer.data.docs.docs] == ["d0"]


@pytest_twisted.ensureDeferred
async def test_a_network_error_whose_request_has_no_json_form_is_answered_as_well():
    def refuse(request):
        raise ExecutorUnreachable("exec_x", ["127.0.0.1:1"], "refused")

    headers = {"Content-Type": PROTOBUF, "Accept": "application/json"}
    async with served(dispatcher=FakeDispatcher(refuse)) as gateway:
        status, _, answer = await in_thread(
            call, gateway.port, "POST", "/post", message(documents=b"\xff"), headers
        )
        assert status == 500
        assert "documents" in json.loads(answer)["detail"]


@pytest_twisted.ensureDeferred
async def test_the_clients_patience_reaches_the_dispatcher():
    async with served() as gateway:
        for header in ("1.5", "30", None):
            headers = {} if header is None else {"X-Request-Timeout": header}
            assert (await in_thread(call, gateway.port, "POST", "/post", {}, headers))[0] == 200
        assert gateway.dispatcher.timeouts == [1.5, 30.0, None]


# -- compression ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5_000, 500_000])
@pytest_twisted.ensureDeferred
async def test_answers_above_the_threshold_are_zipped_for_those_who_accept_it(size):
    async with served() as gateway:
        body = {"data": [{"id": "d0", "text": "x" * size}]}
        headers = {"Accept-Encoding": "gzip, deflate"}
        _, answered, answer = await in_thread(call, gateway.port, "POST", "/post", body, headers)
        assert answered["content-encoding"] == "gzip"
        assert "Accept-Encoding" in answered["vary"]
        assert int(answered["content-length"]) == len(answer) < size
        assert len(json.loads(gzip.decompress(answer))["data"][0]["text"]) == size

        for unwanted in ({}, {"Accept-Encoding": "gzip;q=0, br"}):
            _, answered, answer = await in_thread(call, gateway.port, "POST", "/post", body, unwanted)
            assert "content-encoding" not in answered
            assert "Accept-Encoding" in answered["vary"]
            assert len(answer) > size


@pytest_twisted.ensureDeferred
async def test_small_answers_are_not_zipped_nor_any_where_it_is_off():
    headers = {"Accept-Encoding": "gzip"}
    async with served() as gateway:
        _, answered, _ = await in_thread(call, gateway.port, "POST", "/post", {}, headers)
        assert "content-encoding" not in answered
    async with served(compress_above_bytes=0) as gateway:
        body = {"data": [{"text": "x" * 10_000}]}
        _, answered, _ = await in_thread(call, gateway.port, "POST", "/post", body, headers)
        assert "content-encoding" not in answered


@pytest.mark.parametrize("size", [10, 70_000, 900_000])
@pytest_twisted.ensureDeferred
async def test_zipped_bodies_are_served_in_both_forms(size):
    async with served(max_message_bytes=1_000_000) as gateway:
        plain = json.dumps({"data": [{"id": "d0", "text": "y" * size}]}).encode()
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        status, _, answer = await in_thread(
            call, gateway.port, "POST", "/post", gzip.compress(plain), headers
        )
        assert (status, len(json.loads(answer)["data"][0]["text"])) == (200, size)
        headers["Content-Type"] = PROTOBUF
        body = gzip.compress(message(documents=DOCUMENTS))
        status, _, answer = await in_thread(call, gateway.port, "POST", "/post", body, headers)
        assert wire.decode_request(answer).documents == DOCUMENTS
        assert gateway.buffers.held_bytes == 0


@pytest_twisted.ensureDeferred
async def test_a_zip_bomb_is_too_large_however_small_it_is():
    async with served(max_message_bytes=1_000_000) as gateway:
        bomb = gzip.compress(bytes(200_000_000))
        status, _, answer = await in_thread(
            call, gateway.port, "POST", "/post", bomb, {"Content-Encoding": "gzip"}
        )
        assert status == 413
        assert "1000000 bytes" in json.loads(answer)["detail"]
        assert gateway.buffers.held_bytes == 0


# -- all bodies together -----------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_bodies_that_would_exceed_the_buffers_are_refused_for_now():
    async with served(dispatcher=FakeDispatcher(held=True), max_buffered_bytes=100_000) as gateway:
        body = b"{" + b" " * 59_998 + b"}"
        first = in_thread(call, gateway.port, "POST", "/post", body)
        await until(lambda: gateway.dispatcher.waiting)
        assert gateway.buffers.held_bytes == 60_000

        status, headers, answer = await in_thread(call, gateway.port, "POST", "/post", body)
        assert (status, headers["retry-after"]) == (503, "1")
        assert "gateway.max_buffered_bytes" in json.loads(answer)["detail"]
        chunks = b"".join(b"2710\r\n" + b" " * 10_000 + b"\r\n" for _ in range(6))
        answer = await in_thread(talk, gateway.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        assert answer.startswith(b"HTTP/1.1 503 ")
        zipped = gzip.compress(body)
        status, _, _ = await in_thread(
            call, gateway.port, "POST", "/post", zipped, {"Content-Encoding": "gzip"}
        )
        assert status == 503
        assert gateway.buffers.held_bytes == 60_000

        gateway.dispatcher.settle(gateway.dispatcher.requests[0].request_id)
        assert (await first)[0] == 200
        assert gateway.buffers.held_bytes == 0


@pytest_twisted.ensureDeferred
async def test_what_a_client_that_hangs_up_held_is_given_back():
    async with served(dispatcher=FakeDispatcher(held=True)) as gateway:
        half = socket.create_connection(("127.0.0.1", gateway.port))
        half.sendall(HEAD + b"Content-Length: 10000\r\n\r\n" + b" " * 5000)
        whole = socket.create_connection(("127.0.0.1", gateway.port))
        whole.sendall(HEAD + b"Content-Length: 3\r\n\r\n{ }")
        await until(lambda: gateway.dispatcher.waiting and gateway.buffers.held_bytes == 5003)
        half.close()
        whole.close()
        await until(lambda: gateway.buffers.held_bytes == 0)


@pytest_twisted.ensureDeferred
async def test_an_overloaded_gateway_says_when_to_come_back_with_the_requests_id():
    def full(request):
        raise Overloaded("full", retry_after_s=2.5)

    async with served(dispatcher=FakeDispatcher(full)) as gateway:
        status, headers, _ = await in_thread(
            call, gateway.port, "POST", "/post", {}, {"X-Request-ID": "mine"}
        )
        assert (status, headers["retry-after"], headers["x-request-id"]) == (503, "3", "mine")


# -- connections -------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_every_answer_names_the_request_whatever_becomes_of_it():
    async with served(max_message_bytes=100) as gateway:
        for request, status in (
            (b"GET / HTTP/1.1\r\n", 200),
            (b"GET /nope HTTP/1.1\r\n", 404),
            (b"GET /post HTTP/1.1\r\n", 405),
            (b"POST /post HTTP/1.1\r\nContent-Length: 101\r\n", 413),
            (b"POST /post HTTP/1.1\r\nContent-Length: x\r\n", 400),
        ):
            first, _, rest = request.partition(b"\r\n")
            sent = first + b"\r\nHost: x\r\nConnection: close\r\nX-Request-ID: mine\r\n" + rest + b"\r\n"
            answer = await in_thread(talk, gateway.port, sent)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert b"\r\nX-Request-ID: mine\r\n" in answer


@pytest_twisted.ensureDeferred
async def test_a_connection_serves_one_request_after_the_other_errors_included():
    def converse(port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        found = []
        for body in ("{}", "[", '{"data": 5}', "{}"):
            connection.request("POST", "/post", body)
            answer = connection.getresponse()
            answer.read()
            found.append((answer.status, connection.sock.getsockname()))
        connection.close()
        return found

    async with served() as gateway:
        found = await in_thread(converse, gateway.port)
        assert [status for status, _ in found] == [200, 422, 422, 200]
        assert len({address for _, address in found}) == 1


@pytest_twisted.ensureDeferred
async def test_a_hundred_requests_in_one_write_are_answered_in_their_order():
    first = Deferred()

    def last_first(request):
        return first if request.request_id == "r0" else answer_to(request)

    async with served(dispatcher=FakeDispatcher(last_first)) as gateway:
        sent = b"".join(
            HEAD
            + b"X-Request-ID: r%d\r\n%sContent-Length: 2\r\n\r\n{}"
            % (n, b"Connection: close\r\n" * (n == 99))
            for n in range(100)
        )
        reading = in_thread(talk, gateway.port, sent)
        await until(lambda: gateway.dispatcher.requests)
        assert len(gateway.dispatcher.requests) == 1  # one at a time
        first.callback(answer_to(gateway.dispatcher.requests[0]))
        found = await reading
        ids = [line[14:] for line in found.split(b"\r\n") if line.startswith(b"X-Request-ID: ")]
        assert ids == [b"r%d" % n for n in range(100)]


@pytest_twisted.ensureDeferred
async def test_a_client_of_http_1_0_gets_its_answer_and_the_end():
    async with served() as gateway:
        answer = await in_thread(talk, gateway.port, b"POST /post HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest_twisted.ensureDeferred
async def test_a_refused_body_is_not_asked_for():
    def ask(port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n")
            return read_all(client)

    async with served(max_buffered_bytes=1000) as gateway:
        answer = await in_thread(ask, gateway.port)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"100 Continue" not in answer


@pytest_twisted.ensureDeferred
async def test_more_documents_than_allowed_are_refused():
    async with served(max_documents=2) as gateway:
        for endpoint in ("/post", "/search"):
            status, _, answer = await in_thread(call, gateway.port, "POST", endpoint, b'{"data":[{},{},{}]}')
            assert status == 413
            assert "more than 2 documents" in json.loads(answer)["detail"]
        status, _, _ = await in_thread(call, gateway.port, "POST", "/search", b'{"data":[{},{}]}')
        assert status == 200
        assert gateway.buffers.held_bytes == 0


LISTS = b'{"parameters":{"a":[' + b"[]," * 30_000 + b"1]}}"
TEXT = b'{"parameters":{"a":"' + b"a" * 90_000 + b'"}}'


@pytest_twisted.ensureDeferred
async def test_json_counts_as_what_it_becomes_while_it_is_decoded():
    async with served(max_buffered_bytes=1_000_000, expose_graphql_endpoint=True) as gateway:
        for path in ("/post", "/search", "/graphql"):
            status, headers, answer = await in_thread(
                call, gateway.port, "POST", path, LISTS, {"Content-Type": "application/json"}
            )
            assert (status, headers["retry-after"]) == (503, "1")
            assert "gateway.max_buffered_bytes" in json.loads(answer)["detail"]
        status, _, _ = await in_thread(call, gateway.port, "POST", "/post", TEXT)
        assert status == 200
        assert gateway.buffers.held_bytes == 0


@pytest_twisted.ensureDeferred
async def test_json_that_was_decoded_is_held_as_its_text():
    async with served(dispatcher=FakeDispatcher(held=True), max_buffered_bytes=5_000_000) as gateway:
        body = b'{"requestId":"r0",' + LISTS[1:]
        answer = in_thread(call, gateway.port, "POST", "/post", body)
        await until(lambda: gateway.dispatcher.waiting)
        assert gateway.buffers.held_bytes == len(body)
        gateway.dispatcher.settle("r0")
        assert (await answer)[0] == 200
