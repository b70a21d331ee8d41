"""
The error tree, and the one table of what each protocol says of each error.

    GatewayError                    anything that can be explained to a client
    ├── BadRequest                  the request says something that cannot be served
    │   ├── EndpointStreams         one answer is asked of an endpoint that streams
    │   ├── NothingStreams          a stream is asked of one that nobody binds
    │   ├── MethodNotServed
    │   ├── InvalidField            a field of a request in OpenAI's form
    │   └── Unparsable              its bytes cannot even be parsed
    ├── ProtocolRefusal             against the rules of a protocol, whatever the request says
    │   ├── TooLarge
    │   ├── TooManyDocuments
    │   ├── TooManyValues
    │   ├── TooManyForRate
    │   ├── UnsupportedFrame
    │   ├── TooManyFrames
    │   ├── TooSlow
    │   ├── IllegalHeader
    │   ├── HeadersTooLarge
    │   └── HttpRefusal
    │       ├── InvalidHttp
    │       ├── InvalidQuery
    │       ├── UpgradeForbidden
    │       ├── OriginForbidden
    │       ├── Misdirected
    │       ├── ContentTypeRequired
    │       ├── PathNotFound
    │       ├── UnknownModel
    │       ├── MethodNotAllowed
    │       ├── NotAcceptable
    │       ├── HeadTimeout
    │       ├── UnsupportedTransferCoding
    │       ├── UnsupportedCoding
    │       └── HeadTooLarge
    ├── ExecutorRaised              an executor's method failed
    ├── Unauthenticated             who calls is not known, and has to be
    ├── Forbidden                   it is known, and may not
    ├── AuthorizationUnavailable    it cannot be found out now
    ├── ExecutorNetworkError        a deployment could not be reached, or not in time
    │   ├── ExecutorUnreachable
    │   │   └── ForeignExecutor     it speaks another generation of documents than the Flow
    │   ├── DeadlineExceeded
    │   ├── ExecutorNotFound
    │   ├── CallFailed
    │   └── WithheldNetworkError    any of these, where clients may not see what is inside
    ├── Overloaded                  nothing is broken, but there is no room now
    │   ├── EndpointsUnknown        ... or there may be such an endpoint soon
    │   ├── GenerationUnknown       ... or it is not known yet, or only now, which documents are taken
    │   ├── StreamingUnknown        ... or it is known only now that an endpoint streams
    │   └── RateLimited             ... for this caller
    ├── Draining                    the gateway is about to stop
    └── InternalError               a bug, of which the client learns no more than where it is logged
    ConfigError                     refused before anything starts
    └── PortTaken

An exception outside this tree is a bug: it is logged with its traceback, and its client gets an
InternalError. ``protocols/*/errors.py`` write an error for their clients; codes and texts are from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from gatewayd.redaction import without_passwords

# How many addresses of a deployment are named; there may be thousands.
_MOST_NAMED: Final = 20


class BaseJinaException(BaseException):
    """
    Never raised itself: the base, beside Exception, of the errors of Flows and Clients that Jina has as well.

    An ``except`` written for Jina may name it.
    """


class GatewayError(Exception):
    """Anything the gateway can explain to a client; ``str(error)`` is the explanation."""

    def summary(self) -> str:
        """A shorter explanation, for where ``str(error)`` does not fit; the same unless there is one."""
        return str(self)


class BadRequest(GatewayError):
    """
    The client sent something that cannot be served.

    ``problems`` are entries of an HTTP 422 body: ``{"loc": [...], "msg": ..., "type": ...}``.
    """

    def __init__(self, message: str, problems: Iterable[Mapping[str, object]] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__(message)


class EndpointStreams(BadRequest):
    """The ``endpoint`` answers with a stream of documents, and was asked for one answer."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(
            f"the endpoint {endpoint} answers with a stream of documents, and process_single_data has one "
            f"answer: use stream_doc, Call, or server-sent events over HTTP (GET {endpoint})"
        )


