"""Every Flow that the reference was asked to load, loaded here, and why it differs where it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gatewayd.config import FlowConfig, graph_description, load_flow, load_flow_text
from gatewayd.errors import ConfigError
from tests.paths import GOLDEN

RECORDED = json.loads((GOLDEN / "flow_configs.json").read_text())
CONTEXT = RECORDED["context for the ctx case"]
CASES = {case["name"]: case for case in RECORDED["cases"] if not case["name"].startswith("Client ")}

# Cases whose YAML was not kept with the result.
TEXTS = {
    "ctx": "jtype: Flow\ngateway:\n  port: ${{ CONTEXT.p }}\nexecutors:\n  - name: ${{ n }}\n",
    "expose_endpoints dict in yaml": "jtype: Flow\ngateway: {expose_endpoints: {/foo: {methods: [GET]}}}\n",
    "uses_with": "jtype: Flow\nexecutors: [{uses: Rec, uses_with: {tag: Z}}]\n",
}

# Refused here, accepted there: a part of the message, and the reason.
REFUSED = {
    "bad port": (
        "found 'abc'",
        "a port that is no number cannot be listened on; there it is only warned about",
    ),
    "unknown gateway key": ("gateway.foo: unknown key", "a misspelt key must not be ignored silently"),
    "unknown exec key": ("executors[0].foo: unknown key", "a misspelt key must not be ignored silently"),
    "needs unknown": (
        "no executor is called 'zz'",
        "there it leaves a graph without a start, which never answers",
    ),
}
# Accepted here, refused there: the reason.
ACCEPTED = {
    "compression gzip": "the documentation's own spelling stops the reference; every spelling is accepted",
}
# Same outcome, but these parts of the result differ: what is here, and the reason.
DIFFERS: dict[str, tuple[dict[str, Any], str]] = {
    "jtype Deployment item": (
        {"graph_description": {"start-gateway": ["a"], "a": ["end-gateway"]}, "addresses": {"a": [20509]}},
        "the reference loses the name given in a Deployment's with",
    ),
}
# Messages that are our own: what they say instead, and the reason is that they name file, line and key.
OWN_MESSAGES = {
    "no jtype": "jtype is missing",
    "empty": "found nothing; accepted: a map that begins with jtype: Flow",
    "bad protocol": "gateway.protocol: found 'ftp'; accepted: grpc, http, websocket",
    "executors is a dict": "executors: found a map; accepted: a list of executors",
}


def load(case: dict[str, Any], folder: Path) -> FlowConfig:
    text = TEXTS.get(case["name"], case["yaml"])
    if text == "nofile.yml":
        return load_flow(text)
    return load_flow_text(text, base_dir=folder, context=CONTEXT, environ=RECORDED["environment"])


def described(flow: FlowConfig) -> dict[str, Any]:
    gateway = flow.gateway
    timeout_s = gateway.timeout_send_s
    return {
        "port": [listener.port or "<random port>" for listener in gateway.listeners],
        "protocol": [name.upper() for listener in gateway.listeners for name in listener.protocols],
        "graph_description": graph_description(flow),
        "graph_conditions": {each.name: each.when for each in flow.deployments if each.when is not None},
        "deployments_no_reduce": [each.name for each in flow.deployments if each.no_reduce],
        "deployments_metadata": {
            each.name: dict(each.grpc_metadata) for each in flow.deployments if each.grpc_metadata
        },
        "compression": None if gateway.compression == "none" else gateway.compression.capitalize(),
        "timeout_send": None if timeout_s is None else timeout_s * 1000,
        "prefetch": gateway.prefetch,
        "host": gateway.host,
        "retries": gateway.retries,
    }


def addresses(flow: FlowConfig) -> dict[str, list[str]]:
    """As the reference prints them; its executors listen on 0.0.0.0 where ours are local only."""
    found = {}
    for each in flow.deployments:
        scheme = "grpcs" if each.tls else "grpc"
        ports = each.ports or ("<random port>",) * each.replicas
        local = [f"grpc://0.0.0.0:{port}" for port in ports]
        found[each.name] = [f"{scheme}://{one}" for one in each.addresses] if each.external else local
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_flow_means_what_it_means_to_the_reference(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = CASES[name]
    if "error" in case and name not in ACCEPTED:
        with pytest.raises(ConfigError) as raised:
            load(case, tmp_path)
        assert OWN_MESSAGES.get(name, case["message"]) in str(raised.value)
    elif name in REFUSED:
        with pytest.raises(ConfigError) as raised:
            load(case, tmp_path)
        assert REFUSED[name][0] in str(raised.value)
    elif name in ACCEPTED:
        assert load(case, tmp_path).gateway.compression == "gzip"
    elif name == "expose_endpoints dict in yaml":
        assert load(case, tmp_path).gateway.expose_endpoints == json.loads(case["result"])
    elif name == "uses_with":
        assert load(case, tmp_path).deployments[0].executor.uses_with == case["result"]
    else:
        flow = load(case, tmp_path)
        expected = dict(case["result"])
        del expected["gateway class"]
        expected_addresses = expected.pop("deployments_addresses")
        if name in DIFFERS:
            expected["graph_description"] = DIFFERS[name][0]["graph_description"]
            expected_addresses = {"a": ["grpc://0.0.0.0:20509"]}
        assert described(flow) == expected
        if name == "shards":  # the port is that of the head, which gatewayd does without
            expected_addresses = {"a": ["grpc://0.0.0.0:<random port>"]}
        assert addresses(flow) == expected_addresses
