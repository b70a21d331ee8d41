"""What the gateway's gRPC methods do with requests and errors, whichever server carries them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar
from uuid import uuid4

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from gatewayd.access.credentials import Credentials
from gatewayd.bounded_log import BoundedLogger
from gatewayd.buffers import Buffers
from gatewayd.errors import EndpointStreams, InternalError, MethodNotServed, Overloaded
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.endpoints_codec import write_endpoints
from gatewayd.messages.generations import Generation
from gatewayd.messages.headers import Headers
from gatewayd.messages.request import Request, Response
from gatewayd.pb import DataContentProto
from gatewayd.protocols.backend import Dispatcher
from gatewayd.protocols.failures import explained
from gatewayd.protocols.grpc.errors import Metadata, status_of
from gatewayd.protocols.told import told
from gatewayd.streams import StreamingEndpoints
from gatewayd.tls.peer import PeerNames

T = TypeVar("T")

log = BoundedLogger()


class CountingDispatcher:
    """
    The engine, with the bytes of the requests under way counted in ``buffers``; None does not limit them.

    Endpoints of ``streaming`` have no single answer. Reactor thread only.
    """

    def __init__(
        self, dispatcher: Dispatcher, buffers: Buffers | None, streaming: StreamingEndpoints | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._buffers = buffers
        self._streaming = StreamingEndpoints() if streaming is None else streaming

    def dispatch(
        self, request: Request, timeout_s: float | None, may_stream: bool = False, has_waited: bool = False
    ) -> Deferred[Response]:
        """
        Fails with Overloaded if there is no room, and with EndpointStreams, before anybody is asked.

        Who ``may_stream`` is told of every endpoint that does; others not where the request names executors,
        as those may answer it with one answer. While it is not known what streams, a request waits for that,
        unless it ``has_waited``.
        """
        if self._streaming.unknown and not has_waited:
            return self._dispatch_when_known(request, timeout_s, may_stream)
        if request.endpoint in self._streaming.endpoints and (may_stream or not request.target):
            return fail(EndpointStreams(request.endpoint))
        buffers, size = self._buffers, len(request.documents) + len(request.parameters)
        if buffers is None:
            return self._dispatcher.dispatch(request, timeout_s=timeout_s)
        if not buffers.take(size):
            return fail(Overloaded(buffers.full()))
        return self._dispatcher.dispatch(request, timeout_s=timeout_s).addBoth(_release, buffers, size)

    def _dispatch_when_known(
        self, request: Request, timeout_s: float | None, may_stream: bool
    ) -> Deferred[Response]:
        buffers, size = self._buffers, len(request.documents) + len(request.parameters)
        if buffers is not None and not buffers.take(size):
            return fail(Overloaded(buffers.full()))
        known = self._streaming.known(request, timeout_s)
        if buffers is not None:
            known.addBoth(_release, buffers, size)
        return known.addCallback(lambda left_s: self.dispatch(request, left_s, may_stream, True))

    def dry_run(self, caller: Caller) -> Deferred[Response]:
        """One empty document through the Flow (spec grpc.md)."""
        content = DataContentProto()
        content.docs.docs.add(id=uuid4().hex)
        return self._dispatcher.dry_run(content.SerializeToString(), caller=caller)


def discovered(endpoints: Callable[[], Endpoints]) -> Deferred[bytes]:
    """
    The EndpointsProto of a Flow of the second generation, as an executor tells it. Reactor thread only.

    Fails with MethodNotServed for others: gateways of Jina 3.14 have no such method.
    """
    found = endpoints()
    if found.generation != Generation.SECOND:
        return fail(MethodNotServed())
    return succeed(write_endpoints(found))


def _release(result: T, buffers: Buffers, size: int) -> T:
    buffers.held_bytes -= size
    return result


def credentials_of(
    metadata: Iterable[tuple[str, str | bytes]],
    address: str,
    certificate: Callable[[], PeerNames | None],
    path: str,
) -> Credentials:
    """What the metadata and the connection of a call show."""
    texts: dict[str, str] = {}
    for key, value in metadata:
        if isinstance(value, str):
            texts[key] = f"{texts[key]}, {value}" if key in texts else value
    return Credentials(texts.get, address, certificate, method="POST", target=path, protocol="grpc")


def completed(request: Request, headers: Headers, caller: Caller) -> Request:
    """``request`` with what its call said besides its message."""
    if headers:
        request = attrs.evolve(request, headers=headers)
    return request if caller is ANONYMOUS else attrs.evolve(request, caller=caller)


def stream_settings(metadata: Iterable[tuple[str, str | bytes]], prefetch: int) -> tuple[bool, int]:
    """Whether answers are sent in order, and the window's limit (spec wire.md, gRPC metadata)."""
    ordered = False
    for key, value in metadata:
        if key == "__results_in_order__":
            ordered = value == "true"
        elif key == "__prefetch__":
            try:
                # 0 means the gateway's own setting, a negative number no limit.
                prefetch = int(value) or prefetch
            except ValueError:
                log.debug("a client's __prefetch__ is not a number: {value!r}", value=value)
    return ordered, prefetch


def final_status(error: BaseException, request: Request | None) -> tuple[str, str, Metadata]:
    """The code, details and trailing metadata that a call ends with; what is a bug is logged."""
    request_id = request.request_id if request is not None else ""
    public = explained(error, request_id)
    if isinstance(public, InternalError):
        log.error(
            "request {request_id} failed unexpectedly: {error!r}",
            request_id=request_id,
            error=error,
            log_failure=Failure(error),
        )
    told(public, "grpc")
    return status_of(public)
