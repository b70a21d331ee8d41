"""The executors of a Flow and the dispatcher before them, on one asyncio loop in this process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

import attrs
from twisted.internet.defer import maybeDeferred

from gatewayd.config.model import FlowConfig
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.dispatch.topology import Topology
from gatewayd.executor.executor import Executor
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.pool.pool import Pool
from gatewayd.rpc.channel import ChannelSettings, State
from gatewayd.testing.channel import LocalChannel, close_executor
from gatewayd.testing.clock import LoopClock


@attrs.frozen(eq=False)
class Loaded:
    """One replica: ``load`` makes its executor again. ``deployment`` may be one that stands around shards."""

    deployment: str
    spec: ExecutorSpec
    executor: Executor
    load: Callable[[], Executor]


class Engine:
    """Loop thread only. Made and closed there; ``flow`` has no external executors any more."""

    def __init__(self, flow: FlowConfig, replicas: Sequence[Loaded]) -> None:
        clock = LoopClock(asyncio.get_running_loop())
        self._connected: list[Callable[[State], None]] = []
        self._grace_s = flow.gateway.grace_period_s
        self._channels = {
            replica.spec.runtime_name: LocalChannel(
                replica.executor, replica.spec, replica.load, flow.gateway.forwarded
            )
            for replica in replicas
        }
        self._pool = Pool(
            flow.gateway,
            flow.deployments,
            connect=self._connect,
            watch=lambda deployment, replicas: (),
            clock=clock,
            dice=random.Random(),
        )
        self.dispatcher = Dispatcher(
            Topology.from_deployments(flow.deployments),
            self._pool,
            clock,
            maybeDeferred,
            forwarded=flow.gateway.forwarded,
            stream_window=flow.gateway.pool.stream_window,
        )
        for replica in replicas:
            self._pool.replica_up(replica.deployment, replica.spec.runtime_name, replica.spec.shard)
        for told in self._connected:
            told("ready")

    @property
    def executors(self) -> Mapping[str, Executor]:
        """The executors as they are now, by runtime name."""
        return {name: channel.executor for name, channel in self._channels.items()}

    async def close(self) -> None:
        """
        Finish what is under way within the gateway's grace period, then close the executors.

        Raises what an executor's ``close`` raises, an ExceptionGroup where several do.
        """
        channels = self._channels.values()
        drains = await asyncio.gather(*(channel.drain() for channel in channels), return_exceptions=True)
        self.dispatcher.close()
        drained = self.dispatcher.drain().asFuture(asyncio.get_running_loop())
        _, late = await asyncio.wait([drained], timeout=self._grace_s)
        if late:
            self.dispatcher.abandon()
            drained.cancel()
        self._pool.close()
        ends = await asyncio.gather(*(channel.end() for channel in channels), return_exceptions=True)
        _raise([error for error in (*drains, *ends) if isinstance(error, Exception)])

    def _connect(
        self, name: str, settings: ChannelSettings, on_state: Callable[[State], None]
    ) -> LocalChannel:
        # Ready only when the pool has the channel: a replica asks for its endpoints at once.
        self._connected.append(on_state)
        channel = self._channels[name]
        channel.connected(settings)
        return channel


async def close_all(executors: Sequence[Executor]) -> None:
    """Close executors that have not served. Raises as ``Engine.close``."""
    ends = await asyncio.gather(*map(close_executor, executors), return_exceptions=True)
    _raise([error for error in ends if isinstance(error, Exception)])


def _raise(errors: Sequence[Exception]) -> None:
    """Raise the only error by itself, several as a group, and nothing for none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("several executors failed", errors)
