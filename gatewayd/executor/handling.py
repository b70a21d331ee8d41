"""
Handles one request inside an executor: finds its method, decodes, calls, and encodes the answer.

Plain methods run in a single worker thread, together with the decoding and encoding around them: they never
overlap, and the event loop stays free for health checks. Coroutine methods run on the loop, where calls
overlap. Messages are bytes of DataRequestProtos; header, parameters and routes that the method does not
change are copied as bytes.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from gatewayd.allowance import Bounded
from gatewayd.errors import BadRequest, IllegalHeader
from gatewayd.executor.batching import Batch, Queues
from gatewayd.executor.binding import accepted, named
from gatewayd.executor.executor import Executor, nothing
from gatewayd.executor.spec import BRIEF, ExecutorSpec
from gatewayd.executor.tracebacks import user_traceback
from gatewayd.executor.worker import Worker
from gatewayd.messages.discovery import DEFAULT, Described
from gatewayd.messages.document_arrays import Document, DocumentArray, data_of, documents_of
from gatewayd.messages.headers import Headers, given, received
from gatewayd.messages.structs import parameters_of, with_result
from gatewayd.messages.trace_context import TRACE_HEADERS
from gatewayd.messages.wire import DATA, HEADER, PARAMETERS, ROUTE, Malformed, field, split
from gatewayd.pb import HeaderProto, RouteProto, StatusProto

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from gatewayd.executor.metrics import RequestMetrics
    from gatewayd.executor.tracing import Tracing

log = logging.getLogger(__name__)
log.addFilter(Bounded())  # clients can make methods fail as often as they like


_LONGEST_DOCSTRING: Final = 10_000

# What a user's method may raise. An exit() in a library must not end other requests as well.
_RAISED = (Exception, SystemExit)

# The metadata of a call, made when a method asks for it.
Metadata = Callable[[], Iterable[tuple[str, str | bytes]]]

# Keywords that only methods that name them get: what ``**kwargs`` gets is the reference's (spec executor.md).
_HEADERS: Final = "headers"
_ANSWER_HEADERS: Final = "response_headers"
_HeaderKeywords = dict[str, dict[str, Any]]


@attrs.frozen
class Handled:
    """
    One answer. ``failed`` says that the method raised; ``fatal`` is what it raised, if that ends the executor
    (``exit_on_exceptions``). ``headers`` are those that the method gave.
    """

    message: bytes
    failed: bool = False
    fatal: str | None = None
    headers: Headers = attrs.field(default=(), repr=False)


@attrs.frozen
class _Message:
    """One DataRequestProto, cut into its fields, each still serialised."""

    header: bytes
    parameters: bytes
    routes: tuple[bytes, ...]
    data: bytes

    @classmethod
    def cut(cls, message: bytes) -> _Message:
        header, parameters, routes, data = split(message)
        return cls(header, parameters or b"", routes, data or b"")

    def join(self) -> bytes:
        parts: list[bytes] = [*field(HEADER, self.header)] if self.header else []
        if self.parameters:
            parts += field(PARAMETERS, self.parameters)
        for route in self.routes:
            parts += field(ROUTE, route)
        if self.data:
            parts += field(DATA, self.data)
        return b"".join(parts)


@attrs.frozen(eq=False)
class _Waiting:
    """
    A request in a batch: its documents, and a future for the outcome.

    That is a pair: the method's documents or exception, and the headers that it gave.
    """

    documents: Any
    done: asyncio.Future[tuple[Any, Mapping[str, Any]]]
    span: Span | None = None


@attrs.define(eq=False)
class _Bound:
    """An endpoint's function. ``keywords`` are those it accepts, None for any; ``named`` those it names."""

    endpoint: str
    function: Callable[..., Any]
    keywords: frozenset[str] | None
    named: frozenset[str]
    is_coroutine: bool
    queues: Queues[_Waiting] | None = None
    timer: asyncio.TimerHandle | None = None
    timed: Callable[[], AbstractContextManager[object]] = nullcontext


