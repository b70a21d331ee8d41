"""
What a Service of Kubernetes tells of its replicas: EndpointSlices, listed and watched (pure).

A list gives all slices and the version of that state; a watch from this version on sends each change as a
line of JSON (Kubernetes' "API concepts", "Efficient detection of changes"). A version that is too old is
answered with 410, and then everything is listed again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
import orjson

from gatewayd.config.addresses import authority

# A list is all slices of one Service, and a line one of them, with up to 1000 endpoints.
MOST_BYTES: Final = 16 << 20
# So many endpoints of a list are read in one step: some milliseconds.
AT_ONCE: Final = 100
_GONE: Final = 410
_DECODER: Final = json.JSONDecoder()
_SPACE: Final = re.compile(r"[ \t\n\r]*")


class Expired(Exception):
    """The API server does not know the version any more: list again."""


class Unintelligible(Exception):
    """What the API server sent is no answer to this question; the text says what it is instead."""


@attrs.frozen
class _Endpoint:
    """
    A pod, as one slice has it.

    ``pod`` is the same in all slices: there is one for each family, and there are two while it moves.
    """

    pod: str
    host: str
    ready: bool
    serving: bool
    terminating: bool


class Slices:
    """The slices of one Service, as far as they are known. ``version`` is from where a watch goes on."""

    def __init__(self, port: int) -> None:
        """``port`` is that of the pods."""
        self._port = port
        self._slices: dict[str, tuple[_Endpoint, ...]] = {}  # by name
        # A change is of one slice, and there may be a hundred: what follows from them is kept by pod.
        self._pods: dict[str, list[_Endpoint]] = {}
        self._ready: dict[str, str] = {}  # addresses
        self._serving: dict[str, str] = {}
        self._pending = bytearray()
        self.version = ""

    def listed(self, body: bytes) -> Iterator[None]:
        """
        Take an EndpointSliceList in place of what was known, at the end of the last step.

        A step is ``AT_ONCE`` endpoints, or a whole slice. Raises Unintelligible, and keeps what was known.
        """
        fresh, done = Slices(self._port), 0
        members: dict[str, Any] = {}
        for key, value in _members(body):
            if key is not None:
                members[key] = value
                continue
            name, endpoints = _slice_of(value)
            fresh._put(name, endpoints)
            done += 1 + len(endpoints)
            if done >= AT_ONCE:
                done = 0
                yield
        if members.get("kind") != "EndpointSliceList":
            raise Unintelligible(f"no EndpointSliceList: {_shown(members)}")
        self.version = _version_of(members)
        self._slices, self._pods = fresh._slices, fresh._pods
        self._ready, self._serving = fresh._ready, fresh._serving

    def watch_begins(self) -> None:
        """A further watch is asked for, from ``version`` on: what is left of a broken line is gone."""
        self._pending.clear()

    def watched(self, data: bytes) -> None:
        """
        Take what came of a watch, whole lines or not.

        Raises Expired or Unintelligible; then the events before that one have been taken.
        """
        if b"\n" not in data:
            self._keep(data)
            return
        *lines, rest = data.split(b"\n")
        lines[0] = bytes(self._pending) + lines[0]
        self._pending.clear()
        for line in filter(None, lines):
            self._event(line)
        self._keep(rest)

    def addresses(self) -> frozenset[str]:
        """
        ``host:port`` of each pod that gets calls: those that are ready.

        While none is, those that end but still serve, as kube-proxy has it: of a single pod that is replaced,
        requests are answered up to its end. A pod with addresses of both families is called by IPv4.
        """
        return frozenset((self._ready or self._serving).values())

    def _keep(self, data: bytes) -> None:
        if len(self._pending) + len(data) > MOST_BYTES:
            self._pending.clear()
            raise Unintelligible(f"a line of more than {MOST_BYTES} bytes")
        self._pending += data

    def _put(self, name: str, endpoints: tuple[_Endpoint, ...]) -> None:
        """Take ``endpoints`` as those of the slice; none for a slice that is gone."""
        before = self._slices.pop(name, ())
        if endpoints:
            self._slices[name] = endpoints
        gone, come = set(before).difference(endpoints), set(endpoints).difference(before)
        for each in gone:
            self._pods[each.pod].remove(each)
        for each in come:
            self._pods.setdefault(each.pod, []).append(each)
        for pod in {each.pod for each in gone | come}:
            self._judge(pod)

    def _judge(self, pod: str) -> None:
        found = self._pods[pod]
        self._ready.pop(pod, None)
        self._serving.pop(pod, None)
        if not found:
            del self._pods[pod]
            return
        address = authority(_host(found), self._port)
        if _is_ready(found):
            self._ready[pod] = address
        if any(each.serving for each in found):
            self._serving[pod] = address

    def _event(self, line: bytes) -> None:
        event = _json(line)
        kind, found = event.get("type"), event.get("object")
        match kind:
            case "ERROR":
                status = found if isinstance(found, dict) else {}
                if status.get("code") == _GONE:
                    raise Expired
                raise Unintelligible(f"an error: {_shown(status.get('message', status))}")
            case "ADDED" | "MODIFIED":
                name, endpoints = _slice_of(found)
                self.version = _version_of(found)
                self._put(name, endpoints)
            case "DELETED":
                self.version = _version_of(found)
                self._put(_text(found, "name"), ())
            case "BOOKMARK":
                self.version = _version_of(found)
            case _:
                raise Unintelligible(f"an event of the type {_shown(kind)}")


def _is_ready(pod: list[_Endpoint]) -> bool:
    """One slice may know of its end before the other."""
    return any(each.ready for each in pod) and not any(each.terminating for each in pod)


def _host(pod: list[_Endpoint]) -> str:
    hosts = sorted(each.host for each in pod)
    return next((host for host in hosts if ":" not in host), hosts[0])


def _slice_of(item: Any) -> tuple[str, tuple[_Endpoint, ...]]:
    name = _text(item, "name")
    if item.get("addressType") not in ("IPv4", "IPv6"):
        return name, ()  # names (FQDN), which Kubernetes itself never writes
    found = [_endpoint_of(each) for each in _list(item.get("endpoints"))]
    # Each once: a slice should not have a pod twice, but may not be trusted with it.
    return name, tuple(dict.fromkeys(each for each in found if each is not None))


def _endpoint_of(item: Any) -> _Endpoint | None:
    if not isinstance(item, dict):
        raise Unintelligible(f"an endpoint that is {_shown(item)}")
    # All addresses of an endpoint are the same pod, and only the first is to be used.
    host = next(iter(_list(item.get("addresses"))), None)
    if not isinstance(host, str):
        return None
    conditions, target = item.get("conditions"), item.get("targetRef")
    told: Mapping[str, Any] = conditions if isinstance(conditions, dict) else {}
    pod = target.get("uid") if isinstance(target, dict) else None
    # A condition that is not told is the usual one.
    ready = told.get("ready") is not False
    serving = ready if told.get("serving") is None else told["serving"] is True
    return _Endpoint(str(pod or host), host, ready, serving, told.get("terminating") is True)


def _members(body: bytes) -> Iterator[tuple[str | None, Any]]:
    """
    The members of a map in JSON by their keys, as they are read; each of its ``items`` by no key.

    The text of ten thousand pods takes a parser too long for one step.
    """
    try:
        text = body.decode()
        at = _after(text, 0, "{")
        while (at := _blank(text, at)) < len(text) and text[at] != "}":
            key, at = _DECODER.raw_decode(text, at)
            at = _blank(text, _after(text, at, ":"))
            if key == "items" and text[at : at + 1] == "[":
                at = _blank(text, at + 1)
                while text[at : at + 1] != "]":
                    item, at = _DECODER.raw_decode(text, at)
                    yield None, item
                    at = _comma(text, at, "]")
                at += 1
            else:
                value, at = _DECODER.raw_decode(text, at)
                if key == "items" and value is not None:
                    raise Unintelligible(f"no list: {_shown(value)}")
                yield str(key), value
            at = _comma(text, at, "}")
        if _blank(text, _after(text, at, "}")) < len(text):
            raise ValueError("more after its end")
    except (ValueError, RecursionError) as error:
        raise Unintelligible(f"no JSON: {error}") from error


def _blank(text: str, at: int) -> int:
    """Where the next sign is."""
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _after(text: str, at: int, sign: str) -> int:
    at = _blank(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"no {sign} at {at}")
    return at + 1


def _comma(text: str, at: int, end: str) -> int:
    """Where the next member begins, or the ``end`` is."""
    at = _blank(text, at)
    return at if text[at : at + 1] == end else _blank(text, _after(text, at, ","))


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Unintelligible(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Unintelligible(f"no map: {_shown(found)}")
    return found


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unintelligible(f"no list: {_shown(value)}")
    return value


def _version_of(item: Any) -> str:
    return _text(item, "resourceVersion")


def _text(item: Any, key: str) -> str:
    """``key`` of the metadata, which every object has."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    value = metadata.get(key) if isinstance(metadata, dict) else None
    if not isinstance(value, str) or not value:
        raise Unintelligible(f"an object without {key}")
    return value


def _shown(value: Any) -> str:
    return repr(value)[:80]
