"""Every client with executors of every kind through our gateway, as docs/migration.md says."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop import matrix
from tests.interop.conftest import EXECUTORS, JinaClient, Theirs
from tests.interop.matrix import GENERATIONS, JINA_3_14, JINA_3_34, OURS_FIRST, OURS_SECOND
from tests.paths import ROOT
from tests.processes import PROTOCOLS, Gateway

pytestmark = pytest.mark.interop

OUR_SIDE = Path(__file__).parent / "our_side"
TYPED = OUR_SIDE / "typed.py"
# What executors of each generation bind, and what becomes of the text "x" there.
ENDPOINTS = {1: ("/tag", "xA"), 2: ("/echo", "x!")}


@pytest.fixture(scope="module")
def docarray2_python() -> str:
    """The interpreter that has gatewayd and docarray 0.41, as make builds it."""
    path = os.environ.get("GATEWAYD_DOCARRAY2_PYTHON", str(ROOT / ".venv-docarray2" / "bin" / "python"))
    if shutil.which(path) is None:
        pytest.fail(f"there is no {path}: run the suite with `make test-interop`", pytrace=False)
    return path


@pytest.fixture(scope="module")
def ports(
    gateway: Callable[..., Gateway],
    theirs: Theirs,
    theirs34: Callable[..., dict[str, Any]],
    docarray2_python: str,
) -> Iterator[dict[str, dict[str, int]]]:
    """The ports of a gateway for each kind of executor."""
    ours = {"name": "exec_a", "uses": "Rec", "py_modules": [str(EXECUTORS)]}
    typed = {"name": "typed", "uses": "Typed", "py_modules": [str(TYPED)]}
    second = Gateway({"executors": [typed]}, python=docarray2_python)
    try:
        yield {
            JINA_3_14: gateway({"executors": [theirs("exec_a")]}).ports,
            JINA_3_34: gateway({"executors": [theirs34("A")]}).ports,
            OURS_FIRST: gateway({"executors": [ours]}).ports,
            OURS_SECOND: second.ports,
        }
    finally:
        second.stop()


Ask = Callable[[int, str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def clients(client: JinaClient, client34: JinaClient, docarray2_python: str) -> Iterator[dict[str, Ask]]:
    """Each client, by its name: posts a document with the text "x", and says what came of it."""
    first, second = (
        JinaClient(python, OUR_SIDE, PYTHONPATH=str(ROOT)) for python in (sys.executable, docarray2_python)
    )

    def theirs(port: int, protocol: str, on: str) -> dict[str, Any]:
        answer = client.ask(port=port, protocol=protocol, call="post", on=on, inputs=1)
        if "got" in answer:
            answer["got"] = [text for _, text in answer["got"]["documents"]]
        return answer

    def theirs34(port: int, protocol: str, on: str) -> dict[str, Any]:
        docs = {"docs": [{"text": "x"}], "class": "In"}
        answer = client34.ask(port=port, protocol=protocol, call="post", on=on, **docs)
        if "got" in answer:
            answer["got"] = [fields.get("text") for fields in answer["got"]]
        return answer

    def ours(side: JinaClient) -> Ask:
        return lambda port, protocol, on: side.ask(port=port, protocol=protocol, on=on, text="x")

    yield {JINA_3_14: theirs, JINA_3_34: theirs34, OURS_FIRST: ours(first), OURS_SECOND: ours(second)}
    first.stop()
    second.stop()


@pytest.fixture(scope="module")
def cells(clients: dict[str, Ask], ports: dict[str, dict[str, int]]) -> matrix.Cells:
    return {
        (client, executor, protocol): _outcome(ask, client, protocol, executor, ports[executor][protocol])
        for client, ask in clients.items()
        for executor in GENERATIONS
        for protocol in PROTOCOLS
    }


def _outcome(ask: Ask, client: str, protocol: str, executor: str, port: int) -> str:
    on, expected = ENDPOINTS[GENERATIONS[executor]]
    answer = ask(port, protocol, on)
    if answer.get("got") == [expected]:
        return "works"
    if "docarray" in answer.get("message", ""):
        return "refused"
    silent = answer.get("got") == [] or answer.get("raised") == "CancelledError"
    if silent and protocol == "websocket" and client.startswith("Jina"):
        return "refused"  # the close has the reason, which these clients don't show
    return f"wrong: {answer}"


def test_clients_and_executors_of_one_generation_work_together(cells: matrix.Cells) -> None:
    same = {cell: outcome for cell, outcome in cells.items() if GENERATIONS[cell[0]] == GENERATIONS[cell[1]]}

    assert set(same.values()) == {"works"}, {
        cell: outcome for cell, outcome in same.items() if outcome != "works"
    }


def test_the_other_generation_is_refused_by_name(cells: matrix.Cells) -> None:
    wrong = {
        cell: outcome
        for cell, outcome in cells.items()
        if GENERATIONS[cell[0]] != GENERATIONS[cell[1]]
        and not outcome.startswith("refused")
        # JSON knows no generation: fields whose names both have arrive. Our own client posts protobuf.
        and not (outcome == "works" and cell[0].startswith("Jina") and cell[2] == "http")
    }

    assert not wrong


def test_the_page_says_what_was_found(cells: matrix.Cells) -> None:
    page = matrix.PAGE.read_text()
    if os.environ.get("GATEWAYD_WRITE_DOCS"):
        matrix.PAGE.write_text(matrix.write(page, cells))

    assert matrix.written(page) == matrix.table(cells), "GATEWAYD_WRITE_DOCS=1 makes the table anew"
