"""
Which Deployment needs which, worked out once for all requests.

A Topology is made from the config, never changes, and is shared by every request's Traversal. Per
request only indices into its ``nodes`` are kept elsewhere.

One node gives the client's answer: the last Deployment of the Flow that is not floating. Whatever it
does not depend on runs in the background: the client does not wait for it (spec dispatch.md, Inputs).
"""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from gatewayd.config.model import DeploymentConfig
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
    ``background`` says that the client's answer does not depend on it; it may wait for it all the same
    (``collected``).
    """

    index: int
    name: str
    parts: int
    successors: tuple[Node, ...]
    condition: Condition | None
    no_reduce: bool
    answers: bool
    background: bool
    collected: bool = False


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
    has_collected: bool = False

    @classmethod
    def from_deployments(cls, deployments: Sequence[DeploymentConfig]) -> Topology:
        """
        Work out the order. A Deployment without ``needs`` needs the gateway.

        ``deployments`` are those of a checked config: names are unique and known, and none need each other
        in a circle (``gatewayd.config.graph``).
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
                condition=None if config.when is None else compile_condition(config.when),
                no_reduce=config.no_reduce,
                answers=name == answering,
                background=name not in awaited,
                collected=config.collected and name not in awaited,
            )
        origins = tuple(nodes[name] for name in followers[START])
        return cls(
            nodes=tuple(nodes[each.name] for each in deployments),
            origins=origins,
            route_order=tuple(_depth_first(origins)),
            answering=None if answering is None else nodes[answering],
            has_conditions=any(node.condition is not None for node in nodes.values()),
            has_collected=any(node.collected for node in nodes.values()),
        )


def _needs(deployments: Sequence[DeploymentConfig]) -> dict[str, tuple[str, ...]]:
    # A name that is needed twice is one need: an answer arrives once.
    return {each.name: tuple(dict.fromkeys(each.needs)) or (START,) for each in deployments}


def _sorted(needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Every Deployment behind all that it needs."""
    return [name for name in graphlib.TopologicalSorter(needs).static_order() if name != START]


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


def _depth_first(origins: tuple[Node, ...]) -> Iterator[Node]:
    seen: set[int] = set()
    ahead = list(reversed(origins))
    while ahead:
        node = ahead.pop()
        if node.index not in seen:
            seen.add(node.index)
            yield node
            ahead += reversed(node.successors)
