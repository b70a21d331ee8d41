"""
A large site, simulated: the real pool, balancing, retries and ejections, on a clock of their own.

    python -m bench.scale

Replicas are a model: so many calls at once, each of a random time, more of them wait. Everything random comes
from one seed, so that two runs are the same. Writes the tables of docs/scale.md.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import attrs
import grpc
from twisted.internet.defer import Deferred, succeed

from bench.idle import resident_bytes
from bench.report import replace, table
from gatewayd.config import DeploymentConfig, GatewayConfig
from gatewayd.config.model import PoolLimits
from gatewayd.messages import methods
from gatewayd.messages.discovery import Told
from gatewayd.messages.request import Answer, Call
from gatewayd.pb import EndpointsProto
from gatewayd.pool.pool import Pool
from gatewayd.pool.subset import subset
from gatewayd.pool.watching import addresses_and_names
from gatewayd.rpc.channel import CallError, ChannelSettings
from tests.paths import ROOT
from tests.processes import Gateway
from tests.waiting import until

PAGE: Final = ROOT / "docs" / "scale.md"
SEED: Final = 7
_CALL: Final = Call((b"",), "/x")
_ANSWER: Final = Answer(b"")
_TOLD: Final = Told({"/x": ""})
# A replica of the model: calls that it works on at once, and how long one takes.
SLOTS: Final = 4
WORK_S: Final = 0.02


class Clock:
    """Twisted's interface of time, with a heap: thousands of calls are due at any moment."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()

    def seconds(self) -> float:
        return self.now_s

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Any:
        timer = _Timer(callable, args)
        heapq.heappush(self._due, (self.now_s + delay, next(self._numbers), timer))
        return timer

    def run(self, until_s: float) -> None:
        while self._due and self._due[0][0] <= until_s:
            self.now_s, _, timer = heapq.heappop(self._due)
            timer.run()
        self.now_s = until_s


