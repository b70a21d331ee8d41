"""What operators are told of Ray's failures (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

# Of what is shown: nodes of a cluster, and lines of a log.
_MOST_NODES: Final = 10
_MOST_LINES: Final = 15
_MISMATCH: Final = "Version mismatch:"
# Ray's words for what its options are called in Flow files.
_KEYS = {"CPU": "num_cpus", "GPU": "num_gpus"}


def not_installed(error: ImportError) -> str:
    """Ray cannot be imported."""
    return f"placement: ray needs Ray, which cannot be imported here ({error}): pip install 'gatewayd[ray]'"


def unreachable(address: str, error: object) -> str:
    """The cluster cannot be connected to, or not with this Ray, or this Python."""
    if _MISMATCH in str(error):
        versions = " ".join(str(error).partition(_MISMATCH)[2].split())
        return (
            f"the Ray cluster at {address} has another Ray or Python than the gateway: {versions}. Install "
            "the same here, or there"
        )
    last = _last_line(error)
    what = f"no Ray cluster answers at {address}"
    if address == "auto":
        what = "no Ray cluster runs on this machine"
    return (
        f"{what}: {last or 'it did not answer in time'}. Start one with `ray start --head`, give another "
        "ray: {address: ...} in the Flow's with, or address: local for one that is started with the gateway"
    )


def no_node_here(address: str) -> str:
    """The cluster is there, and this machine is no part of it."""
    host = address.rpartition(":")[0]
    return (
        f"a Ray cluster answers at {address}, but no node of it runs on this machine: start one here with "
        f"`ray start --address={address}`, or give ray: {{address: 'ray://{host}:10001'}} in the Flow's with "
        "(Ray's client)"
    )


def disconnected(address: str, error: object) -> str:
    """The connection to the cluster was there, and has ended."""
    return f"the connection to the Ray cluster at {address} has ended: {_last_line(error)}. Another is made"


def refused(error: object) -> str:
    """Ray does not accept what it is to connect with."""
    return f"Ray refuses the cluster of this Flow (ray: in its with): {_last_line(error)}"


def not_started(error: object) -> str:
    """The cluster that is to start with the gateway does not."""
    return (
        f"Ray could not start a cluster on this machine (ray: {{address: local}}): {_last_line(error)}. "
        "It takes some 200 MB of memory, and object_store_memory of /dev/shm"
    )


def demand_of(options: Mapping[str, float]) -> dict[str, float]:
    """What is asked for, by Ray's names, without what is 0."""
    return {name: amount for name, amount in options.items() if amount}


@attrs.frozen
class Node:
    """One that lives: what it ``has``, and what of that is ``free``, None if Ray does not tell."""

    address: str
    has: Mapping[str, float]
    free: Mapping[str, float] | None = None

    def words(self, names: Iterable[str]) -> str:
        """What it has of what is asked for."""
        has = {name: self.has.get(name, 0) for name in names}
        if self.free is None:
            return f"{self.address}: {_amounts(has)}"
        free = self.free
        amounts = (
            f"{_KEYS.get(name, name)} {_amount(name, free.get(name, 0))} of {_amount(name, has[name])}"
            for name in has
        )
        return f"{self.address}: {', '.join(amounts)}"


def lacking(demand: Mapping[str, float], nodes: Sequence[Node]) -> str:
    """Why a replica is not placed: no node is large enough, all that are have no room, it starts slowly."""
    if not nodes:
        return "the cluster has no node"
    asked = _amounts(demand)
    if not any(_covers(each.has, demand) for each in nodes):
        plain = [attrs.evolve(each, free=None) for each in nodes]
        return (
            f"no node of the cluster has {asked} ({_of_nodes(plain, demand)}). Add one that has, or ask for "
            "less (ray: in the executor)"
        )
    if any(each.free is not None and _covers(each.free, demand) for each in nodes):
        return (
            f"there is room for {asked}, and Ray is still starting its process: building a runtime "
            "environment takes its time, and so does a busy node"
        )
    return (
        f"it waits for a node with {asked} free: all that have as much are busy "
        f"({_of_nodes(nodes, demand)}). End other work, add a node, or ask for less (ray: in the executor)"
    )


def _covers(has: Mapping[str, float], demand: Mapping[str, float]) -> bool:
    return all(has.get(name, 0) >= amount for name, amount in demand.items())


def _of_nodes(nodes: Sequence[Node], demand: Mapping[str, float]) -> str:
    left = f"; and {len(nodes) - _MOST_NODES} more" if len(nodes) > _MOST_NODES else ""
    return "; ".join(each.words(demand) for each in nodes[:_MOST_NODES]) + left


def no_environment(error: object) -> str:
    """The runtime environment could not be built; the last lines of what was tried are in it."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    last = "\n".join(lines[-_MOST_LINES:]) or repr(error)
    return (
        f"Ray could not build its runtime environment (runtime_env), and starts no process without:\n{last}"
    )


def died(error: object) -> str:
    """The actor has ended without having been asked to."""
    text = " ".join(str(error).split())
    reason = text.partition("The actor is dead because ")[2] or text
    return f"its actor has died: {reason[:300]}"


def failed(error: object) -> str:
    """What the actor itself does has failed."""
    if "No module named 'gatewayd'" in str(error):
        return (
            "the Python of its node has no gatewayd: pip install 'gatewayd[executor]' on all nodes, with the "
            "docarray that the executor is written for"
        )
    return str(error) or repr(error)


def owned(namespace: str) -> str:
    """Another gateway has the detached replicas."""
    return (
        f"another gateway keeps the detached replicas of the namespace {namespace}: stop it, or give this "
        "Flow a namespace of its own, ray: {namespace: ...} in its with"
    )


def _last_line(error: object) -> str:
    return str(error).strip().rpartition("\n")[2]


def _amounts(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{_KEYS.get(name, name)} {_amount(name, each)}" for name, each in amounts.items()) or (
        "nothing"
    )


def _amount(name: str, amount: float) -> str:
    """Memory is in bytes, everything else is counted."""
    return f"{amount / 2**30:.3g} GiB" if name == "memory" else f"{amount:g}"
