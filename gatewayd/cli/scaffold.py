"""``gatewayd new``: a small project with a Flow that can be served and tested right away."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gatewayd.cli.output import fail, note, say
from gatewayd.extras import docarray_problem

_FLOW: Final = """\
# What is served, and how. `gatewayd check` says what this file does.
jtype: Flow
version: '1'
gateway:
  host: 127.0.0.1  # 0.0.0.0 lets other machines in
  protocol: [grpc, http, websocket]
  port: [12345, 12346, 12347]
executors:
  - name: shout
    uses: Shout
    uses_with:
      mark: '!'
    py_modules: [executors.py]
"""

_EXECUTORS: Final = '''\
"""What this project's executors do with documents."""

from docarray import DocumentArray

from gatewayd import Executor, requests


class Shout(Executor):
    """Turns texts into capitals."""

    def __init__(self, mark: str = "", **kwargs):
        super().__init__(**kwargs)
        self.mark = mark

    @requests
    def shout(self, docs: DocumentArray, **kwargs):
        for doc in docs:
            doc.text = doc.text.upper() + self.mark
'''

_TEST: Final = '''\
"""Run with: pip install pytest; python -m pytest. No port is opened and no process starts."""

from pathlib import Path

from docarray import Document

from executors import Shout
from gatewayd.testing import LocalFlow


def test_the_flow_answers_in_capitals():
    with LocalFlow(Path(__file__).parent / "flow.yml") as flow:
        assert flow.post("/", Document(text="hello")).texts == ["HELLO!"]


def test_the_mark_is_chosen_by_the_flow():
    with LocalFlow(Shout, uses_with={"mark": "?"}) as flow:
        assert flow.post("/", Document(text="hello")).texts == ["HELLO?"]
'''

_README: Final = """\
# {name}

A Flow with one executor, served over gRPC, HTTP and WebSocket.

    gatewayd check             # what flow.yml will do
    gatewayd serve             # flow.yml, until Ctrl-C
    curl -s localhost:12346/post -H 'Content-Type: application/json' -d '{{"data": [{{"text": "hello"}}]}}'

    pip install pytest         # once
    python -m pytest           # its tests

| file | holds |
| --- | --- |
| flow.yml | which executors there are, and on which ports they are served |
| executors.py | what the executors do |
| test_flow.py | tests of both |
"""


def make_project(folder: Path) -> int:
    """Write the files into a new or empty folder. Returns the exit code."""
    files = {
        "flow.yml": _FLOW,
        "executors.py": _EXECUTORS,
        "test_flow.py": _TEST,
        "README.md": _README.format(name=folder.absolute().name),
    }
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            return fail(f"{folder} already exists and is not empty")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        return fail(str(error))
    for name in files:
        say(str(folder / name))
    if problem := docarray_problem("its executor needs", "executor"):
        note(problem)
    note(f"next:  cd {folder}  &&  gatewayd serve")
    return 0
