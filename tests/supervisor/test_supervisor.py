"""The supervisor with processes that are made up, and a few that are real."""

import json
import os
import signal
import subprocess
import sys

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from gatewayd.backoff import Backoff
from gatewayd.config import DeploymentConfig, ExecutorConfig
from gatewayd.errors import Draining
from gatewayd.supervisor.process import RESTART_BACKOFF
from gatewayd.supervisor.replica_id import ReplicaId, replicas_of
from gatewayd.supervisor.supervisor import NotStarted, Supervisor
from tests.paths import ROOT
from tests.processes import runs
from tests.supervisor.fakes import FakeGroups, FakeReactor
from tests.waiting import until, until_on_reactor

EXECUTORS = str(ROOT / "tests" / "executors.py")
PARENTS = str(ROOT / "tests" / "parents.py")
SEARCH = DeploymentConfig("search", replicas=2, executor=ExecutorConfig(uses="Rec"), timeout_ready_s=30)
ONE = DeploymentConfig("one", executor=ExecutorConfig(uses="Rec"), timeout_ready_s=30)
MINIMAL = {"PATH": "/bin"}
STEADY = Backoff(first_s=1.0, ceiling_s=5.0)


def named(replica: ReplicaId) -> tuple[str, int, int]:
    return replica.deployment, replica.shard, replica.replica


class Setup:
    def __init__(self, *deployments, inherit=MINIMAL, **options):
        self.reactor, self.events, self.groups = FakeReactor(), [], FakeGroups()
        self.supervisor = Supervisor(
            self.reactor,
            deployments,
            lambda replica, address: self.events.append(("up", *named(replica), address)),
            lambda replica: self.events.append(("down", *named(replica))),
            environment=inherit,
            backoff=STEADY,
            dice=lambda: 0.5,
            kill_group=self.groups.kill,
            **options,
        )
        self.supervisor.start()

    @property
    def processes(self):
        return self.reactor.processes

    @property
    def only(self):
        (state,) = self.supervisor.states()
        return state


SUPERVISING = """
import json, os, sys
from twisted.internet import reactor
from gatewayd.backoff import Backoff
from gatewayd.config import DeploymentConfig, ExecutorConfig
from gatewayd.supervisor.process import RESTART_BACKOFF
from gatewayd.supervisor.replica_id import ReplicaId, replicas_of
from gatewayd.supervisor.supervisor import NotStarted, Supervisor
from tests.paths import ROOT

several = DeploymentConfig("rec", replicas=2, executor=ExecutorConfig())
supervisor = Supervisor(reactor, [several], lambda *up: None, lambda *down: None)
def tell(_):
    print(json.dumps([state.pid for state in supervisor.states()]), flush=True)
reactor.callWhenRunning(supervisor.start)
supervisor.ready().addCallback(tell)
reactor.run()
"""


def outcome(deferred: Deferred) -> list:
    seen: list = []
    deferred.addBoth(seen.append)
    return seen


def test_every_replica_and_shard_of_a_deployment_gets_a_process_but_none_of_an_external_one():
    sharded = DeploymentConfig("sharded", shards=2, ports=(7001, 7002))
    there = DeploymentConfig("there", external=True, addresses=("10.0.0.1:80",))

    setup = Setup(SEARCH, sharded, there)

    specs = [process.spec for process in setup.processes]
    assert [(spec.runtime_name, spec.port) for spec in specs] == [
        ("search/rep-0", 0),
        ("search/rep-1", 0),
        ("sharded/shard-0/rep-0", 7001),
        ("sharded/shard-1/rep-0", 7002),
    ]


def test_a_process_gets_the_environment_of_its_deployment():
    executor = ExecutorConfig(env={"MODEL": "small"})

    (process,) = Setup(DeploymentConfig("one", executor=executor)).processes

    assert process.env == {"PATH": "/bin", "MODEL": "small", "PYTHONUNBUFFERED": "1"}


def test_ready_fires_when_every_replica_serves():
    setup = Setup(SEARCH)
    ready = outcome(setup.supervisor.ready())

    setup.processes[1].serve()
    assert ready == []
    setup.processes[0].serve()

    assert ready == [None]
    assert setup.events == [
        ("up", "search", 0, 1, "127.0.0.1:1001"),
        ("up", "search", 0, 0, "127.0.0.1:1000"),
    ]


