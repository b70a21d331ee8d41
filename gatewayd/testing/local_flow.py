"""``LocalFlow``: what a test enters, and the clients that it gets."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Unpack, overload

from gatewayd.client.client import AsyncClient, SyncClient
from gatewayd.client.loop import LoopThread
from gatewayd.executor.executor import Executor
from gatewayd.executor.loading import LoadError, load
from gatewayd.flow.flow import Flow
from gatewayd.flow.keywords import ExecutorKeywords
from gatewayd.flow.process import RuntimeFailToStart
from gatewayd.flow.served import Served
from gatewayd.testing.engine import Engine, Loaded, close_all
from gatewayd.testing.plan import Plan, PlannedReplica, StandIns, planned
from gatewayd.testing.transport import LocalHandle

_PREFETCH: Final = 1000


class _Local:
    """What both clients offer besides posting."""

    _engine: Engine

    @property
    def executors(self) -> Mapping[str, Executor]:
        """
        The executors themselves, to look at in a test, by the names that they have in logs:
        ``encoder/rep-0``, with shards ``indexer/shard-1/rep-0``.
        """
        return self._engine.executors

    def executor(self, name: str) -> Executor:
        """The only executor of the Deployment ``name``. Raises KeyError where there is none, or more."""
        found = [each for key, each in self.executors.items() if key.rpartition("/")[0] == name]
        if len(found) == 1:
            return found[0]
        raise KeyError(f"{name}: {len(found)} executors have this name, of {', '.join(self.executors)}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(self.executors) or 'no executors'}>"


class LocalClient(_Local, SyncClient):
    """What ``with LocalFlow(...)`` gives: a Client of that Flow. ``post`` and the rest are the Client's."""

    def __init__(self, engine: Engine, handle: LocalHandle) -> None:
        self._engine = engine
        self._handle = handle
        self._address = handle.address
        self._prefetch = _PREFETCH


class AsyncLocalClient(_Local, AsyncClient):
    """What ``async with LocalFlow(...)`` gives: an asynchronous Client of that Flow."""

    def __init__(self, engine: Engine, handle: LocalHandle) -> None:
        self._engine = engine
        self._handle = handle
        self._address = handle.address
        self._prefetch = _PREFETCH


class LocalFlow:
    """
    A Flow that runs in this process while a ``with`` or an ``async with`` block lasts.

    ``source`` is a Flow, a Deployment, a Flow file (its path, its text, or its content as a map), or one
    Executor class, to which further keywords are those of ``Flow.add`` (``uses_with``, ``replicas``, ...).
    ``stand_ins`` maps the names of Deployments to classes that take their executors' place, made without
    ``uses_with``: for models too heavy for a test, and for external executors, which a LocalFlow never
    connects to.

    ``with`` gives a LocalClient, ``async with`` an AsyncLocalClient. Executors are created in the thread
    that enters the block; their methods run, as in production, on an event loop (coroutines) or in one
    thread for each executor (plain methods). The variables of ``env`` are set for as long as the block lasts.
    What the gateway's ports would do (HTTP's paths and JSON, GraphQL, TLS) has no part in it.

    Raises FlowError for a Flow that cannot be used, FileNotFoundError for a file that is not there. Entering
    raises RuntimeFailToStart for an executor that cannot be created, with the cause chained; leaving, what
    an executor's ``close`` raises.
    """

    @overload
    def __init__(
        self,
        source: Served[Any] | str | Path | Mapping[str, Any],
        *,
        stand_ins: StandIns | None = None,
    ) -> None: ...

    @overload
    def __init__(self, source: type[Executor], **keywords: Unpack[ExecutorKeywords]) -> None: ...

    def __init__(
        self,
        source: Served[Any] | str | Path | Mapping[str, Any] | type[Executor],
        *,
        stand_ins: StandIns | None = None,
        **keywords: Any,
    ) -> None:
        if isinstance(source, type):
            flow: Served[Any] = Flow().add(uses=source, **keywords)
        elif keywords:
            raise TypeError(
                f"LocalFlow: {', '.join(keywords)}: an executor's keywords go with its class, as in "
                "LocalFlow(MyExecutor, uses_with={...}); a Flow has its own"
            )
        else:
            flow = source if isinstance(source, Served) else Flow.load_config(source)
        self._plan = planned(flow, stand_ins or {})
        self._running: _Running | None = None

    def __enter__(self) -> LocalClient:
        running = self._start()
        try:
            engine = running.loop.run(running.serve())
        except BaseException:
            self._take().end()
            raise
        return LocalClient(engine, running.handle(engine))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = self._take()
        try:
            running.loop.run(running.close())
        finally:
            running.end()

    async def __aenter__(self) -> AsyncLocalClient:
        running = self._start()
        try:
            engine = await asyncio.wrap_future(running.loop.start(running.serve()))
        except BaseException:
            self._take().end()
            raise
        return AsyncLocalClient(engine, running.handle(engine))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = self._take()
        try:
            await asyncio.wrap_future(running.loop.start(running.close()))
        finally:
            running.end()

    def _start(self) -> _Running:
        if self._running is not None:
            raise RuntimeError("this LocalFlow runs already")
        self._running = _Running(self._plan)
        return self._running

    def _take(self) -> _Running:
        running, self._running = self._running, None
        assert running is not None
        return running


class _Running:
    """A LocalFlow within its block: the loop, what runs on it, and what has to be put back at the end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._engine: Engine | None = None
        self._handle: LocalHandle | None = None
        self._loaded: list[Loaded] = []
        with ExitStack() as stack:
            self.loop = LoopThread()
            stack.callback(self.loop.end)
            stack.enter_context(_surroundings(plan.env))
            stack.callback(self._close_unserved)
            for replica in plan.replicas:
                self._loaded.append(_loaded(replica))
            self._stack = stack.pop_all()

    def handle(self, engine: Engine) -> LocalHandle:
        self._handle = LocalHandle(self.loop, engine.dispatcher, engine.dispatcher.forwarded)
        return self._handle

    async def serve(self) -> Engine:
        """Loop thread."""
        self._engine = Engine(self._plan.config, self._loaded)
        return self._engine

    async def close(self) -> None:
        """Loop thread. Raises as ``Engine.close``."""
        assert self._engine is not None
        await self._engine.close()

    def end(self) -> None:
        """Put back what was changed, and end the loop."""
        if self._handle is not None:
            self._handle.end()
        self._stack.close()

    def _close_unserved(self) -> None:
        if self._engine is None:
            self.loop.run(close_all([each.executor for each in self._loaded]))


def _loaded(replica: PlannedReplica) -> Loaded:
    create = partial(load, replica.spec, replica.objects)
    try:
        return Loaded(replica.deployment, replica.spec, create(), create)
    except LoadError as error:
        name = replica.spec.runtime_name
        raise RuntimeFailToStart(f"{name} cannot start: {error}", name) from error


@contextmanager
def _surroundings(env: Mapping[str, str]) -> Iterator[None]:
    """Set variables; afterwards take them back, and the folders that executors were imported from."""
    path, former = list(sys.path), {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        yield
    finally:
        sys.path[:] = [folder for folder in sys.path if folder in path]
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
