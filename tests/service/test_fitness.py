"""What is wrong with a graph, as its executors tell it."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import capturedLogs

from gatewayd.config import DeploymentConfig
from gatewayd.config.recording import RecordConfig
from gatewayd.dispatch.topology import Topology
from gatewayd.errors import ConfigError
from gatewayd.messages.discovery import Told
from gatewayd.messages.generations import Generation
from gatewayd.service.fitness import check_fitness, check_redaction
from tests.messages.test_chaining import EXECUTORS
from tests.pool.fakes import Setup

FIRST = Told({"/go": ""}, Generation.FIRST)
ADDRESSES = {"a": "10.0.0.1:1", "b": "10.0.0.2:1"}


def check(a: Told | None, b: Told | None, when: Any = None) -> list[str]:
    """Start a Flow of ``a`` and then ``b``; what is warned of."""
    deployments = [
        DeploymentConfig("a", external=True, addresses=(ADDRESSES["a"],), needs=("gateway",), when=when),
        DeploymentConfig("b", external=True, addresses=(ADDRESSES["b"],), needs=("a",)),
    ]
    setup = Setup(*deployments)
    for name, told in (("a", a), ("b", b)):
        if told is not None:
            setup.channels[ADDRESSES[name]].asked.pop(0).callback(told)
    with capturedLogs() as logged:
        check_fitness(Topology.from_deployments(deployments), setup.pool)
    return [each["text"] for each in logged if "text" in each]


def test_executors_that_do_not_take_each_others_documents_are_refused() -> None:
    assert check(EXECUTORS["c1"], EXECUTORS["c2"]) == []
    with pytest.raises(ConfigError) as caught:
        check(EXECUTORS["c2"], EXECUTORS["c1"])
    assert "the output schema of a at /go is incompatible with the input schema of b: " in str(caught.value)


def test_one_that_is_passed_over_is_warned_of() -> None:
    (warning,) = check(EXECUTORS["a"], EXECUTORS["b"])
    assert warning == (
        "b binds neither /sleep, which a before it does, nor /default: it is passed over there"
    )


@pytest.mark.parametrize(("redact", "warned"), [(("text",), 0), (("fields.custmer", "parameters.x"), 1)])
def test_a_redaction_that_finds_nothing_is_warned_of(redact: tuple[str, ...], warned: int) -> None:
    setup = Setup(DeploymentConfig("a", external=True, addresses=(ADDRESSES["a"],)))
    setup.channels[ADDRESSES["a"]].asked.pop(0).callback(FIRST)
    with capturedLogs() as logged:
        check_redaction(RecordConfig("/r", redact=redact), setup.pool)
        check_redaction(None, setup.pool)

    texts = [each["log_format"].format(**each) for each in logged if "text" in each]
    assert len(texts) == warned
    assert all(text.startswith("gateway.record.redact: fields.custmer: documents of") for text in texts)


def test_a_condition_is_checked_when_executors_tell_which_documents_they_have() -> None:
    of_second = {"mid": {"$gt": 1}}
    assert check(None, None, of_second) == []
    assert check(EXECUTORS["c1"], EXECUTORS["c2"], of_second) == []
    with pytest.raises(ConfigError) as caught:
        check(FIRST, FIRST, of_second)
    assert str(caught.value).startswith("executor a: when: mid.$gt: a document has no field 'mid'")
    assert check(FIRST, FIRST, {"tags__x": {"$gt": 1}}) == []
