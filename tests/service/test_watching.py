"""When a change of the files of a Flow is one to act upon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from gatewayd.config import DeploymentConfig, ExecutorConfig, FlowConfig, load_flow
from gatewayd.config.model import GatewayConfig
from gatewayd.service.watching import LOOK_S, Watch, is_watched, look


class Setup:
    """A watch on a Flow of two executors, each in a file of its own."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        for name in ("flow.yml", "a.py", "b.py"):
            (folder / name).write_text("one")
        self.flow = FlowConfig(
            deployments=tuple(
                DeploymentConfig(name, executor=ExecutorConfig(py_modules=(str(folder / f"{name}.py"),)))
                for name in ("a", "b")
            ),
            files=(str(folder / "flow.yml"),),
            **{"reload": True, **settings},
        )
        self.clock, self.changes = Clock(), 0
        self.watch = Watch(
            lambda: self.flow, self._changed, seen=look(self.flow), clock=self.clock, offload=maybeDeferred
        )

    def _changed(self) -> None:
        self.changes += 1

    def edit(self, name: str) -> None:
        path = self.folder / name
        path.write_text(path.read_text() + "+")

    def looks(self, count: int) -> int:
        """How many changes there were after so many looks more."""
        self.clock.pump([LOOK_S] * count)
        return self.changes


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


@pytest.mark.parametrize("name", ["flow.yml", "a.py"])
def test_a_change_counts_when_two_looks_have_found_the_same(setup: Setup, name: str) -> None:
    setup.watch.update()
    assert setup.looks(3) == 0

    setup.edit(name)
    assert setup.looks(1) == 0
    setup.edit(name)
    assert setup.looks(1) == 0
    assert setup.looks(1) == 1
    assert setup.looks(3) == 1


def test_a_change_from_before_the_first_look_is_not_missed(setup: Setup) -> None:
    setup.edit("a.py")
    setup.watch.update()

    assert setup.looks(1) == 1


def test_nor_is_one_while_another_flow_is_taken_up(setup: Setup) -> None:
    setup.watch.update()
    setup.looks(2)
    setup.edit("a.py")
    (setup.folder / "c.py").write_text("new")
    c = DeploymentConfig("c", executor=ExecutorConfig(py_modules=(str(setup.folder / "c.py"),)))
    setup.flow = attrs.evolve(setup.flow, deployments=(*setup.flow.deployments, c))
    setup.watch.update()

    assert setup.looks(2) == 1
    assert setup.looks(2) == 1


def test_a_file_that_goes_and_comes_is_two_changes(setup: Setup) -> None:
    setup.watch.update()
    setup.looks(1)
    (setup.folder / "a.py").unlink()
    assert setup.looks(2) == 1
    (setup.folder / "a.py").write_text("again")
    assert setup.looks(2) == 2


def test_nothing_is_looked_at_where_it_is_not_wanted(tmp_path: Path) -> None:
    setup = Setup(tmp_path, reload=False)
    setup.watch.update()
    assert setup.clock.getDelayedCalls() == []

    setup.flow = attrs.evolve(setup.flow, reload=True)
    setup.watch.update()
    assert len(setup.clock.getDelayedCalls()) == 1
    setup.watch.update()
    assert len(setup.clock.getDelayedCalls()) == 1
    setup.flow = attrs.evolve(setup.flow, reload=False)
    setup.looks(1)
    assert setup.clock.getDelayedCalls() == []


def test_a_stop_ends_a_look(setup: Setup) -> None:
    looking: Deferred[Any] = Deferred()
    watch = Watch(lambda: setup.flow, setup._changed, seen={}, clock=setup.clock, offload=lambda *_: looking)
    watch.update()

    watch.stop()

    assert looking.called
    assert setup.clock.getDelayedCalls() == []


def test_an_executor_alone_is_watched_without_the_flow_file(tmp_path: Path) -> None:
    setup = Setup(tmp_path, reload=False)
    a, b = setup.flow.deployments
    flow = attrs.evolve(setup.flow, deployments=(attrs.evolve(a, reload=True), b))

    assert is_watched(flow)
    assert [Path(name).name for name in look(flow)] == ["a.py"]
    assert [Path(name).name for name in look(attrs.evolve(flow, gateway=GatewayConfig(reload=True)))] == [
        "flow.yml",
        "a.py",
    ]


def test_the_configurations_of_executors_are_files_of_the_flow(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("jtype: A\npy_modules: [a.py]\n")
    (tmp_path / "a.py").touch()
    (tmp_path / "flow.yml").write_text(
        "jtype: Flow\nwith: {reload: true}\nexecutors: [{name: a, uses: config.yml}]\n"
    )

    flow = load_flow(tmp_path / "flow.yml")

    assert flow.reload
    assert [Path(name).name for name in flow.files] == ["flow.yml", "config.yml"]
    assert [Path(name).name for name in look(flow)] == ["flow.yml", "config.yml", "a.py"]
