"""gRPC's health service (its doc/health-checking.md), for a server of our own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from grpc_health.v1 import health_pb2

from gatewayd.rpc.server.call import ServerCall, Streaming, Unary
from gatewayd.rpc.server.small import MAX_BYTES, Unreadable, read_small

SERVICE: Final = "grpc.health.v1.Health"

_Response = health_pb2.HealthCheckResponse


class Health:
    """
    Whether the services called ``names`` serve: all of them, or none. Loop thread only.

    There may be further ones by name, each of which may not serve while the others do.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._parts: Mapping[str, bool] = {}
        self._serving = False
        self.watchers: set[Watcher] = set()

    def methods(self) -> dict[str, Unary | Streaming]:
        """Each method by its path."""
        return {
            f"/{SERVICE}/Check": Unary(self._check, MAX_BYTES),
            f"/{SERVICE}/Watch": Streaming(lambda call: Watcher(self, call), MAX_BYTES),
        }

    def set_serving(self, serving: bool, parts: Mapping[str, bool] = {}) -> None:
        """Say it to those who watch, too. ``parts`` are the further names, and whether each of them does."""
        self._serving = serving
        self._parts = parts
        for watcher in tuple(self.watchers):
            watcher.tell()

    def stop_serving(self) -> None:
        """None of them serves, whatever its name. Those who watch are told, and their calls end."""
        self.set_serving(False, self._parts)
        for watcher in tuple(self.watchers):
            watcher.end()

    def status(self, service: str) -> Any:
        """None for a service that is not known."""
        if service not in self._names and service not in self._parts:
            return None
        serving = self._serving and (service in self._names or self._parts[service])
        return _Response.SERVING if serving else _Response.NOT_SERVING

    def _check(self, call: ServerCall, message: bytes, compressed: bool) -> None:
        try:
            status = self.status(read_small(health_pb2.HealthCheckRequest, message, compressed).service)
        except Unreadable as error:
            call.fail("INVALID_ARGUMENT", str(error))
            return
        if status is None:
            call.fail("NOT_FOUND")
        else:
            call.respond(_Response(status=status).SerializeToString())


class Watcher:
    """One client that watches a service (a ``MessageHandler``). It learns of the last change at least."""

    def __init__(self, health: Health, call: ServerCall) -> None:
        self._health = health
        self._call = call
        self._service: str | None = None
        self._told: Any = None
        self._sending = False

    def on_message(self, message: bytes, compressed: bool) -> None:
        if self._service is not None:
            self.on_cancelled()
            self._call.fail("UNIMPLEMENTED", "this method takes one message, and there are several")
            return
        try:
            self._service = read_small(health_pb2.HealthCheckRequest, message, compressed).service
        except Unreadable as error:
            self._call.fail("INVALID_ARGUMENT", str(error))
            return
        self._health.watchers.add(self)
        self.tell()

    def on_half_closed(self) -> None:
        if self._service is None:
            self._call.fail("UNIMPLEMENTED", "this method takes one message, and there is none")

    def on_sent(self) -> None:
        self._sending = False
        self.tell()

    def on_cancelled(self) -> None:
        self._health.watchers.discard(self)

    def tell(self) -> None:
        """Send the status, if it is another than before and the one before has left."""
        assert self._service is not None
        status = self._health.status(self._service)
        if status is None:
            status = _Response.SERVICE_UNKNOWN
        if status != self._told and not self._sending:
            self._told = status
            self._sending = not self._call.send(_Response(status=status).SerializeToString())

    def end(self) -> None:
        """The server stops, which would otherwise wait for this call as for any other."""
        self.on_cancelled()
        self._call.finish("UNAVAILABLE", "the server is stopping")
