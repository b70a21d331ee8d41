"""
One request's way to an answer from one of several replicas: waiting, calling, trying again.

    waiting --(a replica has room)--> calling --(answer)--------------------> done
       ^                                |
       |                                +--(failure, RetryPolicy says yes)--> backing off
       +--------------------------------------------------------------------------+

Waiting has a deadline and the queue a bound; every other way out is an error that names what was
tried. Callbacks rather than a coroutine: this is the hot path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.errors import CallFailed, NetworkError, NotFound, Overloaded, TimedOut, Unreachable
from gatewayd.pool.channel import CallError
from gatewayd.pool.retry import backoff_s
from gatewayd.request import Answer, Call
from gatewayd.wire import Malformed

if TYPE_CHECKING:
    from gatewayd.pool.replicas import Replica, ReplicaSet, Timer

log = Logger()


class Sending:
    """One request on its way to an answer from a set of replicas."""

    __slots__ = (
        "_abandoned",
        "_call",
        "_calling",
        "_deadline",
        "_given_up",
        "_last",
        "_queue_timer",
        "_replica",
        "_set",
        "_timer",
        "_tried",
        "_tries",
        "answer",
    )

    def __init__(self, replicas: ReplicaSet, call: Call, timeout_s: float | None) -> None:
        self._set = replicas
        self._call = call
        self._deadline = None if timeout_s is None else replicas.clock.seconds() + timeout_s
        self._tried: set[str] = set()
        self._tries = 0
        self._last: CallError | None = None
        self._replica: Replica | None = None
        self._given_up: CallError | None = None
        self._abandoned = False
        self._calling: Deferred[Any] | None = None
        self._queue_timer: Timer | None = None
        self._timer: Timer | None = None
        self.answer: Deferred[Answer] = Deferred(self._cancelled)

    def begin(self) -> None:
        """Call a replica, or wait until there is one with room."""
        if self._set.nobody_waits() and self.try_now():
            self.go()
            return
        timeout_s = self._patience_s()
        if timeout_s <= 0 or not self._set.wait(self):
            self._set.count("refused")
            self._fail(self._refusal())
            return
        self._set.count("queued")
        self._queue_timer = self._set.clock.callLater(timeout_s, self._waited_too_long)

    def try_now(self) -> bool:
        """Take a place at the best replica, if any has one."""
        replica = self._set.pick(self._tried)
        if replica is None or not self._set.take_room():
            return False
        replica.in_flight += 1
        self._replica = replica
        return True

    def go(self) -> None:
        """Make the call that ``try_now`` took a place for."""
        if self._queue_timer is not None:
            self._queue_timer.cancel()
            self._queue_timer = None
        replica, rules = self._replica, self._set.rules
        assert replica is not None
        self._tried.add(replica.address)
        self._tries += 1
        self._set.count("picked")
        timeout_s = rules.timeout_s
        if self._deadline is not None:
            left = self._deadline - self._set.clock.seconds()
            timeout_s = left if timeout_s is None else min(left, timeout_s)
        if replica.state != "ready":
            self._timer = self._set.clock.callLater(rules.connect_timeout_s, self._not_connected, replica)
        self._calling = replica.channel.call(self._call, timeout_s)
        self._calling.addCallbacks(
            self._answered, self._call_failed, callbackArgs=(replica,), errbackArgs=(replica,)
        )
        self._calling.addErrback(self._broken)

    # -- what becomes of the call --------------------------------------------------------------------

    def _answered(self, answer: Answer, replica: Replica) -> None:
        self._call_ended(replica)
        self._set.succeeded(replica)
        self.answer.callback(answer)

    def _call_failed(self, failure: Failure, replica: Replica) -> None:
        self._call_ended(replica)
        if self._abandoned:
            return
        if failure.check(CallError):
            error = failure.value
        elif failure.check(Malformed):
            error = CallError("INTERNAL", f"the executor's answer is no message: {failure.value}")
        elif failure.check(CancelledError):
            # By _not_connected, or because the channel was closed under the call.
            error = self._given_up or CallError("UNAVAILABLE", "the connection was closed")
            self._given_up = None
        else:
            failure.raiseException()
        assert isinstance(error, CallError)
        self._failed(replica, error, garbage=bool(failure.check(Malformed)))

    def _failed(self, replica: Replica, error: CallError, *, garbage: bool = False) -> None:
        self._last = error
        self._set.failed(replica, error)
        policy = self._set.rules.retry
        if garbage or not policy.allows(
            error.code,
            reached=error.reached,
            endpoint=self._call.endpoint,
            tries=self._tries,
            replicas=len(self._set.replicas),
        ):
            self._fail(self._explained(error))
        elif not self._set.budget.spend():
            self._set.count("retry refused")
            self._fail(self._explained(error))
        else:
            self._set.count("retried")
            # Somebody who hasn't been asked yet can be asked at once.
            delay = 0.0 if self._set.untried(self._tried) else backoff_s(self._tries, self._set.dice.random())
            if self._deadline is not None and self._set.clock.seconds() + delay >= self._deadline:
                self._fail(self._explained(error))
            else:
                self._timer = self._set.clock.callLater(delay, self._again)

    def _again(self) -> None:
        self._timer = None
        self.begin()

    def _call_ended(self, replica: Replica) -> None:
        self._calling = None
        self._replica = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._set.released(replica)

    def _not_connected(self, replica: Replica) -> None:
        self._timer = None
        if replica.state == "ready":
            return
        calling = self._calling
        assert calling is not None
        self._given_up = CallError(
            "UNAVAILABLE",
            f"no connection to {replica.address} within {self._set.rules.connect_timeout_s:g} s",
            reached=False,
        )
        calling.cancel()

    def _waited_too_long(self) -> None:
        self._queue_timer = None
        self._set.leave(self)
        self._set.count("refused")
        self._fail(self._refusal())

    def _cancelled(self, _: object) -> None:
        self._abandoned = True
        if self._queue_timer is not None:
            self._queue_timer.cancel()
            self._queue_timer = None
            self._set.leave(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._calling is not None:
            self._set.count("cancelled")
            self._calling.cancel()

    def _broken(self, failure: Failure) -> None:
        # A bug of ours must fail this request, never hang it.
        if self.answer.called or self._abandoned:
            log.failure("a call's answer could not be handled", failure=failure)
        else:
            self.answer.errback(failure)

    # -- errors --------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        self.answer.errback(Failure(error))

    def _patience_s(self) -> float:
        rules = self._set.rules
        # With nobody there at all, an outage has to be told within a second.
        patience = rules.queue_timeout_s if self._set.replicas else rules.connect_timeout_s
        if self._deadline is not None:
            patience = min(patience, self._deadline - self._set.clock.seconds())
        return patience

    def _refusal(self) -> Exception:
        replicas, name = self._set.replicas, self._set.deployment
        if self._last is not None:
            return self._explained(self._last)
        if not replicas:
            return Unreachable(name, (), "no replica is running")
        return Overloaded(
            f"{name} has no room: its {len(replicas)} replica(s) or the gateway have as many requests "
            "under way as gateway.pool allows; try again later, raise max_in_flight, or add replicas",
            retry_after_s=1.0,
        )

    def _explained(self, error: CallError) -> NetworkError:
        name, tried = self._set.deployment, self._tried
        if error.code == "UNAVAILABLE":
            return Unreachable(name, tried, error.details)
        if error.code == "DEADLINE_EXCEEDED":
            return TimedOut(name, tried, error.details)
        if error.code == "NOT_FOUND":
            return NotFound(name, tried, error.details)
        return CallFailed(name, tried, error.details, error.code)
