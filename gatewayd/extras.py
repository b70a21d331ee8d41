"""
What only an extra of the installation brings: docarray, with which executors and Clients hand out documents,
OpenTelemetry's packages, which send traces, Ray, which runs replicas on other machines, and a client of
Redis, in which gateways share their rates.

A gateway passes documents on as bytes: without executors of its own, it needs no extra. Of docarray one
release can be installed: it decides which generation the executors of this installation are of.
"""

from __future__ import annotations

import functools
import re
from importlib import metadata, util
from typing import Final

from gatewayd.messages.generations import Generation

# What sends over each of OTLP's protocols.
_EXPORTERS = {
    protocol: f"opentelemetry.exporter.otlp.proto.{protocol}.trace_exporter" for protocol in ("grpc", "http")
}

# The releases of each generation, from the first one up to the one after the last (setup.py). Those between
# them are of the second, before its format was settled.
_RELEASES: Final = {Generation.FIRST: ((0, 21), (0, 30)), Generation.SECOND: ((0, 40), (1, 0))}
_NAMES: Final = {Generation.FIRST: "docarray 0.21", Generation.SECOND: "docarray 0.40 or later"}
# Names that only one of them has, and what an import of them says where they are missing.
_WRITTEN_FOR: Final = {
    **dict.fromkeys(("Document", "DocumentArray"), Generation.FIRST),
    **dict.fromkeys(("BaseDoc", "DocList", "DocVec"), Generation.SECOND),
}
_MISSING_NAME: Final = re.compile(r"annot import name '(\w+)' from 'docarray'")
# What installs docarray 0.40 and later, for executors and Clients.
SECOND_EXTRA: Final = "docarray2"


def docarray_generation() -> Generation | None:
    """That of the docarray which is installed; None if there is none, or one of neither generation."""
    return _installed()[0]


def docarray_problem(what: str, extra: str, generation: Generation = Generation.FIRST) -> str | None:
    """Why ``what`` cannot have docarray here, and the command that installs it; None if it can."""
    found, state = _installed()
    if found is generation:
        return None
    return f"{what} {_NAMES[generation]}, and {state}: pip install 'gatewayd[{extra}]'"


def executor_problem(what: str) -> str | None:
    """As ``docarray_problem``, for what can have either generation."""
    return _problem_of_both(what, "executor")


def _problem_of_both(what: str, extra: str) -> str | None:
    problem = docarray_problem(what, extra)
    if problem is None or docarray_generation() is not None:
        return None
    return (
        f"{problem}, or for typed documents (docarray 0.40 or later) pip install 'gatewayd[{SECOND_EXTRA}]'"
    )


def wrong_docarray(error: BaseException) -> str:
    """
    Where code was imported that is written for another docarray than the one installed: what to do about it.

    It begins with ``; ``, and is empty for every other error.
    """
    named = _MISSING_NAME.search(str(error)) if isinstance(error, ImportError) else None
    wanted = None if named is None else _WRITTEN_FOR.get(named[1])
    found, state = _installed()
    if wanted is None or found in (None, wanted):
        return ""
    extra = "executor" if wanted is Generation.FIRST else SECOND_EXTRA
    return (
        f"; it is written for {_NAMES[wanted]}, and {state}: pip install 'gatewayd[{extra}]' in an "
        f"environment of its own, or write it for {_NAMES[found]}"
    )


def require_typed_docarray(what: str) -> None:
    """Raises ImportError if no docarray 0.40 or later is installed."""
    if problem := docarray_problem(what, SECOND_EXTRA, Generation.SECOND):
        raise ImportError(problem, name="docarray")


def require_executor_docarray(what: str) -> None:
    """Raises ImportError with the text of ``executor_problem``."""
    if problem := executor_problem(what):
        raise ImportError(problem, name="docarray")


def require_client_docarray(what: str) -> None:
    """Raises ImportError if no docarray of either generation is installed."""
    if problem := _problem_of_both(what, "client"):
        raise ImportError(problem, name="docarray")


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


def ray_problem() -> str | None:
    """Why no replica can be placed on Ray, and the command that mends it; None if it can."""
    if util.find_spec("ray") is not None:
        return None
    return "ray needs Ray, which is not installed: pip install 'gatewayd[ray]'"


def redis_problem() -> str | None:
    """Why no rates can be counted in Redis, and the command that mends it; None if they can."""
    if util.find_spec("txredisapi") is not None:
        return None
    return "it needs txredisapi, which is not installed: pip install 'gatewayd[redis]'"


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
def _installed() -> tuple[Generation | None, str]:
    """The generation of what is installed, and in words what there is instead of another."""
    try:
        found = util.find_spec("docarray")
    except (ImportError, ValueError):
        found = None
    if found is None:
        return None, "it is not installed"
    try:
        version = metadata.version("docarray")
    except metadata.PackageNotFoundError:
        return Generation.FIRST, "a docarray without a version is installed"  # put there by hand
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None:
        return Generation.FIRST, f"{version} is installed"
    release = int(numbers[1]), int(numbers[2])
    for generation, (first, end) in _RELEASES.items():
        if first <= release < end:
            return generation, f"{version} is installed, whose documents are of another kind"
    return None, f"{version} is installed, whose documents are of another kind"
