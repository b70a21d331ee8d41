"""
A plan as a file of Docker Compose (pure).

Flow files are ``configs`` with their content in the file (Compose 2.23.1 and later). Variables that hold
secrets are taken from the environment of ``docker compose``, which refuses to start without them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from gatewayd.export.plan import (
    EXECUTOR_PORT,
    PROJECT,
    SETTINGS,
    TLS,
    WORKSPACE,
    Container,
    ExportOptions,
    Plan,
)
from gatewayd.health import READY

_USER: Final = "10001:10001"
# Asks without what an image may not have: curl, or a shell.
_ASK: Final = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}{path}', timeout=4)"


def address_in(label: str) -> str:
    """``host`` of an executor: Compose's DNS resolves a service to all its containers."""
    return f"{label}:{EXECUTOR_PORT}"


def compose_of(plan: Plan, options: ExportOptions) -> dict[str, Any]:
    """The content of docker-compose.yml."""
    containers = [*plan.executors, *([plan.gateway] if options.include_gateway else [])]
    found: dict[str, Any] = {
        "name": plan.name,
        "services": {each.label: _service(plan, each, options) for each in containers},
        "networks": {options.network: {"driver": "bridge"}},
        "configs": {
            f"{each.label}-flow": {"content": each.flow_file.replace("$", "$$")} for each in containers
        },
    }
    volumes: dict[str, Any] = {f"{each.label}-workspace": {} for each in containers if each.has_workspace}
    if volumes:
        found["volumes"] = volumes
    if plan.tls and options.include_gateway:
        found["secrets"] = {
            "tls-certificate": {"file": f"./{options.tls_secret}/tls.crt"},
            "tls-key": {"file": f"./{options.tls_secret}/tls.key"},
        }
    return found


def _service(plan: Plan, container: Container, options: ExportOptions) -> dict[str, Any]:
    is_gateway = container is plan.gateway
    if is_gateway:
        command = ["gatewayd", "serve", f"{SETTINGS}/flow.yml"]
        ask = _ASK.format(port=container.metrics, path=READY)
        test = ["CMD", "python", "-c", ask]
    else:
        command = ["gatewayd", "executor", "--flow", f"{SETTINGS}/flow.yml"]
        test = ["CMD", "gatewayd", "ping", "-q", f"grpc://127.0.0.1:{EXECUTOR_PORT}"]
    found: dict[str, Any] = {
        "image": container.image,
        "command": command,
        "working_dir": PROJECT,
        "environment": {
            "HOME": "/tmp",
            **{name: f"${{{name}:?set {name} for {container.label}}}" for name in container.secrets},
        },
        "configs": [{"source": f"{container.label}-flow", "target": f"{SETTINGS}/flow.yml"}],
        "networks": [options.network],
        "user": _USER,
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "stop_grace_period": f"{math.ceil(container.stop_s)}s",
        "healthcheck": {
            "test": test,
            "interval": "10s",
            "timeout": "10s",
            "retries": 3,
            "start_period": f"{math.ceil(container.ready_s)}s",
        },
        "deploy": {"replicas": container.replicas, **_reserved(container)},
    }
    if container.has_workspace:
        found["volumes"] = [f"{container.label}-workspace:{WORKSPACE}"]
    if is_gateway:
        found["ports"] = [f"{each.port}:{each.port}" for each in plan.listeners]
        if plan.executors:
            found["depends_on"] = _after(plan)
        if plan.tls:
            found["secrets"] = [
                {"source": "tls-certificate", "target": f"{TLS}/tls.crt"},
                {"source": "tls-key", "target": f"{TLS}/tls.key"},
            ]
    return found


def _reserved(container: Container) -> Mapping[str, Any]:
    """GPUs alone: what else a container may take, Compose would not share out among machines."""
    if not container.resources.gpus:
        return {}
    device = {"driver": "nvidia", "count": container.resources.gpus, "capabilities": ["gpu"]}
    return {"resources": {"reservations": {"devices": [device]}}}


def _after(plan: Plan) -> Mapping[str, Any]:
    return {each.label: {"condition": "service_healthy"} for each in plan.executors}
