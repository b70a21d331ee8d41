"""One question, asked over every protocol, and what came back in one form."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import grpc
import websockets.sync.client
from google.protobuf.json_format import MessageToDict, ParseDict
from websockets.exceptions import ConnectionClosed

from gatewayd.errors import codes_for
from gatewayd.messages.wire import DATA, field
from gatewayd.pb import DataRequestProto
from tests.processes import Gateway

PROTOBUF = "application/x-protobuf"
_LIMIT_S = 20.0


@attrs.frozen
class Question:
    """
    What a client asks; ``documents`` have ids, texts and tags. ``timeout_s`` is its own deadline.

    ``content`` is a serialised DataContentProto instead of ``documents``, for the ways of bytes.
    """

    endpoint: str
    documents: tuple[Mapping[str, Any], ...] = ()
    parameters: Mapping[str, Any] = attrs.field(factory=dict)
    target: str = ""
    timeout_s: float | None = None
    content: bytes = b""

    def as_json(self) -> dict[str, Any]:
        return {
            "execEndpoint": self.endpoint,
            "data": list(self.documents),
            "parameters": dict(self.parameters),
            "targetExecutor": self.target,
        }

    def as_protobuf(self) -> bytes:
        message = DataRequestProto()
        message.header.request_id = "r1"
        message.header.exec_endpoint = self.endpoint
        message.header.target_executor = self.target
        if self.timeout_s is not None:
            message.header.timeout = round(self.timeout_s * 1000)
        ParseDict(dict(self.parameters), message.parameters)
        for document in self.documents:
            ParseDict(dict(document), message.data.docs.docs.add())
        return message.SerializeToString() + (b"".join(field(DATA, self.content)) if self.content else b"")


@attrs.frozen
class Answered:
    """A response: documents as (id, text, tags), the names in the routes, the status's description."""

    documents: tuple[Any, ...]
    parameters: Any
    routes: tuple[str, ...]
    status: str


@attrs.frozen
class Refused:
    """No response: the code of the protocol, and what was said."""

    code: object
    text: str


def refusal(error: type[Exception]) -> dict[str, object]:
    """By protocol, the code that stands for ``error``."""
    codes = codes_for(error.__new__(error))
    return {"http": codes.http, "grpc": codes.grpc, "websocket": codes.websocket}


def _from_protobuf(message: bytes) -> Answered:
    answer = DataRequestProto.FromString(message)
    return Answered(
        documents=tuple(_document(MessageToDict(each)) for each in answer.data.docs.docs),
        parameters=MessageToDict(answer.parameters),
        routes=tuple(route.executor for route in answer.routes),
        status=answer.header.status.description,
    )


def _from_json(answer: Mapping[str, Any]) -> Answered:
    status = answer["header"].get("status") or {}
    return Answered(
        documents=tuple(_document(each) for each in answer["data"]),
        parameters=answer["parameters"],
        routes=tuple(route["executor"] for route in answer["routes"]),
        status=status.get("description", ""),
    )


def _document(found: Mapping[str, Any]) -> tuple[Any, ...]:
    made = re.fullmatch("[0-9a-f]{32}", found["id"])
    return "<made>" if made else found["id"], found.get("text") or "", found.get("tags") or {}


def _grpc(gateway: Gateway, ask: Callable[[grpc.Channel], bytes]) -> Answered | Refused:
    with grpc.insecure_channel(f"127.0.0.1:{gateway.ports['grpc']}") as channel:
        try:
            return _from_protobuf(ask(channel))
        except grpc.RpcError as error:
            return Refused(error.code().name, error.details())


def over_unary(gateway: Gateway, question: Question) -> Answered | Refused:
    method = "/jina.JinaSingleDataRequestRPC/process_single_data"
    message = question.as_protobuf()
    return _grpc(gateway, lambda channel: channel.unary_unary(method)(message, timeout=_LIMIT_S))


def over_call(gateway: Gateway, question: Question) -> Answered | Refused:
    def ask(channel: grpc.Channel) -> bytes:
        call = channel.stream_stream("/jina.JinaRPC/Call")
        # A network error is preceded by a message that names its request.
        *_, last = call(iter([question.as_protobuf()]), timeout=_LIMIT_S)
        return bytes(last)

    return _grpc(gateway, ask)


def _http(
    gateway: Gateway, body: bytes, headers: Mapping[str, str], read: Callable[[bytes], Answered]
) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.ports["http"], timeout=_LIMIT_S)
    try:
        connection.request("POST", "/post", body, dict(headers))
        answer = connection.getresponse()
        content = answer.read()
        if answer.status == 200:
            return read(content)
        if answer.getheader("content-type") == PROTOBUF:
            return Refused(answer.status, DataRequestProto.FromString(content).header.status.description)
        told = json.loads(content)
        detail = told["detail"] if "detail" in told else told["header"]["status"]["description"]
        return Refused(answer.status, detail if isinstance(detail, str) else detail[0]["msg"])
    finally:
        connection.close()


def over_http_json(gateway: Gateway, question: Question) -> Answered | Refused:
    headers = {"Content-Type": "application/json"}
    if question.timeout_s is not None:
        headers["X-Request-Timeout"] = str(question.timeout_s)
    body = json.dumps(question.as_json()).encode()
    return _http(gateway, body, headers, lambda content: _from_json(json.loads(content)))


def over_http_protobuf(gateway: Gateway, question: Question) -> Answered | Refused:
    return _http(gateway, question.as_protobuf(), {"Content-Type": PROTOBUF}, _from_protobuf)


def _websocket(
    gateway: Gateway, subprotocol: str, message: str | bytes, read: Callable[[Any], Answered]
) -> Any:
    with websockets.sync.client.connect(
        f"ws://127.0.0.1:{gateway.ports['websocket']}/",
        subprotocols=[subprotocol],
        proxy=None,  # type: ignore[list-item]
    ) as session:
        session.send(message)
        try:
            return read(session.recv(timeout=_LIMIT_S))
        except ConnectionClosed as closed:
            return Refused(closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else Refused(None, "")


def over_websocket_json(gateway: Gateway, question: Question) -> Answered | Refused:
    message = json.dumps(question.as_json())
    return _websocket(gateway, "json", message, lambda frame: _from_json(json.loads(frame)))


def over_websocket_bytes(gateway: Gateway, question: Question) -> Answered | Refused:
    return _websocket(gateway, "bytes", question.as_protobuf(), _from_protobuf)


WAYS: dict[str, Callable[[Gateway, Question], Answered | Refused]] = {
    "grpc unary": over_unary,
    "grpc stream": over_call,
    "http json": over_http_json,
    "http protobuf": over_http_protobuf,
    "websocket json": over_websocket_json,
    "websocket bytes": over_websocket_bytes,
}
