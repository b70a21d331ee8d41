"""The master of several workers, with processes that are made up."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ProcessTerminated
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure

from gatewayd.backoff import Backoff
from gatewayd.config import DeploymentConfig, FlowConfig
from gatewayd.config.model import GatewayConfig, Listener, PoolLimits
from gatewayd.errors import ConfigError, Draining, PortTaken
from gatewayd.pool.replica_set import ReplicaGone
from gatewayd.protocols.port import PortReport
from gatewayd.service import worker_messages as messages
from gatewayd.service.changes import Start, changes_between
from gatewayd.service.reserved import reserve
from gatewayd.service.worker_messages import ReplicaAddress, from_line, to_line, unpacked
from gatewayd.service.worker_processes import NotReplaced
from gatewayd.service.workers import Workers
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.supervisor.scaling import Load
from gatewayd.telemetry.logs.forms import as_text
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading
from tests.supervisor.fakes import FakeGroups, FakeProcess, FakeReactor

A = ReplicaAddress("a", 0, 0, "unix:/a.0")


class FakeExecutors:
    """Those of the master; they end when the test says so."""

    def __init__(self) -> None:
        self.stopped: list[float] = []
        self.ended: Deferred[None] = Deferred()

    def stop(self, grace_s: float, /) -> Deferred[None]:
        self.stopped.append(grace_s)
        return self.ended


class Setup:
    """A service of so many workers on a reactor of its own."""

    def __init__(self, workers: int = 2, **settings: Any) -> None:
        self.reactor, self.executors = FakeReactor(), FakeExecutors()
        self.listening: list[tuple[list[int], bool]] = []
        self.failures: list[ConfigError] = []
        gateway = GatewayConfig(
            host="127.0.0.1",
            listeners=(Listener(("http",)), Listener(("websocket",))),
            workers=workers,
            **settings,
        )
        self.workers = Workers(
            FlowConfig(gateway=gateway),
            self.reactor,
            self.executors,
            on_listening=lambda ports, is_open: self.listening.append((list(ports), is_open)),
            on_failed=self.failures.append,
            environment={"PATH": "/bin"},
            backoff=Backoff(first_s=1.0, ceiling_s=5.0),
            dice=lambda: 0.5,
            kill_group=FakeGroups().kill,
            offload=maybeDeferred,
        )

    @property
    def processes(self) -> list[FakeProcess]:
        return self.reactor.processes

    def listen(self, *processes: FakeProcess) -> None:
        for each in processes:
            ports = (
                PortReport(("http",), "127.0.0.1", 80, False),
                PortReport(("websocket",), "h", 81, False),
            )
            send(each, messages.Listening(ports))
            send(each, messages.Ready())

    def serving(self) -> None:
        """Start, until all serve."""
        self.workers.start()
        self.serving_after_start()

    def serving_after_start(self) -> None:
        self.listen(*self.processes)
        served = Deferred.fromCoroutine(self.workers.serve())
        for each in self.processes:
            send(each, messages.Serving())
        assert outcome(served) == [True]

    def names(self) -> list[str]:
        return [state.name for state in self.workers.states()]


@pytest.fixture
def setup() -> Iterator[Setup]:
    with made() as setup:
        yield setup


@contextmanager
def made(workers: int = 2, **settings: Any) -> Iterator[Setup]:
    setup = Setup(workers, **settings)
    yield setup
    setup.workers._processes.close_sockets()
    setup.workers._processes.close_crowd()


def send(process: FakeProcess, message: messages.FromWorker) -> None:
    process.protocol.childDataReceived(3, to_line(message))


def told(process: FakeProcess) -> list[Any]:
    """What the master has told a worker after its start."""
    return [from_line(line) for line in process.lines[1:]]


def start_of(process: FakeProcess) -> messages.Start:
    start = from_line(process.lines[0])
    assert isinstance(start, messages.Start)
    return start


def outcome(work: Deferred[Any]) -> list[Any]:
    """What it has fired with, if it has."""
    found: list[Any] = []
    work.addBoth(found.append)
    return found


def test_each_worker_gets_the_same_sockets_and_its_share_of_limits() -> None:
    with made(workers=2, pool=PoolLimits(max_queued=10)) as setup:
        setup.workers.start()
        first, second = setup.processes
        assert [each.args[-1] for each in setup.processes] == ["worker-1", "worker-2"]
        assert first.descriptors == second.descriptors
        assert list(first.descriptors) == [4, 5, 6]
        assert all(isinstance(os.fstat(ours).st_ino, int) for ours in first.descriptors.values())
        start = start_of(second)
        assert (start.name, start.sockets, start.executors_ready) == ("worker-2", ((4,), (5,)), False)
        assert [(start_of(each).crowd, start_of(each).slot) for each in setup.processes] == [(6, 0), (6, 1)]
        assert unpacked(start.flow).gateway.pool.max_queued == 5


def test_the_service_listens_when_all_workers_do(setup: Setup) -> None:
    setup.workers.start()
    with capturedLogs() as logs:
        setup.listen(setup.processes[0])
        assert not setup.listening
        setup.listen(setup.processes[1])
    assert setup.listening == [([80, 81], False)]
    assert [event["address"] for event in logs if "address" in event] == ["127.0.0.1:80", "h:81"]


def test_it_serves_when_all_workers_do(setup: Setup) -> None:
    setup.workers.start()
    setup.listen(*setup.processes)
    served = outcome(Deferred.fromCoroutine(setup.workers.serve()))
    assert all(messages.ExecutorsReady() in told(each) for each in setup.processes)
    send(setup.processes[0], messages.Serving())
    assert not served
    send(setup.processes[1], messages.Serving())
    assert served == [True]
    assert told(setup.processes[0])[-1] == messages.WholeService(2, 2)


def test_addresses_of_executors_are_told_to_all_workers_and_to_new_ones_at_once(setup: Setup) -> None:
    setup.workers.start()
    setup.workers.replica_up(ReplicaId("a", 0, 0), "unix:/a.0")
    setup.workers.replica_up(ReplicaId("a", 0, 1), "unix:/a.1")
    setup.workers.replica_down(ReplicaId("a", 0, 1))
    setup.serving_after_start()
    for each in setup.processes:
        assert [one for one in told(each) if isinstance(one, messages.ReplicaUp | messages.ReplicaDown)] == [
            messages.ReplicaUp(A),
            messages.ReplicaUp(ReplicaAddress("a", 0, 1, "unix:/a.1")),
            messages.ReplicaDown("a", 0, 1),
        ]

    setup.processes[0].exit(signal=9)
    setup.reactor.advance(1.0)

    again = setup.processes[2]
    assert start_of(again).replicas == (A,)
    assert start_of(again).executors_ready
    setup.workers.replica_down(ReplicaId("a", 0, 0))
    assert told(again)[-1] == messages.ReplicaDown("a", 0, 0)


def test_a_worker_that_dies_is_started_again_and_the_others_stay(setup: Setup) -> None:
    setup.serving()
    with capturedLogs() as logs:
        setup.processes[0].exit(signal=9)
    assert any("killed by SIGKILL" in str(event.get("why")) for event in logs)
    assert told(setup.processes[1])[-1] == messages.WholeService(2, 1)
    setup.reactor.advance(1.0)
    assert len(setup.processes) == 3
    setup.listen(setup.processes[2])
    send(setup.processes[2], messages.Serving())
    assert told(setup.processes[1])[-1] == messages.WholeService(2, 2)
    assert [(state.name, state.serves, state.restarts) for state in setup.workers.states()] == [
        ("worker-1", True, 1),
        ("worker-2", True, 0),
    ]
    assert setup.listening == [([80, 81], False)]  # that is said once
    assert not setup.failures


def test_a_worker_that_dies_again_and_again_is_started_more_and_more_rarely(setup: Setup) -> None:
    setup.serving()
    delays, ended = [], 0
    for _ in range(4):
        setup.processes[ended].exit(1)
        ended, waited = len(setup.processes), 0.0
        while len(setup.processes) == ended:
            setup.reactor.advance(0.5)
            waited += 0.5
        setup.listen(setup.processes[-1])
        delays.append(waited)
    assert delays == [1.0, 2.0, 4.0, 5.0]


def test_a_mistake_that_keeps_a_worker_from_starting_ends_the_service(setup: Setup) -> None:
    setup.workers.start()
    for each in setup.processes:
        send(each, messages.Failed("ConfigError", "gateway.uses: no such class"))
        each.exit(1)
    assert [str(error) for error in setup.failures] == ["gateway.uses: no such class"]


def test_so_does_a_crash_before_it_listens(setup: Setup) -> None:
    setup.workers.start()
    setup.processes[1].protocol.childDataReceived(2, b"ImportError: no module\n")
    setup.processes[1].exit(1)
    assert "worker-2 cannot start: exit code 1\nImportError: no module" in str(setup.failures[0])


def test_one_that_dies_while_executors_load_is_only_started_again(setup: Setup) -> None:
    setup.workers.start()
    setup.listen(*setup.processes)
    setup.processes[0].exit(signal=9)
    setup.reactor.advance(1.0)
    assert len(setup.processes) == 3
    assert not setup.failures


def test_replacing_starts_one_and_then_ends_one(setup: Setup) -> None:
    setup.serving()
    replaced = outcome(Deferred.fromCoroutine(setup.workers.replace_all()))
    for old, new in ((0, 2), (1, 3)):
        assert len(setup.processes) == new + 1
        assert not setup.processes[old].signals
        setup.listen(setup.processes[new])
        send(setup.processes[new], messages.Serving())
        # It serves on for a moment, while its clients leave.
        assert messages.Retire() in told(setup.processes[old])
        assert not setup.processes[old].signals
        setup.reactor.advance(2.0)
        assert setup.processes[old].signals == ["TERM"]
        assert not replaced
        setup.processes[old].exit(0)
    assert replaced == [None]
    assert setup.names() == ["worker-3", "worker-4"]
    setup.workers.replica_up(ReplicaId("a", 0, 0), "unix:/a.0")
    assert told(setup.processes[3])[-1] == messages.ReplicaUp(A)


def connected(setup: Setup, process: FakeProcess, count: int) -> None:
    send(process, messages.Connected((messages.Part("a", 0, count),)))


def with_an_executor(setup: Setup) -> None:
    """The Flow of ``setup``, which has not started yet, has one."""
    served = setup.workers._processes.served
    served.flow = attrs.evolve(served.flow, deployments=(DeploymentConfig("a"),))


def test_a_new_worker_takes_the_place_of_another_when_it_is_connected_as_that_is(setup: Setup) -> None:
    with_an_executor(setup)
    setup.serving()
    connected(setup, setup.processes[0], 1)
    replaced = outcome(Deferred.fromCoroutine(setup.workers.replace_all()))
    new = setup.processes[2]
    connected(setup, new, 0)
    setup.listen(new)
    send(new, messages.Serving())
    assert setup.names() == ["worker-1", "worker-2"]

    connected(setup, new, 1)

    assert setup.names() == ["worker-3", "worker-2"]
    assert not replaced


def test_an_executor_that_dies_meanwhile_is_waited_for_by_nobody(setup: Setup) -> None:
    with_an_executor(setup)
    setup.serving()
    connected(setup, setup.processes[0], 1)
    outcome(Deferred.fromCoroutine(setup.workers.replace_all()))
    new = setup.processes[2]
    connected(setup, new, 0)
    setup.listen(new)
    send(new, messages.Serving())

    connected(setup, setup.processes[0], 0)

    assert setup.names() == ["worker-3", "worker-2"]


def test_a_new_worker_that_cannot_be_connected_leaves_the_old_one(setup: Setup) -> None:
    with_an_executor(setup)
    setup.serving()
    connected(setup, setup.processes[0], 1)
    replaced = outcome(Deferred.fromCoroutine(setup.workers.replace_all()))
    new = setup.processes[2]
    connected(setup, new, 0)
    setup.listen(new)
    send(new, messages.Serving())

    setup.reactor.advance(15.0)
    new.exit(0)

    (failure,) = replaced
    assert failure.check(NotReplaced)
    assert "worker-3: no new connection to a could be made within 15 s" in str(failure.value)
    assert setup.names() == ["worker-1", "worker-2"]


def test_a_worker_that_cannot_replace_another_leaves_it_where_it_is(setup: Setup) -> None:
    setup.serving()
    replaced = outcome(Deferred.fromCoroutine(setup.workers.replace_all()))
    send(setup.processes[2], messages.Failed("ConfigError", "gateway.uses: no such class"))
    setup.processes[2].exit(1)
    (failure,) = replaced
    assert failure.check(NotReplaced)
    assert "worker-3: gateway.uses: no such class" in str(failure.value)
    assert setup.names() == ["worker-1", "worker-2"]
    assert not setup.processes[0].signals
    assert not setup.failures
    setup.reactor.advance(60.0)
    assert len(setup.processes) == 3  # it is not started again


def test_a_worker_that_dies_while_it_is_replaced_makes_no_third(setup: Setup) -> None:
    setup.serving()
    replaced = outcome(Deferred.fromCoroutine(setup.workers.replace_all()))
    setup.processes[0].exit(signal=9)
    setup.listen(setup.processes[2])
    send(setup.processes[2], messages.Serving())
    setup.reactor.advance(10.0)
    assert setup.names() == ["worker-3", "worker-2"]
    assert not replaced  # the second is being replaced
    assert setup.processes[-1].args[-1] == "worker-4"


def test_nothing_is_replaced_before_all_serve(setup: Setup) -> None:
    setup.workers.start()
    assert outcome(Deferred.fromCoroutine(setup.workers.replace_all())) == [None]
    assert len(setup.processes) == 2


def test_stop_lets_workers_finish_before_executors_end(setup: Setup) -> None:
    setup.serving()
    number = setup.workers._processes.served.sockets[0][0].getsockname()[1]
    stopped = outcome(Deferred.fromCoroutine(setup.workers.stop()))
    assert [each.signals for each in setup.processes] == [["TERM"], ["TERM"]]
    with pytest.raises(ConnectionRefusedError):  # the made-up workers hold no copy of the socket
        socket.create_connection(("127.0.0.1", number), timeout=5)
    setup.processes[0].exit(0)
    assert not setup.executors.stopped
    setup.reactor.advance(3.0)
    setup.processes[1].exit(0)
    assert setup.executors.stopped == [7.0]
    assert not stopped
    setup.executors.ended.callback(None)
    assert stopped == [None]


def test_a_worker_that_does_not_end_is_killed_after_both_grace_periods() -> None:
    with made(grace_period_s=1.0, floating_grace_period_s=5.0) as setup:
        setup.serving()
        outcome(Deferred.fromCoroutine(setup.workers.stop()))
        setup.reactor.advance(6.0)
        assert setup.processes[0].signals == ["TERM"]
        setup.reactor.advance(10.0)
        assert setup.processes[0].signals == ["TERM", "KILL"]


def test_without_a_bound_for_floating_calls_a_worker_is_not_killed() -> None:
    with made(floating_grace_period_s=None) as setup:
        setup.serving()
        outcome(Deferred.fromCoroutine(setup.workers.stop()))
        setup.reactor.advance(10_000.0)
        assert setup.processes[0].signals == ["TERM"]


def test_stop_ends_what_waits_for_the_start(setup: Setup) -> None:
    setup.workers.start()
    served = outcome(Deferred.fromCoroutine(setup.workers.serve()))
    outcome(Deferred.fromCoroutine(setup.workers.stop()))
    assert served[0].check(Draining)


def test_stop_ends_a_replacement_too(setup: Setup) -> None:
    setup.serving()
    replaced = outcome(Deferred.fromCoroutine(setup.workers.replace_all()))
    stopped = outcome(Deferred.fromCoroutine(setup.workers.stop()))
    setup.executors.ended.callback(None)
    for each in setup.processes:
        assert each.signals == ["TERM"]
        each.exit(0)
    assert replaced[0].check(NotReplaced)
    assert stopped == [None]


def test_a_replacement_that_is_cancelled_leaves_no_third_process(setup: Setup) -> None:
    setup.serving()
    replacing = Deferred.fromCoroutine(setup.workers.replace_all())
    replacing.cancel()
    assert [each.signals for each in setup.processes] == [[], [], ["TERM"]]
    setup.processes[2].exit(0)
    assert outcome(replacing)[0].check(CancelledError)
    assert setup.names() == ["worker-1", "worker-2"]
    setup.reactor.advance(60.0)
    assert len(setup.processes) == 3


def test_after_its_sockets_were_closed_no_worker_is_started_again(setup: Setup) -> None:
    setup.serving()
    setup.processes[0].exit(1)  # it waits to be started again
    setup.workers.retire()
    assert told(setup.processes[1])[-1] == messages.Retire()
    setup.processes[1].exit(1)
    setup.reactor.advance(60.0)
    assert len(setup.processes) == 2
    stopped = outcome(Deferred.fromCoroutine(setup.workers.stop()))
    setup.executors.ended.callback(None)
    assert stopped == [None]


def test_one_that_was_to_replace_another_then_is_waited_for_no_longer(setup: Setup) -> None:
    setup.serving()
    replaced = outcome(Deferred.fromCoroutine(setup.workers.replace_all()))
    setup.workers.retire()
    setup.processes[2].exit(1)
    assert replaced[0].check(NotReplaced)


def test_what_a_worker_logs_has_its_name_level_and_namespace(setup: Setup) -> None:
    setup.workers.start()
    with capturedLogs() as logs:
        send(setup.processes[1], messages.Logged("warn", "gatewayd.pool.events", "a {b} is lost"))
    (event,) = logs
    assert event["log_level"] is LogLevel.warn
    assert event["log_namespace"] == "gatewayd.pool.events"
    assert event["log_format"].format(**event) == "worker-2: a {b} is lost"


def test_what_it_says_besides_comes_along(setup: Setup) -> None:
    setup.workers.start()
    with capturedLogs() as logs:
        logged = messages.Logged(
            "error", "gatewayd.pool", "failed", "Traceback\n  here", {"worker": 3, "a": 1}
        )
        send(setup.processes[1], logged)
    (event,) = logs
    assert (event["worker"], event["log_fields"]) == ("worker-2", {"worker": 3, "a": 1})
    assert as_text(event).endswith("#error] worker-2: failed\n\tTraceback\n\t  here\n")


def test_all_workers_are_told_of_a_level_and_new_ones_begin_with_it(setup: Setup) -> None:
    setup.workers.start()
    setup.workers.set_log_level("debug", "gatewayd.pool")
    assert all(
        messages.from_line(each.lines[-1]) == messages.SetLogLevel("debug", "gatewayd.pool")
        for each in setup.processes
    )
    line = setup.workers._processes._first_line("worker-3", 2, setup.workers._processes.served)
    assert messages.from_line(line).log_levels == {"gatewayd.pool": "debug"}


def test_a_port_that_is_taken_starts_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listeners = (Listener(("http",)), Listener(("websocket",), taken.getsockname()[1]))
        setup = Setup()
        gateway = GatewayConfig(host="127.0.0.1", listeners=listeners, workers=2)
        workers = Workers(FlowConfig(gateway=gateway), setup.reactor, setup.executors)
        with pytest.raises(PortTaken):
            workers.start()
    assert not setup.processes
    assert not workers._processes.served.sockets


# -- changes -------------------------------------------------------------------------------------------

OLD, NEW = ReplicaId("a", 0, 0), ReplicaId("a", 0, 0, incarnation=1)


def changing(setup: Setup, new: FlowConfig, *replicas: ReplicaId, **further: Any) -> list[Any]:
    """What became of a change to ``new``, if it is over."""
    found = changes_between(setup.workers.flow, new, [], 1)
    found = attrs.evolve(found, replicas=frozenset(replicas), graph=True, **further)
    reserved = reserve(new.gateway, found.sources)
    return outcome(Deferred.fromCoroutine(setup.workers.change(new, found, 1, reserved)))


def with_listener(flow: FlowConfig) -> FlowConfig:
    listeners = (*flow.gateway.listeners, Listener(("http",)))
    return attrs.evolve(flow, gateway=attrs.evolve(flow.gateway, listeners=listeners))


def replaced(setup: Setup, old: int, new: int) -> None:
    """A new worker serves, and the old one ends."""
    setup.listen(setup.processes[new])
    send(setup.processes[new], messages.Serving())
    setup.reactor.advance(2.0)
    setup.processes[old].exit(0)


def test_a_change_replaces_each_worker_by_one_that_serves_the_new_flow(setup: Setup) -> None:
    setup.workers.replica_up(OLD, "unix:/a.0")
    setup.serving()
    setup.workers.replica_up(NEW, "unix:/a.1")
    setup.workers.admit(OLD, NEW)
    done = changing(setup, with_listener(setup.workers.flow), NEW)

    start = start_of(setup.processes[2])
    assert [len(listener) for listener in start.sockets] == [1, 1, 1]
    assert start.replicas == (ReplicaAddress("a", 0, 0, "unix:/a.1", 1),)
    replaced(setup, 0, 2)
    assert not done
    # One that is started again before its turn serves what it did.
    setup.processes[1].exit(signal=9)
    setup.reactor.advance(1.0)
    assert [len(start_of(each).sockets) for each in setup.processes] == [2, 2, 3, 3, 2]
    replaced(setup, 4, 3)
    assert len(done) == 1
    assert len(setup.workers.flow.gateway.listeners) == 3


def test_no_worker_is_replaced_for_executors_that_have_ended_meanwhile(setup: Setup) -> None:
    setup.serving()
    setup.workers.replica_up(NEW, "unix:/a.1")
    assert outcome(setup.workers.known(NEW)) == [None]
    setup.workers.replica_down(NEW)

    starts = (Start(DeploymentConfig("a"), (NEW,)),)
    (failure,) = changing(setup, setup.workers.flow, NEW, starts=starts)

    assert failure.check(ConfigError)
    assert "executors.a: the new process of replica 0 had started" in str(failure.value)
    assert len(setup.processes) == 2
    assert outcome(setup.workers.known(NEW))[0].check(ReplicaGone)


def test_a_worker_that_cannot_serve_the_new_flow_has_the_others_replaced_back(setup: Setup) -> None:
    setup.serving()
    before = setup.workers.flow
    done = changing(setup, with_listener(before), OLD)
    replaced(setup, 0, 2)

    send(setup.processes[3], messages.Failed("ConfigError", "gateway.uses: no such class"))
    setup.processes[3].exit(1)
    assert len(start_of(setup.processes[4]).sockets) == 2
    replaced(setup, 2, 4)

    (failure,) = done
    assert failure.check(ConfigError)
    assert "no such class" in str(failure.value)
    assert setup.workers.flow == before
    assert setup.names() == ["worker-5", "worker-2"]


def test_executors_that_end_while_workers_are_replaced_have_these_replaced_back(setup: Setup) -> None:
    setup.serving()
    before = setup.workers.flow
    setup.workers.replica_up(NEW, "unix:/a.1")
    starts = (Start(DeploymentConfig("a"), (NEW,)),)
    done = changing(setup, with_listener(before), NEW, starts=starts)
    setup.workers.replica_down(NEW)
    replaced(setup, 0, 2)
    assert len(start_of(setup.processes[3]).sockets) == 2
    replaced(setup, 2, 3)

    (failure,) = done
    assert failure.check(ConfigError)
    assert "executors.a: the new process of replica 0 had started" in str(failure.value)
    assert setup.workers.flow == before
    assert setup.names() == ["worker-4", "worker-2"]


def test_one_that_cannot_be_replaced_back_ends_and_is_started_until_it_serves(setup: Setup) -> None:
    setup.serving()
    done = changing(setup, with_listener(setup.workers.flow), OLD)
    replaced(setup, 0, 2)
    for failing in (3, 4):  # one with the new graph, and then one with the old
        send(setup.processes[failing], messages.Failed("OSError", "no memory"))
        setup.processes[failing].exit(1)

    assert len(start_of(setup.processes[5]).sockets) == 2
    assert setup.processes[2].signals == ["TERM"]
    assert not done  # its executors stay for what it has under way
    setup.processes[2].exit(0)
    (failure,) = done
    assert failure.check(ConfigError)
    assert "worker-3 has ended, as it served the new Flow, and worker-6 is started" in str(failure.value)
    assert "no memory" in str(failure.value)
    assert setup.names() == ["worker-6", "worker-2"]

    setup.processes[5].exit(1)
    setup.reactor.advance(1.0)
    assert len(start_of(setup.processes[6]).sockets) == 2
    assert all(os.fstat(ours) for ours in setup.processes[6].descriptors.values())
    setup.listen(setup.processes[6])
    send(setup.processes[6], messages.Serving())
    assert [state.serves for state in setup.workers.states()] == [True, True]


def test_a_replica_is_given_up_when_no_worker_has_calls_of_it_any_more(setup: Setup) -> None:
    setup.workers.replica_up(OLD, "unix:/a.0")
    setup.serving()
    setup.processes[0].exit(signal=9)  # it is started again, and then hears of others alone

    given_up = outcome(setup.workers.give_up(OLD))

    assert told(setup.processes[1])[-1] == messages.GiveUp("a", 0, 0)
    assert not given_up
    send(setup.processes[1], messages.GivenUp("a", 0, 0))
    assert given_up == [None]


def test_nor_is_a_worker_waited_for_that_ends_with_its_calls(setup: Setup) -> None:
    setup.workers.replica_up(OLD, "unix:/a.0")
    setup.serving()
    given_up = outcome(setup.workers.give_up(OLD))
    send(setup.processes[0], messages.GivenUp("a", 0, 0))

    setup.processes[1].exit(signal=9)

    assert given_up == [None]
    assert outcome(setup.workers.give_up(NEW)) == [None]  # it is not there


def test_nor_one_that_ends_before_it_listens(setup: Setup) -> None:
    setup.workers.replica_up(OLD, "unix:/a.0")
    setup.serving()
    setup.processes[0].exit(signal=9)
    setup.reactor.advance(1.0)
    given_up = outcome(setup.workers.give_up(OLD))
    send(setup.processes[1], messages.GivenUp("a", 0, 0))
    assert told(setup.processes[2])[-1] == messages.GiveUp("a", 0, 0)
    assert not given_up

    setup.processes[2].exit(signal=9)

    assert given_up == [None]


def test_nor_one_that_was_to_replace_another_and_cannot_serve(setup: Setup) -> None:
    setup.workers.replica_up(OLD, "unix:/a.0")
    setup.serving()
    replaced = outcome(Deferred.fromCoroutine(setup.workers.replace_all()))
    given_up = outcome(setup.workers.give_up(OLD))
    for each in setup.processes[:2]:
        send(each, messages.GivenUp("a", 0, 0))
    assert not given_up

    send(setup.processes[2], messages.Failed("ConfigError", "gateway.uses: no such class"))
    setup.processes[2].exit(1)

    assert given_up == [None]
    assert replaced[0].check(NotReplaced)


def test_nor_one_that_has_ended_and_whose_output_is_still_read(setup: Setup) -> None:
    setup.workers.replica_up(OLD, "unix:/a.0")
    setup.serving()
    killed = Failure(ProcessTerminated(None, 9))
    setup.processes[0].protocol.processExited(killed)
    given_up = outcome(setup.workers.give_up(OLD))

    send(setup.processes[1], messages.GivenUp("a", 0, 0))

    assert given_up == [None]
    setup.processes[0].protocol.processEnded(killed)


# -- health and figures --------------------------------------------------------------------------------


def measured(process: FakeProcess, number: int, requests: int) -> None:
    reading = Reading()
    reading.set(table.REQUESTS, requests, "http", "/x", "ok")
    reading.set(table.CONNECTIONS, 1, "http", "80")
    send(process, messages.Measured(number, reading.as_text()))


def test_the_figures_of_all_workers_are_one(setup: Setup) -> None:
    setup.serving()
    found: list[Reading] = []
    setup.workers.read().addCallback(found.append)
    setup.workers.read().addCallback(found.append)  # joins the first
    assert [told(each)[-1] for each in setup.processes] == [messages.Measure(1)] * 2

    measured(setup.processes[0], 1, 3)
    assert not found
    measured(setup.processes[1], 1, 4)

    assert [each.total(table.REQUESTS) for each in found] == [7, 7]
    assert found[0].number(table.CONNECTIONS, "http", "80") == 2
    assert found[0].number(table.SILENT, "worker") == 0
    assert found[0].total(table.WORKER_SERVES) == 2


def test_an_answer_that_arrives_after_the_end_is_not_counted_again(setup: Setup) -> None:
    setup.serving()
    setup.workers.read()
    measured(setup.processes[0], 1, 3)
    process = setup.processes[1]
    measured(process, 1, 4)
    process.exited = True
    process.protocol.processExited(Failure(ProcessTerminated(1)))
    measured(process, 1, 4)
    process.protocol.processEnded(Failure(ProcessTerminated(1)))
    found = outcome(setup.workers.read())
    measured(setup.processes[0], 2, 3)
    setup.reactor.advance(1.0)
    setup.listen(setup.processes[2])
    setup.processes[2].exit(1)
    later = outcome(setup.workers.read())
    measured(setup.processes[0], 3, 3)

    assert [each.total(table.REQUESTS) for each in (*found, *later)] == [7, 7]


def test_a_service_whose_workers_have_all_ended_has_figures_all_the_same(setup: Setup) -> None:
    setup.serving()
    for each in setup.processes:
        each.exit(1)
    assert outcome(setup.workers.read())[0].total(table.WORKER_SERVES) == 0


def test_a_replica_is_connected_if_a_worker_that_serves_is_connected_to_it(setup: Setup) -> None:
    setup.workers.start()
    assert setup.workers.health.phase == "starting"
    setup.serving_after_start()
    health = setup.workers.health
    assert (health.phase, health.has_started, health.workers) == ("serving", True, (2, 2))
    send(setup.processes[0], messages.Connected((messages.Part("a", 0, 0),)))
    send(setup.processes[1], messages.Connected((messages.Part("a", 0, 2),)))
    assert [each.connected for each in setup.workers.health.parts] == [2]
    setup.processes[1].exit(1)
    assert [each.connected for each in setup.workers.health.parts] == [0]
    assert setup.workers.health.workers == (1, 2)


def test_a_replica_out_of_reach_of_one_worker_is_told_of(setup: Setup) -> None:
    told: list[ReplicaId] = []
    setup.workers._tell_out_of_reach = told.append
    setup.serving()
    send(setup.processes[1], messages.OutOfReach("a", 0, 1, 2))

    assert told == [ReplicaId("a", 0, 1, 2)]


def test_the_load_of_all_workers_together_is_what_scales(setup: Setup) -> None:
    setup.serving()
    part, other = messages.PartLoad("a", 0, 2, 1), messages.PartLoad("b", 0, 9, 9)
    replica = messages.ReplicaLoad("a", 0, 1, in_flight=2)
    for each in setup.processes:
        send(each, messages.Loaded((part, other), (replica,)))
    assert setup.workers.loads([("a", 0)]) == {("a", 0): Load(4, 2)}
    assert setup.workers.in_flight() == {ReplicaId("a", 0, 1): 4}
    # What it had is lost with it, and asked for again at another one.
    setup.processes[1].exit(1)
    assert setup.workers.loads([("a", 0)]) == {("a", 0): Load(2, 1)}
