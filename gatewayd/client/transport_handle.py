"""A Client's hold on its transport: made when it is first used, and again after ``close`` or a fork."""

from __future__ import annotations

import os
import threading

from gatewayd.client.address import GatewayAddress
from gatewayd.client.loop import LoopThread, grpc_was_parents, loop_thread
from gatewayd.client.transports.base import Transport
from gatewayd.messages.generations import Generation


def transport_to(address: GatewayAddress, generation: Generation | None = None) -> Transport:
    """
    The transport of its protocol; each imports a library of its own, so only that one is loaded.

    ``generation`` is that of the documents; None for that of the docarray that is installed.
    """
    match address.protocol:
        case "grpc" if grpc_was_parents():
            from gatewayd.client.transports.forked_grpc import ForkedGrpcTransport

            return ForkedGrpcTransport(address)
        case "grpc":
            from gatewayd.client.transports.grpc import GrpcTransport

            return GrpcTransport(address)
        case "http":
            from gatewayd.client.transports.http import HttpTransport

            return HttpTransport(address, generation)
        case "websocket":
            from gatewayd.client.transports.websocket import WebSocketTransport

            return WebSocketTransport(address)


class TransportHandle:
    """Any thread. A transport belongs to the loop that was the process's when it was made."""

    def __init__(self, address: GatewayAddress, generation: Generation | None = None) -> None:
        self.address = address
        self._generation = generation
        self._held: tuple[LoopThread, Transport] | None
        self._forget()

    def get(self) -> tuple[LoopThread, Transport]:
        if self._pid != os.getpid():
            # The parent's connections are the parent's; one of its threads may hold the lock.
            self._forget()
        with self._lock:
            if self._held is None:
                loop, transport = loop_thread(), transport_to(self.address, self._generation)
                loop.tell(loop.keep, transport)
                self._held = loop, transport
            return self._held

    def take(self) -> tuple[LoopThread, Transport] | None:
        """What is to be closed, None for nothing. The next ``get`` makes another."""
        if self._pid != os.getpid():
            return None
        with self._lock:
            held, self._held = self._held, None
            return held

    def abandon(self) -> None:
        """Close without waiting: for the garbage collector."""
        # The collector may run while this very thread holds a lock, but never that of this handle: a Client
        # that is using its handle is alive.
        if held := self.take():
            loop, transport = held
            loop.tell(loop.release, transport)

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held = None
