"""What the access log says of a request, and what it never says."""

import json

import attrs
import pytest
from twisted.internet.defer import CancelledError
from twisted.logger import capturedLogs

from gatewayd.errors import Draining, RateLimited
from gatewayd.messages.caller import Caller
from gatewayd.messages.request import Request, Response
from gatewayd.messages.rope import Rope
from gatewayd.telemetry.access_log import AccessLog, EntriesOfTheLog, as_json, as_text, fields_of
from gatewayd.telemetry.logs import forms
from gatewayd.telemetry.observed import Exchange

DOCUMENTS = b"\x0a\x04\x0a\x00\x0a\x00"  # two empty ones
REQUEST = Request(
    "r1", "/search", parameters=b"secret", documents=DOCUMENTS, caller=Caller("alice", "192.0.2.1", "key")
)
RESPONSE = Response("r1", "/search", b"\x0a\x00", b"")


class Entries:
    def __init__(self):
        self.taken = []

    def add(self, entry):
        self.taken.append(entry)


class Setup:
    def __init__(self, sample=1.0, dice=0.5, slower_than_s=None):
        self.entries = Entries()
        self.log = AccessLog(
            self.entries,
            sample=sample,
            dice=lambda: dice,
            wall_clock=lambda: 1795000000.25,
            slower_than_s=slower_than_s,
        )

    def exchange(self, request=REQUEST, response=RESPONSE, error=None, protocol="http", **streamed):
        """A request that takes two seconds, of which it waits half a one and is with executors for one."""
        exchange = Exchange(protocol, request, 10.0)
        for name, value in streamed.items():
            setattr(exchange, name, value)
        self.log.began(exchange)
        self.followed = exchange.request.journey is not None
        journey = exchange.follow()
        visit = journey.visit("a", 10.25, floating=False)
        visit.wait("queue", 10.25).end(10.75)
        visit.attempt("unix:/a", 10.75).end(11.75)
        exchange.ended_s = 12.0
        exchange.response, exchange.error = (None, error) if error is not None else (response, None)
        self.log.ended(exchange)
        return self.entries.taken[-1] if self.entries.taken else None


@pytest.mark.parametrize(("slower_than_s", "has_line"), [(None, False), (1.9, True), (2.1, False)])
def test_slow_requests_have_a_line_though_they_were_not_drawn(slower_than_s, has_line):
    entry = Setup(sample=0.1, slower_than_s=slower_than_s).exchange()

    assert (entry is not None) is has_line
    if entry is not None:
        assert entry.total_s == 2.0
        assert entry.queue_s is None  # it was not followed


def test_a_line_says_who_asked_for_what_and_where_the_time_went():
    entry = Setup().exchange()

    assert as_text(entry) == (
        "time=2026-11-18T11:06:40.250Z request_id=r1 caller=alice address=192.0.2.1 protocol=http "
        "endpoint=/search documents=2 bytes_in=12 bytes_out=2 outcome=ok total_ms=2000.000 "
        "queue_ms=500.000 executors_ms=1000.000 gateway_ms=500.000"
    )
    assert json.loads(as_json(entry)) == {
        "time": "2026-11-18T11:06:40.250Z",
        "request_id": "r1",
        "caller": "alice",
        "address": "192.0.2.1",
        "protocol": "http",
        "endpoint": "/search",
        "documents": 2,
        "bytes_in": 12,
        "bytes_out": 2,
        "outcome": "ok",
        "total_ms": 2000.0,
        "queue_ms": 500.0,
        "executors_ms": 1000.0,
        "gateway_ms": 500.0,
    }


@pytest.mark.parametrize(
    ("response", "error", "outcome"),
    [
        (attrs.evolve(RESPONSE, status=b"\x08\x01"), None, "executor_error"),
        (None, CancelledError(), "cancelled"),
        (None, RateLimited("5 requests in a second", 1.0), "rate_limited"),
        (None, Draining(), "draining"),
        (None, ZeroDivisionError(), "internal"),
    ],
)
def test_how_it_ended_is_a_word_that_all_protocols_share(response, error, outcome):
    entry = Setup().exchange(response=response, error=error)

    assert entry.outcome == outcome
    assert (entry.bytes_out is None) is (error is not None)


