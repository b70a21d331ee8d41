"""Endpoints that no executor could be asked for: the client's mistake, in every protocol, and not a 500."""

from __future__ import annotations

import json
from collections.abc import Callable

import grpc
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from gatewayd.pb import DataRequestProto
from tests.security.conftest import Victim
from tests.security.test_documents import post

pytestmark = pytest.mark.security

ENDPOINTS = ("/\u00e9", "/\u4e2d", "/a\nb", "/a\0", "/\x7f", "/\U0001f600", "/" + "x" * 1001)
QUERY = "query($e: String!) { docs(execEndpoint: $e) { id } }"


def test_endpoints_with_other_characters_than_printable_ascii(attack: Callable[..., Victim]) -> None:
    victim = attack(expose_graphql_endpoint=True)
    http, websocket = victim.ports["http"], victim.ports["websocket"]
    for endpoint in ENDPOINTS:
        body = json.dumps({"execEndpoint": endpoint})
        assert post(http, "/post", body.encode())[0] == 422
        query = json.dumps({"query": QUERY, "variables": {"e": endpoint}}).encode()
        (error,) = json.loads(post(http, "/graphql", query)[1])["errors"]
        assert error["message"].startswith("execEndpoint ")
        with connect(f"ws://127.0.0.1:{websocket}/") as session, pytest.raises(ConnectionClosed) as closed:
            session.send(body)
            session.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        request = DataRequestProto()
        request.header.exec_endpoint = endpoint
        with grpc.insecure_channel(f"127.0.0.1:{victim.ports['grpc']}") as channel:
            call = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data")
            with pytest.raises(grpc.RpcError) as refused:
                call(request.SerializeToString(), timeout=20)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert victim.post() == 200
