"""
JSON of the two generations of documents over HTTP: one interface, two implementations.

The first has all fields of all documents in every answer, and tells in it what executors raised. The second
has what executors' schemas say, and an executor that raised is an error of its own (spec http.md,
34/http.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import orjson

from gatewayd.errors import BadRequest, ExecutorNetworkError, ExecutorRaised, PathNotFound
from gatewayd.messages.discovery import Endpoints, TypedEndpoint
from gatewayd.messages.documents import parse
from gatewayd.messages.json_form import requests, responses
from gatewayd.messages.json_form.documents import Allowance, write_documents
from gatewayd.messages.json_form.fields import DOCUMENT
from gatewayd.messages.request import Request, Response
from gatewayd.messages.second import reading, writing
from gatewayd.messages.second.reading import UNKNOWN, Model

_ENDPOINT: Final = "exec_endpoint"
_NAMES: Final = frozenset(field.name for field in DOCUMENT)


class Bodies(Protocol):
    """Requests and answers as JSON. Any thread: large ones are converted in a pool thread."""

    def decode(
        self,
        body: bytes,
        *,
        content_type: str | None,
        endpoint: str | None,
        request_id: str | None,
        max_documents: int,
    ) -> Request:
        """
        The body of a request; ``endpoint`` None means that it names its own.

        Raises BadRequest, TooManyDocuments.
        """
        ...

    def decode_one(
        self,
        body: bytes,
        query: str,
        *,
        content_type: str | None,
        endpoint: str,
        request_id: str | None,
        max_documents: int,
        wrapped: bool,
    ) -> Request:
        """
        A request with one document, for an endpoint that streams.

        The document is the body itself, or its ``data`` where it may be ``wrapped``; without a body, the
        fields of the URL's ``query``. Raises as ``decode``.
        """
        ...

    def encode(self, response: Response) -> bytes:
        """The body of an answer. Raises ExecutorRaised where that is no answer, and other GatewayErrors."""
        ...

    def encode_one(self, response: Response) -> bytes:
        """The first document of an answer, in one line. Raises GatewayError."""
        ...

    def encode_network_error(self, request: Request, error: ExecutorNetworkError) -> bytes:
        """The body where an executor could not be reached. Raises GatewayError."""
        ...


class FirstBodies:
    """Of the first generation."""

    decode = staticmethod(requests.decode_request)
    encode = staticmethod(responses.encode_http)
    encode_network_error = staticmethod(responses.encode_network_error)

    def decode_one(
        self,
        body: bytes,
        query: str,
        *,
        content_type: str | None,
        endpoint: str,
        request_id: str | None,
        max_documents: int,
        wrapped: bool,
    ) -> Request:
        fields: Mapping[str, Any]
        if body:
            fields = requests.fields_of(body, content_type)
            if not wrapped or not isinstance(fields.get("data"), dict | list):
                fields = {"data": [fields]}
        else:
            given = {name: _value(text) for name, text in parse_qsl(query, keep_blank_values=True)}
            fields = {"data": [{name: value for name, value in given.items() if name in _NAMES}]}
        data = fields["data"]
        if isinstance(data, list) and len(data) != 1:
            text = f"the endpoint {endpoint} streams: it takes one document, not {len(data)}"
            raise BadRequest(text, [{"loc": ["body", "data"], "msg": text, "type": "value_error"}])
        one = data if isinstance(data, list) else [data]
        return requests.build_request(
            {**fields, "data": one},
            endpoint=endpoint,
            request_id=request_id,
            allowance=Allowance(max_documents),
        )

    def encode_one(self, response: Response) -> bytes:
        if response.status:
            raise ExecutorRaised(writing.description_of(response.status))
        return b"".join(write_documents(parse(response.documents).docs.docs[:1])) or b"null"


FIRST: Final = FirstBodies()


class Models(Mapping[str, Model]):
    """What is known of the JSON of each endpoint, read from its schemas when it is first asked for."""

    def __init__(self, endpoints: Mapping[str, TypedEndpoint]) -> None:
        self.endpoints = endpoints
        self._models: dict[str, Model] = {}

    def __getitem__(self, endpoint: str) -> Model:
        found = self._models.get(endpoint)
        if found is None:
            found = self._models[endpoint] = Model.of(self.endpoints[endpoint])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.endpoints)

    def __len__(self) -> int:
        return len(self.endpoints)


class SecondBodies:
    """Of the second generation, by what its executors tell of their endpoints."""

    def __init__(self, endpoints: Mapping[str, TypedEndpoint]) -> None:
        self.models = Models(endpoints)

    def model(self, endpoint: str) -> Model:
        """What is known of an endpoint."""
        return self.models.get(endpoint, UNKNOWN)

    def decode(
        self,
        body: bytes,
        *,
        content_type: str | None,
        endpoint: str | None,
        request_id: str | None,
        max_documents: int,
    ) -> Request:
        return reading.decode_body(
            body,
            UNKNOWN if endpoint is None else self.model(endpoint),
            endpoint,
            content_type=content_type,
            request_id=request_id,
            max_documents=max_documents,
            models=self.models,
        )

    def decode_one(
        self,
        body: bytes,
        query: str,
        *,
        content_type: str | None,
        endpoint: str,
        request_id: str | None,
        max_documents: int,
        wrapped: bool,
    ) -> Request:
        model = self.model(endpoint)
        if not body:
            fields = dict(parse_qsl(query, keep_blank_values=True))
            return reading.query_body(
                fields, model, endpoint, request_id=request_id, max_documents=max_documents
            )
        value = reading.body_value(body, content_type)
        fields_known = model.documents.fields
        if wrapped and isinstance(value, dict) and _ENDPOINT in value and _ENDPOINT not in fields_known:
            # A request for one answer, which the reference's client sends to whatever path has POST; what it
            # understands is that there is no such path.
            raise PathNotFound(f"the endpoint {endpoint} streams: stream_doc of the client calls it")
        if (
            wrapped
            and isinstance(value, dict)
            and isinstance(value.get("data"), dict | list)
            and "data" not in fields_known
        ):
            return reading.request_of(
                value, model, endpoint, request_id=request_id, max_documents=max_documents, single=True
            )
        return reading.document_body(
            value, model, endpoint, request_id=request_id, max_documents=max_documents
        )

    def encode(self, response: Response) -> bytes:
        if response.status:
            raise ExecutorRaised(writing.description_of(response.status))
        return writing.encode_answer(response, self.model(response.endpoint))

    def encode_one(self, response: Response) -> bytes:
        if response.status:
            raise ExecutorRaised(writing.description_of(response.status))
        return writing.write_document(response.documents, self.model(response.endpoint))

    def encode_network_error(self, request: Request, error: ExecutorNetworkError) -> bytes:
        return writing.encode_failure(request, error, self.model(request.endpoint))


def bodies_for(endpoints: Endpoints, before: Bodies = FIRST) -> Bodies:
    """The bodies of what is known now; those of ``before`` if nothing has changed."""
    if not endpoints.is_second:
        return FIRST
    if isinstance(before, SecondBodies) and before.models.endpoints == endpoints.typed:
        return before
    return SecondBodies(endpoints.typed)


def _value(text: str) -> object:
    """A field of a query: JSON where it is a list or an object, else text."""
    if text[:1] in ("[", "{"):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text
