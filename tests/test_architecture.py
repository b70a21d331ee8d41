"""The map of docs/architecture.md, kept true: who imports whom, where threads meet, how far a call goes."""

from __future__ import annotations

import ast
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from gatewayd.bridge import Bridge
from gatewayd.config import DeploymentConfig, GatewayConfig
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.dispatch.topology import Topology
from gatewayd.messages.request import Request
from gatewayd.pool.pool import Pool
from tests.calls_between_files import Calls, recorded_calls
from tests.paths import ROOT
from tests.processes import environment
from tests.rpc.servers import ALL, Executor
from tests.waiting import until_on_reactor

PACKAGE = ROOT / "gatewayd"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "pb" not in path.parts)

# What decides and waits for nothing: no reactor, no loop, no gRPC, no threads, no clock. Whole folders, too.
PURE = [
    "messages",
    "errors.py",
    "networks.py",
    "health.py",
    "access/rates.py",
    "dispatch/topology.py",
    "dispatch/traversal.py",
    "dispatch/parameters.py",
    "access/rules.py",
    "access/keys.py",
    "access/authenticator.py",
    "backoff.py",
    "deadlines.py",
    "pool/attempts.py",
    "pool/balancing.py",
    "pool/endpoint_slices.py",
    "pool/queue.py",
    "pool/retry.py",
    "rpc/call.py",
    "rpc/flow_control.py",
    "rpc/frames.py",
    "rpc/headers.py",
    "rpc/http2.py",
    "rpc/server/backlog.py",
    "rpc/server/call.py",
    "rpc/server/conduct.py",
    "rpc/server/connection.py",
    "rpc/server/head.py",
    "rpc/server/messages.py",
    "rpc/server/sending.py",
    "rpc/server/stream.py",
    "protocols/window.py",
    "protocols/websocket/conversation.py",
    "protocols/websocket/errors.py",
    "protocols/websocket/frames.py",
    "protocols/http/routes.py",
    "protocols/http/schemas.py",
    "protocols/http/openapi.py",
    "protocols/http/openai/described.py",
    "protocols/http/openai/paths.py",
    "protocols/http/typed_openapi.py",
    "protocols/http/bodies.py",
    "protocols/graphql/limits.py",
    "config/shares.py",
    "export/compose.py",
    "export/kubernetes.py",
    "export/plan.py",
    "service/changes.py",
    "service/worker_messages.py",
    "placement/ray_words.py",
]
IMPURE = {"twisted", "asyncio", "grpc", "threading", "time", "klein", "autobahn"}

# A folder, and the other folders that it may import. The single files beside them are shared ground, and so
# are messages and pb: whatever may be imported by everybody imports no folder but those two.
FOLDERS = {
    "messages": set(),
    "tls": set(),
    "config": {"messages", "tls"},
    "access": {"config", "messages", "tls"},
    "dispatch": {"config", "messages"},
    "rpc": {"messages", "tls"},
    "pool": {"config", "messages", "rpc", "tls"},
    "protocols": {"access", "config", "messages", "rpc", "tls"},
    "executor": {"config", "messages", "rpc"},
    "logging": {"executor"},
    "custom": {"client", "config", "executor", "messages", "protocols"},
    "supervisor": {"config", "executor"},
    "placement": {"executor"},
    "client": {"messages", "rpc"},
    "export": {"config", "telemetry"},
    "flow": {"client", "config", "custom", "executor", "export"},
    "telemetry": {"access", "config", "messages"},
    "admin": {"access", "config", "messages", "protocols", "telemetry", "tls"},
    "service": {
        *("admin", "access", "config", "custom", "dispatch", "executor", "messages", "pool", "protocols"),
        *("supervisor", "telemetry", "tls"),
    },
    "testing": {"client", "config", "dispatch", "executor", "flow", "messages", "pool", "rpc"},
    "cli": {"access", "client", "config", "custom", "executor", "export", "flow", "messages"},
}
# Modules that a process runs, and nothing imports.
ENTRIES = {
    "service/plugin.py",
    "service/child.py",
    "service/worker.py",
    "executor/__main__.py",
    "placement/ray_driver.py",
    "__main__.py",
    "assets/fetch.py",
}
# What users import; it names folders, and no folder imports it for that.
FACADE = {"__init__.py", "excepts.py"}


