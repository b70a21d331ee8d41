"""Servers of OTLP over gRPC and over HTTP, for one of OpenTelemetry's services, with its own messages."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
import grpc


@attrs.frozen
class Service:
    """One service: its path over HTTP, its messages, and the base of servicers with what adds one."""

    path: str
    request: Any
    response: Any
    base: type
    add: Callable[[Any, grpc.Server], None]


# Gets each message, and its headers in lower case. On a thread of the server.
Take = Callable[[Any, Mapping[str, str]], None]


@contextmanager
def grpc_server(service: Service, take: Take) -> Iterator[int]:
    """Gives its port."""

    class Servicer(service.base):  # type: ignore[misc, name-defined]
        def Export(self, request: Any, context: Any) -> Any:
            take(request, dict(context.invocation_metadata()))
            return service.response()

    server = grpc.server(ThreadPoolExecutor(2))
    service.add(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@contextmanager
def http_server(service: Service, take: Take) -> Iterator[int]:
    """Gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == service.path, self.path
            headers = {name.lower(): value for name, value in self.headers.items()}
            take(service.request.FromString(body), headers)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