def test_ready_can_be_given_up_by_one_of_two_who_wait():
    setup = Setup(ONE)
    impatient, patient = setup.supervisor.ready(), setup.supervisor.ready()
    given_up, waited = outcome(impatient), outcome(patient)

    impatient.cancel()
    setup.processes[0].serve()

    assert isinstance(given_up[0], Failure)
    assert waited == [None]


def test_a_crashed_replica_is_down_and_started_again_after_a_growing_delay():
    setup = Setup(ONE)
    setup.processes[0].serve()
    setup.processes[0].exit(signal=signal.SIGSEGV)

    assert setup.events[-1] == ("down", "one", 0, 0)
    assert setup.only.state == "waiting"
    assert setup.only.error == "killed by SIGSEGV"
    setup.reactor.advance(1.0)
    setup.processes[1].exit(code=1)
    setup.reactor.advance(1.9)
    assert len(setup.processes) == 2
    setup.reactor.advance(0.1)
    assert len(setup.processes) == 3
    setup.processes[2].serve()
    assert setup.events[-1] == ("up", "one", 0, 0, "127.0.0.1:1002")
    assert setup.only.restarts == 2


def test_a_replica_that_ran_for_long_starts_again_as_quickly_as_the_first_time():
    setup = Setup(ONE)
    for _ in range(3):
        setup.processes[-1].exit(code=1)
        setup.reactor.advance(5.0)
    setup.processes[-1].serve()
    setup.reactor.advance(10.0)

    setup.processes[-1].exit(code=1)
    before = len(setup.processes)
    setup.reactor.advance(1.0)

    assert len(setup.processes) == before + 1


def test_a_replica_that_cannot_start_says_why():
    setup = Setup(ONE)
    ready = outcome(setup.supervisor.ready())

    setup.processes[0].report(event="failed", error="Traceback: model.py is missing")
    setup.processes[0].exit(code=1)

    assert setup.only.error == "Traceback: model.py is missing"
    assert setup.only.state == "waiting"
    assert ready == []


def test_only_a_replica_that_has_never_served_is_reported_as_failed():
    failed = []
    setup = Setup(DeploymentConfig("a"), on_failed=lambda *what: failed.append(what))
    setup.processes[0].report(event="failed", error="Traceback ...")
    setup.processes[0].exit(1)
    assert failed == [("a/rep-0", "Traceback ...")]

    setup.reactor.advance(2.0)
    setup.processes[1].report(event="ready", address="127.0.0.1:1")
    setup.processes[1].exit(1)
    assert len(failed) == 1


def test_the_last_lines_of_stderr_are_kept_as_the_reason():
    setup = Setup(ONE)
    setup.processes[0].protocol.childDataReceived(2, b"loading\nMemory")
    setup.processes[0].protocol.childDataReceived(2, b"Error: no room")
    setup.processes[0].exit(code=3)

    assert setup.only.error == "exit code 3\nloading\nMemoryError: no room"


def test_a_replica_that_is_not_ready_in_time_is_killed_and_started_again():
    setup = Setup(ONE)

    setup.reactor.advance(30.0)
    assert setup.processes[0].signals == ["KILL"]
    setup.processes[0].exit(signal=signal.SIGKILL)
    assert "not ready 30 s after" in setup.only.error
    setup.reactor.advance(1.0)

    assert len(setup.processes) == 2


def test_a_process_whose_children_hold_its_output_open_still_counts_as_ended():
    setup = Setup(ONE)
    setup.processes[0].serve()

    setup.processes[0].protocol.processExited(Failure(ProcessTerminated(1)))
    assert setup.events[-1] == ("down", "one", 0, 0)
    setup.reactor.advance(0.5)

    assert setup.only.state == "waiting"


def test_a_process_that_cannot_be_made_is_tried_again():
    class FullReactor(FakeReactor):
        def spawnProcess(self, *args, **kwargs):
            raise OSError("no more processes")

    full = FullReactor()
    supervisor = Supervisor(
        full, [ONE], lambda *up: None, lambda *down: None, backoff=STEADY, dice=lambda: 0.5
    )
    supervisor.start()

    full.advance(1.0)

    (state,) = supervisor.states()
    assert (state.state, state.error, state.restarts) == ("waiting", "no more processes", 1)


