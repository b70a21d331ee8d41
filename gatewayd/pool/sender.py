"""
Sends requests to the replicas of one Deployment, or of one of its shards. Reactor thread only.

``attempts.py`` decides what to do next, ``replica_set.py`` where, and ``queue.py`` holds what waits;
calls and timers are here. Callbacks rather than a coroutine, because this is the hot path.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from gatewayd.bounded_log import BoundedLogger
from gatewayd.clocks import Clock, Timer
from gatewayd.errors import Draining, GenerationUnknown, StreamingUnknown
from gatewayd.messages.discovery import Told
from gatewayd.messages.generations import Generation, check_told_later
from gatewayd.messages.journey import Kind, Stage, Visit
from gatewayd.messages.request import Answer, Call
from gatewayd.messages.single import decode_single_answer
from gatewayd.messages.trace_context import TraceContext, headers_of
from gatewayd.messages.wire import Malformed, decode_answer
from gatewayd.pool.attempts import AttemptRules, Attempts, GiveUp, Wait
from gatewayd.pool.events import Decisions
from gatewayd.pool.queue import Queue
from gatewayd.pool.replica import CallInHand, Replica
from gatewayd.pool.replica_set import ReplicaSet
from gatewayd.pool.retry import RetryBudget
from gatewayd.pool.slots import Slots
from gatewayd.rpc.call import CallError

log = BoundedLogger()

Prepare = Callable[
    [Call, float | None, Callable[[Answer], object], Callable[[Exception], object]], CallInHand
]


class Sender:
    """
    Gets an answer from one of ``replicas``.

    ``slots`` are the gateway's, shared with other Deployments; ``dice`` draws the jitter of pauses.
    """

    def __init__(
        self,
        replicas: ReplicaSet,
        rules: AttemptRules,
        *,
        max_queued: int,
        slots: Slots,
        budget: RetryBudget,
        clock: Clock,
        dice: random.Random,
        decisions: Decisions,
    ) -> None:
        self.replicas = replicas
        self.rules = rules
        self.queue: Queue[PendingCall] = Queue(max_queued)
        self.slots = slots
        self.budget = budget
        self.clock = clock
        self.dice = dice
        self.decisions = decisions
        self.closed = False
        self.told_while_away: Generation | None = None  # by executors, after the pool was made
        self.is_awaited = True  # somebody wants its answers: it may not be called for one where it streams
        self._checked: Told | None = None  # what was told when the requests in the queue were looked at
        self._was_out = True  # no replica is connected, though one should be
        # Whether some replica binds an endpoint; True while that is not known.
        self.serves = replicas.serves
        replicas.on_change(self._replicas_changed)

    def send(self, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        """
        Get an answer from one of the replicas.

        Fails with an ExecutorNetworkError that names every address that was tried, with Overloaded or
        Draining.
        ``timeout_s`` bounds everything: waiting, attempts and pauses.
        """
        budget = self.budget
        if not budget.full:
            budget.earn()
        pending = PendingCall(self, call, timeout_s)
        answer = pending.answer
        assert answer is not None
        pending.begin()
        return answer

    def for_stream(self, endpoint: str) -> Sender:
        """The Sender that a stream comes from."""
        return self

    @property
    def told(self) -> Told | None:
        """What the replicas tell of themselves; None while none of them has."""
        return self.replicas.told

    @property
    def heard(self) -> bool:
        """Whether some replica has said what it binds, even one that is not called."""
        return self.replicas.heard

    @property
    def undecided(self) -> bool:
        """Whether no replica has said what it binds, and one soon may."""
        return self.replicas.undecided

    def streams(self, endpoint: str) -> bool:
        """Whether ``endpoint`` streams; False while that is not known."""
        return self.replicas.streams(endpoint)

    def told_generation(self, generation: Generation) -> None:
        """
        Executors have told what the Flow speaks; requests that came before may be of another generation.

        Those that wait and are, fail with GenerationUnknown.
        """
        self.told_while_away = generation
        for pending in self.queue:
            pending.check_generation(generation)

    def close(self) -> None:
        """Close every channel. Requests that wait or are in flight fail with Draining."""
        self.closed = True
        while self.queue.size:
            next(iter(self.queue)).drain()
        self.replicas.close()

    # -- for pending calls ---------------------------------------------------------------------------

    def take_slot(self) -> bool:
        if self.slots.take():
            return True
        self.slots.when_free(self.queue.serve)
        return False

    def call_ended(self, replica: Replica) -> None:
        """A call to ``replica`` ended: its slot may go to a request that waits."""
        replica.call_ended()
        # Other Deployments that wait for the gateway's slot come first; the replica's is for our queue.
        self.slots.release()
        if self.queue.size:
            self.queue.serve()

    def _replicas_changed(self) -> None:
        if self.queue.size:
            told = self.replicas.told
            if told is not self._checked:
                self._checked = told
                for pending in self.queue:
                    pending.check_answers()
            self.queue.serve()
        was, self._was_out = self._was_out, not self.replicas.connected and not self.replicas.expected
        if self._was_out and not was:
            for pending in self.queue:
                pending.outage_began()


class PendingCall:
    """One request until it has its answer."""

    streams = False

    __slots__ = (
        "_abandoned",
        "_attempts",
        "_call",
        "_calling",
        "_no_connection",
        "_replica",
        "_sender",
        "_stage",
        "_successes",
        "_timer",
        "answer",
    )

    def __init__(self, sender: Sender, call: Call, timeout_s: float | None) -> None:
        deadline_s = None if timeout_s is None else sender.clock.seconds() + timeout_s
        self._sender = sender
        self._attempts = Attempts(sender.rules, sender.replicas, call.endpoint, deadline_s)
        self._call = call
        self._replica: Replica | None = None
        self._successes = 0  # those of the replica when our call to it began
        self._no_connection: CallError | None = None  # why we cancelled the call ourselves
        self._abandoned = False
        self._calling: CallInHand | None = None
        self._timer: Timer | None = None  # of the current stage
        self._stage: Stage | None = None  # as it is written down, if it is
        # None once it has fired: it refers back here, and would be work for the garbage collector.
        self.answer: Deferred[Answer] | None = Deferred(self._cancelled)

    def begin(self) -> None:
        """Call a replica, or wait until one has a free slot."""
        sender = self._sender
        if sender.closed:
            self._fail(Draining())
        elif (self._attempts.tries or not sender.queue.size) and self.reserve():
            self.start_call()
        else:
            self._wait()

    def reserve(self) -> bool:
        """Take a slot at the best replica, if it has one."""
        sender = self._sender
        replica = sender.replicas.pick(self._attempts.tried)
        if replica is None or not sender.take_slot():
            return False
        replica.in_flight += 1
        self._replica = replica
        return True

    def start_call(self) -> None:
        """Make the call that ``reserve`` took a slot for."""
        sender, replica = self._sender, self._replica
        assert replica is not None
        if self._timer is not None:
            self._stop_timer()
        connected, now_s = replica.state == "ready", sender.clock.seconds()
        step = self._attempts.start(replica.address, now_s, connected=connected)
        if isinstance(step, GiveUp):
            self._call_ended(replica)
            self._give_up(step)
            return
        self._successes = replica.successes
        sender.decisions.picked()
        if step.connect_s is not None:
            self._timer = sender.clock.callLater(step.connect_s, self._connecting_took_too_long, replica)
        try:
            call = self._call
            if call.visit is not None:
                call = self._setting_out(call, call.visit, replica, now_s)
            prepare = self._opening(replica) if self.streams else replica.channel.prepare
            calling = self._calling = prepare(call, step.timeout_s, self._answered, self._call_failed)
            calling.begin()
        except Exception:  # a bug must not keep the slot
            if self._replica is not None:
                self._call_ended(replica)
            self._broken(Failure())

    def _opening(self, replica: Replica) -> Prepare:
        """What takes the place of a channel's ``prepare`` where the answer ``streams``."""
        raise NotImplementedError

    # -- waiting -------------------------------------------------------------------------------------

    def outage_began(self) -> None:
        """The last connected replica was lost while this waits in the queue."""
        step = self._attempts.outage_began(self._sender.clock.seconds())
        if step is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._wait_for(step)

    def check_generation(self, generation: Generation) -> bool:
        """Fail unless the documents are of ``generation``, which was told while this waits."""
        decode = decode_single_answer if self.streams else decode_answer
        try:
            for message in self._call.messages:
                check_told_later(decode(message).documents, generation)
        except GenerationUnknown as error:
            self._stop_waiting()
            self._fail(error)
            return False
        except Malformed:
            pass  # whoever reads it says so
        return True

    def check_answers(self) -> bool:
        """Fail if one answer is wanted of an endpoint that streams, as replicas have told meanwhile."""
        sender = self._sender
        if self.streams or not sender.is_awaited or not sender.streams(self._call.endpoint):
            return True
        self._stop_waiting()
        self._fail(StreamingUnknown(self._call.endpoint))
        return False

    def drain(self) -> None:
        """The Sender closes while this waits in the queue."""
        self._stop_waiting()
        self._fail(Draining())

    def _wait(self) -> None:
        sender = self._sender
        step = self._attempts.wait(sender.clock.seconds(), queue_full=sender.queue.full)
        if isinstance(step, GiveUp):
            self._give_up(step)
        else:
            sender.queue.add(self, retry=bool(self._attempts.tried))
            sender.decisions.request("queued")
            if self._call.visit is not None:
                self._waiting(self._call.visit, "queue")
            self._wait_for(step)
            if sender.replicas.rests:
                sender.replicas.on_needed()

    def _wait_for(self, step: Wait) -> None:
        self._timer = self._sender.clock.callLater(step.seconds, self._waited)

    def _waited(self) -> None:
        self._timer = None
        step = self._attempts.waited(self._sender.clock.seconds())
        if isinstance(step, GiveUp):
            self._sender.queue.discard(self)
            self._give_up(step)
        else:
            self._wait_for(step)

    def _back_off(self, seconds: float) -> None:
        if self._call.visit is not None:
            self._waiting(self._call.visit, "backoff")
        self._timer = self._sender.clock.callLater(seconds, self._backed_off)

    def _backed_off(self) -> None:
        self._timer = None
        sender = self._sender
        self._attempts.stage_ended(sender.clock.seconds())
        told = sender.told_while_away
        if (told is None or self.check_generation(told)) and self.check_answers():
            self.begin()

    def _stop_waiting(self) -> None:
        """Also when backing off."""
        self._sender.queue.discard(self)
        self._stop_timer()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._attempts.stage_ended(self._sender.clock.seconds())

    # -- the call ------------------------------------------------------------------------------------

    def _answered(self, answer: Answer) -> None:
        try:
            replica = self._replica
            assert replica is not None
            self._call_ended(replica)
            if self._stage is not None:
                self._stage_over("OK", raised=answer.failed)
            replica.succeeded()
            waiting, self.answer = self.answer, None
            if waiting is not None:
                waiting.callback(answer)
        except Exception:
            self._broken(Failure())

    def _call_failed(self, error: Exception) -> None:
        try:
            self._failed_with(error)
        except Exception:
            self._broken(Failure())

    def _failed_with(self, error: Exception) -> None:
        replica = self._replica
        assert replica is not None
        self._call_ended(replica)
        if self._abandoned:
            if self._stage is not None:
                self._stage_over("CANCELLED")
            return
        readable = not isinstance(error, Malformed)
        error = self._as_call_error(error)
        if self._stage is not None:
            self._stage_over(error.code, error.details)
        self._decide(error, replica, readable=readable)

    def _as_call_error(self, error: Exception) -> CallError:
        """Raises what is a bug."""
        if isinstance(error, CallError):
            return error
        if isinstance(error, Malformed):
            return CallError("INTERNAL", f"the executor's answer is no message: {error}")
        if isinstance(error, CancelledError):
            # By _connecting_took_too_long, or because the channel was closed during the call.
            found = self._no_connection or CallError("UNAVAILABLE", "the connection was closed")
            self._no_connection = None
            return found
        raise error

    def _decide(self, error: CallError, replica: Replica, *, readable: bool) -> None:
        sender, now_s = self._sender, self._sender.clock.seconds()
        if self._attempts.client_was_impatient(error, now_s):
            replica.client_gave_up(self._successes)
        else:
            replica.failed(error)
        if sender.closed:
            self._fail(Draining())
            return
        if error.lost and not replica.has_answered:
            # It greets and hangs up: no request of ours has ended it.
            error = CallError(error.code, error.details, reached=error.reached)
        step = self._attempts.failed(
            error, replica.label, now_s, readable=readable, budget=sender.budget, dice=sender.dice.random()
        )
        if isinstance(step, GiveUp):
            self._give_up(step)
        else:
            sender.decisions.retried(error.code, str(error))
            self._back_off(step.seconds)

    def _call_ended(self, replica: Replica) -> None:
        self._calling = None
        self._replica = None
        if self._timer is not None:
            self._stop_timer()
        self._sender.call_ended(replica)

    def _connecting_took_too_long(self, replica: Replica) -> None:
        self._timer = None
        self._attempts.stage_ended(self._sender.clock.seconds())
        calling = self._calling
        if replica.state != "ready" and calling is not None:
            self._no_connection = self._attempts.no_connection(replica.label)
            calling.cancel()

    def _cancelled(self, _: object) -> None:
        self._abandoned = True
        self.answer = None
        self._sender.decisions.request("cancelled")
        calling, replica = self._calling, self._replica
        if calling is None or replica is None:
            if self._stage is not None:
                self._stage_over()
            self._stop_waiting()
            return
        replica.client_gave_up(self._successes)
        calling.cancel()

    # -- the journey, where one is written down ----------------------------------------------------------

    def _setting_out(self, call: Call, visit: Visit, replica: Replica, now_s: float) -> Call:
        """An attempt begins: the call as it goes out, which in a trace names the attempt as its parent."""
        if self._stage is not None:
            self._stage.end(now_s)
        attempt = self._stage = visit.attempt(replica.address, now_s, self._attempts.tries)
        if visit.trace is None:
            return call
        context = visit.trace.context
        if attempt.span_id:
            parent = TraceContext(context.trace_id, attempt.span_id, context.sampled, context.state)
        else:  # one of very many: neither it nor what is below it is kept
            parent = TraceContext(context.trace_id, context.span_id, False, context.state)
        return Call(call.messages, call.endpoint, call.listed, (*call.headers, *headers_of(parent)), visit)

    def _waiting(self, visit: Visit, kind: Kind) -> None:
        now_s = self._sender.clock.seconds()
        if self._stage is not None:
            self._stage.end(now_s)
        self._stage = visit.wait(kind, now_s)

    def _stage_over(self, code: str = "", reason: str = "", *, raised: bool = False) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.end(self._sender.clock.seconds(), code, reason, raised=raised)

    # -- the end -------------------------------------------------------------------------------------

    def _give_up(self, step: GiveUp) -> None:
        if step.decision:
            self._sender.decisions.request(step.decision, step.why)
        self._fail(step.error)

    def _fail(self, error: Exception) -> None:
        if self._stage is not None:
            self._stage_over()
        waiting, self.answer = self.answer, None
        if waiting is not None:
            waiting.errback(Failure(error))

    def _broken(self, failure: Failure) -> None:
        # A bug must fail this request only, and never leave it without an answer.
        waiting, self.answer = self.answer, None
        if waiting is None:
            log.failure("a call's answer could not be handled", failure=failure)
        else:
            waiting.errback(failure)
