"""
Which Deployment needs which, worked out once for all requests.

A Topology is made from the config, never changes, and is shared by every request's Traversal. Per
request only indices into its ``nodes`` are kept elsewhere.

One node gives the client's answer: the last Deployment of the Flow that is not floating. Whatever it
does not depend on runs in the background: the client does not wait for it (spec dispatch.md, Inputs).
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping, Sequence

import attrs

from gatewayd.config.model import DeploymentConfig
from gatewayd.messages.formats import When

START = "gateway"

# Stands for the request itself where else the index of a node is.
REQUEST = -1


@attrs.frozen(eq=False)
class Node:
    """
    A Deployment's place in the Topology.

    ``index`` counts from 0 in the order of the Flow file. ``parts`` is how many inputs it waits for:
    one from each Deployment it needs, and one for the gateway itself where it needs that too.
    ``background`` says that the client's answer does not depend on it; it may wait for it all the same
    (``collected``).

    ``needs`` are the indexes of what it waits for, in the order of its ``needs``. For a join ``forks`` has
    for each of those the last node before it whose outcome an earlier one has in it, too: what is different
    from that, the branch has done. With ``is_fork`` a node is one of those of some join.
    """

    index: int
    name: str
    parts: int
    successors: tuple[Node, ...]
    when: When | None
    no_reduce: bool
    answers: bool
    background: bool
    collected: bool = False
    needs: tuple[int, ...] = ()
    forks: tuple[int, ...] = ()
    is_fork: bool = False

    @property
    def is_last(self) -> bool:
        """Whether its outcome is the client's answer, and goes nowhere else."""
        return self.answers and not self.successors


@attrs.frozen(eq=False)
class Topology:
    """
    The nodes of a Flow.

    ``origins`` start with the request itself. ``route_order`` is depth first from each origin, every
    node once, so that a join stands behind its first branch. ``answering`` is None when the Flow has only
    floating Deployments, or none at all: then a request is answered with itself. With ``reads_documents``
    some are selected or merged on the way.
    """

    nodes: tuple[Node, ...] = ()
    origins: tuple[Node, ...] = ()
    route_order: tuple[Node, ...] = ()
    answering: Node | None = None
    has_conditions: bool = False
    has_collected: bool = False
    reads_documents: bool = False

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
        indexes = {START: REQUEST, **{each.name: index for index, each in enumerate(deployments)}}
        forks = _forks(needs, order)
        all_forks = {name for names in forks.values() for name in names}
        nodes: dict[str, Node] = {}
        for name in reversed(order):  # successors first: a frozen node must find them made
            index, config = configs[name]
            nodes[name] = Node(
                index=index,
                name=name,
                parts=len(needs[name]),
                successors=tuple(nodes[follower] for follower in followers[name]),
                when=None if config.when is None else When(name, config.when),
                no_reduce=config.no_reduce,
                answers=name == answering,
                background=name not in awaited,
                collected=config.collected and name not in awaited,
                needs=tuple(indexes[before] for before in needs[name]),
                forks=tuple(indexes[fork] for fork in forks[name]),
                is_fork=name in all_forks,
            )
        origins = tuple(nodes[name] for name in followers[START])
        return cls(
            nodes=tuple(nodes[each.name] for each in deployments),
            origins=origins,
            route_order=tuple(_depth_first(origins)),
            answering=None if answering is None else nodes[answering],
            has_conditions=any(node.when is not None for node in nodes.values()),
            has_collected=any(node.collected for node in nodes.values()),
            reads_documents=any(node.when is not None or node.parts > 1 for node in nodes.values())
            or any(each.shards > 1 and not each.external for each in deployments),
        )


def _needs(deployments: Sequence[DeploymentConfig]) -> dict[str, tuple[str, ...]]:
    # A name that is needed twice is one need: an answer arrives once.
    return {each.name: tuple(dict.fromkeys(each.needs)) or (START,) for each in deployments}


def _sorted(needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Every Deployment behind all that it needs."""
    return [name for name in graphlib.TopologicalSorter(needs).static_order() if name != START]


def _forks(needs: Mapping[str, tuple[str, ...]], order: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """For each join, and each that it needs, the last in ``order`` that is in an earlier one's past, too."""
    past: dict[str, set[str]] = {START: {START}}
    for name in order:
        past[name] = {name}.union(*(past[before] for before in needs[name]))
    place = {START: -1, **{name: index for index, name in enumerate(order)}}
    found: dict[str, tuple[str, ...]] = {}
    for name, wanted in needs.items():
        # The first of them is what the others are merged into.
        forks, earlier = [wanted[0]], set(past[wanted[0]])
        for before in wanted[1:]:
            forks.append(max(past[before] & earlier, key=place.__getitem__))
            earlier |= past[before]
        found[name] = tuple(forks) if len(wanted) > 1 else ()
    return found


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
