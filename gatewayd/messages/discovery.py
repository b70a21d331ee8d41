"""The endpoints that executors bind, as far as they are known."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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
class Told:
    """
    What an executor tells of itself.

    ``bound`` are its endpoints, ``typed`` those of the second generation by name, ``streaming`` those that
    stream. ``generation`` is None for an executor that tells nothing.
    """

    bound: Described
    generation: Generation | None = None
    typed: Mapping[str, TypedEndpoint] = attrs.field(factory=dict)
    streaming: frozenset[str] = frozenset()


@attrs.frozen
class Endpoints:
    """
    ``bound`` are those that some executor is known to bind, in the order of the Flow, without the dry run.

    ``unknown`` names the Deployments whose endpoints are not known. ``generation`` is None while no executor
    has told it and the Flow file does not say it. ``typed`` are the bound ones of the second generation, as
    the Flow serves them: with the input of the first executor that binds each, and the output of the last.
    ``streaming`` are those bound ones, of either generation, that stream. ``dry_run`` is what an executor
    of the second tells of the dry run.
    """

    bound: Described = attrs.field(factory=dict)
    unknown: tuple[str, ...] = ()
    generation: Generation | None = None
    typed: Mapping[str, TypedEndpoint] = attrs.field(factory=dict)
    streaming: frozenset[str] = frozenset()
    dry_run: TypedEndpoint | None = None

    @property
    def is_second(self) -> bool:
        """Whether documents are known to be of the second generation."""
        return self.generation is Generation.SECOND


NOTHING_KNOWN: Final = Endpoints()


def united(reported: Iterable[Told]) -> Told | None:
    """What several executors of one Deployment tell, the first of them first; None if there are none."""
    found: Told | None = None
    for told in reported:
        if found is None:
            found = told
        elif told != found:
            bound = dict(found.bound)
            for endpoint, text in told.bound.items():
                bound[endpoint] = bound.get(endpoint) or text
            found = Told(
                bound,
                found.generation or told.generation,
                {**told.typed, **found.typed},
                found.streaming | told.streaming,
            )
    return found


def of_chain(executors: Iterable[Told | None]) -> Told | None:
    """What the executors of one Deployment tell where each gets what the one before it has answered."""
    chain = [told for told in executors if told is not None]
    found = united(chain)
    if found is None or len(chain) < 2:
        return found
    typed: dict[str, TypedEndpoint] = {}
    for told in chain:
        for endpoint, one in told.typed.items():
            typed[endpoint] = _chained(typed[endpoint], one) if endpoint in typed else one
    return attrs.evolve(found, typed=typed)


def of_flow(
    deployments: Mapping[str, Told | None],
    order: Sequence[str] = (),
    floating: Collection[str] = (),
    said: Generation | None = None,
) -> Endpoints:
    """
    The endpoints of Deployments, by their names in the order of the Flow; None for unknown ones.

    In ``order`` each is behind those that it needs; without it, they are in that order already. Nobody waits
    for the answers of ``floating`` ones. ``said`` is the Flow file's own word on the generation.
    """
    docstrings: dict[str, dict[str, str]] = {}
    typed: dict[str, TypedEndpoint] = {}
    streaming: set[str] = set()
    for name, told in deployments.items():
        if told is None:
            continue
        for endpoint, text in told.bound.items():
            if endpoint != DRY_RUN:
                docstrings.setdefault(endpoint, {})[name] = text
    for name in order or deployments:
        told = deployments[name]
        if told is not None and name not in floating:
            streaming |= told.streaming
            for endpoint, one in told.typed.items():
                if endpoint != DRY_RUN:
                    typed[endpoint] = _chained(typed[endpoint], one) if endpoint in typed else one
    bound = {endpoint: _joined(texts) for endpoint, texts in docstrings.items()}
    generations = (told.generation for told in deployments.values() if told is not None)
    generation = said or next((each for each in generations if each is not None), None)
    unknown = tuple(name for name, told in deployments.items() if told is None)
    dry_runs = (told.typed.get(DRY_RUN) for told in deployments.values() if told is not None)
    dry_run = next((each for each in dry_runs if each is not None), None)
    return Endpoints(bound, unknown, generation, typed, frozenset(streaming), dry_run)


def _chained(first: TypedEndpoint, last: TypedEndpoint) -> TypedEndpoint:
    """One endpoint of two executors, as a client sees it."""
    return attrs.evolve(
        last,
        input=first.input,
        input_name=first.input_name,
        streams=first.streams or last.streams,
    )


def _joined(texts: Mapping[str, str]) -> str:
    """The docstrings of one endpoint's methods; each with its Deployment's name if they differ."""
    said = {name: text for name, text in texts.items() if text}
    if len(set(said.values())) < 2:
        return next(iter(said.values()), "")
    return "\n\n".join(f"{name}: {text}" for name, text in said.items())
