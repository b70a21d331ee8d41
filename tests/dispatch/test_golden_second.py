"""
Golden topologies of the second generation, replayed on the engine: ``when``, joins, floating executors.

The executors are those of tests/golden34/executors.py, played on the messages that the engine sends. Where
our joins do better than the reference's, whose answers depend on who is faster, the difference is said.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from gatewayd.config import DeploymentConfig
from gatewayd.messages.formats import SECOND, UnfitCondition
from gatewayd.messages.request import Answer, Call, Request, Response
from gatewayd.messages.wire import decode_answer
from tests.dispatch.fakes import FakePool, build, deployment
from tests.dispatch.test_streaming import StreamPool
from tests.messages.second.made import Docs, content, plain
from tests.paths import GOLDEN34

FLOWS = {
    flow["flow"]: flow
    for flows in json.loads((GOLDEN34 / "topologies.json").read_text()).values()
    for flow in flows
}

Document = dict[str, Any]

FLAT: Document = {"text": "", "i": 0, "names": [], "emb": None, "note": None, "d": {}}
RICH: Document = {
    **{"title": "", "i": 0, "f": 0.0, "b": False, "by": None, "url": None, "tensor": None, "emb": None},
    **{"anyt": None, "child": None, "kids": Docs(), "names": [], "d": {}, "ds": {}},
}


def f1(documents: list[Document]) -> None:
    for each in documents:
        each.update(text="f1", i=1, emb=(1.0, 1.0))
        each["names"].append("f1")
        each["d"]["f1"] = "1"


def f2(documents: list[Document]) -> None:
    for each in documents:
        each.update(text="f2", note="n2", emb=(2.0, 2.0))
        each["names"].append("f2")
        each["d"]["f2"] = "1"
    documents.append({"id": "new", **FLAT, "text": "from f2"})


def p1(documents: list[Document]) -> None:
    for each in documents:
        each.update(title="p1", i=1)
        each["kids"].append({"id": "k1", "txt": "p1", "n": 0})
        each["d"]["p1"] = 1
        each["names"].append("p1")


def p2(documents: list[Document]) -> None:
    for each in documents:
        each.update(title="p2", f=2.0)
        each["kids"] += [{"id": name, "txt": "p2", "n": 0} for name in ("k2", "k1")]
        each["d"]["p2"] = 1
        each["names"].append("p2")
    documents.append({"id": "new", **RICH, "title": "from p2"})


CHANGES: dict[str, Callable[[list[Document]], None]] = {"f1": f1, "f2": f2, "p1": p1, "p2": p2}


def played(name: str, call: Call) -> Answer:
    parts = [plain(decode_answer(message).documents) for message in call.messages]
    documents = [each for part in parts for each in part]
    if name in CHANGES:
        CHANGES[name](documents)
    else:
        matrix = [len(part) for part in parts]
        for each in documents:
            each["names"].append(f"matrix {matrix}")
    return Answer(content(*documents))


def flow(name: str) -> tuple[DeploymentConfig, ...]:
    graph, extra = FLOWS[name]["graph"], FLOWS[name]["extra"]
    made = []
    others = [each for each in graph if each != "start-gateway" and each not in graph["start-gateway"]]
    for each in (*graph["start-gateway"], *others):
        needs = [before for before, after in graph.items() if each in after]
        options: dict[str, Any] = {}
        if "--graph-conditions" in extra:
            options["when"] = json.loads(extra[extra.index("--graph-conditions") + 1]).get(each)
        if "--deployments-no-reduce" in extra:
            options["no_reduce"] = each in json.loads(extra[extra.index("--deployments-no-reduce") + 1])
        needs = ["gateway" if before == "start-gateway" else before for before in needs]
        made.append(deployment(each, *needs, floating=not graph.get(each), **options))
    return tuple(made)


def answered(name: str, first: str = "", *, call: int = -1, **defaults: Any) -> list[Document]:
    """What the engine answers to a recorded request, ``first`` being faster than the others."""
    sent = FLOWS[name]["calls"][call]["request"]["json"]["data"]
    filled = [{**defaults, **each} for each in sent]
    request = Request("r", "/par", documents=content(*filled))
    pool = FakePool(format=SECOND)
    response = play(pool, build(pool, *flow(name)).dispatch(request), first)
    return plain(response.documents)


def play(pool: FakePool, result: Deferred[Response], first: str) -> Response:
    got: list[Response] = []
    result.addCallback(got.append)
    while pool.waiting:
        sent = pool.take(first if first in pool.waiting else pool.waiting[0])
        sent.waiting.callback(played(sent.deployment, sent.call))
    return got[0]


def recorded(name: str, call: int = -1) -> list[Document]:
    found: list[Document] = copy.deepcopy(FLOWS[name]["calls"][call]["response"]["json"]["data"])
    for each in found:
        each["emb"] = each["emb"] and tuple(each["emb"])  # an array, which is one value
        each["names"] = [each.split(" map ")[0] for each in each["names"]]
    return found


@pytest.mark.parametrize("first", ["f1", "f2"])
def test_a_join_gives_the_same_answer_whoever_is_faster(first: str) -> None:
    documents = answered("parallel F1 F2, join FJ", first, **FLAT)

    by_arrival = {call: recorded("parallel F1 F2, join FJ", call) for call in (-2, -1)}
    joined = ["matrix [3]"]
    assert documents == [
        # Of the value that both changed the later one in the graph counts, as where f2 came later.
        {
            **{"id": "d", "text": "f2", "emb": (2.0, 2.0), "note": "n2", "d": {"f1": "1", "f2": "1"}},
            # Unlike there: what f1 alone changed is kept, and what both were sent is there once.
            **{"i": 1, "names": ["c", "f1", "f2", *joined]},
        },
        {
            **{"id": "e", "text": "f2", "emb": (2.0, 2.0), "note": "n2", "d": {"f1": "1", "f2": "1"}},
            **{"i": 1, "names": ["f1", "f2", *joined]},
        },
        {"id": "new", **FLAT, "text": "from f2", "names": joined},
    ]
    # What the reference says in either order of arrival, but for those two.
    for expected in by_arrival.values():
        assert [each["id"] for each in expected] == [each["id"] for each in documents]
        assert [each["d"] for each in expected] == [each["d"] for each in documents]
        assert [each["note"] for each in expected] == [each["note"] for each in documents]
    assert by_arrival[-1][0]["names"] == ["c", "f2", "c", "f1", *joined] or (
        by_arrival[-2][0]["names"] == ["c", "f1", "c", "f2", *joined]
    )


@pytest.mark.parametrize("first", ["p1", "p2"])
def test_documents_within_documents_are_merged_by_their_ids(first: str) -> None:
    name = "pydantic 1: parallel P1 P2, join J"
    expected = recorded(name)
    for each in expected[:2]:
        # The reference's answer, where p2 came later; its 0 is what p1 was sent, and its dict p2's alone.
        assert (each["i"], each["d"]) == (0, {"p2": 1})
        each.update(i=1, d={"p1": 1, "p2": 1})

    assert answered(name, first, **RICH) == expected


@pytest.mark.parametrize("first", ["f1", "f2"])
def test_without_reduce_the_parts_come_in_the_order_of_the_graph(first: str) -> None:
    name = "parallel F1 F2, join FJ, no_reduce"
    expected = recorded(name)
    for each in expected:
        each["names"][-1] = "matrix [2, 3]"

    # f2 was faster when this was recorded.
    assert [each["text"] for each in expected] == ["f2", "f2", "from f2", "f1", "f1"]
    assert answered(name, first, **FLAT) == [*expected[3:], *expected[:3]]


@pytest.mark.parametrize("name", ["F1, floating F2", "when on F1"])
def test_a_recorded_flow_answers_as_the_reference(name: str) -> None:
    assert answered(name, **FLAT) == recorded(name)


@pytest.mark.parametrize("name", ["P1 floating P2", "when on P1"])
def test_a_recorded_flow_of_richer_documents_answers_as_the_reference(name: str) -> None:
    assert answered(name, **RICH) == recorded(name)


def test_documents_that_a_chain_filters_out_go_no_further() -> None:
    name = "when on F1 then F2"
    assert FLOWS[name]["started"] is True
    assert answered(name, **FLAT) == recorded(name)


def test_branches_with_conditions_answer_in_the_order_of_the_request() -> None:
    deployments = (
        deployment("odd", when={"i": {"$in": [1, 3]}}),
        deployment("even", when={"i": {"$in": [2, 4]}}),
        deployment("end", "even", "odd"),
    )
    pool = FakePool(format=SECOND)
    sent = [{"id": str(number), "i": number, "names": []} for number in (1, 2, 3, 4)]
    result = build(pool, *deployments).dispatch(Request("r", "/par", documents=content(*sent)))
    got: list[Response] = []
    result.addCallback(got.append)
    for name in ("even", "odd", "end"):
        pool.answer(name)

    assert plain(got[0].documents) == sent


def test_a_branch_is_compared_with_what_it_was_sent_and_not_with_the_request() -> None:
    # What ``a`` appends comes through both of its branches, and is there once.
    deployments = (
        deployment("a"),
        deployment("b", "a"),
        deployment("c", "a"),
        deployment("other"),
        deployment("end", "other", "b", "c", "gateway"),
    )
    pool = FakePool(format=SECOND)
    result = build(pool, *deployments).dispatch(
        Request("r", "/par", documents=content({"id": "d", "names": ["r"], "i": 1}))
    )
    got: list[Response] = []
    result.addCallback(got.append)
    for name in ("a", "c", "b", "other"):
        sent = pool.take(name)
        (document,) = plain(decode_answer(sent.call.messages[0]).documents)
        document["names"].append(name)
        if name == "a":
            document["i"] = 2
        sent.waiting.callback(Answer(content(document)))
    pool.answer("end")

    assert plain(got[0].documents) == [{"id": "d", "names": ["r", "other", "a", "b", "c"], "i": 2}]


def test_a_skipped_executor_hands_on_what_its_branches_are_compared_with() -> None:
    deployments = (deployment("a"), deployment("b", "a"), deployment("c", "a"), deployment("end", "b", "c"))
    pool = FakePool({"a": (), "b": ("/par",), "c": ("/par",), "end": ("/par",)}, SECOND)
    result = build(pool, *deployments).dispatch(
        Request("r", "/par", documents=content({"id": "d", "x": 1, "y": 1}))
    )
    got: list[Response] = []
    result.addCallback(got.append)
    pool.answer("c", Answer(content({"id": "d", "x": 1, "y": 2})))
    pool.answer("b", Answer(content({"id": "d", "x": 2, "y": 1})))
    pool.answer("end")

    assert plain(got[0].documents) == [{"id": "d", "x": 2, "y": 2}]


def test_a_condition_that_documents_of_the_flow_cannot_meet_fails_the_request_by_name() -> None:
    pool = FakePool()  # of the first generation, whose documents have no field ``i``
    failures: list[Any] = []
    dispatcher = build(pool, deployment("a", when={"i": {"$gt": 1}}))
    dispatcher.dispatch(Request("r", "/par", documents=b"\n\x04\n\x02\n\x00")).addErrback(failures.append)

    assert failures[0].check(UnfitCondition)
    assert failures[0].getErrorMessage() == (
        "executor a: when: i.$gt: a document has no field 'i' (in documents of generation 1, which the "
        "executors of this Flow have)"
    )
    assert not pool.sent


def test_each_document_of_a_stream_is_joined_with_what_was_done_beside_the_generator() -> None:
    pool = StreamPool("g")
    pool.format, pool.generation = SECOND, SECOND.generation
    dispatcher = build(pool, deployment("g"), deployment("b"), deployment("end", "b", "g"))
    stream = dispatcher.stream(Request("r", "/par", documents=content({"id": "q", "names": ["r"]})))
    got: list[Any] = []
    stream.receive().addCallback(got.append)
    pool.answer("b", Answer(content({"id": "q", "names": ["r", "b"]})))
    pool.opened[0].put(Answer(content({"id": "q", "names": ["r", "g1"]})))
    pool.opened[0].put(Answer(content({"id": "q", "names": ["r", "g2"]})), None)
    pool.answer("end")
    stream.receive().addCallback(got.append)
    pool.answer("end")

    assert [plain(each.documents) for each in got] == [
        [{"id": "q", "names": ["r", "b", "g1"]}],
        [{"id": "q", "names": ["r", "b", "g2"]}],
    ]
