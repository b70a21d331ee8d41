"""
What follows Services of Kubernetes; it is made here, so that only gateways that name one pay for it.
"""

from __future__ import annotations

import random
from typing import Any

from gatewayd.pool.dns import Choose
from gatewayd.pool.watching import ByName, Follow, Watched, Watcher
from gatewayd.schemes import ServiceName


def following(reactor: Any, choose: Choose) -> Follow:
    """What follows Services by their EndpointSlices, in a cluster that lets it; ``reactor`` connects."""

    def follow(service: ServiceName, replicas: Watched, by_name: ByName) -> Watcher:
        # With Twisted's HTTP client.
        from gatewayd.pool.cluster import in_cluster
        from gatewayd.pool.kubernetes import FollowedService

        return FollowedService(
            service, replicas, in_cluster(reactor), reactor, random.random, by_name, choose
        )

    return follow
