"""
The Deployments of a Flow and the executors that answer for them.

``Pool.send`` is all that the dispatcher knows of the world outside. Addresses come from the config
(external executors) or from the supervisor (``replica_up``, ``replica_down``).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred

from gatewayd.bridge import Bridge
from gatewayd.config import DeploymentConfig, GatewayConfig
from gatewayd.pool.balancing import Balancer, LeastInFlight, RoundRobin
from gatewayd.pool.channel import Channel, ChannelSettings, State
from gatewayd.pool.replicas import Channel as AnyChannel
from gatewayd.pool.replicas import Clock, ReplicaRules, ReplicaSet, Room
from gatewayd.pool.retry import RetryBudget, RetryPolicy
from gatewayd.request import Answer, Call

Connect = Callable[[str, ChannelSettings, Callable[[State], None]], AnyChannel]


class Pool:
    """
    Sends calls to Deployments by name.

    ``connect(address, settings, on_state)`` opens a channel; tests pass their own.
    """

    def __init__(
        self,
        gateway: GatewayConfig,
        deployments: Sequence[DeploymentConfig],
        *,
        connect: Connect,
        clock: Clock,
        dice: random.Random,
    ) -> None:
        self.counters: Counter[tuple[str, str]] = Counter()
        room = Room(gateway.pool.max_in_flight)
        self._sets: dict[str, ReplicaSet] = {}
        for deployment in deployments:
            settings = _settings(gateway, deployment)
            self._sets[deployment.name] = replicas = ReplicaSet(
                deployment.name,
                _rules(gateway, deployment),
                connect=_connector(connect, settings),
                balancer=_balancer(gateway, dice),
                budget=RetryBudget(gateway.pool.retry_budget, gateway.pool.max_in_flight_per_replica),
                room=room,
                clock=clock,
                dice=dice,
                counters=self.counters,
            )
            for address in deployment.addresses:
                replicas.add(address)

    @classmethod
    def over(
        cls, bridge: Bridge, gateway: GatewayConfig, deployments: Sequence[DeploymentConfig], clock: Clock
    ) -> Pool:
        """A pool whose channels are real ones."""

        def connect(address: str, settings: ChannelSettings, on_state: Callable[[State], None]) -> Channel:
            return Channel(bridge, address, settings, on_state)

        return cls(gateway, deployments, connect=connect, clock=clock, dice=random.Random())

    def send(self, deployment: str, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        """
        Get the answer of a Deployment; ``timeout_s`` is what is left of the client's deadline.

        Fails with NetworkError or Overloaded. Cancelling the Deferred cancels the call.
        """
        return self._sets[deployment].send(call, timeout_s)

    def serves(self, deployment: str, endpoint: str) -> bool:
        """Whether the Deployment binds ``endpoint``; True while that isn't known."""
        return self._sets[deployment].serves(endpoint)

    def replica_up(self, deployment: str, address: str) -> None:
        """An executor of ``deployment`` listens at ``address`` now."""
        self._sets[deployment].add(address)

    def replica_down(self, deployment: str, address: str) -> None:
        """The executor at ``address`` is gone for good; another address may take its place."""
        self._sets[deployment].remove(address)

    def states(self) -> Mapping[str, Mapping[str, State]]:
        """Deployment -> address -> state of the connection."""
        return {
            name: {replica.address: replica.state for replica in replicas.replicas}
            for name, replicas in self._sets.items()
        }

    def close(self) -> None:
        """Close every channel; calls under way fail."""
        for replicas in self._sets.values():
            replicas.close()


def _settings(gateway: GatewayConfig, deployment: DeploymentConfig) -> ChannelSettings:
    return ChannelSettings(
        tls=deployment.tls,
        compression=deployment.compression or gateway.compression,
        metadata=tuple(deployment.grpc_metadata.items()),
        max_message_bytes=gateway.pool.max_executor_message_bytes,
    )


def _rules(gateway: GatewayConfig, deployment: DeploymentConfig) -> ReplicaRules:
    limits = gateway.pool
    timeout_s = gateway.timeout_send_s if deployment.timeout_send_s is None else deployment.timeout_send_s
    retries = gateway.retries if deployment.retries is None else deployment.retries
    return ReplicaRules(
        timeout_s=timeout_s,
        connect_timeout_s=limits.connect_timeout_s,
        queue_timeout_s=limits.queue_timeout_s,
        max_in_flight=limits.max_in_flight_per_replica,
        max_queued=limits.max_queued,
        eject_after_failures=limits.eject_after_failures,
        eject_s=limits.eject_s,
        retry=RetryPolicy(retries, deployment.idempotent),
    )


def _connector(
    connect: Connect, settings: ChannelSettings
) -> Callable[[str, Callable[[State], None]], AnyChannel]:
    return lambda address, on_state: connect(address, settings, on_state)


def _balancer(gateway: GatewayConfig, dice: random.Random) -> Balancer:
    return RoundRobin() if gateway.pool.balancing == "round_robin" else LeastInFlight(dice)
