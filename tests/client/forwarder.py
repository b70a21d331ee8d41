"""A port in front of a gateway's: it can drop connections, count them, cut them, and speak TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any


class Forwarder:
    """
    Listens on a free port of loopback and pipes to ``port``.

    The first ``dropped`` connections are closed at once. ``tls`` ends TLS here. ``connections`` counts
    all that came; ``cut`` closes those that are open.
    """

    def __init__(self, port: int, *, dropped: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._dropped = dropped
        self._tls = tls
        self._open: list[socket.socket] = []
        self.connections = 0
        self._alive = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Is any connection open?"""
        return self._alive > 0

    def drop_no_more(self) -> None:
        self._dropped = 0

    def cut(self) -> None:
        """End every connection that is open now, as a broken network would."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        self._thread.join(5.0)

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                incoming, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            if self.connections <= self._dropped:
                incoming.close()
                continue
            threading.Thread(target=self._serve, args=(incoming,), daemon=True).start()

    def _serve(self, incoming: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError))  # a connection that ends, ends
            stack.callback(incoming.close)
            if self._tls is not None:
                incoming = stack.enter_context(self._tls.wrap_socket(incoming, server_side=True))
            outgoing = stack.enter_context(socket.create_connection(("127.0.0.1", self._target)))
            self._open += [incoming, outgoing]
            self._alive += 1
            stack.callback(self._ended)
            back = threading.Thread(target=_pipe, args=(outgoing, incoming), daemon=True)
            back.start()
            _pipe(incoming, outgoing)
            back.join()

    def _ended(self) -> None:
        self._alive -= 1


def _pipe(source: Any, sink: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
