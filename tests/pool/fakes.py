"""Channels that answer by hand, and a pool over them: what the tests of the pool are made with."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from gatewayd.config import DeploymentConfig, GatewayConfig
from gatewayd.config.model import PoolLimits
from gatewayd.messages.discovery import Told
from gatewayd.messages.request import Answer, Call
from gatewayd.pool.pool import Pool
from gatewayd.pool.replica import DeferredCall
from gatewayd.pool.watching import addresses_and_names
from gatewayd.rpc.channel import CallError, ChannelSettings

CALL = Call((b"",), "/x")
ANSWER = Answer(b"documents")
LOST = CallError("UNAVAILABLE", "Stream removed")
REFUSED = CallError("UNAVAILABLE", "failed to connect to all addresses", reached=False)
LATE = CallError("DEADLINE_EXCEEDED", "Deadline Exceeded")


class FakeChannel:
    """Records calls; the test answers them."""

    def __init__(self, address: str, settings: ChannelSettings, on_state: Callable[[Any], None]) -> None:
        self.address = address
        self.settings = settings
        self.set_state = on_state
        self.calls: list[tuple[Call, float | None, Deferred[Answer]]] = []
        self.streams: list[FakeStream] = []
        self.asked: list[Deferred[Told]] = []
        self.cancelled = 0
        self.closed = False

    def prepare(
        self,
        call: Call,
        timeout_s: float | None,
        on_answer: Callable[[Answer], object],
        on_failure: Callable[[Exception], object],
    ) -> DeferredCall:
        return DeferredCall(lambda: self._call(call, timeout_s), on_answer, on_failure)

    def stream(self, *args: Any) -> FakeStream:
        self.streams.append(FakeStream(*args))
        return self.streams[-1]

    def _call(self, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        answer: Deferred[Answer] = Deferred(self._cancelled)
        self.calls.append((call, timeout_s, answer))
        return answer

    def _cancelled(self, answer: Deferred[Answer]) -> None:
        self.cancelled += 1
        self.calls = [entry for entry in self.calls if entry[2] is not answer]

    def endpoints(self, timeout_s: float) -> Deferred[Told]:
        asked: Deferred[Told] = Deferred()
        self.asked.append(asked)
        return asked

    def close(self) -> Deferred[None]:
        assert not self.closed
        self.closed = True
        calls, self.calls = self.calls, []
        for _, _, answer in calls:
            answer.cancel()
        for stream in self.streams:
            stream.fail(LOST)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def answer(self, answer: Answer = ANSWER) -> None:
        """Answer the oldest call."""
        self.calls.pop(0)[2].callback(answer)

    def fail(self, error: Exception = LOST) -> None:
        """Fail the oldest call."""
        self.calls.pop(0)[2].errback(error)

    def answer_discovery(self, endpoints: tuple[str, ...] | Told | Exception = ("/default",)) -> None:
        """Answer the oldest question for endpoints."""
        asked = self.asked.pop(0)
        if isinstance(endpoints, Exception):
            asked.errback(endpoints)
        elif isinstance(endpoints, Told):
            asked.callback(endpoints)
        else:
            asked.callback(Told({endpoint: f"does {endpoint}" for endpoint in endpoints}))


class FakeStream:
    """A stream of a FakeChannel: ``put`` and ``end`` are what comes from the executor."""

    def __init__(
        self,
        call: Call,
        gap_s: float | None,
        left_s: float | None,
        on_answer: Callable[[Answer], object],
        on_end: Callable[[], object],
        on_failure: Callable[[Exception], object],
        on_closed: Callable[[], object],
    ) -> None:
        self.call, self.gap_s, self.left_s = call, gap_s, left_s
        self.pulls = 0
        self.waiting = self.over = self.cancelled = False
        self._there: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._on_answer, self._on_end = on_answer, on_end
        self._on_failure, self._on_closed = on_failure, on_closed

    def begin(self) -> None:
        self.pull()

    def pull(self) -> None:
        assert not self.waiting
        self.pulls += 1
        self.waiting = True
        self._serve()

    def more(self, most: int) -> list[Answer]:
        assert not self.waiting
        found = []
        while self._there and len(found) < most and self._there[0][0] == self._on_answer:
            found.append(self._there.pop(0)[1][0])
        return found

    def cancel(self) -> None:
        if not self.cancelled and not (self.over and not self._there):
            self.cancelled = self.over = True
            self._there.clear()
            if self.waiting:
                self.waiting = False
                self._on_failure(CancelledError())

    def put(self, *answers: Answer) -> None:
        for answer in answers:
            self._there.append((self._on_answer, (answer,)))
            self._serve()

    def end(self) -> None:
        self._over(self._on_end)

    def fail(self, error: Exception = LOST) -> None:
        self._over(self._on_failure, error)

    def _over(self, tell: Callable[..., object], *args: Any) -> None:
        if not self.over:
            self.over = True
            if not self.waiting or self._there:
                self._on_closed()
            self._there.append((tell, args))
            self._serve()

    def _serve(self) -> None:
        if self.waiting and self._there:
            self.waiting = False
            tell, args = self._there.pop(0)
            tell(*args)


class Setup:
    """A pool over fake channels, and what happens in it."""

    def __init__(
        self,
        *deployments: DeploymentConfig,
        gateway: GatewayConfig | None = None,
        seed: int = 1,
        ready: bool = True,
        before: Pool | None = None,
        heard: bool = True,
        **limits: Any,
    ) -> None:
        """Replicas that are connected are called without having told what they bind, if ``heard`` is True."""
        self._heard = heard
        self.clock = Clock()
        self.channels: dict[str, FakeChannel] = {}
        self.opened: list[FakeChannel] = []
        self.lookups: list[tuple[str, Deferred[Any]]] = []
        self.pool = Pool(
            gateway or GatewayConfig(pool=PoolLimits(**limits)),
            deployments,
            connect=self._connect,
            watch=addresses_and_names(
                self._resolve,
                self.clock,
                (gateway.pool if gateway is not None else PoolLimits(**limits)).dns_refresh_s,
            ),
            clock=self.clock,
            dice=random.Random(seed),
            before=before,
        )
        if ready:
            for channel in self.opened:
                channel.set_state("ready")

    def _connect(
        self, address: str, settings: ChannelSettings, on_state: Callable[[Any], None]
    ) -> FakeChannel:
        def tell(state: Any) -> None:
            on_state(state)
            replica: Any = getattr(on_state, "__self__", None)
            if self._heard and replica is not None and replica.unheard:
                replica.unheard = False
                replica._owner.changed(replica)

        channel = self.channels[address] = FakeChannel(address, settings, tell)
        self.opened.append(channel)
        return channel

    def _resolve(self, host: str) -> Deferred[Any]:
        looked_up: Deferred[Any] = Deferred()
        self.lookups.append((host, looked_up))
        return looked_up

    def send(self, call: Call = CALL, timeout_s: float | None = None, to: str = "a") -> Sent:
        return Sent(self.pool.send(to, call, timeout_s))

    def count(self, decision: str, deployment: str = "a") -> int:
        return self.pool.counters[decision, deployment]

    def advance(self, seconds: float) -> None:
        """In steps, as a reactor would."""
        self.clock.pump([0.01] * round(seconds / 0.01))

    @property
    def in_flight(self) -> int:
        return sum(replica.in_flight for replicas in self.pool.states().values() for replica in replicas)

    def replica(self, address: str) -> Any:
        return next(
            replica
            for replicas in self.pool.states().values()
            for replica in replicas
            if replica.address == address
        )


class Sent:
    """What became of one request."""

    def __init__(self, deferred: Deferred[Answer]) -> None:
        self.deferred = deferred
        self.results: list[Any] = []
        deferred.addCallbacks(self.results.append, lambda failure: self.results.append(failure.value))

    @property
    def result(self) -> Any:
        assert len(self.results) == 1, self.results
        return self.results[0]

    @property
    def done(self) -> bool:
        return bool(self.results)


def external(*addresses: str, name: str = "a", **settings: Any) -> DeploymentConfig:
    return DeploymentConfig(name, external=True, addresses=addresses, **settings)
