"""A key that is added to the table and to the model arrives, without being named anywhere else."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gatewayd import Flow
from gatewayd.config import FlowConfig, deployments, executors, kinds, load_flow_text, loader
from gatewayd.config.keys import EXECUTOR, FLOW, GATEWAY, POOL, Key, Section
from gatewayd.executor import spec
from gatewayd.executor.spec import ExecutorSpec


def extended(model: type) -> type:
    """``model`` with one more field."""
    made_up = attrs.field(default=None, kw_only=True)
    return attrs.make_class(model.__name__, {"made_up_s": made_up}, bases=(model,), frozen=True, slots=True)


@pytest.fixture
def new_key(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``new_key(section, *places)`` adds ``made_up`` to a section, and its field to the places' model."""

    def add(section: Section, *places: tuple[Any, str]) -> None:
        key = Key("made_up", kinds.seconds(zero=True), None, "Made up.", field="made_up_s", spreads=False)
        monkeypatch.setitem(section._by_word, "made_up", key)
        model = extended(getattr(*places[0]))
        for module, name in places:
            monkeypatch.setattr(module, name, model)

    return add


def load(**sections: str) -> FlowConfig:
    executor = sections.pop("executor", "")
    maps = "".join(f"{name}: {{{text}}}\n" for name, text in sections.items())
    return load_flow_text(f"jtype: Flow\n{maps}executors:\n  - {{name: a{executor}}}\n", environ={})


def test_of_the_flow(new_key: Any) -> None:
    new_key(FLOW, (loader, "FlowConfig"))
    assert load(**{"with": "made_up: 1.5"}).made_up_s == 1.5  # type: ignore[attr-defined]


def test_of_the_gateway(new_key: Any) -> None:
    new_key(GATEWAY, (loader, "GatewayConfig"))
    assert load(gateway="made_up: 1.5").gateway.made_up_s == 1.5  # type: ignore[attr-defined]
    assert Flow().config_gateway(made_up=1.5)._description.config().gateway.made_up_s == 1.5


def test_of_the_pool(new_key: Any) -> None:
    new_key(POOL, (loader, "PoolLimits"))
    assert load(gateway="pool: {made_up: 1.5}").gateway.pool.made_up_s == 1.5  # type: ignore[attr-defined]


def test_of_a_deployment(new_key: Any) -> None:
    new_key(EXECUTOR, (deployments, "DeploymentConfig"))
    (found,) = load(executor=", made_up: 1.5").deployments
    assert found.made_up_s == 1.5  # type: ignore[attr-defined]
    (found,) = Flow().add(made_up=1.5)._description.config().deployments
    assert found.made_up_s == 1.5


def test_of_an_executors_process(new_key: Any) -> None:
    new_key(EXECUTOR, (executors, "ExecutorConfig"), (spec, "ExecutorConfig"))
    (found,) = load(executor=", made_up: 1.5, py_modules: []").deployments
    sent = ExecutorSpec.of(found, shard=0, replica=0, base_dir=".")
    arrived = ExecutorSpec.from_line(sent.to_line())
    assert arrived.executor.made_up_s == 1.5  # type: ignore[attr-defined]
    assert attrs.evolve(arrived, executor=sent.executor) == sent


def test_one_that_the_model_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    key = Key("made_up", kinds.BOOLEAN, None, "Made up.", spreads=False)
    monkeypatch.setitem(GATEWAY._by_word, "made_up", key)
    with pytest.raises(TypeError, match="made_up"):
        load(gateway="made_up: true")
