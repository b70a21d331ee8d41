"""``gatewayd new``: a small project with a Flow that can be served and tested right away."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gatewayd.cli.output import fail, note, say
from gatewayd.extras import docarray_generation, executor_problem
from gatewayd.messages.generations import Generation

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


# With docarray 0.40 and later.
_TYPED_EXECUTORS: Final = '''\
"""What this project's executors do with documents."""

from docarray import BaseDoc, DocList

from gatewayd import Executor, requests


class Text(BaseDoc):
    text: str


class Shout(Executor):
    """Turns texts into capitals."""

    def __init__(self, mark: str = "", **kwargs):
        super().__init__(**kwargs)
        self.mark = mark

    @requests(on="/shout")
    def shout(self, docs: DocList[Text], **kwargs) -> DocList[Text]:
        return DocList[Text](Text(text=doc.text.upper() + self.mark) for doc in docs)
'''

_TYPED_TEST: Final = '''\
"""Run with: pip install pytest; python -m pytest. No port is opened and no process starts."""

from pathlib import Path

from executors import Shout, Text
from gatewayd.testing import LocalFlow


def test_the_flow_answers_in_capitals():
    with LocalFlow(Path(__file__).parent / "flow.yml") as flow:
        assert flow.post("/shout", Text(text="hello"), return_type=Text).text == "HELLO!"


def test_the_mark_is_chosen_by_the_flow():
    with LocalFlow(Shout, uses_with={"mark": "?"}) as flow:
        assert flow.post("/shout", Text(text="hello"), return_type=Text).text == "HELLO?"
'''

_STREAMING_FLOW: Final = _FLOW.replace("name: shout\n    uses: Shout", "name: talk\n    uses: Talk")

_STREAMING_EXECUTORS: Final = '''\
"""What this project's executor does with documents."""

import asyncio

{imports}

from gatewayd import Executor, requests
{classes}

class Talk(Executor):
    """Answers a text word by word, as a language model would."""

    def __init__(self, mark: str = "", **kwargs):
        super().__init__(**kwargs)
        self.mark = mark

    @requests(on="/talk")
    async def talk(self, doc: {question}, parameters: dict, **kwargs){returned}:
        # What is yielded leaves at once. A method without async may yield as well: it runs in a thread.
        for word in doc.text.split():
            await asyncio.sleep(parameters.get("pause_s", 0.1))
            yield {word}(text=word.upper() + self.mark)
'''

_TYPES: Final = """

class Question(BaseDoc):
    text: str


class Word(BaseDoc):
    text: str

"""

# What differs between the two generations of documents.
_FORMS: Final = {
    Generation.FIRST: {
        "imports": "from docarray import Document",
        "classes": "",
        "question": "Document",
        "word": "Document",
        "returned": "",
    },
    Generation.SECOND: {
        "imports": "from docarray import BaseDoc",
        "classes": _TYPES,
        "question": "Question",
        "word": "Word",
        "returned": " -> Word",
    },
}

_STREAMING_TEST: Final = '''\
"""Run with: pip install pytest; python -m pytest. No port is opened and no process starts."""

import asyncio
{imports}
from executors import {names}


def test_a_text_is_answered_word_by_word():
    async def words():
        answers = Talk(mark="!").talk({question}(text="hello you"), parameters={{"pause_s": 0}})
        return [one.text async for one in answers]

    assert asyncio.run(words()) == ["HELLO!", "YOU!"]
'''

_STREAMING_README: Final = """\
# {name}

A Flow with one executor, which answers a text word by word, each as soon as it is there.

    gatewayd check             # what flow.yml will do
    gatewayd serve             # flow.yml, until Ctrl-C
    curl -sN localhost:12346/talk -H 'Content-Type: application/json' -d '{{"data": [{{"text": "hello"}}]}}'

    pip install pytest         # once
    python -m pytest           # its tests

In Python, over gRPC (HTTP and WebSocket work as well, and `async for` with `Client(asyncio=True)`):

    from gatewayd import Client
    {import_line}

    for word in Client(port=12345).stream_doc("/talk", {document}(text="hello you")):
        print(word.text)

| file | holds |
| --- | --- |
| flow.yml | which executors there are, and on which ports they are served |
| executors.py | what the executor does |
| test_flow.py | its tests |
"""


def _plain(name: str) -> dict[str, str]:
    """The files of a project, for the docarray that is installed; for docarray 0.21 where there is none."""
    typed = docarray_generation() is Generation.SECOND
    readme = _README.format(name=name)
    return {
        "flow.yml": _FLOW,
        "executors.py": _TYPED_EXECUTORS if typed else _EXECUTORS,
        "test_flow.py": _TYPED_TEST if typed else _TEST,
        "README.md": readme.replace("localhost:12346/post", "localhost:12346/shout") if typed else readme,
    }


def _streaming(name: str) -> dict[str, str]:
    """The files of a project whose executor streams, for the docarray that is installed."""
    generation = docarray_generation() or Generation.SECOND
    form = _FORMS[generation]
    is_first = generation is Generation.FIRST
    imports = "\nfrom docarray import Document\n" if is_first else ""
    test = {
        "imports": imports,
        "names": "Talk" if is_first else "Question, Talk",
        "question": form["question"],
    }
    return {
        "flow.yml": _STREAMING_FLOW,
        "executors.py": _STREAMING_EXECUTORS.format(**form),
        "test_flow.py": _STREAMING_TEST.format(**test),
        "README.md": _STREAMING_README.format(
            name=name,
            import_line="from docarray import Document" if is_first else "from executors import Question",
            document="Document" if is_first else "Question",
        ),
    }


def make_project(folder: Path, streaming: bool = False) -> int:
    """Write the files into a new or empty folder. Returns the exit code."""
    name = folder.absolute().name
    files = _streaming(name) if streaming else _plain(name)
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
    if problem := executor_problem("its executor needs"):
        note(problem)
    note(f"next:  cd {folder}  &&  gatewayd serve")
    return 0