class NothingStreams(BadRequest):
    """No executor works on a request that was to be answered with a stream, so that there is none."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(
            "there is nothing to stream: no executor of those that the request goes to binds the endpoint "
            f"{endpoint[:200]!r}"
        )


class InvalidField(BadRequest):
    """A field of a request in OpenAI's form, ``param``, cannot be served as it is; None for the whole."""

    def __init__(self, why: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(f"{param}: {why}" if param else why)


class MethodNotServed(BadRequest):
    """This Flow has no such gRPC method; the words are gRPC's own for one that does not exist."""

    def __init__(self) -> None:
        super().__init__("Method not found!")


class Unparsable(BadRequest):
    """The request is no JSON, no UTF-8 or no protobuf."""


class ProtocolRefusal(GatewayError):
    """The client broke a rule of the protocol that it speaks, or of the gateway's port."""


class TooLarge(ProtocolRefusal):
    """A body or message exceeds ``limit_bytes``."""

    def __init__(self, limit_bytes: int, what: str = "message") -> None:
        self.limit_bytes = limit_bytes
        super().__init__(
            f"the {what} is larger than {limit_bytes} bytes; the limit is gateway.max_message_bytes"
        )


class TooManyDocuments(ProtocolRefusal):
    """A JSON request has more than ``limit`` documents, chunks and matches included."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"the request has more than {limit} documents, chunks and matches included; "
            "the limit is gateway.max_documents"
        )


class TooManyValues(ProtocolRefusal):
    """The parameters of a request hold more than ``limit`` values, which it would take long to read."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"the parameters hold more than {limit} values; the limit is gateway.max_parameter_values, "
            "and documents are for what is larger"
        )


class TooManyForRate(ProtocolRefusal):
    """A request has more documents than its rate ever allows at once, ``limit``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"the request is too large for its rate: it has more than {limit} documents; send fewer at once "
            "(gateway.rates)"
        )


class UnsupportedFrame(ProtocolRefusal):
    """A binary message where the subprotocol wants text, or the other way round."""

    def __init__(self, subprotocol: str, *, binary: bool) -> None:
        kind = "binary" if binary else "text"
        super().__init__(f"frames of the subprotocol {subprotocol} are {kind}")


class TooManyFrames(ProtocolRefusal):
    """A WebSocket client sends control frames, or tiny pieces of messages, too fast."""

    def __init__(self, most_per_s: int) -> None:
        super().__init__(
            f"more than {most_per_s} control frames and tiny fragments in a second "
            "(gateway.websocket_max_frames_per_second)"
        )


class TooSlow(ProtocolRefusal):
    """A body or message takes longer to arrive than it may."""

    def __init__(self, what: str = "message") -> None:
        super().__init__(
            f"the {what} arrives too slowly (gateway.receive_timeout, min_receive_rate and max_receive_time)"
        )


class IllegalHeader(ProtocolRefusal):
    """A header, or metadata, that is to be forwarded to executors cannot be; its value is not shown."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the header {name[:80]!r} cannot be forwarded: {why}")


class HeadersTooLarge(ProtocolRefusal):
    """The headers of one request that are to be forwarded to executors exceed ``limit_bytes``."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(
            f"the headers to forward count for {size_bytes} bytes, of {limit_bytes} "
            "(gateway.forward_headers_max_bytes)"
        )


class HttpRefusal(ProtocolRefusal):
    """An HTTP request that never becomes a request to the Flow."""


class InvalidHttp(HttpRefusal):
    """This is not HTTP/1.1, or it has too many headers; ``why`` says what is wrong where that is known."""

    def __init__(self, why: str = "") -> None:
        super().__init__("the request is not valid HTTP/1.1" + (f": {why}" if why else ""))


class InvalidQuery(HttpRefusal):
    """The request to /graphql holds no query that could be executed."""


class UpgradeForbidden(HttpRefusal):
    """There is no WebSocket on this path."""

    def __init__(self) -> None:
        super().__init__("Forbidden")


class OriginForbidden(HttpRefusal):
    """
    A page asks for what calls executors, and its ``origin`` is not allowed; it is empty if unknown.

    ``why`` is the key that says so, or the reason.
    """

    def __init__(self, origin: str, why: str) -> None:
        page = (
            f"pages of {origin[:80]!r}" if origin else "pages of other origins, in requests without Origin,"
        )
        super().__init__(f"{page} may not use this gateway ({why})")


class Misdirected(HttpRefusal):
    """
    The request is for another ``host`` than those that the gateway answers for; it is empty if missing.

    ``why`` is the key that says so, or the reason.
    """

    def __init__(self, host: str, why: str) -> None:
        found = f"is called {host[:80]!r}" if host else "is not named by a Host header"
        super().__init__(f"the gateway {found} in the request, which is not allowed ({why})")


class ContentTypeRequired(HttpRefusal):
    """A page's request has a ``content_type`` that a form could send to any origin; empty if missing."""

    def __init__(self, content_type: str) -> None:
        found = f"not {content_type[:80]!r}" if content_type else "which is missing"
        super().__init__(
            f"requests of pages have the Content-Type application/json or application/x-protobuf, {found}"
        )


