"""
What an executor process needs to know: one line of JSON, written to its standard input.

Its standard input then stays open; when it ends, the process that wrote the line has gone, and the executor
stops.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from gatewayd.config.model import DeploymentConfig, ExecutorConfig
from gatewayd.schemes import socket_path

# Set in the environment of an executor whose log shows failures without their tracebacks.
BRIEF: Final = "GATEWAYD_BRIEF_FAILURES"


@attrs.frozen
class ExecutorSpec:
    """
    One replica: which executor to load, and where to serve it.

    ``shard`` and ``replica`` count from 0. With ``socket`` it is served at this path, and at no port;
    ``port`` 0 picks a free one, and so does ``monitoring_port``, that of its metrics; None is for none.
    ``max_message_bytes`` is -1 for no limit. ``grace_s`` is how long running calls may take when the process
    stops. ``log_level`` is the least level of what it writes to the log, by Twisted's name. With a ``secret``
    it answers only calls that carry it (``callers.py``).
    """

    deployment: str
    executor: ExecutorConfig = attrs.field(factory=ExecutorConfig)
    shard: int = 0
    replica: int = 0
    shards: int = 1
    replicas: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    socket: str | None = None
    base_dir: str = "."
    max_message_bytes: int = -1
    grace_s: float = 1.0
    monitoring_port: int | None = None
    log_level: str = "info"
    secret: str | None = attrs.field(default=None, repr=False)

    @property
    def route_name(self) -> str:
        """The replica's name in routes: ``a``, or ``a/shard-0`` if there are several shards."""
        return f"{self.deployment}/shard-{self.shard}" if self.shards > 1 else self.deployment

    @property
    def runtime_name(self) -> str:
        """
        The replica's name in logs and results: ``a/rep-0`` or ``a/shard-0/rep-0``.

        The name of a head executor already has a number: ``a/uses_before-0``.
        """
        if "/" in self.deployment:
            return self.deployment
        return f"{self.route_name}/rep-{self.replica}"

    @classmethod
    def of(cls, deployment: DeploymentConfig, shard: int, replica: int, base_dir: str) -> ExecutorSpec:
        """The spec of one replica of a Deployment that is not external."""
        index = shard * deployment.replicas + replica
        host = "127.0.0.1" if deployment.host is None else deployment.host
        return cls(
            deployment=deployment.name,
            executor=deployment.executor,
            shard=shard,
            replica=replica,
            shards=deployment.shards,
            replicas=deployment.most_replicas,
            host=host,
            port=deployment.ports[index] if index < len(deployment.ports) else 0,
            socket=socket_path(host),
            base_dir=base_dir,
            monitoring_port=_monitoring_port(deployment, index),
        )

    def to_line(self) -> bytes:
        """One line of JSON, without the environment, which the process already has."""
        plain = attrs.asdict(self)
        del plain["executor"]["env"]
        return json.dumps(plain, default=_plain).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> ExecutorSpec:
        """The inverse of ``to_line``. Raises ValueError or TypeError."""
        plain: dict[str, Any] = json.loads(line)
        executor = plain.pop("executor", {})
        for field in attrs.fields(ExecutorConfig):
            if isinstance(field.default, tuple) and field.name in executor:  # JSON has lists only
                executor[field.name] = tuple(executor[field.name])
        return cls(executor=ExecutorConfig(**executor), **plain)


def _monitoring_port(deployment: DeploymentConfig, index: int) -> int | None:
    if not deployment.monitoring:
        return None
    ports = deployment.monitoring_ports
    return ports[index] if index < len(ports) else 0


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, datetime.date):  # YAML has dates, JSON has none
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    raise TypeError(f"{value!r} is not JSON")
