"""Reloads, with processes that are made up and a gateway that notes what it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure

from gatewayd.config import DeploymentConfig, ExecutorConfig, FlowConfig
from gatewayd.config.model import GatewayConfig
from gatewayd.config.scaling import ScalingConfig
from gatewayd.errors import ConfigError, Draining
from gatewayd.pool.replica_set import ReplicaGone
from gatewayd.service.changes import Changes
from gatewayd.service.reloading import NotReloaded, Reloaded, Reloading
from gatewayd.service.reserved import Reserved
from gatewayd.service.roster import Roster
from gatewayd.supervisor.replica_id import ReplicaId
from gatewayd.supervisor.supervisor import Supervisor
from tests.supervisor.fakes import FakeGroups, FakeProcess, FakeReactor

A = DeploymentConfig("a", executor=ExecutorConfig(uses="A"), timeout_ready_s=30)
B = DeploymentConfig("b", executor=ExecutorConfig(uses="B"), timeout_ready_s=30)
OTHER = attrs.evolve(A, executor=ExecutorConfig(uses="Other"))


class FakeServer:
    """The gateway. ``gone`` fires when the test says that the graph before has ended."""

    def __init__(self, flow: FlowConfig) -> None:
        self.flow = flow
        self.told: list[Any] = []
        self.refusal: Exception | None = None
        self.gone: Deferred[None] = Deferred()
        self.reserved = Reserved({})
        self.ends_at_once = False  # what has started
        self.finished: dict[ReplicaId, Deferred[None]] = {}

    def reserve(self, flow: FlowConfig, changes: Changes) -> Deferred[Reserved]:
        return succeed(self.reserved)

    async def change(
        self, flow: FlowConfig, changes: Changes, generation: int, reserved: Reserved
    ) -> Deferred[None]:
        if self.refusal is not None:
            raise self.refusal
        self.told.append(("change", generation))
        self.flow = flow
        return self.gone

    def admit(self, replica: ReplicaId, old: ReplicaId | None = None) -> None:
        self.told.append(("admit", replica))

    def known(self, replica: ReplicaId) -> Deferred[None]:
        self.told.append(("known", replica))
        return fail(ReplicaGone()) if self.ends_at_once else succeed(None)

    def give_up(self, replica: ReplicaId) -> Deferred[None]:
        self.told.append(("give up", replica))
        return self.finished.setdefault(replica, Deferred())


class Setup:
    """A gateway that serves ``deployments``; ``file`` is what its Flow file says now."""

    def __init__(self, *deployments: DeploymentConfig, **settings: Any) -> None:
        self.reactor = FakeReactor()
        self.file: FlowConfig | ConfigError = self.flow(*deployments, **settings)
        self.server = FakeServer(self.file)
        self.events: list[Any] = []
        self.code: dict[str, str] = {}
        self.supervisor = Supervisor(
            self.reactor,
            deployments,
            lambda replica, address: None,
            lambda replica: None,
            environment={},
            dice=lambda: 0.5,
            kill_group=FakeGroups().kill,
            code={"a": "", "b": ""},
            digest=lambda deployment, base_dir: succeed(self.code.get(deployment.name, "")),
        )
        self.supervisor.sockets = None
        self.supervisor.start()
        for process in self.processes:
            process.serve()
        self.roster = Roster(self.file, self.supervisor)
        self.reloading = Reloading(
            self._read,
            self.server,
            self.supervisor,
            self.roster,
            clock=self.reactor,
            offload=self._offload,
            on_event=self.events.append,
        )

    @staticmethod
    def flow(*deployments: DeploymentConfig, **settings: Any) -> FlowConfig:
        return FlowConfig(gateway=GatewayConfig(**settings), deployments=deployments)

    def _read(self) -> FlowConfig:
        if isinstance(self.file, ConfigError):
            raise self.file
        return self.file

    def _offload(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        if function.__name__ == "digests_of":
            return succeed({"a": "", "b": "", **self.code})
        if function.__name__ == "create":  # the folder of sockets
            return succeed(None)
        return maybeDeferred(function, *args, **kwargs)

    @property
    def processes(self) -> list[FakeProcess]:
        return self.reactor.processes

    def reload(self, *deployments: DeploymentConfig, **settings: Any) -> list[Any]:
        self.file = self.flow(*deployments, **settings)
        return outcome(self.reloading.reload())


def outcome(work: Deferred[Any]) -> list[Any]:
    """What it has fired with, if it has."""
    found: list[Any] = []
    work.addBoth(found.append)
    return found


def text_of(found: list[Any]) -> str:
    (failure,) = found
    failure.trap(NotReloaded)
    return str(failure.value)


def test_new_executors_serve_before_anything_changes_and_old_ones_end_after_what_they_have() -> None:
    setup = Setup(A)

    done = setup.reload(OTHER, B)

    assert [process.spec.executor.uses for process in setup.processes] == ["A", "Other", "B"]
    assert setup.server.told == []
    setup.processes[1].serve()
    setup.processes[2].serve()
    assert setup.server.told == [("change", 1)]
    (reloaded,) = done
    assert isinstance(reloaded, Reloaded)
    assert (reloaded.added, reloaded.changed, reloaded.kept) == (("b",), ("a",), ())
    assert setup.processes[0].signals == []
    setup.server.gone.callback(None)
    assert [process.signals for process in setup.processes] == [["TERM"], [], []]


def test_nothing_is_touched_where_nothing_has_changed() -> None:
    setup = Setup(A)

    (reloaded,) = setup.reload(A)

    assert str(reloaded) == "nothing has changed (0.0 s)"
    assert len(setup.processes) == 1


def test_a_mistake_in_the_file_changes_nothing_and_is_told_whole() -> None:
    setup = Setup(A)
    setup.file = ConfigError("flow.yml:3:3: one\nflow.yml:9:1: another")

    found = outcome(setup.reloading.reload())

    assert text_of(found) == "flow.yml:3:3: one\nflow.yml:9:1: another"
    assert setup.server.told == []
    assert [event["event"] for event in setup.events] == ["reloading", "not_reloaded"]


def test_an_executor_that_cannot_start_changes_nothing_and_the_others_of_the_reload_end() -> None:
    setup = Setup(A)
    done = setup.reload(A, B, attrs.evolve(B, name="c"))
    setup.processes[1].serve()

    setup.processes[2].report(event="failed", error="no module named models")
    setup.processes[2].exit(1)

    assert text_of(done) == "c/rep-0 cannot start: no module named models"
    assert setup.server.told == []
    assert [process.signals for process in setup.processes] == [[], ["TERM"], []]
    setup.reactor.advance(60.0)
    assert len(setup.processes) == 3  # it is not tried again
    setup.processes[1].exit(0)
    assert [state.deployment for state in setup.supervisor.states()] == ["a"]


def test_one_that_is_not_ready_in_time_is_such_a_one() -> None:
    setup = Setup(A)
    done = setup.reload(A, B)

    setup.reactor.advance(30.0)
    setup.processes[1].exit(signal=9)

    assert "not ready 30 s after its start (timeout_ready)" in text_of(done)


def test_a_port_or_a_certificate_that_cannot_be_had_ends_what_was_started() -> None:
    setup = Setup(A)
    setup.server.refusal = ConfigError("gateway.port: cannot listen")
    done = setup.reload(A, B)

    setup.processes[1].serve()

    assert text_of(done) == "gateway.port: cannot listen"
    assert setup.processes[1].signals == ["TERM"]
    # The next one starts from what serves.
    setup.server.refusal = None
    again = setup.reload(A, B)
    setup.processes[2].serve()
    assert again[0].added == ("b",)


def test_whatever_breaks_a_reload_off_its_end_is_told_and_the_next_one_runs(
    caught_failures: list[Failure],
) -> None:
    setup = Setup(A)
    setup.server.refusal = OSError("no memory")
    done = setup.reload(A, B)
    setup.processes[1].serve()

    text = "a bug: OSError('no memory'); the log has its traceback"
    assert text_of(done) == text
    assert setup.events == [{"event": "reloading"}, {"event": "not_reloaded", "error": text}]
    assert [failure.type for failure in caught_failures] == [OSError]
    caught_failures.clear()
    setup.server.refusal = None
    again = setup.reload(A, B)
    setup.processes[2].serve()
    assert again[0].added == ("b",)


def test_a_replacement_that_breaks_off_is_no_reload_that_systemd_waits_for(
    caught_failures: list[Failure],
) -> None:
    setup = Setup(A)
    setup.server.known = lambda replica: fail(OSError("no memory"))  # type: ignore[method-assign]
    replaced = outcome(setup.reloading.replace("a", 0, 0))
    setup.processes[1].serve()

    assert text_of(replaced) == "a bug: OSError('no memory'); the log has its traceback"
    assert setup.events == []
    assert [failure.type for failure in caught_failures] == [OSError]
    caught_failures.clear()


def test_what_a_process_cannot_change_is_refused() -> None:
    setup = Setup(A)

    assert "gateway.workers cannot be changed" in text_of(setup.reload(A, workers=2))
    assert len(setup.processes) == 1


def test_reloads_that_are_asked_for_meanwhile_are_one_that_reads_the_file_afterwards() -> None:
    setup = Setup(A)
    first = setup.reload(A, B)
    second = setup.reload(A)
    third = setup.reload(OTHER, B)
    assert len(setup.processes) == 2

    setup.processes[1].serve()
    assert first[0].added == ("b",)
    assert not second
    setup.processes[2].serve()

    assert second == third
    assert second[0].changed == ("a",)
    assert second[0].kept == ("b",)


def test_edited_code_is_taken_up_by_one_process_after_the_other() -> None:
    two = attrs.evolve(A, replicas=2)
    setup = Setup(two)
    first, second = ReplicaId("a", 0, 0), ReplicaId("a", 0, 1)
    setup.code["a"] = "edited"

    done = setup.reload(two)
    assert len(setup.processes) == 3
    setup.processes[2].serve()
    new = attrs.evolve(first, incarnation=1)
    assert setup.server.told == [
        ("admit", new),
        ("known", new),
        ("give up", first),
        ("admit", attrs.evolve(second, incarnation=1)),
    ]
    assert setup.processes[0].signals == []
    setup.server.finished[first].callback(None)
    assert setup.processes[0].signals == ["TERM"]
    setup.processes[3].serve()

    (reloaded,) = done
    assert (reloaded.edited, reloaded.kept) == (("a",), ())
    (nothing,) = setup.reload(two)
    assert str(nothing).startswith("nothing has changed")


def test_edited_code_that_cannot_start_leaves_the_old_processes() -> None:
    setup = Setup(A)
    setup.code["a"] = "edited"
    done = setup.reload(A)

    setup.processes[1].report(event="failed", error="SyntaxError")
    setup.processes[1].exit(1)

    assert text_of(done) == "executors.a: a/rep-0 cannot start: SyntaxError"
    assert setup.processes[0].signals == []
    # It is still another code than that which runs.
    setup.code["a"] = "repaired"
    again = setup.reload(A)
    setup.processes[2].serve()
    assert again[0].edited == ("a",)


def test_a_process_that_started_with_other_code_is_replaced_though_the_files_are_as_they_were() -> None:
    two = attrs.evolve(A, replicas=2)
    setup = Setup(two)
    setup.code["a"] = "edited"
    setup.processes[1].exit(1)
    setup.reactor.advance(1.0)
    setup.processes[2].serve()
    setup.code["a"] = ""  # put back

    done = setup.reload(two)
    setup.processes[3].serve()

    assert done[0].edited == ("a",)
    given_up = [replica for what, replica in setup.server.told if what == "give up"]
    assert given_up == [ReplicaId("a", 0, 1)]
    assert setup.processes[3].spec.runtime_name == "a/rep-1"
    (nothing,) = setup.reload(two)
    assert str(nothing).startswith("nothing has changed")
    assert len(setup.processes) == 4


def test_only_replicas_of_other_code_are_replaced_also_where_a_drain_took_up_the_new() -> None:
    two = attrs.evolve(A, replicas=2)
    setup = Setup(two)
    setup.code["a"] = "edited"
    setup.reloading.replace("a", 0, 0)
    setup.processes[2].serve()

    done = setup.reload(two)
    setup.processes[3].serve()

    assert done[0].edited == ("a",)
    given_up = [replica for what, replica in setup.server.told if what == "give up"]
    assert given_up == [ReplicaId("a", 0, 0), ReplicaId("a", 0, 1)]


def test_a_replica_is_replaced_by_itself_between_reloads() -> None:
    two = attrs.evolve(A, replicas=2)
    setup = Setup(two)
    first = setup.reload(two, B)

    replaced = outcome(setup.reloading.replace("a", 0, 1))
    assert len(setup.processes) == 3  # the reload goes first
    setup.processes[2].serve()
    assert first[0].added == ("b",)
    assert setup.processes[3].spec.runtime_name == "a/rep-1"
    setup.processes[3].serve()

    assert replaced == ["a, replica 1 is replaced by a new process"]
    old = ReplicaId("a", 0, 1)
    assert setup.server.told[-1] == ("give up", old)
    assert setup.processes[1].signals == []
    setup.server.finished[old].callback(None)
    assert setup.processes[1].signals == ["TERM"]
    # The next reload knows which ones run.
    (nothing,) = setup.reload(two, B)
    assert str(nothing).startswith("nothing has changed")


@pytest.mark.parametrize(
    ("which", "why"),
    [
        (("a", 0, 5), "there is no replica 5 of a, shard 0, that is started here"),
        (("other", 0, 0), "there is no replica 0 of other"),
        (("other", None, None), "there is no replica of other that is started here"),
        (("many", None, None), "there are 4 replicas of many that this may be: give shard and replica"),
        (("many", None, 0), "there are 2 replicas of many that this may be: give shard"),
        (("many", 1, None), "there are 2 replicas of many, shard 1, that this may be: give replica"),
        (("fixed", 0, 0), "a new process of fixed cannot listen at 127.0.0.1:7001 beside the old one"),
    ],
)
def test_one_that_cannot_be_replaced_stays(which: tuple[str, int, int], why: str) -> None:
    setup = Setup(A, DeploymentConfig("fixed", ports=(7001,)), DeploymentConfig("many", shards=2, replicas=2))

    assert why in text_of(outcome(setup.reloading.replace(*which)))
    assert len(setup.processes) == 6


def test_the_only_replica_needs_no_number() -> None:
    setup = Setup(A)
    replaced = outcome(setup.reloading.replace("a", None, None))
    setup.processes[1].serve()

    assert replaced == ["a, replica 0 is replaced by a new process"]


def test_a_replica_whose_new_process_cannot_start_stays() -> None:
    setup = Setup(A)
    replaced = outcome(setup.reloading.replace("a", 0, 0))
    setup.processes[1].exit(1)

    assert text_of(replaced).startswith("executors.a: a/rep-0 cannot start: exit code 1")
    assert setup.processes[0].signals == []


def test_a_replica_whose_new_process_ends_as_soon_as_it_serves_stays() -> None:
    setup = Setup(A)
    setup.server.ends_at_once = True
    replaced = outcome(setup.reloading.replace("a", 0, 0))
    setup.processes[1].serve()

    assert text_of(replaced).startswith("executors.a: its new process ended as soon as it had started")
    assert setup.processes[0].signals == []
    assert setup.processes[1].signals == ["TERM"]


def test_a_stop_ends_replacements_that_run_and_that_wait() -> None:
    setup = Setup(A)
    found = [outcome(setup.reloading.replace("a", 0, 0)) for _ in range(66)]
    assert "64 replicas wait to be replaced already" in text_of(found[-1])

    setup.reloading.stop()

    assert all(each[0].check(Draining) for each in found[:-1])


def test_a_stop_ends_a_reload_and_those_that_wait() -> None:
    setup = Setup(A)
    first, second = setup.reload(A, B), setup.reload(A)

    setup.reloading.stop()
    stopped = outcome(setup.supervisor.stop(1.0))

    assert first[0].check(Draining)
    assert second[0].check(Draining)
    assert outcome(setup.reloading.reload())[0].check(Draining)
    for process in setup.processes:
        process.exit(0)
    assert stopped == [None]


def test_the_summary_names_what_was_done() -> None:
    reloaded = Reloaded(1, 1.25, added=("x", "y"), edited=("z",), kept=("k",), settings=("cors",))

    assert str(reloaded) == "added x, y; new code of z; settings: cors; not touched: k (1.2 s)"
    assert str(attrs.evolve(reloaded, edited=(), outdated=("k",))) == (
        "added x, y; the old code, until a restart, of k; settings: cors; not touched: k (1.2 s)"
    )


@pytest.mark.parametrize("executor", ["A", "Other"])
def test_a_first_replica_that_was_started_meanwhile_is_taken_over_or_ends_with_its_requests(
    executor: str,
) -> None:
    resting = attrs.evolve(A, scaling=ScalingConfig(2, 0))
    setup = Setup(resting)
    old, late = ReplicaId("a", 0, 0), ReplicaId("a", 0, 1, incarnation=9)
    setup.roster.give_up(setup.server, [old], 1.0)
    setup.server.finished[old].callback(None)
    setup.processes[0].exit()

    done = setup.reload(attrs.evolve(resting, executor=ExecutorConfig(uses=executor)), B)
    setup.roster.add(resting, [late], ".")
    for process in setup.processes[1:]:
        process.serve()
    setup.server.gone.callback(None)

    assert isinstance(done[0], Reloaded)
    stays = executor == "A"
    assert (("admit", late) in setup.server.told) == stays
    assert (late in setup.roster.replicas) == stays
    assert (setup.processes[-1].signals == []) == stays
