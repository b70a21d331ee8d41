"""
``post``: its keywords, the value that carries them to the transports, and the methods themselves.

Flow, SyncClient and AsyncClient inherit Posts: each keyword, its type and its default stand here only.
"""

from __future__ import annotations

import difflib
import inspect
import sys
import warnings
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    Protocol,
    Required,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

import attrs

from gatewayd.backoff import Backoff
from gatewayd.errors import IllegalHeader
from gatewayd.extras import docarray_generation
from gatewayd.messages.generations import Generation
from gatewayd.messages.headers import as_metadata, client_headers, joined

if TYPE_CHECKING:
    import aiohttp
    import grpc
    from docarray import DocumentArray

    from gatewayd.client.response import Response

    Callback = Callable[[Response], Any]
else:
    Callback = Callable[..., Any]

# The reference's defaults, which are not the same in the two generations (spec client.md, 34/client.md).
_MAX_BACKOFF_S: Final = 2.0 if docarray_generation() is Generation.SECOND else 0.1

Kind_co = TypeVar("Kind_co", covariant=True)

Metadata = Iterable[tuple[str, str | bytes]] | Mapping[str, str | bytes]


class CallKeywords(TypedDict, total=False):
    """Keywords of every call to a gateway; PostOptions explains them."""

    metadata: Metadata | None
    credentials: grpc.CallCredentials | None
    timeout: float | None
    compression: str | grpc.Compression | None
    headers: Mapping[str, str] | None
    auth: tuple[str, str] | list[str] | aiohttp.BasicAuth | None
    cookies: Mapping[str, str] | None


class StreamKeywords(CallKeywords, total=False):
    """Keywords of ``stream_doc``; Post explains them."""

    parameters: Any
    target_executor: str | None
    show_progress: bool
    prefetch: int | None
    return_type: Any


class PostKeywords(CallKeywords, total=False):
    """Keywords of ``post`` whatever it returns; Post explains them."""

    on_error: Callback | None
    parameters: Any
    target_executor: str | None
    request_size: int
    show_progress: bool
    continue_on_error: bool
    max_attempts: int
    initial_backoff: float
    max_backoff: float
    backoff_multiplier: float
    results_in_order: bool
    stream: bool
    prefetch: int | None
    return_type: Any
    total_docs: int | None


class PostKeywordsWithOnDone(PostKeywords, total=False):
    """Those of a ``post`` that returns nothing because ``on_done`` takes the responses."""

    on_done: Required[Callback]
    on_always: Callback | None


class PostKeywordsWithOnAlways(PostKeywords, total=False):
    """Those of a ``post`` that returns nothing because ``on_always`` takes the responses."""

    on_done: Callback | None
    on_always: Required[Callback]


class AllPostKeywords(PostKeywords, total=False):
    """Those of a ``post`` of which only running it shows what it returns."""

    on_done: Callback | None
    on_always: Callback | None


@attrs.frozen
class Retries:
    """How often a call may be tried, the first time included, and how long to wait between."""

    max_attempts: int
    backoff: Backoff


def _pairs(metadata: Metadata | None) -> tuple[tuple[str, str | bytes], ...]:
    given = metadata.items() if isinstance(metadata, Mapping) else metadata or ()
    return tuple((key, value) for key, value in given)


def _dict(given: Mapping[str, str] | None) -> dict[str, str]:
    return dict(given or {})


Compression = Literal["none", "deflate", "gzip"]
_COMPRESSIONS: Final[Mapping[str, Compression]] = {
    "none": "none",
    "nocompression": "none",
    "deflate": "deflate",
    "gzip": "gzip",
}


def compression_named(name: Any) -> Compression | None:
    """
    What gRPC calls are compressed with; None where that is left to the transport.

    ``name`` is NoCompression, Deflate or Gzip in any case, or a ``grpc.Compression``. Raises ValueError.
    """
    if name is None:
        return None
    compression = _COMPRESSIONS.get(str(getattr(name, "name", name)).lower())
    if compression is None:
        raise ValueError(f"compression: {name!r} is not one of NoCompression, Deflate, Gzip")
    return compression


def _known_compression(_: object, __: object, compression: object) -> None:
    compression_named(compression)


