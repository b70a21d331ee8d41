"""Values by hand are the same as those of ``attrs.evolve``; a request's names are bounded at every door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import orjson
import pytest

from gatewayd.errors import BadRequest
from gatewayd.messages.caller import Caller
from gatewayd.messages.journey import Journey
from gatewayd.messages.json_form import requests as json_form
from gatewayd.messages.request import LONGEST_NAME, Request
from gatewayd.messages.second.kinds import Document
from gatewayd.messages.second.reading import Model, decode_body, document_body
from gatewayd.messages.wire import decode_request, encode_request

ALL = Request("r", "/a", "t", b"p", b"d", (b"r",), 1.5, (("x-a", "1"),), Caller("c"))


def test_a_request_that_is_watched_is_the_same_otherwise() -> None:
    journey = Journey()
    found = ALL.watched((("x-b", "2"),), journey)

    assert {field.name for field in attrs.fields(Request) if getattr(ALL, field.name) == field.default} == {
        "journey"
    }
    assert found == attrs.evolve(ALL, headers=(("x-b", "2"),), journey=journey)
    assert found.journey is journey


NAMES = ("request_id", "exec_endpoint", "target_executor")
LONG = "x" * (LONGEST_NAME + 1)
MODEL = Model("D", Document("D", is_open=True), Document("D", is_open=True))
DOORS: dict[str, Callable[[dict[str, Any]], Request]] = {
    "protobuf": lambda names: decode_request(
        encode_request(Request(*(names.get(name, "") for name in NAMES)))
    ),
    "JSON of the first generation": lambda names: json_form.decode_request(
        orjson.dumps({"data": [], **names}), endpoint=None, request_id=None, content_type=None
    ),
    "JSON of the second generation": lambda names: decode_body(
        orjson.dumps({"data": [], "header": names}), MODEL, None
    ),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", NAMES)
def test_what_each_answer_of_a_stream_would_repeat_is_not_long(door: str, name: str) -> None:
    assert DOORS[door]({name: LONG[1:]})
    with pytest.raises(BadRequest, match="has 4097 characters, and 4096 are the most"):
        DOORS[door]({name: LONG})


def test_a_document_with_a_long_id_names_no_request() -> None:
    for body in ({"data": {"id": LONG}}, {"data": {"id": LONG[1:]}}):
        assert len(decode_body(orjson.dumps(body), MODEL, "/x").request_id) == (
            32 if body["data"]["id"] == LONG else LONGEST_NAME
        )
    assert len(document_body({"id": LONG}, MODEL, "/x").request_id) == 32
