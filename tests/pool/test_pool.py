"""The pool in memory: fake channels, a clock and dice that the tests hold."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError

from gatewayd.config import DeploymentConfig, GatewayConfig
from gatewayd.config.model import PoolLimits
from gatewayd.errors import CallFailed, DeadlineExceeded, Draining, ExecutorUnreachable, Overloaded
from gatewayd.messages.discovery import Endpoints, Told, TypedEndpoint
from gatewayd.messages.formats import FIRST, SECOND
from gatewayd.messages.generations import Generation
from gatewayd.messages.wire import Malformed
from gatewayd.pool.retry import RETRY_BACKOFF, RetryBudget, RetryPolicy
from gatewayd.rpc.channel import CallError
from tests.pool.fakes import ANSWER, CALL, LATE, LOST, REFUSED, Setup, external

A, B, C = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"


# -- balancing -----------------------------------------------------------------------------------------


def test_the_less_busy_of_two_gets_the_call() -> None:
    setup = Setup(external(A, B))
    for _ in range(10):
        setup.send()

    assert [len(setup.channels[address].calls) for address in (A, B)] == [5, 5]


def test_round_robin_takes_turns_whatever_is_in_flight() -> None:
    setup = Setup(external(A, B, C), balancing="round_robin")
    order = []
    for _ in range(6):
        before = {address: len(channel.calls) for address, channel in setup.channels.items()}
        setup.send()
        order += [a for a, channel in setup.channels.items() if len(channel.calls) > before[a]]

    assert sorted(order[:3]) == sorted(order[3:]) == [A, B, C]
    assert order[:3] == order[3:]


def test_a_replica_that_is_not_connected_is_passed_over() -> None:
    setup = Setup(external(A, B))
    setup.channels[A].set_state("failed")
    for _ in range(5):
        setup.send()

    assert len(setup.channels[B].calls) == 5


# -- retries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reached", "idempotent", "retries", "again"),
    [
        ("UNAVAILABLE", True, True, -1, True),
        ("UNAVAILABLE", True, False, -1, False),
        ("UNAVAILABLE", False, False, -1, True),
        ("UNAVAILABLE", True, True, 0, False),
        ("UNAVAILABLE", True, False, 3, False),
        ("CANCELLED", True, True, -1, True),
        ("NOT_FOUND", True, True, -1, True),
        ("DEADLINE_EXCEEDED", True, True, -1, False),
        ("DEADLINE_EXCEEDED", True, True, 2, True),
        ("DEADLINE_EXCEEDED", True, False, 2, False),
        ("INTERNAL", True, True, -1, False),
        ("INTERNAL", True, True, 1, True),
        ("UNKNOWN", True, True, -1, False),
        ("UNKNOWN", True, True, 1, True),
        ("UNIMPLEMENTED", True, True, 5, False),
        ("RESOURCE_EXHAUSTED", True, True, 5, False),
        ("INVALID_ARGUMENT", True, True, 5, False),
    ],
)
def test_what_is_tried_again(code: str, reached: bool, idempotent: bool, retries: int, again: bool) -> None:
    policy = RetryPolicy(retries, {} if idempotent else {"/x": False})

    assert policy.allows(code, reached=reached, endpoint="/x", tries=1, replicas=2) is again


@pytest.mark.parametrize(("retries", "replicas", "tries"), [(-1, 1, 4), (-1, 6, 7), (2, 6, 3), (0, 3, 1)])
def test_how_often_a_request_is_tried(retries: int, replicas: int, tries: int) -> None:
    policy = RetryPolicy(retries)
    counted = 1
    while policy.allows("UNAVAILABLE", reached=True, endpoint="", tries=counted, replicas=replicas):
        counted += 1

    assert counted == tries


def test_an_endpoint_of_its_own_wins_over_the_star() -> None:
    policy = RetryPolicy(-1, {"*": False, "/search": True})

    assert policy.allows("UNAVAILABLE", reached=True, endpoint="/search", tries=1, replicas=1)
    assert not policy.allows("UNAVAILABLE", reached=True, endpoint="/index", tries=1, replicas=1)


def test_four_tries_take_less_than_half_a_second_of_pauses() -> None:
    assert sum(RETRY_BACKOFF.delay_s(tries, 1.0) for tries in (1, 2, 3)) < 0.5


def test_a_lost_connection_fails_no_request() -> None:
    setup = Setup(external(A, B))
    sent = [setup.send() for _ in range(10)]
    setup.channels[A].set_state("connecting")
    for _ in range(5):
        setup.channels[A].fail(LOST)
    setup.advance(0.01)
    while setup.channels[B].calls:
        setup.channels[B].answer()

    assert [one.result for one in sent] == [ANSWER] * 10
    assert setup.in_flight == 0
    assert setup.count("retried") == 5


def test_whoever_placed_a_replica_is_told_when_it_is_out_of_reach() -> None:
    setup = Setup(external(A, B))
    told: list[str] = []
    setup.pool.on_out_of_reach(told.append)
    setup.channels[A].set_state("connecting")
    assert told == [A]
    setup.channels[A].set_state("failed")
    setup.channels[A].set_state("connecting")
    setup.channels[A].set_state("ready")

    assert told == [A, A]


@pytest.mark.parametrize("served_before", [False, True])
def test_only_replicas_that_have_answered_count_as_ended_by_a_request(served_before: bool) -> None:
    """A server that greets and hangs up costs a request its attempts, not its answer."""
    setup = Setup(external(A, B, C))
    if served_before:
        for channel in setup.channels.values():
            channel.answer_discovery()
    sent = setup.send()
    for _ in range(2):
        channel = next(channel for channel in setup.channels.values() if channel.calls)
        channel.fail(CallError("UNAVAILABLE", "Socket closed", lost=True))
        setup.advance(0.01)

    assert sent.done is served_before
    if not served_before:
        next(channel for channel in setup.channels.values() if channel.calls).answer()
        assert sent.result == ANSWER


def test_the_same_replica_is_not_called_twice_while_another_is_left() -> None:
    setup = Setup(external(A, B, C))
    sent = setup.send()
    asked = []
    for _ in range(3):
        channel = next(channel for channel in setup.channels.values() if channel.calls)
        asked.append(channel.address)
        channel.fail(LOST)
        setup.advance(0.01)

    assert sorted(asked) == [A, B, C]
    assert not sent.done


def test_a_request_is_tried_again_on_another_host_first() -> None:
    """A machine that dies takes all of its replicas along; a request survives the loss of one executor."""
    hosts = external("10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3", "10.0.0.2:1")
    setup = Setup(hosts, eject_after_failures=1000)
    for channel in setup.channels.values():
        channel.answer_discovery()
    sent = [setup.send() for _ in range(40)]
    for address in ("10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"):
        while setup.channels[address].calls:
            setup.channels[address].fail(LOST)
    setup.advance(0.1)

    assert not any(channel.calls for address, channel in setup.channels.items() if address != "10.0.0.2:1")
    while setup.channels["10.0.0.2:1"].calls:
        setup.channels["10.0.0.2:1"].answer()
    assert [one.result for one in sent] == [ANSWER] * 40


def test_a_full_replica_is_waited_for_rather_than_asking_the_same_one_twice() -> None:
    setup = Setup(external(A, B), max_in_flight_per_replica=1)
    first, second = setup.send(), setup.send()
    setup.channels[A].fail(LOST)
    setup.advance(0.01)

    assert not setup.channels[A].calls
    setup.channels[B].answer()
    assert len(setup.channels[B].calls) == 1
    setup.channels[B].answer()
    assert first.result == second.result == ANSWER


def test_the_error_names_every_address_that_was_tried() -> None:
    setup = Setup(external(A, B), eject_after_failures=100)
    sent = setup.send()
    for _ in range(100):
        for channel in setup.channels.values():
            while channel.calls:
                channel.fail(LOST)
        setup.advance(0.01)

    assert isinstance(sent.result, ExecutorUnreachable)
    assert sent.result.addresses == (A, B)
    assert setup.count("picked") == 4


def test_garbage_is_not_tried_again_because_the_answer_had_begun() -> None:
    setup = Setup(external(A, B))
    sent = setup.send()
    next(channel for channel in setup.channels.values() if channel.calls).fail(Malformed("nonsense"))

    assert isinstance(sent.result, CallFailed)
    assert sent.result.code == "INTERNAL"


def test_an_outage_spends_the_budget_and_then_tries_everything_once() -> None:
    budget = RetryBudget(0.2, reserve=10)
    granted = 0
    for _ in range(1000):
        budget.earn()
        while budget.spend():
            granted += 1

    assert granted == pytest.approx(10 + 0.2 * 1000, abs=2)


def test_without_budget_the_request_fails_at_once() -> None:
    setup = Setup(external(A, B), max_in_flight_per_replica=1, retry_budget=0.0, max_queued=0)
    first = setup.send()
    next(channel for channel in setup.channels.values() if channel.calls).fail(LOST)
    setup.advance(0.01)
    next(channel for channel in setup.channels.values() if channel.calls).fail(LOST)

    assert isinstance(first.result, ExecutorUnreachable)
    assert setup.count("retry refused") == 1


def test_a_timeout_is_not_retried() -> None:
    setup = Setup(external(A, B, timeout_send_s=2.0))
    sent = setup.send()
    channel = next(channel for channel in setup.channels.values() if channel.calls)
    assert channel.calls[0][1] == 2.0
    channel.fail(LATE)

    assert isinstance(sent.result, DeadlineExceeded)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_a_timeout_of_zero_or_less_means_no_timeout(timeout_s: float) -> None:
    setup = Setup(external(A, timeout_send_s=timeout_s))
    setup.send()

    assert setup.channels[A].calls[0][1] is None


def test_explicit_retries_repeat_a_timed_out_call_with_the_full_timeout() -> None:
    setup = Setup(external(A, timeout_send_s=2.0, retries=2))
    sent = setup.send()
    timeouts = []
    for _ in range(3):
        timeouts.append(setup.channels[A].calls[0][1])
        setup.channels[A].fail(LATE)
        setup.advance(0.6)

    assert timeouts == [2.0, 2.0, 2.0]
    assert isinstance(sent.result, DeadlineExceeded)


def test_the_clients_deadline_shortens_the_timeout_and_ends_the_tries() -> None:
    setup = Setup(external(A, timeout_send_s=10.0))
    sent = setup.send(timeout_s=3.0)
    assert setup.channels[A].calls[0][1] == 3.0
    setup.advance(2.99)
    setup.channels[A].fail(LOST)
    setup.advance(0.05)

    assert isinstance(sent.result, ExecutorUnreachable)
    assert not setup.channels[A].calls


# -- ejection ------------------------------------------------------------------------------------------


def fail_on(setup: Setup, address: str, times: int, error: Exception = LATE) -> None:
    while times:
        sent = setup.send()
        channel = next(channel for channel in setup.channels.values() if channel.calls)
        if channel.address == address:
            channel.fail(error)
            times -= 1
        else:
            channel.answer()
        assert sent.done


def test_a_replica_that_fails_repeatedly_gets_no_calls_until_a_probe_is_answered() -> None:
    setup = Setup(external(A, B), eject_after_failures=3, eject_s=5.0)
    setup.channels[A].answer_discovery()
    fail_on(setup, A, 3)
    assert setup.count("ejected") == 1

    for _ in range(20):
        setup.send()
    assert not setup.channels[A].calls
    setup.advance(5.1)
    assert len(setup.channels[A].asked) == 1
    setup.channels[A].answer_discovery(CallError("DEADLINE_EXCEEDED", ""))
    assert setup.replica(A).ejected
    setup.advance(9.9)
    assert not setup.channels[A].asked
    setup.advance(0.2)
    setup.channels[A].answer_discovery(("/x",))

    assert not setup.replica(A).ejected
    setup.send()
    assert len(setup.channels[A].calls) == 1


def test_after_a_probe_one_failure_is_enough_and_the_pause_is_longer() -> None:
    setup = Setup(external(A, B), eject_after_failures=3, eject_s=5.0)
    setup.channels[A].answer_discovery()
    fail_on(setup, A, 3)
    setup.advance(5.1)
    setup.channels[A].answer_discovery()
    fail_on(setup, A, 1)

    assert setup.replica(A).ejected
    setup.advance(9.9)
    assert not setup.channels[A].asked
    setup.advance(0.2)
    assert setup.channels[A].asked


def test_a_success_in_between_resets_the_failures() -> None:
    setup = Setup(external(A), eject_after_failures=2)
    for _ in range(5):
        setup.send()
        setup.channels[A].fail(LATE)
        setup.send()
        setup.channels[A].answer()

    assert setup.replica(A).failures == 0


def test_the_last_one_is_never_ejected() -> None:
    setup = Setup(external(A, B), eject_after_failures=2)
    fail_on(setup, A, 2)
    for _ in range(10):
        setup.send()
        setup.channels[B].fail(LATE)

    assert setup.replica(A).ejected
    assert not setup.replica(B).ejected


def test_an_ejected_replica_is_asked_when_it_is_the_only_one_left() -> None:
    setup = Setup(external(A, B), eject_after_failures=2)
    fail_on(setup, A, 2)
    setup.channels[B].set_state("failed")
    sent = setup.send()
    setup.channels[A].answer()

    assert sent.result == ANSWER
    assert not setup.replica(A).ejected


def test_a_new_connection_ends_the_ejection() -> None:
    setup = Setup(external(A, B), eject_after_failures=2)
    fail_on(setup, A, 2)
    setup.channels[A].set_state("connecting")
    setup.channels[A].set_state("ready")

    assert not setup.replica(A).ejected
    assert setup.count("restored") == 1


def test_a_list_of_endpoints_that_is_garbage_does_not_end_the_probing() -> None:
    from google.protobuf.message import DecodeError

    setup = Setup(external(A, B), eject_after_failures=2, eject_s=1.0)
    setup.channels[A].answer_discovery()
    fail_on(setup, A, 2)
    setup.advance(1.01)
    setup.channels[A].answer_discovery(DecodeError("nonsense"))
    setup.advance(2.01)
    assert setup.channels[A].asked


def test_impatient_clients_alone_eject_no_replica() -> None:
    setup = Setup(external(A, B), eject_after_failures=2)
    for _ in range(20):
        sent = setup.send(timeout_s=0.001)
        setup.clock.advance(0.001)
        sent.deferred.cancel()
        for channel in setup.channels.values():
            while channel.asked:
                channel.answer_discovery()

    assert setup.count("ejected") == 0
    assert setup.in_flight == 0


def test_a_replica_that_clients_give_up_on_is_probed_and_ejected_if_it_is_silent() -> None:
    setup = Setup(external(A, B))
    for channel in setup.channels.values():
        channel.answer_discovery()
    sent = setup.send()
    silent = next(channel for channel in setup.channels.values() if channel.calls)
    setup.advance(1.0)
    sent.deferred.cancel()
    assert len(silent.asked) == 1
    silent.answer_discovery(CallError("DEADLINE_EXCEEDED", ""))

    assert setup.replica(silent.address).ejected


# -- outages -------------------------------------------------------------------------------------------


def test_with_every_replica_refusing_the_answer_comes_within_a_second() -> None:
    setup = Setup(external(A, B), ready=False)
    for channel in setup.channels.values():
        channel.set_state("failed")
    sent = setup.send()
    for _ in range(99):
        for channel in setup.channels.values():
            while channel.calls:
                channel.fail(REFUSED)
        setup.advance(0.01)

    assert isinstance(sent.result, ExecutorUnreachable)
    assert "failed to connect" in str(sent.result)


@pytest.mark.parametrize("state", ["connecting", "failed"])
def test_with_every_replica_silent_the_answer_comes_within_a_second(state: str) -> None:
    setup = Setup(external(A, B, C), ready=False)
    for channel in setup.channels.values():
        channel.set_state(state)
    sent = setup.send()
    setup.advance(0.95)

    assert isinstance(sent.result, ExecutorUnreachable)
    assert setup.in_flight == 0


def test_without_a_running_executor_the_request_fails_within_a_second() -> None:
    setup = Setup(DeploymentConfig("a"))
    sent = setup.send()
    setup.advance(0.95)

    assert isinstance(sent.result, ExecutorUnreachable)
    assert "no replica is running" in str(sent.result)


def test_an_executor_that_starts_in_time_answers_waiting_requests() -> None:
    setup = Setup(DeploymentConfig("a"))
    sent = setup.send()
    setup.advance(0.5)
    setup.pool.replica_up("a", A)
    setup.advance(0.1)
    setup.channels[A].set_state("ready")
    setup.channels[A].answer()

    assert sent.result == ANSWER


def test_an_outage_fails_queued_requests_within_a_second() -> None:
    setup = Setup(external(A), max_in_flight_per_replica=1)
    setup.send()
    waiting = setup.send()
    setup.advance(2.0)
    setup.channels[A].set_state("connecting")
    setup.advance(0.95)

    assert isinstance(waiting.result, ExecutorUnreachable)


def test_queued_requests_survive_a_short_outage() -> None:
    setup = Setup(external(A, retries=0), max_in_flight_per_replica=1)
    setup.send()
    waiting, behind = setup.send(), setup.send()
    setup.channels[A].set_state("connecting")
    setup.channels[A].fail(LOST)
    setup.advance(0.1)
    setup.channels[A].set_state("ready")
    setup.advance(2.0)
    setup.channels[A].answer()
    setup.channels[A].answer()

    assert waiting.result == behind.result == ANSWER


def test_a_call_that_was_lost_late_may_still_wait_for_the_new_connection() -> None:
    setup = Setup(external(A))
    sent = setup.send()
    setup.advance(60)
    setup.channels[A].set_state("connecting")
    setup.channels[A].fail(LOST)
    setup.advance(0.3)
    setup.channels[A].set_state("ready")
    setup.advance(0.2)
    setup.channels[A].answer()

    assert sent.result == ANSWER


# -- bounds --------------------------------------------------------------------------------------------


def test_a_full_replica_makes_requests_wait_in_order() -> None:
    setup = Setup(external(A), max_in_flight_per_replica=2)
    calls = [CALL.__class__((str(index).encode(),), "/x") for index in range(5)]
    for call in calls:
        setup.send(call)
    order = []
    while setup.channels[A].calls:
        order.append(setup.channels[A].calls[0][0])
        setup.channels[A].answer()

    assert order == calls


def test_a_queue_that_is_full_refuses_at_once() -> None:
    setup = Setup(external(A), max_in_flight_per_replica=1, max_queued=1)
    setup.send()
    setup.send()
    refused = setup.send()

    assert isinstance(refused.result, Overloaded)
    assert refused.result.retry_after_s > 0
    assert setup.count("refused") == 1


def test_waiting_for_a_slot_has_a_deadline() -> None:
    setup = Setup(external(A), max_in_flight_per_replica=1, queue_timeout_s=5.0)
    setup.send()
    waiting = setup.send()
    setup.advance(4.9)
    assert not waiting.done
    setup.advance(0.2)

    assert isinstance(waiting.result, Overloaded)


def test_the_clients_deadline_ends_the_waiting() -> None:
    setup = Setup(external(A), max_in_flight_per_replica=1)
    setup.send()
    waiting = setup.send(timeout_s=1.0)
    setup.advance(1.1)

    assert isinstance(waiting.result, DeadlineExceeded)


def test_the_gateways_slots_are_shared_and_go_to_waiting_requests() -> None:
    b = DeploymentConfig("b", external=True, addresses=(B,))
    setup = Setup(external(A), b, max_in_flight=1)
    setup.send()
    waiting = setup.send(to="b")
    assert not setup.channels[B].calls
    setup.channels[A].answer()
    setup.channels[B].answer()

    assert waiting.result == ANSWER
    assert setup.pool.slots.free == 1


def test_a_slot_is_not_lost_on_a_deployment_whose_waiters_have_left() -> None:
    b = DeploymentConfig("b", external=True, addresses=(B,))
    c = DeploymentConfig("c", external=True, addresses=(C,))
    setup = Setup(external(A), b, c, max_in_flight=1)
    setup.send()
    left, stays = setup.send(to="b"), setup.send(to="c")
    left.deferred.cancel()
    setup.channels[A].answer()
    setup.channels[C].answer()

    assert stays.result == ANSWER


# -- cancelling, coming and going ----------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["calling", "queued", "connecting", "backing off", "between tries"])
def test_cancelling_leaves_nothing_behind(stage: str) -> None:
    setup = Setup(external(A), max_in_flight_per_replica=1, max_in_flight=2)
    holder = None
    if stage == "queued":
        holder = setup.send()
    if stage == "connecting":
        setup.channels[A].set_state("connecting")
    sent = setup.send()
    if stage in ("backing off", "between tries"):
        setup.channels[A].fail(LOST)
    if stage == "between tries":
        setup.channels[A].set_state("connecting")
        setup.advance(0.2)
    sent.deferred.cancel()
    assert isinstance(sent.result, CancelledError)
    if holder is not None:
        setup.channels[A].answer()
    setup.advance(10)

    assert setup.in_flight == 0
    assert setup.pool.slots.free == 2
    assert setup.pool.waiting()["a"] == 0
    assert not setup.channels[A].calls


def test_a_replica_that_goes_fails_its_calls_over_to_the_others() -> None:
    setup = Setup(DeploymentConfig("a"), ready=False)
    for address in (A, B):
        setup.pool.replica_up("a", address)
        setup.channels[address].set_state("ready")
    sent = [setup.send() for _ in range(4)]
    setup.pool.replica_down("a", A)
    setup.advance(0.05)
    while setup.channels[B].calls:
        setup.channels[B].answer()

    assert [one.result for one in sent] == [ANSWER] * 4
    assert setup.channels[A].closed
    assert setup.pool.slots.free == 4000


def test_closing_fails_everything_at_once() -> None:
    setup = Setup(external(A), max_in_flight_per_replica=1)
    sent = [setup.send(), setup.send()]
    setup.pool.close()

    assert [type(one.result) for one in sent] == [Draining] * 2
    assert isinstance(setup.send().result, Draining)
    assert not setup.clock.getDelayedCalls()


def test_what_is_served_is_what_some_replica_binds() -> None:
    setup = Setup(external(A, B))
    assert setup.pool.serves("a", "/anything")
    setup.channels[A].answer_discovery(("/index",))
    assert setup.pool.serves("a", "/index")
    assert not setup.pool.serves("a", "/search")
    setup.channels[B].answer_discovery(("/search",))
    assert setup.pool.serves("a", "/search")


def test_the_format_of_the_documents_is_what_executors_tell() -> None:
    setup = Setup(external(A, B))
    assert setup.pool.format is FIRST
    setup.channels[A].asked.pop(0).callback(Told({"/x": ""}, Generation.SECOND))
    assert setup.pool.format is SECOND


def test_bound_endpoints_are_known_as_far_as_executors_have_reported_them() -> None:
    setup = Setup(external(A, B))
    assert setup.pool.endpoints() == Endpoints({}, ("a",))
    setup.channels[A].answer_discovery(("/index", "_jina_dry_run_"))
    assert setup.pool.endpoints() == Endpoints({"/index": "does /index"})
    setup.channels[B].answer_discovery(("/search",))
    assert list(setup.pool.endpoints().bound) == ["/index", "/search"]


def test_what_executors_tell_of_types_and_streams_reaches_the_flow() -> None:
    setup = Setup(external(A), external(B, name="b", needs=("a",)))
    one = TypedEndpoint({"title": "In"}, {"title": "Mid"}, "In", "Mid")
    other = TypedEndpoint({"title": "Mid"}, {"title": "Out"}, "Mid", "Out", streams=True)
    setup.channels[B].answer_discovery(Told({"/x": ""}, Generation.SECOND, {"/x": other}, frozenset({"/x"})))
    assert setup.pool.endpoints().typed == {"/x": other}
    setup.channels[A].answer_discovery(Told({"/x": ""}, Generation.SECOND, {"/x": one}))
    found = setup.pool.endpoints()
    assert found is setup.pool.endpoints()
    assert found.generation == Generation.SECOND
    assert (found.typed["/x"].input_name, found.typed["/x"].output_name) == ("In", "Out")
    assert found.streaming == {"/x"}
    assert setup.pool.streams("b", "/x")
    assert not setup.pool.streams("a", "/x")
    assert not setup.pool.streams("b", "/y")


def test_discovered_waits_for_the_flows_own_executors_alone() -> None:
    setup = Setup(external(A), DeploymentConfig("own", replicas=2))
    told: list[None] = []
    setup.pool.discovered().addCallback(told.append)
    for address in ("h:1", "h:2"):
        setup.pool.replica_up("own", address)
        setup.channels[address].set_state("ready")
    assert not told
    setup.channels["h:2"].answer_discovery()
    assert told == [None]
    setup.pool.discovered().addCallback(told.append)
    assert told == [None, None]


def test_discovery_is_tried_again_and_refreshed_with_every_connection() -> None:
    setup = Setup(external(A))
    setup.channels[A].answer_discovery(CallError("DEADLINE_EXCEEDED", ""))
    assert not setup.channels[A].asked
    setup.advance(1.01)
    setup.channels[A].answer_discovery(("/old",))
    setup.channels[A].set_state("connecting")
    setup.channels[A].set_state("ready")
    setup.channels[A].answer_discovery(("/new",))

    assert list(setup.replica(A).endpoints or ()) == ["/new"]


# -- invariants ----------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_every_request_is_answered_once_and_nothing_leaks(seed: int) -> None:
    dice = random.Random(seed)
    limits = PoolLimits(
        max_in_flight_per_replica=dice.choice([1, 2, 5]),
        max_in_flight=dice.choice([2, 5, 100]),
        max_queued=dice.choice([0, 3, 50]),
        eject_after_failures=dice.choice([1, 2, 5]),
        balancing=dice.choice(["least_in_flight", "round_robin"]),
    )
    gateway = GatewayConfig(
        pool=limits, retries=dice.choice([-1, 0, 3]), timeout_send_s=dice.choice([None, 1])
    )
    setup = Setup(DeploymentConfig("a"), DeploymentConfig("b"), gateway=gateway, seed=seed)
    sent = []
    for step in range(300):
        name = dice.choice("ab")
        address = f"10.0.0.{dice.randrange(4)}:{1 if name == 'a' else 2}"
        channel = setup.channels.get(address)
        event = dice.randrange(12)
        if event <= 3:
            sent.append(setup.send(to=name, timeout_s=dice.choice([None, None, 0.2, 2.0])))
        elif event == 4:
            setup.pool.replica_up(name, address)
        elif event == 5 and dice.random() < 0.3:
            setup.pool.replica_down(name, address)
        elif event == 6 and channel and not channel.closed:
            channel.set_state(dice.choice(["ready", "ready", "ready", "connecting", "failed"]))
        elif event == 7 and channel and channel.calls:
            channel.fail(dice.choice([LOST, REFUSED, LATE, CallError("INTERNAL", ""), Malformed("")]))
        elif event == 8 and sent:
            dice.choice(sent).deferred.cancel()
        elif event == 9:
            setup.clock.advance(dice.choice([0.0, 0.01, 0.5, 3.0]))
        elif channel and channel.calls:
            channel.answer()
        elif channel and channel.asked:
            channel.answer_discovery(dice.choice([("/x",), LATE]))
        for states in setup.pool.states().values():
            assert all(0 <= state.in_flight <= limits.max_in_flight_per_replica for state in states), step
            fit = [s for s in states if s.state == "ready"]
            assert not fit or any(not s.ejected for s in fit) or step
        assert setup.pool.slots.free >= 0
        assert all(count <= limits.max_queued for count in setup.pool.waiting().values())

    for _ in range(50):
        for channel in setup.channels.values():
            while channel.calls:
                channel.answer()
        setup.clock.advance(0.5)

    assert all(len(one.results) == 1 for one in sent)
    assert setup.in_flight == 0
    assert setup.pool.slots.free == limits.max_in_flight
    assert not any(setup.pool.waiting().values())
    setup.pool.close()
    assert not setup.clock.getDelayedCalls()
