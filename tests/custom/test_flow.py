"""A gateway class in a whole Flow: in Python and in YAML, started, asked, checked, refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from docarray import Document, DocumentArray
from klein import Klein

from gatewayd import Executor, Flow, Gateway, requests
from gatewayd.flow.flow import FlowError, RuntimeFailToStart
from tests.processes import Child, environment

pytestmark = pytest.mark.slow


class Greeter(Executor):
    @requests(on="/greet")
    def greet(self, docs: DocumentArray, **kwargs: Any) -> None:
        for doc in docs:
            doc.text = f"Hello, {doc.text}!"


def by_value() -> type[Gateway]:
    """A class that no other process can import by its name."""

    class Front(Gateway):
        app = Klein()

        def __init__(self, mark: str, words: Any = None) -> None:
            self.mark = mark
            self.words = words
            self.warm = ""

        async def startup(self) -> None:
            docs = await self.post("/greet", Document(text="warm-up"))
            self.warm = docs[0].text

        def shutdown(self) -> None:
            Path(self.mark).write_text(f"{self.warm} Good bye.")

        @app.route("/greet/<name>")
        async def greet(self, http_request: Any, name: str) -> str:
            docs = await self.post("/greet", Document(text=name))
            return f"{docs[0].text} {self.words!r}"

    return Front


class NotOne:
    pass


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return answer.read().decode()


def test_a_class_of_a_script_serves_beside_the_gateways_own_routes(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    flow = (
        Flow()
        .config_gateway(
            protocol=["grpc", "http"], uses=by_value(), uses_with={"mark": str(mark), "words": {1, 2}}
        )
        .add(name="greeter", uses=Greeter)
    )
    with flow:
        port = flow.port[1]  # type: ignore[index]
        assert get(port, "/greet/Ada") == "Hello, Ada! {1, 2}"
        assert json.loads(get(port, "/")) == {}
        assert flow.post("/greet", Document(text="Alan"))[0].text == "Hello, Alan!"

    assert mark.read_text() == "Hello, warm-up! Good bye."


FILE = """
from klein import Klein
from gatewayd import Gateway

class Front(Gateway):
    app = Klein()

    @app.route("/front")
    def front(self, http_request):
        return "served"
"""
FAILING = FILE.replace("app = Klein()", "app = Klein()\n    def startup(self): raise OSError('no database')")


def written(folder: Path, source: str = FILE, more: str = "") -> Path:
    (folder / "front.py").write_text(source)
    (folder / "flow.yml").write_text(
        "jtype: Flow\ngateway:\n  protocol: http\n  host: 127.0.0.1\n  uses: Front\n  py_modules: front.py\n"
        f"{more}executors:\n  - name: a\n"
    )
    return folder / "flow.yml"


def test_a_flow_file_names_it_beside_the_file(tmp_path: Path) -> None:
    with Flow.load_config(written(tmp_path)) as flow:
        assert get(flow.port, "/front") == "served"  # type: ignore[arg-type]


def test_the_files_of_config_gateway_are_found_from_where_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    flow = Flow().config_gateway(uses="Front", py_modules=["front.py"])
    monkeypatch.chdir("/")

    assert flow.config.gateway.custom is not None
    assert flow.config.gateway.custom.py_modules == (str(tmp_path / "front.py"),)
    assert "front.py" in flow.to_yaml()


def test_a_class_that_is_none_is_refused_where_it_is_given() -> None:
    with pytest.raises(FlowError, match=r"NotOne is not a gatewayd Gateway; does it inherit"):
        Flow().config_gateway(uses=NotOne)  # type: ignore[arg-type]
    with pytest.raises(FlowError, match=r"cannot be written to a file: .*Front"):
        Flow().config_gateway(uses=by_value(), uses_with={"mark": "x"}).to_yaml()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (FAILING, "gateway.uses: startup of Front failed: OSError('no database')"),
        ("import nothing_like_it", "front.py cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_class_that_cannot_start_ends_the_start(source: str, text: str, tmp_path: Path) -> None:
    path = written(tmp_path, source)
    with pytest.raises(RuntimeFailToStart) as failed, Flow.load_config(path):
        pass
    command = [sys.executable, "-m", "gatewayd", "serve", str(path)]
    served = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)

    assert text in str(failed.value)
    assert served.returncode == 1
    assert re.search(rf"flow.yml:5:\d+: gateway.*{re.escape(text.removeprefix('gateway'))}", served.stdout)


WAITING = {
    "on the reactor": """
    def startup(self):
        from twisted.internet.defer import Deferred
        print("startup has begun", flush=True)
        return Deferred()
""",
    "on the loop": """
    app = staticmethod(lambda scope, receive, send: None)
    async def startup(self):
        import asyncio
        print("startup has begun", flush=True)
        await asyncio.Event().wait()
""",
}


@pytest.mark.parametrize("where", WAITING)
def test_a_signal_during_startup_ends_it_in_order(where: str, tmp_path: Path) -> None:
    path = written(tmp_path, "from gatewayd import Gateway\n\nclass Front(Gateway):" + WAITING[where])
    child = Child([sys.executable, "-m", "gatewayd", "serve", str(path)], cwd=tmp_path)
    try:
        child.line("startup has begun")
    finally:
        code = child.stop()

    assert code == 0
    assert "Traceback" not in child.output
    assert "#critical" not in child.output


def test_check_loads_it(tmp_path: Path) -> None:
    def check(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gatewayd", "check", str(path)]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)

    good = check(written(tmp_path))
    assert (good.returncode, "with the routes of Front" in good.stdout) == (0, True), good
    bad = check(written(tmp_path, "class Front: pass"))
    assert bad.returncode == 1
    assert "gateway.uses: there is no Gateway class Front" in bad.stderr
