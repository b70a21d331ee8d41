"""
``Client``: post documents to a gateway over gRPC, HTTP or WebSocket.

``Client(...)`` waits for its answers; ``Client(asyncio=True, ...)`` gives them to ``async for``. Both
are thin: keywords become a Posting, inputs become messages, and conversation.py does the rest.
"""

from __future__ import annotations

import asyncio as aio
import difflib
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal, Self, Unpack, overload

from gatewayd.client.conversation import converse, converse_async
from gatewayd.client.delivery import Callback
from gatewayd.client.inputs import async_batches, batches
from gatewayd.client.link import Link
from gatewayd.client.posting import READY_TIMEOUT_S, Keywords, Posting, every_document, options
from gatewayd.client.profiling import profile, show
from gatewayd.client.progress import progress
from gatewayd.client.requesting import Message, RequestMaker
from gatewayd.client.response import Response
from gatewayd.client.target import Certificates, parse_target

# What the reference's Client takes for its logs and telemetry: accepted, and without effect.
_WITHOUT_EFFECT: Final = {
    "log_config",
    "suppress_root_logging",
    "tracing",
    "traces_exporter_host",
    "traces_exporter_port",
    "metrics",
    "metrics_exporter_host",
    "metrics_exporter_port",
}


_KEYWORDS: Final = (
    "host", "port", "protocol", "tls", "asyncio", "prefetch", "proxy",
    "tls_ca_certfile", "tls_certfile", "tls_keyfile", "tls_server_name",
)  # fmt: skip

# What other libraries call the same: too far from our names for difflib.
_ELSEWHERE: Final = {
    "ca": "tls_ca_certfile",
    "cafile": "tls_ca_certfile",
    "verify": "tls_ca_certfile",
    "cert": "tls_certfile",
    "key": "tls_keyfile",
    "ssl": "tls",
    "https": "tls",
    "url": "host",
    "address": "host",
}


class _Connected:
    """What both Clients are: an address and how to reach it."""

    def __init__(
        self,
        host: str | None = None,
        port: int | str | None = None,
        protocol: str | None = None,
        tls: bool | None = None,
        *,
        prefetch: int = 1000,
        proxy: bool = False,
        tls_ca_certfile: str | None = None,
        tls_certfile: str | None = None,
        tls_keyfile: str | None = None,
        tls_server_name: str | None = None,
        **without_effect: Any,
    ) -> None:
        if unknown := sorted(without_effect.keys() - _WITHOUT_EFFECT):
            raise TypeError(f"Client() has no keyword {', '.join(map(_with_nearest, unknown))}")
        certificates = Certificates(tls_ca_certfile, tls_certfile, tls_keyfile, tls_server_name)
        self._target = parse_target(host, port, protocol, tls, certificates, proxy=bool(proxy))
        self._prefetch = prefetch
        self._link = Link(self._target)
        # Connections are freed with the last reference; at the end of the process the loop does it.
        weakref.finalize(self, self._link.abandon).atexit = False

    @property
    def host(self) -> str:
        return self._target.host

    @property
    def port(self) -> int:
        return self._target.port

    @property
    def protocol(self) -> str:
        return self._target.protocol

    @property
    def tls(self) -> bool:
        return self._target.tls

    def __repr__(self) -> str:
        secure = " with TLS" if self.tls else ""
        return f"<{type(self).__name__} of {self._target.address} over {self.protocol}{secure}>"


def _with_nearest(name: str) -> str:
    begun = [keyword for keyword in _KEYWORDS if keyword.startswith(name)]
    nearest = begun or difflib.get_close_matches(name, _KEYWORDS, n=1, cutoff=0.5)
    found = _ELSEWHERE.get(name.lower()) or (nearest[0] if nearest else None)
    return f"{name} (did you mean {found}?)" if found else name


