"""
/graphql: GraphQL queries over HTTP and their answers (spec graphql.md).

graphql-core needs an asyncio loop to run several fields at once, and takes long for long queries. Parsing,
validation and execution therefore run on a loop of their own, and neither the reactor nor gRPC waits for
them. Each ``docs`` field is one dispatch on the reactor. If the client hangs up, all of it is cancelled.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import orjson
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLSyntaxError,
    OperationType,
    execute,
    get_operation_ast,
    parse,
    validate,
)
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from gatewayd.access.control import DOCS
from gatewayd.bounded_log import BoundedLogger
from gatewayd.bridge import Bridge
from gatewayd.errors import InternalError, InvalidQuery, TooManyDocuments
from gatewayd.messages.caller import Caller
from gatewayd.messages.headers import Headers
from gatewayd.messages.json_form.documents import Allowance
from gatewayd.messages.request import Request, Response
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
from gatewayd.protocols.graphql.schema import SCHEMA
from gatewayd.protocols.http.exchange import as_http, content, forwarded_headers, respond_with_error
from gatewayd.protocols.http.negotiation import is_json
from gatewayd.protocols.http.pages import Page
from gatewayd.protocols.http.request import GatewayRequest

log = BoundedLogger()

_NO_QUERY: Final = "No GraphQL query found in the request"
_NOT_JSON: Final = "Unsupported content type"
_NO_JSON: Final = "Unable to parse request body as JSON"

# Queries that clients repeat are short. What is made of them takes up to 300 times their memory.
_CACHED_QUERY_LENGTH: Final = 4096
_CACHED_LENGTH: Final = 64 * 1024  # of all

# Each may quote much of the query.
_MAX_ERRORS: Final = 3


@attrs.frozen
class GraphqlRequest:
    """A request to /graphql; its values are not checked yet and may be any JSON."""

    query: Any
    variables: Any = None
    operation: Any = None


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
        self._queries = _Queries(
            QueryLimits(
                query_bytes=gateway.graphql_max_query_bytes,
                tokens=gateway.graphql_max_tokens,
                depth=gateway.graphql_max_depth,
                fields=gateway.graphql_max_fields,
                root_fields=gateway.graphql_max_root_fields,
            )
        )

    def start(self) -> None:
        """Start the loop. Queries that arrive earlier wait for it."""
        self._loop.start()

    def stop(self) -> Deferred[None]:
        """Cancel the queries that still run, and end the loop."""
        return Deferred.fromCoroutine(self._loop.stop())

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
            sender = _Sender(http_request.request_id, headers, http_request.caller, http_request.hold)
            execution = _Execution(self._backend, self._dispatcher, self._loop, self._queries, sender)
            size = await room_needed(self._backend, body) if isinstance(body, bytes) else 0
            with room(self._backend.buffers, size):
                answer, answered = await self._loop.on_loop(execution.answer, body)
        except Exception as error:
            respond_with_error(http_request, error)
            return
        http_request.respond(200, answer, headers=as_http(http_request, forwarded.bounded(answered)))


class _Queries:
    """Parses and validates queries, and keeps those that were used last. Loop thread only."""

    def __init__(self, limits: QueryLimits) -> None:
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
            errors = check_size(document, limits) or validate(SCHEMA, document, max_errors=_MAX_ERRORS)
            return errors or document
        except GraphQLSyntaxError as error:
            if "more than" in error.message and "Parsing aborted" in error.message:
                text = f"the query has more than {limits.tokens} tokens, or comments"
                return [GraphQLError(f"{text} (gateway.graphql_max_tokens); send documents as variables")]
            return [error]
        except RecursionError:
            return [GraphQLError("the query is nested too deeply")]


@attrs.frozen
class _Sender:
    """What a query's Requests have of the HTTP request that brought it."""

    request_id: str
    headers: Headers
    caller: Caller
    hold: Callable[[int], None]  # takes room in the buffers for the answer; reactor thread only