class PathNotFound(HttpRefusal):
    """There is no such path; ``hint`` may say how to get what the client seems to want."""

    def __init__(self, hint: str = "") -> None:
        self.hint = hint
        super().__init__("Not Found")


class UnknownModel(HttpRefusal):
    """The request names a ``model`` that is none of those served, which are listed at /v1/models."""

    def __init__(self, model: str) -> None:
        super().__init__(f"the model {model[:80]!r} does not exist; GET /v1/models lists those that do")


class MethodNotAllowed(HttpRefusal):
    """The path has other methods: those in ``allowed``, the value of the header Allow."""

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed
        super().__init__("Method Not Allowed")


class NotAcceptable(HttpRefusal):
    """The client accepts neither JSON nor protobuf."""

    def __init__(self) -> None:
        super().__init__("an answer is application/json or application/x-protobuf; Accept excludes both")


class HeadTimeout(HttpRefusal):
    """The request's head did not arrive within `http_head_timeout`."""

    def __init__(self) -> None:
        super().__init__("the request's head did not arrive in time")


class UnsupportedTransferCoding(HttpRefusal):
    """The body has a Transfer-Encoding besides ``chunked``."""

    def __init__(self, coding: str) -> None:
        super().__init__(f"a body's Transfer-Encoding is chunked alone, without {coding[:80]!r}")


class UnsupportedCoding(HttpRefusal):
    """The body has a Content-Encoding that the gateway cannot undo."""

    def __init__(self, coding: str) -> None:
        super().__init__(f"a body's Content-Encoding is gzip or deflate, not {coding!r}")


class HeadTooLarge(HttpRefusal):
    """A line of the request's head is too long."""

    def __init__(self) -> None:
        super().__init__("a line of the request's head is too long")


class Unauthenticated(GatewayError):
    """
    The client has shown no credential, or one that is not valid.

    ``challenge`` is the value of HTTP's WWW-Authenticate.
    """

    def __init__(self, message: str, challenge: str = "Bearer") -> None:
        self.challenge = challenge
        super().__init__(message)


class Forbidden(GatewayError):
    """The caller is known, and may not do this."""


class AuthorizationUnavailable(GatewayError):
    """The server that decides who may call has not decided: its client is refused."""

    def __init__(self) -> None:
        super().__init__("whether you may call cannot be found out now; try again later")


