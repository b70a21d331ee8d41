"""What follows from each message of graphql-transport-ws, without a connection."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatewayd.protocols.graphql.transport_ws import (
    Begin,
    Cancel,
    End,
    Reply,
    TransportWs,
    complete_message,
    error_message,
    next_message,
)


def said(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def subscribe(name: Any = "1", **payload: Any) -> bytes:
    return said(type="subscribe", id=name, payload={"query": "{ docs { id } }", **payload})


@pytest.fixture
def begun() -> TransportWs:
    made = TransportWs(2)
    assert made.received(said(type="connection_init", payload={"any": 1})) == Reply(
        b'{"type":"connection_ack"}'
    )
    return made


def test_an_operation_begins_ends_and_its_name_is_free_again(begun: TransportWs) -> None:
    operation = Begin("1", "{ docs { id } }", {"a": 1}, None)
    assert begun.received(subscribe(variables={"a": 1})) == operation
    begun.ended("1")
    assert begun.received(said(type="complete", id="1")) is None
    assert begun.received(subscribe(variables={"a": 1})) == operation


def test_the_client_completes_an_operation_once(begun: TransportWs) -> None:
    begun.received(subscribe())
    assert begun.received(said(type="complete", id="1")) == Cancel("1")
    assert begun.received(said(type="complete", id="1")) is None


def test_ping_is_answered_before_and_after_the_beginning(begun: TransportWs) -> None:
    for each in (begun, TransportWs(1)):
        assert each.received(said(type="ping")) == Reply(b'{"type":"pong"}')
        assert each.received(said(type="pong")) is None


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"not json", 4400),
        (b"[]", 4400),
        (said(type="start"), 4400),
        (said(type=["ping"]), 4400),
        (said(type="subscribe", id="1"), 4400),
        (subscribe(7), 4400),
        (subscribe(""), 4400),
        (subscribe("x" * 1025), 4400),
        (said(type="complete"), 4400),
        (said(type="connection_init"), 4429),
    ],
)
def test_what_breaks_the_protocol_closes_the_connection(
    begun: TransportWs, message: bytes, code: int
) -> None:
    end = begun.received(message)
    assert isinstance(end, End)
    assert end.code == code


def test_nothing_is_begun_before_connection_init() -> None:
    assert TransportWs(1).received(subscribe()) == End(4401, "Unauthorized")


def test_a_name_is_used_once_at_a_time(begun: TransportWs) -> None:
    begun.received(subscribe("a"))
    assert begun.received(subscribe("a")) == End(4409, "Subscriber for a already exists")


def test_one_operation_too_many_is_an_error_of_its_own(begun: TransportWs) -> None:
    begun.received(subscribe("1"))
    begun.received(subscribe("2"))
    refused = begun.received(subscribe("3"))
    assert isinstance(refused, Reply)
    told = json.loads(refused.message)
    assert (told["type"], told["id"]) == ("error", "3")
    assert "2 operations are under way" in told["payload"][0]["message"]
    assert "gateway.graphql_max_operations" in told["payload"][0]["message"]


def test_messages_of_the_server_are_those_of_the_protocol() -> None:
    assert json.loads(next_message('a"b', b'{"data":1}')) == {
        "id": 'a"b', "type": "next", "payload": {"data": 1},
    }  # fmt: skip
    assert json.loads(complete_message("a")) == {"id": "a", "type": "complete"}
    assert json.loads(error_message("a", [{"message": "no"}])) == {
        "id": "a", "type": "error", "payload": [{"message": "no"}],
    }  # fmt: skip