class _Execution:
    """
    The execution of one query. Loop thread only.

    It is graphql-core's context value, and so satisfies ``schema.QueryContext``.
    """

    def __init__(
        self, backend: Backend, dispatcher: Dispatcher, loop: Bridge, queries: _Queries, sender: _Sender
    ) -> None:
        self.failures: list[GraphQLError] = []
        self.hints: list[str] = []
        self.allowance = Allowance(backend.gateway.max_documents)
        self.size = AnswerSize(backend.gateway.graphql_max_values, backend.gateway.max_unsent_bytes)
        self.last_object: tuple[object, str, bytes | None] = None, "", None
        self._backend = backend
        self._dispatcher = dispatcher
        self._loop = loop
        self._queries = queries
        self._sender = sender
        self._answered: list[tuple[str, str]] = []
        self._requests = 0

    async def answer(self, request: bytes | GraphqlRequest) -> tuple[bytes, Headers]:
        """
        The JSON answer to a body, or to a URL's query, and the headers that executors answered with.

        Raises InvalidQuery, or Overloaded without room for the answer.
        """
        if isinstance(request, bytes):
            result = await self._execute(_request_in_body(request), mutations=True)
        else:
            result = await self._execute(request, mutations=False)
        formatted: dict[str, Any] = {"data": result.data}
        if errors := [*(result.errors or ()), *self.failures]:
            formatted["errors"] = [error.formatted for error in errors]
        if self.hints and self._backend.gateway.gives_hints:
            formatted["extensions"] = {"hints": list(dict.fromkeys(self.hints))}
        if not is_small(self.size.bytes):
            await self._loop.on_reactor(maybeDeferred, self._sender.hold, self.size.bytes)
        # Errors may quote arguments of any size and type.
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        return orjson.dumps(formatted, default=str, option=options), tuple(self._answered)

    async def _execute(self, request: GraphqlRequest, *, mutations: bool) -> ExecutionResult:
        query, variables, operation = request.query, request.variables, request.operation
        if not query or not isinstance(query, str):
            raise InvalidQuery(_NO_QUERY)
        if not isinstance(variables, dict | None):
            raise InvalidQuery("variables must be an object")
        if not isinstance(operation, str | None):
            raise InvalidQuery("operationName must be a text")
        document = self._queries.prepared(query)
        if isinstance(document, list):
            return ExecutionResult(data=None, errors=document)
        chosen = get_operation_ast(document, operation or None)
        if chosen is not None and chosen.operation is OperationType.MUTATION and not mutations:
            raise InvalidQuery("mutations are not allowed when using GET")
        try:
            check_documents(variables, Allowance(self._backend.gateway.max_documents))
        except TooManyDocuments as error:
            return ExecutionResult(data=None, errors=[encode_error(error)])
        try:
            result: Any = execute(
                SCHEMA,
                document,
                context_value=self,
                variable_values=variables,
                operation_name=operation or None,
            )
            executed: ExecutionResult = await result if inspect.isawaitable(result) else result
        except AnswerTooLarge as error:
            return ExecutionResult(data=None, errors=[GraphQLError(str(error))])
        return executed

    # -- for the schema -------------------------------------------------------------------------------

    def request_id(self) -> str:
        """The HTTP request's id for the first Request; later ones get a number after it."""
        self._requests += 1
        given = self._sender.request_id
        return given if self._requests == 1 else f"{given}.{self._requests}"

    async def dispatch(self, request: Request) -> Response:
        sender = self._sender
        if sender.headers or self._backend.access is not None:
            request = attrs.evolve(request, headers=sender.headers, caller=sender.caller)
        response = await self._loop.on_reactor(self._dispatch, request)
        self._answered += response.headers
        return response

    def _dispatch(self, request: Request) -> Deferred[Response]:
        # Which dispatcher it is, is decided on the reactor thread: a reload may replace it meanwhile.
        return self._dispatcher.dispatch(request)

    def encode_error(self, error: Exception) -> GraphQLError:
        public = explained(error, self._sender.request_id)
        if isinstance(public, InternalError):
            self._loop.tell_reactor(_log_bug, Failure(error), self._sender.request_id)
        return encode_error(public)


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