class _Timer:
    def __init__(self, call: Callable[..., object], args: tuple[object, ...]) -> None:
        self._call: Callable[..., object] | None = call
        self._args = args

    def run(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call(*self._args)

    def cancel(self) -> None:
        self._call = None

    def active(self) -> bool:
        return self._call is not None

    def reset(self, delay: float) -> None:
        raise NotImplementedError("nothing in the pool resets a timer")


class Machine:
    """One replica, for all who call it. ``broken`` answers every call with an error, ``gone`` is no more."""

    def __init__(self, clock: Clock, dice: random.Random) -> None:
        self.clock = clock
        self.dice = dice
        self.gone = self.broken = False
        self.calls = 0
        self.most = 0
        self.working: list[_Work] = []
        self.waiting: list[_Work] = []
        self.channels: list[Channel] = []
        self.probe_s = 0.0  # how long it takes to say what it serves
        self.probes: list[tuple[float, float]] = []  # from when until when it was asked

    def take(self, work: _Work) -> None:
        self.calls += 1
        if self.broken:
            self.clock.callLater(0.001, work.fail)
            return
        (self.working if len(self.working) < SLOTS else self.waiting).append(work)
        self.most = max(self.most, len(self.working) + len(self.waiting))
        if work in self.working:
            self._begin(work)

    def _begin(self, work: _Work) -> None:
        self.clock.callLater(self.dice.expovariate(1 / WORK_S), self._done, work)

    def _done(self, work: _Work) -> None:
        if self.gone or work not in self.working:
            return
        self.working.remove(work)
        if self.waiting:
            following = self.waiting.pop(0)
            self.working.append(following)
            self._begin(following)
        work.succeed()

    def vanish(self) -> None:
        """The machine is off: what it had is lost, and connections to it break."""
        self.gone = True
        lost = [*self.working, *self.waiting]
        self.working.clear()
        self.waiting.clear()
        for channel in self.channels:
            channel.on_state("failed")
        for work in lost:
            work.fail()


@attrs.define(eq=False)
class _Work:
    on_answer: Callable[[Answer], object]
    on_failure: Callable[[Exception], object]
    machine: Machine
    over: bool = False

    def begin(self) -> None:
        if self.machine.gone:
            self.fail(reached=False)
        else:
            self.machine.take(self)

    def cancel(self) -> None:
        self.over = True

    def succeed(self) -> None:
        if not self.over:
            self.over = True
            self.on_answer(_ANSWER)

    def fail(self, *, reached: bool = True) -> None:
        if not self.over:
            self.over = True
            self.on_failure(CallError("UNAVAILABLE", "gone", reached=reached))


class Channel:
    """The pool's connection to a machine."""

    def __init__(self, machine: Machine, on_state: Callable[[Any], None]) -> None:
        self._machine = machine
        self.on_state = on_state
        machine.channels.append(self)
        machine.clock.callLater(0.001, self._connected)

    def _connected(self) -> None:
        self.on_state("failed" if self._machine.gone else "ready")

    def prepare(
        self,
        call: Call,
        timeout_s: float | None,
        on_answer: Callable[[Answer], object],
        on_failure: Callable[[Exception], object],
    ) -> _Work:
        return _Work(on_answer, on_failure, self._machine)

    def stream(self, *args: Any) -> Any:
        raise NotImplementedError("the simulation has no streams")

    def endpoints(self, timeout_s: float) -> Deferred[Told]:
        machine, clock = self._machine, self._machine.clock
        answer: Deferred[Told] = Deferred()
        if machine.gone or machine.broken:
            failed = CallError("DEADLINE_EXCEEDED", "no answer")
            clock.callLater(timeout_s, lambda: answer.called or answer.errback(failed))
            machine.probes.append((clock.now_s, clock.now_s + timeout_s))
            return answer
        machine.probes.append((clock.now_s, clock.now_s + machine.probe_s))
        if not machine.probe_s:
            return succeed(_TOLD)
        clock.callLater(machine.probe_s, lambda: answer.callback(_TOLD))
        return answer

    def close(self) -> Deferred[None]:
        return succeed(None)


class Site:
    """One gateway's pool, its replicas, and a steady stream of requests."""

    def __init__(self, replicas: int, **limits: Any) -> None:
        self.clock = Clock()
        self.dice = random.Random(SEED)
        self.machines: dict[str, Machine] = {}
        self.took_s: list[tuple[float, float]] = []  # when it was asked, and how long it took
        self.failed: list[float] = []
        addresses = [address_of(number) for number in range(replicas)]
        self.pool = Pool(
            GatewayConfig(pool=PoolLimits(**limits)),
            [DeploymentConfig("a", external=True, addresses=tuple(addresses))],
            connect=self._connect,
            watch=addresses_and_names(lambda host: Deferred(), self.clock, 30.0),
            clock=self.clock,
            dice=self.dice,
        )
        self.clock.run(0.1)

    def _connect(self, address: str, settings: ChannelSettings, on_state: Callable[[Any], None]) -> Channel:
        machine = self.machines.get(address)
        if machine is None:
            machine = self.machines[address] = Machine(self.clock, self.dice)
        return Channel(machine, on_state)

    def load(self, a_second: float, until_s: float) -> None:
        """Requests at random moments from now on."""
        if self.clock.now_s < until_s:
            self._ask()
            self.clock.callLater(self.dice.expovariate(a_second), self.load, a_second, until_s)

    def _ask(self) -> None:
        asked_s = self.clock.now_s
        self.pool.send("a", _CALL, None).addCallbacks(
            lambda _: self.took_s.append((asked_s, self.clock.now_s - asked_s)),
            lambda _: self.failed.append(asked_s),
        )

    def p99_ms(self, begin_s: float, end_s: float) -> float:
        took = sorted(took for at, took in self.took_s if begin_s <= at < end_s)
        return 1000 * took[int(0.99 * (len(took) - 1))] if took else 0.0

    def failed_in(self, begin_s: float, end_s: float) -> int:
        return sum(begin_s <= at < end_s for at in self.failed)

    @property
    def ejected(self) -> int:
        return sum(each.ejected for each in self.pool.states()["a"])


def address_of(number: int) -> str:
    return f"10.{number // 62500}.{number // 250 % 250}.{number % 250}:8080"


# -- what is simulated ------------------------------------------------------------------------------------


def subsets(replicas: int, gateways: int, sizes: Sequence[int]) -> list[list[str]]:
    """How evenly gateways that know nothing of each other take replicas."""
    addresses = [address_of(number) for number in range(replicas)]
    rows = []
    for size in sizes:
        taken: Counter[str] = Counter()
        for number in range(gateways):
            taken.update(subset(addresses, size, f"gateway-{number}"))
        counts = [taken[each] for each in addresses]
        without = [each for each in addresses if each != addresses[0]]
        moved = sum(
            len(subset(without, size, f"gateway-{n}") - subset(addresses, size, f"gateway-{n}"))
            for n in range(gateways)
        )
        rows.append(
            [
                str(size or replicas),
                f"{sum(counts):,}".replace(",", " "),
                f"{min(counts)} / {sum(counts) / replicas:.1f} / {max(counts)}",
                str(sum(not count for count in counts)),
                str(moved),
            ]
        )
    return rows


def zone_lost(replicas: int, load: float) -> list[str]:
    """A third of the replicas goes at once; ``load`` is a share of what all can do."""
    site = Site(replicas)
    a_second = load * replicas * SLOTS / WORK_S
    site.load(a_second, 15.0)
    site.clock.run(5.0)
    for number in range(0, replicas, 3):
        site.machines[address_of(number)].vanish()
    site.clock.run(20.0)
    retried = sum(part.retries.get("UNAVAILABLE", 0) for part in site.pool.parts())
    return [
        f"{load:.0%}",
        f"{site.p99_ms(1, 5):.0f}",
        f"{site.p99_ms(5, 6):.0f}",
        f"{site.p99_ms(8, 15):.0f}",
        str(retried),
        str(len(site.failed)),
    ]


def storm(replicas: int, broken: float) -> list[str]:
    """A share of the replicas answers every call with an error for ten seconds."""
    site = Site(replicas)
    site.load(0.5 * replicas * SLOTS / WORK_S, 30.0)
    site.clock.run(2.0)
    bad = [site.machines[address_of(number)] for number in range(round(broken * replicas))]
    for machine in bad:
        machine.broken = True
    most = 0
    for step in range(100):
        site.clock.run(2.0 + step / 10)
        most = max(most, site.ejected)
    for machine in bad:
        machine.broken = False
    site.clock.run(30.0)
    return [
        f"{broken:.0%}",
        str(most),
        str(site.failed_in(2.0, 4.0)),
        str(site.failed_in(4.0, 12.0)),
        str(site.failed_in(25.0, 30.0)),
        f"{site.p99_ms(4, 12):.0f}",
        str(site.ejected),
    ]


def probed(replicas: int, silent: float) -> list[str]:
    """All but one are ejected at once; ``silent`` is the share that answers no probe for a minute."""
    site = Site(replicas)
    site.clock.run(10.0)
    bad = {address_of(number) for number in range(round(silent * replicas))}
    for address in bad:
        site.machines[address].broken = True
    for machine in site.machines.values():
        machine.probes.clear()
        machine.probe_s = 0.002
    for replica in site.pool._senders["a", 0].replicas.replicas:
        for _ in range(PoolLimits().eject_after_failures):
            replica.failed(CallError("UNAVAILABLE", "gone"))
    due_s = site.clock.now_s + PoolLimits().eject_s
    well = replicas - len(bad)
    while sum(not each.ejected for each in site.pool.states()["a"]) < well:
        site.clock.run(site.clock.now_s + 0.05)
    back_s = site.clock.now_s - due_s
    site.clock.run(due_s + 60.0)
    under_way = most = 0
    probes = [each for machine in site.machines.values() for each in machine.probes]
    for _, change in sorted([(begin_s, 1) for begin_s, _ in probes] + [(end_s, -1) for _, end_s in probes]):
        under_way += change
        most = max(most, under_way)
    return [f"{replicas}", f"{silent:.0%}", str(most), f"{back_s:.1f}"]


def newcomer(replicas: int, load: float) -> list[str]:
    """A replica joins; how many calls it gets at first, and has at most, against the others."""
    site = Site(replicas)
    site.load(load * replicas * SLOTS / WORK_S, 8.0)
    site.clock.run(4.0)
    for machine in site.machines.values():
        machine.calls = machine.most = 0
    new = address_of(replicas)
    site.pool.replica_up("a", new)
    found = []
    for until_s in (4.2, 5.0, 8.0):
        site.clock.run(until_s)
        others = [machine.calls for address, machine in site.machines.items() if address != new]
        found.append(f"{site.machines[new].calls / (sum(others) / len(others)):.2f}")
    most = max(machine.most for address, machine in site.machines.items() if address != new)
    return [f"{load:.0%}", *found, f"{site.machines[new].most} / {most}"]


def simulated(replicas: int = 60) -> str:
    """All tables."""
    tables = [
        (
            "10 000 replicas and 200 gateways that know nothing of each other:",
            ["subset", "connections", "of a replica: least / mean / most", "replicas without any",
             "places that change when a replica goes"],
            subsets(10_000, 200, (0, 50, 100, 500)),
        ),
        (
            f"One gateway, {replicas} replicas, a third of which goes at once (99th percentile, ms):",
            ["load before", "before", "first second", "3 to 10 s later", "retries", "failed requests"],
            [zone_lost(replicas, load) for load in (0.3, 0.5, 0.6)],
        ),
        (
            f"One gateway, {replicas} replicas at half load, some of which answer with errors for 10 s:",
            ["broken", "ejected at most", "failed in the first 2 s", "failed in 8 s after",
             "failed at the end", "99th percentile, ms", "still ejected"],
            [storm(replicas, share) for share in (0.1, 0.3, 0.6)],
        ),
        (
            "One gateway, replicas that are all ejected together, some of them silent:",
            ["replicas", "silent", "probes under way at most", "seconds until the others are back"],
            [probed(1000, 0.0), probed(1000, 0.6), probed(5000, 0.6)],
        ),
        (
            "A replica that joins 20 others, calls in proportion to theirs:",
            ["load", "first 0.2 s", "first second", "first 4 s", "most calls at once, it / others"],
            [newcomer(20, load) for load in (0.3, 0.6, 0.9)],
        ),
    ]  # fmt: skip
    return "\n\n".join(f"{title}\n\n{table(heads, rows)}" for title, heads, rows in tables)


# -- what is measured -------------------------------------------------------------------------------------


class _Executor(grpc.GenericRpcHandler):
    def service(self, details: Any) -> Any:
        if details.method != methods.DISCOVERY:
            return None
        told = EndpointsProto(endpoints=["/x"]).SerializeToString()
        return grpc.unary_unary_rpc_method_handler(lambda _message, _context: told)


def held(replicas: int = 300) -> str:
    """What a gateway's process holds for each replica that it is connected with: a real one, at rest."""
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([_Executor()])
    port = server.add_insecure_port("0.0.0.0:0")
    server.start()
    found = []
    try:
        for count in (1, replicas + 1):
            hosts = [f"127.1.{number // 250}.{1 + number % 250}" for number in range(count)]
            executor = {"name": "a", "external": True, "host": hosts, "port": [port] * count}
            gateway = Gateway({"gateway": {"admin_port": 0}, "executors": [executor]}, protocols=("grpc",))
            try:
                sockets = Path(f"/proc/{gateway.pid}/fd")
                until(lambda: len(os.listdir(sockets)) >= count, 60.0)  # noqa: B023
                time.sleep(5.0)  # until all have told their endpoints
                found.append((resident_bytes(gateway.pid), len(os.listdir(sockets))))
            finally:
                gateway.stop()
    finally:
        server.stop(0)
    (few, few_files), (many, many_files) = found
    each = (many - few) / replicas / 1024
    files = (many_files - few_files) / replicas
    return (
        f"Measured: {each:.1f} KiB and {files:.0f} descriptor for each of {replicas} replicas that a gateway "
        "is connected with."
    )


def main() -> None:
    text = f"{held()}\n\n{simulated()}"
    print(text)
    PAGE.write_text(replace(PAGE.read_text(), text, "bench.scale"))
    print(f"Written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
