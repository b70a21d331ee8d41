"""
The HTTP paths of a port, mounted with Klein.

``routes`` says which of them hand their body to executors, from the gateway's settings. Where those expose
all endpoints, paths are added as executors tell what they bind, and never taken away: an endpoint that is no
longer bound is one that no executor works on, not one that is unknown.
``HttpApi`` registers all with Klein. Klein finds a path by werkzeug's matcher, which costs more than
all else this file does; none of our paths has variables, so ``HttpApi.render`` looks the plain cases up
in a table made from Klein's own map, and leaves to Klein what is not in it: encoded paths, unknown
ones, wrong methods.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import orjson
from klein import Klein
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from werkzeug import exceptions
from werkzeug.routing import RequestRedirect

from gatewayd.access.control import DOCS, DRY_RUN, STATUS
from gatewayd.access.guard import header_value, same_header
from gatewayd.config.model import GatewayConfig
from gatewayd.config.openai import OpenAIConfig
from gatewayd.errors import EndpointsUnknown, GatewayError, MethodNotAllowed, PathNotFound, RateLimited
from gatewayd.health import PROBES
from gatewayd.messages.discovery import Endpoints
from gatewayd.messages.generations import Generation
from gatewayd.messages.json_form import responses
from gatewayd.protocols.backend import Backend, Extension
from gatewayd.protocols.failures import failure_status
from gatewayd.protocols.http.bodies import bodies_for
from gatewayd.protocols.http.errors import encode_error
from gatewayd.protocols.http.exchange import (
    Served,
    exchange,
    is_acceptable,
    respond_with_error,
    stream_exchange,
)
from gatewayd.protocols.http.hints import hint_for
from gatewayd.protocols.http.openai.api import Answer, OpenAIApi
from gatewayd.protocols.http.pages import Page, description, documentation, graphiql
from gatewayd.protocols.http.probes import answer_probe
from gatewayd.protocols.http.request import GatewayRequest
from gatewayd.protocols.http.routes import EndpointRoute, debug_paths, routes_of

if TYPE_CHECKING:
    from gatewayd.protocols.graphql.resource import GraphqlApi

log = Logger()

Handler = Callable[[GatewayRequest], Deferred[None] | None]


class HttpApi(Resource):
    """
    The root of an HTTP listener.

    ``full`` is False on a port of WebSocket alone, which has only the documentation, GET /, /status and
    /dry_run, regardless of ``no_debug_endpoints`` (spec websocket.md).
    """

    isLeaf = True

    def __init__(self, backend: Backend, *, full: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        gateway = backend.gateway
        self._backend = backend
        self._dispatcher = backend.dispatcher_for("http")
        self.graphql: GraphqlApi | None = None  # once it is mounted
        self._compress_above_bytes = gateway.compress_above_bytes
        # Any, because Klein's types have IRequest for requests, and other results for handlers.
        self._app: Any = Klein()
        self._app.url_map.merge_slashes = False
        self._full = full
        self._for_executors: set[tuple[bytes, bytes]] = set()  # methods and paths
        self._endpoints = Endpoints()  # what is known of executors, and what is served of it
        self._served = Served()
        # Of the first generation, with all of its endpoints known, little changes: it is not asked each time.
        self._is_settled = False
        self._described = self._endpoints  # what was known when _description was made
        self._description = description(gateway, full=full)
        self._mount(gateway, full)
        self._klein: Any = self._app.resource()
        self._update_paths()

    def start(self) -> None:
        """Start GraphQL's loop, if it is served. Call this once the port listens."""
        self.learn()
        if self.graphql is not None:
            self.graphql.start()
        extension = self._backend.extension
        if extension is None:
            return
        for path in extension.fixed_paths():
            if (path.rstrip(b"/") or b"/") in self._paths:
                log.warn(
                    "{path} of {name} is never reached: it is a path of the gateway's own",
                    path=path.decode(),
                    name=extension.name,
                )

    def stop(self) -> Deferred[None]:
        """Stop GraphQL's loop. Fires when it has stopped."""
        return succeed(None) if self.graphql is None else self.graphql.stop()

    def wants_body(self, http_request: GatewayRequest) -> bool:
        """Whether a body that has yet to come matters (see ``site.Root``)."""
        if self._handler(http_request) is None:
            # An encoded path may have one once Klein has decoded it; an extension's paths are not known here.
            # So may one of executors that have not told yet what they bind.
            return (
                b"%" in http_request.path
                or self._backend.streaming.unknown
                or self._extension(http_request) is not None
            )
        return not self._is_for_executors(http_request) or is_acceptable(http_request)

    def render(self, http_request: GatewayRequest) -> int:
        handler = self._handler(http_request)
        waits = self._backend.streaming.unknown and self._full and not http_request.has_waited
        if handler is not None:
            # How a body is read depends on what executors tell, unless it is known to be of the first.
            if waits and not self._is_of_first and self._is_for_executors(http_request):
                _begin(http_request, self._render_when_known(http_request))
            else:
                handler(http_request)
        elif http_request.method == b"OPTIONS" and http_request.site.cors.is_preflight(http_request.header):
            headers = http_request.site.cors.preflight(http_request.header)
            http_request.respond(200, b"OK", b"text/plain; charset=utf-8", headers)
        elif not self._admits(http_request):
            pass
        elif not http_request.path.startswith(b"/"):
            self._answer_for_all_paths(http_request)
        elif http_request.path.startswith(b"//") or not _is_utf8(http_request.path):
            # Klein would take the first for the path without the first slash, and log the second.
            self._answer_not_found(http_request)
        elif (extension := self._extension(http_request)) is not None:
            if self._admits(http_request, *_spellings(http_request.path)):
                self._show_identity(http_request)
                _extend(extension, http_request)
        elif not http_request.method.isupper():
            # werkzeug takes "get" for GET, but methods are case-sensitive (RFC 9110 section 9.1).
            self._answer_unknown_method(http_request)
        elif waits:
            _begin(http_request, self._render_when_known(http_request))
        else:
            self._klein.render(http_request)
        return NOT_DONE_YET

    async def _render_when_known(self, http_request: GatewayRequest) -> None:
        """Serve it when executors have told what they bind, and in what form, or after a moment."""
        http_request.has_waited = True
        try:
            await self._backend.streaming.known(None, None)
            self.learn()
            self.render(http_request)
        except Exception as error:
            respond_with_error(http_request, error)

    @property
    def _is_of_first(self) -> bool:
        return self._backend.endpoints().generation is Generation.FIRST

    def _is_for_executors(self, http_request: GatewayRequest) -> bool:
        return (http_request.method, http_request.path) in self._for_executors

    def _handler(self, http_request: GatewayRequest) -> Handler | None:
        handler = self._plain.get((http_request.method, http_request.path))
        if handler is None and self._full:
            self.learn()
            handler = self._plain.get((http_request.method, http_request.path))
        return handler

    # -- which paths there are ------------------------------------------------------------------------

    def _mount(self, gateway: GatewayConfig, full: bool) -> None:
        if gateway.expose_docs:
            self._add(self._description.path, ("GET",), self._kept(DOCS, self._describe))
            for page in documentation(gateway):
                self._add(page.path, ("GET",), self._kept(DOCS, _shows(page)))
        self._add("/", ("GET",), self._health)
        for probe in PROBES if gateway.expose_health else ():
            self._add(probe, ("GET",), self._probe(probe))
        handlers = {
            "/status": self._kept(STATUS, self._status_page),
            "/dry_run": self._kept(DRY_RUN, self._dry_run),
        }
        for path in debug_paths(gateway, full=full):
            self._add(path, ("GET",), handlers[path])
        if full:
            for route in routes_of(gateway, self._endpoints):
                self._add_route(route)
            if gateway.expose_graphql_endpoint:
                self._mount_graphql(gateway)
            if gateway.openai is not None:
                self._mount_openai(gateway.openai)
        self._app.handle_errors(exceptions.HTTPException)(self._unmatched)

    def learn(self) -> bool:
        """
        Serve what executors have come to tell: the generation of their documents, and their endpoints.

        Paths of endpoints are added, and never taken away but for those of another generation. Returns
        whether that has changed.
        """
        endpoints = self._backend.endpoints()
        before = self._endpoints
        self._is_settled = not endpoints.unknown and not endpoints.is_second
        if endpoints is before or endpoints == before:
            return False
        self._endpoints = endpoints
        self._served = Served(bodies_for(endpoints, self._served.bodies), endpoints.streaming)
        if endpoints.is_second != before.is_second:
            self._app = Klein()
            self._app.url_map.merge_slashes = False
            self._for_executors.clear()
            self._mount(self._backend.gateway, self._full)
            self._klein = self._app.resource()
        elif self._full:
            for route in routes_of(self._backend.gateway, endpoints):
                self._add_route(route)
        self._update_paths()
        return endpoints.is_second != before.is_second

    def _update_paths(self) -> None:
        self._plain = dict(self._plain_paths())
        self._paths = {path for _, path in self._plain}

    def _mount_graphql(self, gateway: GatewayConfig) -> None:
        # Most gateways don't serve GraphQL: load its library only if it is needed.
        from gatewayd.protocols.graphql.resource import GraphqlApi

        page: Page | None = None
        if gateway.expose_graphiql:
            page, *files = graphiql(gateway)
            for file in files:
                self._add(file.path, ("GET",), self._kept(DOCS, _shows(file)))
        api = self.graphql = self.graphql or GraphqlApi(self._backend, page)
        self._add(
            "/graphql", ("GET", "POST"), lambda http_request: _begin(http_request, api.answer(http_request))
        )

    def _mount_openai(self, config: OpenAIConfig) -> None:
        def handling(answer: Answer) -> Handler:
            return lambda http_request: _begin(http_request, answer(http_request))

        for path, method, answer in OpenAIApi(self._backend, self._dispatcher, config).paths():
            self._add(path, (method,), handling(answer))

    def _kept(self, name: str, handler: Handler) -> Handler:
        """``handler`` for those who may see what rules call ``name``."""
        if self._backend.access is None:
            return handler
        return lambda request: self._admitted(request, name, handler)

    def _admitted(self, http_request: GatewayRequest, name: str, handler: Handler) -> Deferred[None] | None:
        return handler(http_request) if self._admits(http_request, name) else None

    def _admits(self, http_request: GatewayRequest, *names: str) -> bool:
        """Whether the caller may see what has all these names; if not, the request is answered."""
        try:
            if self._backend.access is not None:
                self._backend.access.admit(http_request.caller, *names)
        except GatewayError as error:
            http_request.respond_with(encode_error(error))
            return False
        return True

    def _show_identity(self, http_request: GatewayRequest) -> None:
        """What is not the gateway's own gets the caller's name in the same header as executors do."""
        auth = self._backend.gateway.auth
        if auth is not None and auth.forward_identity is not None:
            value = header_value(http_request.caller)
            values = [] if value is None else [value]
            shown = http_request.requestHeaders
            for name, _ in tuple(shown.getAllRawHeaders()):
                if same_header(name.decode("latin-1").lower(), auth.forward_identity):
                    shown.removeHeader(name)
            shown.setRawHeaders(auth.forward_identity, values)

    def _add(self, path: str, methods: tuple[str, ...], handler: Handler) -> None:
        taken = {
            m for rule in self._app.url_map.iter_rules() if rule.rule == path for m in rule.methods or ()
        }
        free = [method for method in methods if method not in taken]
        if free:
            endpoint = f"{' '.join(free)} {path}"
            # Klein sets attributes of its handlers, which bound methods do not allow.
            self._app.route(path, methods=free, endpoint=endpoint)(lambda http_request: handler(http_request))

    def _add_route(self, route: EndpointRoute) -> None:
        backend, dispatcher, above = self._backend, self._dispatcher, self._compress_above_bytes
        endpoint = route.endpoint

        def serve(http_request: GatewayRequest) -> Deferred[None] | None:
            if not self._is_settled and self.learn():
                self.render(http_request)  # there may be no such path any more
                return None
            served = self._served
            if endpoint is None or endpoint not in served.streaming:
                work = exchange(backend, dispatcher, http_request, route, above, served)
            elif http_request.method == b"HEAD":
                _refuse_method(http_request, route.methods)
                return None
            else:
                work = stream_exchange(backend, dispatcher, http_request, endpoint, served)
            return _begin(http_request, work)

        self._add(route.path, route.methods, serve)
        self._for_executors |= {(method.encode(), route.path.encode()) for method in route.methods}

    def _plain_paths(self) -> Iterator[tuple[tuple[bytes, bytes], Handler]]:
        """Pairs of (method, path) and the handler that Klein would call."""
        for rule in self._app.url_map.iter_rules():
            for method in rule.methods or ():
                yield (method.encode(), rule.rule.encode()), self._runs(rule.endpoint)

    def _runs(self, endpoint: str) -> Handler:
        return lambda http_request: self._app.execute_endpoint(endpoint, http_request)

    # -- what they answer -----------------------------------------------------------------------------

    def _describe(self, http_request: GatewayRequest) -> None:
        endpoints = self._backend.endpoints()
        if endpoints != self._described:
            self._described = endpoints
            self._description = description(self._backend.gateway, full=self._full, endpoints=endpoints)
        page = self._description
        http_request.respond(200, page.body, page.content_type, page.headers)

    def _health(self, http_request: GatewayRequest) -> None:
        http_request.respond(200, b"{}")

    def _probe(self, probe: str) -> Handler:
        withheld = not self._backend.gateway.expose_errors
        return lambda http_request: answer_probe(
            http_request, probe, self._backend.health(), withheld=withheld
        )

    def _status_page(self, http_request: GatewayRequest) -> None:
        http_request.respond(200, orjson.dumps(self._backend.status()))

    def _dry_run(self, http_request: GatewayRequest) -> Deferred[None]:
        return _begin(http_request, self._try_out(http_request))

    async def _try_out(self, http_request: GatewayRequest) -> None:
        status = b""
        try:
            http_request.site.browsers.check(http_request.method, http_request.header)
        except GatewayError as error:
            respond_with_error(http_request, error)
            return
        try:
            await self._dispatcher.dry_run(caller=http_request.caller)
        except RateLimited as error:
            respond_with_error(http_request, error)
            return
        except GatewayError as error:
            status = failure_status(error)
        except Exception as error:
            respond_with_error(http_request, error)
            return
        http_request.respond(200, responses.encode_status(status))

    # -- what is on no path ---------------------------------------------------------------------------

    def _answer_for_all_paths(self, http_request: GatewayRequest) -> None:
        """The targets ``*`` of OPTIONS, and ``host:port`` of CONNECT, which is for proxies."""
        _refuse_method(http_request, {method.decode() for method, _ in self._plain})

    def _answer_unknown_method(self, http_request: GatewayRequest) -> None:
        path = unquote_to_bytes(http_request.path).decode()
        allowed = self._app.url_map.bind("gateway").allowed_methods(path)
        if allowed:
            _refuse_method(http_request, allowed)
        else:
            self._answer_not_found(http_request)

    def _answer_not_found(self, http_request: GatewayRequest) -> None:
        known = self._backend.endpoints()
        if self._full and known.unknown and not known.bound:
            # It may be an endpoint's own: a client that is told so may try again.
            unknown = http_request.site.encode_error(EndpointsUnknown(), http_request.path)
            http_request.respond_with(unknown)
            return
        hint = ""
        if self._full and self._backend.gateway.gives_hints:
            method = http_request.method.decode("latin-1")
            path = unquote_to_bytes(http_request.path).decode("utf-8", "replace")
            endpoints = self._backend.endpoints()
            hint = hint_for(method, path, endpoints, routes_of(self._backend.gateway, endpoints))
        http_request.respond_with(http_request.site.encode_error(PathNotFound(hint), http_request.path))

    def _unmatched(self, http_request: GatewayRequest, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, exceptions.MethodNotAllowed):
            _refuse_method(http_request, error.valid_methods or ())
            return
        other = self._other_spelling(http_request.path)
        if isinstance(error, RequestRedirect) or other is not None:
            _, mark, query = http_request.uri.partition(b"?")
            location = (other or http_request.path + b"/") + mark + query
            http_request.respond(307, b"", headers=[(b"Location", location)])
        else:
            self._answer_not_found(http_request)

    def _extension(self, http_request: GatewayRequest) -> Extension | None:
        """The extension, if there is one, unless the path in whatever spelling is the gateway's own."""
        path = unquote_to_bytes(http_request.path).rstrip(b"/") or b"/"
        return None if path in self._paths else self._backend.extension

    def _other_spelling(self, path: bytes) -> bytes | None:
        """The known path that equals ``path`` apart from slashes at the end."""
        bare = path.rstrip(b"/")
        return bare if bare != path and bare in self._paths else None


