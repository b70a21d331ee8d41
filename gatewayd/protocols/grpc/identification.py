"""
Who calls a gRPC method: asked before its message is read, and so before anything is inflated.

A handler for one message becomes one for a stream here: gRPC would read the message before it calls it. On
the wire these are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import grpc
import grpc.aio

from gatewayd.access.control import AccessControl
from gatewayd.bridge import Bridge
from gatewayd.errors import BadRequest, GatewayError
from gatewayd.messages.caller import Caller
from gatewayd.protocols.grpc.errors import encode_error
from gatewayd.protocols.grpc.requests import credentials_of
from gatewayd.tls.peer import names_of_auth_context

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
OfOne = Callable[[bytes, Any, Caller], Awaitable[bytes]]
OfMany = Callable[[object, Any, Caller], Awaitable[None]]

_FAMILIES: Final = ("ipv4", "ipv6")


class CallAccess:
    """Asks the ``access`` control on behalf of gRPC's methods. Loop thread only."""

    def __init__(self, access: AccessControl, bridge: Bridge) -> None:
        self._access = access
        self._bridge = bridge

    async def caller(self, context: Any, path: str, name: str | None = None) -> Caller:
        """
        Who calls the method ``path``. Where rules know it by a ``name``, they must allow it.

        Ends the call otherwise.
        """
        try:
            found = self._access.identify(
                credentials_of(
                    context.invocation_metadata() or (),
                    host_of(context.peer()),
                    lambda: names_of_auth_context(context.auth_context()),
                    path,
                )
            )
            if not isinstance(found, Caller):
                found = await self._bridge.on_reactor(self._access.ask, found)
            if name is not None:
                self._access.admit(found, name)
        except GatewayError as error:
            await context.abort(*encode_error(error))
            raise AssertionError("abort returned") from error
        return found

    def of_one(self, path: str, method: OfOne, name: str | None = None) -> Handler:
        """The handler of a method that answers one message with one."""
        return grpc.stream_stream_rpc_method_handler(partial(self._one, path, method, name))

    def of_many(self, path: str, method: OfMany) -> Handler:
        """The handler of a method that reads and writes by its context."""
        return grpc.stream_stream_rpc_method_handler(partial(self._many, path, method))

    def of_library(self, path: str, handler: Handler, name: str) -> Handler:
        """``handler``, one of gRPC's own for streams, for those who may."""
        return handler._replace(  # type: ignore[attr-defined,no-any-return]
            stream_stream=partial(self._library, path, handler.stream_stream, name)
        )

    async def _one(self, path: str, method: OfOne, name: str | None, _messages: object, context: Any) -> None:
        caller = await self.caller(context, path, name)
        message = await context.read()
        if message is grpc.aio.EOF:
            await context.abort(*encode_error(BadRequest("the call has no message")))
        answer = await method(message, context, caller)
        try:
            await context.write(answer)
        except Exception as error:  # the client has left
            raise asyncio.CancelledError from error

    async def _many(self, path: str, method: OfMany, messages: object, context: Any) -> None:
        await method(messages, context, await self.caller(context, path))

    async def _library(
        self, path: str, method: Any, name: str, messages: object, context: Any
    ) -> AsyncIterator[Any]:
        await self.caller(context, path, name)
        async for answer in method(messages, context):
            yield answer


def host_of(peer: str) -> str:
    """The host in what gRPC calls a peer, such as ``ipv6:%5B::1%5D:4000``; empty for one without."""
    family, _, address = unquote(peer).partition(":")
    if family not in _FAMILIES:
        return ""
    return address.rpartition(":")[0].strip("[]").removeprefix("::ffff:")
