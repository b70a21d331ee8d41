"""
Handles one request inside an executor: finds its method, decodes, calls, and encodes the answer, or each of
the answers of a generator.

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
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from gatewayd.errors import BadRequest
from gatewayd.executor.answers import Answers, Handled, Message, Outlet, safely
from gatewayd.executor.batching import Batch, Queues, parts_of
from gatewayd.executor.binding import Batching, accepted, named
from gatewayd.executor.bound import (
    ANSWER_HEADERS,
    HEADERS,
    RAISED,
    Bound,
    HeaderKeywords,
    accepted_by,
    is_coroutine,
)
from gatewayd.executor.documents import Documents, installed
from gatewayd.executor.executor import Executor, nothing
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.executor.streaming import Streams
from gatewayd.executor.worker import Worker, cancelling, settle
from gatewayd.messages.discovery import DEFAULT, Described
from gatewayd.messages.headers import given, received
from gatewayd.messages.structs import struct_of
from gatewayd.messages.trace_context import TRACE_HEADERS
from gatewayd.messages.wire import Malformed
from gatewayd.pb import EndpointsProto, HeaderProto, RouteProto, second

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from gatewayd.executor.metrics import RequestMetrics
    from gatewayd.executor.tracing import Tracing

log = logging.getLogger(__name__)


# Imported with this module, while a supervisor is still starting.
_DOCUMENTS: Final = installed()

_LONGEST_DOCSTRING: Final = 10_000

# The metadata of a call, made when a method asks for it.
Metadata = Callable[[], Iterable[tuple[str, str | bytes]]]


@attrs.frozen(eq=False)
class _Waiting:
    """
    A request in a batch: its documents, what each of them counts for, and a future for the outcome.

    That is a pair: the method's documents or exception, and the headers that it gave.
    """

    documents: Any
    sizes: Sequence[float]
    done: asyncio.Future[tuple[Any, Mapping[str, Any]]]
    span: Span | None = None


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
        if spec.executor.output_array_type is not None and not _DOCUMENTS.has_array_types:
            log.warning(
                "%s: output_array_type has no effect on documents of docarray 0.40 and later", spec.deployment
            )
        self._documents = _DOCUMENTS
        self._worker = Worker(spec.runtime_name)
        self._tracing = tracing
        self._draining = False
        self._batches: set[asyncio.Task[None]] = set()
        self._answers = Answers(self._documents, spec, self._class_name)
        self._streams = Streams(executor, self._documents, self._answers, self._worker, on_fatal, tracing)
        self._metrics: RequestMetrics | None = None
        if spec.monitoring_port is not None:
            from gatewayd.executor.metrics import RequestMetrics

            self._metrics = RequestMetrics.of(executor, spec)
        self._bound = {
            endpoint: Bound(
                endpoint,
                function,
                accepted(function),
                named(function),
                executor.forms[endpoint],
                is_coroutine(function),
                Queues(executor.batching[endpoint]) if endpoint in executor.batching else None,
                timed=nullcontext if self._metrics is None else self._metrics.timer(endpoint),
            )
            for endpoint, function in executor.requests.items()
        }
        self.discovery: bytes = self._discovery()

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

    def _discovery(self) -> bytes:
        """The EndpointsProto of this executor. Raises TypeError for types that have no schema."""
        told: dict[str, Any] = {
            "endpoints": list(self._bound),
            "descriptions": {endpoint: text for endpoint, text in self.endpoints.items() if text},
            "streaming": [endpoint for endpoint, bound in self._bound.items() if bound.form.streams],
        }
        schemas = self._documents.schemas({endpoint: each.form for endpoint, each in self._bound.items()})
        if schemas is None:
            return EndpointsProto(**told).SerializeToString()
        typed = second.EndpointsProto(**told)
        typed.schemas.ParseFromString(struct_of(schemas, f"the schemas of {self._class_name}"))
        return typed.SerializeToString()

    async def handle(self, messages: Sequence[bytes], metadata: Metadata = tuple) -> Handled:
        """The answer that ``begin`` calls back with."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        cancel = self.begin(messages, metadata, partial(settle, answered))
        handled = await cancelling(answered, cancel)
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
        cut = [Message.cut(message) for message in messages]
        endpoint = HeaderProto.FromString(cut[0].header).exec_endpoint
        bound = self._bound.get(endpoint) or self._bound.get(DEFAULT)
        if self._metrics is not None:
            # A client's words are no labels.
            label = endpoint if endpoint in self._bound else DEFAULT
            done = self._metrics.watching(label, [message.data for message in cut], messages, done)
        if bound is None:
            done(Handled(messages[0]))
            return _nothing_to_cancel
        if bound.form.streams:
            done(self._answers.failure(cut[0], TypeError(_only_streams(self._class_name, bound))))
            return _nothing_to_cancel
        if bound.function is nothing and len(cut) == 1 and self._spec.executor.output_array_type is None:
            done(Handled(self._answers.signed(cut[0]).join()))
            return _nothing_to_cancel
        headers: HeaderKeywords = {}
        if HEADERS in bound.named:
            headers[HEADERS] = received(metadata())
            if bound.queues is not None:
                # Each request has a place of its own in a trace: none would share a batch with another.
                for name in TRACE_HEADERS:
                    headers[HEADERS].pop(name, None)
        if bound.queues is None and ANSWER_HEADERS in bound.named:
            headers[ANSWER_HEADERS] = {}
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

    def begin_stream(self, message: bytes, metadata: Metadata, outlet: Outlet) -> Callable[[], object]:
        """
        Answer a SingleDocumentRequestProto with what its generator yields (spec 34/streaming.md).

        ``outlet`` is told the end, now or later. The function that is returned closes the generator.
        Raises Malformed or DecodeError if there is no request to answer.
        """
        cut = Message.cut(message)
        header = HeaderProto.FromString(cut.header)
        endpoint = header.exec_endpoint
        bound = self._bound.get(endpoint) or self._bound.get(DEFAULT)
        if bound is None:
            there = ", ".join(name for name, each in self._bound.items() if each.form.streams)
            outlet.finished(
                BadRequest(f"{self._class_name} has no endpoint {endpoint!r}; it streams {there or 'none'}"),
                (),
            )
            return _nothing_to_cancel
        headers: HeaderKeywords = {}
        if HEADERS in bound.named:
            headers[HEADERS] = received(metadata())
        if ANSWER_HEADERS in bound.named:
            headers[ANSWER_HEADERS] = {}
        parent = None if self._tracing is None else self._tracing.parent(metadata())
        if self._metrics is not None:
            label = endpoint if endpoint in self._bound else DEFAULT
            outlet = self._metrics.watching_stream(label, len(message), outlet)
        return self._streams.begin(bound, cut, header, headers, parent, outlet)

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

    async def end_streams(self) -> None:
        """Close the generators that are left. Waits for them, for the grace period at most."""
        await self._streams.end(self._spec.grace_s)

    def close(self, *, wait: bool = False) -> None:
        """
        Release the worker thread, which may still be in a method that has not returned.

        With ``wait``, wait for its end.
        """
        self._worker.close(wait=wait)

    # One request by itself.

    async def _on_loop(
        self,
        bound: Bound,
        cut: list[Message],
        headers: HeaderKeywords,
        endpoint: str,
        parent: Context | None,
    ) -> Handled:
        try:
            documents, keywords = self._decoded(bound, cut)
        except RAISED as error:
            return self._answers.failure(cut[0], error, unread=True)
        try:
            span = self._begun(endpoint, parent)
            returned = await self._awaited_in(span, bound, documents, keywords | headers)
            return self._answers.success(cut[0], documents, returned, headers.get(ANSWER_HEADERS))
        except RAISED as error:
            return self._answers.failure(cut[0], error, headers.get(ANSWER_HEADERS))

    def _in_worker(
        self,
        bound: Bound,
        cut: list[Message],
        headers: HeaderKeywords,
        endpoint: str,
        parent: Context | None,
    ) -> Handled:
        try:
            documents, keywords = self._decoded(bound, cut)
        except RAISED as error:
            return self._answers.failure(cut[0], error, unread=True)
        try:
            returned = self._called_in(self._begun(endpoint, parent), bound, documents, keywords | headers)
            return self._answers.success(cut[0], documents, returned, headers.get(ANSWER_HEADERS))
        except RAISED as error:
            return self._answers.failure(cut[0], error, headers.get(ANSWER_HEADERS))

    def _begun(self, endpoint: str, parent: Context | None) -> Span | None:
        return None if self._tracing is None or parent is None else self._tracing.begin(endpoint, parent)

    def _called_in(self, span: Span | None, bound: Bound, documents: Any, keywords: dict[str, Any]) -> Any:
        """Call a plain method, within its span if it has one."""
        with bound.timed():
            if span is None or self._tracing is None:
                return self._call(bound, documents, keywords)
            with self._tracing.current(span) as keywords["tracing_context"]:
                return self._call(bound, documents, keywords)

    async def _awaited_in(
        self, span: Span | None, bound: Bound, documents: Any, keywords: dict[str, Any]
    ) -> Any:
        """As ``_called_in``, for a coroutine method."""
        with bound.timed():
            if span is None or self._tracing is None:
                return await self._call_on_loop(bound, documents, keywords)
            with self._tracing.current(span) as keywords["tracing_context"]:
                return await self._call_on_loop(bound, documents, keywords)

    def _call(self, bound: Bound, documents: Any, keywords: dict[str, Any]) -> Any:
        call = partial(bound.function, self._executor)
        if bound.form.single:
            return self._single(
                bound, [call(**each) for each in _each(bound, documents, keywords)], documents
            )
        returned = call(**accepted_by(bound, {"docs": documents, **keywords}))
        return _gathered(self._documents, returned) if inspect.isgenerator(returned) else returned

    async def _call_on_loop(self, bound: Bound, documents: Any, keywords: dict[str, Any]) -> Any:
        call = partial(bound.function, self._executor)
        if bound.form.single:
            answers = [await call(**each) for each in _each(bound, documents, keywords)]
            return self._single(bound, answers, documents)
        returned = call(**accepted_by(bound, {"docs": documents, **keywords}))
        if not inspect.isasyncgen(returned):
            returned = await returned
        if inspect.isasyncgen(returned):
            return _gathered(self._documents, [one async for one in returned])
        return _gathered(self._documents, returned) if inspect.isgenerator(returned) else returned

    def _single(self, bound: Bound, answers: Sequence[Any], documents: Any) -> Any:
        """The answers to documents one by one; None stands for the document as the method changed it."""
        for one in answers:
            if one is not None and not self._documents.is_document(one):
                raise TypeError(
                    f"{self._class_name}.{bound.function.__name__} takes doc, so it must return a "
                    f"{self._documents.document} or `None`, but getting {one!r}"
                )
        pairs = zip(answers, documents, strict=True)
        return self._documents.answers_of(before if one is None else one for one, before in pairs)

    def _decoded(self, bound: Bound, cut: list[Message]) -> tuple[Any, dict[str, Any]]:
        arrays = [self._documents.read(message.data, bound.form) for message in cut]
        documents = (
            arrays[0]
            if len(arrays) == 1
            else self._documents.array_of((one for array in arrays for one in array), bound.form)
        )
        keywords = {
            "parameters": self._documents.parameters(
                bound.form, cut[0].parameters_for(self._executor.metas.name)
            ),
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

    # Batches.

    async def _through_queue(
        self,
        bound: Bound,
        queues: Queues[_Waiting],
        cut: list[Message],
        headers: HeaderKeywords,
        endpoint: str,
        parent: Context | None,
    ) -> Handled:
        loop = asyncio.get_running_loop()
        try:
            if len(cut) > 1:
                raise ValueError(
                    "dynamic batching cannot take the unmerged requests of a no_reduce Deployment"
                )
            documents = self._documents.read(cut[0].data, bound.form)
            parameters = cut[0].parameters_for(self._executor.metas.name)
        except RAISED as error:
            return self._answers.failure(cut[0], error, unread=True)
        # What cannot be read has no span, as in methods without batches.
        try:
            sizes = _sizes(documents, self._executor.batching[bound.endpoint])
        except RAISED as error:
            return self._answers.failure(cut[0], error)
        waiting = _Waiting(documents, sizes, loop.create_future(), self._begun(endpoint, parent))
        # A method that takes headers gets those of all its requests: one client's never with another's.
        key = json.dumps({"parameters": parameters, **headers}, sort_keys=True)
        size = sum(sizes)
        full = queues.add(key, waiting, size, loop.time())
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
            queues.discard(key, waiting, size)
            self._ended_in(waiting)
            raise
        self._ended_in(waiting, outcome)
        if isinstance(outcome, RAISED):
            return self._answers.failure(cut[0], outcome, answered)
        return self._answers.success(cut[0], outcome, None, answered)

    def _ended_in(self, waiting: _Waiting, outcome: object = None) -> None:
        if self._tracing is not None and waiting.span is not None:
            self._tracing.end(waiting.span, outcome)

    def _arm(self, bound: Bound, queues: Queues[_Waiting]) -> None:
        # All batches of an endpoint wait equally long, so a running timer is the earliest one.
        due_s = queues.next_due_s()
        if bound.timer is None and due_s is not None:
            loop = asyncio.get_running_loop()
            bound.timer = loop.call_at(due_s, self._batches_due, bound, queues)

    def _batches_due(self, bound: Bound, queues: Queues[_Waiting]) -> None:
        bound.timer = None
        now_s = asyncio.get_running_loop().time()
        for batch in queues.due(now_s):
            self._start(bound, batch)
        self._arm(bound, queues)

    def _start(self, bound: Bound, batch: Batch[_Waiting]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(bound, batch))
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _run(self, bound: Bound, batch: Batch[_Waiting]) -> None:
        answered: dict[str, Any] = {}
        outcomes: list[Any] = []
        raised: BaseException | None = None
        try:
            documents = self._documents.array_of(
                (one for waiting in batch.items for one in waiting.documents), bound.form
            )
            keywords = {**json.loads(batch.key), "docs_matrix": None, "tracing_context": None}
            if ANSWER_HEADERS in bound.named:
                keywords[ANSWER_HEADERS] = answered
            sizes = [size for waiting in batch.items for size in waiting.sizes]
            for part in _parts(documents, sizes, self._executor.batching[bound.endpoint]):
                try:
                    outcomes += await self._of_part(bound, batch, part, dict(keywords))
                except RAISED as error:
                    raised = error
                    outcomes += [error] * len(part)
            given(answered)
        except RAISED as error:
            raised = error
            outcomes = [error] * sum(len(waiting.documents) for waiting in batch.items)
        position = 0
        for waiting in batch.items:
            end = position + len(waiting.documents)
            own, position = outcomes[position:end], end
            outcome = self._outcome(own) if own or raised is None else raised
            if not waiting.done.done():
                waiting.done.set_result((outcome, answered))

    async def _of_part(
        self, bound: Bound, batch: Batch[_Waiting], documents: Any, keywords: dict[str, Any]
    ) -> list[Any]:
        """Call the method with a part of a batch: an answer for each document."""
        span = None
        if self._tracing is not None:
            spans = [waiting.span for waiting in batch.items if waiting.span is not None]
            span = self._tracing.batch(bound.endpoint, spans)
        count = len(documents)
        if bound.is_coroutine:
            returned = await self._awaited_in(span, bound, documents, keywords)
        else:
            returned = await self._worker.call(partial(self._called_in, span, bound, documents, keywords))
            if isinstance(returned, BaseException):
                raise returned
        return self._one_for_each(documents if returned is None else returned, count)

    def _one_for_each(self, returned: Any, count: int) -> list[Any]:
        """The answer to each document, by position. Raises as the reference does (spec executor.md)."""
        if not self._documents.is_array(returned):
            raise TypeError(
                f"The return type of a dynamically batched method must be {self._documents.array} / `None`, "
                f"but getting {returned!r}"
            )
        if len(returned) != count:
            raise ValueError(
                "Dynamic Batching requires input size to equal output size. "
                f"Expected output size {count}, but got {len(returned)}"
            )
        return list(returned)

    def _outcome(self, own: Sequence[Any]) -> Any:
        """The documents of one request's answer, or the first exception among them."""
        raised = next((one for one in own if isinstance(one, BaseException)), None)
        return self._documents.answers_of(own) if raised is None else raised


def _nothing_to_cancel() -> None:
    """The answer has been made."""


def _each(bound: Bound, documents: Any, keywords: dict[str, Any]) -> list[dict[str, Any]]:
    """The keywords of a method that is called with one document at a time."""
    return [accepted_by(bound, {"doc": document, **keywords}) for document in documents]


def _gathered(documents: Documents, yielded: Iterable[object]) -> Any:
    """What a generator yields for all documents, as one answer that replaces them."""
    answer: list[Any] = []
    for one in yielded:
        if documents.is_array(one):
            answer.extend(one)  # type: ignore[arg-type]
        elif documents.is_document(one):
            answer.append(one)
        else:
            names = f"{documents.document} / {documents.array}"
            raise TypeError(f"A generator must yield {names}, but yields {one!r}")
    return documents.answers_of(answer)


def _sizes(documents: Any, batching: Batching) -> Sequence[float]:
    """What each document counts for. Raises what the metric raises, TypeError or ValueError for no size."""
    metric = batching.metric
    if metric is None:
        return [1] * len(documents)
    sizes = []
    for document in documents:
        size = metric(document)
        if isinstance(size, bool) or not isinstance(size, int | float):
            raise TypeError(f"the custom_metric of dynamic_batching must return a number, not {size!r}")
        if not 0 <= size < math.inf:
            raise ValueError(f"the custom_metric of dynamic_batching must return 0 or more, not {size!r}")
        sizes.append(size)
    return sizes


def _parts(documents: Any, sizes: Sequence[float], batching: Batching) -> list[Any]:
    """What a batch's documents, of these ``sizes``, are cut into: each part is for one call."""
    if batching.flush_all:
        return [documents]
    parts = parts_of(sizes, batching.preferred_batch_size)
    if len(parts) < 2:
        return [documents]
    return [documents[begin:end] for begin, end in parts]


def _docstring(function: Callable[..., Any]) -> str:
    text = None if function is nothing else inspect.getdoc(function)
    return safely(str, text)[:_LONGEST_DOCSTRING] if text else ""


def _only_streams(class_name: str, bound: Bound) -> str:
    return (
        f"{class_name}.{bound.function.__name__} answers one document with a stream: "
        "call it with stream_doc, not with a request"
    )
