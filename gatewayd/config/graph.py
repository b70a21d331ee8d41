"""
How the executors of a list are joined: names, what each needs, and which of them float (pure).
"""

from __future__ import annotations

import graphlib
from collections.abc import Sequence
from typing import Final

import attrs

from gatewayd.config.model import DeploymentConfig, FlowConfig
from gatewayd.config.problems import Place, suggestion

START: Final = "gateway"


@attrs.frozen
class Wish:
    """One executor as it was written; None where it says nothing."""

    place: Place
    name: str | None = None
    method: str = "add"
    needs: tuple[str, ...] | None = None
    floating: bool = False


@attrs.frozen
class Step:
    """One executor in its place."""

    name: str
    needs: tuple[str, ...]
    floating: bool


def connect(wishes: Sequence[Wish]) -> list[Step]:
    """
    A Step for each wish, in order. The last that does not float gives the Flow's answer.

    Problems (bad and unknown names, circles) are reported to the places of the wishes, and stand as
    if the wish had not been made.
    """
    names = _names(wishes)
    steps: list[Step] = []
    for index, wish in enumerate(wishes):
        steps.append(Step(names[index], _needs(wish, names, index, steps), wish.floating))
    if _has_circle(wishes, steps):
        return steps
    return _settle_floating(wishes, steps)


def _names(wishes: Sequence[Wish]) -> list[str]:
    names: list[str] = []
    for index, wish in enumerate(wishes):
        joins = wish.method in ("needs", "needs_all")
        name = wish.name if wish.name is not None else "joiner" if joins else f"executor{index}"
        if not name.isidentifier():
            wish.place.inside("name").refuse(
                f"name: {name[:80]} is invalid, please follow the python variable name conventions"
            )
        elif name == START or name in ("start-gateway", "end-gateway"):
            wish.place.inside("name").refuse(f"the name {name} is the gateway's own")
        if name in names:
            number = index
            while f"{name}{number}" in names:
                number += 1
            wish.place.warn(f"the name {name} is taken; this executor is called {name}{number}")
            name = f"{name}{number}"
        names.append(name)
    return names


def _needs(wish: Wish, names: Sequence[str], index: int, before: Sequence[Step]) -> tuple[str, ...]:
    default = next((step.name for step in reversed(before) if not step.floating), START)
    if wish.method == "needs_all":
        return _everything(wish, before) or (default,)
    place = wish.place.inside("needs")
    if not wish.needs:
        if wish.method == "needs":
            place.refuse("method: needs wants a list of at least two names")
        return (default,)
    wanted = tuple(dict.fromkeys(wish.needs))
    if wish.method == "needs" and len(wanted) < 2:
        place.refuse("method: needs wants at least two names; for one, use the default method")
    known = [START, *names]
    good: list[str] = []
    for name in wanted:
        if name == names[index]:
            place.refuse(f"{name} needs itself: the income/output of a deployment can not be itself")
        elif name not in known:
            others = [each for each in known if each != names[index]]
            near = suggestion(name, others)
            place.refuse(f"no executor is called {name[:80]!r}{near}; accepted: {', '.join(others)}")
        else:
            good.append(name)
    return tuple(good) or (default,)


def _everything(wish: Wish, before: Sequence[Step]) -> tuple[str, ...]:
    if wish.needs is not None:
        wish.place.inside("needs").refuse("method: needs_all takes no needs: it waits for all before it")
    needed = {name for step in before if not step.floating for name in step.needs}
    leaves = tuple(step.name for step in before if not step.floating and step.name not in needed)
    if not leaves:
        wish.place.refuse("method: needs_all has no executor before it to wait for")
    return leaves


def _has_circle(wishes: Sequence[Wish], steps: Sequence[Step]) -> bool:
    sorter = graphlib.TopologicalSorter({step.name: step.needs for step in steps})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]
        index = min(index for index, step in enumerate(steps) if step.name in circle)
        # graphlib lists each name before the one that needs it.
        chain = " needs ".join(reversed(circle))
        wishes[index].place.inside("needs").refuse(f"these executors need each other: {chain}")
        return True
    return False


def _settle_floating(wishes: Sequence[Wish], steps: list[Step]) -> list[Step]:
    settled = {step.name: step for step in steps}
    for index, step in enumerate(steps):
        if step.floating and (follower := _awaiting(step.name, steps)):
            wishes[index].place.warn(f"floating has no effect here: {follower} needs {step.name}")
            settled[step.name] = attrs.evolve(step, floating=False)
    answering = next((name for name in reversed(settled) if not settled[name].floating), None)
    needed = {name for step in steps for name in step.needs}
    for index, step in enumerate(steps):
        if step.name not in needed and step.name != answering and not settled[step.name].floating:
            wishes[index].place.warn(
                f"{step.name} floats: no executor needs it, and the Flow's answer is that of {answering}"
            )
            settled[step.name] = attrs.evolve(step, floating=True)
    return list(settled.values())


def _awaiting(name: str, steps: Sequence[Step]) -> str | None:
    """Somebody behind ``name`` that does not float itself."""
    ahead, seen = [name], set[str]()
    while ahead:
        current = ahead.pop()
        for step in steps:
            if current in step.needs and step.name not in seen:
                if not step.floating:
                    return step.name
                seen.add(step.name)
                ahead.append(step.name)
    return None


def graph_description(flow: FlowConfig) -> dict[str, list[str]]:
    """The Flow in the reference's form: each node, from ``start-gateway`` on, with those that follow it."""
    if not flow.deployments:
        return {}
    answering: DeploymentConfig | None = None
    graph: dict[str, list[str]] = {"start-gateway": []}
    for each in flow.deployments:
        graph[each.name] = []
        answering = answering if each.floating else each
    for each in flow.deployments:
        for name in each.needs:
            graph["start-gateway" if name == START else name].append(each.name)
    if answering is not None:
        graph[answering.name].append("end-gateway")
    return graph