class Handling:
    """
    Answers the requests of one executor.

    Event loop's thread only, except for plain methods. ``on_fatal(reason)`` is called after the answer is
    made, if the executor has to end (``exit_on_exceptions``). With ``tracing``, methods have spans.
    """

    def __init__(
        self,
        executor: Executor,
        spec: ExecutorSpec,
        on_fatal: Callable[[str], None],
        tracing: Tracing | None = None,
    ) -> None:
        self._executor = executor
        self._spec = spec
        self._on_fatal = on_fatal
        self._class_name = type(executor).__name__
        self._route = RouteProto(executor=spec.route_name).SerializeToString()
        self._worker = Worker(spec.runtime_name)
        self._tracing = tracing
        self._draining = False
        self._batches: set[asyncio.Task[None]] = set()
        self._metrics: RequestMetrics | None = None
        if spec.monitoring_port is not None:
            from gatewayd.executor.metrics import RequestMetrics

            self._metrics = RequestMetrics.of(executor, spec)
        self._bound = {
            endpoint: _Bound(
                endpoint,
                function,
                accepted(function),
                named(function),
                inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function),
                Queues(executor.batching[endpoint]) if endpoint in executor.batching else None,
                timed=nullcontext if self._metrics is None else self._metrics.timer(endpoint),
            )
            for endpoint, function in executor.requests.items()
        }

    @property
    def endpoints(self) -> Described:
        """
        The executor's endpoints with their docstrings, in the order of definition; the dry run last.

        A docstring has no more than its first 10000 characters.
        """
        return {endpoint: _docstring(bound.function) for endpoint, bound in self._bound.items()}

    @property
    def busy(self) -> bool:
        """Whether a plain method is running."""
        return self._worker.busy

    async def handle(self, messages: Sequence[bytes], metadata: Metadata = tuple) -> Handled:
        """The answer that ``begin`` calls back with."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        cancel = self.begin(messages, metadata, partial(_settle, answered))
        handled = await _cancelling(answered, cancel)
        if isinstance(handled, BaseException):
            raise handled
        assert isinstance(handled, Handled)
        return handled

    def begin(
        self, messages: Sequence[bytes], metadata: Metadata, done: Callable[[Handled | BaseException], object]
    ) -> Callable[[], object]:
        """
        Answer one request, or several that a join did not merge; the answer is based on the first one.

        ``done`` is called once, now or later, unless the function that is returned is called before it. An
        exception of the method becomes an answer; what ``done`` gets of others is a defect, or a
        CancelledError. ``metadata`` returns that of the call, and is called only with tracing, and for a
        method that takes ``headers``. Raises Malformed or DecodeError if there is no request to answer.
        """
        if not messages:
            raise Malformed("a request list without requests")
        cut = [_Message.cut(message) for message in messages]
        endpoint = HeaderProto.FromString(cut[0].header).exec_endpoint
        bound = self._bound.get(endpoint) or self._bound.get(DEFAULT)
        if self._metrics is not None:
            # A client's words are no labels.
            label = endpoint if endpoint in self._bound else DEFAULT
            done = self._metrics.watching(label, [message.data for message in cut], messages, done)
        if bound is None:
            done(Handled(messages[0]))
            return _nothing_to_cancel
        if bound.function is nothing and len(cut) == 1 and self._spec.executor.output_array_type is None:
            done(Handled(self._signed(cut[0]).join()))
            return _nothing_to_cancel
        headers: _HeaderKeywords = {}
        if _HEADERS in bound.named:
            headers[_HEADERS] = received(metadata())
            if bound.queues is not None:
                # Each request has a place of its own in a trace: none would share a batch with another.
                for name in TRACE_HEADERS:
                    headers[_HEADERS].pop(name, None)
        if bound.queues is None and _ANSWER_HEADERS in bound.named:
            headers[_ANSWER_HEADERS] = {}
        parent = None if self._tracing is None else self._tracing.parent(metadata())
        if bound.queues is None and not bound.is_coroutine:
            work = partial(self._in_worker, bound, cut, headers, endpoint, parent)
            return self._worker.run(work, partial(self._made, done)).cancel
        if bound.queues is not None:
            answering = self._through_queue(bound, bound.queues, cut, headers, endpoint, parent)
        else:
            answering = self._on_loop(bound, cut, headers, endpoint, parent)
        task = asyncio.get_running_loop().create_task(answering)
        task.add_done_callback(partial(self._ended, done))
        return task.cancel

    def _ended(self, done: Callable[[Handled | BaseException], object], task: asyncio.Task[Handled]) -> None:
        # A method may be cancelled by what it awaits, without the caller's doing.
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._made(done, error or task.result())

    def _made(
        self, done: Callable[[Handled | BaseException], object], handled: Handled | BaseException
    ) -> None:
        if isinstance(handled, Handled) and handled.fatal is not None:
            self._on_fatal(handled.fatal)
        done(handled)

    async def drain(self) -> None:
        """
        Handle every waiting batch now, and each later request by itself.

        Waits for the batches, for the grace period at most.
        """
        self._draining = True
        for bound in self._bound.values():
            if bound.queues is not None:
                for batch in bound.queues.flush():
                    self._start(bound, batch)
        if self._batches:
            await asyncio.wait(self._batches, timeout=self._spec.grace_s)

    def close(self, *, wait: bool = False) -> None:
        """
        Release the worker thread, which may still be in a method that has not returned.

        With ``wait``, wait for its end.
        """
        self._worker.close(wait=wait)

    # One request by itself.

    async def _on_loop(
        self,
        bound: _Bound,
        cut: list[_Message],
        headers: _HeaderKeywords,
        endpoint: str,
        parent: Context | None,
    ) -> Handled:
        try:
            documents, keywords = self._decoded(cut)
            span = self._begun(endpoint, parent)
            returned = await self._awaited_in(span, bound, documents, keywords | headers)
            return self._success(cut[0], documents, returned, headers.get(_ANSWER_HEADERS))
        except _RAISED as error:
            return self._failure(cut[0], error, headers.get(_ANSWER_HEADERS))

    def _in_worker(
        self,
        bound: _Bound,
        cut: list[_Message],
        headers: _HeaderKeywords,
        endpoint: str,
        parent: Context | None,
    ) -> Handled:
        try:
            documents, keywords = self._decoded(cut)
            returned = self._called_in(self._begun(endpoint, parent), bound, documents, keywords | headers)
            return self._success(cut[0], documents, returned, headers.get(_ANSWER_HEADERS))
        except _RAISED as error:
            return self._failure(cut[0], error, headers.get(_ANSWER_HEADERS))

    def _begun(self, endpoint: str, parent: Context | None) -> Span | None:
        return None if self._tracing is None or parent is None else self._tracing.begin(endpoint, parent)

    def _called_in(self, span: Span | None, bound: _Bound, documents: Any, keywords: dict[str, Any]) -> Any:
        """Call a plain method, within its span if it has one."""
        with bound.timed():
            if span is None or self._tracing is None:
                return _call(self._executor, bound, documents, keywords)
            with self._tracing.current(span) as keywords["tracing_context"]:
                return _call(self._executor, bound, documents, keywords)

    async def _awaited_in(
        self, span: Span | None, bound: _Bound, documents: Any, keywords: dict[str, Any]
    ) -> Any:
        """As ``_called_in``, for a coroutine method."""
        with bound.timed():
            if span is None or self._tracing is None:
                return await _awaited(_call(self._executor, bound, documents, keywords))
            with self._tracing.current(span) as keywords["tracing_context"]:
                return await _awaited(_call(self._executor, bound, documents, keywords))

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        """What ``work`` returns or raises: as a value, for no future takes a StopIteration."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        job = self._worker.run(partial(work, *args), partial(_settle, answered))
        return await _cancelling(answered, job.cancel)

    def _decoded(self, cut: list[_Message]) -> tuple[Any, dict[str, Any]]:
        arrays = [documents_of(message.data) for message in cut]
        documents = (
            arrays[0] if len(arrays) == 1 else DocumentArray([one for array in arrays for one in array])
        )
        keywords = {
            "parameters": self._parameters(cut[0]),
            "docs_matrix": arrays if any(len(array) for array in arrays) else None,
            "docs_map": {
                self._sender_of(message.routes): array
                for message, array in zip(cut, arrays, strict=True)
                if message.routes
            },
            "tracing_context": None,
        }
        return documents, keywords

    def _sender_of(self, routes: Sequence[bytes]) -> str:
        """The key of ``docs_map``: the Deployment that answered last, or the shard for its own head."""
        name = RouteProto.FromString(routes[-1]).executor
        deployment = name.partition("/")[0]
        return name if self._spec.deployment.startswith(f"{deployment}/") else deployment

    def _parameters(self, message: _Message) -> dict[str, Any]:
        parameters = parameters_of(message.parameters)
        own = parameters.get(self._executor.metas.name)
        return {**parameters, **own} if isinstance(own, dict) else parameters

    def _success(
        self, message: _Message, documents: Any, returned: Any, headers: Mapping[str, Any] | None
    ) -> Handled:
        """Raises what an answer of the wrong type, or headers that cannot be sent, are refused with."""
        answer = self._answer(message, documents, returned)
        return Handled(answer, headers=given(headers)) if headers else Handled(answer)

    def _answer(self, message: _Message, documents: Any, returned: Any) -> bytes:
        parameters = message.parameters
        if isinstance(returned, dict):
            parameters = with_result(parameters, self._spec.runtime_name, returned)
        elif isinstance(returned, DocumentArray):
            documents = returned
        elif returned is not None:
            raise TypeError(
                f"The return type must be DocumentArray / Dict / `None`, but getting {returned!r}"
            )
        data = data_of(documents, self._spec.executor.output_array_type)
        return self._signed(attrs.evolve(message, parameters=parameters, data=data)).join()

    def _signed(self, message: _Message) -> _Message:
        return attrs.evolve(message, routes=(*message.routes, self._route))

    def _failure(
        self, message: _Message, error: BaseException, headers: Mapping[str, Any] | None = None
    ) -> Handled:
        """The request as it was received, with the exception as its status, and the method's headers."""
        header = HeaderProto.FromString(message.header)
        name = type(error).__name__
        lines = [_safely(str, line) for line in user_traceback(error)]
        # A Flow in Python raises the traceback where the request was made, and shows what is logged here.
        log.error(
            "%s failed on %r: %s%s",
            self._spec.runtime_name,
            header.exec_endpoint,
            lines[-1].strip(),
            "" if os.environ.get(BRIEF) else "".join(["\n", *lines]).rstrip(),
            extra={"request_id": header.request_id},
        )
        status = StatusProto(code=StatusProto.ERROR, description=_safely(repr, error))
        status.exception.name = name
        status.exception.args.extend(_safely(str, argument) for argument in error.args)
        status.exception.stacks.extend(lines)
        status.exception.executor = self._class_name
        header.status.CopyFrom(status)
        failed = attrs.evolve(message, header=header.SerializeToString())
        fatal = status.description if name in self._spec.executor.exit_on_exceptions else None
        try:
            answered = given(headers or {})
        except IllegalHeader:  # it is what was raised, or less important than that
            answered = ()
        return Handled(failed.join(), failed=True, fatal=fatal, headers=answered)

    # Batches.

    async def _through_queue(
        self,
        bound: _Bound,
        queues: Queues[_Waiting],
        cut: list[_Message],
        headers: _HeaderKeywords,
        endpoint: str,
        parent: Context | None,
    ) -> Handled:
        loop = asyncio.get_running_loop()
        try:
            if len(cut) > 1:
                raise ValueError(
                    "dynamic batching cannot take the unmerged requests of a no_reduce Deployment"
                )
            documents = documents_of(cut[0].data)
            parameters = self._parameters(cut[0])
        except (ValueError, BadRequest) as error:
            return self._failure(cut[0], error)
        # What cannot be read has no span, as in methods without batches.
        waiting = _Waiting(documents, loop.create_future(), self._begun(endpoint, parent))
        # A method that takes headers gets those of all its requests: one client's never with another's.
        key = json.dumps({"parameters": parameters, **headers}, sort_keys=True)
        count = len(waiting.documents)
        full = queues.add(key, waiting, count, loop.time())
        if full is not None:
            self._start(bound, full)
        elif self._draining:
            for batch in queues.flush():
                self._start(bound, batch)
        else:
            self._arm(bound, queues)
        try:
            outcome, answered = await waiting.done
        except asyncio.CancelledError:
            queues.discard(key, waiting, count)
            self._ended_in(waiting)
            raise
        self._ended_in(waiting, outcome)
        if isinstance(outcome, _RAISED):
            return self._failure(cut[0], outcome, answered)
        return self._success(cut[0], outcome, None, answered)

    def _ended_in(self, waiting: _Waiting, outcome: object = None) -> None:
        if self._tracing is not None and waiting.span is not None:
            self._tracing.end(waiting.span, outcome)

    def _arm(self, bound: _Bound, queues: Queues[_Waiting]) -> None:
        # All batches of an endpoint wait equally long, so a running timer is the earliest one.
        due_s = queues.next_due_s()
        if bound.timer is None and due_s is not None:
            loop = asyncio.get_running_loop()
            bound.timer = loop.call_at(due_s, self._batches_due, bound, queues)

    def _batches_due(self, bound: _Bound, queues: Queues[_Waiting]) -> None:
        bound.timer = None
        now_s = asyncio.get_running_loop().time()
        for batch in queues.due(now_s):
            self._start(bound, batch)
        self._arm(bound, queues)

    def _start(self, bound: _Bound, batch: Batch[_Waiting]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(bound, batch))
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _run(self, bound: _Bound, batch: Batch[_Waiting]) -> None:
        outcomes: Sequence[Any]
        answered: dict[str, Any] = {}
        try:
            documents = DocumentArray([one for waiting in batch.items for one in waiting.documents])
            keywords = {**json.loads(batch.key), "docs_matrix": None, "tracing_context": None}
            if _ANSWER_HEADERS in bound.named:
                keywords[_ANSWER_HEADERS] = answered
            span = None
            if self._tracing is not None:
                spans = [waiting.span for waiting in batch.items if waiting.span is not None]
                span = self._tracing.batch(bound.endpoint, spans)
            if bound.is_coroutine:
                returned = await self._awaited_in(span, bound, documents, keywords)
            else:
                returned = await self._in_thread(self._called_in, span, bound, documents, keywords)
                if isinstance(returned, BaseException):
                    raise returned
            outcomes = _split(batch, documents, returned)
            given(answered)
        except _RAISED as error:
            outcomes = [error] * len(batch.items)
        for waiting, outcome in zip(batch.items, outcomes, strict=True):
            if not waiting.done.done():
                waiting.done.set_result((outcome, answered))


