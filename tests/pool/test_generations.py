"""Executors of one Flow speak one generation of documents: others are told by name, and not called."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from gatewayd.config import DeploymentConfig, GatewayConfig
from gatewayd.errors import ForeignExecutor, GenerationUnknown, codes_for
from gatewayd.health import parts_of
from gatewayd.messages.discovery import Told
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Answer, Call
from gatewayd.messages.single import encode_single_calls
from gatewayd.messages.wire import encode_call
from gatewayd.rpc.call import CallError
from tests.pool.fakes import REFUSED, Sent, Setup, external

A, B = "10.0.0.1:80", "10.0.0.2:80"
FIRST = Told({"/x": ""}, Generation.FIRST)
SECOND = Told({"/x": ""}, Generation.SECOND)
OF_FIRST = Call((bytes(encode_call("r", "/x", Answer(b"\n\x05\n\x03\n\x01a"))),), "/x")
ONE_OF_FIRST = Call(tuple(encode_single_calls(OF_FIRST.messages[0])), "/x")
SAYS_NOTHING = Told({"/default": ""})


@pytest.fixture
def warnings() -> Any:
    found: list[Any] = []

    def observe(event: Any) -> None:
        if event["log_level"].name == "warn":
            found.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def two(**settings: Any) -> Setup:
    gateway = GatewayConfig(**settings)
    return Setup(external(A), external(B, name="b", needs=("a",)), gateway=gateway)


def test_what_the_first_executor_tells_is_what_the_flow_speaks() -> None:
    setup = two()
    assert setup.pool.generation is None
    setup.channels[B].answer_discovery(SAYS_NOTHING)
    assert setup.pool.generation is None
    setup.channels[A].answer_discovery(SECOND)
    assert setup.pool.generation == Generation.SECOND
    assert setup.pool.endpoints().generation == Generation.SECOND
    assert setup.pool.disagreement() == ""
    setup.send(to="b")
    assert setup.channels[B].calls


def test_one_that_speaks_another_is_not_called_and_told_by_name(warnings: list[str]) -> None:
    setup = two()
    setup.channels[A].answer_discovery(FIRST)
    setup.channels[B].answer_discovery(SECOND)

    sent = setup.send(to="b")
    assert isinstance(sent.result, ForeignExecutor)
    assert "it speaks docarray 0.30 and later, and the Flow docarray 0.21" in str(sent.result)
    assert B in str(sent.result)
    assert "deployment b" in str(sent.result)
    assert codes_for(sent.result).grpc == "UNAVAILABLE"
    assert not setup.channels[B].calls
    setup.send(to="a")
    assert setup.channels[A].calls
    (warning,) = warnings
    assert warning.startswith(f"b: {B} is not called: it speaks docarray 0.30 and later")

    found = setup.pool.disagreement()
    assert f"a ({A}) speaks docarray 0.21 and earlier, and b ({B}) speaks docarray 0.30 and later" in found
    assert setup.pool.connected() == {("a", 0): 1, ("b", 0): 0}
    (part,) = (part for part in parts_of(setup.pool.connected(), (), setup.pool.foreign()) if part.why)
    assert (part.deployment, part.connected) == ("b", 0)
    assert setup.pool.reached() == {"a", "b"}


def test_a_request_that_waits_for_one_that_turns_out_to_speak_another_is_refused() -> None:
    setup = Setup(external(A), external(B, name="b", needs=("a",)), max_in_flight_per_replica=1)
    setup.channels[A].answer_discovery(FIRST)
    setup.send(to="b")
    queued = setup.send(to="b")
    setup.channels[B].answer_discovery(SECOND)
    setup.advance(1.0)
    assert isinstance(queued.result, ForeignExecutor)


def test_the_flow_file_has_the_last_word() -> None:
    setup = two(docarray=Generation.SECOND)
    setup.channels[A].answer_discovery(FIRST)
    setup.channels[B].answer_discovery(SECOND)
    assert setup.pool.generation == Generation.SECOND
    assert setup.pool.endpoints().generation == Generation.SECOND
    assert isinstance(setup.send(to="a").result, ForeignExecutor)
    assert "the Flow file says docarray: 2, which is docarray 0.30 and later, and a (" in (
        setup.pool.disagreement()
    )


def test_executors_that_are_replaced_by_others_may_change_what_a_flow_speaks() -> None:
    setup = Setup(external(A))
    setup.channels[A].answer_discovery(FIRST)
    setup.channels[A].set_state("connecting")
    setup.channels[A].set_state("ready")
    setup.channels[A].answer_discovery(SECOND)
    assert setup.pool.generation == Generation.SECOND
    assert setup.pool.disagreement() == ""
    setup.send()
    assert setup.channels[A].calls


def test_a_replica_that_comes_back_is_not_called_before_it_has_told_what_it_speaks() -> None:
    setup = Setup(external(A), heard=False)
    setup.channels[A].answer_discovery(SECOND)
    setup.channels[A].set_state("connecting")
    setup.channels[A].set_state("ready")
    sent = setup.send()
    assert not setup.channels[A].calls
    setup.channels[A].answer_discovery(SECOND)
    assert setup.channels[A].calls
    assert not sent.done


@pytest.mark.parametrize(("told", "taken"), [(FIRST, True), (SECOND, False), (SAYS_NOTHING, True)])
def test_before_anybody_has_told_what_it_speaks_requests_wait(told: Told, taken: bool) -> None:
    setup = Setup(external(A), heard=False)
    sent, empty = setup.send(OF_FIRST), setup.send()
    assert not setup.channels[A].calls
    setup.channels[A].answer_discovery(told)
    assert [call.messages for call, _, _ in setup.channels[A].calls] == (
        [OF_FIRST.messages, (b"",)] if taken else [(b"",)]
    )
    assert not empty.done
    if not taken:
        assert isinstance(sent.result, GenerationUnknown)
        assert "in the format of docarray 0.21 and earlier; that they take that of docarray 0.30" in str(
            sent.result
        )
        assert codes_for(sent.result).http == 503


def test_requests_that_wait_while_an_executor_is_replaced_by_one_of_another_generation_are_refused() -> None:
    setup = Setup(external(A), heard=False)
    setup.channels[A].answer_discovery(FIRST)
    setup.channels[A].set_state("connecting")
    waits, stream = setup.send(OF_FIRST), setup.pool.stream("a", ONE_OF_FIRST, None)
    streamed = Sent(stream.receive())  # type: ignore[arg-type]
    setup.channels[A].set_state("ready")
    setup.channels[A].answer_discovery(SECOND)
    assert isinstance(waits.result, GenerationUnknown)
    assert isinstance(streamed.result, GenerationUnknown)
    assert not setup.channels[A].calls
    assert not setup.channels[A].streams


def test_a_request_that_pauses_before_its_next_try_is_refused_then() -> None:
    setup = Setup(external(A))
    setup.channels[A].answer_discovery(FIRST)
    sent = setup.send(OF_FIRST)
    setup.channels[A].fail(REFUSED)
    setup.channels[A].set_state("connecting")
    setup.channels[A].set_state("ready")
    setup.channels[A].answer_discovery(SECOND)
    assert not sent.done
    setup.advance(1.0)
    assert isinstance(sent.result, GenerationUnknown)
    assert not setup.channels[A].calls


@pytest.mark.parametrize(("told", "taken"), [(FIRST, True), (SECOND, False)])
def test_calls_that_were_not_sent_when_their_executor_went_away_wait_for_what_the_next_one_tells(
    told: Told, taken: bool
) -> None:
    setup = Setup(external(A), heard=False)
    setup.channels[A].answer_discovery(FIRST)
    sent = setup.send(OF_FIRST)
    setup.channels[A].set_state("connecting")
    setup.channels[A].fail(REFUSED)
    setup.channels[A].set_state("ready")
    setup.advance(0.5)
    assert not setup.channels[A].calls
    setup.channels[A].answer_discovery(told)
    assert [call.messages for call, _, _ in setup.channels[A].calls] == [OF_FIRST.messages] * taken
    assert sent.done is not taken
    if not taken:
        assert isinstance(sent.result, GenerationUnknown)


def test_what_the_process_before_tells_late_is_not_taken_for_what_the_next_one_tells() -> None:
    setup = Setup(external(A), heard=False)
    before = setup.channels[A].asked.pop(0)
    setup.channels[A].set_state("connecting")
    setup.channels[A].set_state("ready")
    before.callback(FIRST)
    sent = setup.send(OF_FIRST)
    assert not setup.channels[A].calls
    setup.channels[A].answer_discovery(SECOND)
    assert isinstance(sent.result, GenerationUnknown)
    assert not setup.channels[A].calls


def test_that_the_process_before_did_not_tell_says_nothing_of_the_next_one() -> None:
    setup = Setup(external(A), heard=False)
    before = setup.channels[A].asked.pop(0)
    setup.channels[A].set_state("connecting")
    setup.channels[A].set_state("ready")
    before.errback(CallError("UNAVAILABLE", "Socket closed"))
    setup.send()
    assert not setup.channels[A].calls
    setup.channels[A].answer_discovery(SECOND)
    assert len(setup.channels[A].calls) == 1


def test_one_that_comes_back_and_tells_nothing_is_called_all_the_same() -> None:
    setup = Setup(external(A), heard=False)
    setup.channels[A].answer_discovery(SECOND)
    setup.channels[A].set_state("connecting")
    setup.channels[A].set_state("ready")
    setup.send()
    setup.channels[A].answer_discovery(CallError("UNIMPLEMENTED", "no such method"))
    assert setup.channels[A].calls


def test_of_the_replicas_of_one_deployment_those_that_speak_it_are_called() -> None:
    setup = Setup(DeploymentConfig("a", external=True, addresses=(A, B)))
    setup.channels[B].answer_discovery(SECOND)
    setup.channels[A].answer_discovery(FIRST)
    for _ in range(4):
        setup.send()
    assert len(setup.channels[B].calls) == 4
    assert not setup.pool.foreign()
    assert f"a ({A}) speaks docarray 0.21" in setup.pool.disagreement()
