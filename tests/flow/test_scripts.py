"""The examples of the user's document as scripts: run as they are, but for the import and the port."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.processes import Child, environment, free_ports
from tests.waiting import until

pytestmark = pytest.mark.slow

FOO = """
from docarray import Document, DocumentArray
from gatewayd import Client, Executor, Flow, requests


class FooExecutor(Executor):
    @requests
    def foo(self, docs: DocumentArray, **kwargs):
        docs.append(Document(text='foo was called'))


"""
GRPC = (
    FOO
    + """
f = Flow().config_gateway(protocol='grpc', port=12345).add(uses=FooExecutor)
with f:
    client = Client(port=12345)
    docs = client.post(on='/')
    print(docs.texts)
"""
)
HTTP = (
    FOO
    + """
f = Flow().config_gateway(protocol='http', port=12345).add(uses=FooExecutor)
with f:
    client = Client(port=12345, protocol='http')
    docs = client.post(on='/')
    print(docs.texts)
"""
)
WEBSOCKET = (
    FOO
    + """
f = Flow().config_gateway(protocol='websocket', port=12345).add(uses=FooExecutor)
with f:
    client = Client(port=12345, protocol='websocket')
    docs = client.post(on='/')
    print(docs.texts)
"""
)
BLOCKING = """
from gatewayd import Flow
flow = Flow().config_gateway(protocol=['grpc', 'http', 'websocket'])
with flow:
    print('ports', *flow.port, flush=True)
    flow.block()
print('closed')
"""
STATUS = """
from gatewayd import Flow

with Flow().config_gateway(protocol=['grpc'], port=12345) as f:
    print('ready', flush=True)
    f.block()
"""
BROKEN = """
from gatewayd import Executor, Flow, requests


