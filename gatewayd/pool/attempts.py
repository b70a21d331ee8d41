"""
What becomes of one request to a Deployment: a decision for each turn that it takes. No I/O, no timers.

    waiting --(a slot at a replica)--> calling --(answer)-----------------------> done
       ^                                 |
       |                                 +--(failure that may be retried)--> backing off
       +--------------------------------------------------------------------------+

Every other way out is ``GiveUp``, with an error that names what was tried. ``sender.py`` acts on these
decisions, and passes the time in.

Waiting has a limit. While no replica is connected at all, waiting and backing off share one short allowance
over all attempts, so that clients learn of an outage in time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import attrs

from gatewayd.deadlines import has_passed, left_s
from gatewayd.errors import (
    CallFailed,
    DeadlineExceeded,
    ExecutorNetworkError,
    ExecutorNotFound,
    ExecutorUnreachable,
    ForeignExecutor,
    Overloaded,
)
from gatewayd.pool.retry import RETRY_BACKOFF, RetryBudget, RetryPolicy
from gatewayd.rpc.call import CallError

# A request that was being handled each time when so many executors were lost may be what ends them: it does
# not get to the next one.
_MAX_LOST: Final = 2
_NOT_TRIED_AGAIN: Final = (
    f"{_MAX_LOST} executors were lost while they handled this request, so it is not tried again; "
    "their logs may say what ended them"
)


@attrs.frozen
class Start:
    """
    Make the call. ``timeout_s`` bounds it, None for no bound.

    ``connect_s`` is how long it may wait for a connection, None where there is one.
    """

    timeout_s: float | None
    connect_s: float | None = None


@attrs.frozen
class AttemptRules:
    """
    How long requests to one Deployment wait, and when they are sent again; seconds (config PoolLimits).

    ``timeout_s`` bounds one call, None for no bound. ``connect_timeout_s`` is what one request, over all
    its attempts, waits for connections: with every replica down it is answered a little later than that.
    """

    timeout_s: float | None
    connect_timeout_s: float
    queue_timeout_s: float
    retry: RetryPolicy
    # For most requests: no deadline of the client's, and a replica that is connected.
    usual_start: Start = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "usual_start", Start(self.timeout_s))


class Replicas(Protocol):
    """What a decision depends on: the replicas of the Deployment as they are now."""

    @property
    def deployment(self) -> str: ...

    @property
    def connected(self) -> bool:
        """Whether at least one replica is; while none is, waiting longer is mostly pointless."""

    @property
    def expected(self) -> bool:
        """Whether there is none because none was needed: requests wait for the first one to start."""

    @property
    def labels(self) -> Mapping[str, str]:
        """What errors call each replica, by its address."""

    @property
    def reachable(self) -> Iterable[str]:
        """The addresses that a connection exists to, or may soon."""

    @property
    def why_empty(self) -> str:
        """Why no replica is known."""

    @property
    def why_foreign(self) -> str:
        """Why none of the replicas may be called; empty while one may."""


@attrs.frozen
class Wait:
    """Stay in the queue for at most ``seconds``."""

    seconds: float


@attrs.frozen
class BackOff:
    """Pause for ``seconds``, then look for a replica again."""

    seconds: float


@attrs.frozen
class GiveUp:
    """Fail the request with ``error``. ``decision`` and ``why`` are for counters and log (``events.py``)."""

    error: Exception
    decision: str = ""
    why: str = ""


class Attempts:
    """
    The attempts of one request, and what is left of its time.

    ``deadline_s`` is the client's, on the clock that ``now_s`` is read from everywhere. ``tried`` are the
    addresses that have been called, ``tries`` is how often.
    """

    __slots__ = (
        "_allowance_s",
        "_deadline_s",
        "_disconnected_since_s",
        "_endpoint",
        "_last",
        "_lost",
        "_replicas",
        "_rules",
        "tried",
        "tries",
    )

    def __init__(
        self, rules: AttemptRules, replicas: Replicas, endpoint: str, deadline_s: float | None
    ) -> None:
        self.tried: tuple[str, ...] = ()
        self.tries = 0
        self._rules = rules
        self._replicas = replicas
        self._endpoint = endpoint
        self._deadline_s = deadline_s
        self._allowance_s = rules.connect_timeout_s
        self._disconnected_since_s: float | None = None  # since when the allowance is being spent
        self._last: CallError | None = None
        self._lost = 0  # how many calls ended because the executor was lost

    def stage_ended(self, now_s: float) -> None:
        """Waiting, connecting or backing off has ended, for whatever reason."""
        if self._disconnected_since_s is not None:
            self._allowance_s -= now_s - self._disconnected_since_s
            self._disconnected_since_s = None

    # -- calling ------------------------------------------------------------------------------------

    def start(self, address: str, now_s: float, *, connected: bool) -> Start | GiveUp:
        """A slot at the replica at ``address`` is reserved. ``connected`` is about that replica."""
        if self._disconnected_since_s is not None:
            self.stage_ended(now_s)
        rules = self._rules
        timeout_s = rules.timeout_s
        if self._deadline_s is not None:
            rest_s = self._deadline_s - now_s
            if rest_s <= 0:
                late = self._last or CallError("DEADLINE_EXCEEDED", "Deadline Exceeded")
                return GiveUp(self._explained(late))
            if timeout_s is None or rest_s < timeout_s:
                timeout_s = rest_s
        self.tried = (*self.tried, address)
        self.tries += 1
        if connected:
            return rules.usual_start if timeout_s == rules.timeout_s else Start(timeout_s)
        self._disconnected_since_s = now_s
        return Start(timeout_s, max(0.0, self._allowance_s))

    def no_connection(self, label: str) -> CallError:
        """The failure of a call that waited for a connection as long as ``Start.connect_s`` allows."""
        return CallError(
            "UNAVAILABLE",
            f"no connection to {label} within {self._rules.connect_timeout_s:g} s",
            reached=False,
        )

    def client_was_impatient(self, error: CallError, now_s: float) -> bool:
        """Whether a call failed only because of the client's own deadline, however short that was."""
        return error.code == "DEADLINE_EXCEEDED" and has_passed(self._deadline_s, now_s)

    def failed(
        self, error: CallError, label: str, now_s: float, *, readable: bool, budget: RetryBudget, dice: float
    ) -> BackOff | GiveUp:
        """
        A call to the replica ``label`` failed. An answer that is not ``readable`` is never retried.

        ``dice`` is uniform in [0, 1). Takes one retry out of ``budget`` when another attempt is allowed.
        """
        self._last = error
        replicas = self._replicas
        if error.lost:
            self._lost += 1
            if self._lost >= _MAX_LOST:
                error = self._last = CallError(
                    "UNAVAILABLE", f"{error.details}; {_NOT_TRIED_AGAIN}", lost=True
                )
                return GiveUp(self._explained(error), "failed", f"{label}: {error}")
        if not readable or not self._rules.retry.allows(
            error.code,
            reached=error.reached,
            endpoint=self._endpoint,
            tries=self.tries,
            replicas=len(replicas.labels),
        ):
            return GiveUp(self._explained(error), "failed", f"{label}: {error}")
        if not budget.spend():
            return GiveUp(self._explained(error), "retry refused", f"{label}: {error}")
        # A replica that has not been called yet can be called at once.
        untried = any(address not in self.tried for address in replicas.reachable)
        delay_s = 0.0 if untried else RETRY_BACKOFF.delay_s(self.tries, dice)
        too_late = self._deadline_s is not None and now_s + delay_s >= self._deadline_s
        if too_late or (self._is_out and delay_s >= self._allowance_s):
            return GiveUp(self._explained(error), "failed", str(error))
        if self._is_out:
            self._disconnected_since_s = now_s
        return BackOff(delay_s)

    def broke_off(self, error: CallError, label: str) -> GiveUp:
        """A stream from the replica ``label`` failed after its first answer: it is never asked for again."""
        return GiveUp(self._explained(error), "failed", f"{label}: {error}")

    # -- waiting ------------------------------------------------------------------------------------

    def wait(self, now_s: float, *, queue_full: bool) -> Wait | GiveUp:
        """No replica has a free slot."""
        if self._replicas.why_foreign:
            return GiveUp(self._refusal(now_s), "unreachable", self._replicas.why_foreign)
        if self._is_out and self._allowance_s <= 0:
            return GiveUp(self._refusal(now_s), "unreachable", "no replica is connected")
        if queue_full:
            return GiveUp(self._refusal(now_s), "refused", "the queue is full")
        return self._patience(now_s)

    def outage_began(self, now_s: float) -> Wait | None:
        """The last connected replica was lost during the wait: what it may still last, None for no change."""
        # One that waits for the first replica has its time already, however often that comes and goes.
        return self._patience(now_s) if self._is_out and self._disconnected_since_s is None else None

    def waited(self, now_s: float) -> Wait | GiveUp:
        """The time that ``Wait`` or ``outage_began`` allowed is over."""
        connected, was_out = self._replicas.connected, self._disconnected_since_s is not None
        self.stage_ended(now_s)
        if connected and was_out and not has_passed(self._deadline_s, now_s):
            # A replica came back meanwhile, with every slot taken: from now on the wait is for a slot.
            return self._patience(now_s)
        decision = "refused" if connected else "unreachable"
        return GiveUp(self._refusal(now_s), decision, "it waited too long")

    @property
    def _is_out(self) -> bool:
        """Whether no replica is connected though one should be."""
        return not self._replicas.connected and not self._replicas.expected

    def _patience(self, now_s: float) -> Wait:
        patience_s = self._rules.queue_timeout_s
        if self._is_out:
            self._disconnected_since_s = now_s
            patience_s = self._allowance_s
        rest_s = left_s(self._deadline_s, now_s)
        if rest_s is not None:
            patience_s = min(patience_s, rest_s)
        return Wait(max(0.0, patience_s))

    # -- errors --------------------------------------------------------------------------------------

    def _refusal(self, now_s: float) -> Exception:
        replicas, name = self._replicas, self._replicas.deployment
        if self._last is not None:
            return self._explained(self._last)
        labels = tuple(replicas.labels.values())
        if replicas.why_foreign:
            return ForeignExecutor(name, labels, replicas.why_foreign)
        if replicas.expected:
            waited_s = self._rules.queue_timeout_s
            return ExecutorUnreachable(
                name,
                labels,
                f"no replica was needed before, and the first one did not start within {waited_s:g} s "
                "(gateway.pool.queue_timeout)",
            )
        if not replicas.connected:
            waited_s = self._rules.connect_timeout_s
            return ExecutorUnreachable(
                name, labels, f"no connection within {waited_s:g} s" if labels else replicas.why_empty
            )
        if has_passed(self._deadline_s, now_s):
            return DeadlineExceeded(name, labels, "Deadline Exceeded while waiting for room")
        return Overloaded(
            f"{name} has no room: its {len(labels)} replica(s) or the gateway have as many "
            "requests under way as gateway.pool allows; try again later, or raise these or add replicas",
            retry_after_s=1.0,
        )

    def _explained(self, error: CallError) -> ExecutorNetworkError:
        labels, name = self._replicas.labels, self._replicas.deployment
        tried = [labels.get(address, address) for address in self.tried]
        if error.code == "UNAVAILABLE":
            return ExecutorUnreachable(name, tried, error.details)
        if error.code == "DEADLINE_EXCEEDED":
            return DeadlineExceeded(name, tried, error.details)
        if error.code == "NOT_FOUND":
            return ExecutorNotFound(name, tried, error.details)
        return CallFailed(name, tried, error.details, error.code)