@attrs.frozen(kw_only=True)
class PostOptions:
    """
    How a gateway is called.

    ``timeout`` is seconds: for the whole stream with gRPC and WebSocket, for each request with HTTP; None
    for no limit. ``headers`` and ``metadata`` are both sent over every protocol, as headers of HTTP or as
    metadata of gRPC, but for names that belong to the other one. ``credentials`` and ``compression`` are
    gRPC's, ``auth`` and ``cookies`` HTTP's and WebSocket's; each protocol ignores those of the others. Raises
    ValueError for an unknown compression.
    """

    metadata: tuple[tuple[str, str | bytes], ...] = attrs.field(default=(), converter=_pairs, repr=False)
    credentials: Any = attrs.field(default=None, repr=False)
    timeout: float | None = None
    compression: Any = attrs.field(default=None, validator=_known_compression)
    headers: dict[str, str] = attrs.field(factory=dict, converter=_dict, repr=False)
    auth: Any = attrs.field(default=None, repr=False)
    cookies: dict[str, str] = attrs.field(factory=dict, converter=_dict, repr=False)

    def sent_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """gRPC's metadata of each call. Raises ValueError for a header that it cannot hold."""
        if not self.headers:
            return self.metadata
        try:
            return (*self.metadata, *as_metadata(client_headers(self.headers.items())))
        except IllegalHeader as error:
            raise ValueError(f"headers: {error}") from None

    def header(self, name: str) -> str | None:
        """The value of one of ``headers``, whose names are in any case."""
        return next((value for key, value in self.headers.items() if key.lower() == name), None)

    def sent_headers(self) -> dict[str, str]:
        """HTTP's headers of each request, without those of ``auth`` and ``cookies``."""
        if not self.metadata:
            return dict(self.headers)
        try:
            return {**joined(client_headers(self.metadata)), **self.headers}
        except IllegalHeader as error:
            raise ValueError(f"metadata: {error}") from None


@attrs.frozen(kw_only=True)
class Post(PostOptions):
    """
    One ``post``: what is sent, how, and what becomes of the responses (spec client.md).

    ``on`` is the exec endpoint. ``inputs`` is a Document, a dict, a text, bytes, an array, an iterable of
    these, or a function that returns one; None for a request without documents. ``target_executor`` is a
    regular expression over Deployment names. ``request_size`` is the number of documents in a request, 0 or
    less for all of them in one. ``on_done`` is called with each success, ``on_error`` with each failure,
    ``on_always`` with both; ``continue_on_error`` logs a failure without an ``on_error`` instead of raising
    it. ``max_attempts`` counts the first try, backoffs are seconds. ``stream=False`` makes one call per
    request (gRPC). ``prefetch`` bounds the requests that wait for their responses, here and at the gateway;
    None leaves it to the Client's and the gateway's own bounds. ``total_docs`` is the number of documents in
    an input that has no length, for the progress bar.

    With docarray 0.40 and later, inputs are instances of classes derived from BaseDoc, and ``return_type``
    says what the answers are: ``DocList[X]``; or X, for one X where exactly one document comes back; without
    it they are AnyDocs, with the fields that came. With docarray 0.21 it is without effect. ``parameters``
    are a dict, or a model of pydantic's.
    """

    on: str = attrs.field(validator=attrs.validators.instance_of(str))
    inputs: Any = attrs.field(default=None, repr=False)
    on_done: Callback | None = None
    on_error: Callback | None = None
    on_always: Callback | None = None
    parameters: Any = attrs.field(default=None, repr=False)
    target_executor: str | None = None
    request_size: int = 100
    show_progress: bool = False
    continue_on_error: bool = False
    return_responses: bool = False
    max_attempts: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    initial_backoff: float = attrs.field(default=0.5, validator=attrs.validators.ge(0))
    max_backoff: float = attrs.field(default=_MAX_BACKOFF_S, validator=attrs.validators.ge(0))
    backoff_multiplier: float = attrs.field(default=1.5, validator=attrs.validators.gt(0))
    results_in_order: bool = False
    stream: bool = True
    prefetch: int | None = None
    return_type: Any = None
    total_docs: int | None = None

    @property
    def returns_nothing(self) -> bool:
        """Whether callbacks take the responses."""
        return self.on_done is not None or self.on_always is not None

    @property
    def retries(self) -> Retries:
        """Any share of the grown delay, so that clients that failed together do not come back together."""
        backoff = Backoff(
            first_s=self.initial_backoff,
            factor=self.backoff_multiplier,
            ceiling_s=self.max_backoff,
            low=0.0,
        )
        return Retries(self.max_attempts, backoff)

    def sent_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """gRPC's metadata of each call, with what it asks of the gateway. Raises ValueError."""
        metadata = super().sent_metadata()
        if self.results_in_order:
            metadata = (*metadata, ("__results_in_order__", "true"))
        if self.prefetch is not None:
            metadata = (*metadata, ("__prefetch__", str(self.prefetch)))
        return metadata


# What ``post`` takes by position, in this order; the rest by name only.
_POSITIONAL: Final = (
    "on", "inputs", "on_done", "on_error", "on_always", "parameters", "target_executor", "request_size",
)  # fmt: skip


