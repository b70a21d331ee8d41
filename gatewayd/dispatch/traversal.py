"""
One request's walk through a Topology.

``begin()`` returns the first ``Step``s, and each later event the ones that it makes possible: a ``Send`` is a
call to a Deployment, a ``Prepare`` some work on documents that may be too heavy for the reactor thread. No
method waits, sends, or reads a clock.

What a node goes through, and the record it leaves in the client's routes:

    WAITING ──(all parts are there)──┬─ a part failed ──────────────────────────► DONE   no route
                                     └─ (PREPARING) ┬─ skipped ─────────────────► DONE   no end time
                                                    └─ ASKED ──(answered)───────► DONE   both times

PREPARING is for nodes with a ``when``, and for joins.

A node hands its outcome to its successors: its answer; its input, if it was skipped; the failed
part, if there was one, so that nothing behind a failed Executor runs.

The parts of a join are merged **in order of arrival** in the first generation of documents, as in the
reference: the first to arrive is the base. Order of the graph would be the same every time, but the golden
answers show arrival. In the second they are merged in the order of the graph, each compared with what its
branch was sent (docs/decisions/generations.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import attrs
from google.protobuf.message import DecodeError

from gatewayd.dispatch.parameters import EMPTY_RESULTS, Parameters
from gatewayd.dispatch.target_pattern import compile_target_pattern
from gatewayd.dispatch.topology import REQUEST, START, Node, Topology
from gatewayd.messages.conditions import Condition
from gatewayd.messages.endpoints import check_endpoint
from gatewayd.messages.formats import FIRST, DocumentFormat
from gatewayd.messages.request import Answer, Call, Request, Response, Route
from gatewayd.messages.rope import Content
from gatewayd.messages.wire import Malformed, encode_begun, encode_call
from gatewayd.pb import RouteProto, StatusProto

# An executor may flag an error without a status. No bytes would read as success.
_FAILED: Final = StatusProto(code=StatusProto.ERROR).SerializeToString()

_NO_PARAMETERS: Final = Parameters(b"")

# States of a node; 0 is waiting.
_PREPARING: Final = 1
_ASKED: Final = 2
_DONE: Final = 3
_UNDER_WAY: Final = frozenset({_PREPARING, _ASKED})


# What of a Traversal never changes, or is replaced as a whole.
_SHARED_BY_FORKS: Final = (
    *("_begun", "_concluded", "_documents", "_outcome", "_own_routes", "_parameters", "_serves", "_skipped"),
    *("_target", "_topology", "finished", "has_called"),
)


class UnexpectedAnswer(Exception):
    """The node was not called, or has answered before: a bug in the code that drives the Traversal."""


class Send:
    """Call ``node``'s Deployment, and pass its answer to ``answered``."""

    __slots__ = ("call", "node")

    def __init__(self, node: Node, call: Call) -> None:
        self.node = node
        self.call = call


class Prepare:
    """
    Run ``work()``, which is pure and may take long, and pass its result to ``prepared``.

    ``node`` is None when the work is on the final answer. ``size_bytes`` is how much it has to read.
    """

    __slots__ = ("node", "size_bytes", "work")

    def __init__(self, node: Node | None, work: Callable[[], tuple[Content, ...]], size_bytes: int) -> None:
        self.node = node
        self.work = work
        self.size_bytes = size_bytes


Step = Send | Prepare


class LastStep:
    """
    Makes a response of each answer of the node that answers for the Flow: ``Traversal.last_step``.

    The same as ``fork``, ``answered`` and ``response``, one after the other, for answers that bring nothing
    but documents.
    """

    __slots__ = (
        "_before",
        "_begun",
        "_behind",
        "_endpoint",
        "_name",
        "_now",
        "_own_routes",
        "_parameters",
        "_request_id",
        "_routes",
        "_started",
    )

    def __init__(
        self,
        request: Request,
        own_routes: tuple[Route, ...],
        begun: float,
        before: tuple[Route, ...],
        name: str,
        started: float,
        behind: tuple[Route, ...],
        parameters: bytes,
    ) -> None:
        self._request_id = request.request_id
        self._endpoint = request.endpoint
        self._own_routes = own_routes
        self._begun = begun
        self._before = before
        self._name = name
        self._started = started
        self._behind = behind
        self._parameters = parameters
        self._now = -1.0
        self._routes: tuple[Route, ...] = ()

    def response(self, answer: Answer, now: float) -> Response | None:
        """The response at the time ``now``; None for an answer that needs the long way."""
        if answer.failed or answer.headers or (answer.parameters and answer.parameters != EMPTY_RESULTS):
            return None
        if now != self._now:
            # Answers of the same moment share their routes, which are encoded once for all of them.
            self._now = now
            self._routes = (
                *self._own_routes,
                Route(START, self._begun, now),
                *self._before,
                Route(self._name, self._started, now),
                *self._behind,
            )
        return Response(self._request_id, self._endpoint, answer.documents, self._parameters, self._routes)