class ExecutorNetworkError(GatewayError):
    """
    A call to a deployment failed below the level of its executor.

    ``details`` is gRPC's own text; ``str(error)`` is the whole explanation, worded as clients of the
    reference know it (spec grpc.md, Failures). ``code`` is the gRPC status name.
    """

    code = "UNKNOWN"

    def __init__(self, deployment: str, addresses: Iterable[str], details: str = "") -> None:
        self.deployment = deployment
        self.addresses = tuple(sorted(set(addresses)))
        self.details = details
        super().__init__(self.explanation())

    @property
    def address_set(self) -> str:
        """The addresses as the reference prints them, such as ``{'10.0.0.1:80'}``; of very many, some."""
        named = [f"'{address}'" for address in self.addresses[:_MOST_NAMED]]
        if len(self.addresses) > _MOST_NAMED:
            named.append(f"and {len(self.addresses) - _MOST_NAMED} more")
        return "{" + ", ".join(named) + "}"

    def explanation(self) -> str:
        if not self.addresses:
            return (
                f"{self.details} |Gateway: Communication error with deployment {self.deployment}: its "
                "executors are starting, or cannot start; the gateway's log tells which."
            )
        if self._is_local:
            # Where its socket is helps nobody, and there is no head process here.
            return (
                f"{self.details} |Gateway: Communication error with deployment {self.deployment}, which is "
                "called by a socket of the gateway's machine. Its process may have ended; one that the "
                "gateway has started is started again, and the gateway's log tells why it ended."
            )
        return (
            f"{self.details} |Gateway: Communication error with deployment {self.deployment} at "
            f"address(es) {self.address_set}. Head or worker(s) may be down."
        )

    def summary(self) -> str:
        if self._is_local:
            return f"Network error while connecting to deployment {self.deployment}. It may be down."
        return f"Network error while connecting to deployment at {self.address_set}. It may be down."

    @property
    def _at(self) -> str:
        """Where it is called, for after its name; empty where that is an inner matter."""
        return "" if self._is_local else f" at address(es) {self.address_set}"

    @property
    def _is_local(self) -> bool:
        """Whether all replicas are called by sockets, whose paths are this machine's inner matter."""
        return bool(self.addresses) and all(each.startswith("unix:") for each in self.addresses)


class CallFailed(ExecutorNetworkError):
    """The executor's server ended the call with a code that no other class here stands for."""

    def __init__(self, deployment: str, addresses: Iterable[str], details: str, code: str) -> None:
        self.code = code
        super().__init__(deployment, addresses, details)

    def explanation(self) -> str:
        return f"{self.code}: {self.details} |Gateway: deployment {self.deployment}{self._at}."

    def summary(self) -> str:
        # The name first: where there is little room, the end is cut off.
        return f"{self.code} from deployment {self.deployment}: {self.details}"


class ExecutorUnreachable(ExecutorNetworkError):
    """No server listens, or the connection was lost: every attempt failed."""

    code = "UNAVAILABLE"


class ForeignExecutor(ExecutorUnreachable):
    """Every replica speaks another generation of documents than the Flow; ``details`` says which."""

    def explanation(self) -> str:
        return (
            f"{self.details} |Gateway: deployment {self.deployment}{self._at} is not called. "
            "All executors of a Flow have to run with the same generation of docarray."
        )

    def summary(self) -> str:
        return f"Deployment {self.deployment} is not called: {self.details}."


class DeadlineExceeded(ExecutorNetworkError):
    """The deployment was reached but did not answer within its deadline."""

    code = "DEADLINE_EXCEEDED"

    def explanation(self) -> str:
        return (
            f"{self.details or 'Deadline Exceeded'}|Gateway: Connection with deployment {self.deployment} at "
            f"address(es) {self.address_set} could be established, but timed out. You can increase "
            "the allowed time by setting `timeout_send` in your Flow YAML `with` block or Flow "
            "`__init__()` method."
        )

    def summary(self) -> str:
        return (
            f"Connection to deployment at {self.address_set} timed out. "
            "You can adjust `timeout_send` attribute."
        )


class ExecutorNotFound(ExecutorNetworkError):
    """Something answered at the address, but the executor is not behind it."""

    code = "NOT_FOUND"

    def explanation(self) -> str:
        return (
            f"{self.details}\n|Gateway: Connection error with deployment `{self.deployment}` at address(es) "
            f"{self.address_set}. Connection with {self.address_set} succeeded, but `{self.deployment}` was "
            f"not found. Possibly `{self.deployment}` is behind an API gateway but not reachable."
        )


