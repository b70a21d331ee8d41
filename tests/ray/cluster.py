"""
A Ray cluster of three nodes on this machine: `python cluster.py`.

It prints ``cluster ADDRESS``; a line ``kill NODE`` kills one, as a machine that loses its power would be, and
``actors`` has it print the names of all actors that live. It ends with its standard input.
"""

import json
import sys

import ray
from ray.cluster_utils import Cluster


def say(*words: str) -> None:
    """One line for the test."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


NODE = {"num_cpus": 4, "object_store_memory": 80_000_000}

cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
nodes = [cluster.add_node(**NODE) for _ in range(2)]
ray.init(address=cluster.address, namespace="tests", log_to_driver=False, logging_level="error")
say("cluster", cluster.address)
try:
    for line in sys.stdin:
        match line.split():
            case ["kill", node_id]:
                (node,) = [each for each in nodes if each.node_id == node_id]
                nodes.remove(node)
                cluster.remove_node(node, allow_graceful=False)
                say("killed", node_id)
            case ["nodes"]:
                say("nodes", json.dumps([each.node_id for each in nodes]))
            case ["actors"]:
                named = ray.util.list_named_actors(all_namespaces=True)
                say("actors", json.dumps(sorted(f"{each['namespace']}:{each['name']}" for each in named)))
finally:
    ray.shutdown()
    cluster.shutdown()
