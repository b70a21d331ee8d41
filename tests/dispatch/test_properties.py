"""Random Flows, answer orders, failures and cancellations, against oracles that need no engine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from gatewayd.config import DeploymentConfig
from gatewayd.errors import DeadlineExceeded, ExecutorUnreachable
from gatewayd.messages.request import Answer, Request, Response
from gatewayd.messages.wire import decode_answer
from gatewayd.pb import DataContentProto
from tests.dispatch.fakes import FakePool, build, failed, ids

pytestmark = pytest.mark.slow

REQUEST = Request("r", "/x", documents=b"\n\x06\n\x04\n\x02d0")


@st.composite
def flows(draw: st.DrawFn) -> tuple[DeploymentConfig, ...]:
    """Up to seven Deployments that need any of those before them, or the gateway."""
    made: list[DeploymentConfig] = []
    for index in range(draw(st.integers(0, 7))):
        earlier = ["gateway", *(each.name for each in made)]
        needs = draw(st.lists(st.sampled_from(earlier), min_size=1, max_size=4, unique=True))
        made.append(
            DeploymentConfig(
                f"n{index}",
                needs=tuple(needs),
                floating=draw(st.booleans()) and draw(st.booleans()),
                no_reduce=draw(st.booleans()),
            )
        )
    return tuple(made)


def ancestors(flow: tuple[DeploymentConfig, ...], name: str) -> set[str]:
    """``name`` and all that it depends on, by the definition."""
    needs = {each.name: each.needs for each in flow}
    return {name}.union(*(ancestors(flow, each) for each in needs[name] if each != "gateway"))


def answering(flow: tuple[DeploymentConfig, ...]) -> str | None:
    return next((each.name for each in reversed(flow) if not each.floating), None)


def stamped(name: str, messages: tuple[bytes, ...]) -> Answer:
    """An answer with all documents that came in, and one whose id is the Deployment's name."""
    content = DataContentProto()
    for each in messages:
        content.docs.docs.extend(DataContentProto.FromString(decode_answer(each).documents).docs.docs)
    content.docs.docs.add(id=name)
    return Answer(content.SerializeToString())


class Watched:
    """One request to one random Flow, and everything that became of it."""

    def __init__(self, flow: tuple[DeploymentConfig, ...], **options: Any) -> None:
        self.flow = flow
        self.pool = FakePool()
        self.clock = Clock()
        self.dispatcher = build(self.pool, *flow, clock=self.clock)
        self.got: list[Any] = []
        self.result = self.dispatcher.dispatch(REQUEST, **options)
        self.result.addCallbacks(self.got.append, lambda failure: self.got.append(failure.value))

    def answer(self, name: str, *, raised: bool = False) -> None:
        sent = self.pool.take(name)
        answer = stamped(name, sent.call.messages)
        sent.waiting.callback(failed(answer.documents) if raised else answer)


@settings(deadline=None, max_examples=150)
@given(flows(), st.data())
def test_every_node_is_called_once_and_sees_all_that_it_needs(
    flow: tuple[DeploymentConfig, ...], data: st.DataObject
) -> None:
    watched = Watched(flow)
    pool, end = watched.pool, answering(flow)
    while pool.waiting:
        had = len(watched.got)
        name = data.draw(st.sampled_from(pool.waiting))
        watched.answer(name)
        # The answer is given with the last word of the node that answers, not before, not later.
        assert len(watched.got) - had == (name == end)

    assert sorted(pool.names) == sorted(each.name for each in flow)
    for sent in pool.sent:
        seen = {one for each in sent.call.messages for one in ids(decode_answer(each).documents)}
        assert seen == {"d0"} | (ancestors(flow, sent.deployment) - {sent.deployment})
        config = next(each for each in flow if each.name == sent.deployment)
        assert len(sent.call.messages) == (len(config.needs) if config.no_reduce else 1)
    (response,) = watched.got
    assert isinstance(response, Response)
    assert set(ids(response.documents)) == {"d0"} | (ancestors(flow, end) if end else set())
    routes = {each.executor: each for each in response.routes}
    assert len(routes) == len(response.routes)
    for name in ancestors(flow, end) if end else ():
        assert routes[name].end_time is not None
    assert watched.dispatcher.in_flight == 0


