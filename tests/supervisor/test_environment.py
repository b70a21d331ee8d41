"""What executors inherit of the gateway's environment."""

import json
import os
import urllib.request

import pytest

from gatewayd import Flow
from gatewayd.config import DeploymentConfig, ExecutorConfig, load_flow_text
from gatewayd.config.heads import head_executors
from gatewayd.errors import ConfigError
from gatewayd.supervisor.environment import inherited
from tests.paths import ROOT
from tests.processes import Gateway
from tests.supervisor.test_supervisor import Setup

USUAL = {
    "PATH": "/bin", "HOME": "/h", "LC_CTYPE": "C.UTF-8", "TZ": "UTC", "PYTHONPATH": "/p", "VIRTUAL_ENV": "/v",
    "LD_LIBRARY_PATH": "/l", "CUDA_VISIBLE_DEVICES": "RR", "NVIDIA_VISIBLE_DEVICES": "all", "HF_HOME": "/hf",
    "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "TORCH_HOME": "/t", "JINA_LOG_LEVEL": "INFO",
    "GATEWAYD_BRIEF_FAILURES": "1", "XDG_CACHE_HOME": "/c", "SSL_CERT_FILE": "/ca", "MALLOC_ARENA_MAX": "2",
}  # fmt: skip
UNUSUAL = {
    "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "eu", "DATABASE_URL": "postgres://u:p@h", "HF_TOKEN": "t",
    "JINA_AUTH_TOKEN": "t", "GATEWAYD_API_KEYS": "k", "GATEWAYD_HEADER": "k", "NVIDIA_APIKEY": "k",
    "HTTPS_PROXY": "http://u:p@proxy",
    "NOTIFY_SOCKET": "/n", "SSH_AUTH_SOCK": "/s", "KUBERNETES_SERVICE_HOST": "h", "CONDA_TOKEN": "t",
    "path": "lower",
}  # fmt: skip
ALL = {**USUAL, **UNUSUAL}


@pytest.mark.parametrize(
    ("names", "more"),
    [
        ((), ()),
        (("*",), UNUSUAL),
        (("HF_TOKEN",), ("HF_TOKEN",)),
        (("AWS_*", "DATABASE_URL"), ("AWS_SECRET_ACCESS_KEY", "AWS_REGION", "DATABASE_URL")),
        (("*_TOKEN",), ("HF_TOKEN", "JINA_AUTH_TOKEN", "CONDA_TOKEN")),
        (("aws_*", "MISSING"), ()),
        (("MISSING", "*"), UNUSUAL),
    ],
)
def test_the_usual_variables_are_inherited_and_those_that_are_named(names, more):
    assert inherited(ALL, names) == {**USUAL, **{name: UNUSUAL[name] for name in more}}


def test_the_environment_of_an_executor_has_its_own_variables_as_well():
    config = ExecutorConfig(uses="Rec", env_inherit=("AWS_REGION",), env={"HF_TOKEN": "own", "PATH": "/own"})
    setup = Setup(DeploymentConfig("a", executor=config), inherit=ALL)
    (process,) = setup.processes

    assert process.env == {
        "PYTHONUNBUFFERED": "1", **USUAL, "AWS_REGION": "eu", "HF_TOKEN": "own", "PATH": "/own",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flow", "names"),
    [
        ("executors: [{name: a}]", ("*",)),
        ("gateway: {production: true}\nexecutors: [{name: a}]", ()),
        ("with: {production: true}\nexecutors: [{name: a}]", ()),
        ("gateway: {production: true}\nexecutors: [{name: a, env_inherit: '*'}]", ("*",)),
        ("gateway: {production: true}\nwith: {env_inherit: AWS_*}\nexecutors: [{name: a}]", ("AWS_*",)),
        ("with: {env_inherit: [X, Y]}\nexecutors: [{name: a, env_inherit: []}]", ()),
        ("executors: [{name: a, env_inherit: 'X, Y*,X'}]", ("X", "Y*")),
    ],
)
def test_all_is_inherited_unless_the_flow_says_otherwise_or_is_in_production(flow, names):
    shards = flow.replace("name: a", "name: a, shards: 2, uses_before: X, uses_after: Y")
    (found,) = load_flow_text(f"jtype: Flow\n{shards}", environ={}).deployments

    assert found.executor.env_inherit == names
    assert [head.executor.env_inherit for head in head_executors(found)] == [names, names]


def test_a_flow_in_python_has_the_same_key():
    flow = Flow().config_gateway(production=True).add(name="a").add(name="b", env_inherit=["AWS_*"])
    assert [each.executor.env_inherit for each in flow.config.deployments] == [(), ("AWS_*",)]


@pytest.mark.parametrize("names", ["[1]", "'A B'", "['A=B']", "['']", "{A: B}", "'[A-Z]*'", "'A?'"])
def test_what_cannot_be_the_name_of_a_variable_is_refused(names):
    with pytest.raises(
        ConfigError, match=r"env_inherit.*names of environment variables, or patterns such as"
    ):
        load_flow_text(f"jtype: Flow\nexecutors: [{{name: a, env_inherit: {names}}}]", environ={})


TELLING = """
import os
from gatewayd import Executor, requests

class Telling(Executor):
    @requests
    def tell(self, docs, **kwargs):
        docs[0].tags = {"names": sorted(os.environ)}
"""


@pytest.mark.slow
def test_in_production_an_executor_works_without_the_gateway_s_secrets(tmp_path):
    (tmp_path / "telling.py").write_text(TELLING)
    modules = [str(tmp_path / "telling.py"), str(ROOT / "examples" / "search" / "executors.py")]
    flow = {
        "gateway": {"production": True, "env": {"GATEWAY_PASSWORD": "x"}},
        "executors": [
            {"name": "encoder", "uses": "HashEncoder", "py_modules": modules},
            {
                "name": "told",
                "uses": "Telling",
                "py_modules": modules,
                "env": {"OWN": "1"},
                "env_inherit": "AWS_*",
            },
        ],
    }
    gateway = Gateway(flow, protocols=["http"], AWS_REGION="eu", DATABASE_URL="postgres://u:p@h")
    try:
        body = json.dumps({"data": [{"text": "hi"}]}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{gateway.ports['http']}/search", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=30) as response:
            names = set(json.load(response)["data"][0]["tags"]["names"])
    finally:
        assert gateway.stop() == 0

    assert {"PATH", "PYTHONPATH", "OWN", "AWS_REGION"} <= names
    assert not {"DATABASE_URL", "GATEWAY_PASSWORD"} & names
    added = {"PYTHONPATH", "PYTHONUNBUFFERED", "OWN", "AWS_REGION", "JINA_OPTOUT_TELEMETRY", "LC_CTYPE"}
    assert names < {*os.environ, *added}
