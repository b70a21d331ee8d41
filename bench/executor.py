"""
The executor of the benchmarks: the least that a gateway accepts, so that the gateway is what is measured.

    python -m bench.executor [HOST]

Answers every request with the request itself and a route, undecoded. Prints ``serves at HOST:PORT``.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop
from grpc_reflection.v1alpha import reflection

from gatewayd.messages.methods import DISCOVERY, LISTED, SINGLE, STREAM
from gatewayd.pb import DataRequestListProto, DataRequestProto, EndpointsProto

# Messages can be joined as bytes: what is appended is one more entry of ``routes``.
_ROUTE = DataRequestProto(routes=[{"executor": "exec_a"}]).SerializeToString()
_ENDPOINTS = EndpointsProto(endpoints=["/default"]).SerializeToString()


async def _single(message: bytes, context: Any) -> bytes:
    return message + _ROUTE


async def _listed(message: bytes, context: Any) -> bytes:
    """What a join sends: the first of the parts."""
    return DataRequestListProto.FromString(message).requests[0].SerializeToString() + _ROUTE


async def _stream(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for message in messages:
        yield message + _ROUTE


async def _discovery(message: bytes, context: Any) -> bytes:
    return _ENDPOINTS


class Methods(grpc.GenericRpcHandler):
    handlers = {  # noqa: RUF012
        SINGLE: grpc.unary_unary_rpc_method_handler(_single),
        LISTED: grpc.unary_unary_rpc_method_handler(_listed),
        STREAM: grpc.stream_stream_rpc_method_handler(_stream),
        DISCOVERY: grpc.unary_unary_rpc_method_handler(_discovery),
    }

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self.handlers.get(call.method)


async def main(host: str = "127.0.0.1") -> None:
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    )
    server.add_generic_rpc_handlers((Methods(),))
    services = [method.split("/")[1] for method in Methods.handlers]
    reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], server)
    port = server.add_insecure_port(f"{host}:0")
    await server.start()
    print(f"serves at {host}:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