def post_of(positional: Sequence[Any], keywords: Mapping[str, Any]) -> Post:
    """Raises TypeError for what ``post`` does not accept, ValueError for values out of range."""
    if len(positional) > len(_POSITIONAL):
        raise TypeError(
            f"post() takes at most {len(_POSITIONAL)} positional arguments, not {len(positional)}"
        )
    placed = dict(zip(_POSITIONAL, positional, strict=False))
    if twice := sorted(placed.keys() & keywords.keys()):
        raise TypeError(f"post() got {', '.join(twice)} by position and by name")
    known = [field.name for field in attrs.fields(Post)]
    if unknown := _unknown(keywords, known):
        # As in the reference, where some code passes them for progress bars and such.
        warnings.warn(f"post() passes over the keyword {', '.join(unknown)}", stacklevel=_caller_level())
    return Post(**placed, **{name: keywords[name] for name in known if name in keywords})


def check_keywords(
    function: str, given: Iterable[str], accepted: Iterable[str], synonyms: Mapping[str, str] | None = None
) -> None:
    """Raises TypeError naming each keyword that is not accepted, with the one that was probably meant."""
    if unknown := _unknown(given, list(accepted), synonyms):
        raise TypeError(f"{function} has no keyword {', '.join(unknown)}")


def _unknown(given: Iterable[str], known: list[str], synonyms: Mapping[str, str] | None = None) -> list[str]:
    return [_with_nearest(name, known, synonyms or {}) for name in sorted(set(given).difference(known))]


def _caller_level() -> int:
    """Of the user's code, for the caller's warning: the first frame that is outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("gatewayd."):
        level, frame = level + 1, frame.f_back
    return level


def _with_nearest(name: str, known: list[str], synonyms: Mapping[str, str]) -> str:
    begun = [keyword for keyword in known if keyword.startswith(name)]
    nearest = begun or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = synonyms.get(name.lower()) or (nearest[0] if nearest else None)
    return f"{name} (did you mean {meant}?)" if meant else name


class WaitingVerb(Protocol):
    """``post`` to one endpoint; waits for the responses."""

    @overload
    def __call__(
        self,
        inputs: Any = None,
        *,
        return_responses: Literal[False] = False,
        **keywords: Unpack[PostKeywords],
    ) -> DocumentArray: ...
    @overload
    def __call__(
        self, inputs: Any = None, *, return_responses: Literal[True], **keywords: Unpack[PostKeywords]
    ) -> list[Response]: ...
    @overload
    def __call__(
        self,
        inputs: Any = None,
        *,
        return_responses: bool = False,
        **keywords: Unpack[PostKeywordsWithOnDone],
    ) -> None: ...
    @overload
    def __call__(
        self,
        inputs: Any = None,
        *,
        return_responses: bool = False,
        **keywords: Unpack[PostKeywordsWithOnAlways],
    ) -> None: ...
    @overload
    def __call__(
        self, inputs: Any = None, *, return_responses: bool = False, **keywords: Unpack[AllPostKeywords]
    ) -> DocumentArray | list[Response] | None: ...


class AsynchronousVerb(Protocol):
    """``post`` to one endpoint; yields the responses."""

    @overload
    def __call__(
        self,
        inputs: Any = None,
        *,
        return_responses: Literal[False] = False,
        **keywords: Unpack[AllPostKeywords],
    ) -> AsyncGenerator[DocumentArray, None]: ...
    @overload
    def __call__(
        self, inputs: Any = None, *, return_responses: Literal[True], **keywords: Unpack[AllPostKeywords]
    ) -> AsyncGenerator[Response, None]: ...


class Verb:
    """A method that is ``post`` to its own endpoint."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.__doc__ = f"``post`` to ``{endpoint}``."

    @overload
    def __get__(self, posts: None, owner: type) -> Self: ...
    @overload
    def __get__(self, posts: Posts[Waiting], owner: type) -> WaitingVerb: ...
    @overload
    def __get__(self, posts: Posts[Asynchronous], owner: type) -> AsynchronousVerb: ...
    def __get__(self, posts: Posts[Any] | None, owner: type) -> Any:
        if posts is None:
            return self
        verb = partial(posts.post, self._endpoint)
        verb.__doc__ = self.__doc__
        return verb


