"""One request's walk, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.config import DeploymentConfig
from gatewayd.dispatch.parameters import EMPTY_RESULTS
from gatewayd.dispatch.topology import Topology
from gatewayd.dispatch.traversal import Prepare, Send, Step, Traversal, UnexpectedAnswer
from gatewayd.errors import BadRequest
from gatewayd.messages.request import Answer, Request
from gatewayd.messages.wire import Malformed, decode_answer, decode_request
from gatewayd.pb import RouteProto, StatusProto
from tests.dispatch.fakes import CHAIN, DIAMOND, REQUEST, deployment, documents, failed, ids, struct


def walk(*deployments: DeploymentConfig, request: Request = REQUEST, **options: Any) -> Traversal:
    serves = options.pop("serves", lambda name, endpoint: True)
    return Traversal(Topology.from_deployments(deployments), request, serves)


def names(steps: list[Step]) -> list[str]:
    return [step.node.name for step in steps if isinstance(step, Send)]


def the_send(steps: list[Step]) -> Send:
    (step,) = steps
    assert isinstance(step, Send)
    return step


def the_work(steps: list[Step]) -> Prepare:
    (step,) = steps
    assert isinstance(step, Prepare)
    return step


def test_a_chain_is_walked_one_by_one() -> None:
    traversal = walk(*CHAIN)
    steps, seen = traversal.begin(1.0), []
    while steps:
        step = the_send(steps)
        seen.append(step.node.name)
        assert not traversal.finished
        steps = traversal.answered(step.node, Answer(documents(step.node.name)), 2.0)
    assert seen == ["a", "b", "c"]
    assert traversal.finished
    assert ids(traversal.response(3.0).documents) == ["c"]


def test_an_executor_gets_the_request_with_an_empty_target_and_the_gateways_route() -> None:
    step = the_send(
        walk(*CHAIN, request=Request("r1", "/x", target="a|b", documents=documents("d"))).begin(7.5)
    )
    sent = decode_request(step.call.messages[0])
    assert (sent.request_id, sent.endpoint, sent.target) == ("r1", "/x", "")
    assert sent.documents == documents("d")
    (route,) = (RouteProto.FromString(each) for each in sent.routes)
    assert (route.executor, route.start_time.seconds) == ("gateway", 7)


def test_telling_an_answer_twice_is_refused() -> None:
    traversal = walk(*CHAIN)
    step = the_send(traversal.begin(0.0))
    traversal.answered(step.node, Answer(b""), 0.0)
    with pytest.raises(UnexpectedAnswer):
        traversal.answered(step.node, Answer(b""), 0.0)


def test_an_answer_of_a_node_that_was_not_asked_is_refused() -> None:
    traversal = walk(*CHAIN)
    step = the_send(traversal.begin(0.0))
    with pytest.raises(UnexpectedAnswer):
        traversal.answered(step.node.successors[0], Answer(b""), 0.0)
    with pytest.raises(UnexpectedAnswer):
        traversal.prepared(step.node, (b"",), 0.0)
    with pytest.raises(UnexpectedAnswer):
        traversal.response(0.0)


def test_a_join_merges_in_order_of_arrival() -> None:
    traversal = walk(*DIAMOND)
    a, b = traversal.begin(0.0)
    assert isinstance(a, Send)
    assert isinstance(b, Send)
    assert traversal.answered(b.node, Answer(documents("b")), 0.0) == []
    work = the_work(traversal.answered(a.node, Answer(documents("a")), 0.0))
    assert work.size_bytes == len(documents("a")) * 2
    step = the_send(traversal.prepared(work.node, work.work(), 0.0))
    assert ids(decode_answer(step.call.messages[0]).documents) == ["b", "a"]
    assert not step.call.listed


def test_a_join_without_reduce_gets_every_part_as_a_message() -> None:
    traversal = walk(deployment("a"), deployment("b"), deployment("c", "a", "b", no_reduce=True))
    a, b = traversal.begin(0.0)
    assert isinstance(a, Send)
    assert isinstance(b, Send)
    traversal.answered(b.node, Answer(documents("b")), 0.0)
    step = the_send(traversal.answered(a.node, Answer(documents("a")), 0.0))
    assert step.call.listed
    assert [ids(decode_answer(each).documents) for each in step.call.messages] == [["b"], ["a"]]


def test_nothing_behind_a_failure_is_called_or_named_in_the_routes() -> None:
    traversal = walk(*CHAIN)
    step = the_send(traversal.begin(0.0))
    assert traversal.answered(step.node, failed(documents("d0")), 0.0) == []
    response = traversal.response(1.0)
    assert [each.executor for each in response.routes] == ["gateway", "a"]
    assert response.status == response.routes[1].status != b""
    assert ids(response.documents) == ["d0"]


def test_a_failure_without_a_status_does_not_read_as_success() -> None:
    traversal = walk(deployment("a"))
    step = the_send(traversal.begin(0.0))
    traversal.answered(step.node, Answer(b"", failed=True), 0.0)
    assert StatusProto.FromString(traversal.response(1.0).status).code == StatusProto.ERROR


def test_an_executor_that_does_not_bind_the_endpoint_is_skipped() -> None:
    traversal = walk(*CHAIN, serves=lambda name, endpoint: name == "b" and endpoint == "/x")
    step = the_send(traversal.begin(0.0))
    assert step.node.name == "b"
    traversal.answered(step.node, Answer(documents("seen")), 2.0)
    response = traversal.response(3.0)
    assert [each.end_time for each in response.routes] == [3.0, None, 2.0, None]
    assert ids(response.documents) == ["seen"]


def test_a_long_chain_of_skipped_executors_needs_no_stack() -> None:
    before = ["gateway", *(f"n{index}" for index in range(3000))]
    traversal = walk(
        *(deployment(f"n{index}", before[index]) for index in range(3000)),
        request=Request("r", "/x", target="nobody"),
    )
    assert traversal.begin(0.0) == []
    assert traversal.finished
    assert len(traversal.response(0.0).routes) == 3001


@pytest.mark.parametrize("target", ["[", "(?P<", "a{99999999999}"])
def test_a_target_that_is_no_regular_expression_is_a_bad_request(target: str) -> None:
    with pytest.raises(BadRequest) as refused:
        walk(*CHAIN, request=Request("r", "/x", target=target))
    assert refused.value.problems[0]["loc"] == ["body", "targetExecutor"]


def test_documents_come_back_in_the_order_they_were_asked_when_conditions_split_them() -> None:
    traversal = walk(deployment("a", when={"id": {"$neq": "d0"}}))
    work = the_work(traversal.begin(0.0))
    step = the_send(traversal.prepared(work.node, work.work(), 0.0))
    assert ids(decode_answer(step.call.messages[0]).documents) == ["d1"]
    work = the_work(traversal.answered(step.node, Answer(documents("new", "d1", "d0")), 0.0))
    assert not traversal.finished
    assert traversal.prepared(None, work.work(), 0.0) == []
    with pytest.raises(UnexpectedAnswer):
        traversal.prepared(None, work.work(), 0.0)
    assert ids(traversal.response(0.0).documents) == ["d0", "d1", "new"]


def test_an_empty_flow_answers_what_was_asked() -> None:
    traversal = walk()
    assert traversal.begin(1.0) == []
    response = traversal.response(2.0)
    assert response.documents == REQUEST.documents
    assert response.parameters is None
    assert [(each.executor, each.start_time, each.end_time) for each in response.routes] == [
        ("gateway", 1.0, 2.0)
    ]


def test_routes_of_gateways_before_this_one_stay_in_front() -> None:
    earlier = RouteProto(executor="gateway")
    earlier.start_time.seconds = 5
    other = RouteProto(executor="other").SerializeToString()
    traversal = walk(request=Request("r", "/x", routes=(earlier.SerializeToString(), other)))
    traversal.begin(8.0)
    routes = traversal.response(9.0).routes
    assert [(each.executor, each.start_time, each.end_time) for each in routes] == [
        ("gateway", 5.0, None),
        ("gateway", 8.0, 9.0),
    ]


def test_a_route_that_is_none_is_malformed() -> None:
    with pytest.raises(Malformed):
        walk(request=Request("r", "/x", routes=(b"\xff",)))


# -- the last step of a stream -------------------------------------------------------------------------


def answers() -> st.SearchStrategy[Answer]:
    """What an executor may answer with."""
    return st.builds(
        Answer,
        st.sampled_from([documents("a"), documents("b"), b""]),
        st.sampled_from([b"", EMPTY_RESULTS, struct(__results__={"g": 1}), struct(x=1)]),
        st.just(()),
        st.sampled_from([b"", StatusProto(code=StatusProto.ERROR).SerializeToString()]),
        st.booleans(),
        st.sampled_from([(), (("x-a", "1"),)]),
    )


@given(
    st.sampled_from(
        [
            [deployment("g")],
            [deployment("a"), deployment("g", "a")],
            [deployment("a"), deployment("b"), deployment("g", "a", "b")],
            [deployment("a"), deployment("f", "a", floating=True), deployment("g", "a")],
            [deployment("f", floating=True), deployment("h", "f", floating=True), deployment("g")],
            [deployment("g"), deployment("f", "g", floating=True)],
            [deployment("g"), deployment("a", "g")],
            [deployment("g", when={"id": {"$exists": True}})],
        ]
    ),
    st.lists(answers(), min_size=4, max_size=4),
    st.lists(st.tuples(answers(), st.floats(5, 6)), max_size=4),
    st.sampled_from([b"", struct(x=1), struct(__results__={"c": 1})]),
    st.booleans(),
)
def test_the_last_step_is_what_the_long_way_comes_to(
    deployments: Any,
    before: list[Answer],
    streamed: list[tuple[Answer, float]],
    parameters: bytes,
    waits: bool,
) -> None:
    request = Request("r", "/gen", documents=documents("q"), parameters=parameters)
    traversal = Traversal(Topology.from_deployments(deployments), request, lambda *_: True)
    steps, generator = traversal.begin(1.0), None
    now = 1.0
    while steps:
        step = steps.pop(0)
        now += 0.5
        if isinstance(step, Prepare):
            steps += traversal.prepared(step.node, step.work(), now)
        elif step.node.name == "g":
            generator = step.node
        elif waits or not step.node.background:
            steps += traversal.answered(step.node, before.pop(), now)
    if generator is None:
        return  # an executor before it has failed

    last = traversal.last_step(generator)
    if len(deployments) == 1 and deployments[0].when is None:
        assert last is not None
    for answer, moment in streamed if last is not None else ():
        other = traversal.fork(answer.documents)
        assert other.answered(generator, answer, moment) == []
        found = last.response(answer, moment)
        if found is None:
            assert answer.failed or answer.headers or answer.parameters not in (b"", EMPTY_RESULTS)
        else:
            assert found == other.response(moment)


def test_there_is_no_last_step_while_more_may_come() -> None:
    topology = Topology.from_deployments([deployment("f", floating=True), deployment("g")])
    traversal = Traversal(topology, REQUEST, lambda *_: True)
    sent = {step.node.name: step.node for step in traversal.begin(1.0) if step.node is not None}

    assert traversal.last_step(sent["g"]) is None
    traversal.answered(sent["f"], Answer(b""), 2.0)
    last = traversal.last_step(sent["g"])
    assert last is not None
    response = last.response(Answer(documents("a")), 3.0)
    assert response is not None
    assert [(route.executor, route.end_time) for route in response.routes] == [
        ("gateway", 3.0),
        ("f", 2.0),
        ("g", 3.0),
    ]
    assert last.response(Answer(documents("b")), 3.0).routes is response.routes  # type: ignore[union-attr]
