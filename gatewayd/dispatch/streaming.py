"""
What happens to one request of an endpoint that streams (docs/decisions/streams.md). Reactor thread only.

    request ──> a stage: one request, as always, up to the generator ──> Branch
                                                                           │ for each document of its input
    answers <── a stage for each answer, from there on <── the pool's stream

A stage is a ``Run`` of the Traversal, which ends with a Response, or with a ``Branch`` where all but a
generator has answered. Each document of a generator goes on by a fork of that Traversal: what has been
answered beside the generator is joined with each of them. A stage that ends with a Branch again is the next
generator, whose stream is opened when its turn has come.

At most ``window`` documents of each generator are under way or wait to be asked for, in their order. Where
nothing comes behind a generator, its documents are answers as they are (``LastStep``), without a stage: they
are pulled when they are asked for, as many at once as have arrived.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from gatewayd.bounded_log import BoundedLogger
from gatewayd.clocks import Clock, Timer
from gatewayd.deadlines import SLACK_S
from gatewayd.dispatch.deadline import DeadlineOver
from gatewayd.dispatch.topology import Node, Topology
from gatewayd.dispatch.traversal import LastStep, Step, Traversal
from gatewayd.errors import BadRequest, Draining, NothingStreams
from gatewayd.messages.journey import Journey, Outcome
from gatewayd.messages.request import Answer, Call, Response
from gatewayd.messages.rope import Content
from gatewayd.messages.single import SingleCalls, contents_of
from gatewayd.messages.wire import split

log = BoundedLogger()

WINDOW: Final = 8


class AnswerStream(Protocol):
    """The answers of an Executor that streams; as ``gatewayd.streams.Stream``, but for ``ask``."""

    def ask(
        self, on_answer: Callable[[Answer | None], object], on_failure: Callable[[Failure], object]
    ) -> None:
        """
        Call back with the next answer, None at the end, or the failure; at once, or later.

        Ask again when that has been called. ``cancel`` calls ``on_failure`` if it has not.
        """
        ...

    def more(self, most: int) -> list[Answer]: ...
    def cancel(self) -> None: ...


class Branch:
    """Where a stage has come to a generator: ``call`` is what ``node`` would have been called with."""

    __slots__ = ("call", "node", "traversal")

    def __init__(self, traversal: Traversal, node: Node, call: Call) -> None:
        self.traversal = traversal
        self.node = node
        self.call = call


class StageRun(Protocol):
    """A part of the way of one request."""

    def begin(self, first: Callable[[float], list[Step]] | None = None) -> Deferred[Any]:
        """Start; the Deferred fires with a Response or a Branch. ``first`` gives the first steps."""

    def abandon(self) -> None:
        """End at once, floating calls as well."""

    @property
    def floating(self) -> list[str]: ...
    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The Deployments that a client waits for."""


@attrs.frozen
class Stage:
    """
    What makes a Run a part of a stream.

    ``generators`` are the indices of nodes at which it ends, ``deadline_s`` is the client's, ``on_end`` is
    told when nothing of it is under way any more.
    """

    generators: Collection[int]
    deadline_s: float | None
    on_end: Callable[[StageRun], object]


class StreamOwner(Protocol):
    """What the dispatcher does for streams."""

    clock: Clock
    wall_clock: Callable[[], float]

    @property
    def closed(self) -> bool: ...
    def open_stream(self, deployment: str, call: Call, timeout_s: float | None) -> AnswerStream: ...
    def stage(self, traversal: Traversal, stage: Stage) -> StageRun: ...
    def run_began(self, run: DocumentStream) -> None: ...
    def run_ended(self, run: DocumentStream) -> None: ...


def generators(
    topology: Topology, traversal: Traversal, streams: Callable[[str, str], bool]
) -> frozenset[int]:
    """
    The indices of the nodes that stream the answer to the request of ``traversal``.

    ``streams(deployment, endpoint)`` says which executors do. Those that are floating do not count: nobody
    waits for what they answer. Raises BadRequest for two of which neither stands behind the other.
    """
    endpoint = traversal.request.endpoint
    found = [
        node
        for node in topology.nodes
        if streams(node.name, endpoint) and not node.background and traversal.targets(node)
    ]
    for index, one in enumerate(found):
        for other in found[index + 1 :]:
            if other.index not in _behind(one) and one.index not in _behind(other):
                raise BadRequest(
                    f"{one.name} and {other.name} both stream {endpoint}, side by side: the documents of two "
                    "streams cannot be joined; let one need the other in the Flow file, or leave one of them "
                    "out by the request's target"
                )
    return frozenset(node.index for node in found)


