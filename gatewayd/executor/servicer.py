"""
The gRPC methods of one executor, by callbacks: bytes in, ``handling.py``, bytes out.

Messages of one ``Call`` are answered one at a time: while one waits to be read, HTTP/2's flow control slows
the client down. Event loop's thread only.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from google.protobuf.message import DecodeError

from gatewayd.allowance import Bounded
from gatewayd.errors import BadRequest, TooLarge, codes_for
from gatewayd.executor.answers import Handled, Outlet
from gatewayd.executor.handling import Handling
from gatewayd.inflating import Damaged, inflated
from gatewayd.messages import methods
from gatewayd.messages.headers import Headers, as_metadata
from gatewayd.messages.wire import Malformed, decode_call_list
from gatewayd.pb import JinaInfoProto
from gatewayd.rpc.server.call import ServerCall, Streaming, Unary
from gatewayd.status import status_maps

log = logging.getLogger(__name__)
log.addFilter(Bounded())  # clients can make methods fail as often as they like

_FAILED: Final = ("is-error", "true")
# Of the text of a status: it has to fit into the metadata that clients accept, percent-encoded.
_LONGEST_DETAILS: Final = 1500

# The pairs of a call's trailing metadata, without repetitions: the keys.
_Trailing = dict[tuple[str, str | bytes], None]
_Done = Callable[[Handled], object]


class Servicer:
    """``max_message_bytes`` is how large a compressed message may become."""

    def __init__(self, handling: Handling, max_message_bytes: int) -> None:
        self._handling = handling
        self._max_message_bytes = max_message_bytes
        self._received_bytes = 0
        self._sent_bytes = 0
        # What is being inflated is not counted anywhere.
        self._inflating = asyncio.Semaphore(2)
        self._tasks: set[asyncio.Task[None]] = set()

    def methods(self) -> dict[str, Unary | Streaming]:
        """Each method by its path."""
        return {
            methods.SINGLE: Unary(self._process_single_data),
            methods.LISTED: Unary(self._process_data),
            methods.STREAM: Streaming(lambda call: _Conversation(self, call)),
            methods.STREAM_DOC: Streaming(lambda call: _Documents(self, call)),
            methods.DISCOVERY: Unary(self._endpoint_discovery),
            methods.STATUS: Unary(self._status),
        }

    def plain(
        self, call: ServerCall, message: bytes, compressed: bool, done: Callable[[bytes], object]
    ) -> None:
        """Call ``done`` with the message as it was before it was compressed, now or later."""
        if not compressed:
            done(message)
            return
        task = asyncio.get_running_loop().create_task(self._inflate(call, message, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        call.cancel = task.cancel

    def answer(self, call: ServerCall, messages: Sequence[bytes], size: int, done: _Done) -> None:
        """Call ``done`` with the answer to one request, unless the call is over by then, or fails."""
        self._received_bytes += size
        try:
            cancel = self._handling.begin(
                messages, lambda: call.head.metadata, partial(self._answered, call, done)
            )
        except (Malformed, DecodeError) as error:
            call.fail("INVALID_ARGUMENT", str(error))
        except Exception as error:
            self._fail(call, error)
        else:
            if not call.over:
                call.cancel = cancel

    async def _inflate(self, call: ServerCall, message: bytes, done: Callable[[bytes], object]) -> None:
        offload = partial(asyncio.get_running_loop().run_in_executor, None)
        try:
            async with self._inflating:
                found = await inflated(message, self._max_message_bytes, lambda count: None, offload)
        except Damaged as error:
            call.fail("INVALID_ARGUMENT", f"the message cannot be decompressed: {error}")
        except TooLarge as error:
            call.fail(codes_for(error).grpc, str(error))
        else:
            call.cancel = None
            done(found)

    def stream(self, call: ServerCall, message: bytes, outlet: Outlet) -> None:
        """Answer one document with a stream, unless the call fails."""
        self._received_bytes += len(message)
        try:
            cancel = self._handling.begin_stream(message, lambda: call.head.metadata, outlet)
        except (Malformed, DecodeError) as error:
            call.fail("INVALID_ARGUMENT", str(error))
        else:
            if not call.over:
                call.cancel = cancel

    def sent(self, size: int) -> None:
        """Count what was sent."""
        self._sent_bytes += size

    def _answered(self, call: ServerCall, done: _Done, handled: Handled | BaseException) -> None:
        if call.over:
            return
        call.cancel = None
        if isinstance(handled, Handled):
            self._sent_bytes += len(handled.message)
            done(handled)
        else:
            self._fail(call, handled)

    def _fail(self, call: ServerCall, error: BaseException) -> None:
        """A defect, or a method that was cancelled by what it awaits."""
        if not isinstance(error, asyncio.CancelledError):
            log.error("a request cannot be answered", exc_info=error)
        fail(call, error)

    # -- the methods ---------------------------------------------------------------------------------

    def _process_single_data(self, call: ServerCall, message: bytes, compressed: bool) -> None:
        self.plain(call, message, compressed, partial(self._answer_single, call))

    def _answer_single(self, call: ServerCall, message: bytes) -> None:
        self.answer(call, (message,), len(message), partial(_respond, call))

    def _process_data(self, call: ServerCall, message: bytes, compressed: bool) -> None:
        self.plain(call, message, compressed, partial(self._answer_list, call))

    def _answer_list(self, call: ServerCall, message: bytes) -> None:
        try:
            parts = decode_call_list(message)
        except Malformed as error:
            call.fail("INVALID_ARGUMENT", f"not a DataRequestListProto: {error}")
        else:
            self.answer(call, parts, len(message), partial(_respond, call))

    def _endpoint_discovery(self, call: ServerCall, _message: bytes, _compressed: bool) -> None:
        call.respond(self._handling.discovery)

    def _status(self, call: ServerCall, _message: bytes, _compressed: bool) -> None:
        # Where the reference keeps these totals (spec status.md).
        if self._received_bytes:
            os.environ["JINA_GRPC_RECV_BYTES"] = str(self._received_bytes)
            os.environ["JINA_GRPC_SEND_BYTES"] = str(self._sent_bytes)
        versions, environment = status_maps()
        call.respond(JinaInfoProto(jina=versions, envs=environment).SerializeToString())


def fail(call: ServerCall, error: BaseException) -> None:
    """End a call with what a method raised, or what was wrong with the request, in the reference's words."""
    if isinstance(error, asyncio.CancelledError):
        call.fail("CANCELLED", "the method was cancelled")
    elif isinstance(error, BadRequest):
        call.fail(codes_for(error).grpc, str(error))
    else:
        call.fail("UNKNOWN", f"Unexpected {type(error)}: {_text(error)}"[:_LONGEST_DETAILS])


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # a user's class
        return f"<it cannot be shown: {type(second).__name__}>"


