"""
/graphql: operations of GraphQL and their answers (spec graphql.md), over HTTP and for ``session``.

graphql-core needs an asyncio loop to run several fields at once, and takes long for long queries. Parsing,
validation and execution therefore run on a loop of their own, and neither the reactor nor gRPC waits for
them. Each ``docs`` field is one dispatch on the reactor, and a subscription pulls a stream there. If the
client hangs up, all of it is cancelled.

Documents of the first generation have a type with their fields; those of the second are JSON (``schema``,
``second_schema``).
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import attrs
import orjson
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    execute,
    get_operation_ast,
    parse,
    subscribe,
    validate,
)
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from gatewayd.access.control import DOCS
from gatewayd.bounded_log import BoundedLogger
from gatewayd.bridge import Bridge
from gatewayd.errors import InternalError, InvalidQuery, TooManyDocuments
from gatewayd.messages.headers import Headers
from gatewayd.messages.json_form.documents import Allowance
from gatewayd.messages.request import Request, Response
from gatewayd.messages.second.reading import Model
from gatewayd.offload import is_small
from gatewayd.protocols.backend import Backend, Dispatcher
from gatewayd.protocols.decoding import room, room_needed
from gatewayd.protocols.failures import explained
from gatewayd.protocols.graphql.errors import encode_error
from gatewayd.protocols.graphql.limits import (
    AnswerSize,
    AnswerTooLarge,
    QueryLimits,
    check_documents,
    check_size,
)
from gatewayd.protocols.graphql.request import GraphqlRequest, Sender
from gatewayd.protocols.graphql.schema import SCHEMA
from gatewayd.protocols.graphql.second_schema import SECOND_SCHEMA
from gatewayd.protocols.graphql.transport_ws import SUBPROTOCOL
from gatewayd.protocols.http.bodies import FIRST, Bodies, Models, SecondBodies, bodies_for
from gatewayd.protocols.http.exchange import as_http, content, forwarded_headers, respond_with_error
from gatewayd.protocols.http.negotiation import is_json
from gatewayd.protocols.http.pages import Page
from gatewayd.protocols.http.request import GatewayRequest
from gatewayd.streams import Stream

log = BoundedLogger()

_NO_QUERY: Final = "No GraphQL query found in the request"
_NOT_JSON: Final = "Unsupported content type"
_NO_JSON: Final = "Unable to parse request body as JSON"
_NO_SUBSCRIPTIONS: Final = (
    f"subscriptions come over a WebSocket at this path, by the subprotocol {SUBPROTOCOL}; an endpoint that "
    "streams answers a POST to its own path, too"
)

# Queries that clients repeat are short. What is made of them takes up to 300 times their memory.
_CACHED_QUERY_LENGTH: Final = 4096
_CACHED_LENGTH: Final = 64 * 1024  # of all

# Each may quote much of the query.
_MAX_ERRORS: Final = 3


class GraphqlApi:
    """
    /graphql of one port, and the loop on which its queries run, between ``start`` and ``stop``.

    Reactor thread only, but for what ``_Execution`` does.
    """

    def __init__(self, backend: Backend, page: Page | None) -> None:
        """``page`` is the one for writing queries, None to have none."""
        gateway = backend.gateway
        self._backend = backend
        self._dispatcher = backend.dispatcher_for("graphql")
        self._loop = Bridge(backend.reactor, "graphql loop")
        self._page = page
        self._bodies: Bodies = FIRST
        limits = QueryLimits(
            query_bytes=gateway.graphql_max_query_bytes,
            tokens=gateway.graphql_max_tokens,
            depth=gateway.graphql_max_depth,
            fields=gateway.graphql_max_fields,
            root_fields=gateway.graphql_max_root_fields,
        )
        self._first = Queries(limits, SCHEMA)
        self._second = Queries(limits, SECOND_SCHEMA)

    def start(self) -> None:
        """Start the loop. Queries that arrive earlier wait for it."""
        self._loop.start()

    def stop(self) -> Deferred[None]:
        """Cancel the queries that still run, and end the loop."""
        return Deferred.fromCoroutine(self._loop.stop())

    def operate(
        self, request: GraphqlRequest, sender: Sender, emit: Callable[[bytes], Deferred[None]]
    ) -> Deferred[list[Any] | None]:
        """
        Execute an operation of any kind, and give each of its results to ``emit``, which fires for more.

        Fires with the errors that ended it, None if it has ended well; fails with InvalidQuery. Cancelling
        it ends all that is under way.
        """
        return self._loop.on_loop(self._execution(sender).operate, request, emit)

    def _execution(self, sender: Sender) -> _Execution:
        bodies = self._bodies = bodies_for(self._backend.endpoints(), self._bodies)
        models = bodies.models if isinstance(bodies, SecondBodies) else None
        queries = self._first if models is None else self._second
        return _Execution(self._backend, self._dispatcher, self._loop, queries, sender, models)

    async def answer(self, http_request: GatewayRequest) -> None:
        """Execute the query in ``http_request``, or show the page for writing queries."""
        try:
            if http_request.method == b"POST":
                if not is_json(http_request.header(b"content-type")):
                    raise InvalidQuery(_NOT_JSON)
                body: bytes | GraphqlRequest = await content(self._backend, http_request)
            else:
                body = _request_in_url(http_request.args or {})
                page = self._page
                wants_page = body.query is None and b"text/html" in (http_request.header(b"accept") or b"")
                if page is not None and wants_page:
                    if self._backend.access is not None:
                        self._backend.access.admit(http_request.caller, DOCS)
                    http_request.respond(200, page.body, page.content_type, page.headers)
                    return
            http_request.site.browsers.check(http_request.method, http_request.header)
            forwarded = self._backend.forwarded
            headers = forwarded_headers(forwarded, http_request) if forwarded else ()
            sender = Sender(http_request.request_id, headers, http_request.caller, http_request.hold)
            execution = self._execution(sender)
            size = await room_needed(self._backend, body) if isinstance(body, bytes) else 0
            with room(self._backend.buffers, size):
                answer, answered = await self._loop.on_loop(execution.answer, body)
        except Exception as error:
            respond_with_error(http_request, error)
            return
        http_request.respond(200, answer, headers=as_http(http_request, forwarded.bounded(answered)))


class Queries:
    """Parses queries, validates them by ``schema``, and keeps those that were used last. Loop thread only."""

    def __init__(self, limits: QueryLimits, schema: GraphQLSchema = SCHEMA) -> None:
        self.schema = schema
        self._limits = limits
        self._known: OrderedDict[str, DocumentNode] = OrderedDict()
        self._known_length = 0

    def prepared(self, query: str) -> DocumentNode | list[GraphQLError]:
        known = self._known.get(query)
        if known is not None:
            self._known.move_to_end(query)
            return known
        prepared = self._prepared(query)
        if isinstance(prepared, DocumentNode) and len(query) <= _CACHED_QUERY_LENGTH:
            self._known[query] = prepared
            self._known_length += len(query)
            while self._known_length > _CACHED_LENGTH:
                self._known_length -= len(self._known.popitem(last=False)[0])
        return prepared

    def _prepared(self, query: str) -> DocumentNode | list[GraphQLError]:
        limits = self._limits
        if len(query.encode("utf-8", "surrogatepass")) > limits.query_bytes:
            text = f"the query is larger than {limits.query_bytes} bytes (gateway.graphql_max_query_bytes)"
            return [GraphQLError(f"{text}; send documents as variables")]
        try:
            document = parse(query, max_lexical_tokens=limits.tokens, max_comments=limits.tokens)
            errors = check_size(document, limits) or validate(self.schema, document, max_errors=_MAX_ERRORS)
            return errors or document
        except GraphQLSyntaxError as error:
            if "more than" in error.message and "Parsing aborted" in error.message:
                text = f"the query has more than {limits.tokens} tokens, or comments"
                return [GraphQLError(f"{text} (gateway.graphql_max_tokens); send documents as variables")]
            return [error]
        except RecursionError:
            return [GraphQLError("the query is nested too deeply")]


class _Execution:
    """
    The execution of one query. Loop thread only.

    It is graphql-core's context value, and so satisfies ``schema.QueryContext``.
    """

    def __init__(
        self,
        backend: Backend,
        dispatcher: Dispatcher,
        loop: Bridge,
        queries: Queries,
        sender: Sender,
        models: Models | None = None,
    ) -> None:
        """``models`` are those of the second generation, None for the first."""
        self.failures: list[GraphQLError] = []
        self.hints: list[str] = []
        self.allowance = Allowance(backend.gateway.max_documents)
        self.size = self._empty(backend)
        self.models: Mapping[str, Model] = {} if models is None else models
        self.max_documents = backend.gateway.max_documents
        self.last_object: tuple[object, str, bytes | None] = None, "", None
        self._backend = backend
        self._dispatcher = dispatcher
        self._loop = loop
        self._queries = queries
        self._sender = sender
        self._answered: list[tuple[str, str]] = []
        self._requests = 0
        self._streams = _Streams(dispatcher)

    async def answer(self, request: bytes | GraphqlRequest) -> tuple[bytes, Headers]:
        """
        The JSON answer to a body, or to a URL's query, and the headers that executors answered with.

        Raises InvalidQuery, or Overloaded without room for the answer.
        """
        if isinstance(request, bytes):
            result = await self._execute(_request_in_body(request), mutations=True)
        else:
            result = await self._execute(request, mutations=False)
        formatted = self._formatted(result)
        if not is_small(self.size.bytes):
            await self._loop.on_reactor(maybeDeferred, self._sender.hold, self.size.bytes)
        return _dumps(formatted), tuple(self._answered)

    async def operate(
        self, request: GraphqlRequest, emit: Callable[[bytes], Deferred[None]]
    ) -> list[Any] | None:
        """As ``GraphqlApi.operate``."""
        try:
            document, chosen = self._prepared(request)
            if chosen is not None and chosen.operation is OperationType.SUBSCRIPTION:
                await self._subscribe(request, document, emit)
            else:
                result = await self._run(request, document)
                await self._loop.on_reactor(emit, _dumps(self._formatted(result)))
        except _Refused as refused:
            return [error.formatted for error in refused.errors]
        except AnswerTooLarge as error:
            return [GraphQLError(str(error)).formatted]
        finally:
            self._loop.tell_reactor(self._streams.cancel)
        return None

    def _formatted(self, result: ExecutionResult) -> dict[str, Any]:
        formatted: dict[str, Any] = {"data": result.data}
        if errors := [*(result.errors or ()), *self.failures]:
            formatted["errors"] = [error.formatted for error in errors]
        if self.hints and self._backend.gateway.gives_hints:
            formatted["extensions"] = {"hints": list(dict.fromkeys(self.hints))}
        return formatted

    async def _execute(self, request: GraphqlRequest, *, mutations: bool) -> ExecutionResult:
        try:
            document, chosen = self._prepared(request)
            if chosen is not None and chosen.operation is OperationType.SUBSCRIPTION:
                raise InvalidQuery(_NO_SUBSCRIPTIONS)
            if chosen is not None and chosen.operation is OperationType.MUTATION and not mutations:
                raise InvalidQuery("mutations are not allowed when using GET")
            return await self._run(request, document)
        except _Refused as refused:
            return ExecutionResult(data=None, errors=refused.errors)
        except AnswerTooLarge as error:
            return ExecutionResult(data=None, errors=[GraphQLError(str(error))])

    def _prepared(self, request: GraphqlRequest) -> tuple[DocumentNode, OperationDefinitionNode | None]:
        """The document of ``request``, and its operation. Raises InvalidQuery, or _Refused."""
        query, variables, operation = request.query, request.variables, request.operation
        if not query or not isinstance(query, str):
            raise InvalidQuery(_NO_QUERY)
        if not isinstance(variables, dict | None):
            raise InvalidQuery("variables must be an object")
        if not isinstance(operation, str | None):
            raise InvalidQuery("operationName must be a text")
        document = self._queries.prepared(query)
        if isinstance(document, list):
            raise _Refused(document)
        try:
            check_documents(variables, Allowance(self.max_documents))
        except TooManyDocuments as error:
            raise _Refused([encode_error(error)]) from error
        return document, get_operation_ast(document, operation or None)

    async def _run(self, request: GraphqlRequest, document: DocumentNode) -> ExecutionResult:
        """Raises AnswerTooLarge."""
        result: Any = execute(
            self._queries.schema,
            document,
            context_value=self,
            variable_values=request.variables,
            operation_name=request.operation or None,
        )
        executed: ExecutionResult = await result if inspect.isawaitable(result) else result
        return executed

    async def _subscribe(
        self, request: GraphqlRequest, document: DocumentNode, emit: Callable[[bytes], Deferred[None]]
    ) -> None:
        """Raises AnswerTooLarge, or _Refused for what ended it."""
        found: Any = subscribe(
            self._queries.schema,
            document,
            context_value=self,
            variable_values=request.variables,
            operation_name=request.operation or None,
        )
        results = await found if inspect.isawaitable(found) else found
        if isinstance(results, ExecutionResult):
            raise _Refused(list(results.errors or ()))
        try:
            async for result in results:
                await self._loop.on_reactor(emit, _dumps(self._formatted(result)))
        except GraphQLError as error:
            raise _Refused([error]) from error

    @staticmethod
    def _empty(backend: Backend) -> AnswerSize:
        return AnswerSize(backend.gateway.graphql_max_values, backend.gateway.max_unsent_bytes)

    # -- for the schema -------------------------------------------------------------------------------

    def request_id(self) -> str:
        """The HTTP request's id for the first Request; later ones get a number after it."""
        self._requests += 1
        given = self._sender.request_id
        return given if self._requests == 1 else f"{given}.{self._requests}"

    async def dispatch(self, request: Request) -> Response:
        request = self._completed(request)
        response = await self._loop.on_reactor(self._dispatch, request)
        self._answered += response.headers
        return response

    async def stream(self, request: Request) -> AsyncIterator[Response]:
        """The answers to ``request``, each when it is asked for."""
        request = self._completed(request)
        while (
            response := await self._loop.on_reactor(maybeDeferred, self._streams.receive, request)
        ) is not None:
            self.size = self._empty(self._backend)  # each is a result of its own
            yield response

    def _completed(self, request: Request) -> Request:
        """``request`` with what is known of its sender."""
        sender = self._sender
        if sender.headers or self._backend.access is not None:
            return attrs.evolve(request, headers=sender.headers, caller=sender.caller)
        return request

    def _dispatch(self, request: Request) -> Deferred[Response]:
        # Which dispatcher it is, is decided on the reactor thread: a reload may replace it meanwhile.
        return self._dispatcher.dispatch(request)

    def encode_error(self, error: Exception) -> GraphQLError:
        public = explained(error, self._sender.request_id)
        if isinstance(public, InternalError):
            self._loop.tell_reactor(_log_bug, Failure(error), self._sender.request_id)
        return encode_error(public)


