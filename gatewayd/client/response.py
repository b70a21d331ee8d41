"""
One answer, as the user sees it.

What is expensive to read (documents, parameters) is read when it is asked for, in the thread that asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from gatewayd.client.documents import installed
from gatewayd.client.errors import BadServerFlow
from gatewayd.errors import GatewayError
from gatewayd.messages import wire
from gatewayd.messages.generations import Generation, generation_of
from gatewayd.messages.single import PART_OF_A_STREAM, response_of_single
from gatewayd.pb import HeaderProto, RouteProto, StatusProto


class Response:
    """
    The answer to one request.

    ``header``, ``routes`` and ``status`` are the protobuf messages of the wire contract; ``docs`` is a
    DocumentArray, or with docarray 0.40 and later a DocList of ``return_type``, made once; ``parameters`` a
    dict, in which all numbers are floats.
    """

    return_type: Any = None

    def __init__(self, message: bytes, headers: Mapping[str, str] | None = None) -> None:
        """``message`` is a DataRequestProto, ``headers`` came beside it. Raises BadServerFlow."""
        try:
            header, self._parameters, self._routes, self._data = wire.split(message)
            self.header = HeaderProto.FromString(header)
            self._headers = headers or {}
        except (wire.Malformed, DecodeError) as error:
            raise BadServerFlow(f"the gateway's answer cannot be read: {error}") from error

    @classmethod
    def of_single(cls, message: bytes) -> Response:
        """Of a SingleDocumentRequestProto: one answer of a stream. Raises BadServerFlow."""
        try:
            return cls(bytes(response_of_single(message)))
        except wire.Malformed as error:
            raise BadServerFlow(f"the gateway's answer cannot be read: {error}") from error

    @property
    def headers(self) -> Mapping[str, str]:
        """
        The headers that executors answered with and the gateway forwards, names in lower case.

        Over HTTP, those of the HTTP response are among them.
        """
        return {**self._headers, **self.header.headers}

    @property
    def is_part(self) -> bool:
        """Whether it is one of several answers to its request."""
        name, _ = PART_OF_A_STREAM
        return name in self.header.headers

    def itself(self) -> Response:
        """What has been read already (see Arrived)."""
        return self

    @property
    def request_id(self) -> str:
        return self.header.request_id

    @property
    def status(self) -> StatusProto:
        """``status.code`` is 0 for success and 1 when an executor failed."""
        return self.header.status

    @property
    def failed(self) -> bool:
        """Did an executor fail? Then ``status`` says which and how."""
        return self.header.status.code != 0

    @cached_property
    def docs(self) -> Any:
        """The documents. Raises BadServerFlow if they cannot be read, or are not of ``return_type``."""
        return installed().decoded(self._data or b"", self.return_type)

    @property
    def data(self) -> Content:
        return Content(self)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """What was sent, and under ``__results__`` what executors returned besides documents."""
        from gatewayd.messages.structs import parameters_of

        try:
            return parameters_of(self._parameters or b"")
        except ValueError as error:
            raise BadServerFlow(f"the answer's parameters cannot be read: {error}") from error

    @cached_property
    def routes(self) -> Sequence[RouteProto]:
        """Who handled the request and when: the gateway, then every executor. Raises BadServerFlow."""
        try:
            return [RouteProto.FromString(route) for route in self._routes]
        except DecodeError as error:
            raise BadServerFlow(f"the answer's routes cannot be read: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, under the names of the wire contract. Raises BadServerFlow."""
        whole: dict[str, Any] = orjson.loads(self.json())
        return whole

    def json(self) -> str:
        """As ``to_dict``, as a text."""
        try:
            whole = {
                "header": _plain(self.header),
                "parameters": self.parameters,
                "routes": [_plain(route) for route in self.routes],
                "data": _documents_in_json(self._data or b""),
            }
            return orjson.dumps(whole, option=orjson.OPT_SERIALIZE_NUMPY).decode()
        except (GatewayError, orjson.JSONEncodeError) as error:
            raise BadServerFlow(f"the answer has no JSON form: {error}") from error

    to_json = json

    def message(self) -> bytes:
        """The whole answer as a serialised DataRequestProto."""
        parts = [*wire.field(wire.HEADER, self.header.SerializeToString())]
        if self._parameters is not None:
            parts += wire.field(wire.PARAMETERS, self._parameters)
        for route in self._routes:
            parts += wire.field(wire.ROUTE, route)
        if self._data is not None:
            parts += wire.field(wire.DATA, self._data)
        return b"".join(parts)

    @property
    def without_documents(self) -> bool:
        """Whether no documents came, which is known without reading them."""
        return self._data in (None, b"", wire.NO_DOCUMENTS)

    @property
    def empty(self) -> bool:
        """Nothing but a header: what a gateway sends before it ends a call for a network failure."""
        return self._data is None and self._parameters is None and not self._routes

    def __repr__(self) -> str:
        failed = f" failed: {self.status.description!r}" if self.failed else ""
        return f"<Response {self.request_id} to {self.header.exec_endpoint or '/'}{failed}>"


def _plain(message: HeaderProto | RouteProto) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def _documents_in_json(data: bytes) -> list[Any]:
    """Raises GatewayError for what has no JSON form."""
    if generation_of(data) is Generation.SECOND:
        from gatewayd.messages.second.reading import UNKNOWN
        from gatewayd.messages.second.writing import documents_in

        return [UNKNOWN.answers.write_document(document) for document in documents_in(data)]
    from gatewayd.messages.json_form.responses import read_documents

    return read_documents(data)


class Content:
    """``response.data.docs``, for code that was written for the reference."""

    def __init__(self, response: Response) -> None:
        self._response = response

    @property
    def docs(self) -> Any:
        return self._response.docs
