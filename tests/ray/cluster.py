"""
A Ray cluster of three nodes on this machine, or of one with Ray's dashboard: `python cluster.py [dashboard]`.

It prints ``cluster ADDRESS CLIENT``: of its head, and of Ray's client. Then it does what lines say:

    kill NODE      a node's own process dies, and Ray ends the others there
    cut NODE       all of its processes die in the same moment, as those of a machine without power
    restore        as many nodes as there were, again, and no actors
    nodes, actors  print their ids, or the names of all actors that live

It ends with its standard input.
"""

import contextlib
import json
import os
import signal
import socket
import sys

import ray
from ray.cluster_utils import Cluster

from tests.processes import tree


def say(*words: str) -> None:
    """One line for the test."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


NODE = {"num_cpus": 4, "object_store_memory": 80_000_000}
CLIENT = free_port()
DASHBOARD = "dashboard" in sys.argv[1:]

cluster = Cluster(
    initialize_head=True,
    head_node_args={**NODE, "include_dashboard": DASHBOARD, "ray_client_server_port": CLIENT},
)
nodes = [] if DASHBOARD else [cluster.add_node(**NODE) for _ in range(2)]
# At the head's own: that one stays.
ray.init(address=cluster.address, namespace="tests", log_to_driver=False, logging_level="error")
say("cluster", cluster.address, f"ray://127.0.0.1:{CLIENT}")
try:
    for line in sys.stdin:
        match line.split():
            case ["kill" | "cut" as how, node_id]:
                (node,) = [each for each in nodes if each.node_id == node_id]
                nodes.remove(node)
                if how == "cut":
                    for pid in tree(node.all_processes["raylet"][0].process.pid):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                cluster.remove_node(node, allow_graceful=False)
                say("killed", node_id)
            case ["restore"]:
                for each in ray.util.list_named_actors(all_namespaces=True):
                    ray.kill(ray.get_actor(each["name"], each["namespace"]))
                while len(nodes) < 2:
                    nodes.append(cluster.add_node(**NODE))
                say("restored", json.dumps([each.node_id for each in nodes]))
            case ["nodes"]:
                say("nodes", json.dumps([each.node_id for each in nodes]))
            case ["actors"]:
                named = ray.util.list_named_actors(all_namespaces=True)
                say("actors", json.dumps(sorted(f"{each['namespace']}:{each['name']}" for each in named)))
finally:
    ray.shutdown()
    cluster.shutdown()
