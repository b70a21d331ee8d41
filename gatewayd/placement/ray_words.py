"""What operators are told of Ray's failures (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Ray's words for what its options are called in Flow files.
_KEYS = {"CPU": "num_cpus", "GPU": "num_gpus"}


def not_installed(error: ImportError) -> str:
    """Ray cannot be imported."""
    return f"placement: ray needs Ray, which cannot be imported here ({error}): pip install 'gatewayd[ray]'"


def unreachable(address: str, error: object) -> str:
    """The cluster cannot be connected to."""
    last = str(error).strip().rpartition("\n")[2]
    what = f"no Ray cluster answers at {address}"
    if address == "auto":
        what = "no Ray cluster runs on this machine"
    return (
        f"{what}: {last or 'it did not answer in time'}. Start one with `ray start --head`, give another "
        "ray: {address: ...} in the Flow's with, or address: local for one that is started with the gateway"
    )


def demand_of(options: Mapping[str, float]) -> dict[str, float]:
    """What is asked for, by Ray's names, without what is 0."""
    return {name: amount for name, amount in options.items() if amount}


def lacking(demand: Mapping[str, float], nodes: Iterable[tuple[str, Mapping[str, float]]]) -> str:
    """
    Why a replica is not placed: no node is large enough, or those that are have no room.

    ``nodes`` are the addresses of those that live, each with all that it has.
    """
    there = list(nodes)
    if not there:
        return "the cluster has no node"
    asked = _amounts(demand)
    if any(all(has.get(name, 0) >= amount for name, amount in demand.items()) for _, has in there):
        return (
            f"it waits for a node with {asked} free: all that have as much are busy. End other work, add a "
            "node, or ask for less (ray: in the executor)"
        )
    names = demand.keys()
    have = "; ".join(
        f"{address}: {_amounts({name: has.get(name, 0) for name in names})}" for address, has in there[:10]
    )
    return (
        f"no node of the cluster has {asked} ({have}). Add one that has, or ask for less "
        "(ray: in the executor)"
    )


def no_environment(error: object) -> str:
    """The runtime environment could not be built."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        "Ray could not build its runtime environment (runtime_env), and starts no process without: "
        f"{lines[-1] if lines else error}"
    )


def died(error: object) -> str:
    """The actor has ended without having been asked to."""
    text = " ".join(str(error).split())
    reason = text.partition("The actor is dead because ")[2] or text
    return f"its actor has died: {reason[:300]}"


def owned(namespace: str) -> str:
    """Another gateway has the detached replicas."""
    return (
        f"another gateway keeps the detached replicas of the namespace {namespace}: stop it, or give this "
        "Flow a namespace of its own, ray: {namespace: ...} in its with"
    )


def _amounts(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{_KEYS.get(name, name)} {amount:g}" for name, amount in amounts.items()) or "nothing"
