"""The memory and CPU time of processes, as the system tells them. It reads files: offload it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

import attrs
from prometheus_client import ProcessCollector

K = TypeVar("K", bound=Hashable)


@attrs.frozen
class Usage:
    """What one process has and has used until now."""

    memory_bytes: float
    cpu_s: float


def usage_of(pids: Mapping[K, int]) -> dict[K, Usage]:
    """That of each process that is there; of none, where the system has no /proc."""
    found: dict[K, Usage] = {}
    pid = 0
    collector = ProcessCollector(pid=lambda: pid, registry=None)
    for key, pid in pids.items():  # noqa: B007
        samples = {sample.name: sample.value for family in collector.collect() for sample in family.samples}
        if "process_resident_memory_bytes" in samples:
            found[key] = Usage(samples["process_resident_memory_bytes"], samples["process_cpu_seconds_total"])
    return found
