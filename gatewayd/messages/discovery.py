"""The endpoints that executors bind, as far as they have told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

# Answers whatever else the executor does not bind.
DEFAULT: Final = "/default"
# Every executor answers it, and none binds it: it is no user's.
DRY_RUN: Final = "_jina_dry_run_"

# Endpoints with the docstrings of their methods, empty where there is none.
Described = Mapping[str, str]


@attrs.frozen
class Endpoints:
    """
    ``bound`` are those that some executor is known to bind, in the order of the Flow, without the dry run.

    ``unknown`` names the Deployments of which it is not known what they bind.
    """

    bound: Described = attrs.field(factory=dict)
    unknown: tuple[str, ...] = ()


def united(told: Iterable[Described]) -> Described | None:
    """What several executors of one Deployment bind; None if ``told`` is empty."""
    found: dict[str, str] | None = None
    for described in told:
        if found is None:
            found = dict(described)
        else:
            for endpoint, text in described.items():
                found[endpoint] = found.get(endpoint) or text
    return found


def of_flow(deployments: Mapping[str, Described | None]) -> Endpoints:
    """What Deployments bind, by their names in the order of the Flow; None for one that has not told yet."""
    docstrings: dict[str, dict[str, str]] = {}
    for name, described in deployments.items():
        for endpoint, text in (described or {}).items():
            if endpoint != DRY_RUN:
                docstrings.setdefault(endpoint, {})[name] = text
    bound = {endpoint: _joined(texts) for endpoint, texts in docstrings.items()}
    return Endpoints(bound, tuple(name for name, described in deployments.items() if described is None))


def _joined(texts: Mapping[str, str]) -> str:
    """What one endpoint's methods say of themselves; of several Deployments each with its name."""
    said = {name: text for name, text in texts.items() if text}
    if len(set(said.values())) < 2:
        return next(iter(said.values()), "")
    return "\n\n".join(f"{name}: {text}" for name, text in said.items())
