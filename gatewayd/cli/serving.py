"""``gatewayd serve`` and ``gatewayd executor``, which run until they are stopped."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import click

from gatewayd.cli.output import fail, note
from gatewayd.extras import executor_problem, tracing_problem

if TYPE_CHECKING:
    from gatewayd.config import FlowConfig


def serve_flows(flows: Sequence[Path], variables: Sequence[str]) -> NoReturn:
    """Become ``twistd -n gateway``."""
    for number in (signal.SIGTERM, signal.SIGINT):  # until the service takes them
        signal.signal(number, lambda *_: os._exit(0))
    from twisted.scripts.twistd import run

    options = [part for flow in flows for part in ("--config", str(flow))]
    options += [part for variable in variables for part in ("--context", variable)]
    sys.argv = ["twistd", "-n", "--pidfile=", "gateway", *options]
    run()
    sys.exit(0)


def serve_executor(settings: Mapping[str, Any], file: Path | None = None) -> int:
    """
    Serve one executor in this process until SIGTERM or Ctrl-C. Returns the exit code.

    Its settings are those of the command's options, or of the only executor in the Flow ``file``.
    """
    from gatewayd.executor import group

    group.lead_alone()
    from gatewayd.config import load_flow
    from gatewayd.errors import ConfigError

    if problem := executor_problem("an executor needs"):
        return fail(problem)
    if file is None:
        return _serve_flow_of_one(_from_options(settings), 1.0)
    try:
        flow = load_flow(file)
    except ConfigError as error:
        return fail(f"{file} cannot be used:\n{error}")
    started = [each for each in flow.deployments if not each.external]
    if len(started) != 1 or len(flow.deployments) != 1 or started[0].shards * started[0].replicas != 1:
        return fail(
            f"{file}: found {len(flow.deployments)} executor(s); accepted: one, without replicas and shards, "
            "that is not external"
        )
    for warning in flow.warnings:
        note(warning)
    return _serve_flow_of_one(flow, flow.gateway.grace_period_s)


def _from_options(settings: Mapping[str, Any]) -> FlowConfig:
    """The only executor of a Flow, from the options of the command."""
    import yaml

    from gatewayd.config import flow_from_mapping
    from gatewayd.config.assignments import assignment
    from gatewayd.errors import ConfigError

    options = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    arguments: dict[str, Any] = {}
    for text in options.pop("uses_with"):
        try:
            name, value = assignment(text)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--uses-with") from error
        arguments[name] = yaml.safe_load(value)
    item = {key: value for key, value in options.items() if value not in (None, [], 0, False)}
    try:
        return flow_from_mapping({"executors": [{**item, "uses_with": arguments}]}, base_dir=Path.cwd())
    except ConfigError as error:
        sys.exit(fail(str(error).replace("Flow: executors[0].", "--")))


def _serve_flow_of_one(flow: FlowConfig, grace_s: float) -> int:
    from gatewayd.executor.priorities import set_level

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    set_level(os.environ.get("JINA_LOG_LEVEL", ""))

    from gatewayd.executor.__main__ import serve_alone, tracing_of
    from gatewayd.executor.devices import gpu_count, take_turns
    from gatewayd.executor.loading import LoadError, load
    from gatewayd.executor.spec import ExecutorSpec

    (deployment,) = flow.deployments
    os.environ.update(deployment.executor.env)
    spec = attrs.evolve(ExecutorSpec.of(deployment, 0, 0, flow.base_dir), grace_s=grace_s)
    try:
        take_turns(os.environ, spec.replica, gpu_count)
    except ValueError as error:
        return fail(str(error))
    if spec.executor.traces is not None and (problem := tracing_problem(spec.executor.traces.protocol)):
        return fail(f"--tracing: {problem}")
    tracing = tracing_of(spec)
    try:
        loaded = load(spec, tracer_provider=None if tracing is None else tracing.provider)
    except LoadError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return fail(str(error))
    gc.freeze()

    def show(event: Mapping[str, str]) -> None:
        if event["event"] == "ready":
            note(f"{spec.runtime_name} serves at {event['address']}; Ctrl-C stops it")
        else:
            fail(event["error"])

    return serve_alone(loaded, spec, show, tracing)