class _Refused(Exception):
    """The operation has no result, or no further one: ``errors`` say why."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__(errors)
        self.errors = errors


class _Streams:
    """The stream of one operation, if it is a subscription. Reactor thread only."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._stream: Stream | None = None

    def receive(self, request: Request) -> Deferred[Response | None]:
        """The next answer to ``request``, which is sent by the first call."""
        if self._stream is None:
            self._stream = self._dispatcher.stream(request)
        return self._stream.receive()

    def cancel(self) -> None:
        """End every stage."""
        if self._stream is not None:
            self._stream.cancel()


def _dumps(formatted: dict[str, Any]) -> bytes:
    # Errors may quote arguments of any size and type.
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(formatted, default=str, option=options)


def _log_bug(failure: Failure, request_id: str) -> None:
    log.failure("request {request_id} to /graphql failed", failure=failure, request_id=request_id)


def _request_in_body(body: bytes) -> GraphqlRequest:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidQuery(_NO_JSON) from None
    if not isinstance(fields, dict):
        raise InvalidQuery(_NO_JSON)
    return GraphqlRequest(fields.get("query"), fields.get("variables"), fields.get("operationName"))


def _request_in_url(arguments: Mapping[bytes, list[bytes]]) -> GraphqlRequest:
    fields = {
        name: arguments[name][-1].decode("utf-8", "replace")
        for name in (b"query", b"variables", b"operationName")
        if arguments.get(name)
    }
    variables: Any = None
    if fields.get(b"variables"):
        try:
            variables = orjson.loads(fields[b"variables"])
        except orjson.JSONDecodeError:
            variables = fields[b"variables"]  # not an object, and refused as such
    return GraphqlRequest(fields.get(b"query"), variables, fields.get(b"operationName"))
