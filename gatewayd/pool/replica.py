"""
One address that answers for a Deployment: its connection, its health, and what it serves.

    connecting ──> ready <──> connecting          ejected: ready, but left out after failures,
        │            ^                            until a probe is answered
        └─> failed ──┘

``failed`` means that an attempt to connect failed; the channel keeps trying, and reports ``ready`` once it
succeeds. The set that owns the replica learns of every change through ``ReplicaOwner``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from google.protobuf.message import DecodeError
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.backoff import Backoff
from gatewayd.clocks import Clock, Timer
from gatewayd.messages.discovery import Told
from gatewayd.messages.request import Answer, Call
from gatewayd.pool.balancing import Health
from gatewayd.pool.events import Decisions
from gatewayd.rpc.call import CallError
from gatewayd.rpc.link import State
from gatewayd.rpc.turns import HANGS_S, Line, Turn
from gatewayd.waiters import Waiters

log = Logger()

PROBE_TIMEOUT_S: Final = 1.0
# A replica that clients gave up on is probed no more often than this.
_SUSPICION_S: Final = 1.0
_DISCOVERY_BACKOFF: Final = Backoff(first_s=1.0, ceiling_s=30.0)
# Silence, lost connections and malformed answers; every other code was chosen by the executor.
_HELD_AGAINST: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"})


class CallInHand(Protocol):
    """One call, from ``ExecutorChannel.prepare``."""

    def begin(self) -> None:
        """Make it, once."""

    def cancel(self) -> None:
        """Give it up: unless it has ended, it fails with CancelledError at once."""


class StreamInHand(CallInHand, Protocol):
    """One call that streams, from ``ExecutorChannel.stream``; ``begin`` asks for the first answer."""

    def pull(self) -> None:
        """Ask for one more answer, when the one before has come."""

    def more(self, most: int) -> list[Answer]:
        """Up to ``most`` answers that have come with the one before, without a wait; maybe none."""


class ExecutorChannel(Protocol):
    """What the pool needs of ``rpc.channel.Channel``."""

    def prepare(
        self,
        call: Call,
        timeout_s: float | None,
        on_answer: Callable[[Answer], object],
        on_failure: Callable[[Exception], object],
    ) -> CallInHand:
        """A call that ends with exactly one of the two, which may be while it begins."""

    def stream(
        self,
        call: Call,
        gap_s: float | None,
        left_s: float | None,
        on_answer: Callable[[Answer], object],
        on_end: Callable[[], object],
        on_failure: Callable[[Exception], object],
        on_closed: Callable[[], object],
    ) -> StreamInHand:
        """
        A call that is answered one by one. What is asked for ends with one of the first three.

        ``gap_s`` bounds each of them, ``left_s`` all together. ``on_closed`` tells that the executor
        has ended the call before the last was asked for.
        """

    def endpoints(self, timeout_s: float) -> Deferred[Told]: ...
    def close(self) -> Deferred[None]: ...


class DeferredCall:
    """A call of a channel that has Deferreds; ``make`` makes it."""

    def __init__(
        self,
        make: Callable[[], Deferred[Answer]],
        on_answer: Callable[[Answer], object],
        on_failure: Callable[[Exception], object],
    ) -> None:
        self._make = make
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._answer: Deferred[object] | None = None

    def begin(self) -> None:
        self._answer = self._make().addCallbacks(self._on_answer, self._failed)

    def cancel(self) -> None:
        if self._answer is not None:
            self._answer.cancel()

    def _failed(self, failure: Failure) -> None:
        assert isinstance(failure.value, Exception)
        self._on_failure(failure.value)


class ReplicaOwner(Protocol):
    """What a replica reports its changes to."""

    def changed(self, replica: Replica) -> None:
        """Its state, an ejection or its endpoints have changed."""

    def out_of_reach(self, replica: Replica) -> None:
        """Its connection was lost, or cannot be made."""

    def may_eject(self, replica: Replica) -> bool:
        """Whether other replicas are left to do its work."""


class Replica:
    """
    One address. ``label`` is what errors and logs call it: the address as the Flow file has it; ``number``
    counts those of its set, in the order in which they were added.

    ``successes`` only ever grows: a caller that remembers it can tell whether the replica has answered since.
    """

    __slots__ = (
        "_clock",
        "_closed",
        "_connections",
        "_decisions",
        "_discovery",
        "_discovery_failures",
        "_hanging",
        "_leaving",
        "_left",
        "_owner",
        "_probe",
        "_probes",
        "_suspected_s",
        "_turn",
        "address",
        "channel",
        "foreign",
        "health",
        "held_back",
        "in_flight",
        "label",
        "number",
        "state",
        "successes",
        "told",
        "unheard",
    )

    def __init__(
        self,
        number: int,
        address: str,
        label: str,
        health: Health,
        clock: Clock,
        decisions: Decisions,
        owner: ReplicaOwner,
        probes: Line,
    ) -> None:
        self.number = number
        self.address = address
        self.label = label
        self.channel: ExecutorChannel
        self.told: Told | None = None
        self.health = health
        self.foreign = False  # it speaks another generation of documents than the Flow
        self.unheard = False  # it was asked what it serves when it connected, and has not answered yet
        self.held_back = False  # it is not called before it has: it may be foreign
        self.in_flight = 0
        self.state: State = "connecting"
        self.successes = 0
        self._clock = clock
        self._closed = False
        self._connections = 0  # made so far: a process may be at the end of each
        self._decisions = decisions
        self._discovery: Timer | None = None
        self._discovery_failures = 0
        self._leaving = False
        self._left: Waiters[None] = Waiters()
        self._owner = owner
        self._probe: Timer | None = None
        self._probes = probes
        self._suspected_s = -_SUSPICION_S
        self._turn: Turn | None = None  # of a probe that waits, or is under way
        self._hanging: Timer | None = None

    @property
    def fit(self) -> bool:
        """Whether it is connected, has been heard, is not ejected, and speaks the Flow's generation."""
        return self.state == "ready" and not self.held_back and not self.health.ejected and not self.foreign

    # -- its calls -----------------------------------------------------------------------------------

    def call_ended(self) -> None:
        self.in_flight -= 1
        if self._leaving and not self.in_flight:
            self.close()

    def succeeded(self) -> None:
        """It has answered a call."""
        self.successes += 1
        health = self.health
        if health.failures or health.ejected:
            self._restore()

    def failed(self, error: CallError) -> None:
        """A call to it failed, and not because of the client."""
        if error.code in _HELD_AGAINST and self.health.failed():
            self._eject(f"{self.health.failures} failures in a row, the last {error}")

    def client_gave_up(self, successes: int) -> None:
        """A client did not wait any longer; ``successes`` is what it was when the call began."""
        # Clients have many reasons to give up, so this proves nothing: probe.
        now = self._clock.seconds()
        if successes == self.successes and self.fit and now - self._suspected_s >= _SUSPICION_S:
            self._suspected_s = now
            self._begin_probe(self._suspicion_confirmed)

    @property
    def has_answered(self) -> bool:
        """Whether it has ever answered a call, or told its endpoints."""
        return self.successes > 0 or self.told is not None

    # -- its connection ------------------------------------------------------------------------------

    def state_changed(self, state: State) -> None:
        """The state of the channel's connection has changed."""
        if self._closed or state == self.state:
            return
        was, self.state = self.state, state
        if state == "ready":
            self._decisions.replica("connected", self.label)
            # A new process behind the address may bind other endpoints, and has not failed yet.
            self._connections += 1
            self._discovery_failures = 0
            self.unheard = True
            self._discover()
            if self.health.clean:
                self._owner.changed(self)
            else:
                self._restore()
            return
        if was == "ready":
            self._decisions.replica("lost", self.label)
        self._owner.changed(self)
        if was == "ready" or state == "failed":
            self._owner.out_of_reach(self)

    def leave(self) -> Deferred[None]:
        """Close when the calls in flight have ended. Fires then."""
        left = self._left.wait()
        self._leaving = True
        if not self.in_flight:
            self.close()
        return left

    def close(self) -> None:
        """Calls in flight fail."""
        if self._closed:
            return
        self._closed = True
        for timer in (self._probe, self._discovery):
            if timer is not None:
                timer.cancel()
        self._probe = self._discovery = None
        self._end_turn()
        self._left.fire(None)
        self.channel.close().addErrback(self._unexpected, "closing the channel to {address}")

    # -- ejection ------------------------------------------------------------------------------------

    def _eject(self, why: str) -> None:
        if self._closed or not self._owner.may_eject(self):
            return
        pause_s = self.health.eject()
        self._decisions.replica("ejected", self.label, f"for {pause_s:g} s after {why}")
        self._set_probe(pause_s)
        self._owner.changed(self)

    def _restore(self) -> None:
        if self.health.ejected:
            self._decisions.replica("restored", self.label)
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        if self._turn is not None and self._turn.waits:
            self._end_turn()
        self.health.reset()
        self._owner.changed(self)

    def _set_probe(self, pause_s: float) -> None:
        if self._probe is not None:
            self._probe.cancel()
        self._probe = self._clock.callLater(pause_s, self._probe_now)

    def _probe_now(self) -> None:
        self._probe = None
        self._begin_probe(self._probe_failed)

    def _begin_probe(self, failed: Callable[[CallError], None]) -> None:
        """When it is its turn: thousands may be due together."""
        if self._turn is None:
            self._turn = self._probes.turn(lambda: self._ask(failed), "first")
            self._turn.ask()

    def _ask(self, failed: Callable[[CallError], None]) -> None:
        assert self._turn is not None
        self._decisions.count("probed")
        self._hanging = self._clock.callLater(HANGS_S, self._turn.hang)
        connection = self._connections

        def alive(told: Told) -> None:
            self._end_turn()
            self._discovered(told, connection)
            if self.health.ejected and not self._closed:
                self.health.returned()
                self._decisions.replica("restored", self.label, "a probe was answered")
                self._owner.changed(self)

        def dead(failure: Failure) -> None:
            self._end_turn()
            error = _as_call_error(failure)
            if not self._closed:
                failed(error)

        probe = self.channel.endpoints(PROBE_TIMEOUT_S)
        probe.addCallbacks(alive, dead).addErrback(self._unexpected, "probing {address}")

    def _end_turn(self) -> None:
        if self._hanging is not None and self._hanging.active():
            self._hanging.cancel()
        self._hanging = None
        if self._turn is not None:
            turn, self._turn = self._turn, None
            turn.end()

    def _probe_failed(self, error: CallError) -> None:
        if self.health.ejected:
            self._set_probe(self.health.eject())

    def _suspicion_confirmed(self, error: CallError) -> None:
        if self.health.ejected:
            # Ejected during this probe: the probe of its timer did not start, because this one was running.
            if self._probe is None:
                self._set_probe(self.health.eject())
        else:
            self._eject(f"clients gave up on it and a probe found {error}")

    # -- discovery -----------------------------------------------------------------------------------

    def _discover(self) -> None:
        if self._discovery is not None:
            self._discovery.cancel()
            self._discovery = None
        of = (self._connections,)
        asked = self.channel.endpoints(PROBE_TIMEOUT_S)
        asked.addCallbacks(self._discovered, self._not_discovered, callbackArgs=of, errbackArgs=of)
        asked.addErrback(self._unexpected, "discovering the endpoints of {address}")

    def _discover_again(self) -> None:
        self._discovery = None
        if self.state == "ready":
            self._discover()

    def _discovered(self, told: Told, connection: int) -> None:
        if connection != self._connections:
            return  # told by the process before, while the one that is there now is asked
        heard, self.unheard = self.unheard, False
        if self._closed:
            return
        if told != self.told:
            self.told = told
            self._decisions.count("discovered")
            self._owner.changed(self)
        elif heard:
            self._owner.changed(self)

    def _not_discovered(self, failure: Failure, connection: int) -> None:
        _as_call_error(failure)
        if connection != self._connections:
            return
        # Until it answers, the executor is called for every endpoint.
        if self.unheard:
            self.unheard = False
            if not self._closed:
                self._owner.changed(self)
        if not self._closed and self.state == "ready" and self._discovery is None:
            self._discovery_failures += 1
            pause_s = _DISCOVERY_BACKOFF.delay_s(self._discovery_failures)
            self._discovery = self._clock.callLater(pause_s, self._discover_again)

    def _unexpected(self, failure: Failure, what: str) -> None:
        if not failure.check(CancelledError):
            log.failure(what, failure=failure, address=self.label)


def _as_call_error(failure: Failure) -> CallError:
    """Why a probe failed. Raises anything that is a bug."""
    if failure.check(CallError):
        error = failure.value
        assert isinstance(error, CallError)
        return error
    if failure.check(DecodeError):
        return CallError("INTERNAL", f"the list of endpoints is no message: {failure.value}")
    failure.trap(CancelledError)
    return CallError("UNAVAILABLE", "the connection was closed")
