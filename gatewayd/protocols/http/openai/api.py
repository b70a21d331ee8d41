"""
/v1/chat/completions, /v1/embeddings and /v1/models: requests of OpenAI's clients, for the engine.

What becomes of a request is decided in ``messages/openai/``. Here it is dispatched, and the answer sent:
whole, or as events while executors go on to answer. Nothing is sent before the first of their documents, so
that what fails until then has a status of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote

import attrs
import orjson
from twisted.internet.defer import Deferred

from gatewayd.bounded_log import BoundedLogger
from gatewayd.config.openai import OpenAIConfig
from gatewayd.errors import SUCCESS, GatewayError, InternalError, Overloaded, UnknownModel
from gatewayd.messages.discovery import DEFAULT, TypedEndpoint
from gatewayd.messages.generations import Generation
from gatewayd.messages.openai.answers import NotBound, answered_by, documents_of
from gatewayd.messages.openai.chat import Chat, decode_chat
from gatewayd.messages.openai.completion import Completion
from gatewayd.messages.openai.embeddings import Embeddings, decode_embeddings, encode_embeddings
from gatewayd.messages.openai.first import FirstForm
from gatewayd.messages.openai.forms import Answered, Form
from gatewayd.messages.openai.second import SecondForm
from gatewayd.messages.request import Request, Response, content_bytes
from gatewayd.offload import here_or_offloaded
from gatewayd.protocols.backend import Backend, Dispatcher
from gatewayd.protocols.decoding import decoded_in_room
from gatewayd.protocols.failures import explained
from gatewayd.protocols.http.exchange import client_timeout_s, content, forwarded_headers
from gatewayd.protocols.http.openai.errors import encode_error, error_object
from gatewayd.protocols.http.openai.paths import CHAT, EMBEDDINGS, MODELS
from gatewayd.protocols.http.request import GatewayRequest
from gatewayd.protocols.http.streaming import EVENTS, StreamBody
from gatewayd.protocols.told import told
from gatewayd.streams import Stream

log = BoundedLogger()

T = TypeVar("T")
Answer = Callable[[GatewayRequest], Coroutine[Deferred[Any], Any, None]]


_ANY_MODEL: Final = "default"


class TooLong(GatewayError):
    """The whole of a completion is larger than ``limit_bytes``."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"the completion is larger than {limit_bytes} bytes (gateway.max_message_bytes); with "
            "stream: true it is sent as it comes"
        )