def imports(path: Path) -> Iterator[str]:
    """Every module named by an import statement, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def purely(place: str) -> list[Path]:
    path = PACKAGE / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


@pytest.mark.parametrize("path", [path for place in PURE for path in purely(place)], ids=name)
def test_a_pure_module_imports_nothing_that_waits(path: Path) -> None:
    assert not {found.split(".")[0] for found in imports(path)} & IMPURE


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_downwards(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0]
    allowed = FOLDERS.get(own, {"messages", "cli"} if own == "__main__.py" else {"messages"}) | {own}
    if name(path) in FACADE:
        allowed = {"client", "custom", "executor", "flow"}
    folders = {found.split(".")[1] for found in imports(path) if found.startswith("gatewayd.")}
    assert not folders & FOLDERS.keys() - allowed


def test_there_are_no_circles_of_imports() -> None:
    """Whether an import stands at the top or in a function: what has to be read together is one thing."""
    modules = {"gatewayd." + name(path).removesuffix(".py").replace("/", "."): path for path in MODULES}
    modules = {module.removesuffix(".__init__"): path for module, path in modules.items()}
    graph = {
        module: {found for found in imports_at_run_time(path) if found in modules and found != module}
        for module, path in modules.items()
        if path.name != "__init__.py"
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])), pytrace=False)


def imports_at_run_time(path: Path) -> Iterator[str]:
    """As ``imports``, without those for type checkers alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_folder_has_its_place_in_the_order() -> None:
    folders = {path.relative_to(PACKAGE).parts[0] for path in MODULES if path.parent != PACKAGE}
    assert folders == FOLDERS.keys() | {"assets"}


def test_nothing_imports_what_a_process_runs() -> None:
    entries = {"gatewayd." + entry.removesuffix(".py").replace("/", ".") for entry in ENTRIES}
    importers = {name(path) for path in MODULES if entries & set(imports(path))}
    # `gatewayd executor` runs in the command's own process what is otherwise a process of its own.
    assert importers <= {"cli/serving.py"}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_bridge_crosses_between_threads(path: Path) -> None:
    # The processes of an executor, of a client and of a Flow in Python have no reactor: their loops and
    # threads are their own.
    if name(path) == "bridge.py" or name(path).startswith(("executor/", "client/", "flow/", "testing/")):
        return
    crossings = {"call_soon_threadsafe", "run_coroutine_threadsafe", "deferToThread", "deferToThreadPool"}
    source = path.read_text()
    assert not [word for word in crossings if word in source]


def test_the_reactor_is_imported_only_where_a_process_begins() -> None:
    importers = [name(path) for path in MODULES if "import reactor" in path.read_text()]
    assert importers == ["service/child.py", "service/plugin.py", "service/worker.py"]


# -- the way of a call -----------------------------------------------------------------------------------


def way(question: str) -> list[str]:
    """The files that docs/architecture.md lists for a question, in its order."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith(f"| {question}")]
    assert len(rows) == 1
    return re.findall(r"`([\w/]+\.py)`", rows[0][1])


def breaks(files: list[str], calls: Calls) -> list[str]:
    """Where one file of the list does not call the next one."""
    return [f"{one} does not call {other}" for one, other in pairwise(files) if (one, other) not in calls]


@pytest_twisted.ensureDeferred
async def test_one_opens_six_files_from_the_dispatcher_to_the_socket() -> None:
    bridge, server = Bridge(reactor), Executor(*ALL)
    bridge.start()
    deployment = DeploymentConfig(
        name="a", external=True, addresses=(f"127.0.0.1:{await bridge.on_loop(server.start)}",)
    )
    pool = Pool.over(bridge, GatewayConfig(), (deployment,), reactor)
    dispatcher = Dispatcher(Topology.from_deployments((deployment,)), pool, reactor, bridge.offload)
    await until_on_reactor(reactor, lambda: pool.states()["a"][0].endpoints)

    with recorded_calls() as calls:
        answer = dispatcher.dispatch(Request("1", "/x"))
    await answer

    pool.close()
    await bridge.on_loop(server.stop)
    await bridge.stop()
    files = way("one call to an executor")
    assert len(files) <= 6
    assert breaks(files, calls) == []
    assert {caller for caller, callee in calls if callee == "twisted write"} <= set(files)


@pytest.mark.slow
def test_one_opens_seven_files_from_the_post_of_a_flow_to_the_socket() -> None:
    command = [sys.executable, "-m", "tests.calls_between_files"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    calls = {(caller, callee) for caller, callee in json.loads(done.stdout)}
    files = way("`Flow.post` in Python")
    assert len(files) <= 7
    assert breaks(files, calls) == []
    assert [caller for caller, callee in calls if callee.startswith("grpc ") and caller == files[-1]]