@settings(deadline=None, max_examples=150)
@given(flows(), st.sets(st.integers(0, 6)), st.data())
def test_nothing_behind_a_failed_executor_is_called_and_the_client_always_gets_one_answer(
    flow: tuple[DeploymentConfig, ...], raising: set[int], data: st.DataObject
) -> None:
    watched = Watched(flow)
    broken = {f"n{index}" for index in raising}
    while watched.pool.waiting:
        name = data.draw(st.sampled_from(watched.pool.waiting))
        watched.answer(name, raised=name in broken)

    reachable = {each.name for each in flow if not (ancestors(flow, each.name) - {each.name}) & broken}
    assert sorted(watched.pool.names) == sorted(reachable)
    (response,) = watched.got
    end = answering(flow)
    assert bool(response.status) == (end is not None and bool(ancestors(flow, end) & broken))
    assert {each.executor for each in response.routes} <= reachable | {"gateway"}
    for route in response.routes[1:]:
        if route.end_time is not None:
            assert bool(route.status) == (route.executor in broken)
    assert watched.dispatcher.in_flight == 0


@settings(deadline=None, max_examples=150)
@given(flows(), st.sampled_from(["cancel", "network", "deadline"]), st.integers(0, 8), st.data())
def test_after_the_end_nothing_is_sent_and_only_floating_calls_go_on(
    flow: tuple[DeploymentConfig, ...], way: str, after: int, data: st.DataObject
) -> None:
    watched = Watched(flow, timeout_s=10.0)
    pool, end = watched.pool, answering(flow)
    awaited = ancestors(flow, end) if end else set()
    for _ in range(after):
        if pool.waiting:
            watched.answer(data.draw(st.sampled_from(pool.waiting)))
    if watched.got:
        return  # it was answered before anything could go wrong
    error = ExecutorUnreachable("n", (), "")
    sent = len(pool.sent)
    if way == "cancel":
        watched.result.cancel()
        expected: type[BaseException] = CancelledError
    elif way == "network":
        pool.fail(data.draw(st.sampled_from([name for name in pool.waiting if name in awaited])), error)
        expected = ExecutorUnreachable
    else:
        watched.clock.advance(10.0)
        expected = DeadlineExceeded

    assert [type(each) for each in watched.got][0:] == [type(watched.got[0])]
    assert isinstance(watched.got[0], expected)
    assert set(pool.waiting).isdisjoint(awaited)
    assert set(pool.cancelled) <= awaited
    for name in pool.waiting:
        watched.answer(name)
    assert len(pool.sent) == sent
    assert len(watched.got) == 1
    assert watched.dispatcher.in_flight == 0
    assert not watched.clock.getDelayedCalls()


@settings(deadline=None, max_examples=50)
@given(flows(), st.sets(st.integers(0, 6)))
def test_a_target_calls_those_it_matches_and_skips_the_others(
    flow: tuple[DeploymentConfig, ...], targets: set[int]
) -> None:
    pool = FakePool()
    dispatcher = build(pool, *flow)
    got: list[Response] = []
    target = f"n[{''.join(map(str, targets))}x]$"
    dispatcher.dispatch(Request("r", "/x", target=target, documents=REQUEST.documents)).addCallback(
        got.append
    )
    while pool.waiting:
        name = pool.waiting[0]
        sent = pool.take(name)
        sent.waiting.callback(stamped(name, sent.call.messages))
    assert sorted(pool.names) == [each.name for each in flow if int(each.name[1:]) in targets]
    end = answering(flow)
    called = {f"n{index}" for index in targets}
    assert set(ids(got[0].documents)) == {"d0"} | (ancestors(flow, end) & called if end else set())
    for route in got[0].routes[1:]:
        assert route.executor in called or route.end_time is None