class Traversal:
    """
    The state of one request under way. Events may come in any order.

    ``serves(deployment, endpoint)`` is called when a node's turn comes; it is False only for an
    endpoint that the Executor is known not to bind. ``now`` is everywhere in seconds since the epoch,
    UTC. ``has_called`` says whether a call was among the steps so far. ``documents`` is the format of the
    documents. Raises BadRequest for an endpoint that no executor can be called with, a target that is not a
    regular expression, and malformed routes.
    """

    __slots__ = (
        "_answers",
        "_begun",
        "_concluded",
        "_documents",
        "_ended",
        "_kept",
        "_outcome",
        "_own_routes",
        "_parameters",
        "_parts",
        "_serves",
        "_skipped",
        "_started",
        "_state",
        "_target",
        "_topology",
        "_waiting",
        "finished",
        "has_called",
        "request",
    )

    def __init__(
        self,
        topology: Topology,
        request: Request,
        serves: Callable[[str, str], bool],
        documents: DocumentFormat = FIRST,
    ) -> None:
        count = len(topology.nodes)
        self._topology = topology
        self.request = request
        self._serves = serves
        self._documents = documents
        check_endpoint(request.endpoint)
        self._target = compile_target_pattern(request.target) if request.target else None
        self._own_routes = tuple(_gateway_routes(request.routes)) if request.routes else ()
        self._parameters = Parameters(request.parameters) if request.parameters else _NO_PARAMETERS
        self._state = bytearray(count)
        self._parts: dict[int, list[Answer]] = {}  # of nodes being prepared
        self._waiting: dict[int, list[tuple[int, Answer]]] = {}  # of joins: by whom, and what
        # What the request and nodes that are forks of a join have handed on.
        self._kept: dict[int, Content] = {REQUEST: request.documents}
        self._skipped: set[int] | None = None
        self._started: list[float | None] = [None] * count
        self._ended: list[float | None] = [None] * count
        self._answers: list[Answer | None] = [None] * count
        self._outcome: Answer | None = None
        self._concluded = False
        self._begun = 0.0
        self.finished = False
        self.has_called = False

    def begin(self, now: float) -> list[Step]:
        """
        The first steps. Call it once.

        With no node to wait for, the traversal is ``finished`` at once: the answer is the request.
        """
        request = self.request
        self._begun = now
        routes = (*request.routes, encode_begun(START, now))
        part = Answer(request.documents, request.parameters, routes)
        steps = self._hand_on(REQUEST, part, self._topology.origins, now)
        if self._topology.answering is None:
            self._outcome = part
            self._concluded = self.finished = True
        elif self._outcome is not None:
            self._conclude(self._outcome, steps)
        return steps

    def answered(self, node: Node, answer: Answer, now: float) -> list[Step]:
        """
        Record what ``node``'s Deployment answered.

        Raises UnexpectedAnswer if it was not called, or answered before.
        """
        index = node.index
        if self._state[index] != _ASKED:
            raise UnexpectedAnswer(node.name)
        if answer.failed and not answer.status:
            answer = attrs.evolve(answer, status=_FAILED)
        self._ended[index] = now
        self._answers[index] = answer
        return self._complete(node, answer, now)

    def prepared(self, node: Node | None, documents: tuple[Content, ...], now: float) -> list[Step]:
        """
        Record the result of a ``Prepare``: of one node, or of the final one where ``node`` is None.

        Raises UnexpectedAnswer if that work was not requested, or was recorded before.
        """
        if node is None:
            if self._outcome is None or not self._concluded or self.finished:
                raise UnexpectedAnswer("the final answer")
            self._outcome = attrs.evolve(self._outcome, documents=documents[0])
            self.finished = True
            return []
        if self._state[node.index] != _PREPARING:
            raise UnexpectedAnswer(node.name)
        parts = self._parts.pop(node.index)
        if self._skipped is not None and node.index in self._skipped:
            return self._complete(node, attrs.evolve(parts[0], documents=documents[0]), now)
        return [self._ask(node, parts, documents)]

    def fork(self, documents: Content) -> Traversal:
        """
        The same request, as far as it has come, for one document of those that a node streams.

        What happens to one of the two is unknown to the other. ``documents`` is that document, which stands
        for the request's own.
        """
        if self._parameters is _NO_PARAMETERS:
            self._parameters = Parameters(b"")  # of this request's own: what is kept is its results
        self._parameters.keep()
        other = Traversal.__new__(Traversal)
        for name in _SHARED_BY_FORKS:
            setattr(other, name, getattr(self, name))
        other.request = attrs.evolve(self.request, documents=documents)
        other._state = self._state[:]
        other._parts = {index: [*parts] for index, parts in self._parts.items()}
        other._waiting = {index: [*parts] for index, parts in self._waiting.items()}
        other._kept = {**self._kept}
        other._started = [*self._started]
        other._ended = [*self._ended]
        other._answers = [*self._answers]
        return other

    def last_step(self, node: Node) -> LastStep | None:
        """
        What is left to do for each answer of ``node``, which has been called, if that is only to answer.

        None where more is left, or may be: other calls are under way.
        """
        if not node.is_last or self._topology.has_conditions:
            return None
        before: list[Route] = []
        behind: list[Route] = []
        routes = before
        results: list[bytes] = []
        for each in self._topology.route_order:
            index = each.index
            if each is node:
                routes = behind
            elif self._state[index] in _UNDER_WAY:
                return None
            elif (started := self._started[index]) is not None:
                answer, failure = self._answers[index], b""
                if answer is not None:
                    if answer.headers and not each.background:
                        return None
                    if answer.parameters:
                        results.append(answer.parameters)
                    if answer.failed:
                        failure = answer.status
                routes.append(Route(each.name, started, self._ended[index], failure))
        parameters = self._parameters.with_results(results) if results else self.request.parameters
        return LastStep(
            self.request,
            self._own_routes,
            self._begun,
            tuple(before),
            node.name,
            self._started[node.index] or 0.0,
            tuple(behind),
            parameters,
        )

    def response(self, now: float) -> Response:
        """The client's answer at the time ``now``. Only when ``finished``."""
        request, outcome = self.request, self._outcome
        if outcome is None or not self.finished:
            raise UnexpectedAnswer("the final answer is not there yet")
        routes = [*self._own_routes, Route(START, self._begun, now)]
        results: list[bytes] = []
        headers: list[tuple[str, str]] = []
        for node in self._topology.route_order:
            started = self._started[node.index]
            if started is not None:
                answer = self._answers[node.index]
                failure = b""
                if answer is not None:
                    if answer.parameters:
                        results.append(answer.parameters)
                    if answer.headers and not node.background:
                        headers += answer.headers
                    if answer.failed:
                        failure = answer.status
                routes.append(Route(node.name, started, self._ended[node.index], failure))
        parameters: bytes | None = request.parameters
        if results:
            parameters = self._parameters.with_results(results)
        if not parameters and not self._topology.nodes:
            parameters = None
        return Response(
            request.request_id,
            request.endpoint,
            outcome.documents,
            parameters,
            tuple(routes),
            outcome.status if outcome.failed else b"",
            tuple(headers),
        )

    def targets(self, node: Node) -> bool:
        """Whether the request's target does not leave ``node`` out."""
        return self._target is None or self._target.matches(node.name)

    def _complete(self, node: Node, outcome: Answer, now: float) -> list[Step]:
        self._state[node.index] = _DONE
        if node.answers:
            self._outcome = outcome
        if node.is_fork:
            self._kept[node.index] = outcome.documents
        # Successors come first: a floating one belongs in the routes of the answer that starts it.
        steps = self._hand_on(node.index, outcome, node.successors, now) if node.successors else []
        if self._outcome is not None and not self._concluded:
            self._conclude(self._outcome, steps)
        return steps

    def _hand_on(self, source: int, part: Answer, receivers: tuple[Node, ...], now: float) -> list[Step]:
        steps: list[Step] = []
        ahead = [(source, part, receivers)]
        for source, part, receivers in ahead:  # grows while it is walked: nodes may end without a call
            for node in receivers:
                outcome = self._arrived(node, source, part, now, steps)
                if outcome is not None:
                    self._state[node.index] = _DONE
                    if node.answers:
                        self._outcome = outcome
                    if node.is_fork:
                        self._kept[node.index] = outcome.documents
                    ahead.append((node.index, outcome, node.successors))
        return steps

    def _arrived(self, node: Node, source: int, part: Answer, now: float, steps: list[Step]) -> Answer | None:
        """Record one part, of ``source``. Returns the node's outcome if it has one without being called."""
        index = node.index
        if node.parts == 1 and node.when is None:  # most nodes are neither joins nor have conditions
            if part.failed:
                return part
            self._started[index] = now
            if self._skips(node):
                return part
            steps.append(self._ask(node, [part], (part.documents,)))
            return None
        parts = [part]
        sent: tuple[Content, ...] = ()
        if node.parts > 1:
            arrived = self._arriving(index, source, part)
            if len(arrived) < node.parts:
                return None
            del self._waiting[index]
            if self._documents.in_graph_order:
                arrived.sort(key=lambda each: node.needs.index(each[0]))
                sent = self._sent(node)
            parts = [each for _, each in arrived]
        for each in parts:
            if each.failed:
                return each
        self._started[index] = now
        skipped = self._skips(node)
        # A skipped join is merged even with no_reduce: its successors expect one part from it.
        merging = len(parts) > 1 and (skipped or not node.no_reduce)
        if merging or node.when is not None:
            condition = None if node.when is None else node.when.condition(self._documents)
            self._state[index] = _PREPARING
            self._parts[index] = parts
            if skipped:
                self._skipped = {index} if self._skipped is None else {*self._skipped, index}
            documents = tuple([each.documents for each in parts])
            work = partial(_prepare, self._documents, documents, condition, sent, merging)
            steps.append(Prepare(node, work, sum(map(len, documents))))
            return None
        if skipped:
            return part
        steps.append(self._ask(node, parts, tuple([each.documents for each in parts])))
        return None

    def _arriving(self, index: int, source: int, part: Answer) -> list[tuple[int, Answer]]:
        """The parts of a join that are there, ``part`` among them."""
        arrived = self._waiting.setdefault(index, [])
        arrived.append((source, part))
        return arrived

    def _sent(self, node: Node) -> tuple[Content, ...]:
        """For each part of a join, the documents that its branch was sent."""
        return tuple([self._kept[fork] for fork in node.forks])

    def _skips(self, node: Node) -> bool:
        if self._target is not None and not self._target.matches(node.name):
            return True
        return not self._serves(node.name, self.request.endpoint)

    def _ask(self, node: Node, parts: Sequence[Answer], documents: tuple[Content, ...]) -> Send:
        """``documents`` has one entry for all ``parts`` if they were merged, else one for each."""
        self._state[node.index] = _ASKED
        self.has_called = True
        request = self.request
        request_id, endpoint = request.request_id, request.endpoint
        if len(parts) > len(documents):
            parameters = self._parameters.for_join(node.name)
        elif request.parameters:
            parameters = self._parameters.for_executor(node.name)
        else:
            parameters = b""
        if len(documents) == 1:
            part = parts[0]  # of merged parts, the routes of the first count
            if part.parameters != parameters or part.documents is not documents[0]:
                part = Answer(documents[0], parameters, part.routes)
            message = encode_call(request_id, endpoint, part)
            return Send(node, Call((message,), endpoint, False, request.headers))
        messages = [
            encode_call(request_id, endpoint, Answer(content, parameters, part.routes))
            for part, content in zip(parts, documents, strict=True)
        ]
        return Send(node, Call(tuple(messages), endpoint, True, request.headers))

    def _conclude(self, outcome: Answer, steps: list[Step]) -> None:
        self._concluded = True
        asked = self.request.documents
        if self._topology.has_conditions and asked and outcome.documents:
            work = partial(_restore_order, self._documents, outcome.documents, asked)
            steps.append(Prepare(None, work, len(outcome.documents) + len(asked)))
        else:
            self.finished = True


def _prepare(
    formatted: DocumentFormat,
    documents: tuple[Content, ...],
    condition: Condition | None,
    sent: tuple[Content, ...],
    merging: bool,
) -> tuple[Content, ...]:
    """The input of a node's call: the parts' documents, first filtered, then merged into one."""
    if condition is not None:
        documents = tuple([formatted.select(each, condition) for each in documents])
    return (formatted.merge(documents, sent),) if merging else documents


def _restore_order(formatted: DocumentFormat, documents: Content, asked: Content) -> tuple[Content, ...]:
    """Branches with conditions change the order of the documents: restore that of the request."""
    return (formatted.sort_like(documents, formatted.document_ids(asked)),)


def _gateway_routes(routes: Sequence[bytes]) -> Iterator[Route]:
    """Those of a request's routes that come from gateways before this one: they stay in front."""
    for each in routes:
        try:
            route = RouteProto.FromString(each)
        except DecodeError as error:
            raise Malformed(f"a route is not a RouteProto: {error}") from error
        if route.executor == START:
            start = route.start_time.seconds + route.start_time.nanos / 1e9
            end = route.end_time.seconds + route.end_time.nanos / 1e9 if route.HasField("end_time") else None
            yield Route(START, start, end, route.status.SerializeToString())