class WithheldNetworkError(ExecutorNetworkError):
    """
    A network error as clients may see it where ``expose_errors`` is false: without names and addresses.

    It has the codes of the ``error`` that it stands for.
    """

    def __init__(self, error: ExecutorNetworkError, request_id: str) -> None:
        self.codes = codes_for(error)
        self.request_id = request_id
        super().__init__("", ())

    def explanation(self) -> str:
        return f"{self.summary()}; the log has it as request {self.request_id}"

    def summary(self) -> str:
        return "an executor could not be reached, or not in time"


class ExecutorRaised(GatewayError):
    """
    An executor's method raised; ``str(error)`` is what it says of that.

    Where answers can tell of it beside documents, it is not an error but part of the answer: its status.
    """


class Overloaded(GatewayError):
    """No room now: the client may try again after ``retry_after_s`` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class EndpointsUnknown(Overloaded):
    """There is no such path yet, but may be when executors tell what they bind."""

    def __init__(self) -> None:
        super().__init__(
            "whether there is such an endpoint is not known yet: no executor has told what it binds; they "
            "are starting, or cannot be reached, and the gateway's log tells which. Try again"
        )


class GenerationUnknown(Overloaded):
    """
    Which documents the executors of a Flow speak is not known, or was not when the request came.

    ``taken`` are those that executors have told of since, in words, and ``given`` those of the request. Sent
    again, it is encoded as executors take it, or refused for good.
    """

    def __init__(self, given: str, taken: str | None = None) -> None:
        super().__init__(
            f"the documents are in the format of {given}, and whether executors take that is not known yet: "
            "they are starting, or cannot be reached. Try again (docarray in the Flow file says it at once)"
            if taken is None
            else f"the documents are in the format of {given}; that they take that of {taken}, executors "
            "have told only since the request came. Try again (docarray in the Flow file says it from the "
            "start)"
        )


class StreamingUnknown(Overloaded):
    """
    That the ``endpoint`` answers with a stream was not known when the request came, for one answer.

    Sent again, it is answered as a stream, or refused for good.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(
            f"the endpoint {endpoint} answers with a stream of documents, which executors have told only "
            "since the request came. Try again"
        )


class RateLimited(Overloaded):
    """The caller asks too often: ``rate``, in words, is used up for ``retry_after_s`` seconds."""

    def __init__(self, rate: str, retry_after_s: float) -> None:
        wait = f"{math.ceil(retry_after_s * 10) / 10:g} s"
        super().__init__(f"more than {rate} (gateway.rates); try again in {wait}", retry_after_s)


class Draining(GatewayError):
    """The gateway is stopping and takes no new requests."""

    def __init__(self) -> None:
        super().__init__("the gateway is shutting down; send the request again to another one")


class InternalError(GatewayError):
    """A bug: it is logged with its traceback, and the client learns the request's id."""

    def __init__(self, request_id: str = "") -> None:
        self.request_id = request_id
        super().__init__(
            f"internal error; the log has it as request {request_id}"
            if request_id
            else "internal error; the gateway's log tells more"
        )

    def grpc_details(self) -> str:
        """The same in the words that clients of gRPC know."""
        return f"the gateway failed on request {self.request_id!r}; its log has the cause"


class ConfigError(Exception, BaseJinaException):
    """
    A Flow file, argument or variable that cannot be used; nothing has been started.

    ``str(error)`` says where (file, line, key), what was found, and what is accepted; of URLs, no passwords.
    """

    def __init__(self, text: str) -> None:
        super().__init__(without_passwords(text))


class PortTaken(ConfigError):
    """A port that the Flow file names cannot be bound."""

    def __init__(self, protocol: str, host: str, port: int, reason: str, key: str = "gateway.port") -> None:
        self.port = port
        self.reason = reason
        super().__init__(
            f"{key}: cannot listen on {host}:{port} for {protocol}: {reason}. "
            "Stop what uses it, or give another port (0 picks a free one)"
        )


@attrs.frozen
class Codes:
    """HTTP status, name of the gRPC status, and WebSocket close code."""

    http: int
    grpc: str
    websocket: int


