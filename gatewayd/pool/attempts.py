"""
One request's way to an answer from one of several replicas: waiting, calling, trying again.

    waiting --(a replica has room)--> calling --(answer)--------------------> done
       ^                                |
       |                                +--(failure, RetryPolicy says yes)--> backing off
       +--------------------------------------------------------------------------+

Waiting has a deadline and the queue a bound. While no replica is connected at all, waiting and backing
off share one short allowance over all tries, so that an outage is told in time. Every other way out is
an error that names what was tried. Callbacks rather than a coroutine: this is the hot path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.errors import CallFailed, Draining, NetworkError, NotFound, Overloaded, TimedOut, Unreachable
from gatewayd.messages.request import Answer, Call
from gatewayd.messages.wire import Malformed
from gatewayd.pool.retry import backoff_s
from gatewayd.rpc.channel import CallError

if TYPE_CHECKING:
    from gatewayd.clocks import Timer
    from gatewayd.pool.replica import Replica
    from gatewayd.pool.replica_set import ReplicaSet

log = Logger()


class Sending:
    """One request on its way to an answer from a set of replicas."""

    __slots__ = (
        "_abandoned",
        "_allowance_s",
        "_call",
        "_calling",
        "_deadline",
        "_given_up",
        "_last",
        "_out_since",
        "_replica",
        "_set",
        "_successes",
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
        self._allowance_s = replicas.rules.connect_timeout_s
        self._out_since: float | None = None  # waiting with no replica connected, since when
        self._last: CallError | None = None
        self._replica: Replica | None = None
        self._successes = 0  # what the replica had when our call to it began
        self._given_up: CallError | None = None
        self._abandoned = False
        self._calling: Deferred[Any] | None = None
        self._timer: Timer | None = None  # of whatever stage this is in
        self.answer: Deferred[Answer] = Deferred(self._cancelled)

    def begin(self) -> None:
        """Call a replica, or wait until there is one with room."""
        replicas = self._set
        if replicas.closed:
            self._fail(Draining())
        elif (self._tries or replicas.nobody_waits()) and self.try_now():
            self.go()
        else:
            self._wait()

    def try_now(self) -> bool:
        """Take a place at the best replica, if it has one."""
        replica = self._set.pick(self._tried)
        if replica is None or not self._set.take_room():
            return False
        replica.in_flight += 1
        self._replica = replica
        return True

    def go(self) -> None:
        """Make the call that ``try_now`` took a place for."""
        replicas, replica = self._set, self._replica
        assert replica is not None
        if self._timer is not None:
            self._stop_waiting()
        timeout_s = replicas.rules.timeout_s
        if self._deadline is not None:
            left_s = self._deadline - replicas.clock.seconds()
            if left_s <= 0:
                self._call_ended(replica)
                self._fail(self._too_late())
                return
            timeout_s = left_s if timeout_s is None or left_s < timeout_s else timeout_s
        self._tried.add(replica.address)
        self._tries += 1
        self._successes = replica.successes
        replicas.decisions.count("picked")
        if replica.state != "ready":
            self._out_since = replicas.clock.seconds()
            self._timer = replicas.clock.callLater(max(0.0, self._allowance_s), self._not_connected, replica)
        try:
            calling = replica.channel.call(self._call, timeout_s)
        except Exception:  # a bug must not keep the place
            self._call_ended(replica)
            self.answer.errback(Failure())
            return
        self._calling = calling
        calling.addCallbacks(
            self._answered, self._call_failed, callbackArgs=(replica,), errbackArgs=(replica,)
        )
        calling.addErrback(self._broken)

    # -- waiting -------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """The last connected replica was lost while we wait."""
        if self._out_since is None:
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            self._set_waiting_timer()

    def closed(self) -> None:
        """The set closes while we wait."""
        self._stop_waiting()
        self._fail(Draining())

    def _wait(self) -> None:
        decisions = self._set.decisions
        if self._set.out and self._allowance_s <= 0:
            decisions.request("unreachable", "no replica is connected")
            self._fail(self._refusal())
        elif not self._set.wait(self, picky=bool(self._tried)):
            decisions.request("refused", "the queue is full")
            self._fail(self._refusal())
        else:
            decisions.request("queued")
            self._set_waiting_timer()

    def _set_waiting_timer(self) -> None:
        replicas = self._set
        patience_s = replicas.rules.queue_timeout_s
        if replicas.out:
            self._out_since = replicas.clock.seconds()
            patience_s = self._allowance_s
        if self._deadline is not None:
            patience_s = min(patience_s, self._deadline - replicas.clock.seconds())
        self._timer = replicas.clock.callLater(max(0.0, patience_s), self._waited_too_long)

    def _stop_waiting(self) -> None:
        """Also the end of backing off."""
        self._set.leave(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._spend_allowance()

    def _spend_allowance(self) -> None:
        if self._out_since is not None:
            self._allowance_s -= self._set.clock.seconds() - self._out_since
            self._out_since = None

    def _waited_too_long(self) -> None:
        self._timer = None
        if self._out_since is not None and not self._set.out and not self._over():
            # A replica came back meanwhile, and was full: from now on the wait is for room.
            self._spend_allowance()
            self._set_waiting_timer()
            return
        self._stop_waiting()
        decision = "unreachable" if self._set.out else "refused"
        self._set.decisions.request(decision, "it waited too long")
        self._fail(self._refusal())

    # -- what becomes of the call --------------------------------------------------------------------

    def _answered(self, answer: Answer, replica: Replica) -> None:
        self._call_ended(replica)
        replica.succeeded()
        if not self._abandoned:
            self.answer.callback(answer)

    def _call_failed(self, failure: Failure, replica: Replica) -> None:
        self._call_ended(replica)
        if self._abandoned:
            return
        garbage = False
        error = failure.value
        if isinstance(error, Malformed):
            garbage = True
            error = CallError("INTERNAL", f"the executor's answer is no message: {error}")
        elif isinstance(error, CancelledError):
            # By _not_connected, or because the channel was closed under the call.
            error = self._given_up or CallError("UNAVAILABLE", "the connection was closed")
            self._given_up = None
        elif not isinstance(error, CallError):
            failure.raiseException()
        assert isinstance(error, CallError)
        self._failed(replica, error, garbage=garbage)

    def _failed(self, replica: Replica, error: CallError, *, garbage: bool) -> None:
        self._last = error
        replicas = self._set
        if self._deadline is not None and error.code == "DEADLINE_EXCEEDED" and self._over():
            # The client's deadline, however short it was: no fault of the replica's in itself.
            replica.given_up(self._successes)
        else:
            replica.failed(error)
        if replicas.closed:
            self._fail(Draining())
        elif garbage or not replicas.rules.retry.allows(
            error.code,
            reached=error.reached,
            endpoint=self._call.endpoint,
            tries=self._tries,
            replicas=len(replicas.replicas),
        ):
            replicas.decisions.request("failed", f"{replica.label}: {error}")
            self._fail(self._explained(error))
        elif not replicas.budget.spend():
            replicas.decisions.request("retry refused", f"{replica.label}: {error}")
            self._fail(self._explained(error))
        else:
            self._back_off(error)

    def _back_off(self, error: CallError) -> None:
        replicas = self._set
        # Somebody who hasn't been asked yet can be asked at once.
        delay_s = 0.0 if replicas.fresh(self._tried) else backoff_s(self._tries, replicas.dice.random())
        now = replicas.clock.seconds()
        if (self._deadline is not None and now + delay_s >= self._deadline) or (
            replicas.out and delay_s >= self._allowance_s
        ):
            replicas.decisions.request("failed", str(error))
            self._fail(self._explained(error))
            return
        replicas.decisions.request("retried", str(error))
        if replicas.out:
            self._out_since = now
        self._timer = replicas.clock.callLater(delay_s, self._again)

    def _again(self) -> None:
        self._timer = None
        self._spend_allowance()
        self.begin()

    def _call_ended(self, replica: Replica) -> None:
        self._calling = None
        self._replica = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._spend_allowance()
        self._set.released(replica)

    def _not_connected(self, replica: Replica) -> None:
        self._timer = None
        self._spend_allowance()
        calling = self._calling
        if replica.state == "ready" or calling is None:
            return
        self._given_up = CallError(
            "UNAVAILABLE",
            f"no connection to {replica.label} within {self._set.rules.connect_timeout_s:g} s",
            reached=False,
        )
        calling.cancel()

    def _cancelled(self, _: object) -> None:
        self._abandoned = True
        self._set.decisions.request("cancelled")
        calling, replica = self._calling, self._replica
        if calling is None or replica is None:
            self._stop_waiting()
            return
        replica.given_up(self._successes)
        calling.cancel()

    def _broken(self, failure: Failure) -> None:
        # A bug of ours must fail this request, never hang it.
        if self.answer.called or self._abandoned:
            log.failure("a call's answer could not be handled", failure=failure)
        else:
            self.answer.errback(failure)

    # -- errors --------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        self.answer.errback(Failure(error))

    def _over(self) -> bool:
        # gRPC's timer and ours are not the same: give or take what a wake-up may cost.
        return self._deadline is not None and self._set.clock.seconds() >= self._deadline - 0.05

    def _too_late(self) -> Exception:
        return self._explained(self._last or CallError("DEADLINE_EXCEEDED", "Deadline Exceeded"))

    def _refusal(self) -> Exception:
        replicas, name = self._set, self._set.deployment
        if self._last is not None:
            return self._explained(self._last)
        if replicas.out:
            labels = replicas.labels()
            waited_s = replicas.rules.connect_timeout_s
            return Unreachable(
                name, labels, f"no connection within {waited_s:g} s" if labels else replicas.why_empty
            )
        if self._over():
            return TimedOut(name, replicas.labels(), "Deadline Exceeded while waiting for room")
        return Overloaded(
            f"{name} has no room: its {len(replicas.replicas)} replica(s) or the gateway have as many "
            "requests under way as gateway.pool allows; try again later, or raise these or add replicas",
            retry_after_s=1.0,
        )

    def _explained(self, error: CallError) -> NetworkError:
        name, tried = self._set.deployment, [self._set.label(address) for address in self._tried]
        if error.code == "UNAVAILABLE":
            return Unreachable(name, tried, error.details)
        if error.code == "DEADLINE_EXCEEDED":
            return TimedOut(name, tried, error.details)
        if error.code == "NOT_FOUND":
            return NotFound(name, tried, error.details)
        return CallFailed(name, tried, error.details, error.code)
