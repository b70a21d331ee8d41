"""Shards without a head process: which are asked, and what becomes of their answers."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from twisted.internet.defer import CancelledError

from gatewayd.config import DeploymentConfig
from gatewayd.config.heads import head_executors
from gatewayd.config.model import ExecutorConfig, ExternalHead
from gatewayd.errors import ExecutorUnreachable
from gatewayd.messages.discovery import Told
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Answer, Call
from gatewayd.messages.wire import encode_call
from gatewayd.pb import DataContentProto, DataRequestProto, Struct
from gatewayd.rpc.channel import CallError
from tests.messages.second.made import content, plain
from tests.pool.fakes import Sent, Setup

SHARDS = ("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1")
BEFORE, AFTER = "10.0.1.1:1", "10.0.1.2:1"
FATAL = CallError("UNIMPLEMENTED", "no")


def documents(*pairs: tuple[str, str]) -> bytes:
    content = DataContentProto()
    content.docs.SetInParent()
    for identity, text in pairs:
        content.docs.docs.add(id=identity, text=text)
    return content.SerializeToString()


def results(**named: str) -> bytes:
    found = Struct()
    found.update({"q": 1, "__results__": dict(named)})
    return found.SerializeToString()


def sharded(**settings: Any) -> Setup:
    deployment = DeploymentConfig("a", shards=3, **settings)
    setup = Setup(deployment)
    for index, address in enumerate(SHARDS):
        setup.pool.replica_up("a", address, index)
    for extra in head_executors(deployment):
        setup.pool.replica_up(extra.name, BEFORE if "before" in extra.name else AFTER)
    for channel in setup.opened:
        channel.set_state("ready")
    return setup


def send(setup: Setup, endpoint: str, text: str = "", timeout_s: float | None = None) -> Sent:
    answer = Answer(documents(("1", text)))
    return setup.send(Call((encode_call("id", endpoint, answer),), endpoint), timeout_s)


def asked(setup: Setup) -> list[int]:
    return [len(setup.channels[address].calls) for address in SHARDS]


@pytest.mark.parametrize(
    ("endpoint", "polling", "everyone"),
    [
        ("/search", {}, True),
        ("/index", {}, False),
        ("/foo", {}, False),
        ("_jina_dry_run_", {}, True),
        ("/foo", {"*": "all"}, True),
        ("/index", {"*": "all"}, False),
        ("/search", {"*": "any"}, True),
        ("/search", {"/search": "any"}, False),
        ("/index", {"/index": "all"}, True),
    ],
)
def test_polling_decides_which_shards_are_called(
    endpoint: str, polling: dict[str, Any], everyone: bool
) -> None:
    setup = sharded(polling=polling)
    send(setup, endpoint)

    assert sum(asked(setup)) == (3 if everyone else 1)


def test_any_goes_round() -> None:
    setup = sharded()
    for _ in range(6):
        send(setup, "/index")

    assert asked(setup) == [2, 2, 2]


def test_the_answers_of_all_are_merged_in_the_order_of_the_shards() -> None:
    setup = sharded()
    sent = send(setup, "/search")
    for index in (2, 0, 1):
        answer = Answer(
            documents(("1", f"from {index}"), (f"own{index}", "")), results(**{f"a/shard-{index}/rep-0": "r"})
        )
        setup.channels[SHARDS[index]].answer(answer)
    merged = DataContentProto.FromString(sent.result.documents).docs.docs

    assert [(doc.id, doc.text) for doc in merged] == [
        ("1", "from 0"), ("own0", ""), ("own1", ""), ("own2", ""),
    ]  # fmt: skip
    parameters = MessageToDict(Struct.FromString(sent.result.parameters))
    assert parameters == {"q": 1.0, "__results__": {f"a/shard-{index}/rep-0": "r" for index in range(3)}}


def test_answers_of_the_second_generation_are_compared_with_what_the_shards_were_sent() -> None:
    setup = sharded(uses_before=ExecutorConfig())
    for channel in setup.opened:
        channel.asked.pop(0).callback(Told({"/search": ""}, Generation.SECOND))
    sent = setup.send(Call((encode_call("id", "/search", Answer(content({"id": "d"}))),), "/search"))
    setup.channels[BEFORE].answer(Answer(content({"id": "d", "l": ["before"]})))
    for index in (2, 0, 1):
        changed = {"id": "d", "l": ["before", f"from {index}"]}
        setup.channels[SHARDS[index]].answer(Answer(content(changed, {"id": f"own{index}"})))

    assert plain(sent.result.documents) == [
        {"id": "d", "l": ["before", "from 0", "from 1", "from 2"]},
        {"id": "own0"},
        {"id": "own1"},
        {"id": "own2"},
    ]


def test_a_shard_that_fails_is_left_out_and_counted() -> None:
    setup = sharded()
    sent = send(setup, "/search")
    setup.channels[SHARDS[0]].fail(FATAL)
    setup.channels[SHARDS[1]].answer(Answer(documents(("1", "good"))))
    setup.channels[SHARDS[2]].answer(Answer(documents(("1", "bad")), status=b"", failed=True))

    assert sent.result == Answer(documents(("1", "good")))
    assert setup.count("partial failure") == 1


def test_when_all_raise_the_first_failed_answer_is_given() -> None:
    setup = sharded()
    sent = send(setup, "/search")
    for index, address in enumerate(SHARDS):
        setup.channels[address].answer(Answer(str(index).encode(), failed=True))

    assert sent.result == Answer(b"0", failed=True)


def test_when_no_shard_can_be_reached_the_request_fails_within_a_second() -> None:
    setup = sharded()
    for address in SHARDS:
        setup.channels[address].set_state("failed")
    sent = send(setup, "/search")
    setup.advance(0.95)

    assert isinstance(sent.result, ExecutorUnreachable)
    assert setup.in_flight == 0


def test_before_and_after_stand_around_the_shards() -> None:
    setup = sharded(uses_before=ExecutorConfig(), uses_after=ExecutorConfig())
    sent = send(setup, "/search", "raw")
    assert asked(setup) == [0, 0, 0]
    setup.channels[BEFORE].answer(Answer(documents(("1", "before"))))
    message = DataRequestProto.FromString(setup.channels[SHARDS[1]].calls[0][0].messages[0])
    assert (message.header.request_id, message.header.exec_endpoint) == ("id", "/search")
    assert message.data.docs.docs[0].text == "before"
    for index, address in enumerate(SHARDS):
        setup.channels[address].answer(Answer(documents(("1", str(index)))))
    call = setup.channels[AFTER].calls[0][0]
    assert call.listed
    parts = [DataRequestProto.FromString(part) for part in call.messages]
    assert [part.data.docs.docs[0].text for part in parts] == ["0", "1", "2"]
    setup.channels[AFTER].answer(Answer(b"after"))

    assert sent.result == Answer(b"after")


def test_one_that_runs_elsewhere_is_called_at_its_address() -> None:
    head = ExternalHead((BEFORE,))
    setup = Setup(DeploymentConfig("a", shards=2, uses_before=head, grpc_metadata={"k": "v"}))
    for index in (0, 1):
        setup.pool.replica_up("a", SHARDS[index], index)
    for channel in setup.opened:
        channel.set_state("ready")
    sent = send(setup, "/index", "raw")
    setup.channels[BEFORE].answer(Answer(documents(("1", "before"))))
    setup.channels[SHARDS[0]].answer(Answer(b"answer"))

    assert sent.result == Answer(b"answer")
    assert [setup.channels[each].settings.metadata for each in (BEFORE, SHARDS[0])] == [(), (("k", "v"),)]


def test_the_answer_of_a_single_shard_also_goes_to_uses_after() -> None:
    setup = sharded(uses_after=ExecutorConfig())
    sent = send(setup, "/index")
    next(setup.channels[a] for a in SHARDS if setup.channels[a].calls).answer(Answer(documents(("1", "x"))))
    assert len(setup.channels[AFTER].calls[0][0].messages) == 1
    setup.channels[AFTER].answer(Answer(b"after"))

    assert sent.result == Answer(b"after")


@pytest.mark.parametrize("which", [BEFORE, AFTER, SHARDS[2]])
def test_an_endpoint_is_served_where_one_executor_of_the_deployment_binds_it(which: str) -> None:
    setup = sharded(uses_before=ExecutorConfig(), uses_after=ExecutorConfig())
    for address in (*SHARDS, BEFORE, AFTER):
        setup.channels[address].answer_discovery(("/rank",) if address == which else ("/index",))

    assert setup.pool.serves("a", "/rank")
    assert setup.pool.serves("a", "/index")
    assert not setup.pool.serves("a", "/nowhere")
    assert sorted(setup.pool.endpoints().bound) == ["/index", "/rank"]


def test_what_uses_before_raised_is_the_answer() -> None:
    setup = sharded(uses_before=ExecutorConfig())
    sent = send(setup, "/search")
    setup.channels[BEFORE].answer(Answer(b"in", failed=True))

    assert sent.result == Answer(b"in", failed=True)
    assert asked(setup) == [0, 0, 0]


def test_cancelling_reaches_every_shard() -> None:
    setup = sharded()
    sent = send(setup, "/search")
    sent.deferred.cancel()

    assert isinstance(sent.result, CancelledError)
    assert [setup.channels[address].cancelled for address in SHARDS] == [1, 1, 1]
    assert setup.in_flight == 0


def test_every_step_gets_what_is_left_of_the_deadline() -> None:
    setup = sharded(uses_before=ExecutorConfig())
    send(setup, "/search", timeout_s=2.0)
    setup.advance(0.5)
    setup.channels[BEFORE].answer(Answer(documents(("1", "x"))))

    assert setup.channels[SHARDS[0]].calls[0][1] == pytest.approx(1.5)


def test_the_states_show_the_shard() -> None:
    setup = sharded()

    assert [(state.address, state.shard) for state in setup.pool.states()["a"]] == list(
        zip(SHARDS, range(3), strict=True)
    )