class NotKnownYet(Overloaded):
    """No executor has told yet which documents an endpoint takes."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(f"the executors have not told yet what {endpoint} takes; try again")


class OpenAIApi:
    """The paths of one port, for what ``config`` says. Reactor thread only."""

    def __init__(self, backend: Backend, dispatcher: Dispatcher, config: OpenAIConfig) -> None:
        self._backend = backend
        self._dispatcher = dispatcher
        self._config = config
        self._forms: dict[str, tuple[TypedEndpoint, Form]] = {}
        self._since_s = int(time.time())

    def paths(self) -> Iterable[tuple[str, str, Answer]]:
        """Path, method, and what answers it."""
        if self._config.chat is not None:
            yield CHAT, "POST", self._answering(self._chat)
        if self._config.embeddings is not None:
            yield EMBEDDINGS, "POST", self._answering(self._embed)
        yield MODELS, "GET", self._answering(self._list_models)
        for model in self._models():
            # A name that is no path as it stands is listed, but has none of its own.
            if quote(model, safe="/:@") == model:
                yield f"{MODELS}/{model}", "GET", self._answering(self._shows(model))

    def _answering(self, answer: Answer) -> Answer:
        """``answer``, with errors in OpenAI's form."""

        async def answering(http_request: GatewayRequest) -> None:
            try:
                http_request.site.browsers.check(http_request.method, http_request.header)
                await answer(http_request)
            except Exception as error:
                if not http_request.gone:
                    http_request.respond_with(encode_error(_explained(error, http_request)))

        return answering

    # -- models ---------------------------------------------------------------------------------------

    def _models(self) -> tuple[str, ...]:
        return self._config.models or (_ANY_MODEL,)

    async def _list_models(self, http_request: GatewayRequest) -> None:
        self._admit(http_request)
        models = [self._model(name) for name in self._models()]
        http_request.respond(SUCCESS.http, orjson.dumps({"object": "list", "data": models}))

    def _shows(self, model: str) -> Answer:
        async def show(http_request: GatewayRequest) -> None:
            self._admit(http_request)
            http_request.respond(SUCCESS.http, orjson.dumps(self._model(model)))

        return show

    def _model(self, name: str) -> Mapping[str, Any]:
        return {"id": name, "object": "model", "created": self._since_s, "owned_by": "gatewayd"}

    def _admit(self, http_request: GatewayRequest) -> None:
        """Models are told to all who have shown who they are, where that is asked."""
        if self._backend.access is not None:
            self._backend.access.admit(http_request.caller)

    def _check_model(self, model: str) -> None:
        if self._config.models and model not in self._config.models:
            raise UnknownModel(model)

    # -- what executors answer ------------------------------------------------------------------------

    async def _embed(self, http_request: GatewayRequest) -> None:
        assert self._config.embeddings is not None, "there is no such path"
        form = await self._form(self._config.embeddings)

        def decode(body: bytes, request_id: str) -> tuple[Embeddings, Request]:
            asked = decode_embeddings(body, self._backend.gateway.max_documents)
            self._check_model(asked.model)
            return asked, form.of_texts(asked.texts, asked.parameters, request_id)

        asked, request, timeout_s = await self._decoded(http_request, decode)
        response = await self._dispatcher.dispatch(request, timeout_s=timeout_s)
        size = len(response.documents)
        body = await here_or_offloaded(
            self._backend.offload,
            size,
            lambda: encode_embeddings(asked, documents_of(response, form), answered_by(response)),
        )
        http_request.respond(SUCCESS.http, body)

    async def _chat(self, http_request: GatewayRequest) -> None:
        assert self._config.chat is not None, "there is no such path"
        form = await self._form(self._config.chat)

        def decode(body: bytes, request_id: str) -> tuple[Chat, Request]:
            asked = decode_chat(body)
            self._check_model(asked.model)
            return asked, form.of_chat(asked.text, asked.messages, asked.parameters, request_id)

        asked, request, timeout_s = await self._decoded(http_request, decode)
        completion = Completion(
            request.request_id, asked.model, time.time(), include_usage=asked.include_usage
        )
        stream = self._dispatcher.stream(request, timeout_s=timeout_s)
        try:
            if asked.stream:
                await self._send_events(http_request, stream, form, completion)
            else:
                http_request.respond(SUCCESS.http, await self._whole(http_request, stream, form, completion))
        finally:
            stream.cancel()

    async def _send_events(
        self, http_request: GatewayRequest, stream: Stream, form: Form, completion: Completion
    ) -> None:
        """
        Send a completion as events, as fast as the client reads. Raises what fails before the first of them.

        A later failure is the last event, and the transfer is broken off: it must not look like the end.
        """
        documents = await self._next(stream, form)
        body = StreamBody(http_request, _Events())
        body.begin()
        try:
            while documents is not None:
                await body.update(list(completion.chunks(documents)))
                documents = await self._next(stream, form)
            await body.update(list(completion.ending()))
            body.end()
        except Exception as error:
            if http_request.gone:
                raise
            public = _explained(error, http_request)
            status = told(public, "http").http
            body.fail(orjson.dumps(error_object(public)).decode(), status)
        finally:
            body.abandon()

    async def _next(self, stream: Stream, form: Form) -> list[Answered] | None:
        """The next documents of a stream; None at its end."""
        response = await stream.receive()
        return None if response is None else await self._read(response, form)

    async def _whole(
        self, http_request: GatewayRequest, stream: Stream, form: Form, completion: Completion
    ) -> bytes:
        """The body of a completion that is sent whole. Raises TooLong, Overloaded, the stream's errors."""
        limit, size = self._backend.gateway.max_message_bytes, 0
        while (response := await stream.receive()) is not None:
            size += content_bytes(response)
            if size > limit:
                raise TooLong(limit)
            http_request.hold(content_bytes(response))
            completion.answered(await self._read(response, form))
        return await here_or_offloaded(self._backend.offload, size, completion.whole)

    async def _read(self, response: Response, form: Form) -> list[Answered]:
        size = len(response.documents)
        return await here_or_offloaded(self._backend.offload, size, documents_of, response, form)

    async def _decoded(
        self, http_request: GatewayRequest, decode: Callable[[bytes, str], tuple[T, Request]]
    ) -> tuple[T, Request, float | None]:
        """What is asked, the request for the engine, and the client's own deadline in seconds."""
        timeout_s = client_timeout_s(http_request)
        forwarded = self._backend.forwarded
        headers = forwarded_headers(forwarded, http_request) if forwarded else ()
        body = await content(self._backend, http_request)
        asked, request = await decoded_in_room(self._backend, decode, body, http_request.request_id)
        if headers or self._backend.access is not None:
            request = attrs.evolve(request, headers=headers, caller=http_request.caller)
        return asked, request, timeout_s

    async def _form(self, endpoint: str) -> Form:
        """
        The documents of an endpoint, as executors tell them. Raises NotBound, NotKnownYet.

        A request that comes while they start waits a moment for that.
        """
        try:
            return self._told(endpoint)
        except NotKnownYet:
            if not self._backend.streaming.unknown:
                raise
        await self._backend.streaming.known(None, None)
        return self._told(endpoint)

    def _told(self, endpoint: str) -> Form:
        endpoints = self._backend.endpoints()
        bound = endpoint if endpoint in endpoints.bound else DEFAULT
        is_bound = bound in endpoints.bound
        if not is_bound and not endpoints.unknown:
            raise NotBound(endpoint)
        if endpoints.generation is None and not is_bound:
            raise NotKnownYet(endpoint)
        if endpoints.generation is not Generation.SECOND:
            return FirstForm(endpoint)
        typed = endpoints.typed.get(bound)
        if typed is None:
            raise NotKnownYet(endpoint)
        kept = self._forms.get(endpoint)
        if kept is None or kept[0] is not typed:
            kept = self._forms[endpoint] = (typed, SecondForm.of(endpoint, typed))
        return kept[1]


class _Events:
    """Server-sent events as OpenAI's clients read them, whose last one is not JSON."""

    content_type: Final = EVENTS
    ping: Final = b": ping\n\n"
    end: Final = b"data: [DONE]\n\n"

    def update(self, document: bytes) -> bytes:
        return b"data: %b\n\n" % document

    def error(self, detail: str, status: int) -> bytes:
        """``detail`` is the JSON text of an error's object, which has no status in mid-stream."""
        return b"data: %b\n\n" % detail.encode()


def _explained(error: Exception, http_request: GatewayRequest) -> GatewayError:
    """``error`` as the client may see it; a bug is logged. Call this while it is handled."""
    public = explained(error, http_request.request_id)
    if isinstance(public, InternalError):
        log.failure(
            "request {request_id} to {path} failed",
            request_id=http_request.request_id,
            path=http_request.path,
        )
    return public
