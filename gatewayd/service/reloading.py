"""
Changes a gateway while it serves: reads the Flow again, and leads from what serves to what is to serve.

    idle ──> read, compare, bind ──> start what is new, or replace edited code ──> change ──> idle
                     │                                   │                           │
                     └───────────────────────────────────┴───────────────────────────┴──> idle, all as it was

What there is to do is decided in ``changes.py``. One reload runs at a time, and one waits: it reads the file
as it is when its turn comes, so that it stands for all that are asked for meanwhile. Reactor thread only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.clocks import Clock
from gatewayd.config import FlowConfig
from gatewayd.errors import ConfigError, Draining
from gatewayd.offload import Offload
from gatewayd.pool.replica_set import ReplicaGone
from gatewayd.service.changes import Changes, Start, changes_between, fixed_place
from gatewayd.service.reserved import Reserved
from gatewayd.service.roster import Roster
from gatewayd.supervisor.code import digests_of
from gatewayd.supervisor.replica_id import ReplicaId, is_private, started_of
from gatewayd.supervisor.sockets import SocketFolder
from gatewayd.supervisor.supervisor import NotStarted, Supervisor
from gatewayd.waiters import Waiters

log = Logger()

# Replacements of replicas that wait for their turn.
_MOST_WAITING: Final = 64
# For processes of a reload that was given up: they have no calls to finish.
_LOADING_GRACE_S: Final = 2.0


# A replica as whoever asks names it: Deployment, shard and replica.
_Which = tuple[str, int | None, int | None]


class Changeable(Protocol):
    """A gateway that serves: the ``Serving`` of one process, or ``Workers``."""

    @property
    def flow(self) -> FlowConfig:
        """What serves now."""
        ...

    def reserve(self, flow: FlowConfig, changes: Changes) -> Deferred[Reserved]:
        """Bind what ``flow`` listens at besides. Fails with ConfigError."""
        ...

    async def change(
        self, flow: FlowConfig, changes: Changes, generation: int, reserved: Reserved
    ) -> Deferred[None]:
        """
        Serve ``flow`` from now on. Raises ConfigError or Draining; then all is as it was.

        What is returned fires when nothing is left of what served before.
        """
        ...

    def admit(self, replica: ReplicaId, old: ReplicaId | None = None) -> None:
        """
        Call ``replica``, too, when it is up, wherever ``old`` is called.

        None is for all whose Flow has the executor of the one that serves.
        """
        ...

    def known(self, replica: ReplicaId) -> Deferred[None]:
        """Fires when ``replica`` can be called. Fails with ReplicaGone if it is down."""
        ...

    def give_up(self, replica: ReplicaId) -> Deferred[None]:
        """Call ``replica`` no more. Fires when what it has is answered."""
        ...


@attrs.frozen
class Reloaded:
    """
    What a reload has done: names of executors, and the gateway's keys and ports that changed.

    ``edited`` are executors whose processes were replaced one by one because of their code, ``outdated``
    those that run on with their old code until a restart. ``warnings`` are those of the Flow. ``str()`` is
    one line for people.
    """

    generation: int
    took_s: float
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [
            f"{what} {', '.join(names)}"
            for what, names in (
                ("added", self.added),
                ("changed", self.changed),
                ("removed", self.removed),
                ("new code of", self.edited),
                ("the old code, until a restart, of", self.outdated),
                ("settings:", self.settings),
                ("not touched:", self.kept),
            )
            if names
        ]
        something = self.added or self.changed or self.removed or self.edited or self.settings
        if not something:
            return f"nothing has changed ({self.took_s:.1f} s)"
        return f"{'; '.join(parts)} ({self.took_s:.1f} s)"


class NotReloaded(ConfigError):
    """Nothing has changed, and what served before serves on. ``str(error)`` says why, for whoever asked."""


class Reloading:
    """
    Reloads one gateway.

    ``read()`` reads the Flow file and checks it; it is called in a thread, and raises ConfigError.
    ``on_event`` gets ``{"event": "reloading"}``, then ``{"event": "reloaded", "generation": ..., "summary":
    text}`` or ``{"event": "not_reloaded", "error": text}``; ``on_reloaded()`` is called when it was.
    """

    def __init__(
        self,
        read: Callable[[], FlowConfig],
        server: Changeable,
        supervisor: Supervisor,
        roster: Roster,
        *,
        clock: Clock,
        offload: Offload,
        on_event: Callable[[Mapping[str, object]], None] = lambda event: None,
        on_reloaded: Callable[[], None] = lambda: None,
    ) -> None:
        self._read = read
        self._server = server
        self._supervisor = supervisor
        self._roster = roster
        self._clock = clock
        self._offload = offload
        self._on_event = on_event
        self._on_reloaded = on_reloaded
        self._generation = 0
        self._incarnation = 0  # of replicas that start
        self._working: Deferred[None] | None = None
        self._now: Waiters[Reloaded] = Waiters()  # of the one that runs
        self._after: Waiters[Reloaded] = Waiters()  # of the one that waits
        self._is_asked = False
        self._is_told = False  # that a reload runs, and not yet what came of it
        self._replacing: deque[tuple[_Which, Deferred[str]]] = deque()  # those that wait
        self._stopping = False

    @property
    def busy(self) -> bool:
        """Whether a reload runs."""
        return self._working is not None

    def reload(self) -> Deferred[Reloaded]:
        """
        Serve what the Flow file says now.

        Fails with NotReloaded, whose text says all that is wrong, or with Draining if the gateway is being
        stopped.
        """
        done = self._after.wait()
        self._is_asked = True
        self._go_on()
        return done

    def replace(self, deployment: str, shard: int | None, replica: int | None) -> Deferred[str]:
        """
        Replace one process of an executor: a new one serves before the old one ends, after its last answer.

        ``shard`` and ``replica`` may be None where there is one alone.
        Fires with a text, when the old one is called no more. Fails as ``reload`` does.
        """
        if len(self._replacing) >= _MOST_WAITING:
            return fail(NotReloaded(f"{_MOST_WAITING} replicas wait to be replaced already"))
        done: Deferred[str] = Deferred()
        self._replacing.append(((deployment, shard, replica), done))
        self._go_on()
        return done

    def stop(self) -> None:
        """The gateway is being stopped: end what runs, and fail what waits."""
        self._stopping = True
        self._roster.stop()
        self._after.fail(Draining())
        while self._replacing:
            _give(self._replacing.popleft()[1], Failure(Draining()))
        if self._working is not None:
            self._working.cancel()
        self._now.fail(Draining())

    def _go_on(self) -> None:
        if self._stopping:
            self._after.fail(Draining())
        elif self._working is None and (self._is_asked or self._replacing):
            if self._is_asked:
                self._is_asked = False
                self._now, self._after = self._after, Waiters()
                work = self._one()
            else:
                work = self._replace(*self._replacing.popleft())
            self._roster.busy = True
            self._working = working = Deferred.fromCoroutine(work)
            working.addBoth(self._ended)

    def _ended(self, result: Failure | None) -> None:
        self._working = None
        self._roster.busy = False
        if isinstance(result, Failure) and not result.check(CancelledError, Draining):
            log.failure("a reload failed", failure=result)
            text = _bug(result.value)
            if self._is_told:
                self._tell({"event": "not_reloaded", "error": text})
            self._now.fail(NotReloaded(text))
        self._now.fail(Draining())
        self._go_on()

    def _tell(self, event: Mapping[str, object]) -> None:
        self._is_told = event["event"] == "reloading"
        self._on_event(event)

    def _one_replica(self, name: str, shard: int | None, number: int | None) -> ReplicaId:
        """Raises NotReloaded if there is none, or if there are several."""
        those = [
            one
            for one in self._roster.replicas
            if one.deployment == name and shard in (None, one.shard) and number in (None, one.replica)
        ]
        what = "replica" if number is None else f"replica {number}"
        where = "" if shard is None else f", shard {shard},"
        if not those:
            raise NotReloaded(f"there is no {what} of {name}{where} that is started here")
        if len(those) > 1:
            missing = [
                word for word in ("shard", "replica") if len({getattr(one, word) for one in those}) > 1
            ]
            raise NotReloaded(
                f"there are {len(those)} replicas of {name}{where} that this may be: "
                f"give {' and '.join(missing)}"
            )
        return those[0]

    async def _replace(self, which: _Which, done: Deferred[str]) -> None:
        self._generation += 1
        self._incarnation = self._roster.next_incarnation()
        flow, (name, shard, number) = self._server.flow, which
        try:
            old = self._one_replica(name, shard, number)
            number = old.replica
            if (place := fixed_place(flow, old)) is not None:
                raise NotReloaded(f"a new process of {name} cannot listen at {place} beside the old one")
            await self._roll(flow, name, [old])
        except ConfigError as error:
            what = name if number is None else f"{name}, replica {number}"
            log.error("{what} is not replaced: {error}", what=what, error=error)
            _give(done, Failure(NotReloaded(str(error))))
        except (CancelledError, Draining, GeneratorExit):
            _give(done, Failure(Draining()))
            raise
        except BaseException as error:
            _give(done, Failure(NotReloaded(_bug(error))))
            raise
        else:
            log.info("{name}, replica {number} is replaced", name=name, number=number)
            _give(done, f"{name}, replica {number} is replaced by a new process")

    async def _one(self) -> None:
        began_s = self._clock.seconds()
        self._generation += 1
        self._incarnation = self._roster.next_incarnation()
        log.info("reloading the Flow")
        self._tell({"event": "reloading"})
        try:
            done = attrs.evolve(await self._reloaded(), took_s=self._clock.seconds() - began_s)
        except (ConfigError, NotStarted) as error:
            text = str(error)
            log.error("not reloaded, and what served before serves on: {error}", error=text)
            self._tell({"event": "not_reloaded", "error": text})
            self._now.fail(NotReloaded(text))
            return
        for warning in done.warnings:
            log.warn("{warning}", warning=warning)
        log.info("reloaded: {what}", what=str(done))
        self._on_reloaded()
        self._tell({"event": "reloaded", "generation": done.generation, "summary": str(done)})
        self._now.fire(done)

    async def _reloaded(self) -> Reloaded:
        new = await self._offload(self._read)
        code = await self._offload(digests_of, new.deployments, new.base_dir)
        running = self._roster.replicas
        edited = {each for each in running if self._is_of_other_code(each, code)}
        old = self._server.flow
        changes = changes_between(old, new, running, self._incarnation, edited)
        if changes.refusals:
            raise ConfigError("\n".join(changes.refusals))
        reserved = await self._server.reserve(new, changes)
        try:
            await self._start(changes.starts, new)
            try:
                for name, replicas in changes.rolled.items():
                    await self._roll(new, name, replicas)
                gone = await self._server.change(new, changes, self._generation, reserved)
            except BaseException:
                self._abandon(changes.starts)
                raise
        finally:
            reserved.release()
        ends = changes.ends
        if not changes.rolled:  # with which there is no new graph, and they have been counted already
            # Requests have had first replicas started meanwhile, which this reload does not know.
            late = self._roster.replicas - running
            stay = {each for each in late if _is_scaled_alike(new, old, each)}
            for each in stay:
                self._server.admit(each)
            self._roster.replicas = changes.replicas | stay
            ends = ends | (late - stay)
        self._roster.end_after(gone, ends, old.gateway.grace_period_s)
        return Reloaded(
            self._generation,
            0.0,
            added=changes.added,
            changed=changes.changed,
            removed=changes.removed,
            edited=tuple(changes.rolled),
            outdated=changes.outdated,
            kept=changes.kept,
            settings=changes.settings,
            warnings=new.warnings,
        )

    def _is_of_other_code(self, replica: ReplicaId, code: Mapping[str, str]) -> bool:
        """A process that crashed, or was replaced, runs what was on disk then, whatever the others run."""
        now, then = code.get(replica.deployment), self._supervisor.code_of(replica)
        return now is not None and then is not None and now != then

    async def _start(self, starts: Collection[Start], flow: FlowConfig) -> None:
        """Raises NotStarted if one cannot start; then none is left."""
        if not starts:
            return
        supervisor = self._supervisor
        if supervisor.sockets is None and any(is_private(start.deployment) for start in starts):
            supervisor.sockets = await self._offload(SocketFolder.create)
        replicas = [each for start in starts for each in start.replicas]
        try:
            for start in starts:
                supervisor.add(start.deployment, start.replicas, flow.base_dir)
            ready = supervisor.started(replicas)
            supervisor.start(replicas)
            await ready
        except BaseException:
            self._abandon(starts)
            raise

    async def _roll(self, flow: FlowConfig, name: str, replicas: Collection[ReplicaId]) -> None:
        """Replace each of ``replicas`` by one with the code as it is now. Raises ConfigError."""
        deployment = next(each for each in started_of(flow.deployments) if each.name == name)
        for count, old in enumerate(replicas):
            new = attrs.evolve(old, incarnation=self._incarnation)
            self._server.admit(new, old)
            try:
                await self._start([Start(deployment, (new,))], flow)
                clock: Any = self._clock
                await self._server.known(new).addTimeout(deployment.timeout_ready_s, clock)
            except BaseException as error:
                self._server.give_up(new)
                self._abandon([Start(deployment, (new,))])
                if isinstance(error, NotStarted | TimeoutError | ReplicaGone):
                    raise ConfigError(_not_rolled(name, error, count, len(replicas))) from error
                raise
            self._roster.replicas = self._roster.replicas | {new}
            self._roster.give_up(self._server, [old], flow.gateway.grace_period_s)

    def _abandon(self, starts: Collection[Start]) -> None:
        self._roster.end([each for start in starts for each in start.replicas], _LOADING_GRACE_S)


def _is_scaled_alike(new: FlowConfig, old: FlowConfig, replica: ReplicaId) -> bool:
    """Whether a replica that was started for ``old`` is one that may come and go in ``new``."""
    were, are = (
        [each for each in flow.deployments if each.name == replica.deployment] for flow in (old, new)
    )
    if not are or are[0].scaling is None:
        return False
    return (were[0].executor, were[0].shards) == (are[0].executor, are[0].shards)


def _not_rolled(name: str, error: Exception, done: int, of: int) -> str:
    why = str(error) if isinstance(error, NotStarted) else "its new process could not be called in time"
    if isinstance(error, ReplicaGone):
        why = "its new process ended as soon as it had started; the log says why"
    left = f"; {done} of {of} processes were replaced before" if done else ""
    return f"executors.{name}: {why}{left}"


def _bug(error: BaseException | None) -> str:
    return f"a bug: {error!r}; the log has its traceback"


def _give(done: Deferred[str], result: str | Failure) -> None:
    """Whoever waits for it may have left."""
    if not done.called:
        done.callback(result)
