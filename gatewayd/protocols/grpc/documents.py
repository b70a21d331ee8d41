"""
One call of ``stream_doc``: a document comes in, and any number goes out, by callbacks (spec 34/streaming.md).

    message ──> Crossing ──> answers ──> sent, those that have come together in one piece, as the client reads
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from gatewayd.messages.caller import ANONYMOUS
from gatewayd.messages.headers import Headers, as_metadata
from gatewayd.messages.parts import SingleResponses
from gatewayd.messages.request import Request, Response
from gatewayd.messages.rope import Content
from gatewayd.messages.single import decode_single_request
from gatewayd.protocols.grpc.crossing import Crossing
from gatewayd.protocols.grpc.requests import completed, final_status
from gatewayd.rpc.server.call import ServerCall

if TYPE_CHECKING:
    from gatewayd.protocols.grpc.serving import CallServicer


class DocumentCall:
    """A ``MessageHandler``."""

    def __init__(self, servicer: CallServicer, call: ServerCall, headers: Headers) -> None:
        self._servicer = servicer
        self._call = call
        self._headers = headers
        self._metadata: Headers = ()  # those of all answers, as far as they are bounded
        self._has_message = False
        self._request: Request | None = None
        self._crossing: Crossing | None = None
        self._encode = SingleResponses()
        self._outgoing: deque[tuple[list[Content], int]] = deque()  # messages, and how many answers they are
        self._sending = 0  # answers that have not left yet
        self._ended = False
        self._failure: Failure | None = None

    # -- MessageHandler ------------------------------------------------------------------------------

    def on_message(self, message: Content, compressed: bool) -> None:
        if self._has_message:
            self._finish("UNIMPLEMENTED", "this method takes one message, and there are several")
            return
        self._has_message = True
        if compressed:
            self._servicer.inflate(self._call, bytes(message), self._begin)
        else:
            self._begin(message)

    def on_half_closed(self) -> None:
        if not self._has_message:
            self._finish("UNIMPLEMENTED", "this method takes one message, and there is none")

    def on_sent(self) -> None:
        count, self._sending = self._sending, 0
        if self._crossing is not None:
            self._crossing.taken(count)
        self._advance()

    def on_cancelled(self) -> None:
        self._close()

    # -- the stream ----------------------------------------------------------------------------------

    def _begin(self, message: Content | Failure) -> None:
        call = self._call
        try:
            if isinstance(message, Failure):
                message.raiseException()
            request = decode_single_request(message)
            if self._headers or call.caller is not None:
                request = completed(request, self._headers, call.caller or ANONYMOUS)
        except Exception as error:
            self._fail(error)
            return
        self._request = request
        self._crossing = self._servicer.cross(request, call.time_remaining(), self._answered)

    def _answered(self, found: list[Response] | Failure | None) -> None:
        if self._ended:
            return
        if isinstance(found, list):
            messages: list[Content] = []
            count = 0
            try:
                for response in found:
                    messages += self._encode(response)
                    count += 1
                    if response.headers:
                        self._metadata = self._servicer.forwarded.bounded(self._metadata + response.headers)
            except Exception as error:
                self._ended, self._failure = True, Failure(error)
            if messages:
                self._outgoing.append((messages, count))
        else:
            self._ended, self._failure = True, found
        self._advance()

    def _advance(self) -> None:
        call = self._call
        while self._outgoing and not self._sending and not call.over:
            messages, count = self._outgoing.popleft()
            if not call.send_all(messages):
                self._sending = count
            elif self._crossing is not None:
                self._crossing.taken(count)
        if not self._ended or self._outgoing or self._sending or call.over:
            return
        if self._failure is None:
            self._finish("OK", "")
        else:
            self._fail(self._failure.value or RuntimeError("a failure without an exception"))

    # -- the end -------------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        code, details, metadata = final_status(error, self._request)
        self._close()
        self._call.cancel = None
        self._call.finish(code, details, (*as_metadata(self._metadata), *metadata))

    def _finish(self, code: str, details: str) -> None:
        self._close()
        self._call.cancel = None
        self._call.finish(code, details, as_metadata(self._metadata))

    def _close(self) -> None:
        self._outgoing.clear()
        if self._crossing is not None:
            self._crossing.close()
