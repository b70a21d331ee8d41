"""
What RFC 9110 and RFC 9112 say of a request's bytes, on real sockets: each case is what a client sends.

The same faults are sent to a port of HTTP, as the handshake of a WebSocket, and behind TLS.
"""

import json
import socket
import ssl
import struct

import attrs
import pytest
import pytest_twisted

from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.protocols.http.grammar import content_length, is_authority, members, origin_form
from gatewayd.protocols.http.site import SiteLimits
from gatewayd.protocols.web_port import WebPort
from tests.certificates import write_files
from tests.protocols.harness import FakeDispatcher, backend, closed, in_thread, read_all, served, until

HOST = b"Host: a.example\r\n"
CLOSE = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
TWO_BYTES = b"Content-Length: 2\r\n"
POST = b"POST /post HTTP/1.1\r\n"
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
SMUGGLED = b"GET /status HTTP/1.1\r\nHost: smuggled\r\n\r\n"


def talk(port, sent, tls=None, ends=False):
    """Send bytes, and read until the server closes; ``ends`` half-closes after them."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    with client if tls is None else tls.wrap_socket(client, server_hostname="localhost") as client:
        client.sendall(sent)
        if ends:
            client.shutdown(socket.SHUT_WR)
        return read_all(client)


def taken_apart(answers):
    """The answers on a connection, as (status, headers, body)."""
    found = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(b": ") for field in fields)}
        length = int(headers.get(b"content-length", 0))
        found.append((int(line.split()[1]), headers, rest[:length]))
        answers = rest[length:]
    return found


# -- faults of a head, whatever is asked ------------------------------------------------------------------

HEAD_FAULTS = {
    # RFC 9112 section 3.2: exactly one Host, and a valid one.
    "no Host": (b"", "no Host header"),
    "two Hosts": (HOST + b"Host: b.example\r\n", "2 Host headers"),
    "the same Host twice": (HOST + HOST, "2 Host headers"),
    "a Host with a blank": (b"Host: a b\r\n", "'a b' is not host or host:port"),
    "a Host with a path": (b"Host: a/b\r\n", "is not host"),
    "a Host with a user": (b"Host: me@a\r\n", "is not host"),
    "a Host with a port that is none": (b"Host: a:http\r\n", "is not host"),
    "a Host of UTF-8": (b"Host: \xc3\xa4\r\n", "is not host"),
    "a Host that is no IPv6 address": (b"Host: [::1::]\r\n", "is not host"),
    "a Host with IPv6 and no brackets": (b"Host: ::1\r\n", "is not host"),
    "a Host with half an escape": (b"Host: a%2\r\n", "is not host"),
    # RFC 9112 section 5: field lines.
    "a space before the colon": (HOST + b"X-A : b\r\n", "is not a header"),
    "a tab before the colon": (HOST + b"X-A\t: b\r\n", "is not a header"),
    "a space before the colon of a length": (HOST + b"Content-Length : 2\r\n", "is not a header"),
    "no colon": (HOST + b"X-A\r\n", "is not a header"),
    "no name": (HOST + b": b\r\n", "is not a header"),
    "a name with a parenthesis": (HOST + b"X(A): b\r\n", "is not a header"),
    "a name with UTF-8": (HOST + b"X-\xc3\xa4: b\r\n", "is not a header"),
    "a name of a thousand letters": (HOST + b"x" * 1000 + b": b\r\n", "is not a header"),
    "NUL": (HOST + b"X-A: b\0c\r\n", "is not a header"),
    "a control character": (HOST + b"X-A: b\x0bc\r\n", "is not a header"),
    "a bare CR in a value": (HOST + b"X-A: b\rX-B: c\r\n", "is not a header"),
    "a bare CR before the end": (HOST + b"X-A: b\r\r\n", "is not a header"),
    "a bare LF in a value": (HOST + b"X-A: b\nX-B: c\r\n", "LF instead of CR LF"),
    # Section 5.2.
    "a header of two lines": (HOST + b"X-A: b\r\n c\r\n", "second line"),
    "a header of two lines with a tab": (HOST + b"X-A: b\r\n\tc\r\n", "second line"),
    "a length in the second line": (HOST + b"Content-Length:\r\n 2\r\n", "second line"),
    "a coding in the second line": (HOST + b"Transfer-Encoding:\r\n chunked\r\n", "second line"),
    "a blank before the first header": (b" X-A: b\r\n" + HOST, "blank"),
    # Section 6.1: only chunked, as the last coding and once.
    "identity": (HOST + b"Transfer-Encoding: identity\r\n", "does not end with one 'chunked'"),
    "chunked twice": (HOST + CHUNKED + CHUNKED, "more than one"),
    "chunked twice in a line": (HOST + b"Transfer-Encoding: chunked, chunked\r\n", "one 'chunked'"),
    "chunked and identity": (HOST + b"Transfer-Encoding: chunked, identity\r\n", "one 'chunked'"),
    "identity in a line of its own": (
        HOST + CHUNKED + b"Transfer-Encoding: identity\r\n",
        "more than one Content-Length or Transfer-Encoding",
    ),
    "a coding after chunked": (HOST + b"Transfer-Encoding: chunked, gzip\r\n", "one 'chunked'"),
    "an empty coding": (HOST + b"Transfer-Encoding:\r\n", "one 'chunked'"),
    "a comma after chunked": (HOST + b"Transfer-Encoding: chunked,\r\n", "one 'chunked'"),
    "a comma before chunked": (HOST + b"Transfer-Encoding: ,chunked\r\n", "one 'chunked'"),
    "a coding that ends like chunked": (HOST + b"Transfer-Encoding: xchunked\r\n", "one 'chunked'"),
    "chunked in quotes": (HOST + b'Transfer-Encoding: "chunked"\r\n', "one 'chunked'"),
    "chunked with a parameter": (HOST + b"Transfer-Encoding: chunked;q=1\r\n", "one 'chunked'"),
    "a form feed before chunked": (HOST + b"Transfer-Encoding: \x0cchunked\r\n", "is not a header"),
    # Section 6.3: one length, in digits.
    "a length and chunked": (HOST + TWO_BYTES + CHUNKED, "more than one"),
    "chunked and a length": (HOST + CHUNKED + TWO_BYTES, "more than one"),
    "two lengths": (HOST + TWO_BYTES + b"Content-Length: 3\r\n", "more than one"),
    "the same length twice": (HOST + TWO_BYTES + TWO_BYTES, "more than one"),
    "a list of lengths": (HOST + b"Content-Length: 2, 2\r\n", "not one decimal number"),
    "a length with a plus": (HOST + b"Content-Length: +2\r\n", "not one decimal number"),
    "a length with a minus": (HOST + b"Content-Length: -2\r\n", "not one decimal number"),
    "a length in hexadecimal": (HOST + b"Content-Length: 0x2\r\n", "not one decimal number"),
    "a length with a fraction": (HOST + b"Content-Length: 2.0\r\n", "not one decimal number"),
    "a length with an underscore": (HOST + b"Content-Length: 0_2\r\n", "not one decimal number"),
    "a length with a blank": (HOST + b"Content-Length: 0 2\r\n", "not one decimal number"),
    "an empty length": (HOST + b"Content-Length:\r\n", "not one decimal number"),
    "a length of twenty digits": (HOST + b"Content-Length: " + b"0" * 19 + b"2\r\n", "not one decimal"),
}


def each(table):
    return pytest.mark.parametrize("case", list(table.values()), ids=list(table))


def assert_refused(answers, status, words):
    ((found, headers, body),) = taken_apart(answers)
    assert found == status
    assert headers[b"connection"] == b"close"
    assert words in json.loads(body)["detail"]


@each(HEAD_FAULTS)
@pytest_twisted.ensureDeferred
async def test_a_faulty_head_is_refused_with_the_reason_and_all_that_follows_is_dropped(case):
    headers, words = case
    async with served() as gateway:
        answers = await in_thread(talk, gateway.port, POST + headers + b"\r\n{}" + SMUGGLED)
        assert_refused(answers, 400, words)
        assert not gateway.dispatcher.requests


@each(HEAD_FAULTS)
@pytest_twisted.ensureDeferred
async def test_a_faulty_handshake_is_refused_like_any_request(case):
    headers, words = case
    async with served(("websocket",)) as gateway:
        sent = b"GET / HTTP/1.1\r\n" + headers + UPGRADE + b"\r\n{}" + SMUGGLED
        assert_refused(await in_thread(talk, gateway.port, sent), 400, words)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("tls"))


@pytest_twisted.ensureDeferred
async def test_faulty_heads_are_refused_behind_tls(certificate):
    tls = ssl.create_default_context(cafile=str(certificate.roots))
    gateway = GatewayConfig(host="127.0.0.1")
    web = WebPort(Listener(("http",)), backend(gateway, FakeDispatcher(), tls=certificate.credentials))
    web.site.limits = attrs.evolve(web.site.limits, linger_s=0.01)
    web.listen()
    try:
        for headers, words in HEAD_FAULTS.values():
            sent = POST + headers + b"\r\n{}" + SMUGGLED
            assert_refused(await in_thread(talk, web.report().port, sent, tls), 400, words)
    finally:
        await closed(web)


# -- what is served in spite of its looks -----------------------------------------------------------------

SERVED = {
    "a Host with a port": b"Host: a.example:8080\r\n",
    "an empty Host": b"Host:\r\n",
    "a Host of IPv6": b"Host: [::1]:8080\r\n",
    "a Host with an underscore and an escape": b"Host: a_b%20\r\n",
    "a Host with blanks around it": b"Host: \t a.example \t \r\n",
    "headers with tabs and Latin-1": HOST + b"X-A: b\tc \xe4\r\n",
    "a header without a value": HOST + b"X-A:\r\n",
}


@each(SERVED)
@pytest_twisted.ensureDeferred
async def test_what_is_unusual_but_valid_is_served(case):
    async with served() as gateway:
        sent = POST + case + CLOSE + TWO_BYTES + b"\r\n{}"
        ((status, _, _),) = taken_apart(await in_thread(talk, gateway.port, sent))
        assert status == 200
        assert len(gateway.dispatcher.requests) == 1


@pytest_twisted.ensureDeferred
async def test_http_1_0_needs_no_host_and_has_no_chunks():
    async with served() as gateway:
        ((status, headers, _),) = taken_apart(
            await in_thread(talk, gateway.port, b"POST /post HTTP/1.0\r\n" + TWO_BYTES + b"\r\n{}")
        )
        assert (status, headers[b"connection"]) == (200, b"close")
        sent = b"POST /post HTTP/1.0\r\n" + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n"
        assert_refused(await in_thread(talk, gateway.port, sent), 400, "HTTP/1.0")
        assert len(gateway.dispatcher.requests) == 1


# -- request lines (RFC 9112 section 3) -------------------------------------------------------------------

LINES = {
    "a target without a slash": (b"GET status HTTP/1.1", 400),
    "a query alone": (b"GET ?a=b HTTP/1.1", 400),
    "a fragment": (b"GET /#a HTTP/1.1", 400),
    "a target of UTF-8": (b"GET /\xc2\xa1 HTTP/1.1", 400),
    "an asterisk that is not for OPTIONS": (b"GET * HTTP/1.1", 400),
    "an asterisk": (b"OPTIONS * HTTP/1.1", 204),
    "a URL": (b"GET http://a.example/status?a=b HTTP/1.1", 200),
    "a URL with a port and no path": (b"GET HTTP://a.example:80 HTTP/1.1", 200),
    "a URL with a query and no path": (b"GET https://a.example?a=/b HTTP/1.1", 200),
    "a URL without a host": (b"GET http:///status HTTP/1.1", 400),
    "a URL with a user": (b"GET http://me:secret@a.example/status HTTP/1.1", 400),
    "a URL of another scheme": (b"GET ftp://a.example/status HTTP/1.1", 400),
    "a tunnel": (b"CONNECT a.example:443 HTTP/1.1", 405),
    "a tunnel to a path": (b"CONNECT /status HTTP/1.1", 405),
    "a tunnel to a URL": (b"CONNECT http://a.example/ HTTP/1.1", 400),
    "a method in lower case": (b"get /status HTTP/1.1", 405),
    "a method in mixed case": (b"Post /post HTTP/1.1", 405),
    "a method in lower case on no path": (b"get /nowhere HTTP/1.1", 404),
    "head in lower case": (b"head / HTTP/1.1", 405),
    "options in lower case": (b"options /post HTTP/1.1", 405),
    "an unknown method": (b"FROB /post HTTP/1.1", 405),
    "a method with a parenthesis": (b"GE(T /status HTTP/1.1", 400),
    "two blanks": (b"GET  /status HTTP/1.1", 400),
    "a tab": (b"GET\t/status HTTP/1.1", 400),
    "a blank at the end": (b"GET /status HTTP/1.1 ", 400),
    "a blank before": (b" GET /status HTTP/1.1", 400),
    "a blank in the target": (b"GET /sta tus HTTP/1.1", 400),
    "a bare CR": (b"GET /status\r HTTP/1.1", 400),
    "a bare LF": (b"GET /status HTTP/1.1\nX-A: b", 400),
    "no version": (b"GET /status", 400),
    "a version in lower case": (b"GET /status http/1.1", 400),
    "another version": (b"GET /status HTTP/2.0", 400),
}


@pytest.mark.parametrize("protocols", [("http",), ("websocket",)], ids="+".join)
@each(LINES)
@pytest_twisted.ensureDeferred
async def test_a_request_line_is_read_as_the_grammar_has_it(case, protocols):
    line, status = case
    async with served(protocols) as gateway:
        if protocols == ("websocket",) and b"/post" in line:
            status = 404  # such a port has no /post
        answers = await in_thread(talk, gateway.port, line + b"\r\n" + HOST + CLOSE + b"\r\n")
        ((found, headers, _),) = taken_apart(answers)
        assert found == status
        assert (b"allow" in headers) == (status in (204, 405))


@pytest_twisted.ensureDeferred
async def test_lines_that_end_in_lf_alone_are_refused_at_once():
    async with served() as gateway:
        sent = b"GET /status HTTP/1.1\nHost: a.example\n\n"
        assert_refused(await in_thread(talk, gateway.port, sent), 400, "LF instead of CR LF")


@pytest_twisted.ensureDeferred
async def test_one_empty_line_before_a_request_is_passed_over():
    async with served() as gateway:
        sent = b"\r\nGET / HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
        ((status, _, body),) = taken_apart(await in_thread(talk, gateway.port, sent))
        assert (status, body) == (200, b"{}")


# -- bodies in chunks (RFC 9112 section 7.1) --------------------------------------------------------------

CHUNKS = {
    "one chunk": (b"2\r\n{}\r\n0\r\n\r\n", 200, ""),
    "two chunks": (b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", 200, ""),
    "zeros before a size": (b"0002\r\n{}\r\n000\r\n\r\n", 200, ""),
    "an extension": (b"2;a=b\r\n{}\r\n0;c\r\n\r\n", 200, ""),
    "an extension in quotes": (b'2;a="b; c\xe4\t"\r\n{}\r\n0\r\n\r\n', 200, ""),
    "a blank before an extension": (b"2 ;a=b\r\n{}\r\n0\t ; c\r\n\r\n", 200, ""),
    "blanks within an extension": (b"2; a = b\r\n{}\r\n0\r\n\r\n", 200, ""),
    "a trailer": (b"2\r\n{}\r\n0\r\nX-A: b\r\nX-C:\r\n\r\n", 200, ""),
    "a trailer that would be another length": (b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n", 200, ""),
    "a blank after a size": (b"2 \r\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "a blank before a size": (b" 2\r\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "a plus": (b"+2\r\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "a minus": (b"-2\r\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "0x": (b"0x2\r\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "an underscore": (b"0_2\r\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "no size": (b"\r\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "an extension alone": (b";a\r\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "a size of seventeen digits": (b"1" + b"0" * 15 + b"2\r\n{}\r\n0\r\n\r\n", 400, "begin a chunk"),
    "a size of a thousand digits": (b"0" * 1000 + b"2\r\n{}\r\n0\r\n\r\n", 400, "begin a chunk"),
    "a line without end": (b"2;" + b"a" * 2000, 400, "more than 1024 bytes"),
    "a long line": (b"2;" + b"a" * 2000 + b"\r\n{}\r\n0\r\n\r\n", 400, "more than 1024 bytes"),
    "a bare LF after a size": (b"2\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "a bare LF in an extension": (b"2;a\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "a bare CR in an extension": (b"2;a\rb\r\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "NUL in an extension": (b"2;a\0\r\n{}\r\n0\r\n\r\n", 400, "does not begin a chunk"),
    "a chunk longer than its size": (b"2\r\n{}}\r\n0\r\n\r\n", 400, "not valid"),
    "a bare LF after a chunk": (b"2\r\n{}\n0\r\n\r\n", 400, "not valid"),
    "a trailer without a colon": (b"2\r\n{}\r\n0\r\nX-A\r\n\r\n", 400, "of its trailer is not a header"),
    "a trailer with a space before its colon": (b"2\r\n{}\r\n0\r\nX-A : b\r\n\r\n", 400, "not a header"),
    "a trailer with a bare LF": (b"2\r\n{}\r\n0\r\nX-A: b\nX-B: c\r\n\r\n", 400, "not a header"),
    "a trailer with NUL": (b"2\r\n{}\r\n0\r\nX-A: \0\r\n\r\n", 400, "not a header"),
    "a trailer of two lines": (b"2\r\n{}\r\n0\r\nX-A: b\r\n c\r\n\r\n", 400, "not a header"),
    "trailers without end": (b"2\r\n{}\r\n0\r\n" + b"X-A: b\r\n" * 9000, 400, "not valid"),
}


@each(CHUNKS)
@pytest.mark.parametrize("step", [1000, 1], ids=["whole", "bytewise"])
@pytest_twisted.ensureDeferred
async def test_a_body_in_chunks_is_read_as_the_grammar_has_it(case, step):
    body, status, words = case
    if step == 1 and len(body) > 1000:
        pytest.skip("the long ones come whole")
    async with served() as gateway:
        sent = POST + HOST + CLOSE + CHUNKED + b"\r\n" + body
        answers = await in_thread(trickle, gateway.port, sent, step)
        if status == 200:
            ((found, _, _),) = taken_apart(answers)
            assert found == 200
        else:
            assert_refused(answers, status, words)
        assert len(gateway.dispatcher.requests) == (status == 200)


def trickle(port, sent, step):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for at in range(0, len(sent), step):
                client.sendall(sent[at : at + step])
        except OSError:
            pass
        return read_all(client)


@pytest_twisted.ensureDeferred
async def test_a_coding_below_chunked_is_not_implemented():
    async with served() as gateway:
        sent = POST + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
        assert_refused(await in_thread(talk, gateway.port, sent), 501, "without 'gzip'")


@pytest_twisted.ensureDeferred
async def test_the_name_of_a_coding_has_no_case():
    async with served() as gateway:
        sent = POST + HOST + CLOSE + b"transfer-encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        ((status, _, _),) = taken_apart(await in_thread(talk, gateway.port, sent))
        assert status == 200


# -- lists in headers (RFC 9110 section 5.6.1) ------------------------------------------------------------

CONNECTIONS = {
    "close": (b"Connection: close\r\n", True),
    "close in capitals": (b"Connection: CLOSE\r\n", True),
    "a list": (b"Connection: keep-alive, close\r\n", True),
    "a list without blanks": (b"Connection: keep-alive,close,x\r\n", True),
    "a list with empty members": (b"Connection: ,, close ,\r\n", True),
    "two lines": (b"Connection: keep-alive\r\nConnection: close\r\n", True),
    "keep-alive": (b"Connection: keep-alive\r\n", False),
    "a longer word": (b"Connection: closed, x-close\r\n", False),
    "a list divided by blanks": (b"Connection: x close\r\n", False),
    "nothing": (b"", False),
}


@each(CONNECTIONS)
@pytest_twisted.ensureDeferred
async def test_a_connection_is_closed_where_its_list_says_close(case):
    headers, closes = case
    async with served() as gateway:
        one = b"GET / HTTP/1.1\r\n" + HOST
        sent = one + headers + b"\r\n" + one + CLOSE + b"\r\n"
        answers = taken_apart(await in_thread(talk, gateway.port, sent))
        assert len(answers) == (1 if closes else 2)
        assert (answers[0][1].get(b"connection") == b"close") == closes


UPGRADES = {
    "a list with another protocol": (b"Upgrade: h2c, websocket\r\n", 101),
    "two lines": (b"Upgrade: h2c\r\nUpgrade: WebSocket\r\n", 101),
    "another protocol": (b"Upgrade: h2c\r\n", 200),
    "none": (b"", 200),
}


@each(UPGRADES)
@pytest_twisted.ensureDeferred
async def test_an_upgrade_is_one_of_a_list(case):
    upgrade, status = case
    async with served(("websocket",)) as gateway:
        rest = UPGRADE.partition(b"\r\n")[2].replace(b"Connection: ", b"Connection: keep-alive, ")
        answer = await in_thread(first_line, gateway.port, b"GET / HTTP/1.1\r\n" + HOST + upgrade + rest)
        assert answer.startswith(b"HTTP/1.1 %d " % status)


@pytest_twisted.ensureDeferred
async def test_http_1_0_cannot_upgrade():
    async with served(("websocket",)) as gateway:
        answer = await in_thread(first_line, gateway.port, b"GET / HTTP/1.0\r\n" + HOST + UPGRADE)
        assert answer.startswith(b"HTTP/1.1 200 ")


def first_line(port, head):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head + b"\r\n")
        return client.makefile("rb").readline()


HANDSHAKES = {
    "no Connection": (b"Connection: Upgrade\r\n", b"", 400, "Connection"),
    "a Connection without Upgrade": (b"Connection: Upgrade", b"Connection: close", 400, "Connection"),
    "no key": (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400, "Sec-WebSocket-Key"),
    "a short key": (b"dGhlIHNhbXBsZSBub25jZQ==", b"<\xe4>", 400, "Sec-WebSocket-Key"),
    "another version": (b"Version: 13", b"Version: 7", 400, "version 7 not supported"),
    "another method": (b"GET", b"POST", 405, "POST"),
    "no version": (b"Sec-WebSocket-Version: 13\r\n", b"", 400, "denied"),
    "an origin that is none": (b"Host", b"Origin: x\r\nHost", 400, "Origin"),
    "another path": (b"GET /", b"GET /nowhere", 403, "Forbidden"),
}


@each(HANDSHAKES)
@pytest_twisted.ensureDeferred
async def test_a_handshake_that_cannot_be_is_refused_in_json(case):
    wrong, instead, status, words = case
    async with served(("websocket",)) as gateway:
        sent = b"GET / HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n"
        answer = await in_thread(talk, gateway.port, sent.replace(wrong, instead, 1), ends=status == 403)
        ((found, headers, body),) = taken_apart(answer)
        assert (found, headers[b"content-type"]) == (status, b"application/json")
        assert words in json.loads(body)["detail"]
        assert (b"sec-websocket-version" in headers) == (words == "version 7 not supported")


CODINGS = {
    "two lines": (b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", 415),
    "two of a kind": (b"Content-Encoding: gzip, deflate\r\n", 415),
    "one of them unknown": (b"Content-Encoding: br\r\nContent-Encoding: gzip\r\n", 415),
    "identity beside a coding": (b"Content-Encoding: identity\r\nContent-Encoding: br\r\n", 415),
    "identity twice": (b"Content-Encoding: identity\r\nContent-Encoding: Identity\r\n", 200),
    "nothing": (b"Content-Encoding:\r\n", 200),
}


@each(CODINGS)
@pytest_twisted.ensureDeferred
async def test_content_codings_are_one_list_however_many_lines(case):
    headers, status = case
    async with served() as gateway:
        sent = POST + HOST + CLOSE + TWO_BYTES + headers + b"\r\n{}"
        ((found, _, _),) = taken_apart(await in_thread(talk, gateway.port, sent))
        assert found == status


@pytest_twisted.ensureDeferred
async def test_accept_in_two_lines_is_one_list():
    async with served() as gateway:
        accept = b"Accept: application/x-protobuf\r\nAccept: application/json;q=0.5\r\n"
        sent = POST + HOST + CLOSE + TWO_BYTES + accept + b"\r\n{}"
        ((status, headers, _),) = taken_apart(await in_thread(talk, gateway.port, sent))
        assert (status, headers[b"content-type"]) == (200, b"application/x-protobuf")


@pytest_twisted.ensureDeferred
async def test_two_timeouts_are_a_mistake():
    async with served() as gateway:
        timeouts = b"X-Request-Timeout: 1\r\nX-Request-Timeout: 2\r\n"
        sent = POST + HOST + CLOSE + TWO_BYTES + timeouts + b"\r\n{}"
        ((status, _, body),) = taken_apart(await in_thread(talk, gateway.port, sent))
        assert (status, json.loads(body)["detail"][0]["loc"]) == (422, ["header", "X-Request-Timeout"])


# -- Expect: 100-continue (RFC 9110 section 10.1.1) -------------------------------------------------------

EXPECTATIONS = {
    "a body that is welcome": (b"POST /post", b"", 100),
    "a path with escapes": (b"POST /p%6fst", b"", 100),
    "no such path": (b"POST /nowhere", b"", 404),
    "a slash too many": (b"POST /post/", b"", 307),
    "another method": (b"PUT /post", b"", 405),
    "a method in lower case": (b"post /post", b"", 405),
    "an answer that is not to be had": (b"POST /post", b"Accept: text/html\r\n", 406),
    "an unknown coding": (b"POST /post", b"Content-Encoding: br\r\n", 415),
    "a timeout that is none": (b"POST /post", b"X-Request-Timeout: soon\r\n", 422),
    "no body": (b"POST /post", b"Content-Length: 0\r\n", 422),
    "too large a body": (b"POST /post", b"Content-Length: 100000001\r\n", 413),
}


@each(EXPECTATIONS)
@pytest_twisted.ensureDeferred
async def test_a_client_that_waits_with_its_body_gets_a_final_answer_at_once_where_there_is_one(case):
    line, headers, status = case
    length = b"" if b"Content-Length" in headers else b"Content-Length: 5000\r\n"
    head = line + b" HTTP/1.1\r\n" + HOST + length + headers + b"Expect: 100-continue\r\n"
    async with served() as gateway:
        assert (await in_thread(first_line, gateway.port, head)).startswith(b"HTTP/1.1 %d " % status)
        if status not in (100, 422):
            # One that sends its body all the same can read the answer, and is told that it ends there.
            sent = head + b"\r\n" + b" " * 5000 + SMUGGLED
            ((found, answer, _),) = taken_apart(await in_thread(talk, gateway.port, sent))
            assert (found, answer[b"connection"]) == (status, b"close")


@pytest_twisted.ensureDeferred
async def test_an_expectation_in_http_1_0_is_passed_over():
    async with served() as gateway:
        head = b"POST /post HTTP/1.0\r\n" + TWO_BYTES + b"Expect: 100-continue\r\n\r\n{}"
        ((status, _, _),) = taken_apart(await in_thread(talk, gateway.port, head))
        assert status == 200


# -- clients that half-close (RFC 9112 section 9) ---------------------------------------------------------

ASKED = POST + HOST + TWO_BYTES + b"\r\n{}"


def impatient(**more):
    return SiteLimits(body_bytes=100_000_000, linger_s=0.1, **more)


@pytest.mark.parametrize("protocols", [("http",), ("http", "websocket")], ids="+".join)
@pytest_twisted.ensureDeferred
async def test_a_client_that_half_closes_gets_its_answer(protocols):
    async with served(protocols, FakeDispatcher(held=True)) as gateway:
        asking = in_thread(talk, gateway.port, ASKED, ends=True)
        await until(lambda: gateway.dispatcher.requests)
        gateway.dispatcher.settle(gateway.dispatcher.requests[0].request_id)
        ((status, _, _),) = taken_apart(await asking)
        assert status == 200
        await until(lambda: not gateway.connections)


@pytest_twisted.ensureDeferred
async def test_a_client_that_half_closes_gets_all_of_a_large_answer():
    async with served() as gateway:
        body = json.dumps({"data": [{"text": "x" * 5_000_000}]}).encode()
        sent = POST + HOST + b"Content-Length: %d\r\n\r\n" % len(body) + body
        ((status, _, answer),) = taken_apart(await in_thread(talk, gateway.port, sent, ends=True))
        assert status == 200
        assert len(json.loads(answer)["data"][0]["text"]) == 5_000_000


@pytest_twisted.ensureDeferred
async def test_requests_sent_together_before_a_half_close_are_all_answered():
    async with served(dispatcher=FakeDispatcher(held=True)) as gateway:
        health = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
        asking = in_thread(talk, gateway.port, health + ASKED + health + health + ASKED + health, ends=True)
        for asked in (1, 2):
            await until(lambda asked=asked: len(gateway.dispatcher.requests) == asked)
            gateway.dispatcher.settle(gateway.dispatcher.requests[-1].request_id)
        assert [status for status, _, _ in taken_apart(await asking)] == [200] * 6


@pytest.mark.parametrize("sent", [b"GET / HT", POST, POST + HOST, POST + HOST + TWO_BYTES + b"\r\n{"])
@pytest_twisted.ensureDeferred
async def test_a_request_that_ends_too_early_is_refused(sent):
    async with served() as gateway:
        assert_refused(await in_thread(talk, gateway.port, sent, ends=True), 400, "it ends too early")
        await until(lambda: not gateway.connections)


@pytest_twisted.ensureDeferred
async def test_a_client_that_says_nothing_and_half_closes_is_closed():
    async with served() as gateway:
        assert await in_thread(talk, gateway.port, b"", ends=True) == b""


@pytest_twisted.ensureDeferred
async def test_a_client_that_half_closes_is_asked_for_a_sign_of_life_and_answered():
    async with served(dispatcher=FakeDispatcher(held=True), limits=impatient(trust_s=0.05)) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
            client.sendall(ASKED)
            client.shutdown(socket.SHUT_WR)
            interim = await in_thread(client.recv, 65536)
            assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
            gateway.dispatcher.settle(gateway.dispatcher.requests[0].request_id)
            ((status, _, _),) = taken_apart(await in_thread(read_all, client))
            assert status == 200


@pytest_twisted.ensureDeferred
async def test_the_work_for_a_client_that_has_gone_is_cancelled():
    async with served(dispatcher=FakeDispatcher(held=True), limits=impatient(trust_s=0.05)) as gateway:
        client = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        client.sendall(ASKED)
        await until(lambda: gateway.dispatcher.requests)
        client.close()
        await until(lambda: gateway.dispatcher.cancelled)
        assert not gateway.connections


@pytest_twisted.ensureDeferred
async def test_a_half_closed_client_that_goes_later_is_noticed():
    async with served(dispatcher=FakeDispatcher(held=True), limits=impatient(trust_s=0.05)) as gateway:
        client = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        client.sendall(ASKED)
        client.shutdown(socket.SHUT_WR)
        assert (await in_thread(client.recv, 65536)).startswith(b"HTTP/1.1 100 ")
        assert not gateway.dispatcher.cancelled
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await until(lambda: gateway.dispatcher.cancelled)


@pytest_twisted.ensureDeferred
async def test_a_half_closed_client_of_http_1_0_gets_no_interim_response():
    async with served(dispatcher=FakeDispatcher(held=True), limits=impatient(trust_s=0.01)) as gateway:
        sent = b"POST /post HTTP/1.0\r\n" + TWO_BYTES + b"\r\n{}"
        asking = in_thread(talk, gateway.port, sent, ends=True)
        await until(lambda: gateway.dispatcher.requests)
        (channel,) = gateway.connections
        await until(lambda: channel._input_ended and channel._doubt is None)
        gateway.dispatcher.settle(gateway.dispatcher.requests[0].request_id)
        ((status, _, _),) = taken_apart(await asking)
        assert status == 200


# -- the pure part ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a/b?c=/d", b"/a/b"),
        (b"//a", b"//a"),
        (b"/http://a/b", b"/http://a/b"),
        (b"http://a/b?c", b"/b"),
        (b"http://a", b"/"),
        (b"http://a?b", b"/"),
        (b"*", b"*"),
        (b"a:443", b"a:443"),
    ],
)
def test_the_path_of_a_target(target, path):
    assert origin_form(target) == path


@pytest.mark.parametrize("text", [b"", b"a", b"a:", b"a:1", b"1.2.3.4:5", b"[::ffff:1.2.3.4]", b"[v1.a:b]:2"])
def test_hosts_there_may_be(text):
    assert is_authority(text)


@pytest.mark.parametrize(
    "text", [b"a:b", b"[::1", b"[]", b"[a]", b"[fe80::1%25eth0]", b"a\n", b"%zz", b"a:1:2"]
)
def test_hosts_there_cannot_be(text):
    assert not is_authority(text)


def test_members_of_a_list_and_lengths():
    assert members([b"a, B\t,,", b"", b" c d "]) == [b"a", b"b", b"c d"]
    assert content_length(b"007") == 7
