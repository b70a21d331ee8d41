"""The map of docs/architecture.md, kept true: who may import whom, and where threads may meet."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / "gatewayd"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "pb" not in path.parts)

# What decides and waits for nothing: no reactor, no loop, no gRPC, no threads, no clock.
PURE = [
    "messages/request.py",
    "messages/wire.py",
    "errors.py",
    "messages/documents.py",
    "messages/conditions.py",
    "messages/json_form/codec.py",
    "messages/json_form/fields.py",
    "dispatch/topology.py",
    "dispatch/traversal.py",
    "dispatch/parameters.py",
    "pool/balancing.py",
    "rpc/call.py",
    "rpc/headers.py",
    "rpc/http2.py",
    "pool/retry.py",
    "protocols/window.py",
    "protocols/http/routes.py",
    "protocols/http/schemas.py",
    "protocols/http/openapi.py",
    "protocols/graphql/limits.py",
]
IMPURE = {"twisted", "asyncio", "grpc", "threading", "time", "klein", "autobahn"}

# A folder, and the other folders that it may import.
FOLDERS = {
    "client": {"config", "executor"},
    "config": set(),
    "dispatch": {"config"},
    "executor": {"config"},
    "pool": {"config"},
    "protocols": {"config"},
}
WIRING = {"gatewayd.plugin", "gatewayd.service", "gatewayd.gateway"}


def imports(path: Path) -> Iterator[str]:
    """Every module named by an import statement, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_nothing_that_waits(module: str) -> None:
    assert not {found.split(".")[0] for found in imports(PACKAGE / module)} & IMPURE


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_downwards(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0]
    for found in imports(path):
        if not found.startswith("gatewayd."):
            continue
        assert found not in WIRING or name(path) in ("plugin.py", "service.py", "child.py"), found
        folder = found.split(".")[1]
        if own in FOLDERS and folder in FOLDERS and folder != own:
            assert folder in FOLDERS[own], f"{name(path)} imports {found}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_bridge_crosses_between_threads(path: Path) -> None:
    # The processes of an executor and of a client have no reactor: their loops and threads are their own.
    if name(path) == "bridge.py" or name(path).startswith(("executor/", "client/")):
        return
    crossings = {"call_soon_threadsafe", "run_coroutine_threadsafe", "deferToThread", "deferToThreadPool"}
    source = path.read_text()
    assert not [word for word in crossings if word in source]


def test_the_reactor_is_imported_only_where_a_process_begins() -> None:
    importers = [name(path) for path in MODULES if "import reactor" in path.read_text()]
    assert importers == ["child.py", "plugin.py"]
