"""
Replicas on Ray, as the supervisor sees them: a state machine for each, and the driver that they share.

              up                                   The states are those of ``process.py``. A replica that is
    starting ────> ready                           lost is placed anew, wherever there is room; it then has
       ^  │ lost     │ lost                        another actor and another address.
       │  v          v
       └── waiting <─┘    stop(): stopping, then stopped

The driver (``placement/ray_driver.py``) is a process of its own, which is started with the first replica and
ends after the last. Without it there is no telling what becomes of actors: those that are not detached end
with it, detached ones serve on and are found again by the next driver. Reactor thread only.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.backoff import Backoff
from gatewayd.config.ray import RayCluster, RayOptions
from gatewayd.supervisor.output import write_line
from gatewayd.supervisor.placement import Order
from gatewayd.supervisor.process import (
    STABLE_S,
    DelayedCall,
    ProcessReactor,
    ProcessState,
    ReplicaStatus,
    SupervisedProcess,
)
from gatewayd.waiters import Waiters

log = Logger()

# The driver loads Ray, and connects.
_DRIVER_READY_S: Final = 120.0
_DRIVER_GRACE_S: Final = 15.0
# How much longer than its grace the stop of a replica may take, before the driver's end ends it.
_STOP_MARGIN_S: Final = 15.0


class RayPlacement:
    """
    Replicas as actors of the Ray ``cluster``, for the Flow called ``name``.

    ``secret`` is what their executors demand of callers. ``detached`` says whether some of the Flow's
    replicas are to outlive the gateway; those of an earlier one, which this Flow has no more, are ended then.
    """

    def __init__(
        self,
        reactor: ProcessReactor,
        cluster: RayCluster,
        name: str | None,
        secret: str,
        *,
        detached: bool,
        base_dir: str,
        environment: Mapping[str, str],
        backoff: Backoff,
        dice: Callable[[], float],
        kill_group: Callable[[int, int], None],
    ) -> None:
        self.reactor = reactor
        self.backoff = backoff
        self.dice = dice
        self.secret = secret
        self._detached = detached
        # Without a name of its own nobody else's replicas are found, and nobody finds these.
        namespace = cluster.namespace or f"gatewayd-{name or uuid.uuid4().hex[:12]}"
        first = {
            **attrs.asdict(cluster),
            "namespace": namespace,
            "runtime_env": _absolute(cluster.runtime_env, base_dir),
        }
        self._line = json.dumps(first).encode() + b"\n"
        self._replicas: dict[str, RayReplica] = {}  # by the id of their start
        self._ids = itertools.count(1)
        self._ready = False
        self._started = False
        self._stopping = False
        self._swept = not detached
        self._process = SupervisedProcess(
            reactor,
            "ray",
            ["-m", "gatewayd.placement.ray_driver"],
            lambda: self._line,
            environment=environment,
            timeout_ready_s=_DRIVER_READY_S,
            backoff=backoff,
            dice=dice,
            kill_group=kill_group,
            on_up=lambda address: self._up(),
            on_down=self._down,
            on_failed=self._failed,
            on_report=self._reported,
            output=Logger(namespace="gatewayd.placement.ray"),
        )

    def place(self, order: Order) -> RayReplica:
        """It serves on whichever node Ray finds for it."""
        return RayReplica(self, order)

    def close(self) -> Deferred[None]:
        """End the driver, and with it all that is not detached."""
        self._stopping = True
        return self._process.stop(_DRIVER_GRACE_S) if self._started else succeed(None)

    # -- for replicas --------------------------------------------------------------------------------

    def begin(self, replica: RayReplica) -> str:
        """Have a replica placed, as soon as the cluster is connected. Returns the id of this start."""
        key = f"{replica.name}#{next(self._ids)}"
        self._replicas[key] = replica
        if self._ready:
            self._send(replica.message(key))
        elif not self._started:
            self._started = True
            self._process.start()
        return key

    def end(self, key: str, grace_s: float | None) -> bool:
        """Whether the driver can be told to end the replica; else there is nothing left of it."""
        if self._ready:
            self._send({"do": "stop", "id": key, "grace_s": grace_s})
        else:
            self._replicas.pop(key, None)
        return self._ready

    def forget(self, key: str) -> None:
        """Its events mean nothing any more."""
        self._replicas.pop(key, None)

    def look(self, key: str) -> None:
        """Find out whether the replica is dead, which is told as any death of it."""
        if self._ready:
            self._send({"do": "look", "id": key})

    def tell(self, key: str, line: str) -> None:
        """Write to the standard input of the replica's executor."""
        if self._ready:
            self._send({"do": "tell", "id": key, "line": line})

    def _send(self, message: Mapping[str, Any]) -> None:
        self._process.write_line(json.dumps(message).encode() + b"\n")

    # -- of the driver -------------------------------------------------------------------------------

    def _up(self) -> None:
        log.info("connected to the Ray cluster")
        self._ready = True
        for key, replica in tuple(self._replicas.items()):
            self._send(replica.message(key))
        if not self._swept:
            self._swept = True
            names = sorted({replica.actor_name for replica in self._replicas.values()})
            self._send({"do": "sweep", "names": names})

    def _down(self) -> None:
        self._ready = False
        for key, replica in tuple(self._replicas.items()):
            if replica.unwatched():
                self._replicas.pop(key, None)

    def _failed(self, error: str) -> None:
        self._ready = False
        for replica in tuple(self._replicas.values()):
            replica.not_connected(error)

    def _reported(self, event: Mapping[str, Any]) -> None:
        replica = self._replicas.get(str(event.get("id")))
        if replica is not None:
            replica.happened(str(event["id"]), event)


