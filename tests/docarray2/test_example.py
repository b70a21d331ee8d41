"""examples/streaming, and the projects that `gatewayd new` makes, with docarray 0.40 and later."""

import asyncio
import subprocess
import sys

import pytest

from gatewayd.cli.scaffold import make_project
from gatewayd.config import ExecutorConfig
from gatewayd.executor.loading import load
from gatewayd.executor.spec import ExecutorSpec
from tests.paths import ROOT
from tests.processes import environment


def test_the_writer_answers_token_by_token():
    config = ExecutorConfig(uses="Writer", py_modules=("writer.py",))
    executor = load(ExecutorSpec("writer", config, base_dir=str(ROOT / "examples" / "streaming")))
    form = executor.forms["/write"]

    async def tokens():
        question = form.input(text="one two three")
        settings = form.parameters(pause_s=0, most_tokens=2)
        return [one async for one in executor.write(question, settings)]

    got = asyncio.run(tokens())

    assert [one.number for one in got] == [0, 1]
    assert {one.text for one in got} <= {"one", "two", "three"}
    assert form.streams
    assert form.output.__name__ == "Token"


@pytest.mark.parametrize(("streaming", "code"), [(True, "class Question(BaseDoc)"), (False, "DocList[Text]")])
def test_a_new_project_passes_its_own_tests(tmp_path, streaming, code):
    folder = tmp_path / "talk"

    assert make_project(folder, streaming=streaming) == 0

    assert code in (folder / "executors.py").read_text()
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        env=environment(), cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout
