"""Secrets, planted wherever a Flow file can hold one, are in no output: logs, pages, errors, reprs."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
import websockets.sync.client
import yaml
from click.testing import CliRunner
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gatewayd import Client, Flow
from gatewayd.cli import main
from gatewayd.config import flow_from_mapping, load_flow, load_flow_text
from gatewayd.config.loader import Sources, read_flow
from gatewayd.errors import ConfigError
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.messages import methods
from tests.paths import ROOT
from tests.processes import Gateway, environment, external, free_ports

EXECUTORS = str(ROOT / "tests" / "executors.py")
GATEWAY_CLASS = str(ROOT / "tests" / "protocols" / "failing_executors.py")
SECRET = "canary"
KEY = f"{SECRET}-key-of-mine"
URL = f"https://user:{SECRET}-url@registry.example/path"


def flow(folder: Path) -> dict[str, Any]:
    """A Flow with a secret in every place that may have one; it can be served."""
    config = folder / "config.yml"
    config.write_text(yaml.safe_dump({"jtype": "Rec", "with": {"token": f"{SECRET}-file"}}))
    rec = {"py_modules": [EXECUTORS], "needs": "gateway"}
    return {
        "x-notes": {"password": f"{SECRET}-x"},
        "with": {
            "env": {"FLOW_TOKEN": f"{SECRET}-flow", "JINA_HUBBLE_REGISTRY": URL},
            # Nobody listens there: what cannot be sent is told of, without its headers.
            "tracing": True,
            "traces_exporter_port": 1,
            "traces_exporter_headers": {"authorization": f"{SECRET}-collector"},
        },
        "gateway": {
            "env": {"GATEWAY_TOKEN": f"{SECRET}-gateway"},
            "uses": "Passes",
            "uses_with": {"token": f"{SECRET}-gateway-with"},
            "py_modules": [GATEWAY_CLASS],
            "retries": 0,
        },
        "executors": [
            {
                "name": "one",
                "uses": "Rec",
                "uses_with": {"token": f"{SECRET}-with", "url": URL},
                "env": {"TOKEN": f"{SECRET}-env", "DATABASE": URL},
                **rec,
            },
            {"name": "two", "uses": {"jtype": "Rec", "with": {"token": f"{SECRET}-inline"}}, **rec},
            {"name": "three", "uses": str(config), **rec},
            {
                "name": "four",
                "uses": "Rec",
                "shards": 2,
                "uses_before": {"jtype": "Rec", "with": {"token": f"{SECRET}-before"}},
                **rec,
            },
            external(
                "gone", free_ports(1)[0], needs="gateway", grpc_metadata={"authorization": f"{SECRET}-meta"}
            ),
            {"name": "all", "method": "needs_all"},
        ],
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "flow.yml"
    path.write_text(yaml.safe_dump({"jtype": "Flow", **flow(tmp_path)}, sort_keys=False))
    return path


def test_no_repr_of_a_loaded_flow_has_them(file: Path) -> None:
    config = load_flow(file)
    specs = [ExecutorSpec.of(each, shard=0, replica=0, base_dir=".") for each in config.deployments]

    assert SECRET in str(config.deployments[0].executor.env)
    for shown in (config, read_flow(file, Sources(environ={"A": SECRET})), specs):
        assert SECRET not in repr(shown)
        assert SECRET not in str(shown)


def test_no_repr_of_a_flow_in_python_has_them(file: Path) -> None:
    one = Flow(env={"A": SECRET}).add(name="a", uses_with={"t": SECRET}, env={"B": SECRET})

    assert SECRET not in f"{one!r} {one} {Flow.load_config(str(file))!r} {one._description!r}"


@pytest.mark.parametrize("arguments", [["check"], ["plot"], ["plot", "-o", "{folder}/plot.svg"]])
def test_no_command_shows_them(file: Path, tmp_path: Path, arguments: list[str]) -> None:
    command, *options = (each.format(folder=tmp_path) for each in arguments)
    done = CliRunner().invoke(main, [command, str(file), *options])

    assert done.exit_code == 0, done.output
    pictures = "".join(path.read_text() for path in tmp_path.glob("plot.*"))
    assert SECRET not in done.output + pictures


@pytest.mark.slow
def test_no_log_page_or_error_of_a_running_gateway_has_them(tmp_path: Path) -> None:
    variables = {"JINA_LOG_LEVEL": "DEBUG", "GRPC_VERBOSITY": "DEBUG", "JINA_AUTH_TOKEN": SECRET}
    running = Gateway(flow(tmp_path), **variables)
    try:
        running.line("ready")
        url = f"http://127.0.0.1:{running.ports['http']}"
        shown = [
            requests.get(f"{url}{path}", timeout=20).text
            for path in (
                "/status",
                "/docs",
                "/openapi.json",
                "/dry_run",
                "/told/one",
                "/told/gone",
                "/nothing",
            )
        ]
        for body in (
            {"execEndpoint": "/raise"},
            {"targetExecutor": "gone"},
            {"targetExecutor": "nothing"},
            {"a": 1},
        ):
            shown.append(
                requests.post(f"{url}/post", json={"data": [{"text": "a"}], **body}, timeout=20).text
            )
        with grpc.insecure_channel(f"127.0.0.1:{running.ports['grpc']}") as channel:
            shown.append(str(channel.unary_unary(methods.STATUS)(b"", timeout=20)))
            shown.append(str(channel.unary_unary(methods.DRY_RUN)(b"", timeout=20)))
        for scheme in ("grpc", "http"):
            shown.append(
                CliRunner().invoke(main, ["status", f"{scheme}://127.0.0.1:{running.ports[scheme]}"]).output
            )
    finally:
        running.stop()

    assert "registry.example" in shown[0]
    assert SECRET not in "".join(shown)
    assert SECRET not in running.output


def guarded(folder: Path) -> dict[str, Any]:
    """A gateway that asks who calls; the key of ``me`` is the secret itself."""
    (folder / "keys").write_text(f"other:sha256:{sha256(f'{SECRET}-other'.encode()).hexdigest()}\n")
    (folder / "secret").write_text(f"{SECRET}-of-tokens-{'x' * 64}")
    return {
        "api_keys": {"me": f"sha256:{sha256(KEY.encode()).hexdigest()}"},
        "api_keys_file": str(folder / "keys"),
        "jwt": {"key_file": str(folder / "secret"), "algorithms": "HS256"},
        "rules": [{"endpoints": ["/tag"], "allow": ["me"]}],
    }


def test_no_repr_of_who_may_call_has_them(tmp_path: Path) -> None:
    config = flow_from_mapping({"gateway": {"auth": guarded(tmp_path)}})

    assert SECRET not in repr(config)
    assert sha256(KEY.encode()).hexdigest() not in repr(config)


@pytest.mark.slow
def test_no_log_or_refusal_has_what_callers_show(tmp_path: Path) -> None:
    rec = {"name": "one", "uses": "Rec", "py_modules": [EXECUTORS]}
    running = Gateway({"gateway": {"auth": guarded(tmp_path)}, "executors": [rec]})
    try:
        running.line("ready")
        shown = []
        for headers in (
            {"X-API-Key": KEY},
            {"X-API-Key": f"{SECRET}-wrong"},
            {"Authorization": f"Bearer {KEY}"},
            {"Authorization": f"Bearer {SECRET}-wrong"},
            {"Authorization": f"Bearer {SECRET}.{SECRET}.{SECRET}"},
            {"Authorization": f"Basic {SECRET}"},
            {"X-API-Key": KEY, "Authorization": f"Bearer {SECRET}-wrong"},
        ):
            for endpoint in ("/tag", "/other"):
                body = {"data": [{"text": "a"}], "execEndpoint": endpoint}
                url = f"http://127.0.0.1:{running.ports['http']}/post"
                shown.append(requests.post(url, json=body, headers=headers, timeout=20).text)
            metadata = [(name.lower(), value) for name, value in headers.items()]
            with grpc.insecure_channel(f"127.0.0.1:{running.ports['grpc']}") as channel:
                call: Any = channel.unary_unary(methods.SINGLE).future(b"", metadata=metadata, timeout=20)
                shown.append(f"{call.code()} {call.details()} {call.trailing_metadata()}")
            try:
                address = f"ws://127.0.0.1:{running.ports['websocket']}/"
                with websockets.sync.client.connect(
                    address, additional_headers=headers, proxy=None
                ) as session:
                    session.send('{"execEndpoint": "/other"}')
                    shown.append(str(session.recv(timeout=20)))
            except (ConnectionClosed, InvalidStatus) as error:
                shown.append(str(error))
    finally:
        running.stop()

    assert '"status":null,"execEndpoint":"/tag"' in shown[0]
    assert SECRET not in "".join(shown)
    assert SECRET not in running.output


@pytest.mark.slow
def test_no_log_of_a_flow_in_python_has_them() -> None:
    script = (
        "from gatewayd import Flow, Executor, requests\n"
        "class Mine(Executor):\n"
        "    def __init__(self, token, **kwargs): super().__init__(**kwargs)\n"
        "    @requests\n"
        "    def fail(self, **kwargs): raise ValueError('on purpose')\n"
        "if __name__ == '__main__':\n"
        "    flow = Flow(env={'A': 'canary'}, host='127.0.0.1')\n"
        "    with flow.add(uses=Mine, uses_with={'token': 'canary'}) as f:\n"
        "        try: f.post('/')\n"
        "        except Exception as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(JINA_LOG_LEVEL="DEBUG"),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "on purpose" in done.stdout
    assert SECRET not in done.stdout + done.stderr.replace(script, "")


WRONG = [
    "with: {env: canary}",
    "with: {env: [canary]}",
    "with: {env: {A: [canary]}}",
    "with: {env: {A: {B: canary}}}",
    "gateway: {env: canary}",
    "gateway: {uses: A, uses_with: canary}",
    "gateway: {uses_with: [canary]}",
    "executors: [{env: canary}]",
    "executors: [{env: {A: [canary]}}]",
    "executors: [{uses_with: canary}]",
    "executors: [{uses_with: [canary]}]",
    "executors: [{uses: {jtype: A, with: canary}}]",
    "executors: [{uses: {jtype: A, with: [canary]}}]",
    "executors: [{external: true, port: 1, grpc_metadata: canary}]",
    "executors: [{external: true, port: 1, grpc_metadata: {a: [canary]}}]",
    'executors: [{external: true, port: 1, grpc_metadata: {a: "canary\\n"}}]',
    "executors: [{external: true, port: 1, grpc_metadata: {a: canaryé}}]",
    "executors: [{external: true, port: 1, grpc_metadata: {'a b': canary}}]",
    "executors: [{external: true, port: 1, host: 'grpc://u:canary@h'}]",
    "executors: [{external: true, port: 1, host: 'u:canary@h'}]",
    "executors: [{external: true, port: 1, host: ['h', 'u:canary@h']}]",
    "executors: [{external: true, host: 'ftp://u:canary@h:1'}]",
    "executors: [{external: true, host: 'grpc://u:canary@" + "h" * 100 + ":1'}]",
    "executors: [{host: 'http://u:canary@h'}]",
    "executors: [{uses: 'jinahub+docker://u:canary@h'}]",
    "executors: [{uses: 'https://u:canary@h/x.yml'}]",
    "executors: [{py_modules: 'https://u:canary@h/x.py'}]",
    "executors: [{uses_before_address: 'u:canary@h:1', shards: 2}]",
    "gateway: {host: 'http://u:canary@h'}",
    "gateway: {port: 'http://u:canary@h'}",
    "gateway: {protocol: 'http://u:canary@" + "h" * 100 + "'}",
    "gateway: {traces_exporter_host: 'http://u:canary@h'}",
    "gateway: {'http://u:canary@h': 1}",
    "gateway: {auth: canary}",
    "gateway: {auth: [canary]}",
    "gateway: {auth: {api_keys: canary}}",
    "gateway: {auth: {api_keys: {me: canary}}}",
    "gateway: {auth: {api_keys: {me: [canary]}}}",
    "gateway: {auth: {api_keys: {me: {a: canary}}}}",
    "gateway: {auth: {hook: {url: 'http://u:canary@h'}}}",
    "gateway: {auth: {hook: {url: 'ftp://u:canary@h'}}}",
    "gateway: {auth: {hook: 'http://u:canary@h'}}",
    "with: {workspace: ['http://u:canary@h']}",
    "with: {env: {A: !!int 'https://u:canary@h'}}",
    "with: {env: {A: !!int 'canary'}}",
]


@pytest.mark.parametrize("text", WRONG)
def test_no_problem_of_a_flow_file_has_them(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_flow_text(f"jtype: Flow\n{text}\n", environ={})

    assert SECRET not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["key_file", "jwks_file"])
def test_no_refusal_to_start_has_them(tmp_path: Path, key: str) -> None:
    path = tmp_path / "flow.yml"
    tokens = {key: "https://u:canary@issuer.example/jwks.json", "algorithms": "RS256"}
    path.write_text(yaml.safe_dump({"jtype": "Flow", "gateway": {"auth": {"jwt": tokens}, "port": 0}}))
    done = subprocess.run(
        [sys.executable, "-m", "gatewayd", "serve", str(path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert "issuer.example" in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "host",
    [
        "http://u:canary@h:80/path",
        "ftp://u:canary@h",
        "http://u:canary:80:90@h:80:90",
        "http://u:canary@h:port",
        "http://h:canary@[",
        "u:canary@h:80:x",
        "grpc://u:can]canary@h",
    ],
)
def test_no_error_of_a_client_has_them(host: str) -> None:
    with pytest.raises(ValueError) as refused:
        Client(host=host)
    done = CliRunner().invoke(main, ["ping", host])

    assert SECRET not in str(refused.value)
    assert SECRET not in done.output


def test_a_client_of_a_url_with_a_password_shows_none() -> None:
    client = Client(host=f"http://u:{SECRET}@127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(ConnectionError) as failed:
        client.post("/")
    done = CliRunner().invoke(main, ["ping", f"http://u:{SECRET}@127.0.0.1:{client.port}"])

    assert SECRET not in f"{client!r} {client.host} {failed.value} {done.output}"


@pytest.mark.parametrize("protocol", ["grpc", "http", "websocket"])
def test_a_proxy_of_the_environment_shows_no_password(monkeypatch: pytest.MonkeyPatch, protocol: Any) -> None:
    proxy = f"http://u:{SECRET}@127.0.0.1:{free_ports(1)[0]}"
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ConnectionError) as failed:
        Client(host="gateway.example", port=80, protocol=protocol, proxy=True).post("/")

    assert SECRET not in str(failed.value)
    assert "127.0.0.1" in str(failed.value)
