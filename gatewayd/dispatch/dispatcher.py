"""
Drives the Traversals: sends their calls, passes them the answers, and keeps the deadlines.

Every request is one ``Run``. It ends in exactly one of four ways, after which nothing more is sent
for it and every call the client was waiting for is cancelled:

    answered     the Traversal is finished; its floating calls (and what follows them) carry on
    failed       a call failed below its Executor, or something unforeseen was raised
    timed out    the client's deadline passed
    cancelled    the caller cancelled it, because its client has gone

Floating calls that are under way then belong to the Dispatcher: they are left to end by themselves,
their failures are only logged, and ``drain`` waits for them.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, Protocol
from uuid import uuid4

import attrs
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.python.failure import Failure

from gatewayd.bounded_log import BoundedLogger
from gatewayd.clocks import Clock, Timer
from gatewayd.deadlines import SLACK_S
from gatewayd.dispatch.deadline import DeadlineOver
from gatewayd.dispatch.hints import Hints
from gatewayd.dispatch.parameters import check_values
from gatewayd.dispatch.streaming import WINDOW, AnswerStream, Branch, DocumentStream, Stage, generators
from gatewayd.dispatch.topology import Node, Topology
from gatewayd.dispatch.traversal import Prepare, Send, Step, Traversal
from gatewayd.errors import BadRequest, Draining, GatewayError, GenerationUnknown
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.discovery import DRY_RUN, Endpoints
from gatewayd.messages.formats import DocumentFormat
from gatewayd.messages.generations import (
    NAMED,
    ForeignDocuments,
    Generation,
    check_generation,
    check_told_later,
)
from gatewayd.messages.headers import AllowList
from gatewayd.messages.journey import Journey, Outcome
from gatewayd.messages.request import Answer, Call, Request, Response
from gatewayd.messages.rope import Content
from gatewayd.messages.wire import decode_answer
from gatewayd.offload import SMALL_BYTES, Offload
from gatewayd.pb import StatusProto
from gatewayd.streams import Awaited, Failing, Stream
from gatewayd.waiters import Waiters

_FIRST: Final = Generation.FIRST


class Pool(Protocol):
    """How a request reaches a Deployment."""

    # That of the documents of the Flow, as far as executors have told: it may change.
    format: DocumentFormat

    def send(self, deployment: str, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        """
        Make ``call``; cancelling the Deferred ends it.

        ``timeout_s`` is what is left of the client's deadline, None for none. Fails with a
        ExecutorNetworkError, or Overloaded; what an Executor raised is an Answer.
        """
        ...

    def serves(self, deployment: str, endpoint: str) -> bool:
        """Whether the Executor binds ``endpoint``; True while that is not known."""
        ...

    def endpoints(self) -> Endpoints:
        """What the executors bind, as far as it is known."""
        ...

    def streams(self, deployment: str, endpoint: str) -> bool:
        """Whether the Executor is known to answer ``endpoint`` with a stream."""
        ...

    @property
    def undecided(self) -> frozenset[str]:
        """The Deployments of which it is not known yet what they bind, and may soon be."""
        ...

    def decided(self, names: frozenset[str]) -> Deferred[None]:
        """Fires when none of ``names`` is ``undecided``."""
        ...

    @property
    def generation(self) -> Generation | None:
        """Which documents the executors speak; None while that is not known."""
        ...

    def stream(self, deployment: str, call: Call, timeout_s: float | None) -> AnswerStream:
        """
        As ``send``, of a SingleDocumentRequestProto, where the Executor streams.

        Raises BadRequest where its shards cannot.
        """
        ...


class Dispatcher:
    """
    Takes requests through the Topology. Reactor thread only.

    ``clock`` measures deadlines; ``wall_clock`` gives the times in routes, seconds since the epoch.
    ``forwarded`` bounds the headers of answers. ``stream_window`` is how many documents may be under way
    behind each executor that streams. ``connect_timeout_s`` is how long a request waits to know which do.
    """

    log = BoundedLogger()

    def __init__(
        self,
        topology: Topology,
        pool: Pool,
        clock: Clock,
        offload: Offload,
        *,
        offload_bytes: int = SMALL_BYTES,
        forwarded: AllowList | None = None,
        wall_clock: Callable[[], float] = time.time,
        stream_window: int = WINDOW,
        most_values: int = 250_000,
        connect_timeout_s: float = 1.0,
    ) -> None:
        self._most_values = most_values
        self._connect_timeout_s = connect_timeout_s
        self._stream_window = stream_window
        self.topology = topology
        self.pool = pool
        self.clock = clock
        self.offload = offload
        self.offload_bytes = offload_bytes
        self.wall_clock = wall_clock
        self.forwarded = AllowList() if forwarded is None else forwarded
        self._read_as = Generation.FIRST if topology.reads_documents else None
        self._closed = False
        self._hints = Hints()
        self._runs: set[Run | DocumentStream] = set()
        self._drained: Waiters[None] = Waiters()

    @property
    def in_flight(self) -> int:
        """Requests not yet answered, and answered ones whose floating calls are still under way."""
        return len(self._runs)

    def dispatch(self, request: Request, *, timeout_s: float | None = None) -> Deferred[Response]:
        """
        Take one request to its Response. Cancel the Deferred to stop all that the client waits for.

        The deadline is the shorter of ``timeout_s`` and the request's own. Fails with BadRequest
        (ForeignDocuments for those of a generation that the Flow does not speak), Draining, DeadlineOver, or
        the pool's error. An Executor that raised is not a failure here: the Response's status has its error.
        """
        if self._closed:
            return fail(Draining())
        try:
            if len(request.parameters) > self._most_values:
                check_values(request.parameters, self._most_values)
            if documents := request.documents:
                # Where nobody has said it, and nothing here reads documents, executors decide.
                generation = self.pool.generation or self._read_as
                # The usual case by hand: a small document of the first, which does not begin as a map does.
                if generation is not None and not (
                    generation is _FIRST
                    and type(documents) is bytes
                    and len(documents) > 6
                    and documents[1] < 0x80
                    and 0 < documents[3] < 0x80
                    and (documents[4] != 0x0A or documents[6] != 0x0A)
                ):
                    self._check_generation(documents, generation)
            traversal = Traversal(self.topology, request, self.pool.serves, self.pool.format)
        except Exception:  # BadRequest; anything else is a bug, which must fail this request only
            return fail(Failure())
        if request.timeout_s is not None:
            timeout_s = request.timeout_s if timeout_s is None else min(timeout_s, request.timeout_s)
        run = Run(self, traversal, request.request_id, timeout_s)
        self._runs.add(run)
        return run.begin()

    def stream(self, request: Request, *, timeout_s: float | None = None) -> Stream:
        """
        Take one request to its answers, one document at a time (``dispatch/streaming.py``).

        Where nothing streams on its way, the one answer is that of ``dispatch``, whatever documents it has.
        Errors and deadlines are those of ``dispatch``, and come by ``receive``. What streams is waited for,
        as by ``known``.
        """
        if self.pool.undecided and (names := self._undecided(request)):
            return Awaited(
                self._decided(names, request, timeout_s), lambda left_s: self._stream(request, left_s)
            )
        return self._stream(request, timeout_s)

    def _stream(self, request: Request, timeout_s: float | None) -> Stream:
        if self._closed:
            return Failing(Draining())
        try:
            if len(request.parameters) > self._most_values:
                check_values(request.parameters, self._most_values)
            generation = self.pool.generation or self._read_as
            if generation is not None:
                self._check_generation(request.documents, generation)
            traversal = Traversal(self.topology, request, self.pool.serves, self.pool.format)
            found = generators(self.topology, traversal, self.pool.streams)
        except Exception as error:  # BadRequest; anything else is a bug, which must fail this request only
            return Failing(error)
        if request.timeout_s is not None:
            timeout_s = request.timeout_s if timeout_s is None else min(timeout_s, request.timeout_s)
        return DocumentStream(self, traversal, found, timeout_s, self._stream_window)

    @property
    def undecided(self) -> bool:
        """Whether executors that are waited for have not told yet what they bind, and soon may."""
        return bool(self.pool.undecided and self._undecided(None))

    def known(self, request: Request | None, timeout_s: float | None) -> Deferred[float | None]:
        """
        Fires when the executors that ``request`` may reach have told what they bind, and what of it streams.

        Without that it fires when no more is to be waited for: some cannot be reached, or tell nothing, or
        the time is over. None is for any request. The result is what is left of ``timeout_s``, the client's
        deadline. Cancel it to wait no longer.
        """
        names = self._undecided(request)
        return self._decided(names, request, timeout_s) if names else succeed(timeout_s)

    def _undecided(self, request: Request | None) -> frozenset[str]:
        undecided = self.pool.undecided
        nodes = [node for node in self.topology.nodes if node.name in undecided and not node.background]
        if request is not None and request.target and nodes:
            try:
                traversal = Traversal(self.topology, request, self.pool.serves, self.pool.format)
                nodes = [node for node in nodes if traversal.targets(node)]
            except BadRequest:
                return frozenset()  # it is told when the request is dispatched
        return frozenset([node.name for node in nodes])

    def _decided(
        self, names: frozenset[str], request: Request | None, timeout_s: float | None
    ) -> Deferred[float | None]:
        if request is not None and request.timeout_s is not None:
            timeout_s = request.timeout_s if timeout_s is None else min(timeout_s, request.timeout_s)
        clock, patience_s = self.clock, self._connect_timeout_s
        began_s = clock.seconds()
        deciding = self.pool.decided(names)
        # Of a reactor it needs no more than a Clock has.
        reactor: Any = clock
        deciding.addTimeout(patience_s if timeout_s is None else min(patience_s, timeout_s), reactor)

        def late(failure: Failure) -> None:
            failure.trap(TimeoutError)

        def left(_: None) -> float | None:
            return None if timeout_s is None else max(0.0, timeout_s - (clock.seconds() - began_s))

        return deciding.addErrback(late).addCallback(left)

    def _check_generation(self, documents: Content, generation: Generation) -> None:
        """Raises ForeignDocuments, or GenerationUnknown where executors may still tell another one."""
        try:
            check_generation(documents, generation)
        except ForeignDocuments:
            if self.pool.generation is None and self.pool.endpoints().unknown:
                raise GenerationUnknown(NAMED[Generation.SECOND]) from None
            raise

    def dry_run(self, documents: bytes = b"", *, caller: Caller = ANONYMOUS) -> Deferred[Response]:
        """
        Take a request that changes nothing through every Deployment; it fails as ``dispatch`` does.

        gRPC sends one empty Document with an id, HTTP and WebSocket send none (spec grpc.md, dry_run). It is
        one of the first generation: executors of the second get none (spec 34/interop.md).
        """
        if self.pool.generation == Generation.SECOND:
            documents = b""
        return self.dispatch(Request(uuid4().hex, DRY_RUN, documents=documents, caller=caller))

    def close(self) -> None:
        """Refuse new requests with Draining. Those under way are not touched."""
        self._closed = True

    def drain(self) -> Deferred[None]:
        """Fires when nothing is in flight, floating calls included. Each caller gets its own."""
        drained = self._drained.wait()
        self._check_drained()
        return drained

    def refuse_awaited(self) -> int:
        """Fail the requests that clients wait for with Draining; floating calls go on. Returns how many."""
        awaited = [run for run in self._runs if run.is_awaited]
        for run in awaited:
            run.refuse()
        return len(awaited)

    def abandon(self) -> Counter[str]:
        """
        Fail what is in flight with Draining, and cancel its calls, floating ones too.

        Returns how many floating calls were cancelled, by deployment.
        """
        floating = Counter(name for run in self._runs for name in run.floating)
        for run in tuple(self._runs):
            run.abandon()
        return floating

    def hinted(self, response: Response, traversal: Traversal) -> Response:
        """``response`` of a ``traversal`` without calls, with a hint if a name may be misspelt."""
        request, nodes = traversal.request, self.topology.nodes
        matching = [node.name for node in nodes if traversal.targets(node)]
        if not nodes or request.endpoint == DRY_RUN:
            return response
        if any(self.pool.serves(name, request.endpoint) for name in matching):
            return response  # it may be a floating one that was not called
        names = [node.name for node in nodes]
        hint = self._hints.hint(request, names, len(matching), self.pool.endpoints().bound)
        return attrs.evolve(response, hint=hint)

    # -- for streams ---------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether new requests are refused."""
        return self._closed

    def open_stream(self, deployment: str, call: Call, timeout_s: float | None) -> AnswerStream:
        """Raises BadRequest."""
        return self.pool.stream(deployment, call, timeout_s)

    def stage(self, traversal: Traversal, stage: Stage) -> Run:
        """A part of a stream, which is counted with its stream."""
        return Run(self, traversal, traversal.request.request_id, None, stage)

    def run_began(self, run: DocumentStream) -> None:
        """Called by each stream when it is asked for its first answer."""
        self._runs.add(run)

    # -- for both ------------------------------------------------------------------------------------

    def run_ended(self, run: Run | DocumentStream) -> None:
        """Called by each run when it has its result and its last call has ended."""
        self._runs.discard(run)
        if not self._runs and len(self._drained):
            self._check_drained()

    def _check_drained(self) -> None:
        if not self._runs:
            self._drained.fire(None)