def test_stop_terminates_then_kills_and_fires_when_all_have_ended():
    setup = Setup(SEARCH)
    for process in setup.processes:
        process.serve()
    stopped = outcome(setup.supervisor.stop(2.0))
    polite, stubborn = setup.processes

    polite.exit()
    setup.reactor.advance(2.0)
    assert (polite.signals, stubborn.signals) == (["TERM"], ["TERM", "KILL"])
    assert stopped == []
    stubborn.exit(signal=signal.SIGKILL)

    assert stopped == [None]
    assert {state.state for state in setup.supervisor.states()} == {"stopped"}
    setup.reactor.advance(100.0)
    assert len(setup.processes) == 2
    assert setup.reactor.getDelayedCalls() == []


def test_stop_while_a_restart_waits_starts_nothing_more():
    setup = Setup(ONE)
    ready = outcome(setup.supervisor.ready())
    setup.processes[0].exit(code=1)

    stopped = outcome(setup.supervisor.stop(2.0))

    assert stopped == [None]
    assert ready[0].check(Draining)
    assert setup.reactor.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("failures", "dice", "expected"), [(1, 0.5, 0.1), (1, 1.0, 0.12), (1, 0.0, 0.08), (99, 0.5, 15.0)]
)
def test_the_delay_is_bounded_and_spread(failures, dice, expected):
    assert RESTART_BACKOFF.delay_s(failures, dice) == pytest.approx(expected)


def test_what_a_process_leaves_behind_is_terminated_then_killed_before_it_starts_again():
    setup = Setup(ONE)
    setup.processes[0].serve()
    setup.groups.alive.add(1000)

    setup.processes[0].exit(code=1)
    assert setup.groups.signals == [(1000, signal.SIGTERM)]
    assert setup.events[-1] == ("down", "one", 0, 0)
    setup.reactor.advance(0.4)
    assert setup.groups.signals == [(1000, signal.SIGTERM)]
    setup.reactor.advance(0.1)

    assert setup.groups.signals == [(1000, signal.SIGTERM), (1000, signal.SIGKILL)]
    assert setup.only.state == "waiting"


def test_a_stop_is_over_when_what_was_left_behind_has_ended():
    setup = Setup(ONE)
    setup.processes[0].serve()
    setup.groups.alive.add(1000)
    stopped = outcome(setup.supervisor.stop(0.2))

    setup.processes[0].exit()
    assert (setup.processes[0].signals, stopped) == (["TERM"], [])
    setup.groups.alive.clear()
    setup.reactor.advance(0.5)

    assert stopped == [None]
    assert setup.groups.signals == [(1000, signal.SIGTERM)]


def test_a_process_that_does_not_stop_is_killed_with_its_children():
    setup = Setup(ONE)
    setup.processes[0].serve()
    setup.groups.alive.add(1000)
    setup.supervisor.stop(2.0)

    setup.reactor.advance(2.0)

    assert setup.groups.signals == [(1000, signal.SIGKILL)]
    setup.groups.alive.clear()
    setup.processes[0].exit(signal=signal.SIGKILL)
    assert setup.only.state == "stopped"


# -- real processes ----------------------------------------------------------------------------------


# -- in parts ------------------------------------------------------------------------------------------


def test_replicas_are_added_beside_those_that_run_and_waited_for_by_themselves():
    setup = Setup(SEARCH)
    added = replicas_of(ONE, incarnation=1)

    setup.supervisor.add(ONE, added, "/elsewhere")
    started = outcome(setup.supervisor.started(added))
    setup.supervisor.start(added)

    assert [process.spec.runtime_name for process in setup.processes] == [
        "search/rep-0",
        "search/rep-1",
        "one/rep-0",
    ]
    assert setup.processes[2].spec.base_dir == "/elsewhere"
    assert started == []
    setup.processes[2].serve()
    assert started == [None]


def test_the_first_failure_of_one_that_is_added_is_told_and_the_others_go_on():
    setup = Setup(ONE)
    setup.processes[0].serve()
    added = replicas_of(SEARCH, incarnation=1)
    setup.supervisor.add(SEARCH, added, ".")
    started = outcome(setup.supervisor.started(added))
    setup.supervisor.start(added)

    setup.processes[1].serve()
    setup.processes[2].report(event="failed", error="no module named models")
    setup.processes[2].exit(1)

    (failure,) = started
    assert failure.check(NotStarted)
    assert str(failure.value) == "search/rep-1 cannot start: no module named models"
    assert setup.events[-1][0] == "up"