def _behind(node: Node) -> set[int]:
    """The indices of all nodes that get what comes out of ``node``."""
    found: set[int] = set()
    ahead = list(node.successors)
    while ahead:
        each = ahead.pop()
        if each.index not in found:
            found.add(each.index)
            ahead += each.successors
    return found


class _Item:
    """One document behind a generator, or the request itself: its stage, and what has come of it."""

    __slots__ = ("outcome", "result")

    def __init__(self) -> None:
        self.result: Deferred[Any] | None = None  # while it is under way
        self.outcome: Response | Branch | Failure | None = None


class _Level:
    """One generator that streams, or the request itself (``branch`` is None): its documents in order."""

    __slots__ = (
        "branch",
        "callbacks",
        "calls",
        "is_last",
        "items",
        "journey",
        "last",
        "pulling",
        "routes",
        "source",
        "visiting",
    )

    def __init__(self, branch: Branch | None) -> None:
        self.branch = branch
        self.items: deque[_Item] = deque()
        self.calls: deque[SingleCalls] = deque()  # to be made, one after the other; none is empty
        self.source: AnswerStream | None = None
        # Of the source; they refer to this level, and are let go with it.
        self.callbacks: tuple[Callable[[Answer | None], object], Callable[[Failure], object]] | None = None
        self.pulling = False
        self.routes: tuple[bytes, ...] = ()
        self.journey: Journey | None = None
        self.visiting = False  # a call of the source is written down as under way
        self.is_last = branch is not None and branch.node.is_last
        self.last: LastStep | None = None  # once it is known that nothing else is left to do
        if branch is not None:
            for message in branch.call.messages:
                calls = SingleCalls(message)
                if calls:
                    self.calls.append(calls)
            self.routes = split(bytes(branch.call.messages[0]))[2]
            self.journey = branch.traversal.request.journey


