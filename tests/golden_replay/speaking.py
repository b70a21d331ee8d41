"""Recorded requests sent again, and the answers in the recordings' own form."""

from __future__ import annotations

import http.client
import json
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from gatewayd.pb import DataRequestProto, StatusProto
from tests.paths import GOLDEN

TIMEOUT_S = 20.0


def load(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


# -- HTTP ----------------------------------------------------------------------------------------------


def http_exchange(port: int, request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Status, content type and body as the recordings have them; and all headers in lower case."""
    headers = dict(request.get("headers") or {})
    body: bytes | None = None
    if "json" in request:
        body = json.dumps(request["json"]).encode()
        headers.setdefault("content-type", "application/json")
    elif request.get("raw_body") is not None:
        body = request["raw_body"].encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(request["method"], request["path"], body, headers)
        answer = connection.getresponse()
        content = answer.read().decode()
        received = {key.lower(): value for key, value in answer.getheaders()}
    finally:
        connection.close()
    kind = received.get("content-type")
    whole: dict[str, Any] = {"status": answer.status, "content_type": kind}
    if kind is not None and kind.startswith("application/json"):
        whole["json"] = json.loads(content) if content else ""
    else:
        whole["text"] = content
    return whole, received


# -- gRPC ----------------------------------------------------------------------------------------------


def decoded(message: bytes) -> dict[str, Any]:
    return MessageToDict(DataRequestProto.FromString(message), preserving_proto_field_name=True)


def grpc_exchange(channel: grpc.Channel, case: dict[str, Any]) -> tuple[str, str, list[bytes]]:
    """Status name, details, and the answers as bytes."""
    metadata = [tuple(pair) for pair in case["request_metadata"]]
    if case["kind"] == "unary":
        request = (GOLDEN / case["request_file"]).read_bytes()
        try:
            answer = channel.unary_unary(case["method"])(request, metadata=metadata, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return error.code().name, error.details(), []
        return "OK", "", [answer]
    requests = [(GOLDEN / name).read_bytes() for name in case["request_files"]]
    call = channel.stream_stream(case["method"])(iter(requests), metadata=metadata, timeout=TIMEOUT_S)
    answers = []
    try:
        for answer in call:
            answers.append(answer)
    except grpc.RpcError as error:
        return error.code().name, error.details(), answers
    return "OK", "", answers


# -- WebSocket -----------------------------------------------------------------------------------------


def websocket_exchange(port: int, case: dict[str, Any]) -> tuple[str | None, list[dict[str, Any]]]:
    """The subprotocol that was accepted, and the conversation as it went this time."""
    offered = case["offered_subprotocol"]
    try:
        connection = connect(
            f"ws://127.0.0.1:{port}{case['path']}",
            subprotocols=None if offered is None else [offered],
            compression=None,
            proxy=None,
            open_timeout=TIMEOUT_S,
        )
    except InvalidStatus as refusal:
        return None, [{"refused": refusal.response.status_code}]
    spoken: list[dict[str, Any]] = []
    with connection:
        for step in case["conversation"]:
            if "client" in step:
                _say(connection, step["client"])
                spoken.append(step)
            else:
                spoken.append(_hear(connection, step))
            if "server_close" in spoken[-1]:
                break
        return connection.subprotocol, spoken


def _say(connection: ClientConnection, frame: dict[str, str]) -> None:
    connection.send(frame["text"] if "text" in frame else bytes.fromhex(frame["binary_hex"]))


def _hear(connection: ClientConnection, recorded: dict[str, Any]) -> dict[str, Any]:
    """The next event, in the form in which the recording has the one expected now."""
    silence = recorded.get("server") == "<nothing for 2 s>"
    try:
        frame = connection.recv(timeout=2.0 if silence else TIMEOUT_S)
    except TimeoutError:
        return {"server": "<nothing for 2 s>"}
    except ConnectionClosed:
        # 1006 is what a client makes of a connection that was dropped without a close frame.
        return {
            "server_close": {
                "code": connection.protocol.close_code,
                "reason": connection.protocol.close_reason or "",
            }
        }
    if isinstance(frame, str):
        return {"server": {"text_json": json.loads(frame)}}
    if "binary_StatusProto" in recorded.get("server", {}):
        status = StatusProto.FromString(frame)
        plain = {"code": status.code, "description": status.description, "hex": frame.hex()}
        return {"server": {"binary_StatusProto": plain}}
    return {"server": {"binary_DataRequestProto": decoded(frame)}}