def test_ending_some_leaves_the_others_alone_and_forgets_them():
    setup = Setup(SEARCH, ONE)
    for process in setup.processes:
        process.serve()

    ended = outcome(setup.supervisor.end(replicas_of(ONE), 2.0))

    assert [process.signals for process in setup.processes] == [[], [], ["TERM"]]
    assert ended == []
    setup.processes[2].exit(0)
    assert ended == [None]
    assert [state.deployment for state in setup.supervisor.states()] == ["search", "search"]
    assert setup.events[-1] == ("down", "one", 0, 0)


def test_a_stop_ends_a_start_in_parts_as_well():
    setup = Setup(ONE)
    setup.processes[0].serve()
    added = replicas_of(SEARCH, incarnation=1)
    setup.supervisor.add(SEARCH, added, ".")
    started = outcome(setup.supervisor.started(added))
    setup.supervisor.start(added)

    outcome(setup.supervisor.stop(1.0))

    assert started[0].check(Draining)
    assert [process.signals for process in setup.processes] == [["TERM"]] * 3


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_killed_replica_serves_again_and_stop_leaves_no_process(monkeypatch):
    def no_fork():
        raise AssertionError("os.fork was called: the process must be spawned")

    monkeypatch.setattr(os, "fork", no_fork)
    ups, downs = [], []
    deployment = DeploymentConfig("rec", executor=ExecutorConfig(uses="Rec", py_modules=(EXECUTORS,)))
    supervisor = Supervisor(
        reactor,
        [deployment],
        lambda *up: ups.append(up),
        lambda *down: downs.append(down),
        environment={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        supervisor.start()
        await supervisor.ready()
        first = supervisor.states()[0].pid

        os.kill(first, signal.SIGKILL)
        await until_on_reactor(reactor, lambda: len(ups) == 2)

        assert downs == [(ReplicaId("rec", 0, 0),)]
        second = supervisor.states()[0].pid
        assert second != first
    finally:
        await supervisor.stop(5.0)
    for pid in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest_twisted.ensureDeferred
async def test_a_class_that_is_missing_is_reported_with_its_file():
    deployment = DeploymentConfig("rec", executor=ExecutorConfig(uses="Nobody", py_modules=(EXECUTORS,)))
    supervisor = Supervisor(
        reactor,
        [deployment],
        lambda *up: None,
        lambda *down: None,
        environment={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        supervisor.start()
        await until_on_reactor(reactor, lambda: supervisor.states()[0].state == "waiting")

        error = supervisor.states()[0].error
        assert "there is no Executor class Nobody" in error
        assert f"no Executor class Nobody (looked in: {EXECUTORS})" in error
    finally:
        await supervisor.stop(5.0)


@pytest.mark.slow
def test_executors_end_when_their_supervisor_is_killed():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISING], stdout=subprocess.PIPE, env=environment
    ) as supervising:
        pids = json.loads(supervising.stdout.readline())
        supervising.kill()

    until(lambda: not any(map(runs, pids)), what="the end of the executors with their supervisor")


def test_a_replica_that_reported_ready_but_has_exited_is_never_reported_as_up():
    setup = Setup(ONE)
    (process,) = setup.processes
    reason = Failure(ProcessTerminated(3))
    process.exited = True

    process.protocol.processExited(reason)
    process.serve()  # its report was still in the pipe
    process.protocol.processEnded(reason)

    assert setup.events == []
    assert setup.only.state == "waiting"


def test_output_beyond_a_thousand_lines_a_second_is_counted_instead_of_logged():
    setup = Setup(ONE)
    (process,) = setup.processes
    with capturedLogs() as events:
        process.protocol.childDataReceived(1, b"x\n" * 32_768)
        setup.reactor.advance(1.0)
        process.protocol.childDataReceived(1, b"later\n")

    lines = [event["line"] for event in events if "line" in event]
    assert lines == ["x"] * 1000 + ["later"]
    assert [event["count"] for event in events if "count" in event] == [31_768]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fork", "popen", "stubborn"])
@pytest_twisted.ensureDeferred
async def test_no_child_outlives_its_executor(tmp_path, kind):
    def children():
        return [int(line) for line in pids.read_text().splitlines()]

    pids, ups = tmp_path / "pids", []
    executor = ExecutorConfig(
        uses="Parent", py_modules=(PARENTS,), uses_with={"pids": str(pids), "kind": kind}
    )
    supervisor = Supervisor(
        reactor,
        [DeploymentConfig("parent", executor=executor)],
        lambda *up: ups.append(up),
        lambda *down: None,
        environment={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        supervisor.start()
        await supervisor.ready()
        pid = supervisor.states()[0].pid
        assert os.getpgid(pid) == pid
        assert runs(children()[0])

        os.kill(pid, signal.SIGKILL)
        await until_on_reactor(reactor, lambda: len(ups) == 2)
        assert not runs(children()[0])
        assert runs(children()[1])
    finally:
        await supervisor.stop(5.0)
    await until_on_reactor(reactor, lambda: not runs(children()[1]))


def test_lines_have_the_priority_that_stands_before_them():
    setup = Setup(ONE)
    lines = b"plain\n<7>fine\n<5>done\n<4>odd\n<3>bad\n<2>worse\n<9>text\n<4\n<>\n"
    with capturedLogs() as logs:
        setup.processes[0].protocol.childDataReceived(2, lines)

    found = [(event["log_level"].name, event["line"]) for event in logs]
    assert found == [
        ("info", "plain"),
        ("debug", "fine"),
        ("info", "done"),
        ("warn", "odd"),
        ("error", "bad"),
        ("critical", "worse"),
        ("info", "<9>text"),
        ("info", "<4"),
        ("info", "<>"),
    ]
    assert {event["log_namespace"] for event in logs} == {"executor.one"}


def test_priorities_are_not_in_what_is_told_of_an_executor_that_ends():
    setup = Setup(ONE)
    setup.processes[0].protocol.childDataReceived(2, b"<3>MemoryError: no room\n")
    setup.processes[0].exit(1)

    assert setup.only.error == "exit code 1\nMemoryError: no room"


def test_executors_are_told_of_their_level_and_begin_with_it_when_they_start_again():
    setup = Setup(ONE, log_level=lambda name: "warn")
    (first,) = setup.processes
    assert first.spec.log_level == "warn"

    setup.supervisor.set_log_levels(lambda name: "debug" if name == "one" else "info")
    assert json.loads(first.lines[1]) == {"log_level": "debug"}
    first.exit(1)
    setup.reactor.advance(1.0)

    assert setup.processes[1].spec.log_level == "debug"


def test_a_process_waits_until_its_code_was_looked_at_and_a_stop_does_not():
    looks = []

    def look(deployment, base_dir):
        looks.append(Deferred())
        return looks[-1]

    setup = Setup(ONE, code={"one": "first"}, digest=look)
    replica = ReplicaId("one", 0, 0)
    assert (len(setup.processes), setup.supervisor.code_of(replica)) == (1, "first")

    setup.processes[0].exit(1)
    setup.reactor.advance(5.0)
    assert len(setup.processes) == 1
    looks[0].callback("second")
    assert (len(setup.processes), setup.supervisor.code_of(replica)) == (2, "second")

    setup.processes[1].exit(1)
    setup.reactor.advance(5.0)
    stopped = setup.supervisor.stop(1.0)
    assert stopped.called
    assert len(setup.processes) == 2


def test_a_replica_that_is_being_replaced_is_counted_once_and_one_that_is_ended_not_at_all():
    setup = Setup(SEARCH)
    first, second = replicas_of(SEARCH)
    setup.processes[0].serve()
    assert setup.supervisor.serving() == (1, 2)
    setup.processes[1].serve()
    assert setup.supervisor.serving() == (2, 2)

    new = ReplicaId("search", 0, 0, 1)
    setup.supervisor.add(SEARCH, [new], ".")
    setup.supervisor.start([new])
    assert setup.supervisor.serving() == (2, 2)
    setup.processes[2].serve()
    setup.supervisor.end([first], 1.0)
    assert setup.supervisor.serving() == (2, 2)
    setup.processes[1].exit(1)
    assert setup.supervisor.serving() == (1, 2)
    setup.supervisor.end([second], 1.0)
    assert setup.supervisor.serving() == (1, 1)


def test_the_log_says_first_why_a_process_ended_and_then_what_it_wrote_last():
    setup = Setup(ONE)
    with capturedLogs() as events:
        setup.processes[0].serve()
        setup.processes[0].protocol.childDataReceived(2, b"INFO Rank: rank is here\n\n")
        setup.processes[0].exit(signal=9)
        setup.reactor.advance(5.0)
        setup.processes[1].exit(3)
        setup.reactor.advance(5.0)
        setup.processes[2].report(event="failed", error="Traceback ...\nImportError: no rank")
        setup.processes[2].exit(1)

    assert [event["why"] for event in events if "why" in event] == [
        "killed by SIGKILL; its last output: INFO Rank: rank is here",
        "exit code 3",
        "ImportError: no rank",
    ]