class DocumentStream:
    """A ``gatewayd.streams.Stream``."""

    def __init__(
        self,
        owner: StreamOwner,
        traversal: Traversal,
        generators: frozenset[int],
        timeout_s: float | None,
        window: int = WINDOW,
    ) -> None:
        """``timeout_s`` is the client's deadline, from the first ``receive`` on."""
        self._owner = owner
        self._traversal = traversal
        self._generators = generators
        self._timeout_s = timeout_s
        self._deadline_s: float | None = None
        self._window = window
        self._timer: Timer | None = None
        self._begun = False
        self._over = False  # nothing is sent any more
        self._ended = False  # the owner knows
        self._advancing = False
        self._failure: Failure | None = None  # for whoever asks next
        self._levels: list[_Level] = []
        self._ready: deque[Response] = deque()
        self._runs: set[StageRun] = set()
        self._waiting: Deferred[Response | None] | None = None

    # -- Stream --------------------------------------------------------------------------------------

    def receive(self) -> Deferred[Response | None]:
        assert self._waiting is None, "an answer is asked for already"
        result: Deferred[Response | None] = Deferred(self._cancelled)
        self._waiting = result
        if self._over:
            self._give_end()
            return result
        if not self._begun:
            self._begin()
        self._advance()
        return result

    def more(self, most: int) -> list[Response]:
        found: list[Response] = []
        if self._waiting is not None:
            return found
        try:
            while len(found) < most and (self._ready or self._is_ready(most - len(found))):
                found.append(self._ready.popleft())
        except Exception:
            self._fail(Failure())
        if found:
            self._advance()  # there is room again
        return found

    def cancel(self) -> None:
        waiting = self._waiting
        if waiting is not None:
            waiting.cancel()
        else:
            self._stop()

    # -- for the dispatcher --------------------------------------------------------------------------

    @property
    def is_awaited(self) -> bool:
        """Whether a client still wants answers."""
        return not self._over

    @property
    def floating(self) -> list[str]:
        """The deployments whose floating calls are under way."""
        return [name for run in self._runs for name in run.floating]

    def refuse(self) -> None:
        """Fail with Draining. Floating calls go on."""
        self._fail(Failure(Draining()))

    def abandon(self) -> None:
        """End at once, whatever is under way."""
        self._fail(Failure(Draining()))
        for run in tuple(self._runs):
            run.abandon()

    # -- the way -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._begun = True
        owner = self._owner
        if owner.closed:
            self._ended = True  # it never began
            self._fail(Failure(Draining()))
            return
        owner.run_began(self)
        if self._timeout_s is not None:
            self._deadline_s = owner.clock.seconds() + self._timeout_s
            if self._timeout_s <= 0:
                self._timed_out()
                return
            self._timer = owner.clock.callLater(self._timeout_s, self._timed_out)
        level = _Level(None)
        self._levels.append(level)
        self._stage(level, self._traversal, None)

    def _advance(self) -> None:
        """Do all that can be done now."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while not self._over:
                for level in tuple(self._levels):
                    if level.branch is not None and not level.pulling:
                        self._fill(level, level.branch)
                if self._over or self._waiting is None or not self._step():
                    break
        except Exception:
            self._fail(Failure())
        finally:
            self._advancing = False
        if self._over:
            self._end_if_idle()

    def _step(self) -> bool:
        """Bring what is asked for nearer; False if it has to come from an executor."""
        if self._ready:
            self._give(self._ready.popleft())
            return True
        level = self._levels[-1]
        if level.items:
            outcome = level.items[0].outcome
            if outcome is None:
                return False
            level.items.popleft()
            if isinstance(outcome, Failure):
                self._fail(outcome)
            elif isinstance(outcome, Branch):
                self._levels.append(_Level(outcome))
            elif level.branch is None and outcome.hint:
                # Its own documents, as single requests have them, would look like answers (spec
                # 34/streaming.md: the reference echoes them, up to four times).
                self._fail(Failure(NothingStreams(self._traversal.request.endpoint)))
            elif level.branch is None:
                self._give(outcome)
            else:
                self._ready.extend(_single(outcome))
            return True
        if level.source is not None or level.calls:
            return False  # its generator has more to say
        self._levels.pop().callbacks = None
        if not self._levels:
            self._stop()
            self._give_end()
        return True

    def _is_ready(self, most: int) -> bool:
        """Whether an answer is there without a wait; takes up to ``most`` of those that have arrived."""
        while not self._ready:
            if not self._levels:
                return False
            level = self._levels[-1]
            branch, source = level.branch, level.source
            if branch is None:
                return False
            if level.items:
                outcome = level.items[0].outcome
                if not isinstance(outcome, Response):
                    return False
                level.items.popleft()
                self._ready.extend(_single(outcome))
            elif level.is_last and source is not None and not level.pulling:
                answers = source.more(most)
                if not answers:
                    return False
                now = self._owner.wall_clock()
                for answer in answers:
                    self._go_on(level, branch, answer, now)
            else:
                return False
        return True

    def _fill(self, level: _Level, branch: Branch) -> None:
        """Ask a generator for what there is room for."""
        while not self._over and not level.pulling and len(level.items) < self._window:
            if level.is_last and (self._waiting is None or level.items or self._ready):
                break  # nothing is gained by having it sooner
            if level.source is None:
                if not level.calls:
                    break  # it is exhausted
                calls = level.calls[0]
                message = calls.take()
                if not calls:
                    del level.calls[0]
                self._open(level, branch, message)
            source = level.source
            if source is not None:
                level.pulling = True
                if level.callbacks is None:
                    level.callbacks = (
                        partial(self._generated, level, branch),
                        partial(self._broke_off, level, branch),
                    )
                source.ask(*level.callbacks)

    def _open(self, level: _Level, branch: Branch, message: Content) -> None:
        clock, call = self._owner.clock, branch.call
        visit, left_s = None, None
        if level.journey is not None:
            visit = level.journey.visit(branch.node.name, clock.seconds(), floating=False)
            level.visiting = True
        if self._deadline_s is not None:
            # As in ``Run``: the stream's own timer ends the call.
            left_s = max(0.0, self._deadline_s - clock.seconds()) + SLACK_S
        single = Call((message,), call.endpoint, False, call.headers, visit)
        level.source = self._owner.open_stream(branch.node.name, single, left_s)

    def _generated(self, level: _Level, branch: Branch, answer: Answer | None) -> None:
        level.pulling = False
        if self._over:
            return
        try:
            if answer is None:
                level.source = None
                self._left(level, branch, "answered")
            else:
                self._go_on(level, branch, answer, self._owner.wall_clock())
        except Exception:
            self._fail(Failure())
            return
        if self._ready and self._waiting is not None and not self._advancing:
            # The usual case: it is what the client waits for, who asks again when there is more to do.
            self._give(self._ready.popleft())
            return
        self._advance()

    def _go_on(self, level: _Level, branch: Branch, answer: Answer, now: float) -> None:
        """One document of a generator, to what comes behind it or to the client."""
        if level.is_last:
            last = level.last
            if last is None:
                last = level.last = branch.traversal.last_step(branch.node)
            response = None if last is None else last.response(answer, now)
            if response is not None:
                if level.items:
                    item = _Item()
                    item.outcome = response
                    level.items.append(item)
                else:
                    self._ready.append(response)
                return
        traversal = branch.traversal.fork(answer.documents)
        part = Answer(
            answer.documents,
            answer.parameters,
            level.routes,
            answer.status,
            answer.failed,
            answer.headers,
        )
        self._stage(level, traversal, lambda now: traversal.answered(branch.node, part, now))

    def _broke_off(self, level: _Level, branch: Branch, failure: Failure) -> None:
        level.pulling = False
        level.source = None
        level.calls.clear()
        cancelled = failure.check(CancelledError) is not None
        self._left(
            level,
            branch,
            "cancelled" if cancelled else "failed",
            "" if cancelled else type(failure.value).__name__,
        )
        if not self._over:
            item = _Item()
            item.outcome = failure
            level.items.append(item)
            self._advance()

    def _left(self, level: _Level, branch: Branch, outcome: Outcome, reason: str = "") -> None:
        if level.journey is not None and level.visiting:
            level.visiting = False
            level.journey.left(branch.node.name, self._owner.clock.seconds(), outcome, reason)

    def _stage(
        self, level: _Level, traversal: Traversal, first: Callable[[float], list[Step]] | None
    ) -> None:
        item = _Item()
        level.items.append(item)
        run = self._owner.stage(traversal, Stage(self._generators, self._deadline_s, self._run_ended))
        self._runs.add(run)
        item.result = run.begin(first)
        item.result.addBoth(self._staged, item, level)

    def _staged(self, outcome: Response | Branch | Failure, item: _Item, level: _Level) -> None:
        item.result = None
        if self._over:
            return
        item.outcome = outcome
        if isinstance(outcome, Failure):
            # What was generated before it is still answered, what comes after it is not.
            source, level.source = level.source, None
            level.calls.clear()
            if source is not None:
                source.cancel()
                if level.branch is not None:
                    self._left(level, level.branch, "cancelled")
        self._advance()

    def _run_ended(self, run: StageRun) -> None:
        self._runs.discard(run)
        self._end_if_idle()

    # -- the end -------------------------------------------------------------------------------------

    def _timed_out(self) -> None:
        self._timer = None
        names = [name for run in self._runs for name in run.waiting_for]
        names += [each.branch.node.name for each in self._levels if each.branch is not None and each.pulling]
        waiting_for = tuple(dict.fromkeys(names))
        self._fail(Failure(DeadlineOver(waiting_for, self._timeout_s or 0.0)))

    def _fail(self, failure: Failure) -> None:
        if not self._over:
            self._failure = failure
            self._stop()
            if self._waiting is not None:
                self._give_end()

    def _cancelled(self, _: Deferred[Response | None]) -> None:
        self._waiting = None  # ``Deferred.cancel`` itself fails it
        self._stop()

    def _stop(self) -> None:
        """Send nothing more, and cancel what the client waits for."""
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        levels, self._levels = self._levels, []
        self._ready.clear()
        for level in levels:
            source, level.source = level.source, None
            level.calls.clear()
            if source is not None:
                source.cancel()
            if level.branch is not None:
                # The source calls back only if somebody waits for its next answer.
                self._left(level, level.branch, "cancelled")
            level.callbacks = None
            for item in level.items:
                if item.result is not None:
                    item.result.cancel()
        self._end_if_idle()

    def _give(self, response: Response) -> None:
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        waiting.callback(response)

    def _give_end(self) -> None:
        waiting, self._waiting = self._waiting, None
        failure, self._failure = self._failure, None
        assert waiting is not None
        if failure is None:
            waiting.callback(None)
        else:
            waiting.errback(failure)

    def _end_if_idle(self) -> None:
        if self._over and self._begun and not self._runs and not self._ended:
            self._ended = True
            self._owner.run_ended(self)


def _single(response: Response) -> list[Response]:
    """``response`` once for each of its documents; not at all without any, unless it tells an error."""
    if response.status:
        return [response]
    contents = contents_of(response.documents)
    if len(contents) == 1:
        return [response]
    return [attrs.evolve(response, documents=content) for content in contents]
