"""
``Client``: post documents to a gateway over gRPC, HTTP or WebSocket.

``Client(...)`` waits for its responses; ``Client(asyncio=True, ...)`` yields them to ``async for``. ``post``
itself is in post.py; here its requests are made, and conversation.py drives them.
"""

from __future__ import annotations

import asyncio as aio
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, closing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict, Unpack, overload

import attrs

from gatewayd.client.address import Certificates, parse_address
from gatewayd.client.conversation import converse, converse_async, pull, pull_async
from gatewayd.client.delivery import Callbacks, InFlightLimit
from gatewayd.client.documents import installed
from gatewayd.client.exchange import Arrived, Ended, Exchange
from gatewayd.client.inputs import async_messages, check, messages, single_message
from gatewayd.client.post import Asynchronous, CallKeywords, Post, PostOptions, Waiting, check_keywords
from gatewayd.client.profiling import profile, show
from gatewayd.client.progress import progress, streaming_progress
from gatewayd.client.response import Response
from gatewayd.client.streaming import WINDOW, Streamed, StreamExchange
from gatewayd.client.transport_handle import TransportHandle
from gatewayd.extras import require_client_docarray, tracing_problem
from gatewayd.otlp import PORTS, Collector

if TYPE_CHECKING:
    from docarray import DocumentArray

    from gatewayd.client.tracing import ClientTracing

# How long a question about readiness may take by default.
READY_TIMEOUT_S: Final = 10.0


class ClientKeywords(TypedDict, total=False):
    """The keywords of ``Client`` that are given by name only."""

    prefetch: int
    proxy: bool
    tls_ca_certfile: str | None
    tls_certfile: str | None
    tls_keyfile: str | None
    tls_server_name: str | None
    tracing: bool | None
    traces_exporter_host: str | None
    traces_exporter_port: int | None
    traces_exporter_protocol: Literal["grpc", "http"]
    # The reference's, for its logs and telemetry: accepted, and without effect.
    log_config: Any
    suppress_root_logging: bool
    metrics: bool | None
    metrics_exporter_host: str | None
    metrics_exporter_port: int | None


_KEYWORDS: Final = ("host", "port", "protocol", "tls", "asyncio", *ClientKeywords.__annotations__)