class RayReplica:
    """One replica on Ray: a PlacedReplica."""

    def __init__(self, engine: RayPlacement, order: Order) -> None:
        self._engine = engine
        self._order = order
        self._spec = attrs.evolve(order.spec, socket=None, port=0, secret=engine.secret)
        self._options = order.deployment.ray or RayOptions()
        self._output = Logger(namespace=f"executor.{self._spec.deployment}")
        self._state: ProcessState = "stopped"
        self._key: str | None = None  # of the start that runs
        self._serves: Mapping[str, Any] = {}
        self._restarts = 0
        self._failures = 0
        self._error: str | None = None
        self._last_words: str | None = None
        self._ready_at_s = 0.0
        self._timer: DelayedCall | None = None
        self._preparing: Deferred[None] | None = None
        self._stopped: Waiters[None] = Waiters()

    @property
    def name(self) -> str:
        """Its runtime name."""
        return self._spec.runtime_name

    @property
    def actor_name(self) -> str:
        """
        What its actors are called, before a suffix of their own.

        A detached one is found again by this name: it has a digest of all that it was started with.
        """
        if not self._options.detached:
            return f"{self.name}"
        started_with = (
            attrs.evolve(self._spec, secret=None, log_level="", base_dir="").to_line(),
            json.dumps(sorted(self._order.deployment.executor.env.items())).encode(),
            json.dumps(attrs.asdict(self._options), sort_keys=True, default=str).encode(),
            (self._order.code() or "").encode(),
        )
        digest = hashlib.blake2b(b"\0".join(started_with), digest_size=5).hexdigest()
        return f"{self.name}@{digest}"

    @property
    def status(self) -> ReplicaStatus:
        """A snapshot; ``pid`` is that of the executor on its node."""
        spec = self._spec
        return ReplicaStatus(
            spec.deployment,
            spec.shard,
            spec.replica,
            self._state,
            self._serves.get("address"),
            None,
            self._restarts,
            self._error,
            spec.runtime_name,
            self._serves.get("monitoring"),
            self._last_words,
            placement="ray",
            node=self._serves.get("ip"),
        )

    def start(self, *, prepared: bool = False) -> None:
        """Have it placed."""
        if prepared or self._order.before_start is None:
            self._begin()
        else:
            self._prepare(self._order.before_start)

    def stop(self, grace_s: float | None, *, leave: bool = False) -> Deferred[None]:
        """End it; with ``leave`` a detached one serves on."""
        done = self._stopped.wait()
        if self._state == "stopping":
            return done
        if self._preparing is not None:
            self._preparing.cancel()
        self._set_timer(None)
        key = self._key
        if key is None or (leave and self._options.detached):
            if key is not None:
                self._engine.forget(key)
            self._over()
            return done
        self._state = "stopping"
        if not self._engine.end(key, grace_s):
            self._over()
        elif grace_s is not None:
            late_s = grace_s + _STOP_MARGIN_S
            self._timer = self._engine.reactor.callLater(late_s, self._stop_is_late)
        return done

    def out_of_reach(self) -> None:
        """Its node may be dead, without having said so."""
        if self._key is not None and self._state == "ready":
            self._engine.look(self._key)

    def set_log_level(self, level: str) -> None:
        """In this actor, and in those after it."""
        self._spec = attrs.evolve(self._spec, log_level=level)
        if self._key is not None:
            self._engine.tell(self._key, json.dumps({"log_level": level}))

    # -- for the engine ------------------------------------------------------------------------------

    def message(self, key: str) -> Mapping[str, Any]:
        """What places it, or finds it again."""
        options, env = self._options, self._order.deployment.executor.env
        asked: dict[str, Any] = {
            "num_cpus": options.num_cpus,
            "num_gpus": options.num_gpus,
            "resources": dict(options.resources),
            "scheduling_strategy": options.scheduling_strategy,
        }
        if options.memory is not None:
            asked["memory"] = options.memory
        if options.runtime_env:
            asked["runtime_env"] = dict(options.runtime_env)
        return {
            "do": "place",
            "id": key,
            "name": self.actor_name,
            "spec": self._spec.to_line().decode(),
            "environment": dict(env),
            "options": asked,
            "demand": {
                "CPU": options.num_cpus,
                "GPU": options.num_gpus,
                "memory": options.memory or 0,
                **options.resources,
            },
            "detached": options.detached,
            "node_affinity": options.node_affinity,
            "tell": json.dumps({"secret": self._spec.secret, "log_level": self._spec.log_level}),
        }

    def happened(self, key: str, event: Mapping[str, Any]) -> None:
        """An event of the driver's; of an earlier start it means nothing any more."""
        if key != self._key:
            return
        match event["event"]:
            case "up" if self._state in ("starting", "ready"):
                self._up(event)
            case "pending" if self._state == "starting":
                self._error = str(event["why"])
                log.warn("{replica} is not placed yet: {why}", replica=self.name, why=self._error)
            case "line":
                fields = {"deployment": self._spec.deployment}
                write_line(self._output, self.name, event["line"], fields)
            case "lost" if self._state != "stopping":
                self._lost(str(event["error"]))
            case "stopped":
                self._over()

    def unwatched(self) -> bool:
        """The driver has ended. Returns whether there is nothing to be found again."""
        if self._state == "stopping":
            self._over()
            return True
        if not self._options.detached or self._state != "ready":
            self._down()
            self._state = "starting"
            self._error = "the process that speaks with the Ray cluster has ended; the log says why"
        return False

    def not_connected(self, error: str) -> None:
        """There is no cluster to place it on, yet."""
        if self._state == "starting":
            self._error = self._last_words = error
            self._order.on_failed(error)

    # -- its states ----------------------------------------------------------------------------------

    def _prepare(self, before_start: Callable[[], Deferred[None]]) -> None:
        self._state = "waiting"
        self._preparing = preparing = before_start()
        preparing.addBoth(self._prepared)

    def _prepared(self, result: Failure | None) -> None:
        self._preparing = None
        if isinstance(result, Failure):
            if result.check(CancelledError):
                return  # it is being stopped
            log.failure("before the start of {replica}", failure=result, replica=self.name)
        self._begin()

    def _begin(self) -> None:
        self._state = "starting"
        self._error = None
        self._key = self._engine.begin(self)
        limit_s = self._order.deployment.timeout_ready_s
        self._set_timer(self._engine.reactor.callLater(limit_s, self._not_ready, limit_s))

    def _up(self, event: Mapping[str, Any]) -> None:
        if self._state == "ready":
            if self._serves["address"] == event["address"]:
                return  # it was there all the time, without a driver
            self._down()
        self._set_timer(None)
        self._state = "ready"
        self._error = None
        self._ready_at_s = self._engine.reactor.seconds()
        self._serves = {name: event.get(name) for name in ("address", "ip", "node", "monitoring")}
        log.info(
            "{replica} serves at {address}, {how} Ray's node {node}",
            replica=self.name,
            address=event["address"],
            how="found again on" if event.get("found") else "on",
            node=event["node"],
        )
        self._order.on_up(str(event["address"]))

    def _down(self) -> None:
        was_up, self._serves = bool(self._serves), {}
        if was_up:
            self._order.on_down()

    def _lost(self, error: str) -> None:
        assert self._key is not None
        self._engine.forget(self._key)
        self._key = None
        was = self._state
        if was == "ready" and self._engine.reactor.seconds() - self._ready_at_s >= STABLE_S:
            self._failures = 0
        self._down()
        self._failures += 1
        self._state = "waiting"
        self._error = self._last_words = error
        delay_s = self._engine.backoff.delay_s(self._failures, self._engine.dice())
        log.error(
            "{replica} {what}; next start in {delay_s:.1f} s\n{error}",
            replica=self.name,
            what="ended" if was == "ready" else "could not start",
            delay_s=delay_s,
            error=error,
        )
        self._set_timer(self._engine.reactor.callLater(delay_s, self._restart))
        self._order.on_failed(error)

    def _restart(self) -> None:
        self._timer = None
        self._restarts += 1
        if self._order.before_start is None:
            self._begin()
        else:
            self._prepare(self._order.before_start)

    def _not_ready(self, limit_s: float) -> None:
        self._timer = None
        assert self._key is not None
        self._engine.end(self._key, 0.0)
        why = f": {self._error}" if self._error else ""
        self._lost(f"not ready {limit_s} s after its start (timeout_ready){why}")

    def _stop_is_late(self) -> None:
        self._timer = None
        log.warn("{replica} has not stopped, and ends with this gateway's driver", replica=self.name)
        self._over()

    def _over(self) -> None:
        self._set_timer(None)
        if self._key is not None:
            self._engine.forget(self._key)
            self._key = None
        self._down()
        self._state = "stopped"
        self._stopped.fire(None)

    def _set_timer(self, timer: DelayedCall | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer


def _absolute(runtime_env: Mapping[str, Any], base_dir: str) -> dict[str, Any]:
    """Folders that Ray uploads start at the Flow file's."""
    from pathlib import Path

    def at(place: Any) -> Any:
        return str(Path(base_dir, place)) if isinstance(place, str) and "://" not in place else place

    found = dict(runtime_env)
    if "working_dir" in found:
        found["working_dir"] = at(found["working_dir"])
    if isinstance(found.get("py_modules"), list | tuple):
        found["py_modules"] = [at(each) for each in found["py_modules"]]
    return found
