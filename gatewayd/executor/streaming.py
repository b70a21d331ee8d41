"""
Answers one document with a stream: what its generator yields, for as long as somebody reads it.

Event loop's thread only; plain generators take their steps in the thread of plain methods.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from gatewayd.executor.answers import Answers, Message, Outlet
from gatewayd.executor.bound import ANSWER_HEADERS, RAISED, Bound, HeaderKeywords, accepted_by
from gatewayd.executor.documents import Documents
from gatewayd.executor.executor import Executor
from gatewayd.executor.generators import in_thread, on_loop
from gatewayd.executor.worker import Worker
from gatewayd.messages.headers import Headers, given
from gatewayd.messages.wire import DATA, HEADER, field
from gatewayd.pb import HeaderProto

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from gatewayd.executor.tracing import Tracing


class Streams:
    """The streams of one executor that are under way."""

    def __init__(
        self,
        executor: Executor,
        documents: Documents,
        answers: Answers,
        worker: Worker,
        on_fatal: Callable[[str], None],
        tracing: Tracing | None,
    ) -> None:
        self._executor = executor
        self._documents = documents
        self._answers = answers
        self._worker = worker
        self._on_fatal = on_fatal
        self._tracing = tracing
        self._under_way: set[asyncio.Task[None]] = set()

    def begin(
        self,
        bound: Bound,
        cut: Message,
        header: HeaderProto,
        headers: HeaderKeywords,
        parent: Context | None,
        outlet: Outlet,
    ) -> Callable[[], object]:
        """Stream to ``outlet``. The function that is returned closes the generator."""
        task = asyncio.get_running_loop().create_task(
            self._stream(bound, cut, header.request_id, header.exec_endpoint, headers, parent, outlet)
        )
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task.cancel

    async def end(self, timeout_s: float) -> None:
        """Close the generators that are left. Waits for them, for ``timeout_s`` at most."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout_s)

    async def _stream(
        self,
        bound: Bound,
        cut: Message,
        request_id: str,
        endpoint: str,
        headers: HeaderKeywords,
        parent: Context | None,
        outlet: Outlet,
    ) -> None:
        if not bound.form.streams:
            # As the reference answers it: with the request, which its client reads the status of.
            error = ValueError(f"endpoint must be generator: {endpoint} answers requests, not stream_doc")
            await outlet.send(self._answers.failure(cut, error).message)
            outlet.finished(None, ())
            return
        span = None if self._tracing is None or parent is None else self._tracing.begin(endpoint, parent)
        failure: BaseException | None = None
        fatal: str | None = None
        answered: Headers = ()
        try:
            with bound.timed():
                messages = self._yielded(bound, cut, request_id, headers, span)
                async with aclosing(messages):
                    async for message in messages:
                        await outlet.send(message)
                        # It has to leave, and others are to have their turn: a generator need not wait.
                        await asyncio.sleep(0)
            answered = given(headers.get(ANSWER_HEADERS) or {})
        except asyncio.CancelledError as error:
            failure = error
            raise
        except RAISED as error:
            failure = error
            fatal = self._answers.fatal(self._answers.told(HeaderProto.FromString(cut.header), error))
        finally:
            if self._tracing is not None and span is not None:
                self._tracing.end(span, failure)
            if fatal is not None:
                self._on_fatal(fatal)
            outlet.finished(failure, answered)

    async def _yielded(
        self, bound: Bound, cut: Message, request_id: str, headers: HeaderKeywords, span: Span | None
    ) -> AsyncGenerator[bytes]:
        """The messages that the generator's answers are sent as, one by one."""
        start = partial(self._generator, bound, cut, headers, span)
        written = partial(self._one_answer, bound, HeaderProto(request_id=request_id))
        if bound.is_coroutine:
            with self._within(span):
                async with aclosing(on_loop(start, written)) as messages:
                    async for message in messages:
                        yield message
            return

        async def run(work: Callable[[], Any]) -> Any:
            found = await self._worker.call(partial(self._work_within, span, work))
            if isinstance(found, BaseException):
                raise found
            return found

        async with aclosing(in_thread(start, written, run)) as messages:
            async for message in messages:
                yield message

    def _generator(self, bound: Bound, cut: Message, headers: HeaderKeywords, span: Span | None) -> object:
        """Call the generator function."""
        keywords = {
            "doc": self._documents.read_one(cut.data, bound.form),
            "parameters": self._documents.parameters(
                bound.form, cut.parameters_for(self._executor.metas.name)
            ),
            "docs_matrix": None,
            "docs_map": None,
            "tracing_context": None if self._tracing is None or span is None else self._tracing.below(span),
            **headers,
        }
        return bound.function(self._executor, **accepted_by(bound, keywords))

    def _one_answer(self, bound: Bound, header: HeaderProto, one: object) -> bytes:
        misfit = self._documents.misfit(one, bound.form)
        if misfit is None:
            document = self._documents.write_one(one)
            return b"".join([*field(HEADER, header.SerializeToString()), *field(DATA, document)])
        # As the reference: this one is an error, and the generator goes on.
        failed = HeaderProto(request_id=header.request_id, exec_endpoint=bound.endpoint)
        failed.status.CopyFrom(self._answers.told(failed, ValueError(misfit)))
        return b"".join(field(HEADER, failed.SerializeToString()))

    def _within(self, span: Span | None) -> AbstractContextManager[object]:
        return nullcontext() if self._tracing is None or span is None else self._tracing.within(span)

    def _work_within(self, span: Span | None, work: Callable[[], Any]) -> Any:
        with self._within(span):
            return work()
