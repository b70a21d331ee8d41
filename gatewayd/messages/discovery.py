"""The endpoints that executors bind, as far as they are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from gatewayd.messages.generations import Generation

# Answers all endpoints that the executor does not bind.
DEFAULT: Final = "/default"
# Every executor answers it, although no class binds it: it is not for users.
DRY_RUN: Final = "_jina_dry_run_"

# Endpoints with the docstrings of their methods, which may be empty.
Described = Mapping[str, str]


# A JSON schema, as pydantic 1 or 2 writes it, with the name of the class it was made of.
Schema = Mapping[str, Any]


@attrs.frozen
class TypedEndpoint:
    """
    What an executor of the second generation tells of an endpoint (spec 34/wire.md, EndpointsProto).

    ``input`` and ``output`` are the schemas of one document, ``parameters`` that of the parameters, None
    where they are free. The names are those of the classes. ``streams`` is set for generators: one document
    in, any number out. With ``single`` the method takes one document at a time.
    """

    input: Schema
    output: Schema
    input_name: str
    output_name: str
    streams: bool = False
    single: bool = False
    parameters: Schema | None = None
    parameters_name: str = ""


@attrs.frozen
class Endpoints:
    """
    ``bound`` are those that some executor is known to bind, in the order of the Flow, without the dry run.

    ``unknown`` names the Deployments whose endpoints are not known. ``generation`` is None while no executor
    has told it and the Flow file does not say it. ``typed`` are the bound ones of the second generation, as
    the Flow serves them: with the input of the first executor that binds each, and the output of the last.
    ``streaming`` are those bound ones, of either generation, that stream.
    """

    bound: Described = attrs.field(factory=dict)
    unknown: tuple[str, ...] = ()
    generation: Generation | None = None
    typed: Mapping[str, TypedEndpoint] = attrs.field(factory=dict)
    streaming: frozenset[str] = frozenset()


def united(reported: Iterable[Described]) -> Described | None:
    """The endpoints that several executors of one Deployment bind; None if ``reported`` is empty."""
    found: dict[str, str] | None = None
    for described in reported:
        if found is None:
            found = dict(described)
        else:
            for endpoint, text in described.items():
                found[endpoint] = found.get(endpoint) or text
    return found


def of_flow(deployments: Mapping[str, Described | None]) -> Endpoints:
    """The endpoints of Deployments, by their names in the order of the Flow; None for unknown ones."""
    docstrings: dict[str, dict[str, str]] = {}
    for name, described in deployments.items():
        for endpoint, text in (described or {}).items():
            if endpoint != DRY_RUN:
                docstrings.setdefault(endpoint, {})[name] = text
    bound = {endpoint: _joined(texts) for endpoint, texts in docstrings.items()}
    return Endpoints(bound, tuple(name for name, described in deployments.items() if described is None))


def _joined(texts: Mapping[str, str]) -> str:
    """The docstrings of one endpoint's methods; each with its Deployment's name if they differ."""
    said = {name: text for name, text in texts.items() if text}
    if len(set(said.values())) < 2:
        return next(iter(said.values()), "")
    return "\n\n".join(f"{name}: {text}" for name, text in said.items())
