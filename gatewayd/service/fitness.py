"""
What can be wrong with a graph that shows only when its executors have told of themselves.

It is looked at when a Flow starts, and before a reload has a new graph serve.
"""

from __future__ import annotations

from gatewayd.bounded_log import BoundedLogger
from gatewayd.config.recording import RecordConfig
from gatewayd.dispatch.topology import Topology
from gatewayd.errors import ConfigError
from gatewayd.messages.chaining import check_chains
from gatewayd.messages.formats import UnfitCondition
from gatewayd.pool.pool import Pool

log = BoundedLogger()


def check_fitness(topology: Topology, pool: Pool) -> None:
    """
    Warn of executors that are passed over by those behind which they stand.

    Raises ConfigError if executors speak different generations of documents, if chained ones do not take each
    other's documents, or if documents have no fields that a ``when`` asks for.
    """
    if disagreement := pool.disagreement():
        raise ConfigError(disagreement)  # which the others would be consequences of
    problems: list[str] = []
    edges = [(node.name, after.name) for node in topology.nodes for after in node.successors]
    found = check_chains(pool.told(), edges)
    problems += found.misfits
    if pool.endpoints().generation is not None:
        for node in topology.nodes:
            try:
                if node.when is not None:
                    node.when.condition(pool.format)
            except UnfitCondition as error:
                problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(problems))
    for text in found.passed_over:
        log.warn("{text}", text=text)


def check_redaction(record: RecordConfig | None, pool: Pool) -> None:
    """Warn of rules by which nothing is left out of the recording, as far as executors tell."""
    if record is None or not record.redact:
        return
    # Few gateways record, and it reads schemas.
    from gatewayd.messages.redactable import findless

    for text in findless(record.redact, pool.told(), pool.endpoints().generation):
        log.warn("gateway.record.redact: {text}", text=text)
