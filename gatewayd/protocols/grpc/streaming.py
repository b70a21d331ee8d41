"""
One ``Call`` under way: its requests, and which answer goes out next, by callbacks.

    reading --(window has room)--> dispatching --(answered, in its turn)--> sending
       ^                                                                       |
       +------------------------(sent: the window has room)--------------------+

If a client does not read, sending stops, then the window fills up, then reading stops.

A request to an endpoint that streams is answered by a message for each answer of the stream (``Crossing``),
and keeps its place in the window until the last has left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from gatewayd.errors import Draining, EndpointStreams, Overloaded
from gatewayd.messages import wire
from gatewayd.messages.caller import ANONYMOUS
from gatewayd.messages.headers import Headers, as_metadata
from gatewayd.messages.parts import PartResponses
from gatewayd.messages.request import Request, Response
from gatewayd.messages.rope import Content
from gatewayd.protocols.grpc.crossing import AHEAD, Crossing
from gatewayd.protocols.grpc.errors import Metadata
from gatewayd.protocols.grpc.requests import completed, final_status
from gatewayd.protocols.streamed import Streamed
from gatewayd.protocols.window import UNREAD, Window
from gatewayd.rpc.server.call import ServerCall

if TYPE_CHECKING:
    from gatewayd.protocols.grpc.serving import CallServicer

# With a crossing, it is of a stream: one of its answers, or, as a failure or None, its end.
Outcome = tuple[Request, Response | Failure | None, Crossing | None]


class CallStream:
    """A ``MessageHandler``. It is in ``open`` until it ends."""

    def __init__(
        self,
        servicer: CallServicer,
        call: ServerCall,
        window: Window[Outcome],
        headers: Headers,
        open: set[CallStream],
    ) -> None:
        self._servicer = servicer
        self._call = call
        self._window = window
        self._headers = headers
        self._metadata: Headers = ()  # those of all answers, as far as they are bounded
        self._in_flight: dict[int, Callable[[], None]] = {}  # by ticket, what cancels it
        self._outgoing: deque[Outcome] = deque()
        self._crossings: dict[Crossing, PartResponses] = {}  # with what encodes the answers of each
        self._streamed: Streamed[Outcome] = Streamed(window, self._outgoing)
        self._sending = False
        self._sending_part = False  # of a stream, which has no place in the window
        self._inflating = False
        self._half_closed = False
        self._read_error: BaseException | None = None
        self._draining = False
        self._refused: Request | None = None  # the first that came too late
        self._open = open
        open.add(self)
        if call.over:
            self._close()

    # -- MessageHandler ------------------------------------------------------------------------------

    def on_message(self, message: Content, compressed: bool) -> None:
        if compressed:
            self._inflating = True
            self._call.pause_reading()
            self._servicer.inflate(self._call, bytes(message), self._inflated)
        else:
            self._admit(message)

    def on_half_closed(self) -> None:
        self._half_closed = True
        self._advance()

    def on_sent(self) -> None:
        self._sending = False
        if self._sending_part:
            self._sending_part = False
        else:
            self._window.written()
        self._advance()

    def on_cancelled(self) -> None:
        self._close()

    # -- the gateway ---------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no more requests than have arrived."""
        self._draining = True
        self._advance()

    # -- requests ------------------------------------------------------------------------------------

    def _inflated(self, message: bytes | Failure) -> None:
        self._inflating = False
        if isinstance(message, Failure):
            self._cannot_read(message.value)
        else:
            self._admit(message)

    def _admit(self, message: Content) -> None:
        call = self._call
        try:
            request = wire.decode_request(message)
            if self._headers or call.caller is not None:
                request = completed(request, self._headers, call.caller or ANONYMOUS)
        except Exception as error:
            self._cannot_read(error)
            return
        ticket = self._window.admit()
        self._in_flight[ticket] = self._servicer.dispatch(
            partial(self._answered, ticket, request), request, call.time_remaining(), True
        )
        self._set_reading()

    def _cannot_read(self, error: BaseException | None) -> None:
        self._read_error = error or RuntimeError("a failure without an exception")
        self._advance()

    def _set_reading(self) -> None:
        """Read as long as the window has room."""
        if self._call.over:
            return
        stopped = self._draining or self._inflating or self._read_error is not None
        if stopped or not self._window.has_room:
            self._call.pause_reading()
        else:
            self._call.resume_reading()

    # -- answers -------------------------------------------------------------------------------------

    def _answered(self, ticket: int, request: Request, response: Response | Failure) -> None:
        del self._in_flight[ticket]
        size = 0
        if not isinstance(response, Failure):
            size = len(response.documents) + len(response.parameters or b"")
        elif isinstance(response.value, EndpointStreams):
            self._stream(ticket, request)
            return
        self._outgoing.extend(self._window.answered(ticket, (request, response, None), size))
        if self._streamed.held:
            self._streamed.advance()
        if self._window.is_flooded:
            self._end(Overloaded(UNREAD), None)
        else:
            self._advance()

    def _stream(self, ticket: int, request: Request) -> None:
        """Answer ``request`` with all that its endpoint streams."""
        self._streamed.begin(ticket)

        def arrived(found: list[Response] | Failure | None) -> None:
            if isinstance(found, list):
                for each in found:
                    self._streamed.arrived(
                        ticket, (request, each, crossing), len(each.documents) + len(each.parameters or b"")
                    )
            else:
                self._streamed.ended(ticket, (request, found, crossing))
            self._advance()

        crossing = self._servicer.cross(request, self._call.time_remaining(), arrived)
        # Executors name each answer anew; a client knows its own name for the request.
        self._crossings[crossing] = PartResponses(request.request_id, request.endpoint)

    def _advance(self) -> None:
        """Send what may be sent, and end if nothing more can come."""
        call, window = self._call, self._window
        while self._outgoing and not self._sending and not call.over:
            request, response, crossing = self._outgoing[0]
            if crossing is not None and isinstance(response, Response):
                self._send_parts()
                continue
            self._outgoing.popleft()
            if crossing is not None:
                crossing.close()
                del self._crossings[crossing]
            if (crossing is not None and response is None) or self._send(request, response):
                window.written()
            else:
                self._sending = True
        if call.over or self._sending:
            return
        if not window.idle:
            self._set_reading()
        elif self._read_error is not None:
            self._end(self._read_error, None)
        elif self._refused is not None:
            self._end_with_marker(Draining(), self._refused)
        elif self._half_closed:
            self._finish("OK", "")
        elif self._draining and not self._inflating:
            self._end(Draining(), None)
        else:
            self._set_reading()

    def _send_parts(self) -> None:
        """Answers of streams, as many as are next; they hold no places in the window."""
        outgoing = self._outgoing
        messages: list[Content] = []
        while outgoing and len(messages) < AHEAD:
            request, response, crossing = outgoing[0]
            if crossing is None or not isinstance(response, Response):
                break
            outgoing.popleft()
            self._streamed.left(len(response.documents) + len(response.parameters or b""))
            # No more of them that are taken are still being sent than may be on their way.
            crossing.taken()
            try:
                messages.append(self._crossings[crossing](response))
            except Exception as error:
                outgoing.appendleft((request, Failure(error), None))
                break
            self._collect(response.headers)
        if messages:
            self._sending = self._sending_part = not self._call.send_all(messages)

    def _collect(self, headers: Headers) -> None:
        """The call ends with the headers of all answers, for clients that read metadata only."""
        if headers:
            self._metadata = self._servicer.forwarded.bounded(self._metadata + headers)

    def _send(self, request: Request, response: Response | Failure | None) -> bool:
        """Whether the answer has left."""
        if isinstance(response, Failure):
            if isinstance(response.value, Draining):
                self._draining = True
                self._refused = self._refused or request
                return True
            self._end_with_marker(response.value, request)
            return False
        try:
            assert response is not None, "only a stream ends without an answer"
            message = wire.encode_response(response)
        except Exception as error:
            self._end_with_marker(error, request)
            return False
        self._collect(response.headers)
        return self._call.send(message)

    # -- the end -------------------------------------------------------------------------------------

    def _end_with_marker(self, error: BaseException | None, request: Request) -> None:
        # Tells clients of the reference which of their requests failed.
        self._call.send(wire.encode_request_id(request.request_id))
        self._end(error or RuntimeError("a failure without an exception"), request)

    def _end(self, error: BaseException, request: Request | None) -> None:
        self._finish(*final_status(error, request))

    def _finish(self, code: str, details: str, metadata: Metadata = ()) -> None:
        self._close()
        self._call.cancel = None
        self._call.finish(code, details, (*as_metadata(self._metadata), *metadata))

    def _close(self) -> None:
        self._open.discard(self)
        self._outgoing.clear()
        in_flight, self._in_flight = self._in_flight, {}
        for cancel in in_flight.values():
            cancel()
        crossings, self._crossings = self._crossings, {}
        for crossing in crossings:
            crossing.close()
