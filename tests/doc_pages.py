"""
Runs the examples of a documentation page, in the order in which a reader meets them.

A page has a folder of its own, with copies of conf/ and examples/ in it. Its fenced blocks mean:

    ```yaml             a Flow file, or a part of one (gateway:, executors:, with:), which must load
    ```python           run in one Python process for the whole page, as the cells of a notebook
    ```sh               run by bash, with gatewayd, twistd and python of this environment
    ```text, ```json    what the block just above it prints; ``...`` stands for anything
    ``` ... title="x"   is also written to the file x in the page's folder (of any other language: only that)

A comment in the line before a block changes that:

    <!-- not run: why -->           it is only read
    <!-- refused: part of why -->   a Flow file that must not load
    <!-- stays: pattern -->         runs in the background; the page goes on once it prints such a line
    <!-- end -->                    ends what runs in the background; so does the end of the page

The ports that pages use (12345, 8080, ...) are replaced by free ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import yaml

from gatewayd.config import load_flow
from gatewayd.errors import ConfigError
from tests import certificates
from tests.paths import ROOT
from tests.processes import Child, environment, free_ports

_FENCE: Final = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?P<rest>.*)$")
_MARK: Final = re.compile(r"^\s*<!-- (?P<what>not run|refused|stays|end)(: (?P<text>.*))? -->$")
_PORTS: Final = re.compile(r"\b(1234[5-9]|8080|5005[1-3])\b")
_OUTPUT: Final = ("", "text", "json")
_TIMEOUT_S: Final = 60

# One process for the Python of a page. A line of JSON for each block, and one back.
_SESSION: Final = """
import sys, threading
sys.path.insert(0, "")

def _session():
    import contextlib, io, json, traceback
    from functools import partialmethod
    from gatewayd import Flow
    pressed = threading.Event()
    pressed.set()
    Flow.block = partialmethod(Flow.block, stop_event=pressed)  # as if Ctrl-C was pressed at once
    for line in sys.stdin:
        out, problem = io.StringIO(), None
        with contextlib.redirect_stdout(out):
            try:
                exec(compile(*json.loads(line), "exec"), globals())
            except BaseException:
                problem = traceback.format_exc()
        print(json.dumps([out.getvalue(), problem]), flush=True)

