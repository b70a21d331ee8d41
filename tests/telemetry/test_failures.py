"""The requests that failed last are kept, and no more of them than a page has."""

import attrs
from twisted.internet.defer import CancelledError

from gatewayd.errors import Draining
from gatewayd.messages.request import Request, Response
from gatewayd.pb import StatusProto
from gatewayd.telemetry.failures import MOST, FailedRequest, Failures, last_of
from gatewayd.telemetry.observed import Exchange


def exchange(*, request_id="r", endpoint="/search", error=None, status=b""):
    one = Exchange("http", Request(request_id, endpoint), 10.0)
    one.ended_s = 10.5
    one.error = error
    if error is None:
        one.response = Response(request_id, endpoint, b"", status=status)
    return one


def kept(*exchanges):
    failures = Failures(lambda: 1000.0)
    for each in exchanges:
        failures.ended(each)
    return failures.last


def test_a_request_that_fails():
    (one,) = kept(exchange(error=Draining()))

    assert one == FailedRequest(1000.0, "r", "http", "/search", "draining", str(Draining()), 0.5)


def test_an_executor_that_raises():
    status = StatusProto(code=StatusProto.ERROR, description="ValueError('boom')")
    status.exception.executor = "Indexer"

    (one,) = kept(exchange(status=status.SerializeToString()))

    assert (one.outcome, one.reason) == ("executor_error", "Indexer: ValueError('boom')")


def test_a_status_that_is_none():
    (one,) = kept(exchange(status=b"\xff"))

    assert one.reason == "an executor answered with a status that cannot be read"


def test_what_succeeds_and_what_its_client_left_is_no_failure():
    assert kept(exchange(), exchange(error=CancelledError())) == ()


def test_a_bug_has_the_name_of_its_exception_alone():
    (one,) = kept(exchange(error=KeyError("secret")))

    assert (one.outcome, one.reason) == ("internal", "KeyError")


def test_texts_of_clients_are_cut_and_have_no_control_characters():
    (one,) = kept(exchange(request_id="\x1b[31m" + "x" * 500, endpoint="/" + "y" * 500, error=Draining()))

    assert one.request_id.startswith("\N{REPLACEMENT CHARACTER}[31mxxx")
    assert len(one.request_id) == len(one.endpoint) == 103


def test_passwords_in_addresses_are_not_shown():
    status = StatusProto(description="cannot reach https://ada:secret@store.example/x")

    (one,) = kept(exchange(status=status.SerializeToString()))

    assert "secret" not in one.reason


def test_the_oldest_are_forgotten():
    failed = kept(*(exchange(request_id=str(number), error=Draining()) for number in range(MOST + 5)))

    assert [each.request_id for each in failed] == [str(number) for number in range(5, MOST + 5)]


def test_those_of_several_processes_together():
    early, late = kept(exchange(error=Draining())), kept(exchange(request_id="s", error=Draining()))
    late = tuple(attrs.evolve(each, at_s=2000.0) for each in late)

    assert last_of([late, early]) == (*early, *late)


def test_they_come_back_from_json():
    (one,) = kept(exchange(error=Draining()))

    assert FailedRequest.from_json(attrs.asdict(one)) == one