def test_what_is_not_known_is_left_open():
    entry = Setup().exchange(request=Request("r", ""), error=CancelledError())

    assert (
        as_text(entry)
        .partition(" ")[2]
        .startswith(
            "request_id=r caller=- address=- protocol=http endpoint=- documents=0 bytes_in=0 bytes_out=- "
        )
    )


def test_what_clients_choose_adds_no_field_and_no_line():
    request = Request('r" outcome=ok\nx', "/a b\x1b[31m\u2028=" + "x" * 500, caller=Caller("bö b"))
    text = as_text(Setup().exchange(request=request))

    assert text.isascii()
    assert text.isprintable()
    assert r'request_id="r\" outcome=ok\nx" caller="b\u00f6 b" ' in text
    assert r'endpoint="/a b\u001b[31m\u2028=xxx' in text
    assert len(text) < 800


def test_a_dash_that_a_client_sends_is_not_nothing():
    assert ' endpoint="-" ' in as_text(Setup().exchange(request=Request("r", "-")))


def test_many_documents_are_counted_up_to_a_thousand():
    documents = b"\x0a\xd0\x0f" + b"\x0a\x00" * 1000
    setup = Setup()
    entry = setup.exchange(request=Request("r", "/", documents=documents))
    assert (entry.documents, entry.more) == (1000, False)

    documents = Rope([b"\x0a\xa0\x9c\x01", b"\x0a\x00" * 10_000])
    entry = setup.exchange(request=Request("r", "/", documents=documents))
    assert (entry.documents, entry.more) == (1000, True)
    assert as_text(entry).endswith(" more_documents=true")


def test_a_stream_says_how_many_documents_it_had_and_when_the_first_came():
    entry = Setup().exchange(answers=3, answers_bytes=120, first_s=10.25)

    assert as_text(entry).endswith(" answers=3 first_ms=250.000")
    line = json.loads(as_json(entry))
    assert (line["answers"], line["first_ms"], line["bytes_out"]) == (3, 250.0, 120)

    nothing = Setup().exchange(answers=0, response=None, error=ValueError())
    assert as_text(nothing).endswith(" answers=0 first_ms=-")


def test_documents_that_cannot_be_counted_are_no_failure():
    entry = Setup().exchange(request=Request("r", "/", documents=b"\x12\x01x"))
    assert entry.documents is None


def test_a_sample_leaves_out_none_that_fails():
    setup = Setup(sample=0.1)
    setup.exchange()
    setup.exchange(error=CancelledError())
    (entry,) = setup.entries.taken
    assert entry.outcome == "cancelled"
    assert as_text(entry).endswith(" total_ms=2000.000 queue_ms=- executors_ms=- gateway_ms=-")
    assert json.loads(as_json(entry))["queue_ms"] is None
    assert not setup.followed
    assert not setup.log._drawn

    setup = Setup(sample=0.6)
    assert setup.exchange().queue_s == 0.5
    assert setup.followed
    assert not setup.log._drawn


def test_neither_documents_nor_parameters_are_in_it():
    entry = Setup().exchange(request=attrs.evolve(REQUEST, documents=b"\x0a\x08secret!!"))
    assert "secret" not in repr(entry) + as_text(entry) + as_json(entry)


def test_without_a_file_it_is_in_the_log_with_its_fields():
    entry = Setup().exchange()
    with capturedLogs() as events:
        EntriesOfTheLog().add(entry)

    (event,) = events
    assert event["log_namespace"] == "gatewayd.access"
    text = forms.as_text(event)
    assert "[gatewayd.access#info] request_id=r1 caller=alice " in text
    line = json.loads(forms.as_json(event))
    assert (line["endpoint"], line["outcome"], line["total_ms"]) == ("/search", "ok", 2000.0)
    assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"request_id": 'a "b"\\\n\ud800', "caller": None, "address": "", "endpoint": "/\u00fc \x00"},
        {"documents": None, "bytes_out": None, "outcome": "cancelled"},
        {"queue_s": None, "executors_s": None, "gateway_s": None, "more": True},
        {"answers": 0, "first_s": None},
        {"answers": 7, "first_s": 0.0123456},
    ],
)
def test_a_line_of_json_has_the_fields_whatever_is_in_them(changed):
    entry = Setup().exchange()._replace(**changed)

    line = as_json(entry)

    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"time": "2026-11-18T11:06:40.250Z", **fields_of(entry)}