def _shows(page: Page) -> Handler:
    return lambda http_request: http_request.respond(200, page.body, page.content_type, page.headers)


def _extend(extension: Extension, http_request: GatewayRequest) -> None:
    """Have an extension answer. What its routes take, and which may be linked to, are its own matters."""
    try:
        http_request.site.browsers.check_origin(http_request.header)
    except GatewayError as error:
        http_request.respond_with(encode_error(error))
    else:
        extension.render(http_request)


def _begin(http_request: GatewayRequest, work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
    """Start ``work``, which is cancelled if the client hangs up."""
    running = Deferred.fromCoroutine(work)
    if not running.called:
        http_request.work_begun(running)
    return running


def _refuse_method(http_request: GatewayRequest, methods: Iterable[str]) -> None:
    """Answer that there are other ``methods`` here, which is no error to OPTIONS."""
    allowed = ", ".join(sorted({*methods, "OPTIONS"}))
    if http_request.method == b"OPTIONS":
        http_request.respond(204, b"", headers=[(b"Allow", allowed.encode())])
    else:
        error = MethodNotAllowed(allowed)
        http_request.respond_with(http_request.site.encode_error(error, http_request.path))


def _spellings(path: bytes) -> tuple[str, ...]:
    """What an application may take ``path`` for: a rule about one must not be evaded by another."""
    decoded = unquote_to_bytes(path).decode("utf-8", "replace")
    return path.decode("latin-1"), decoded, posixpath.normpath(decoded)


def _is_utf8(path: bytes) -> bool:
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return False
    return True