class SyncClient(_Connected):
    """
    Use it from any number of threads. Connections are made when they are needed, and kept until
    ``close``, the end of a ``with`` block, or the last reference.

    Inputs are read and callbacks called in the thread that calls ``post``.
    """

    def post(
        self,
        on: str,
        inputs: Any = None,
        on_done: Callback | None = None,
        on_error: Callback | None = None,
        on_always: Callback | None = None,
        parameters: Mapping[str, Any] | None = None,
        target_executor: str | None = None,
        request_size: int = 100,
        **keywords: Unpack[Keywords],
    ) -> Any:
        """
        Send ``inputs`` to the exec endpoint ``on``; Posting lists the keywords.

        Returns a DocumentArray of all answers' documents; with ``return_responses`` a list of
        Responses; None where ``on_done`` or ``on_always`` gets them. Raises errors.py's tree, and
        what the inputs themselves raise.
        """
        posting = Posting(
            on,
            inputs,
            on_done,
            on_error,
            on_always,
            parameters,
            target_executor,
            request_size,
            **keywords,
        )
        responses = self._responses(posting)
        if posting.callbacks.take_all:
            for _ in responses:
                pass
            return None
        if posting.return_responses:
            return list(responses)
        return every_document(responses)

    def index(self, inputs: Any = None, **keywords: Any) -> Any:
        """``post`` to ``/index``."""
        return self.post("/index", inputs, **keywords)

    def search(self, inputs: Any = None, **keywords: Any) -> Any:
        """``post`` to ``/search``."""
        return self.post("/search", inputs, **keywords)

    def update(self, inputs: Any = None, **keywords: Any) -> Any:
        """``post`` to ``/update``."""
        return self.post("/update", inputs, **keywords)

    def delete(self, inputs: Any = None, **keywords: Any) -> Any:
        """``post`` to ``/delete``."""
        return self.post("/delete", inputs, **keywords)

    def is_flow_ready(self, *, timeout: float | None = READY_TIMEOUT_S, **keywords: Any) -> bool:
        """Does a dry run through all executors succeed within ``timeout`` seconds? Any failure is False."""
        call = options(timeout=timeout, **keywords)
        try:
            loop, transport = self._link.get()
            return loop.run(transport.unready(call)) is None
        except Exception:
            return False

    dry_run = is_flow_ready

    def profiling(self, show_table: bool = True) -> dict[str, float]:
        """The times of one request, in milliseconds; see profiling.py."""
        from docarray import Document

        begin = time.perf_counter()
        (response,) = self.post("/", Document(), return_responses=True)
        times = profile(response, (time.perf_counter() - begin) * 1e3)
        if show_table:
            show(times)
        return times

    def mutate(
        self,
        mutation: str,
        variables: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """
        Post a GraphQL query or mutation (HTTP only); the whole answer, with its ``headers``.

        Raises ConnectionError when the answer tells of errors.
        """
        loop, transport = self._link.get()
        body = {"query": mutation, "variables": variables}
        return loop.run(transport.mutate(body, options(timeout=timeout, headers=headers)))

    def close(self) -> None:
        """Free the connections; posts under way fail. A later call connects anew."""
        if held := self._link.take():
            loop, transport = held
            loop.run(loop.closed(transport))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _responses(self, posting: Posting) -> Iterator[Response]:
        maker, call, retries = posting.requests(self._link), posting.options(), posting.retries
        window = posting.window(self._prefetch)
        messages = map(maker.message, batches(posting.inputs, posting.request_size))
        with progress(posting.show_progress, posting.inputs, posting.request_size) as answered:
            for response in converse(
                messages, lambda put: self._link.begin(call, retries, put), window, posting.callbacks
            ):
                answered(response)
                yield response


class AsyncClient(_Connected):
    """As SyncClient, for asyncio; it may be used in several loops, one after the other or together."""

    async def post(
        self,
        on: str,
        inputs: Any = None,
        on_done: Callback | None = None,
        on_error: Callback | None = None,
        on_always: Callback | None = None,
        parameters: Mapping[str, Any] | None = None,
        target_executor: str | None = None,
        request_size: int = 100,
        **keywords: Unpack[Keywords],
    ) -> AsyncIterator[Any]:
        """
        Send ``inputs``, which may be an asynchronous iterator, to the exec endpoint ``on``.

        Yields one DocumentArray per answer, or a Response with ``return_responses``. Callbacks may be
        coroutine functions. Raises as SyncClient.post.
        """
        posting = Posting(
            on,
            inputs,
            on_done,
            on_error,
            on_always,
            parameters,
            target_executor,
            request_size,
            **keywords,
        )
        maker, call, retries = posting.requests(self._link), posting.options(), posting.retries
        responses = converse_async(
            _messages(maker, posting),
            lambda put: self._link.begin(call, retries, put),
            posting.window(self._prefetch),
            posting.callbacks,
        )
        with progress(posting.show_progress, posting.inputs, posting.request_size) as answered:
            async with aclosing(responses):
                async for response in responses:
                    answered(response)
                    yield response if posting.return_responses else response.docs

    def index(self, inputs: Any = None, **keywords: Any) -> AsyncIterator[Any]:
        """``post`` to ``/index``."""
        return self.post("/index", inputs, **keywords)

    def search(self, inputs: Any = None, **keywords: Any) -> AsyncIterator[Any]:
        """``post`` to ``/search``."""
        return self.post("/search", inputs, **keywords)

    def update(self, inputs: Any = None, **keywords: Any) -> AsyncIterator[Any]:
        """``post`` to ``/update``."""
        return self.post("/update", inputs, **keywords)

    def delete(self, inputs: Any = None, **keywords: Any) -> AsyncIterator[Any]:
        """``post`` to ``/delete``."""
        return self.post("/delete", inputs, **keywords)

    async def is_flow_ready(
        self,
        *,
        timeout: float | None = READY_TIMEOUT_S,  # noqa: ASYNC109 - the transport applies it
        **keywords: Any,
    ) -> bool:
        """As SyncClient.is_flow_ready."""
        call = options(timeout=timeout, **keywords)
        try:
            loop, transport = self._link.get()
            return await aio.wrap_future(loop.start(transport.unready(call))) is None
        except Exception:
            return False

    dry_run = is_flow_ready

    async def profiling(self, show_table: bool = True) -> dict[str, float]:
        """As SyncClient.profiling."""
        from docarray import Document

        begin = time.perf_counter()
        (response,) = [one async for one in self.post("/", Document(), return_responses=True)]
        times = profile(response, (time.perf_counter() - begin) * 1e3)
        if show_table:
            show(times)
        return times

    async def mutate(
        self,
        mutation: str,
        variables: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the transport applies it
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """As SyncClient.mutate."""
        loop, transport = self._link.get()
        body = {"query": mutation, "variables": variables}
        asked = loop.start(transport.mutate(body, options(timeout=timeout, headers=headers)))
        return await aio.wrap_future(asked)

    async def close(self) -> None:
        """As SyncClient.close."""
        if held := self._link.take():
            loop, transport = held
            await aio.wrap_future(loop.start(loop.closed(transport)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _messages(maker: RequestMaker, posting: Posting) -> AsyncGenerator[Message, None]:
    async with aclosing(async_batches(posting.inputs, posting.request_size)) as found:
        async for batch in found:
            yield maker.message(batch)


@overload
def Client(
    host: str | None = None,
    port: int | str | None = None,
    protocol: str | None = None,
    tls: bool | None = None,
    *,
    asyncio: Literal[False] = False,
    **keywords: Any,
) -> SyncClient: ...


@overload
def Client(
    host: str | None = None,
    port: int | str | None = None,
    protocol: str | None = None,
    tls: bool | None = None,
    *,
    asyncio: Literal[True],
    **keywords: Any,
) -> AsyncClient: ...


def Client(
    host: str | None = None,
    port: int | str | None = None,
    protocol: str | None = None,
    tls: bool | None = None,
    *,
    asyncio: bool = False,
    **keywords: Any,
) -> SyncClient | AsyncClient:
    """
    A client of the gateway at ``host`` (default 0.0.0.0, this machine) and ``port`` (80, or 443 with TLS).

    ``host`` may be an address such as ``grpcs://example.org:443``, with the schemes grpc, http, ws,
    and grpcs, https, wss for TLS; what it says must not be said by another keyword. ``protocol`` is
    grpc, http or websocket. Further keywords: ``prefetch``, how many requests of a post may wait for
    their answers; ``proxy``, whether the environment's proxy settings count; ``tls_ca_certfile``,
    PEM file of authorities to trust instead of the system's; ``tls_certfile`` and ``tls_keyfile``,
    what the client shows of itself; ``tls_server_name``, the name that the gateway's certificate has
    where it is not ``host``. Nothing is connected before it is needed.

    Raises ValueError for what is unknown or contradictory.
    """
    kind = AsyncClient if asyncio else SyncClient
    return kind(host, port, protocol, tls, **keywords)