def _add(trailing: _Trailing, handled: Handled) -> None:
    trailing.update(dict.fromkeys(as_metadata(handled.headers)))
    if handled.failed:
        trailing[_FAILED] = None


def _respond(call: ServerCall, handled: Handled) -> None:
    trailing: _Trailing = {}
    if handled.failed or handled.headers:
        _add(trailing, handled)
    call.respond(handled.message, tuple(trailing))


class _Conversation:
    """One ``Call`` (a ``MessageHandler``). Its trailing metadata are those of all its answers."""

    def __init__(self, servicer: Servicer, call: ServerCall) -> None:
        self._servicer = servicer
        self._call = call
        self._trailing: _Trailing = {}

    def on_message(self, message: bytes, compressed: bool) -> None:
        self._call.pause_reading()
        self._servicer.plain(self._call, message, compressed, self._answer)

    def on_half_closed(self) -> None:
        # Nothing is under way: nothing is read, nor is its end, while something is.
        self._call.finish(metadata=tuple(self._trailing))

    def on_sent(self) -> None:
        self._call.resume_reading()

    def on_cancelled(self) -> None:
        """The call's ``cancel`` ends what is under way."""

    def _answer(self, message: bytes) -> None:
        self._servicer.answer(self._call, (message,), len(message), self._answered)

    def _answered(self, handled: Handled) -> None:
        if handled.failed or handled.headers:
            _add(self._trailing, handled)
        if self._call.send(handled.message):
            self._call.resume_reading()


class _Documents:
    """
    One ``stream_doc`` (a ``MessageHandler``, and an ``Outlet``).

    Its generator is asked for the next document once the last one has left: a client that does not read has
    at most one waiting for it here.
    """

    def __init__(self, servicer: Servicer, call: ServerCall) -> None:
        self._servicer = servicer
        self._call = call
        self._left: asyncio.Future[None] | None = None

    def on_message(self, message: bytes, compressed: bool) -> None:
        # There is only one: what may come after it stays unread.
        self._call.pause_reading()
        self._servicer.plain(self._call, message, compressed, self._begin)

    def on_half_closed(self) -> None:
        self._call.fail("UNIMPLEMENTED", "this method takes one message, and there is none")

    def on_sent(self) -> None:
        left, self._left = self._left, None
        if left is not None and not left.done():
            left.set_result(None)

    def on_cancelled(self) -> None:
        """The call's ``cancel`` closes the generator."""

    async def send(self, message: bytes) -> None:
        self._servicer.sent(len(message))
        if not self._call.send(message):
            # Where the call is over, this is cancelled.
            self._left = asyncio.get_running_loop().create_future()
            await self._left

    def finished(self, failure: BaseException | None, headers: Headers) -> None:
        if self._call.over:
            return
        self._call.cancel = None
        if failure is None:
            self._call.finish(metadata=tuple(as_metadata(headers)))
        else:
            fail(self._call, failure)

    def _begin(self, message: bytes) -> None:
        self._servicer.stream(self._call, message, self)
