"""What operators are told of Ray's failures."""

from __future__ import annotations

from gatewayd.placement import ray_words
from gatewayd.placement.ray_words import Node

NODES = [
    Node("10.0.0.1", {"CPU": 4.0}, {"CPU": 1.0}),
    Node("10.0.0.2", {"CPU": 8.0, "disk": 1.0}, {"CPU": 4.0}),
]


def test_what_no_node_has_is_compared_with_what_they_have() -> None:
    assert ray_words.lacking({"CPU": 1.0, "GPU": 2.0}, NODES) == (
        "no node of the cluster has num_cpus 1, num_gpus 2 (10.0.0.1: num_cpus 4, num_gpus 0; "
        "10.0.0.2: num_cpus 8, num_gpus 0). Add one that has, or ask for less (ray: in the executor)"
    )


def test_what_is_taken_is_waited_for_and_what_there_is_is_told() -> None:
    assert ray_words.lacking({"CPU": 8.0, "disk": 1.0}, NODES).startswith(
        "it waits for a node with num_cpus 8, disk 1 free: all that have as much are busy "
        "(10.0.0.1: num_cpus 1 of 4, disk 0 of 0; 10.0.0.2: num_cpus 4 of 8, disk 0 of 1)."
    )


def test_memory_is_told_in_gib() -> None:
    (node,) = [Node("10.0.0.1", {"memory": 2.5 * 2**30}, {"memory": 2.0**30})]
    assert "no node of the cluster has memory 4 GiB (10.0.0.1: memory 2.5 GiB)" in ray_words.lacking(
        {"memory": 2.0**32}, [node]
    )
    assert "(10.0.0.1: memory 1 GiB of 2.5 GiB)" in ray_words.lacking({"memory": 2.0**31}, [node])


def test_where_there_is_room_it_is_the_start_that_takes_long() -> None:
    assert ray_words.lacking({"CPU": 2.0}, NODES).startswith(
        "there is room for num_cpus 2, and Ray is still starting its process"
    )


def test_of_many_nodes_the_first_are_told() -> None:
    many = [Node(str(number), {}) for number in range(15)]
    assert "; and 5 more" in ray_words.lacking({"GPU": 1.0}, many)
    assert ray_words.lacking({"GPU": 1.0}, []) == "the cluster has no node"


def test_an_address_that_does_not_answer_is_named_with_what_to_do() -> None:
    text = ray_words.unreachable("head:6379", "first\nConnection refused")
    assert text.startswith(
        "no Ray cluster answers at head:6379: Connection refused. Start one with `ray start"
    )
    assert "it did not answer in time" in ray_words.unreachable("auto", "")


def test_another_version_is_named_with_both() -> None:
    error = "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11\nThis process"
    text = ray_words.unreachable("head:6379", error)
    assert text.startswith(
        "the Ray cluster at head:6379 has another Ray or Python than the gateway: The cluster"
    )
    assert "Ray: 2.60.0 Python: 3.11 This process. Install" in text


def test_a_machine_that_is_no_node_is_told_how_to_be_one_or_do_without() -> None:
    text = ray_words.no_node_here("head:6379")
    assert "`ray start --address=head:6379`, or give ray: {address: 'ray://head:10001'}" in text


def test_a_node_without_gatewayd_is_told_from_other_deaths() -> None:
    assert "has no gatewayd: pip install" in ray_words.failed("no import:\nNo module named 'gatewayd'")
    assert ray_words.died("x The actor is dead because its node died.") == (
        "its actor has died: its node died."
    )


def test_an_environment_that_fails_shows_the_last_lines_of_its_log() -> None:
    log = "\n".join(f"line {number}" for number in range(100))
    text = ray_words.no_environment(f"Failed\n{log}\n\nERROR: No matching distribution\n")
    assert text.splitlines()[0].endswith("(runtime_env), and starts no process without:")
    assert text.splitlines()[1] == "line 86"
    assert text.splitlines()[-1] == "ERROR: No matching distribution"


def test_what_ray_refuses_and_a_cluster_that_does_not_start_say_which_key_it_is() -> None:
    assert "(ray: in its with): no such folder" in ray_words.refused("Traceback\nno such folder")
    assert "(ray: {address: local}): no memory" in ray_words.not_started("no memory")


def test_without_ray_the_command_that_installs_it_is_told() -> None:
    assert "pip install 'gatewayd[ray]'" in ray_words.not_installed(ImportError("No module named 'ray'"))
