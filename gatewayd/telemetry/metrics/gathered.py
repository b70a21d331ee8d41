"""Metrics that executors expose, taken in: texts of Prometheus's format to families (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

# What tells replicas apart, in the reference's metrics and in ours.
RUNTIME_NAME: Final = "runtime_name"


def gathered(texts: Iterable[tuple[str, str]]) -> list[Family]:
    """
    The families of several executors, each pair its runtime name and its text.

    Families of one name become one; samples get the runtime name as a label unless they have it. A text that
    cannot be parsed is left out, and so is a family whose kind is another than that of an earlier one.
    """
    found: dict[str, Family] = {}
    for runtime_name, text in texts:
        try:
            families = list(text_string_to_metric_families(text))
        except ValueError:
            continue
        for family in families:
            known = found.setdefault(family.name, Family(family.name, family.documentation, family.type))
            if known.type == family.type:
                for name, labels, value, *_ in family.samples:
                    known.add_sample(name, {RUNTIME_NAME: runtime_name, **labels}, value)
    return list(found.values())


def merged(families: Iterable[Family]) -> list[Family]:
    """Families of one name as one; one whose kind is another than that of an earlier one is left out."""
    found: dict[str, Family] = {}
    for family in families:
        known = found.get(family.name)
        if known is None:
            found[family.name] = family
        elif known.type == family.type:
            known.samples.extend(family.samples)
    return list(found.values())