# What other libraries call the same, where difflib would not find it.
_SYNONYMS: Final = {
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
    """What both Clients have: the gateway's address, and connections to it."""

    _tracing: ClientTracing | None = None  # of those, too, that are made without __init__

    def __init__(
        self,
        host: str | None = None,
        port: int | str | None = None,
        protocol: str | None = None,
        tls: bool | None = None,
        **keywords: Unpack[ClientKeywords],
    ) -> None:
        require_client_docarray("a Client needs")
        check_keywords("Client()", keywords, _KEYWORDS, _SYNONYMS)
        certificates = Certificates(
            keywords.get("tls_ca_certfile"),
            keywords.get("tls_certfile"),
            keywords.get("tls_keyfile"),
            keywords.get("tls_server_name"),
        )
        proxy = bool(keywords.get("proxy"))
        self._address = parse_address(host, port, protocol, tls, certificates, proxy=proxy)
        self._prefetch = keywords.get("prefetch", 1000)
        self._handle = TransportHandle(self._address)
        if keywords.get("tracing"):
            self._tracing = _tracing(keywords)
        # Connections are freed with the last reference; at the end of the process the loop does it.
        weakref.finalize(self, self._handle.abandon).atexit = False

    @staticmethod
    def check_input(inputs: Any = None, **_: Any) -> None:
        """Raises BadClientInput if no document can be made of the first of ``inputs``; see inputs.check."""
        check(inputs)

    def _traced(self, post: Post) -> AbstractContextManager[Post]:
        """``post`` as it is to be sent, until it has ended."""
        return nullcontext(post) if self._tracing is None else self._tracing.span(post)

    def _in_flight(self, post: Post) -> InFlightLimit:
        # 0 means "the gateway's own setting" on the wire, and the gateway's flow control is its bound.
        return InFlightLimit(post.prefetch or self._prefetch, in_order=post.results_in_order)

    def _begin_stream(self, post: Post, put: Callable[[Streamed | Ended], None]) -> StreamExchange:
        """Send the one request of ``post`` on the loop thread; what arrives is ``put`` there."""
        loop, transport = self._handle.get()
        message = single_message(post, transport.encode)
        return StreamExchange(loop, partial(transport.stream, post, message), put, post.prefetch or WINDOW)

    def _begin(self, post: Post, put: Callable[[Arrived | Ended], None]) -> Exchange:
        """Start to send and receive on the loop thread; what arrives is ``put`` there."""
        loop, transport = self._handle.get()
        return Exchange(loop, partial(transport.exchange, post), put)

    @property
    def host(self) -> str:
        return self._address.host

    @property
    def port(self) -> int:
        return self._address.port

    @property
    def protocol(self) -> str:
        return self._address.protocol

    @property
    def tls(self) -> bool:
        return self._address.tls

    def __repr__(self) -> str:
        secure = " with TLS" if self.tls else ""
        return f"<{type(self).__name__} of {self._address.authority} over {self.protocol}{secure}>"


class SyncClient(_Connected, Waiting):
    """
    A Client that waits for its responses; any number of threads may use it at once.

    Connections are made when they are needed, and kept until ``close``, the end of a ``with`` block, or
    the last reference. Inputs are read and callbacks called in the thread that calls ``post``.
    """

    def _run(self, post: Post) -> DocumentArray | list[Response] | None:
        installed().check_return_type(post.return_type)
        responses = self._responses(post)
        if post.returns_nothing:
            for _ in responses:
                pass
            return None
        if post.return_responses:
            return list(responses)
        joined: DocumentArray = installed().joined((each.docs for each in responses), post.return_type)
        return joined

    def _stream(self, post: Post) -> Generator[Any, None, None]:
        installed().check_return_type(post.return_type)
        return self._streamed(post)

    def _streamed(self, post: Post) -> Generator[Any, None, None]:
        with (
            self._traced(post) as post,
            streaming_progress(post) as answered,
            closing(pull(partial(self._begin_stream, post), post.return_type)) as responses,
        ):
            for response in responses:
                answered(response)
                yield from response.docs

    def is_flow_ready(self, **keywords: Unpack[CallKeywords]) -> bool:
        """
        Whether a dry run through all executors succeeds within ``timeout`` seconds (10 by default).

        False for any failure.
        """
        options = _ready_options(keywords)
        try:
            loop, transport = self._handle.get()
            return loop.run(transport.unready(options)) is None
        except Exception:
            return False

    dry_run = is_flow_ready

    def profiling(self, show_table: bool = True) -> dict[str, float]:
        """The times of one request, in milliseconds; see profiling.py."""
        begin = time.perf_counter()
        (response,) = self.post("/", installed().probe(), return_responses=True)
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
        Post a GraphQL query or mutation (HTTP only). Returns the whole answer, with its ``headers``.

        Raises ConnectionError where the answer holds errors.
        """
        loop, transport = self._handle.get()
        body = {"query": mutation, "variables": variables}
        return loop.run(transport.mutate(body, PostOptions(timeout=timeout, headers=headers)))

    def close(self) -> None:
        """Free the connections; posts under way fail. A later call connects anew."""
        if held := self._handle.take():
            loop, transport = held
            loop.run(loop.closed(transport))
        if self._tracing is not None:
            self._tracing.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _responses(self, post: Post) -> Iterator[Response]:
        _, transport = self._handle.get()
        with self._traced(post) as post:
            responses = converse(
                messages(post, transport.encode),
                partial(self._begin, post),
                self._in_flight(post),
                Callbacks(post),
            )
            with progress(post) as answered:
                for response in responses:
                    answered(response)
                    yield response


class AsyncClient(_Connected, Asynchronous):
    """
    A Client for asyncio. It may be used in several loops, one after the other or at once.

    Connections are those of SyncClient. Inputs are read and callbacks called in the loop that iterates.
    """

    async def _run(self, post: Post) -> AsyncGenerator[Any, None]:
        documents = installed()
        documents.check_return_type(post.return_type)
        _, transport = self._handle.get()
        with self._traced(post) as post:
            responses = converse_async(
                async_messages(post, transport.encode),
                partial(self._begin, post),
                self._in_flight(post),
                Callbacks(post),
            )
            with progress(post) as answered:
                async with aclosing(responses):
                    async for response in responses:
                        answered(response)
                        yield (
                            response
                            if post.return_responses
                            else documents.shown(response.docs, post.return_type)
                        )

    def _stream(self, post: Post) -> AsyncGenerator[Any, None]:
        installed().check_return_type(post.return_type)
        return self._streamed(post)

    async def _streamed(self, post: Post) -> AsyncGenerator[Any, None]:
        with self._traced(post) as post, streaming_progress(post) as answered:
            async with aclosing(pull_async(partial(self._begin_stream, post), post.return_type)) as responses:
                async for response in responses:
                    answered(response)
                    for document in response.docs:
                        yield document

    async def is_flow_ready(self, **keywords: Unpack[CallKeywords]) -> bool:
        """As SyncClient.is_flow_ready."""
        options = _ready_options(keywords)
        try:
            loop, transport = self._handle.get()
            return await aio.wrap_future(loop.start(transport.unready(options))) is None
        except Exception:
            return False

    dry_run = is_flow_ready

    async def profiling(self, show_table: bool = True) -> dict[str, float]:
        """As SyncClient.profiling."""
        begin = time.perf_counter()
        (response,) = [one async for one in self.post("/", installed().probe(), return_responses=True)]
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
        loop, transport = self._handle.get()
        body = {"query": mutation, "variables": variables}
        asked = loop.start(transport.mutate(body, PostOptions(timeout=timeout, headers=headers)))
        return await aio.wrap_future(asked)

    async def close(self) -> None:
        """As SyncClient.close."""
        if held := self._handle.take():
            loop, transport = held
            await aio.wrap_future(loop.start(loop.closed(transport)))
        if self._tracing is not None:
            await aio.to_thread(self._tracing.flush)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _tracing(keywords: ClientKeywords) -> ClientTracing:
    """Raises ImportError where OpenTelemetry's packages are missed, ValueError for an unknown protocol."""
    protocol = keywords.get("traces_exporter_protocol") or "grpc"
    if protocol not in PORTS:
        raise ValueError(f"traces_exporter_protocol: {protocol!r} is not one of {', '.join(PORTS)}")
    if problem := tracing_problem(protocol):
        raise ImportError(problem, name="opentelemetry")
    from gatewayd.client.tracing import ClientTracing

    host = keywords.get("traces_exporter_host") or Collector().host
    return ClientTracing(Collector(host, keywords.get("traces_exporter_port"), protocol))


def _ready_options(keywords: CallKeywords) -> PostOptions:
    check_keywords("is_flow_ready()", keywords, (field.name for field in attrs.fields(PostOptions)))
    keywords.setdefault("timeout", READY_TIMEOUT_S)
    return PostOptions(**keywords)


@overload
def Client(
    host: str | None = None,
    port: int | str | None = None,
    protocol: str | None = None,
    tls: bool | None = None,
    *,
    asyncio: Literal[False] = False,
    **keywords: Unpack[ClientKeywords],
) -> SyncClient: ...


@overload
def Client(
    host: str | None = None,
    port: int | str | None = None,
    protocol: str | None = None,
    tls: bool | None = None,
    *,
    asyncio: Literal[True],
    **keywords: Unpack[ClientKeywords],
) -> AsyncClient: ...


@overload
def Client(
    host: str | None = None,
    port: int | str | None = None,
    protocol: str | None = None,
    tls: bool | None = None,
    *,
    asyncio: bool,
    **keywords: Unpack[ClientKeywords],
) -> SyncClient | AsyncClient: ...


def Client(
    host: str | None = None,
    port: int | str | None = None,
    protocol: str | None = None,
    tls: bool | None = None,
    *,
    asyncio: bool = False,
    **keywords: Unpack[ClientKeywords],
) -> SyncClient | AsyncClient:
    """
    A client of the gateway at ``host`` (default 0.0.0.0, this machine) and ``port`` (80, or 443 with TLS).

    ``host`` may be an address such as ``grpcs://example.org:443``, with the schemes grpc, http, ws,
    and grpcs, https, wss for TLS; what it says must not be said by another keyword. ``protocol`` is
    grpc, http or websocket. Further keywords: ``prefetch``, how many requests of a post may wait for
    their responses; ``proxy``, whether to use the environment's proxy settings; ``tls_ca_certfile``,
    a PEM file of authorities to trust instead of the system's; ``tls_certfile`` and ``tls_keyfile``,
    the client's own certificate; ``tls_server_name``, the name in the gateway's certificate where it
    is not ``host``; ``tracing`` and ``traces_exporter_host``, ``_port`` and ``_protocol``, for a span of each
    post. Nothing is connected before it is needed.

    Raises TypeError for unknown keywords, ValueError for values that are unknown or contradictory.
    """
    kind = AsyncClient if asyncio else SyncClient
    return kind(host, port, protocol, tls, **keywords)
