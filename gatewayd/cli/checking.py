"""``gatewayd check`` and ``gatewayd plot``, which show what a Flow file means without starting it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from gatewayd.cli.output import fail, note, say, table, warn
from gatewayd.config import DeploymentConfig, FlowConfig, load_flow
from gatewayd.config.assignments import assignment
from gatewayd.config.log_kinds import AccessLogConfig
from gatewayd.config.model import LOCAL, GatewayConfig
from gatewayd.config.recording import RecordConfig
from gatewayd.errors import ConfigError
from gatewayd.extras import redis_problem, tracing_problem
from gatewayd.schemes import socket_path


def check_flow(flow: Path, variables: Sequence[str]) -> int:
    """Print every problem, or a summary of the Flow. Returns the exit code."""
    if flow.is_dir():
        return fail(_folder(flow))
    try:
        config = load_flow(flow, context=context_of(variables))
        config.check_conflicts()
        _check_gateway_class(config)
        if config.gateway.auth is not None:
            from gatewayd.access.service import check_files

            check_files(config.gateway.auth)
    except ConfigError as error:
        return fail(f"{flow} cannot be used:\n{error}")
    for warning in config.warnings:
        warn(warning)
    if config.gateway.traces is not None and (problem := tracing_problem(config.gateway.traces.protocol)):
        warn(f"gateway.tracing: {problem}")
    if config.gateway.rates_store is not None and (problem := redis_problem()):
        warn(f"gateway.rates_store: {problem}")
    if config.gateway.admin_port is not None:
        from gatewayd.access.operators import warning_for

        if (problem := warning_for(config.gateway)) is not None:
            warn(problem)
    for title, lines in _sections(config):
        say(title, bold=True)
        for line in lines:
            say(f"  {line}")
    return 0


def plot_flow(flow: Path, variables: Sequence[str], output: Path | None) -> int:
    """Write a picture of the Flow. Returns the exit code."""
    from gatewayd.flow.plot import picture

    target = output if output is not None else flow.with_suffix(".svg")
    if flow.is_dir():
        return fail(_folder(flow))
    try:
        target.write_bytes(picture(load_flow(flow, context=context_of(variables)), target.suffix))
    except ConfigError as error:
        return fail(f"{flow} cannot be used:\n{error}")
    except OSError as error:
        return fail(f"{target} cannot be written: {error.strerror or error}")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--output") from error
    note(f"drawn: {target}")
    return 0


def _check_gateway_class(flow: FlowConfig) -> None:
    """Import the gateway's class, if it has one: what is wrong with it keeps the Flow from being served."""
    custom = flow.gateway.custom
    if custom is None:
        return
    from gatewayd.custom.loading import load_class

    os.environ.update(flow.gateway.env)
    load_class(custom, flow.base_dir)


def _folder(path: Path) -> str:
    return f"{path} is a folder; name the Flow file, such as {path / 'flow.yml'}"


def context_of(variables: Sequence[str]) -> Mapping[str, str]:
    context = {}
    for variable in variables:
        try:
            name, value = assignment(variable)
        except ValueError as error:
            raise click.BadParameter(f"{variable}: {error}", param_hint="--context") from error
        context[name] = value
    return context


def _sections(flow: FlowConfig) -> Iterator[tuple[str, list[str]]]:
    gateway = flow.gateway
    tls = " with TLS" if gateway.tls is not None else ""
    yield (
        f"Flow {flow.name or ''}".rstrip(),
        [
            *(
                f"{'+'.join(listener.protocols)}{tls} on {gateway.host}:{listener.port or '(a free port)'}"
                for listener in gateway.listeners
            ),
            *([f"with the routes of {gateway.custom.uses}"] if gateway.custom is not None else []),
            *(["for callers that show who they are"] if gateway.auth is not None else []),
            *([f"with traces to {gateway.traces.url}"] if gateway.traces is not None else []),
            *(_recorded(gateway.record) if gateway.record is not None else []),
            *([_logged(gateway.access_log)] if gateway.access_log is not None else []),
            *_for_operators(gateway),
        ],
    )
    if not flow.deployments:
        yield "No executors: requests are answered as they are", []
        return
    yield "A request's way", _way(flow)
    rows = [("name", "runs", "processes", "where")]
    rows += [_row(each) for each in flow.deployments]
    yield "Executors", table(rows)
    limit_s = gateway.timeout_send_s
    yield (
        "Limits",
        [
            f"a call to an executor: {'no limit' if limit_s is None else f'{limit_s:g} s'}",
            f"a client's message: {gateway.max_message_bytes:,} bytes",
            f"requests in flight on one stream: {gateway.prefetch or 'no limit'}",
        ],
    )


def _for_operators(gateway: GatewayConfig) -> Iterator[str]:
    if gateway.admin_port is not None:
        count = len(gateway.admin_keys)
        keys = (
            f"{count} {'key' if count == 1 else 'keys'} for actions" if count else "no keys, and no actions"
        )
        port = gateway.admin_port or "(a free port)"
        yield f"the admin site on {gateway.admin_host}:{port}, with {keys}"
    if gateway.monitoring:
        yield f"metrics on {gateway.host}:{gateway.port_monitoring or '(a free port)'}"


def _recorded(record: RecordConfig) -> Iterator[str]:
    without = f", without {', '.join(record.redact)}" if record.redact else ""
    yield f"with {_share(record.sample)} recorded in {record.path}{without}"


def _logged(access_log: AccessLogConfig) -> str:
    where = "the log" if access_log.path is None else access_log.path
    return f"with an access log of {_share(access_log.sample)} in {where}"


def _share(sample: float) -> str:
    return "all requests" if sample >= 1 else f"{sample * 100:.4g} % of the requests"


def _way(flow: FlowConfig) -> list[str]:
    lines = []
    answering = next((each.name for each in reversed(flow.deployments) if not each.floating), None)
    for each in flow.deployments:
        notes = []
        if each.when is not None:
            notes.append("only documents that match its condition")
        if each.floating:
            notes.append("floating: the answer does not wait for it")
        if each.name == answering:
            notes.append("gives the answer")
        lines.append(f"{', '.join(each.needs)} -> {each.name}" + (f"  ({'; '.join(notes)})" if notes else ""))
    return lines


def _row(deployment: DeploymentConfig) -> tuple[str, str, str, str]:
    if deployment.external:
        return deployment.name, "(external)", "none here", ", ".join(deployment.addresses)
    count = deployment.most_replicas * deployment.shards
    return (
        deployment.name,
        deployment.executor.uses or "(pass-through)",
        _count(deployment),
        _where(deployment, count),
    )


def _count(deployment: DeploymentConfig) -> str:
    if (scaling := deployment.scaling) is not None:
        each = "" if deployment.shards == 1 else f" in each of {deployment.shards} shards"
        return f"{scaling.least} to {scaling.most}{each}"
    count = deployment.replicas * deployment.shards
    return f"{count}" if deployment.shards == 1 else f"{count} in {deployment.shards} shards"


def _where(deployment: DeploymentConfig, count: int) -> str:
    if deployment.placement != LOCAL:
        return f"nodes of a {deployment.placement.capitalize()} cluster"
    host, ports = deployment.host, ", ".join(str(port) for port in deployment.ports if port)
    if host is not None and socket_path(host) is not None:
        return host
    if host is None and not ports:
        return "a private socket" if count == 1 else "private sockets"
    return f"{host or '127.0.0.1'}, {ports or ('a free port' if count == 1 else 'free ports')}"
