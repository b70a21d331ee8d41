"""Topologies: what follows what, who answers, and what is refused."""

from __future__ import annotations

from gatewayd.config import DeploymentConfig
from gatewayd.dispatch.topology import Topology
from tests.dispatch.fakes import CHAIN, DIAMOND, deployment


def test_a_join_stands_behind_its_first_branch_in_the_routes() -> None:
    topology = Topology.from_deployments(DIAMOND)
    assert [node.name for node in topology.route_order] == ["a", "c", "b"]
    assert [node.parts for node in topology.nodes] == [1, 1, 2]


def test_the_last_deployment_that_is_not_floating_answers() -> None:
    topology = Topology.from_deployments((*CHAIN, deployment("d", "a", floating=True)))
    assert topology.answering is not None
    assert topology.answering.name == "c"
    assert [node.name for node in topology.nodes if node.background] == ["d"]


def test_a_leaf_before_the_last_deployment_runs_in_the_background() -> None:
    topology = Topology.from_deployments((deployment("a"), deployment("leaf", "a"), deployment("b", "a")))
    assert [node.name for node in topology.nodes if node.background] == ["leaf"]


def test_a_floating_deployment_that_the_answer_needs_is_waited_for() -> None:
    topology = Topology.from_deployments((deployment("a", floating=True), deployment("b", "a")))
    assert not any(node.background for node in topology.nodes)


def test_a_deployment_listed_before_what_it_needs_follows_it() -> None:
    topology = Topology.from_deployments((deployment("b", "a"), deployment("a"), deployment("c", "b")))
    assert [node.name for node in topology.route_order] == ["a", "b", "c"]


def test_a_name_needed_twice_is_one_part() -> None:
    topology = Topology.from_deployments((deployment("a"), deployment("b", "a", "a", "gateway")))
    assert topology.nodes[1].parts == 2


def test_needing_nothing_is_needing_the_gateway() -> None:
    topology = Topology.from_deployments([DeploymentConfig("a", needs=())])
    assert [node.name for node in topology.origins] == ["a"]


def test_an_empty_flow_has_no_answering_deployment() -> None:
    assert Topology.from_deployments(()).answering is None
