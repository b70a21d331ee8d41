"""Executors that a script or a notebook defines are sent to their processes with their types."""

import subprocess
import sys

from tests.processes import environment

SCRIPT = """
from docarray import BaseDoc, DocList
from gatewayd import Executor, requests
from gatewayd.executor.by_value import ByValue, pack


class Part(BaseDoc):
    text: str


class Whole(BaseDoc):
    parts: DocList[Part] = DocList[Part]()


class Joins(Executor):
    empty = DocList[Part]()

    @requests(on="/joins")
    def joins(self, docs: DocList[Part], **kwargs) -> DocList[Whole]:
        return DocList[Whole]([Whole(parts=docs)])


print(pack(ByValue(Joins)))
"""
RECEIVER = """
import sys
from gatewayd.executor.by_value import unpack

cls = unpack(sys.stdin.read()).cls
form = cls().forms["/joins"]
part = form.input(text="a")
print(form.input.__name__, form.output.__name__, cls().joins([part])[0].parts[0].text, len(cls.empty))
"""


def python(code, given=""):
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=given, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_typed_lists_are_made_again():
    assert python(RECEIVER, python(SCRIPT)) == "Part Whole a 0"
