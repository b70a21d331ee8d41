"""
Where gatewayd answers otherwise than the reference did, on purpose, and why.

The one list of these for all replays. Each entry names what stands in the recording's place; what is
not named must be equal. A case that could be equal again fails its entry, so the list stays true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from gatewayd import __version__
from tests.golden_replay.comparing import GONE, VOLATILE, differences, replaced

# By feel: the rarer order comes about once in ten.
TRIES = 60


@attrs.frozen
class Departure:
    """``instead`` maps a path in the recorded answer to what is received there; GONE: no such key."""

    reason: str
    instead: dict[str, Any]


def check(recorded: Any, received: Any, departure: Departure | None) -> None:
    """Fail with all differences. So does a departure that is not needed any more."""
    if departure is not None:
        if not differences(recorded, received):
            pytest.fail(f"no departure any more; its reason was: {departure.reason}", pytrace=False)
        for path, instead in departure.instead.items():
            recorded = replaced(recorded, path, instead)
    if found := differences(recorded, received):
        pytest.fail("\n".join(found), pytrace=False)


def check_each(again: Callable[[], Any], recorded: Any, name: str, departures: dict[str, Departure]) -> None:
    """``check`` what ``again()`` receives; repeated where chance decides (see BY_ARRIVAL)."""
    for tries_left in reversed(range(TRIES if name in BY_ARRIVAL else 1)):
        try:
            return check(recorded, again(), departures.get(name))
        except pytest.fail.Exception:
            if not tries_left:
                raise


KEYS = [
    "id",
    "parent_id",
    "granularity",
    "adjacency",
    "blob",
    "tensor",
    "mime_type",
    "text",
    "weight",
    "uri",
    "tags",
    "offset",
    "location",
    "embedding",
    "modality",
    "evaluations",
    "scores",
    "chunks",
    "matches",
]


def _document(**values: Any) -> dict[str, Any]:
    """A document as HTTP shows it: every key, null where nothing is set."""
    return {**dict.fromkeys(KEYS), **values}


def _unprocessable(reason: str) -> Departure:
    instead = {"status": 422, "content_type": "application/json", "text": GONE, "json": {"detail": VOLATILE}}
    return Departure(reason, instead)


def _closed(code: int, reason: str) -> Departure:
    instead = {"conversation.1": {"server_close": {"code": code, "reason": VOLATILE}}}
    return Departure(reason, instead)


_MISTAKE = "the client's mistake is no internal error, and is named"
_NUMBERS = "integers 0 and 1 in tags stay numbers; the reference makes booleans of them"
_MERGED = "a join that is skipped passes on the merged documents, not only those of the last branch"
_DROPPED = "a connection is closed with a code and a reason, not dropped"

_NULL = Departure(
    "null in an array of numbers is NaN, no internal error",
    {"status": 200, "content_type": "application/json", "text": GONE, "json": VOLATILE},
)

HTTP: dict[str, Departure] = {
    "dict without docs key": _unprocessable(_MISTAKE),
    "tensor in: null in list": _NULL,
    "tensor round trip: null in list": _NULL,
    "blob bad base64": _unprocessable(_MISTAKE),
    "blob urlsafe base64 in": Departure(
        "URL-safe base64 is read; the reference drops its characters, and data with them",
        {"json.data.0.mime_type": "NoneType   | NoneType   | blob b'\\x00\\x01\\xfe\\xff'"},
    ),
    "NaN in parameters": _unprocessable(_MISTAKE),
    "chain, bad regex as target": _unprocessable(_MISTAKE),
    "executor down, CRUD route: 500": Departure(
        "network errors are told alike on every route",
        {"status": 503, "content_type": "application/json", "text": GONE, "json": VOLATILE},
    ),
    "trailing slash": Departure(
        "every answer of the HTTP port names a content type, an empty one too",
        {"content_type": "application/json", "text": GONE, "json": ""},
    ),
    "unknown route": Departure(
        "a 404 says how executors' endpoints are reached",
        {"json": {"detail": "Not Found", "hint": VOLATILE}},
    ),
    "exposed endpoint, own name is absent when http_path is given": Departure(
        "a 404 says how the endpoint of that name is reached",
        {"json": {"detail": "Not Found", "hint": "the endpoint /tag has another path: POST /my/tag"}},
    ),
    "HEAD /": Departure("HEAD is answered as HTTP wants it", {"status": 200}),
    "OPTIONS /post": Departure("OPTIONS is answered as HTTP wants it", {"status": 204, "json": ""}),
    "0-d tensor out": Departure(
        "a tensor without dimensions is a number, no internal error",
        {
            "status": 200,
            "content_type": "application/json",
            "text": GONE,
            "json": {
                "header": VOLATILE,
                "parameters": {},
                "routes": VOLATILE,
                "data": [_document(id="s0", tensor=1.5)],
            },
        },
    ),
    "tags: what the executor sees": Departure(
        _NUMBERS,
        {
            "json.data.0.text": '{"big": 1.2345678901234568e+16, "d": {"j": {"m": 1.0}, "k": 0.0}, "f": 1.5, '
            '"f0": 0.0, "f1": 1.0, "fa": false, "l": [0.0, 1.0, 2.0, "a", null, {"k": 1.0}], "n": null, '
            '"one": 1.0, "s": "x", "s1": "1", "strue": "true", "t": true, "two": 2.0, "zero": 0.0}'
        },
    ),
    "tags: round trip": Departure(_NUMBERS, {"json.data.0.tags.one": 1.0, "json.data.0.tags.zero": 0.0}),
    "_metadata": Departure(_NUMBERS, {"json.data.0._metadata.a": 1.0}),
    "when filter": Departure(_NUMBERS, {"json.data.1.tags.k": 0.0, "json.data.3.tags.k": 1.0}),
    "floating executor sleeping: client does not wait": Departure(
        "the answer holds the client's own parameters, never a sibling's view of them",
        {"json.parameters": {"exec_b__t": 1.5, "t": 0.0}},
    ),
    "parallel then join, reduce (/branch, only a and b)": Departure(
        _MERGED,
        {
            "json.data": [
                _document(
                    id="d0",
                    text="text by A",
                    tags={"who": "A"},
                    uri="http://b",
                    embedding=[1.0, 2.0],
                    chunks=[
                        _document(id="cA0", parent_id="d0", granularity=1, text="chunk A"),
                        _document(id="cB0", parent_id="d0", granularity=1, text="chunk B"),
                    ],
                    matches=[_document(id="m0", adjacency=1, text="match A", uri="match B uri")],
                ),
                _document(id="newA", text="new from A"),
                _document(id="newB", text="new from B"),
            ]
        },
    ),
    "join not targeted: only the last-arriving branch survives (A first)": Departure(
        f"{_MERGED}; and the parameters are the client's own",
        {
            "json.data": [_document(id=name) for name in ("xA", "d2", "d1", "d0", "xB")],
            "json.parameters": {"exec_b__t": 0.4},
        },
    ),
    "when filter, new docs": Departure(
        f"{_MERGED}; {_NUMBERS}",
        {
            "json.data": [
                _document(
                    id="d0",
                    text="text by B",
                    uri="http://b",
                    tags={"k": 3.0, "who": "B"},
                    embedding=[1.0, 2.0],
                    chunks=[_document(id="cB0", parent_id="d0", granularity=1, text="chunk B")],
                    matches=[_document(id="m0", adjacency=1, uri="match B uri")],
                ),
                _document(
                    id="d1",
                    text="text by A",
                    tags={"k": 0.0, "who": "A"},
                    chunks=[_document(id="cA0", parent_id="d1", granularity=1, text="chunk A")],
                    matches=[_document(id="m0", adjacency=1, text="match A")],
                ),
                _document(
                    id="d2",
                    text="text by B",
                    uri="http://b",
                    tags={"k": 2.0, "who": "B"},
                    embedding=[1.0, 2.0],
                    chunks=[_document(id="cB1", parent_id="d2", granularity=1, text="chunk B")],
                    matches=[_document(id="m1", adjacency=1, uri="match B uri")],
                ),
                _document(id="newA", text="new from A"),
                _document(id="newB", text="new from B"),
            ]
        },
    ),
}

# By method and path.
HTTP_ON_WEBSOCKET_PORT: dict[str, Departure] = {
    "GET /openapi.json": Departure(
        "the OpenAPI description is titled by the gateway's settings on every port",
        {"body.info": {"title": "gatewayd", "version": __version__}},
    ),
    "GET /docs": Departure("the page's assets come from gatewayd itself", {"body": VOLATILE}),
}

# /status has every key of the reference, those that its documentation shows but it does not send, and ours.
MORE_STATUS_KEYS = {
    "gatewayd",
    "gatewayd-documents",
    "jina-vcs-tag",
    "JINA_AUTH_TOKEN",
    "JINA_DISABLE_HEALTHCHECK_LOGS",
    "JINA_HUBBLE_REGISTRY",
}

_EMPTY = Departure(
    "an empty message is an empty request",
    {
        "status": "OK",
        "details": "",
        "answers": [
            {
                "header": {"exec_endpoint": "", "target_executor": ""},
                "parameters": {},
                "routes": [
                    {"executor": "gateway", "start_time": VOLATILE, "end_time": VOLATILE},
                    {"executor": "exec_a", "start_time": VOLATILE},
                ],
                "data": {"docs": {}},
            }
        ],
    },
)
GRPC: dict[str, Departure] = {"no header fields": _EMPTY, "zero-length request body": _EMPTY}

# The reference never names the subprotocol it speaks; browsers refuse a handshake that offered one and
# gets none back. So ``json`` and ``bytes`` are echoed, in every conversation that offers them.
ECHOED_SUBPROTOCOLS = ("json", "bytes")
WEBSOCKET: dict[str, Departure] = {
    "json: data key missing": Departure(
        "a missing key data is the same as null, as in HTTP", {"conversation.1": {"server": VOLATILE}}
    ),
    "json: not json": _closed(1007, _DROPPED),
    "json: wrong type": _closed(1008, _DROPPED),
    "json: a list": _closed(1008, "a frame that is no request is refused, not ignored"),
    "json: binary frame in json mode": _closed(1003, _DROPPED),
    "bytes: 01 is NOT a sentinel": _closed(1007, _DROPPED),
    "bytes: empty binary frame": _closed(1007, _DROPPED),
    "bytes: text frame in bytes mode": _closed(1003, _DROPPED),
    "bytes: malformed protobuf": _closed(1007, _DROPPED),
}

# Joins take their parts in the order of arrival, here as there. In these recordings it is chance which
# branch was first; the request is repeated until it is the one that was recorded.
BY_ARRIVAL = {
    "parallel then join, /tag",
    "parallel then join, reduce (/branch, only a and b)",
    "parallel then join, new docs",
    "parallel then join, docs_matrix with reduce",
    "parallel then join, no_reduce on exec_c: docs_matrix and docs_map",
    "parallel then join, no_reduce on exec_c, /tag",
    "per-executor parameters",
    "when filter, new docs",
    "parallel + join with reduce",
}