class Run:
    """
    One request under way: its calls, its deadline, and the Deferred its client waits for.

    With a ``stage`` it is a part of a stream, and ends with a Branch when only a generator is left.
    """

    __slots__ = (
        "_calls",
        "_deadline",
        "_dispatcher",
        "_ended",
        "_held",
        "_journey",
        "_performing",
        "_request_id",
        "_result",
        "_spoken",
        "_stage",
        "_steps",
        "_stopped",
        "_timeout_s",
        "_timer",
        "_traversal",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        traversal: Traversal,
        request_id: str,
        timeout_s: float | None,
        stage: Stage | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._stage = stage
        self._spoken = dispatcher.pool.generation  # when the documents were looked at
        self._held: Send | None = None  # the call of a generator
        self._traversal = traversal
        self._journey = traversal.request.journey
        self._request_id = request_id
        self._timeout_s = timeout_s
        self._deadline: float | None = None if stage is None else stage.deadline_s
        self._timer: Timer | None = None
        # What has been started and not ended; None stands for work on the final answer.
        self._calls: dict[Node | None, Deferred[Any]] = {}
        self._steps: deque[Step] = deque()
        self._performing = False
        self._stopped = False  # nothing may be sent any more
        self._ended = False
        self._result: Deferred[Response] | None = Deferred(self._cancelled)  # None once it is given

    @property
    def is_awaited(self) -> bool:
        """Whether a client still waits for the response."""
        return self._result is not None

    @property
    def floating(self) -> list[str]:
        """The deployments whose floating calls are under way."""
        return [node.name for node in self._calls if node is not None and node.background]

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The deployments that the client waits for."""
        return tuple(
            [
                node.name
                for node in self._calls
                if node is not None and (node.collected or not node.background)
            ]
        )

    def begin(self, first: Callable[[float], list[Step]] | None = None) -> Deferred[Any]:
        """
        Start; the Deferred fires with the Response, or the Branch at which a stage ends. Call it once.

        ``first`` gives the first steps where these are not the traversal's own.
        """
        result = self._result
        assert result is not None
        if self._timeout_s is not None:
            if self._timeout_s <= 0:
                self._timed_out()
                return result
            clock = self._dispatcher.clock
            self._deadline = clock.seconds() + self._timeout_s
            self._timer = clock.callLater(self._timeout_s, self._timed_out)
        try:
            now = self._dispatcher.wall_clock()
            self._perform(self._traversal.begin(now) if first is None else first(now))
        except Exception:  # Malformed parameters; or a bug, which must not leave its client waiting
            self._fail(Failure())
        if self._result is None:
            self._end_if_idle()
        return result

    def _perform(self, steps: list[Step]) -> None:
        """Do ``steps`` and all that follows from them at once."""
        queue = self._steps
        queue.extend(steps)
        if self._performing:
            return  # a call was answered at once, while the loop below was starting it
        self._performing = True
        try:
            while queue:
                step = queue.popleft()
                try:
                    if type(step) is Send:
                        if self._stage is not None and step.node.index in self._stage.generators:
                            self._held = step
                        else:
                            self._send(step.node, step.call)
                    elif type(step) is Prepare:
                        self._prepare(step)
                except Exception:
                    self._failed(Failure(), step.node)
        finally:
            self._performing = False
        if self._traversal.finished:
            self._answer()
        elif self._held is not None:
            self._branch_off(self._held)

    def _branch_off(self, held: Send) -> None:
        """End with a Branch, unless the client has left or other executors still work for it."""
        if self._result is not None and not any(
            node is None or node.collected or not node.background for node in self._calls
        ):
            result: Deferred[Any] = self._settle()
            result.callback(Branch(self._traversal, held.node, held.call))

    def _answer(self) -> None:
        """Give the response, unless the client has left or it waits for inspect executors."""
        if self._result is not None and not (self._dispatcher.topology.has_collected and self._collects()):
            response = self._traversal.response(self._dispatcher.wall_clock())
            if response.headers:
                response = self._bounded(response)
            if not self._traversal.has_called:
                response = self._dispatcher.hinted(response, self._traversal)
            self._settle().callback(response)

    def _collects(self) -> bool:
        """Whether the answer, which does not depend on them, waits for inspect executors."""
        return any(node is not None and node.collected for node in self._calls)

    def _bounded(self, response: Response) -> Response:
        dispatcher = self._dispatcher
        kept = dispatcher.forwarded.bounded(response.headers)
        dropped = {name for name, _ in response.headers}.difference(name for name, _ in kept)
        if dropped:
            dispatcher.log.warn(
                "request {request_id}: headers of executors are more than {limit} bytes "
                "(gateway.forward_headers_max_bytes); the client does not get {names}",
                request_id=self._request_id,
                limit=dispatcher.forwarded.limit_bytes,
                names=", ".join(sorted(dropped)),
            )
        return attrs.evolve(response, headers=kept)

    def _send(self, node: Node, call: Call) -> None:
        left_s = None
        if self._deadline is not None and not node.background:
            # The deadline's own timer ends the call; the pool's would only name another reason, if it were
            # first. A late reactor may find the deadline passed and the timer still waiting.
            left_s = max(0.0, self._deadline - self._dispatcher.clock.seconds()) + SLACK_S
        if self._journey is not None:
            call = self._visiting(self._journey, node, call)
        if self._spoken is not self._dispatcher.pool.generation:
            self._check_again(call)
        waiting = self._calls[node] = self._dispatcher.pool.send(node.name, call, left_s)
        waiting.addCallbacks(self._answered, self._failed, callbackArgs=(node,), errbackArgs=(node,))

    def _check_again(self, call: Call) -> None:
        """Executors have told what they speak since. Raises GenerationUnknown."""
        generation = self._dispatcher.pool.generation
        if generation is not None:
            for message in call.messages:
                check_told_later(decode_answer(message).documents, generation)

    def _visiting(self, journey: Journey, node: Node, call: Call) -> Call:
        now_s = self._dispatcher.clock.seconds()
        visit = journey.visit(node.name, now_s, floating=node.background)
        return Call(call.messages, call.endpoint, call.listed, call.headers, visit)

    def _left(self, journey: Journey, node: Node, failure: Failure) -> None:
        """A call has ended without an answer."""
        cancelled = failure.check(CancelledError) is not None
        journey.left(
            node.name,
            self._dispatcher.clock.seconds(),
            "cancelled" if cancelled else "failed",
            "" if cancelled else type(failure.value).__name__,
        )

    def _prepare(self, step: Prepare) -> None:
        if step.size_bytes <= self._dispatcher.offload_bytes:
            self._prepared(step.work(), step.node)
            return
        node = step.node
        waiting = self._calls[node] = self._dispatcher.offload(step.work)
        waiting.addCallbacks(self._prepared, self._failed, callbackArgs=(node,), errbackArgs=(node,))

    def _answered(self, answer: Answer, node: Node) -> None:
        del self._calls[node]
        if self._journey is not None:
            outcome: Outcome = "raised" if answer.failed else "answered"
            self._journey.left(node.name, self._dispatcher.clock.seconds(), outcome)
        if node.background and answer.failed:
            name = StatusProto.FromString(answer.status).exception.name
            self._log_floating(node, name or "an error without a name")
        if not self._stopped:
            try:
                self._perform(self._traversal.answered(node, answer, self._dispatcher.wall_clock()))
            except Exception:
                self._failed(Failure(), node)
        if self._result is None:
            self._end_if_idle()

    def _prepared(self, documents: tuple[Content, ...], node: Node | None) -> None:
        self._calls.pop(node, None)
        if not self._stopped:
            try:
                self._perform(self._traversal.prepared(node, documents, self._dispatcher.wall_clock()))
            except Exception:
                self._failed(Failure(), node)
        self._end_if_idle()

    def _failed(self, failure: Failure, node: Node | None) -> None:
        self._calls.pop(node, None)
        if self._journey is not None and node is not None:
            self._left(self._journey, node, failure)
        if node is not None and node.background and failure.check(GatewayError, CancelledError):
            self._log_floating(node, type(failure.value).__name__)
            if not self._stopped and not self._performing and self._traversal.finished:
                self._answer()
        elif self._result is not None:
            self._fail(failure)
        elif not failure.check(GatewayError, CancelledError):  # those come of this run's own cancelling
            self._dispatcher.log.failure(
                "request {request_id}: an error after its end", failure, request_id=self._request_id
            )
        self._end_if_idle()

    def _timed_out(self) -> None:
        self._timer = None
        self._fail(Failure(DeadlineOver(self.waiting_for, self._timeout_s or 0.0)))
        self._end_if_idle()

    def _fail(self, failure: Failure) -> None:
        if self._result is not None:
            self._stop().errback(failure)

    def refuse(self) -> None:
        """Fail the request with Draining. Its floating calls go on."""
        self._fail(Failure(Draining()))
        self._end_if_idle()

    def abandon(self) -> None:
        """End at once, whatever is under way."""
        self._fail(Failure(Draining()))
        self._stopped = True
        for call in list(self._calls.values()):
            call.cancel()
        self._end_if_idle()

    def _cancelled(self, result: Deferred[Response]) -> None:
        if self._result is not None:
            self._stop()  # Deferred.cancel itself then fails the result
        self._end_if_idle()

    def _stop(self) -> Deferred[Response]:
        """Send nothing more, cancel what the client waits for, and return the Deferred to fail."""
        self._stopped = True
        result = self._settle()
        self._steps.clear()
        for node, call in list(self._calls.items()):
            if node is None or not node.background:
                call.cancel()
        return result

    def _settle(self) -> Deferred[Response]:
        """Take out the result, which can then be fired, once."""
        assert self._result is not None
        # Holding it would be a reference cycle through its canceller: work for the garbage collector.
        result, self._result = self._result, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return result

    def _end_if_idle(self) -> None:
        if self._result is None and not self._calls and not self._performing and not self._ended:
            self._ended = True
            if self._stage is None:
                self._dispatcher.run_ended(self)
            else:
                self._stage.on_end(self)

    def _log_floating(self, node: Node, reason: str) -> None:
        self._dispatcher.log.warn(
            "request {request_id}: floating {deployment} failed with {reason}",
            request_id=self._request_id,
            deployment=node.name,
            reason=reason,
        )
