"""What type checkers say of the public API: what they accept, refuse, and take the results for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.paths import ROOT

HEAD = """
from collections.abc import AsyncGenerator
from typing import Any, assert_type

from docarray import DocumentArray

from gatewayd import Client, Deployment, Executor, Flow, Gateway
from gatewayd.client.client import AsyncClient, SyncClient
from gatewayd.client.response import Response
from gatewayd.config import DeploymentConfig


def callback(response: Response) -> None: ...
async def coroutine(response: Response) -> None: ...


class AttributeGateway(Gateway):
    app = object()

    async def route(self) -> None:
        assert_type(await self.post('/', 'x', {'k': 1}, timeout=1.5), DocumentArray)
        assert_type(await self.post('/', return_responses=True), Response)
        assert_type(await self.in_thread(len, 'text'), int)

    async def startup(self) -> None: ...


class PropertyGateway(Gateway):
    @property
    def app(self) -> object: ...

    def shutdown(self) -> None: ...


client, later = Client(port=1), Client(port=1, asyncio=True)
flow, later_flow = Flow(), Flow(asyncio=True)
yes = bool(input())
"""

ACCEPTED = [
    "assert_type(client, SyncClient)",
    "assert_type(later, AsyncClient)",
    "assert_type(Client(asyncio=yes), SyncClient | AsyncClient)",
    "Client('grpcs://x', tls_ca_certfile='ca.pem', prefetch=5, tracing=False)",
    "assert_type(client.post('/'), DocumentArray)",
    "assert_type(client.post('/', 'x', on_error=callback, timeout=1.5), DocumentArray)",
    "assert_type(client.post('/', return_responses=True), list[Response])",
    "assert_type(client.post('/', 'x', callback), DocumentArray | list[Response] | None)",
    "client.post('/', 'x', None, None, None, {'k': 1}, 'a', 7, max_attempts=2, headers={'a': 'b'})",
    "assert_type(client.search('x', return_responses=True, request_size=5), list[Response])",
    "assert_type(client.post('/', return_responses=yes), DocumentArray | list[Response] | None)",
    "assert_type(later.post('/', on_done=coroutine), AsyncGenerator[DocumentArray, None])",
    "assert_type(later.index(return_responses=True), AsyncGenerator[Response, None])",
    "assert_type(client.is_flow_ready(timeout=1), bool)",
    "assert_type(flow.client, SyncClient)",
    "assert_type(later_flow.client, AsyncClient)",
    "assert_type(flow.post('/'), DocumentArray)",
    "assert_type(flow.update('x', return_responses=True), list[Response])",
    "assert_type(later_flow.post('/', return_responses=True), AsyncGenerator[Response, None])",
    "assert_type(Flow(protocol='http', port=1, replicas=3, env={'A': 'b'}).add(uses=Executor), Flow)",
    "Flow().add(name='a', uses='m:C', needs=['b', 'c'], polling={'/x': 'all'}, env={'A': 1}, port=[1, 2])",
    "Flow().config_gateway(protocol=['grpc', 'http'], port=[0, 0], cors=True, monitoring=False)",
    "Flow().expose_endpoint('/foo', '/bar', methods=['GET'], tags=['a'])",
    "Flow().add(name='a').add(name='b', needs='gateway').needs(['a', 'b'], name='c', replicas=2).plot()",
    "assert_type(Flow.load_config('flow.yml'), Flow)",
    "Flow.load_config('flow.yml', extra_search_paths=['a'], uses_with={'port': 1}, py_modules='m.py')",
    "assert_type(Flow.load_config({}, asyncio=True, context={'a': 1}).client, AsyncClient)",
    "with Flow().add() as entered: assert_type(entered.client, SyncClient)",
    "def draw(flow: Flow) -> Flow: return flow.plot('x.svg', vertical_layout=True)",
    "assert_type(flow.add(name='a', copy_flow=False), Flow)",
    "assert_type(flow['a'], DeploymentConfig)",
    "assert_type([name for name, _ in flow], list[str])",
    "assert_type(Deployment(uses=Executor, protocol='http', port=1, replicas=2, cors=True), Deployment)",
    "assert_type(Deployment(asyncio=True).client, AsyncClient)",
    "assert_type(Deployment().post('/'), DocumentArray)",
    "assert_type(Deployment.load_config('d.yml', uses_with={'port': 1}), Deployment)",
    "with Deployment() as served: assert_type(served.port, int | list[int] | None)",
    "flow.add(Deployment(name='a'), needs='gateway').add(deployment=Deployment())",
    "flow.port = 1",
    "flow.port = [1, 2]",
    "flow.protocol = ['http', 'grpc']",
    "flow.host = '127.0.0.1'",
    "flow.config_gateway(uses=AttributeGateway, uses_with={'a': 1}, py_modules='m.py')",
    "flow.config_gateway(uses='m:PropertyGateway')",
]

# What each does wrong, and what a message about it names.
REFUSED = {
    "Client(asnycio=True)": "asnycio|overload",
    "Client(port=1, tls_ca='ca.pem')": "tls_ca|overload",
    "Client(tls='yes')": "tls|str|overload",
    "client.post('/', requestsize=3)": "requestsize|overload",
    "client.post('/', timeout='soon')": "timeout|overload",
    "client.search('x', on_finished=callback)": "on_finished|overload",
    "later.index(metdata=())": "metdata|overload",
    "client.is_flow_ready(timeuot=1)": "timeuot",
    "flow.post('/', return_response=True)": "return_response|overload",
    "Flow(protcol='http')": "protcol|overload",
    "flow.add(nme='a')": "nme",
    "flow.add(replicas='three')": "replicas",
    "flow.add(output_array_type='tensor')": "output_array_type",
    "flow.config_gateway(prot=1)": "prot",
    "flow.add(install_requirements=True)": "install_requirements",
    "flow.needs(['a', 'b'], nam='c')": "nam",
    "flow.port = 1.5": "float",
    "Deployment(protcol='http')": "protcol|overload",
    "Deployment(needs='gateway')": "needs|overload",
    "flow.add(Executor)": "Executor",
    "Flow.load_config('flow.yml', extra_search_path=['a'])": "extra_search_path|overload",
    "flow.client = client": "client",
    "flow['a'].nme": "nme",
    "flow.expose_endpoint('/a', method=['GET'])": "method",
    "flow.config_gateway(uses=Executor)": "uses|Gateway",
}


@pytest.fixture(scope="module")
def snippet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("types") / "snippet.py"
    path.write_text("\n".join([HEAD, *ACCEPTED, *REFUSED]))
    return path


def mypy(snippet: Path) -> dict[int, str]:
    """Its errors by their lines."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    run = subprocess.run([*command, str(snippet)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    errors: dict[int, str] = {}
    for match in re.finditer(r":(\d+): error: (.*)", run.stdout):
        errors[int(match[1])] = errors.get(int(match[1]), "") + match[2]
    return errors