class Posts(Generic[Kind_co]):
    """``post`` and its relatives; ``Kind_co`` says whether they wait for their responses."""

    @overload
    def post(
        self: Posts[Waiting],
        on: str,
        inputs: Any = None,
        *,
        return_responses: Literal[False] = False,
        **keywords: Unpack[PostKeywords],
    ) -> DocumentArray: ...
    @overload
    def post(
        self: Posts[Waiting],
        on: str,
        inputs: Any = None,
        *,
        return_responses: Literal[True],
        **keywords: Unpack[PostKeywords],
    ) -> list[Response]: ...
    @overload
    def post(
        self: Posts[Waiting],
        on: str,
        inputs: Any = None,
        *,
        return_responses: bool = False,
        **keywords: Unpack[PostKeywordsWithOnDone],
    ) -> None: ...
    @overload
    def post(
        self: Posts[Waiting],
        on: str,
        inputs: Any = None,
        *,
        return_responses: bool = False,
        **keywords: Unpack[PostKeywordsWithOnAlways],
    ) -> None: ...
    @overload
    def post(
        self: Posts[Waiting],
        on: str,
        inputs: Any = None,
        *positional: Any,
        return_responses: bool = False,
        **keywords: Unpack[AllPostKeywords],
    ) -> DocumentArray | list[Response] | None: ...
    @overload
    def post(
        self: Posts[Asynchronous],
        on: str,
        inputs: Any = None,
        *positional: Any,
        return_responses: Literal[False] = False,
        **keywords: Unpack[AllPostKeywords],
    ) -> AsyncGenerator[DocumentArray, None]: ...
    @overload
    def post(
        self: Posts[Asynchronous],
        on: str,
        inputs: Any = None,
        *positional: Any,
        return_responses: Literal[True],
        **keywords: Unpack[AllPostKeywords],
    ) -> AsyncGenerator[Response, None]: ...
    def post(self, on: str, inputs: Any = None, *positional: Any, **keywords: Any) -> Any:
        """
        Send ``inputs`` to the exec endpoint ``on``; ``Post`` explains the keywords.

        Waiting, it returns a DocumentArray of all responses' documents, or what ``return_type`` says; with
        ``return_responses`` a list of Responses; None where ``on_done`` or ``on_always`` takes them.
        Asynchronous, it yields the same for each response, or the Response with ``return_responses``;
        ``inputs`` may then be an asynchronous iterator, and callbacks coroutine functions.

        The keywords from ``on_done`` to ``request_size`` may be given by position as well. A keyword that is
        unknown is passed over with a warning, as in the reference. Raises the tree
        of ``gatewayd.client.errors``, and what the inputs themselves raise.
        """
        return self._run(post_of((on, inputs, *positional), keywords))

    @overload
    def stream_doc(
        self: Posts[Waiting], on: str, inputs: Any = None, **keywords: Unpack[StreamKeywords]
    ) -> Generator[Any, None, None]: ...
    @overload
    def stream_doc(
        self: Posts[Asynchronous], on: str, inputs: Any = None, **keywords: Unpack[StreamKeywords]
    ) -> AsyncGenerator[Any, None]: ...
    def stream_doc(self, on: str, inputs: Any = None, **keywords: Any) -> Any:
        """
        Send one document to an exec endpoint that streams, and yield the documents that come back.

        ``inputs`` is that document, or what one is made of; ``Post`` explains the keywords, of which
        ``prefetch`` bounds the answers that wait here to be taken (16 by default), and ``timeout`` is that of
        the whole stream. With ``return_type=X`` each document is an X. Nothing is sent before the first
        document is asked for. Leaving the loop early, closing the iterator or dropping it ends the call.

        Raises TypeError for an unknown keyword; while iterating, what ``post`` raises, after the documents
        that came before.
        """
        check_keywords("stream_doc()", keywords, StreamKeywords.__annotations__)
        return self._stream(Post(on=on, inputs=inputs, **keywords))

    def _run(self, post: Post) -> Any:
        raise NotImplementedError

    def _stream(self, post: Post) -> Any:
        raise NotImplementedError

    index = Verb("/index")
    search = Verb("/search")
    update = Verb("/update")
    delete = Verb("/delete")


def _signature() -> inspect.Signature:
    """``post``'s with every keyword, for help() and for the completion of notebooks."""
    fields = {field.name: field for field in attrs.fields(Post)}
    by_name = [name for name in fields if name not in _POSITIONAL]
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for names, kind in (
        (_POSITIONAL, inspect.Parameter.POSITIONAL_OR_KEYWORD),
        (by_name, inspect.Parameter.KEYWORD_ONLY),
    ):
        for name in names:
            default = fields[name].default
            if name == "on":
                default = inspect.Parameter.empty
            elif isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs' stubs call it a function
                default = None
            parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


setattr(Posts.post, "__signature__", _signature())  # noqa: B010 - functions have no such attribute for mypy


class Waiting(Posts["Waiting"]):
    """Returns when all responses are there."""


class Asynchronous(Posts["Asynchronous"]):
    """Yields each response to ``async for``."""
