"""
Whether a gateway is alive, has started, and can serve: decided here, for every port and protocol (pure).

The words are those of Kubernetes' probes. What is alive answers at all; what has started has had every
executor serve once; what is ready can serve a request now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Literal

import attrs

Phase = Literal["starting", "serving", "draining", "stopping"]

LIVE: Final = "/livez"
READY: Final = "/readyz"
STARTED: Final = "/startupz"
PROBES: Final = (LIVE, READY, STARTED)

_NOT_SERVING: Final[Mapping[Phase, str]] = {
    "starting": "not every executor has served yet",
    "draining": "the gateway is about to stop, and serves on for a moment",
    "stopping": "the gateway is stopping",
}


@attrs.frozen
class Part:
    """
    One Deployment, or one shard of it, or an executor before or after its shards.

    ``connected`` counts the replicas that can be called now; clients wait for what is ``needed``.
    ``why`` says what keeps replicas from being called that are there. One that ``rests`` has none, because no
    request needs one; it can serve all the same.
    """

    deployment: str
    shard: int
    connected: int
    needed: bool = True
    why: str = ""
    rests: bool = False

    @property
    def serves(self) -> bool:
        """Whether it can answer a request."""
        return self.connected > 0 or self.rests


@attrs.frozen
class Health:
    """
    What is known of a gateway. ``workers`` are those that serve, and those that are to; None without.

    ``has_started`` stays true once it was.
    """

    phase: Phase
    has_started: bool
    parts: tuple[Part, ...] = ()
    workers: tuple[int, int] | None = None


@attrs.frozen
class Reason:
    """Why a probe fails: one of a few words, and a sentence that may name a Deployment."""

    reason: Literal["starting", "draining", "stopping", "no_replica", "other_generation", "no_worker"]
    detail: str
    deployment: str | None = None
    shard: int | None = None


@attrs.frozen
class Verdict:
    """The answer to one probe."""

    ok: bool
    reasons: tuple[Reason, ...] = ()

    def as_json(self, *, withheld: bool = False) -> dict[str, Any]:
        """As probes answer it. ``withheld`` leaves out what is inside: names and sentences."""
        reasons = [
            {"reason": each.reason}
            if withheld
            else {key: value for key, value in attrs.asdict(each).items() if value is not None}
            for each in self.reasons
        ]
        return {"ok": self.ok, "reasons": reasons}


def verdict_of(probe: str, health: Health) -> Verdict:
    """What ``probe``, one of PROBES, finds."""
    if probe == LIVE:
        return Verdict(True)
    if probe == STARTED:
        return Verdict(True) if health.has_started else _because(_phase_reason("starting"))
    if health.phase != "serving":
        return _because(_phase_reason(health.phase))
    if health.workers is not None and not health.workers[0]:
        return _because(Reason("no_worker", f"none of the {health.workers[1]} workers serves"))
    return _because(*(_lacking(part) for part in health.parts if part.needed and not part.serves))


def serving_by_name(health: Health, flow: str | None) -> dict[str, bool]:
    """Each Deployment by its name, and the Flow by its own if it has one, for gRPC's health service."""
    found: dict[str, bool] = {}
    for part in health.parts:
        name = _owner(part.deployment)
        found[name] = found.get(name, True) and part.serves
    if flow is not None:
        found[flow] = not any(part.needed and not part.serves for part in health.parts)
    return found


def _because(*reasons: Reason) -> Verdict:
    return Verdict(not reasons, reasons)


def _phase_reason(phase: Phase) -> Reason:
    assert phase != "serving", phase
    return Reason(phase, _NOT_SERVING[phase])


def _lacking(part: Part) -> Reason:
    what = f"shard {part.shard} of {part.deployment}" if part.shard else part.deployment
    if part.why:
        detail = f"no replica of {what} is called: {part.why}"
        return Reason("other_generation", detail, part.deployment, part.shard)
    return Reason("no_replica", f"no replica of {what} is connected", part.deployment, part.shard)


def parts_of(
    connected: Mapping[tuple[str, int], int],
    optional: Iterable[str],
    why: Mapping[tuple[str, int], str] | None = None,
    expected: Collection[tuple[str, int]] = (),
) -> tuple[Part, ...]:
    """
    The parts of a Flow by (Deployment, shard), with how many of their replicas are connected.

    ``why`` is what keeps those of some from being called. No answer waits for the Deployments named in
    ``optional``. Those that are ``expected`` have no replica until a request needs one. The executors before
    and after the shards of one (``config.heads``) are needed as it is.
    """
    floating = frozenset(optional)
    return tuple(
        Part(
            name,
            shard,
            count,
            _owner(name) not in floating,
            (why or {}).get((name, shard), ""),
            (name, shard) in expected,
        )
        for (name, shard), count in connected.items()
    )


def _owner(name: str) -> str:
    return name.partition("/")[0]
