"""
What only an extra of the installation brings: docarray, with which executors and Clients hand out documents,
and OpenTelemetry's packages, which send traces.

A gateway passes documents on as bytes: without executors of its own, it needs no extra.
"""

from __future__ import annotations

import functools
import re
from importlib import metadata, util

# What sends over each of OTLP's protocols.
_EXPORTERS = {
    protocol: f"opentelemetry.exporter.otlp.proto.{protocol}.trace_exporter" for protocol in ("grpc", "http")
}

# 0.30 began another format of documents (setup.py).
_FIRST, _END = (0, 21), (0, 30)


def docarray_problem(what: str, extra: str) -> str | None:
    """Why ``what`` cannot have docarray here, and the command that installs it; None if it can."""
    state = _docarray_state()
    return f"{what} docarray 0.21, and {state}: pip install 'gatewayd[{extra}]'" if state else None


def require_docarray(what: str, extra: str) -> None:
    """Raises ImportError with the text of ``docarray_problem``."""
    if problem := docarray_problem(what, extra):
        raise ImportError(problem, name="docarray")


def tracing_problem(protocol: str) -> str | None:
    """Why no traces can be sent over OTLP's ``protocol``, and the command that mends it; None if they can."""
    return _otlp_problem("traces", protocol)


def metrics_problem(protocol: str) -> str | None:
    """As ``tracing_problem``, for metrics."""
    return _otlp_problem("metrics", protocol)


@functools.cache
def _otlp_problem(what: str, protocol: str) -> str | None:
    for module in ("opentelemetry.sdk.trace", _EXPORTERS[protocol]):
        try:
            found = util.find_spec(module.rpartition(".")[0])
        except ImportError:
            found = None
        if found is None:
            return (
                f"{what} over {protocol} need OpenTelemetry's packages, which are not installed: "
                "pip install 'gatewayd[tracing]'"
            )
    return None


@functools.cache
def _docarray_state() -> str | None:
    try:
        found = util.find_spec("docarray")
    except (ImportError, ValueError):
        found = None
    if found is None:
        return "it is not installed"
    try:
        version = metadata.version("docarray")
    except metadata.PackageNotFoundError:
        return None  # put there by hand
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or _FIRST <= (int(numbers[1]), int(numbers[2])) < _END:
        return None
    return f"{version} is installed, whose documents are of another kind"
