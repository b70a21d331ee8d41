"""
What becomes of one WebSocket connection, decided without I/O.

Each data message is a request, answered in the order of completion, or of the requests if the client asks
for that. A ``Window`` bounds what is under way.
While it is full, or while the client does not read what is sent to it, reading is paused, so that a client
can make the gateway hold no more than its window and one read.

    open ── end of input, or drain() ──► ending ── nothing under way ──► close frame ──► closed
      └──────────── error ──────────────────────────────────────────────────┘

Every method takes an event and returns the actions that follow, to be taken in their order. Taking one may
bring about the next event at once.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

from gatewayd.errors import Draining, ExecutorNetworkError, GatewayError, Overloaded, UnsupportedFrame
from gatewayd.protocols.failures import failure_status
from gatewayd.protocols.websocket.errors import (
    NORMAL_CLOSURE,
    CloseFrame,
    encode_dry_run_error,
    encode_error,
)
from gatewayd.protocols.websocket.frames import Frames
from gatewayd.protocols.window import UNREAD, Window


class Dispatch:
    """Have the request in ``payload`` answered; ``ticket`` names it when it is."""

    __slots__ = ("payload", "ticket")

    def __init__(self, ticket: int, payload: bytes) -> None:
        self.ticket = ticket
        self.payload = payload


class SendMessage:
    """
    Send one message in one frame, then report it with ``Conversation.sent``.

    ``compressed`` is what permessage-deflate makes of ``payload``, None to send that itself. One that is not
    the ``last`` of its request is not reported: further ones follow.
    """

    __slots__ = ("compressed", "is_last", "payload")

    def __init__(self, payload: bytes, compressed: bytes | None = None, *, is_last: bool = True) -> None:
        self.payload = payload
        self.compressed = compressed
        self.is_last = is_last


@attrs.frozen
class Close:
    """Send a close frame, and nothing after it."""

    frame: CloseFrame


class Command(Enum):
    """The actions that need no values."""

    DRY_RUN = "dry run"
    PAUSE_READING = "pause reading"
    RESUME_READING = "resume reading"
    CANCEL_REQUESTS = "cancel requests"


Action = Dispatch | SendMessage | Close | Command
Actions = tuple[Action, ...]

# Looking a member of an Enum up costs more than comparing it.
DRY_RUN: Final = Command.DRY_RUN
PAUSE_READING: Final = Command.PAUSE_READING
RESUME_READING: Final = Command.RESUME_READING
CANCEL_REQUESTS: Final = Command.CANCEL_REQUESTS

_NOTHING: Final[Actions] = ()
_PAUSE: Final[Actions] = (PAUSE_READING,)
_RESUME: Final[Actions] = (RESUME_READING,)


class Conversation:
    """
    One connection, from its handshake to its end.

    ``prefetch`` bounds the requests under way, 0 for no bound. With ``ordered``, answers are held until those
    to earlier requests are sent. On ``is_dry_run`` connections there are no requests: a dry run is reported,
    and that is all.
    """

    def __init__(
        self,
        frames: Frames,
        prefetch: int,
        *,
        ordered: bool = False,
        is_dry_run: bool = False,
        unsent_bytes: int = 0,
    ) -> None:
        self.frames = frames
        # Whether received bytes may be parsed: false from the moment on when PAUSE_READING is returned.
        self.is_reading = True
        self._is_dry_run = is_dry_run
        self._window: Window[SendMessage] = Window(prefetch, ordered, unsent_bytes)
        self._sent = 0  # answers handed to a transport that has not written them yet
        self._client_is_behind = False
        self._end: CloseFrame | None = None  # what to close with when nothing is under way
        self._is_open = True

    def opened(self) -> Actions:
        """The handshake is done."""
        return (DRY_RUN,) if self._is_dry_run else _NOTHING

    # -- requests -------------------------------------------------------------------------------------

    def message_received(self, payload: bytes, *, is_binary: bool) -> Actions:
        """A whole message. Not to be called while ``is_reading`` is false."""
        if not self._is_open or self._end is not None or self._is_dry_run:
            return _NOTHING
        frames = self.frames
        if is_binary != frames.binary:
            return self._close(encode_error(UnsupportedFrame(frames.name, binary=frames.binary)))
        if frames.ends_input(payload):
            self._end = NORMAL_CLOSURE
            return self._settle()
        dispatch = Dispatch(self._window.admit(), payload)
        if self._window.has_room and not self._client_is_behind:
            return (dispatch,)
        # Pausing comes first: the answer may be there before Dispatch has returned, and it resumes.
        self.is_reading = False
        return (PAUSE_READING, dispatch)

    def arrived(self, ticket: int, size_bytes: int) -> Actions:
        """The answer of ``ticket`` is here, and is held from now on; ``answered`` follows."""
        if not self._is_open:
            return _NOTHING
        self._window.arrived(ticket, size_bytes)
        if self._window.is_flooded:
            return self.failed(Overloaded(UNREAD))
        return self._settle()

    def answered(self, ticket: int, payload: bytes, compressed: bytes | None = None) -> Actions:
        """The request ``ticket`` has an answer."""
        if not self._is_open:
            return _NOTHING
        size = len(payload if compressed is None else compressed)
        released = self._window.answered(ticket, SendMessage(payload, compressed), size)
        if self._window.is_flooded:
            return self.failed(Overloaded(UNREAD))
        return tuple(released)

    def streamed(self, payload: bytes, compressed: bytes | None = None) -> Actions:
        """
        A document of a stream, whose request is under way until ``answered``.

        Whoever has it waits, as long as ``client_is_behind``.
        """
        return (SendMessage(payload, compressed, is_last=False),) if self._is_open else _NOTHING

    @property
    def client_is_behind(self) -> bool:
        """Whether what was sent waits for the client to read."""
        return self._client_is_behind

    def sent(self) -> Actions:
        """The transport took a SendMessage; while the client keeps up, that counts as written."""
        if not self._is_open:
            return _NOTHING
        if self._client_is_behind:
            self._sent += 1
            return _NOTHING
        self._window.written()
        return _NOTHING if self.is_reading and self._end is None else self._settle()

    def failed(self, error: GatewayError) -> Actions:
        """A request, or the reading of one, failed: that ends the connection."""
        return self._close(encode_error(error))

    def dry_run_ended(self, error: GatewayError | None) -> Actions:
        """The dry run succeeded, or failed with ``error`` (spec websocket.md)."""
        if not self._is_open:
            return _NOTHING
        if isinstance(error, ExecutorNetworkError):
            return self._close(encode_dry_run_error(error))
        status = b"" if error is None else failure_status(error)
        return (SendMessage(self.frames.encode_status(status)), *self._close(NORMAL_CLOSURE))

    # -- the connection -------------------------------------------------------------------------------

    def client_fell_behind(self) -> Actions:
        """What was sent waits for the client to read."""
        self._client_is_behind = True
        return self._settle()

    def client_caught_up(self) -> Actions:
        """All that was sent has been written."""
        self._client_is_behind = False
        return self._settle()

    def drain(self) -> Actions:
        """Take no more requests; close when those under way are answered."""
        self._end = self._end or encode_error(Draining())
        return self._settle()

    def close_now(self) -> Actions:
        """Close without waiting for answers, because the gateway stops."""
        return self._close(encode_error(Draining()))

    def ended(self) -> Actions:
        """The connection is lost, or a close frame was sent or received: answers have nowhere to go."""
        return self._ended() if self._is_open else _NOTHING

    @property
    def is_open(self) -> bool:
        """Whether answers still have somewhere to go."""
        return self._is_open

    @property
    def unsent_bytes(self) -> int:
        """The answers that the transport has not taken, or not written."""
        return self._window.unsent_bytes if self._is_open else 0

    # -- what follows ---------------------------------------------------------------------------------

    def _settle(self) -> Actions:
        """Free the places of what was written; then close, pause or resume."""
        if not self._is_open:
            return _NOTHING
        if self._sent and not self._client_is_behind:
            sent, self._sent = self._sent, 0
            self._window.written(sent)
        if self._end is not None and self._window.idle and not self._is_dry_run:
            return self._close(self._end)
        if self._window.has_room and not self._client_is_behind:
            if self.is_reading:
                return _NOTHING
            self.is_reading = True
            return _RESUME
        if not self.is_reading:
            return _NOTHING
        self.is_reading = False
        return _PAUSE

    def _close(self, frame: CloseFrame) -> Actions:
        return (Close(frame), *self._ended()) if self._is_open else _NOTHING

    def _ended(self) -> Actions:
        self._is_open = False
        if self.is_reading:
            return (CANCEL_REQUESTS,)
        # Or the client's own close frame would never be seen.
        self.is_reading = True
        return (CANCEL_REQUESTS, RESUME_READING)
