"""Finding and creating the class that a Flow names."""

import sys
from pathlib import Path

import pytest

from gatewayd.config import ExecutorConfig
from gatewayd.executor import classes
from gatewayd.executor.by_value import ByValue
from gatewayd.executor.executor import Executor
from gatewayd.executor.loading import LoadError, load
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.extras import docarray_generation
from gatewayd.messages.generations import Generation

SOURCE = """
from gatewayd import Executor, requests

class Mine(Executor):
    def __init__(self, size=1, color="red", **kwargs):
        super().__init__(**kwargs)
        self.size, self.color = size, color

    @requests(on="/x")
    def x(self, **kwargs): ...

    @requests(on="/y")
    def y(self, **kwargs): ...

class Forgetful(Executor):
    def __init__(self, **kwargs):
        pass

class Stranger: ...
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A Flow's folder with one module; what loading does to sys is undone."""
    (tmp_path / "mine_of_test_loading.py").write_text(SOURCE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    return tmp_path


def load_from(folder, uses, **config):
    return load(ExecutorSpec("exec_a", ExecutorConfig(uses=uses, **config), base_dir=str(folder)))


@pytest.mark.parametrize("uses", ["mine_of_test_loading.Mine", "mine_of_test_loading:Mine"])
def test_a_class_is_found_in_a_module_of_the_flows_folder(folder, uses):
    assert type(load_from(folder, uses)).__name__ == "Mine"


def test_a_bare_name_is_found_in_py_modules(folder):
    path = str(folder / "mine_of_test_loading.py")

    executor = load_from(folder, "Mine", py_modules=(path,), uses_with={"size": 3})

    assert (executor.size, executor.color) == (3, "red")
    assert executor.runtime_args.name == "exec_a/rep-0"


def test_a_class_that_the_sender_knows_by_its_name_is_used_unless_py_modules_define_one(folder):
    class Mine(Executor): ...

    path = str(folder / "mine_of_test_loading.py")

    def loaded(py_modules):
        config = ExecutorConfig(uses="Mine", py_modules=py_modules)
        return type(load(ExecutorSpec("a", config, base_dir=str(folder)), ByValue(known=Mine)))

    assert loaded(()) is Mine
    assert loaded((path,)).__module__ == "mine_of_test_loading"


def test_an_init_without_super_does(folder):
    assert load_from(folder, "mine_of_test_loading.Forgetful").runtime_args.name == "exec_a/rep-0"


def test_no_class_is_the_pass_through():
    assert type(load(ExecutorSpec("exec_a"))) is Executor


def test_a_py_module_may_have_the_name_of_a_standard_one(folder):
    (folder / "json.py").write_text("from gatewayd import Executor\nclass Named(Executor): ...\n")

    executor = load_from(folder, "Named", py_modules=(str(folder / "json.py"),))

    assert type(executor).__name__ == "Named"
    assert "loads" in vars(sys.modules["json"])


@pytest.mark.parametrize(
    ("uses", "message"),
    [
        ("nowhere.Mine", "the module nowhere cannot be imported"),
        ("mine_of_test_loading.Missing", r"mine_of_test_loading\.py has no class Missing"),
        ("mine_of_test_loading.Stranger", "is not a gatewayd Executor"),
        ("Nobody", "no Executor class Nobody"),
    ],
)
def test_what_cannot_be_loaded_is_explained(folder, uses, message):
    with pytest.raises(LoadError, match=message):
        load_from(folder, uses)


def test_a_py_module_that_does_not_exist_is_named(folder):
    with pytest.raises(LoadError, match=r"no file .*gone\.py"):
        load_from(folder, "X", py_modules=(str(folder / "gone.py"),))


def test_a_spec_survives_its_line():
    spec = ExecutorSpec(
        "exec_a",
        ExecutorConfig(
            uses="X", uses_with={"a": [1, {"b": None}]}, py_modules=("/x.py",), exit_on_exceptions=("E",)
        ),
        shard=1,
        shards=2,
        replica=3,
        replicas=4,
    )

    assert ExecutorSpec.from_line(spec.to_line()) == spec
    assert (spec.runtime_name, spec.route_name) == ("exec_a/shard-1/rep-3", "exec_a/shard-1")


@pytest.mark.skipif(docarray_generation() is not Generation.FIRST, reason="about the docarray of another")
def test_code_for_another_docarray_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text("from docarray import BaseDoc")
    with pytest.raises(classes.LoadError, match=r"; it is written for docarray 0.40 or later, and 0.21"):
        classes.import_file(tmp_path / "typed.py")
