"""
How a list of executors becomes a graph: names, what each needs, and which of them float (pure).
"""

from __future__ import annotations

import graphlib
from collections.abc import Sequence
from typing import Final

import attrs

from gatewayd.config.model import DeploymentConfig, FlowConfig
from gatewayd.config.problems import Place, suggestion

START: Final = "gateway"

# Of entries without a name; others are numbered.
_NAMES: Final = {"needs": "joiner", "needs_all": "joiner", "inspect": "inspect"}


@attrs.frozen
class Entry:
    """One entry of the list of executors, as written; None for what it leaves out."""

    place: Place
    name: str | None = None
    method: str = "add"
    needs: tuple[str, ...] | None = None
    floating: bool = False


@attrs.frozen
class Joined:
    """One executor's place in the graph."""

    name: str
    needs: tuple[str, ...]
    floating: bool
    collected: bool = False


def connect(entries: Sequence[Entry], *, collect: bool = True) -> list[Joined]:
    """
    A Joined for each entry, in order. The last one that does not float gives the Flow's answer.

    Entries with the method inspect float; with ``collect``, the answer waits for them all the same.

    Problems (invalid or unknown names, circles) are reported at the entries' places; a name that is refused
    is left out of ``needs``.
    """
    names = _names(entries)
    joined: list[Joined] = []
    for index, entry in enumerate(entries):
        inspects = entry.method == "inspect"
        needs = _needs(entry, names, index, joined)
        joined.append(Joined(names[index], needs, entry.floating or inspects, collected=inspects and collect))
    if _has_circle(entries, joined):
        return joined
    return _settle_floating(entries, joined)


def _names(entries: Sequence[Entry]) -> list[str]:
    names: list[str] = []
    for index, entry in enumerate(entries):
        name = entry.name if entry.name is not None else _NAMES.get(entry.method, f"executor{index}")
        if not name.isidentifier():
            entry.place.inside("name").refuse(
                f"name: {name[:80]} is invalid, please follow the python variable name conventions"
            )
        elif name == START or name in ("start-gateway", "end-gateway"):
            entry.place.inside("name").refuse(f"the name {name} is the gateway's own")
        if name in names:
            number = index
            while f"{name}{number}" in names:
                number += 1
            entry.place.warn(f"the name {name} is taken; this executor is called {name}{number}")
            name = f"{name}{number}"
        names.append(name)
    return names


def _needs(entry: Entry, names: Sequence[str], index: int, before: Sequence[Joined]) -> tuple[str, ...]:
    default = next((each.name for each in reversed(before) if not each.floating), START)
    if entry.method == "needs_all":
        return _everything(entry, before) or (default,)
    place = entry.place.inside("needs")
    if not entry.needs:
        if entry.method == "needs":
            place.refuse("method: needs wants a list of at least two names")
        return (default,)
    wanted = tuple(dict.fromkeys(entry.needs))
    if entry.method == "needs" and len(wanted) < 2:
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


def _everything(entry: Entry, before: Sequence[Joined]) -> tuple[str, ...]:
    if entry.needs is not None:
        entry.place.inside("needs").refuse("method: needs_all takes no needs: it waits for all before it")
    needed = {name for each in before if not each.floating for name in each.needs}
    leaves = tuple(each.name for each in before if not each.floating and each.name not in needed)
    if not leaves:
        entry.place.refuse("method: needs_all has no executor before it to wait for")
    return leaves


def _has_circle(entries: Sequence[Entry], joined: Sequence[Joined]) -> bool:
    sorter = graphlib.TopologicalSorter({each.name: each.needs for each in joined})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]
        index = min(index for index, each in enumerate(joined) if each.name in circle)
        # graphlib lists each name before the one that needs it.
        chain = " needs ".join(reversed(circle))
        entries[index].place.inside("needs").refuse(f"these executors need each other: {chain}")
        return True
    return False


def _settle_floating(entries: Sequence[Entry], joined: list[Joined]) -> list[Joined]:
    settled = {each.name: each for each in joined}
    for index, each in enumerate(joined):
        if each.floating and (follower := _awaiting(each.name, joined)):
            entries[index].place.warn(f"floating has no effect here: {follower} needs {each.name}")
            settled[each.name] = attrs.evolve(each, floating=False, collected=False)
    answering = next((name for name in reversed(settled) if not settled[name].floating), None)
    needed = {name for each in joined for name in each.needs}
    for index, each in enumerate(joined):
        if each.name not in needed and each.name != answering and not settled[each.name].floating:
            entries[index].place.warn(
                f"{each.name} floats: no executor needs it, and the Flow's answer is that of {answering}"
            )
            settled[each.name] = attrs.evolve(each, floating=True)
    return list(settled.values())


def _awaiting(name: str, joined: Sequence[Joined]) -> str | None:
    """An executor downstream of ``name`` that does not float itself."""
    ahead, seen = [name], set[str]()
    while ahead:
        current = ahead.pop()
        for each in joined:
            if current in each.needs and each.name not in seen:
                if not each.floating:
                    return each.name
                seen.add(each.name)
                ahead.append(each.name)
    return None


def in_order(deployments: Sequence[DeploymentConfig]) -> tuple[str, ...]:
    """The names of Deployments, each behind all that it needs, and else in the order of the Flow file."""
    needs = {each.name: [name for name in each.needs if name != START] for each in deployments}
    depths: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(needs).static_order():
        depths[name] = 1 + max((depths[before] for before in needs[name]), default=0)
    return tuple(sorted(needs, key=depths.__getitem__))


def graph_description(flow: FlowConfig) -> dict[str, list[str]]:
    """The Flow in the reference's form: each node, ``start-gateway`` first, with its successors."""
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