@attrs.frozen
class Row:
    """What the table says of a class; a code that is None is the one of the base class."""

    http: int | None = None
    grpc: str | None = None
    websocket: int | None = None


SUCCESS: Final = Codes(200, "OK", 1000)

# RFC 9110 section 15, RFC 6585 (431); RFC 6455 section 7.4.1 and the IANA registry (1013). 1011 for network
# errors is what the reference's client turns into a ConnectionError (spec websocket.md).
TABLE: Final[Mapping[type[GatewayError], Row]] = {
    GatewayError: Row(500, "INTERNAL", 1011),
    BadRequest: Row(422, "INVALID_ARGUMENT", 1008),
    EndpointStreams: Row(),
    NothingStreams: Row(),
    InvalidField: Row(400),
    MethodNotServed: Row(404, "UNIMPLEMENTED"),
    Unparsable: Row(websocket=1007),
    ProtocolRefusal: Row(400, "INVALID_ARGUMENT", 1008),
    TooLarge: Row(413, "RESOURCE_EXHAUSTED", 1009),
    TooManyDocuments: Row(413, "RESOURCE_EXHAUSTED", 1009),
    TooManyValues: Row(413, "RESOURCE_EXHAUSTED", 1009),
    TooManyForRate: Row(413, "RESOURCE_EXHAUSTED", 1009),
    UnsupportedFrame: Row(websocket=1003),
    TooManyFrames: Row(grpc="RESOURCE_EXHAUSTED"),
    TooSlow: Row(408),
    IllegalHeader: Row(400),
    HeadersTooLarge: Row(431),
    InvalidHttp: Row(400),
    InvalidQuery: Row(400),
    UpgradeForbidden: Row(403),
    OriginForbidden: Row(403),
    Misdirected: Row(421),
    ContentTypeRequired: Row(415),
    PathNotFound: Row(404),
    UnknownModel: Row(404),
    MethodNotAllowed: Row(405),
    NotAcceptable: Row(406),
    HeadTimeout: Row(408),
    UnsupportedTransferCoding: Row(501),
    UnsupportedCoding: Row(415),
    HeadTooLarge: Row(431),
    Unauthenticated: Row(401, "UNAUTHENTICATED", 1008),
    Forbidden: Row(403, "PERMISSION_DENIED", 1008),
    AuthorizationUnavailable: Row(503, "UNAVAILABLE", 1013),
    ExecutorNetworkError: Row(500, "UNKNOWN", 1011),
    ExecutorUnreachable: Row(503, "UNAVAILABLE"),
    ForeignExecutor: Row(),
    DeadlineExceeded: Row(504, "DEADLINE_EXCEEDED"),
    ExecutorNotFound: Row(503, "NOT_FOUND"),
    ExecutorRaised: Row(500, "UNKNOWN"),
    Overloaded: Row(503, "RESOURCE_EXHAUSTED", 1013),
    EndpointsUnknown: Row(),
    GenerationUnknown: Row(),
    StreamingUnknown: Row(),
    RateLimited: Row(429),
    Draining: Row(503, "UNAVAILABLE", 1001),
    InternalError: Row(500, "INTERNAL", 1011),
}


def codes_for(error: BaseException) -> Codes:
    """What each protocol says of ``error``; an exception outside the tree is an InternalError."""
    if isinstance(error, WithheldNetworkError):
        return error.codes
    codes = codes_of(type(error))
    return attrs.evolve(codes, grpc=error.code) if isinstance(error, CallFailed) else codes


def codes_of(kind: type[BaseException]) -> Codes:
    """The codes of a class of errors: its own row's, then those of its bases."""
    if not issubclass(kind, GatewayError):
        return codes_of(InternalError)
    rows = [TABLE[base] for base in kind.__mro__ if base in TABLE]
    # GatewayError, the last base, has them all.
    return Codes(
        http=next(row.http for row in rows if row.http is not None),
        grpc=next(row.grpc for row in rows if row.grpc is not None),
        websocket=next(row.websocket for row in rows if row.websocket is not None),
    )
