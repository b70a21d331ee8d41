"""The keys of traces: for the gateway and for executors, together or apart."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd import Deployment, Flow
from gatewayd.config import FlowConfig, flow_from_mapping
from gatewayd.config.heads import head_executors
from gatewayd.config.model import ExecutorConfig
from gatewayd.errors import ConfigError
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.otlp import Collector
from gatewayd.supervisor import requirements
from gatewayd.supervisor.requirements import check_installed

COLLECTOR = Collector("http://otel", 4317)
KEYS = {"tracing": True, "traces_exporter_host": "http://otel", "traces_exporter_port": 4317}


def flow(**more: Any) -> FlowConfig:
    return flow_from_mapping({"executors": [{"name": "a"}], **more}, environ={})


def test_of_the_whole_flow() -> None:
    found = flow(**{"with": KEYS})

    assert found.gateway.traces == COLLECTOR
    assert found.deployments[0].executor.traces == COLLECTOR


def test_the_reference_calls_them_so_in_python() -> None:
    found = Flow(**KEYS).add(name="a")._description.config()  # type: ignore[arg-type]

    assert (found.gateway.traces, found.deployments[0].executor.traces) == (COLLECTOR, COLLECTOR)


def test_of_a_deployment_by_itself() -> None:
    found = Deployment(name="a", **KEYS)._description.config()  # type: ignore[arg-type]

    assert (found.gateway.traces, found.deployments[0].executor.traces) == (COLLECTOR, COLLECTOR)


def test_of_the_gateway_alone() -> None:
    found = flow(gateway={"tracing": True, "traces_exporter_protocol": "http", "traces_sample": 0.1})

    assert found.gateway.traces == Collector(protocol="http")
    assert found.gateway.traces_sample == 0.1
    assert found.deployments[0].executor.traces is None


def test_executors_around_shards_are_traced_as_they_are() -> None:
    around = {"name": "a", "shards": 2, "uses_before": "BaseExecutor", **KEYS}
    (deployment,) = flow(executors=[around]).deployments
    (head,) = head_executors(deployment)

    assert isinstance(head.executor, ExecutorConfig)
    assert head.executor.traces == COLLECTOR


def test_an_executors_process_is_told() -> None:
    found = flow(**{"with": {**KEYS, "traces_exporter_headers": {"authorization": "s3cret"}}})
    spec = ExecutorSpec.of(found.deployments[0], 0, 0, ".")

    assert ExecutorSpec.from_line(spec.to_line()).executor.traces == found.gateway.traces
    assert "s3cret" not in repr(found)


def test_the_headers_of_a_trace_are_read_with_tracing_alone() -> None:
    fields = [("traceparent", "p"), ("tracestate", "s"), ("x-a", "1")]

    assert not flow().gateway.received
    assert flow(gateway={"tracing": True}).gateway.received.of_request(fields) == (
        ("traceparent", "p"), ("tracestate", "s"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"), [("traces_exporter_host", "grpc://otel"), ("traces_sample", 1.5), ("tracing", "maybe")]
)
def test_what_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"gateway.{key}: "):
        flow(gateway={key: value})


def test_what_is_not_installed_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "tracing_problem", lambda protocol: f"{protocol}: pip install it")

    with pytest.raises(ConfigError, match=r"gateway\.tracing: grpc: pip install it"):
        check_installed(flow(gateway={"tracing": True}))
    with pytest.raises(ConfigError, match=r"executors\.a\.tracing: http: pip install it"):
        check_installed(flow(executors=[{"name": "a", "tracing": True, "traces_exporter_protocol": "http"}]))
    check_installed(flow())