_session()
"""


@attrs.frozen
class Block:
    """One fenced block. ``mark`` is what the comment before it says; ``output`` what it should print."""

    page: str
    line: int
    language: str
    title: str | None
    text: str
    mark: tuple[str, str] | None
    output: Block | None = None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    """The blocks of a page. ``<!-- end -->`` is one without text."""
    found: list[Block] = []
    after: int | None = None  # the line after the last block, while only blank ones follow
    mark: tuple[str, str] | None = None
    lines = enumerate(path.read_text().splitlines(), 1)
    page = str(path.relative_to(ROOT))
    for number, line in lines:
        if (fence := _FENCE.match(line)) is not None:
            indent = len(fence["indent"])
            text = "".join(_until_fence(lines, indent))
            title = re.search(r'title="([^"]+)"', fence["rest"])
            block = Block(page, number, fence["language"], title and title[1], text, mark)
            if block.language in _OUTPUT and title is None and after is not None and mark is None:
                found[-1] = attrs.evolve(found[-1], output=block)
            else:
                found.append(block)
            after, mark = number, None
        elif (comment := _MARK.match(line)) is not None:
            mark = comment["what"], comment["text"] or ""
            if mark[0] == "end":
                found.append(Block(page, number, "end", None, "", mark))
                mark = None
            after = None
        elif line.strip():
            after = mark = None
    return found


def _until_fence(lines: Iterator[tuple[int, str]], indent: int) -> Iterator[str]:
    for _, line in lines:
        if line.strip() == "```":
            return
        yield line[indent:] + "\n"


class Page:
    """A page while its examples run; ``run`` them, then ``close``."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._blocks = blocks_of(path)
        self._folder = folder
        self._staying: list[Child] = []
        self._python: subprocess.Popen[str] | None = None
        used = sorted({port for block in self._blocks for port in _PORTS.findall(block.text)})
        self._ports = dict(zip(used, map(str, free_ports(len(used))), strict=True))
        # What may be used and is not defined by the page: the project's own examples, certificates.
        shutil.copytree(ROOT / "examples", folder / "examples")
        shutil.copytree(ROOT / "conf", folder / "conf")
        self._port_files()
        certificates.write_files(folder)
        self._environment = {**environment(), "PATH": f"{self._commands()}:{os.environ['PATH']}"}

    def run(self) -> None:
        """Raises AssertionError with the place of the first block that does not do what the page says."""
        for block in self._blocks:
            try:
                self._run(block)
            except (AssertionError, ConfigError, subprocess.TimeoutExpired) as error:
                told = "".join(f"\n--- {child.command}\n{child.output}" for child in self._staying)
                raise AssertionError(f"{block.place}: {error}{told}") from error

    def close(self) -> None:
        """End everything."""
        self._end()
        if self._python is not None:
            assert self._python.stdin is not None
            self._python.stdin.close()
            try:
                self._python.wait(20)
            except subprocess.TimeoutExpired:
                self._python.kill()
                self._python.wait()
            assert self._python.stdout is not None
            self._python.stdout.close()

    def _run(self, block: Block) -> None:
        what, detail = block.mark or ("", "")
        text, detail = self._ported(block.text), self._ported(detail)
        if block.title is not None:
            target = self._folder / block.title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        if what == "end":
            self._end()
        elif what == "not run":
            assert detail, "say why it is not run"
        elif what == "stays":
            child = Child(["bash", "-ec", text], env=self._environment, cwd=self._folder, group=True)
            self._staying.append(child)
            child.line(detail, timeout_s=_TIMEOUT_S)
        elif block.language == "yaml":
            self._load(block, text, refused=detail if what == "refused" else None)
        elif block.language == "python":
            self._check(block, self._execute(text, block.place))
        elif block.language == "sh":
            self._check(block, self._shell(text))

    def _load(self, block: Block, text: str, refused: str | None) -> None:
        keys = yaml.load(text, yaml.BaseLoader)
        if isinstance(keys, dict) and "jtype" not in keys and keys.keys() & {"gateway", "executors", "with"}:
            text = f"jtype: Flow\n{text}"
        elif not text.lstrip().startswith("!Flow") and keys.get("jtype") != "Flow":
            assert block.title is not None, "neither a Flow file nor one that others use"
            return
        path = self._folder / (block.title or "checked.yml")
        path.write_text(text)
        try:
            self._in_folder(path)
            problem = None
        except ConfigError as error:
            problem = str(error)
        if refused is None:
            assert problem is None, problem
        else:
            assert problem is not None, "this Flow file should be refused"
            assert refused in problem, problem

    def _in_folder(self, path: Path) -> None:
        # load_flow looks for certificates in the current folder, which threads share.
        text = path.read_text()
        for name in ("chain.pem", "key.pem", "roots.pem"):
            text = re.sub(
                rf"((?:ssl_\w+|certfile|keyfile): *){re.escape(name)}", rf"\1{self._folder / name}", text
            )
        checked = path.with_name(f"checked-{path.name}")
        checked.write_text(text)
        load_flow(checked, environ=os.environ, context={})

    def _execute(self, text: str, place: str) -> str:
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, "-c", _SESSION],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=self._environment, cwd=self._folder,
            )  # fmt: skip
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(json.dumps([text, place]) + "\n")
        self._python.stdin.flush()
        late = threading.Timer(_TIMEOUT_S, self._python.kill)
        late.start()
        line = self._python.stdout.readline()
        late.cancel()
        assert line, f"Python ended, or took longer than {_TIMEOUT_S} s"
        output, problem = json.loads(line)
        assert problem is None, problem
        return str(output)

    def _shell(self, text: str) -> str:
        shell = subprocess.Popen(
            ["bash", "-ec", text],
            env=self._environment, cwd=self._folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            printed, told = shell.communicate(timeout=_TIMEOUT_S)
        finally:
            if shell.poll() is None:  # too late: what bash has started ends with it
                os.killpg(shell.pid, signal.SIGTERM)
                shell.communicate()
        assert shell.returncode == 0, f"exit code {shell.returncode}\n{printed}{told}"
        self._port_files()  # it may have made some
        return printed

    def _check(self, block: Block, output: str) -> None:
        if block.output is None:
            return
        expected = self._ported(block.output.text)
        if block.output.language == "json":
            assert _like(json.loads(expected), json.loads(output)), f"printed:\n{output}"
        else:
            pattern = re.escape(expected.rstrip()).replace(r"\.\.\.", ".*?")
            assert re.fullmatch(pattern, output.rstrip(), re.DOTALL), f"printed:\n{output}"

    def _port_files(self) -> None:
        for path in self._folder.rglob("*.yml"):
            path.write_text(self._ported(path.read_text()))

    def _ported(self, text: str) -> str:
        return _PORTS.sub(lambda match: self._ports.get(match[1], match[1]), text)

    def _end(self) -> None:
        while self._staying:
            child = self._staying.pop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            child.stop()

    def _commands(self) -> Path:
        """A folder of commands: those of an installation, and ``make run``."""
        folder = self._folder / "bin"
        folder.mkdir()
        python = f'exec "{sys.executable}"'
        for name, command in {
            "python": f'{python} "$@"',
            "python3": f'{python} "$@"',
            "gatewayd": f'{python} -m gatewayd "$@"',
            "twistd": f"{python} -c 'from twisted.scripts.twistd import run; run()' \"$@\"",
            "make": f'[ "$1" = run ] && {python} -m gatewayd serve conf/flow.yml',
        }.items():
            (folder / name).write_text(f"#!/bin/sh\n{command}\n")
            (folder / name).chmod(0o755)
        return folder


def _like(expected: Any, found: Any) -> bool:
    """Equal, where ``"..."`` stands for any value, and as a key for any further keys."""
    if expected == "...":
        return True
    if isinstance(expected, dict) and isinstance(found, dict):
        more = "..." in expected
        wanted = {key: value for key, value in expected.items() if key != "..."}
        if not (wanted.keys() <= found.keys() if more else wanted.keys() == found.keys()):
            return False
        return all(_like(value, found[key]) for key, value in wanted.items())
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(_like, expected, found))
    return bool(expected == found)
