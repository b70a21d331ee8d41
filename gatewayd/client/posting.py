"""What ``post`` is told, checked and turned into what the parts below it need; shared by both Clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypedDict

import attrs

from gatewayd.client.delivery import Callback, Callbacks, Window
from gatewayd.client.exchange import Options, Retries
from gatewayd.client.link import Link
from gatewayd.client.requesting import RequestMaker, request_maker

# How long a question about readiness may take, where the user doesn't say.
READY_TIMEOUT_S: Final = 10.0


class Keywords(TypedDict, total=False):
    """The keywords of ``post`` that come after its positional arguments; see Posting."""

    show_progress: bool
    continue_on_error: bool
    return_responses: bool
    max_attempts: int
    initial_backoff: float
    max_backoff: float
    backoff_multiplier: float
    results_in_order: bool
    stream: bool
    prefetch: int | None
    return_type: Any
    metadata: Iterable[tuple[str, str]] | Mapping[str, str] | None
    credentials: Any
    timeout: float | None
    compression: Any
    headers: Mapping[str, str] | None
    auth: Any
    cookies: Mapping[str, str] | None


@attrs.frozen
class Posting:
    """
    The keywords of one ``post``, with their defaults (spec client.md).

    ``on`` is the exec endpoint. ``target_executor`` is a regular expression over Deployment names.
    ``request_size`` is the number of documents in a request, 0 or less for all of them in one.
    ``prefetch`` bounds the requests that wait for their answers, here and at the gateway; None leaves
    it to the Client's and the gateway's own bounds. ``max_attempts`` counts the first try, backoffs are
    seconds. ``stream=False`` makes one call per request (gRPC). ``timeout`` is seconds: for the whole
    stream with gRPC and WebSocket, for each request with HTTP. ``metadata``, ``credentials`` and
    ``compression`` are gRPC's; ``headers``, ``auth`` and ``cookies`` HTTP's and WebSocket's; a
    protocol without the one or the other leaves it aside.
    """

    on: str = attrs.field(validator=attrs.validators.instance_of(str))
    inputs: Any = None
    on_done: Callback | None = None
    on_error: Callback | None = None
    on_always: Callback | None = None
    parameters: Mapping[str, Any] | None = None
    target_executor: str | None = None
    request_size: int = 100
    show_progress: bool = False
    continue_on_error: bool = False
    return_responses: bool = False
    max_attempts: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    initial_backoff: float = attrs.field(default=0.5, validator=attrs.validators.ge(0))
    max_backoff: float = attrs.field(default=0.1, validator=attrs.validators.ge(0))
    backoff_multiplier: float = attrs.field(default=1.5, validator=attrs.validators.gt(0))
    results_in_order: bool = False
    stream: bool = True
    prefetch: int | None = None
    return_type: Any = None
    metadata: Iterable[tuple[str, str]] | Mapping[str, str] | None = None
    credentials: Any = None
    timeout: float | None = None
    compression: Any = None
    headers: Mapping[str, str] | None = None
    auth: Any = None
    cookies: Mapping[str, str] | None = None

    @property
    def callbacks(self) -> Callbacks:
        return Callbacks(self.on_done, self.on_error, self.on_always, self.continue_on_error)

    @property
    def retries(self) -> Retries:
        return Retries(self.max_attempts, self.initial_backoff, self.max_backoff, self.backoff_multiplier)

    def options(self) -> Options:
        """Raises ValueError for an unknown compression."""
        return options(
            metadata=self._metadata(),
            credentials=self.credentials,
            timeout=self.timeout,
            compression=self.compression,
            headers=self.headers,
            auth=self.auth,
            cookies=self.cookies,
            stream=self.stream,
        )

    def window(self, client_prefetch: int) -> Window:
        # 0 means "the gateway's own setting" on the wire, and the gateway's flow control is its bound.
        return Window(self.prefetch or client_prefetch, in_order=self.results_in_order)

    def requests(self, link: Link) -> RequestMaker:
        """Raises BadClient for parameters that cannot be sent."""
        return request_maker(self.on, self.target_executor, self.parameters, link.get()[1].encode)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        given = self.metadata.items() if isinstance(self.metadata, Mapping) else self.metadata or ()
        metadata = [(key, value) for key, value in given]
        if self.results_in_order:
            metadata.append(("__results_in_order__", "true"))
        if self.prefetch is not None:
            metadata.append(("__prefetch__", str(self.prefetch)))
        return tuple(metadata)


def options(
    *,
    metadata: Iterable[tuple[str, str]] | None = None,
    credentials: Any = None,
    timeout: float | None = None,
    compression: Any = None,
    headers: Mapping[str, str] | None = None,
    auth: Any = None,
    cookies: Mapping[str, str] | None = None,
    stream: bool = True,
) -> Options:
    """Raises ValueError for an unknown compression."""
    if compression is not None and str(compression).rpartition(".")[2].lower() not in (
        "none",
        "nocompression",
        "deflate",
        "gzip",
    ):
        raise ValueError(f"compression: {compression!r} is not one of NoCompression, Deflate, Gzip")
    return Options(
        metadata=tuple(metadata or ()),
        credentials=credentials,
        timeout_s=timeout,
        compression=compression,
        headers=dict(headers or {}),
        auth=auth,
        cookies=dict(cookies or {}),
        streamed=stream,
    )


def every_document(responses: Iterable[Any]) -> Any:
    """One DocumentArray of all answers' documents."""
    from docarray import DocumentArray

    return DocumentArray([document for response in responses for document in response.docs])
