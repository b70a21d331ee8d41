"""Executors from their own configurations, and configurations from executors."""

import dataclasses
import io
import subprocess
import sys

import pytest

from gatewayd import Executor, requests
from gatewayd.errors import ConfigError
from gatewayd.executor.classes import LoadError
from tests.processes import environment


class Configured(Executor):
    def __init__(self, size=1, colour="red", **kwargs):
        super().__init__(**kwargs)
        self.size, self.colour = size, colour

    @requests(on="/x")
    def x(self, **kwargs): ...


@dataclasses.dataclass
class Data(Executor):
    size: int = 1
    colour: str = "red"

    @requests(on="/x")
    def x(self, **kwargs): ...


BATCHING = {"/y": {"preferred_batch_size": 2}}
OTHER = """
from gatewayd import Executor
class Other(Executor):
    def __init__(self, size=1, **kwargs):
        super().__init__(**kwargs)
        self.size = size
"""


@pytest.fixture(autouse=True)
def restored(monkeypatch, tmp_path):
    """What loading does to ``sys`` is undone."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("cls", [Configured, Data])
@pytest.mark.parametrize(
    "source",
    [
        "jtype: {name}\nwith: {{size: 2}}",
        "\n  jtype: {name}\n  with: {{size: 2}}\n",
        "!{name}\nwith: {{size: 2}}",
        "with: {{size: 2}}",
    ],
)
def test_text_is_loaded(cls, source):
    executor = cls.load_config(source.format(name=cls.__name__))

    assert type(executor) is cls
    assert (executor.size, executor.colour) == (2, "red")


def test_a_stream_a_map_a_name_and_a_file_are_loaded(tmp_path):
    (tmp_path / "data.yml").write_text("jtype: Data\nwith: {size: 3}\n")

    for source in (
        io.StringIO("jtype: Data\nwith: {size: 3}"),
        {"jtype": "Data", "with": {"size": 3}},
        "data.yml",
        tmp_path / "data.yml",
    ):
        assert Executor.load_config(source) == Data(size=3)
    assert Executor.load_config("Data") == Executor.load_config("!Data") == Data()


def test_overrides_win_over_the_configuration():
    executor = Executor.load_config(
        "jtype: Configured\nwith: {size: 2}\nmetas: {name: a, description: b}\nrequests: {/y: x}",
        uses_with={"colour": "blue"},
        uses_metas={"name": "c"},
        uses_requests={"/z": "x"},
        uses_dynamic_batching={"/z": {"preferred_batch_size": 4}},
        runtime_args={"name": "d/rep-0"},
    )

    assert (executor.size, executor.colour) == (2, "blue")
    assert (executor.metas.name, executor.metas.description) == ("c", "b")
    assert list(executor.requests) == ["/y", "/z", "_jina_dry_run_"]
    assert executor.batching["/z"].preferred_batch_size == 4
    assert executor.runtime_args.name == "d/rep-0"


def test_variables_are_replaced_unless_they_are_not_to_be(monkeypatch):
    monkeypatch.setenv("COLOUR", "blue")
    text = "jtype: Data\nwith: {colour: $COLOUR, size: '${{ CONTEXT.size }}'}"

    assert Executor.load_config(text, context={"size": 5}) == Data(5, "blue")
    assert Executor.load_config(text, substitute=False) == Data("${{ CONTEXT.size }}", "$COLOUR")


def test_modules_are_found_beside_the_file_and_files_in_extra_folders(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "other_of_test_configured.py").write_text(OTHER)
    (folder / "other.yml").write_text(
        "jtype: Other\npy_modules: other_of_test_configured.py\nwith: {size: 4}\n"
    )

    executor = Executor.load_config("other.yml", extra_search_paths=[folder])

    assert (type(executor).__name__, executor.size) == ("Other", 4)


def test_further_modules_may_be_given(tmp_path):
    (tmp_path / "another_of_test_configured.py").write_text(OTHER.replace("Other", "Another"))

    executor = Executor.load_config("jtype: Another", py_modules="another_of_test_configured.py")

    assert type(executor).__name__ == "Another"


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nowhere.yml", FileNotFoundError, "can not find nowhere.yml"),
        ("jtype: Missing", LoadError, "there is no Executor class Missing"),
        ("jtype: Data\nwit: {}", ConfigError, "<text>:2:1: wit: unknown key .* did you mean with"),
        ("jtype: Data\nwith: {siz: 1}", TypeError, "unexpected keyword argument 'siz'"),
        ("jtype: Data\nrequests: {/a: y}", TypeError, "no such method; Data has x"),
        ("- a", ConfigError, "found a list"),
        ("", ConfigError, "found nothing"),
    ],
)
def test_what_cannot_be_loaded_is_explained(source, error, message):
    with pytest.raises(error, match=message):
        Executor.load_config(source)


@pytest.mark.parametrize(
    "executor",
    [
        Configured(3),
        Data(3, colour="blue"),
        Configured(size=3, metas={"name": "mine"}, requests={"/y": "x"}, dynamic_batching=BATCHING),
    ],
    ids=["positional", "dataclass", "sections"],
)  # fmt: skip
def test_what_was_saved_is_loaded_again(tmp_path, executor):
    executor.save_config("saved.yml")
    loaded = Executor.load_config("saved.yml")
    loaded.save_config("again.yml")

    assert type(loaded) is type(executor)
    assert (loaded.size, loaded.colour) == (executor.size, executor.colour)
    assert (loaded.metas, loaded.requests, loaded.batching) == (
        executor.metas,
        executor.requests,
        executor.batching,
    )
    assert (tmp_path / "again.yml").read_text() == (tmp_path / "saved.yml").read_text()


def test_an_argument_that_yaml_does_not_have_is_named():
    with pytest.raises(TypeError, match=r"colour=<object .* of Configured cannot be written"):
        Configured(colour=object()).save_config("saved.yml")


def test_a_class_of_a_script_is_saved_with_its_file(tmp_path):
    script = tmp_path / "script_of_test_configured.py"
    script.write_text(OTHER + "\nif __name__ == '__main__':\n    Other(size=6).save_config('saved.yml')\n")
    subprocess.run([sys.executable, str(script)], check=True, env=environment(), cwd=tmp_path)

    executor = Executor.load_config("saved.yml")

    assert (type(executor).__name__, executor.size) == ("Other", 6)
