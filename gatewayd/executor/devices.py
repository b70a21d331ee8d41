"""
``CUDA_VISIBLE_DEVICES=RR``: the replicas of an executor take turns in seeing one GPU each.

    RR                all GPUs of the machine
    RR1:  RR0:2  RR-2:  RR0:4:2     those of a slice of them
    RR2,0  RRGPU-1ad9,GPU-8f0c  RR1  those that are named

The first replica sees the first one. The replicas of each shard begin anew, as in the reference [run]. Other
values are CUDA's own, and kept.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, MutableMapping, Sequence
from typing import Final

log = logging.getLogger(__name__)

VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
_IN_TURNS: Final = "RR"
_LISTING: Final = ("nvidia-smi", "-L")
_LISTING_S: Final = 20.0


def take_turns(environ: MutableMapping[str, str], replica: int, count: Callable[[], int]) -> None:
    """
    Replace a value that begins with ``RR`` by the device of one replica. ``count()`` is that of all GPUs.

    Of a machine without GPUs only named devices are known; the value is kept for others, and CUDA sees none.
    Raises ValueError for a value that is no slice, or chooses no device.
    """
    value = environ.get(VARIABLE, "")
    if not value.startswith(_IN_TURNS):
        return
    chosen = value.removeprefix(_IN_TURNS).strip()
    if chosen and ":" not in chosen:
        devices: Sequence[object] = [name.strip() for name in chosen.split(",") if name.strip()]
        there = "no device is named"
    else:
        part, total = _slice(chosen, value), count()
        if total == 0:
            log.warning("%s is %s, but nvidia-smi lists no GPU: none is visible", VARIABLE, value)
            return
        devices, there = range(total)[part], f"none of the GPUs 0 to {total - 1} is chosen"
    if not devices:
        raise ValueError(f"{VARIABLE} is {value}: {there}")
    environ[VARIABLE] = str(devices[replica % len(devices)])


def gpu_count() -> int:
    """How many GPUs nvidia-smi lists; 0 where there is none. It may take seconds."""
    try:
        listed = subprocess.run(_LISTING, capture_output=True, text=True, timeout=_LISTING_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("nvidia-smi cannot be asked for GPUs: %s", error)
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _slice(chosen: str, value: str) -> slice:
    try:
        found = slice(*(int(bound) if bound.strip() else None for bound in (chosen or ":").split(":")))
        found.indices(0)  # a step of 0 is an error only here
        return found
    except (TypeError, ValueError):
        raise ValueError(
            f"{VARIABLE} is {value}: after RR a slice is wanted, such as 0:2, or names, such as 0,2"
        ) from None
