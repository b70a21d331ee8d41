"""
Which Deployment needs which, worked out once for all requests.

A Topology is made from the config, never changes, and is shared by every request's Traversal. Per
request only indices into its ``nodes`` are kept elsewhere.

One node gives the client's answer: the last Deployment of the Flow that is not floating. Whatever it
does not depend on runs in the background: the client does not wait for it (spec dispatch.md, Inputs).
"""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from gatewayd.config.model import DeploymentConfig
from gatewayd.errors import ConfigError
from gatewayd.messages.conditions import compile_condition
from gatewayd.pb import DocumentProto

START = "gateway"

Condition = Callable[[DocumentProto], bool]


@attrs.frozen(eq=False)
class Node:
    """
    A Deployment's place in the Topology.

    ``index`` counts from 0 in the order of the Flow file. ``parts`` is how many inputs it waits for:
    one from each Deployment it needs, and one for the gateway itself where it needs that too.
    ``background`` says that the client's answer does not depend on it.
    """

    index: int
    name: str
    parts: int
    successors: tuple[Node, ...]
    condition: Condition | None
    no_reduce: bool
    answers: bool
    background: bool


@attrs.frozen(eq=False)
class Topology:
    """
    The nodes of a Flow.

    ``origins`` start with the request itself. ``route_order`` is depth first from each origin, every
    node once, so that a join stands behind its first branch. ``answering`` is None when the Flow has only
    floating Deployments, or none at all: then a request is answered with itself.
    """

    nodes: tuple[Node, ...] = ()
    origins: tuple[Node, ...] = ()
    route_order: tuple[Node, ...] = ()
    answering: Node | None = None
    has_conditions: bool = False

    @classmethod
    def from_deployments(cls, deployments: Sequence[DeploymentConfig]) -> Topology:
        """
        Work out the order. A Deployment without ``needs`` needs the gateway.

        Raises ConfigError for a name that is used twice or unknown, for Deployments that need each
        other in a circle, and for a ``when`` that is not a valid query.
        """
        needs = _needs(deployments)
        order = _sorted(needs)
        followers: dict[str, list[str]] = {name: [] for name in (START, *needs)}
        for name, wanted in needs.items():
            for before in wanted:
                followers[before].append(name)
        answering = next((each.name for each in reversed(deployments) if not each.floating), None)
        awaited = _behind(needs, answering)

        configs = {each.name: (index, each) for index, each in enumerate(deployments)}
        nodes: dict[str, Node] = {}
        for name in reversed(order):  # successors first: a frozen node must find them made
            index, config = configs[name]
            nodes[name] = Node(
                index=index,
                name=name,
                parts=len(needs[name]),
                successors=tuple(nodes[follower] for follower in followers[name]),
                condition=_condition(config),
                no_reduce=config.no_reduce,
                answers=name == answering,
                background=name not in awaited,
            )
        origins = tuple(nodes[name] for name in followers[START])
        return cls(
            nodes=tuple(nodes[each.name] for each in deployments),
            origins=origins,
            route_order=tuple(_depth_first(origins)),
            answering=None if answering is None else nodes[answering],
            has_conditions=any(node.condition is not None for node in nodes.values()),
        )


def _needs(deployments: Sequence[DeploymentConfig]) -> dict[str, tuple[str, ...]]:
    names = [each.name for each in deployments]
    needs: dict[str, tuple[str, ...]] = {}
    for each in deployments:
        if each.name == START or each.name in needs:
            raise ConfigError(f"executors: the name {each.name!r} stands twice; give each executor its own")
        # A name given twice is one need: an answer arrives once.
        needs[each.name] = tuple(dict.fromkeys(each.needs)) or (START,)
        for wanted in needs[each.name]:
            if wanted != START and wanted not in names:
                accepted = ", ".join((START, *(name for name in names if name != each.name)))
                raise ConfigError(f"executors.{each.name}.needs: {wanted!r} is not one of {accepted}")
    return needs


def _sorted(needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Every Deployment behind all that it needs."""
    try:
        order = graphlib.TopologicalSorter(needs).static_order()
        return [name for name in order if name != START]
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]
        text = ", ".join(f"{name} needs {wanted}" for wanted, name in itertools.pairwise(circle))
        raise ConfigError(f"executors: they wait for each other in a circle: {text}") from error


def _behind(needs: Mapping[str, tuple[str, ...]], answering: str | None) -> set[str]:
    """``answering`` and all that it depends on."""
    found: set[str] = set()
    ahead = [] if answering is None else [answering]
    while ahead:
        name = ahead.pop()
        if name != START and name not in found:
            found.add(name)
            ahead += needs[name]
    return found


def _condition(config: DeploymentConfig) -> Condition | None:
    if config.when is None:
        return None
    try:
        return compile_condition(config.when)
    except ValueError as error:
        raise ConfigError(f"executors.{config.name}.when: {error}") from error


def _depth_first(origins: tuple[Node, ...]) -> Iterator[Node]:
    seen: set[int] = set()
    ahead = list(reversed(origins))
    while ahead:
        node = ahead.pop()
        if node.index not in seen:
            seen.add(node.index)
            yield node
            ahead += reversed(node.successors)