class Broken(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        raise OSError('the model is not there')


with Flow().add(uses=Broken, name='model'):
    print('never')
"""
FAILS_WHEN_ASKED = """
from beside import Beside
from gatewayd import Executor, Flow, requests


class Top(Executor):
    @requests
    def ask(self, **kwargs):
        raise ValueError('top')


def make():
    class Local(Executor):
        @requests
        def ask(self, **kwargs):
            raise ValueError('local')

    return Local


for cls in (Top, make(), Beside):
    with Flow().add(uses=cls) as flow:
        try:
            flow.post('/', 'x')
        except Exception as error:
            print(''.join(error.stacks))
"""
BY_NAME = """
from dataclasses import dataclass
from gatewayd import Executor, Flow, requests


class Named(Executor):
    def __init__(self, word='?', **kwargs):
        super().__init__(**kwargs)
        self.word = word

    @requests
    def say(self, docs, **kwargs):
        docs[0].text += f'{self.metas.name} {self.word};'


@dataclass
class Data(Executor):
    number: int = 1

    @requests
    def say(self, docs, **kwargs):
        docs[0].text += f'{self.number};'


uses = [
    'Data',
    '!Named\\nwith: {word: own}',
    {'jtype': 'Data', 'with': {'number': 2}},
    '\\n    jtype: Named\\n    with: {word: own}\\n',
    'named.yml',
]
flow = Flow()
for each in uses:
    flow = flow.add(uses=each)
with flow:
    print(*flow.post('/', '').texts)
with Flow.load_config('flow.yml') as flow:
    print(*flow.post('/', '').texts)
"""
FAILS_ONCE = """
from gatewayd import Executor, Flow, requests


class Failing(Executor):
    @requests
    def ask(self, **kwargs):
        raise ValueError('asked')


with Flow().add(uses=Failing) as flow:
    flow.post('/', 'x')
"""
BESIDE = """
from gatewayd import Executor, requests


class Beside(Executor):
    @requests
    def ask(self, **kwargs):
        raise ValueError('beside')
"""
NOT_CARRIED = """
import threading
from gatewayd import Executor, Flow, requests

guard = threading.Lock()


class Guarded(Executor):
    @requests
    def foo(self, docs, **kwargs):
        with guard:
            pass


Flow().add(uses=Guarded).start()
"""
RAISES = (
    FOO
    + """
f = Flow().add(uses=FooExecutor)
with f:
    print('gateway', f._running.pid, flush=True)
    raise KeyError('mine')
"""
)
KILLED = (
    FOO
    + """
f = Flow().add(uses=FooExecutor)
f.start()
print('gateway', f._running.pid, flush=True)
f.block()
"""
)


def run(folder: Path, text: str, port: int = 0) -> subprocess.CompletedProcess[str]:
    script = folder / "example.py"
    script.write_text(text.replace("12345", str(port)))
    return subprocess.run(
        [sys.executable, str(script)],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def children(pid: int) -> list[int]:
    """The processes below one, itself first."""
    found = [pid]
    for one in found:
        path = Path(f"/proc/{one}/task/{one}/children")
        if path.exists():
            found += [int(word) for word in path.read_text().split()]
    return found


def wait_until_blocked(pid: int, timeout_s: float = 20.0) -> None:
    """``block`` has begun when it has taken SIGTERM."""

    def blocked() -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
        return caught >> (signal.SIGTERM - 1) & 1

    until(blocked, timeout_s)


def assert_gone(pids: list[int], timeout_s: float = 20.0) -> None:
    def left() -> list[int]:
        return [pid for pid in pids if Path(f"/proc/{pid}").exists() and not _is_zombie(pid)]

    until(lambda: not left(), timeout_s, lambda: f"the end of {left()}")


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("example", [GRPC, HTTP, WEBSOCKET], ids=["grpc", "http", "websocket"])
def test_an_example_of_the_document_prints_what_it_says(example, tmp_path):
    done = run(tmp_path, example, free_ports(1)[0])

    assert done.stdout == "['foo was called']\n", done.stderr
    # A Flow without a host listens to other machines, too; nothing else is said.
    assert re.fullmatch(
        r"(\S+ \[gatewayd.service.gateway#warn\] gateway.host: 0.0.0.0 lets .*\n)?", done.stderr
    )
    assert done.returncode == 0


@pytest.fixture
def start(tmp_path):
    started = []

    def start(text: str, port: int = 0) -> Child:
        script = tmp_path / "example.py"
        script.write_text(text.replace("12345", str(port)))
        started.append(Child([sys.executable, str(script)], cwd=tmp_path))
        return started[-1]

    yield start
    for child in started:
        child.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_blocked_flow_ends_cleanly_on_a_signal(start, number):
    child = start(BLOCKING)
    child.line(r"^ports \d+ \d+ \d+$")
    wait_until_blocked(child.pid)
    below = children(child.pid)

    os.kill(child.pid, number)

    child.line("^closed$")
    assert_gone(below)
    assert child.stop() == 0
    assert "Traceback" not in child.output


def test_the_status_of_a_blocked_flow_can_be_asked(start):
    port = free_ports(1)[0]
    start(STATUS, port).line("^ready$")

    told = subprocess.run(
        [sys.executable, "-m", "gatewayd", "status", f"grpc://127.0.0.1:{port}"],
        env=environment(), capture_output=True, text=True, timeout=30,
    )  # fmt: skip

    assert "jina-proto" in told.stdout, told.stderr


def test_a_failing_executor_raises_with_its_own_traceback(tmp_path):
    done = run(tmp_path, BROKEN)

    assert done.returncode == 1
    assert "RuntimeFailToStart: model/rep-0 cannot start" in done.stderr
    assert "raise OSError('the model is not there')" in done.stderr
    assert "never" not in done.stdout


def test_the_traceback_of_a_request_shows_the_file_the_line_and_its_text(tmp_path):
    """Of a script's class, of a function's, and of one that is imported from beside the script."""
    (tmp_path / "beside.py").write_text(BESIDE)
    done = run(tmp_path, FAILS_WHEN_ASKED)

    assert done.returncode == 0, done.stderr
    for word, name, text in (
        ("top", "example.py", FAILS_WHEN_ASKED),
        ("local", "example.py", FAILS_WHEN_ASKED),
        ("beside", "beside.py", BESIDE),
    ):
        source = f"raise ValueError('{word}')"
        line = text[: text.index(source)].count("\n") + 1
        assert f'File "{tmp_path / name}", line {line}, in ask\n    {source}' in done.stdout


def test_a_failed_request_has_its_traceback_once_where_it_was_made(tmp_path):
    done = run(tmp_path, FAILS_ONCE)

    assert done.returncode == 1
    assert "failed on '/': ValueError: asked\n" in done.stderr
    assert done.stderr.count("raise ValueError('asked')\n") == 1
    assert f'{tmp_path / "example.py"}", line 8, in ask' in done.stderr
    assert "handling.py" not in done.stderr


def test_a_class_of_the_script_is_found_by_its_bare_name(tmp_path):
    """In ``uses``, in an executor's own configuration, and in a Flow file."""
    (tmp_path / "named.yml").write_text("jtype: Named\nwith: {word: own}\nmetas: {name: mine}\n")
    (tmp_path / "flow.yml").write_text("jtype: Flow\nexecutors: [{uses: Named, uses_with: {word: file}}]\n")
    done = run(tmp_path, BY_NAME)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "1;Named own;2;Named own;mine own;\nNamed file;\n"


def test_what_cannot_be_sent_to_a_process_is_named(tmp_path):
    done = run(tmp_path, NOT_CARRIED)

    assert done.returncode == 1
    assert "Guarded.foo uses guard (a lock), which cannot be sent" in done.stderr


def test_an_exception_in_the_with_block_leaves_nothing_behind(start):
    child = start(RAISES)
    (match,) = child.line(r"^gateway (\d+)$")
    below = children(int(match[1]))

    child.line("KeyError: 'mine'")

    assert_gone(below)


def test_a_killed_script_leaves_nothing_behind(start):
    child = start(KILLED)
    (match,) = child.line(r"^gateway (\d+)$")
    below = children(int(match[1]))
    assert len(below) >= 2

    child.kill()

    assert_gone(below)


def test_a_module_beside_the_script_and_a_closure_are_carried(tmp_path):
    (tmp_path / "beside.py").write_text("WORD = 'beside'\n")
    done = run(
        tmp_path,
        textwrap.dedent(
            """
            import beside
            from gatewayd import Executor, Flow, requests
            from docarray import Document

            def make(word):
                class Made(Executor):
                    def __init__(self, table=None, **kwargs):
                        super().__init__(**kwargs)
                        self.table = table

                    @requests(on='/say')
                    def say(self, docs, **kwargs):
                        for doc in docs:
                            doc.text = f'{word} {beside.WORD} {self.table[1]}'
                return Made

            with Flow().add(uses=make('inner'), uses_with={'table': {1: 'one'}}) as f:
                print(f.post('/say', Document()).texts)
                print(f.post('/other', Document(text='same')).texts)
            """
        ),
    )

    assert done.stdout == "['inner beside one']\n['same']\n", done.stderr
