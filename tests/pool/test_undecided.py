"""What is known of which endpoints there are and which of them stream, and who waits until more is."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from gatewayd.errors import StreamingUnknown, codes_for
from gatewayd.messages.discovery import Told
from gatewayd.messages.generations import Generation
from gatewayd.rpc.call import CallError
from tests.pool.fakes import CALL, REFUSED, Sent, Setup, external

A, B = "10.0.0.1:80", "10.0.0.2:80"
STREAMS = Told({"/x": ""}, Generation.SECOND, streaming=frozenset({"/x"}))
NOTHING = Told({"/x": ""}, Generation.SECOND)


def test_what_a_deployment_binds_is_undecided_until_one_replica_tells() -> None:
    setup = Setup(external(A, B), heard=False, ready=False)
    assert setup.pool.undecided == {"a"}
    decided = setup.pool.decided(frozenset({"a"}))
    setup.channels[A].set_state("ready")
    assert setup.pool.undecided == {"a"}
    setup.channels[A].answer_discovery(NOTHING)
    assert not setup.pool.undecided
    assert decided.called
    setup.channels[B].set_state("ready")
    assert not setup.pool.undecided
    assert setup.pool.decided(frozenset({"a"})).called


def test_what_the_last_replica_has_told_is_known_until_there_is_another() -> None:
    setup = Setup(external(A), heard=False)
    setup.channels[A].answer_discovery(STREAMS)
    setup.pool.replica_down("a", A)
    assert setup.pool.streams("a", "/x")
    assert not setup.pool.endpoints().unknown
    assert not setup.pool.undecided
    setup.pool.replica_up("a", A)
    assert setup.pool.endpoints().unknown == ("a",)
    assert setup.pool.undecided == {"a"}
    setup.channels[A].set_state("ready")
    setup.channels[A].answer_discovery(NOTHING)
    assert not setup.pool.streams("a", "/x")


def test_nothing_is_to_be_waited_for_where_no_replica_can_be_reached() -> None:
    setup = Setup(external(A, B), heard=False, ready=False)
    setup.channels[A].set_state("failed")
    assert setup.pool.undecided == {"a"}
    setup.channels[B].set_state("failed")
    assert not setup.pool.undecided
    setup.channels[A].set_state("ready")
    assert setup.pool.undecided == {"a"}


def test_nor_where_they_do_not_tell() -> None:
    setup = Setup(external(A), heard=False)
    assert setup.pool.undecided == {"a"}
    setup.channels[A].answer_discovery(CallError("INTERNAL", "no"))
    assert not setup.pool.undecided


def test_nor_where_they_speak_another_generation() -> None:
    setup = Setup(external(A), external(B, name="b", needs=("a",)), heard=False)
    setup.channels[A].answer_discovery(NOTHING)
    setup.channels[B].answer_discovery(Told({"/x": ""}, Generation.FIRST))
    assert not setup.pool.undecided


def test_who_cancels_waits_no_more() -> None:
    setup = Setup(external(A), heard=False)
    decided = setup.pool.decided(frozenset({"a"}))
    found: list[object] = []
    decided.addErrback(lambda failure: found.append(failure.trap(CancelledError)))
    decided.cancel()
    setup.channels[A].answer_discovery(NOTHING)
    assert found == [CancelledError]


def test_a_request_for_one_answer_that_waits_is_refused_when_replicas_tell_that_there_are_many() -> None:
    setup = Setup(external(A), heard=False)
    sent = setup.send()
    stream = setup.pool.stream("a", CALL, None)
    streamed = Sent(stream.receive())  # type: ignore[arg-type]
    setup.channels[A].answer_discovery(STREAMS)
    assert isinstance(sent.result, StreamingUnknown)
    assert "/x answers with a stream of documents" in str(sent.result)
    assert codes_for(sent.result).http == 503
    assert not setup.channels[A].calls
    assert len(setup.channels[A].streams) == 1
    stream.cancel()
    assert isinstance(streamed.result, CancelledError)


def test_so_is_one_that_pauses_before_its_next_attempt() -> None:
    setup = Setup(external(A), heard=False, ready=False)
    setup.channels[A].set_state("failed")
    sent = setup.send()
    setup.channels[A].fail(REFUSED)
    setup.channels[A].set_state("ready")
    setup.channels[A].answer_discovery(STREAMS)
    setup.advance(1.0)
    assert isinstance(sent.result, StreamingUnknown)
    assert not setup.channels[A].calls


@pytest.mark.parametrize("floating", [True, False])
def test_nobody_waits_for_the_stream_of_a_floating_one(floating: bool) -> None:
    setup = Setup(external(A, floating=floating), heard=False)
    sent = setup.send()
    setup.channels[A].answer_discovery(STREAMS)
    assert sent.done is not floating
    assert len(setup.channels[A].calls) == floating
    assert floating or isinstance(sent.result, StreamingUnknown)
