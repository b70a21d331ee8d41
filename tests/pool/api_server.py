"""
An API server of Kubernetes, as far as it answers questions for EndpointSlices.

``slice_of``, ``slices`` and ``event`` are in the forms that Kubernetes documents. ``RecordedServer`` lists
and watches over HTTPS, with versions, and 410 for those that it has forgotten; ``FakeApi`` is one in memory
that a test answers by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET


def endpoint(
    host: str,
    *,
    uid: str | None = None,
    ready: bool | None = None,
    serving: bool | None = None,
    terminating: bool = False,
) -> dict[str, Any]:
    """A pod of a slice; one that ends is not ready, and serves on if nothing else is said."""
    conditions = {
        "ready": not terminating if ready is None else ready,
        "serving": ready is not False if serving is None else serving,
        "terminating": terminating,
    }
    target = {"kind": "Pod", "name": f"pod-{host}", "uid": uid or f"uid-{host}"}
    return {"addresses": [host], "conditions": conditions, "targetRef": target}


def slice_of(name: str, *endpoints: Any, family: str = "IPv4", version: str = "5") -> dict[str, Any]:
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": name,
            "resourceVersion": version,
            "labels": {"kubernetes.io/service-name": "encoder"},
        },
        "addressType": family,
        "endpoints": list(endpoints) or None,
        "ports": [{"name": "grpc", "port": 8080, "protocol": "TCP"}],
    }


def slices(*items: Any, version: str = "7") -> bytes:
    """An EndpointSliceList."""
    return json.dumps(
        {
            "kind": "EndpointSliceList",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"resourceVersion": version},
            "items": list(items),
        }
    ).encode()


def event(kind: str, found: Any) -> bytes:
    """A line of a watch."""
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


@attrs.define
class Asked:
    """A question of a gateway."""

    path: str
    on_begin: Callable[[], None]
    on_data: Callable[[bytes], None]
    answer: Deferred[int]

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    @property
    def watches(self) -> bool:
        return self.query.get("watch") == "1"

    def ends(self, status: int = 200, body: bytes = b"") -> None:
        if status == 200 and not self.watches:
            self.on_begin()
        if body:
            self.on_data(body)
        self.answer.callback(status)


class FakeApi:
    """An ApiServer; ``asked`` are the questions that have not been looked at."""

    namespace = "search"

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    def get(self, path: str, on_begin: Callable[[], None], on_data: Callable[[bytes], None]) -> Deferred[int]:
        question = Asked(path, on_begin, on_data, Deferred())
        self.asked.append(question)
        return question.answer

    def next(self) -> Asked:
        """The only question under way."""
        (question,) = self.asked
        self.asked.clear()
        return question


class RecordedServer(Resource):
    """A site's root. ``put`` and ``delete`` change slices; tests read ``tokens`` and ``queries``."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.version = 100
        self.oldest = 100
        self.status = 200
        self.tokens: list[str] = []
        self.queries: list[dict[str, str]] = []
        self._slices: dict[str, Any] = {}
        self._events: list[tuple[int, bytes]] = []
        self._watches: list[Any] = []

    @property
    def watched(self) -> int:
        """How many watch."""
        return len(self._watches)

    def put(self, name: str, *endpoints: Any) -> None:
        kind = "MODIFIED" if name in self._slices else "ADDED"
        self.version += 1
        self._slices[name] = slice_of(name, *endpoints, version=str(self.version))
        self._tell(event(kind, self._slices[name]))

    def forget(self) -> None:
        """Compact: watches from before now are refused."""
        self.oldest = self.version
        self._events.clear()

    def cut(self) -> None:
        """Lose all who watch, as a restart does."""
        for each in self._watches:
            each.transport.abortConnection()

    def render_GET(self, http_request: Any) -> Any:
        query = {name.decode(): values[0].decode() for name, values in http_request.args.items()}
        self.queries.append({"path": http_request.path.decode(), **query})
        self.tokens.append(http_request.getHeader("authorization") or "")
        http_request.setHeader("content-type", "application/json")
        if self.status != 200:
            http_request.setResponseCode(self.status)
            return b'{"kind": "Status"}'
        if query.get("watch") != "1":
            return slices(*self._slices.values(), version=str(self.version))
        since = int(query["resourceVersion"])
        if since < self.oldest:
            # In the stream: the head has gone.
            return event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
        http_request.write(b"")
        for version, line in self._events:
            if version > since:
                http_request.write(line)
        self._watches.append(http_request)
        http_request.notifyFinish().addBoth(lambda _: self._watches.remove(http_request))
        return NOT_DONE_YET

    def _tell(self, line: bytes) -> None:
        self._events.append((self.version, line))
        for each in self._watches:
            each.write(line)
