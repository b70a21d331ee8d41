"""
The base class for gateway classes of your own: the hooks that it calls, and how to call the executors.

    class MyGateway(Gateway):
        app = Klein()

        @app.route("/greet/<name>")
        async def greet(self, request, name):
            docs = await self.post("/greet", Document(text=name))
            return docs[0].text

A Flow names it in ``gateway.uses``. Its routes are served beside the gateway's own, on every port of HTTP and
WebSocket.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, Protocol, TypeVar, overload
from uuid import uuid4

from gatewayd.client.errors import ExecutorError, RequestRefused, error_of
from gatewayd.client.inputs import batches, encoded_documents, encoded_parameters
from gatewayd.client.response import Response
from gatewayd.errors import BadRequest, GatewayError, IllegalHeader, codes_for
from gatewayd.messages import wire
from gatewayd.messages.headers import given
from gatewayd.messages.request import Request
from gatewayd.messages.request import Response as Answer
from gatewayd.offload import is_small

if TYPE_CHECKING:
    from docarray import DocumentArray

P = ParamSpec("P")
T = TypeVar("T")

# Encoding this many documents takes less than a millisecond, unless they are huge.
_FEW: Final = 8


class GatewayHost(Protocol):
    """The running gateway, as a gateway class sees it. Answers are awaited on the caller's own loop."""

    def dispatch(self, request: Request, timeout_s: float | None) -> Awaitable[Answer]: ...

    def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]: ...


class Gateway:
    """
    Base class of gateway classes.

    ``app``, an attribute or a property, is what is served: a Klein app, another resource of twisted.web, or
    an ASGI application such as FastAPI's; or a map of paths to these, such as ``{"/": site, "/api": api}``.
    It is asked for once, after ``__init__``, which gets ``uses_with`` as keywords. A path that the gateway
    serves itself (``/status``, say) never reaches it.

    Routes of Klein and twisted.web run on the reactor, as always in Twisted, and must not block: use
    ``in_thread`` for long work. ASGI applications run on an asyncio loop in a thread of their own.
    """

    # `app` is not declared: it may be an attribute or a property, and type checkers would insist on either.
    _host: GatewayHost | None = None

    @property
    def logger(self) -> logging.Logger:
        """A logger with the name of the class."""
        return logging.getLogger(type(self).__name__)

    def startup(self) -> Any:
        """
        Called once, when all executors serve and before the Flow is ready. May be a coroutine function.

        Until it returns, routes answer 503. It runs where the routes run: on the asyncio loop if there is an
        ASGI application, else on the reactor. If it raises an exception, the gateway does not start.
        """

    def shutdown(self) -> Any:
        """
        Called once, after the last request, if ``startup`` has returned. May be a coroutine function.

        It may take the rest of the grace period, but always five seconds.
        """

    @overload
    async def post(
        self,
        on: str = "/",
        inputs: Any = None,
        parameters: Mapping[str, Any] | None = None,
        target_executor: str | None = None,
        *,
        headers: Mapping[str, str | bytes] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        return_responses: Literal[False] = False,
    ) -> DocumentArray: ...
    @overload
    async def post(
        self,
        on: str = "/",
        inputs: Any = None,
        parameters: Mapping[str, Any] | None = None,
        target_executor: str | None = None,
        *,
        headers: Mapping[str, str | bytes] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        return_responses: Literal[True],
    ) -> Response: ...
    async def post(
        self,
        on: str = "/",
        inputs: Any = None,
        parameters: Mapping[str, Any] | None = None,
        target_executor: str | None = None,
        *,
        headers: Mapping[str, str | bytes] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (the name that Client.post has for it)
        return_responses: bool = False,
    ) -> DocumentArray | Response:
        """
        Send one request through the Flow, and return the documents of its answer.

        ``inputs`` are documents, or values that become documents, as in ``Client.post``; ``timeout`` is in
        seconds. With ``return_responses`` the whole Response is returned, even if an executor failed. The
        gateway's ``rates`` count the requests of clients alone, not this one.

        Executors get ``headers`` regardless of ``forward_headers``, which applies only to headers of clients.
        Headers with names that are not listed there can pass on what this class has found out, such as who
        the client is: no client can forge them.

        Raises the errors of ``Client.post`` (``gatewayd.client.errors``): ExecutorError, a BadServer, if an
        executor fails, NetworkError if one cannot be reached, RequestRefused or BadClient for mistakes in the
        request.
        """
        try:
            sent = given(headers or {})
        except IllegalHeader as error:
            raise RequestRefused(str(error), codes_for(error).http, str(error)) from error
        documents = [document for batch in batches(inputs, 0) for document in batch]
        encoded = b""
        if documents:
            encoded = await self._here_or_in_thread(len(documents) <= _FEW, encoded_documents, documents)
        request = Request(
            request_id=uuid4().hex,
            endpoint=on,
            target=target_executor or "",
            parameters=encoded_parameters(parameters),
            documents=encoded,
            headers=sent,
        )
        try:
            answer = await self._connected().dispatch(request, timeout)
        except BadRequest as error:
            raise RequestRefused(str(error), codes_for(error).http, str(error)) from error
        except GatewayError as error:
            raise error_of(codes_for(error).grpc, str(error)) from error
        response = Response(bytes(wire.encode_response(answer)))
        if return_responses:
            return response
        if response.failed:
            raise ExecutorError(response.header, response)
        docs: DocumentArray = await self._here_or_in_thread(
            is_small(len(answer.documents)), lambda: response.docs
        )
        return docs

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that blocks or takes long in another thread."""
        return await self._connected().in_thread(function, *args, **kwargs)

    async def _here_or_in_thread(
        self, here: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return function(*args, **kwargs) if here else await self.in_thread(function, *args, **kwargs)

    def _connected(self) -> GatewayHost:
        if self._host is None:
            raise RuntimeError(
                f"{type(self).__name__} is not connected yet: use post and in_thread in routes, in startup "
                "and in shutdown, not in __init__"
            )
        return self._host