def _nothing_to_cancel() -> None:
    """The answer has been made."""


def _settle(answered: asyncio.Future[Any], answer: Any) -> None:
    if not answered.done():
        answered.set_result(answer)


async def _cancelling(answered: asyncio.Future[Any], cancel: Callable[[], object]) -> Any:
    """What comes of a future; ``cancel`` is called if it is not awaited to its end."""
    try:
        return await answered
    except asyncio.CancelledError:
        cancel()
        raise


def _call(executor: Executor, bound: _Bound, documents: Any, keywords: dict[str, Any]) -> Any:
    arguments = {"docs": documents, **keywords}
    if bound.keywords is not None:
        arguments = {key: value for key, value in arguments.items() if key in bound.keywords}
    returned = bound.function(executor, **arguments)
    return _gathered(returned) if inspect.isgenerator(returned) else returned


async def _awaited(returned: Any) -> Any:
    if not inspect.isasyncgen(returned):
        returned = await returned
    if inspect.isasyncgen(returned):
        return _gathered([one async for one in returned])
    return _gathered(returned) if inspect.isgenerator(returned) else returned


def _gathered(yielded: Iterable[object]) -> Any:
    """The Documents and DocumentArrays that a generator yields, as one answer that replaces the documents."""
    answer = DocumentArray()
    for one in yielded:
        if isinstance(one, DocumentArray):
            answer.extend(one)
        elif isinstance(one, Document):
            answer.append(one)
        else:
            raise TypeError(f"A generator must yield Document / DocumentArray, but yields {one!r}")
    return answer


def _split(batch: Batch[_Waiting], documents: Any, returned: Any) -> list[Any]:
    """The documents for each request, by position. Raises as the reference does (spec executor.md)."""
    if returned is None:
        returned = documents
    elif not isinstance(returned, DocumentArray):
        raise TypeError(
            "The return type of a dynamically batched method must be DocumentArray / `None`, "
            f"but getting {returned!r}"
        )
    if len(returned) != batch.documents:
        raise ValueError(
            "Dynamic Batching requires input size to equal output size. "
            f"Expected output size {batch.documents}, but got {len(returned)}"
        )
    parts, position = [], 0
    for waiting in batch.items:
        count = len(waiting.documents)
        parts.append(returned[position : position + count])
        position += count
    return parts


def _docstring(function: Callable[..., Any]) -> str:
    text = None if function is nothing else inspect.getdoc(function)
    return _safely(str, text)[:_LONGEST_DOCSTRING] if text else ""


def _safely(form: Callable[[object], str], value: object) -> str:
    """``form(value)`` as valid text for protobuf, even if a user's ``__repr__`` raises."""
    try:
        text = form(value)
    except Exception as error:
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
    return text.encode("utf-8", "replace").decode()
