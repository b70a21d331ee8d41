"""
A request to a Deployment that is answered with a stream, from one of its replicas. Reactor thread only.

    waiting, calling, backing off: as any call ──(the first answer)──> streaming ──> over

Up to the first answer everything is as in ``sender.py``, retries included. From then on that replica is the
only one: what goes wrong is the end. Its slot is held until the call is over.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from gatewayd.deadlines import left_s
from gatewayd.errors import Draining
from gatewayd.messages.request import Answer, Call
from gatewayd.pool.replica import CallInHand, Replica, StreamInHand
from gatewayd.pool.sender import PendingCall, Prepare, Sender


class _Asked:
    """What of a Deferred is needed here."""

    __slots__ = ("_cancelled", "callback", "errback")

    def __init__(
        self,
        cancelled: Callable[[object], object],
        callback: Callable[[Answer | None], object],
        errback: Callable[[Failure], object],
    ) -> None:
        self._cancelled = cancelled
        self.callback = callback
        self.errback = errback

    def cancel(self) -> None:
        self._cancelled(None)
        self.errback(Failure(CancelledError()))


class ExecutorStream(PendingCall):
    """The answers of one replica, which are pulled."""

    __slots__ = ("_begun", "_deadline_s", "_left", "_over", "_started", "_stream")

    streams = True

    def __init__(self, sender: Sender, call: Call, timeout_s: float | None) -> None:
        PendingCall.__init__(self, sender, call, timeout_s)
        self._deadline_s = None if timeout_s is None else sender.clock.seconds() + timeout_s
        self._begun = False
        self._started = False  # the first answer has come
        self._over = False
        self._stream: StreamInHand | None = None
        self._left: Replica | None = None  # that ended the call before all of it was asked for
        if not sender.budget.full:
            sender.budget.earn()

    def receive(self) -> Deferred[Answer | None]:
        """
        The next answer, None at the end and ever after. Ask again when the one before has come.

        Fails as ``Sender.send`` does, and is over then. Cancelling the Deferred cancels the stream.
        """
        if self._over:
            return succeed(None)
        waiting: Deferred[Answer | None]
        if not self._begun:
            self._begun = True
            first = self.answer
            assert first is not None
            waiting = first  # type: ignore[assignment]
            self.begin()
            return waiting
        stream = self._stream
        assert stream is not None
        self.answer = waiting = Deferred(self._cancelled)  # type: ignore[assignment]
        stream.pull()
        return waiting

    def ask(
        self, on_answer: Callable[[Answer | None], object], on_failure: Callable[[Failure], object]
    ) -> None:
        """``receive`` with callbacks, of which the one that is called must not raise."""
        if self._over or not self._begun:
            self.receive().addCallbacks(on_answer, on_failure)
            return
        stream = self._stream
        assert stream is not None
        # For each document, a Deferred would cost more than all the rest here.
        self.answer = _Asked(self._cancelled, on_answer, on_failure)  # type: ignore[assignment]
        stream.pull()

    def more(self, most: int) -> list[Answer]:
        """Up to ``most`` answers that have come with the last one; none if they, an error or the end have to
        be waited for. Not while an answer is asked for."""
        stream = self._stream
        return [] if self._over or stream is None else stream.more(most)

    def cancel(self) -> None:
        """End it now. Harmless when repeated, and at the end."""
        if self._over:
            return
        waiting = self.answer
        if waiting is not None and self._begun:
            waiting.cancel()
        else:
            self._cancelled(None)

    # -- the call ------------------------------------------------------------------------------------

    def _opening(self, replica: Replica) -> Prepare:
        return partial(self._open, replica.channel.stream)

    def _open(
        self,
        stream: Callable[..., StreamInHand],
        call: Call,
        _timeout_s: float | None,
        on_answer: Callable[[Answer], object],
        on_failure: Callable[[Exception], object],
    ) -> CallInHand:
        sender = self._sender
        opened = self._stream = stream(
            call,
            sender.rules.timeout_s,
            left_s(self._deadline_s, sender.clock.seconds()),
            on_answer,
            self._ended,
            on_failure,
            self._closed,
        )
        return opened

    def _answered(self, answer: Answer) -> None:
        try:
            if not self._started:
                self._started = True
                replica = self._replica or self._left
                assert replica is not None
                replica.succeeded()
            waiting, self.answer = self.answer, None
            if waiting is not None:
                waiting.callback(answer)
        except Exception:
            self._broken(Failure())

    def _ended(self) -> None:
        try:
            replica = self._replica or self._left
            assert replica is not None
            if self._replica is not None:
                self._call_ended(replica)
            if self._stage is not None:
                self._stage_over("OK")
            if not self._started:
                replica.succeeded()
            self._over = True
            waiting, self.answer = self.answer, None
            if waiting is not None:
                waiting.callback(None)  # type: ignore[arg-type]
        except Exception:
            self._broken(Failure())

    def _closed(self) -> None:
        """The replica has nothing more to do; what it has answered waits in the channel."""
        replica = self._left = self._replica
        if replica is not None:
            self._call_ended(replica)

    def _failed_with(self, error: Exception) -> None:
        if not self._started:
            super()._failed_with(error)
            return
        replica = self._replica or self._left
        assert replica is not None
        if self._replica is not None:
            self._call_ended(replica)
        if self._abandoned:
            return
        found = self._as_call_error(error)
        if self._stage is not None:
            self._stage_over(found.code, found.details)
        if self._attempts.client_was_impatient(found, self._sender.clock.seconds()):
            replica.client_gave_up(self._successes)
        else:
            replica.failed(found)
        if self._sender.closed:
            self._fail(Draining())
        else:
            self._give_up(self._attempts.broke_off(found, replica.label))

    def _fail(self, error: Exception) -> None:
        self._over = True
        super()._fail(error)

    def _broken(self, failure: Failure) -> None:
        self.cancel_quietly()
        super()._broken(failure)

    def cancel_quietly(self) -> None:
        """Let go of the call and its slot; nothing is counted."""
        self._over = self._abandoned = True
        stream, replica = self._stream, self._replica
        if stream is not None:
            stream.cancel()
        if replica is not None and self._replica is not None:
            self._call_ended(replica)

    def _cancelled(self, _: object) -> None:
        if self._over:
            return
        self._over = self._abandoned = True
        self.answer = None
        self._sender.decisions.request("cancelled")
        stream, replica = self._stream, self._replica
        if self._stage is not None:
            self._stage_over("CANCELLED")
        if replica is None or self._calling is None:
            self._stop_waiting()
        elif not self._started:
            replica.client_gave_up(self._successes)
        if stream is not None:
            stream.cancel()
        if self._replica is not None:  # nobody waited, so that nothing was called back
            self._call_ended(self._replica)