def pyright(snippet: Path) -> dict[int, str]:
    """As ``mypy``; docarray's own sources, which know no types, are not looked at."""
    settings = {"typeCheckingMode": "standard", "include": [str(snippet)], "extraPaths": [str(ROOT)]}
    config = snippet.with_name("pyrightconfig.json")
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(config)]
    run = subprocess.run(
        [*command, "--pythonpath", sys.executable], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1, run.stdout + run.stderr
    errors: dict[int, str] = {}
    for each in json.loads(run.stdout)["generalDiagnostics"]:
        if each["severity"] == "error":
            line = each["range"]["start"]["line"] + 1
            errors[line] = errors.get(line, "") + each["message"]
    return errors


@pytest.mark.slow
@pytest.mark.parametrize(
    "checker",
    [
        pytest.param(mypy, marks=pytest.mark.skipif(not find_spec("mypy"), reason="needs mypy")),
        pytest.param(
            pyright, marks=pytest.mark.skipif(not find_spec("basedpyright"), reason="needs basedpyright")
        ),
    ],
)
def test_a_type_checker_knows_the_public_interface(checker, snippet):
    lines = snippet.read_text().splitlines()
    errors = {lines[number - 1]: message for number, message in checker(snippet).items()}

    assert {line: message for line, message in errors.items() if line not in REFUSED} == {}
    assert [line for line in REFUSED if line not in errors] == []
    unnamed = [line for line, name in REFUSED.items() if not re.search(name, errors[line], re.IGNORECASE)]
    assert unnamed == []


def test_the_keywords_of_a_flow_are_the_keys_of_its_table():
    command = [sys.executable, str(ROOT / "tools" / "keywords.py"), "--check"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
