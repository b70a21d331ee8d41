"""
``python -m gatewayd.placement.ray_driver``: the process that speaks with a Ray cluster for a gateway.

Ray blocks, and has threads and a gRPC of its own: none of it is loaded into the gateway. Lines of JSON come
from standard input, and go to descriptor 3. The first one describes the cluster (``address``, ``namespace``,
...); when it is connected, ``{"event": "ready"}`` is reported, or why it is not. Then:

    {"do": "place", "id": ..., "name": ..., "spec": ..., "options": ...}   a replica, or a detached one again
    {"do": "tell", "id": ..., "line": ...}                                 for the executor's standard input
    {"do": "look", "id": ...}                                              the gateway cannot reach it
    {"do": "stop", "id": ..., "grace_s": ...}
    {"do": "sweep", "names": [...]}                                        detached ones with other names end

    {"event": "up", "id": ..., "address": ..., "node": ..., "pid": ..., "found": whether it ran already}
    {"event": "pending", "id": ..., "why": ...}
    {"event": "lost", "id": ..., "error": ...}                             it has ended, or could not start
    {"event": "line", "id": ..., "descriptor": ..., "line": ...}
    {"event": "stopped", "id": ...}

Actors that are not detached belong to this process, and end with it, which ends with its standard input.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

from gatewayd.executor import group
from gatewayd.placement import ray_words
from gatewayd.placement.ray_actor import Owner, ReplicaActor

REPORT_FD: Final = 3
# What an address begins with where Ray's client speaks with a cluster that this machine is no node of.
_CLIENT: Final = "ray://"
# Ray tries for minutes to connect.
_CONNECT_S: Final = 30.0
# A replica that has no node by then is told of.
_PENDING_S: Final = 5.0
# How long the owner of before, whose process has ended, may still be known to the cluster.
_OWNED_S: Final = 15.0
# Beyond the grace of a stop: for the way to the actor and back.
_STOP_MARGIN_S: Final = 5.0
_OWNER: Final = "owner"
# How long a node that broke off gets nothing more. By then Ray knows whether it lives.
_SUSPECT_S: Final = 30.0
# An actor does nothing else than to answer.
_LOOK_S: Final = 2.0
# Ray waits for this long for the reason of a death before it tells of it; 1 s is its default.
_DEATH_INFO_MS: Final = ("RAY_timeout_ms_task_wait_for_death_info", "100")


class Driver:
    """
    The actors of one gateway. ``report`` is called with each event, ``ray`` is the module.

    ``broken`` is called when Ray answers with what it never should: its connection to the cluster has ended,
    or there is a mistake here. All runs on one asyncio loop; what blocks in Ray runs in threads.
    """

    def __init__(
        self,
        ray: Any,
        namespace: str,
        report: Callable[[Mapping[str, Any]], None],
        broken: Callable[[BaseException], None],
    ) -> None:
        self._ray = ray
        self._namespace = namespace
        self._report = report
        self._broken = broken
        self._actors: dict[str, Any] = {}  # by id
        self._names: dict[str, str] = {}  # of actors, by id
        self._tasks: set[asyncio.Task[None]] = set()
        self._placing: dict[str, asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(16, "ray")
        self._adopting = asyncio.Lock()
        self._owner: Any = None
        self._nodes: dict[str, str] = {}  # of replicas that serve, by id
        self._suspects: dict[str, float] = {}  # nodes that broke off, and when
        self._replica = ray.remote(ReplicaActor)

    def obey(self, message: Mapping[str, Any]) -> None:
        """Begin what a line asks for."""
        task = asyncio.get_running_loop().create_task(self._obey(message))
        self._tasks.add(task)
        task.add_done_callback(self._obeyed)
        if message["do"] == "place":
            self._placing[message["id"]] = task

    def _obeyed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._broken(error)

    async def _obey(self, message: Mapping[str, Any]) -> None:
        match message["do"]:
            case "place":
                await self._place(message)
            case "tell":
                actor = self._actors.get(message["id"])
                if actor is not None:
                    await self._quietly(actor.tell.remote(message["line"]))
            case "look":
                await self._look(message["id"])
            case "stop":
                await self._stop(message["id"], message["grace_s"])
            case "sweep":
                await self._sweep(set(message["names"]))

    # -- placing -------------------------------------------------------------------------------------

    async def _place(self, order: Mapping[str, Any]) -> None:
        key = order["id"]
        try:
            found = await self._adopted(order) if order["detached"] else None
            if found is None:
                found = await self._made(order)
        except Exception as error:
            await self._lost(key, self._why(error))
            return
        finally:
            self._placing.pop(key, None)
        actor, serves, was_there = found
        if "error" in serves:
            await self._lost(key, str(serves["error"]))
            return
        self._nodes[key] = serves["node"]
        self._report({"event": "up", "id": key, **serves, "found": was_there})
        await self._watch(key, actor)

    async def _adopted(self, order: Mapping[str, Any]) -> tuple[Any, dict[str, Any], bool] | None:
        """A detached actor of this name that serves already; further ones of the name are ended."""
        async with self._adopting:
            await self._own()
            taken = set(self._names.values())
            for name in await self._named():
                if name.rpartition(".")[0] != order["name"] or name in taken:
                    continue
                actor = await self._block(self._ray.get_actor, name, self._namespace)
                serves = await self._quietly(actor.serves.remote())
                if serves is None or order["id"] in self._actors:
                    await self._kill(actor)
                    continue
                self._actors[order["id"]], self._names[order["id"]] = actor, name
        actor = self._actors.get(order["id"])
        if actor is None:
            return None
        serves = await actor.serves.remote()
        if serves is None:
            del self._actors[order["id"]]
            return None
        await actor.tell.remote(order["tell"])
        return actor, serves, True

    async def _made(self, order: Mapping[str, Any]) -> tuple[Any, dict[str, Any], bool]:
        name = f"{order['name']}.{uuid.uuid4().hex[:6]}"
        options = self._options(order, name, await self._another_node(order))
        actor = await self._block(lambda: self._replica.options(**options).remote())
        self._actors[order["id"]], self._names[order["id"]] = actor, name
        starting = asyncio.ensure_future(_awaited(actor.start.remote(order["spec"], order["environment"])))
        demand = ray_words.demand_of(order["demand"])
        # Of a node that is there, a worker and its imports take a second or two.
        done, _ = await asyncio.wait([starting], timeout=_PENDING_S)
        if not done and await self._is_pending(name):
            why = ray_words.lacking(demand, await self._alive())
            self._report({"event": "pending", "id": order["id"], "why": why})
        return actor, await starting, False

    async def _alive(self) -> list[ray_words.Node]:
        nodes = await self._block(self._ray.nodes)
        free: Mapping[str, Any] = {}
        if not self._ray.util.client.ray.is_connected():
            # Its dashboard asks for it in this way; there is no other that needs no dashboard.
            per_node = getattr(self._ray._private.state, "available_resources_per_node", dict)
            free = await self._block(per_node)
        return [
            ray_words.Node(each["NodeManagerAddress"], each["Resources"], free.get(each["NodeID"]))
            for each in nodes
            if each["Alive"]
        ]

    async def _another_node(self, order: Mapping[str, Any]) -> str | None:
        """
        A node for a replica while another one seems to be dead; None to have Ray choose.

        Ray goes on giving work to a node that has died until its own check of it fails, which takes ten
        seconds and more.
        """
        now = asyncio.get_running_loop().time()
        self._suspects = {node: at for node, at in self._suspects.items() if now - at < _SUSPECT_S}
        if not self._suspects or order["node_affinity"] is not None:
            return None
        demand = ray_words.demand_of(order["demand"])
        fit = [
            each["NodeID"]
            for each in await self._block(self._ray.nodes)
            if each["Alive"]
            and each["NodeID"] not in self._suspects
            and all(each["Resources"].get(what, 0) >= amount for what, amount in demand.items())
        ]
        taken = list(self._nodes.values())
        found = min(fit, key=taken.count, default=None)
        if found is not None:
            self._nodes[order["id"]] = found
        return found

    def _options(self, order: Mapping[str, Any], name: str, another: str | None) -> dict[str, Any]:
        options = {**order["options"], "name": name, "namespace": self._namespace}
        options.update(max_restarts=0, max_task_retries=0)
        if order["detached"]:
            options["lifetime"] = "detached"
        if (node := order["node_affinity"] or another) is not None:
            strategies = self._ray.util.scheduling_strategies
            is_soft = order["node_affinity"] is None
            options["scheduling_strategy"] = strategies.NodeAffinitySchedulingStrategy(
                node, soft=is_soft, _spill_on_unavailable=is_soft
            )
        return options

    async def _is_pending(self, name: str) -> bool:
        """Whether no process has it: it would say what its node is."""
        actor = await self._block(self._ray.get_actor, name, self._namespace)
        reply = asyncio.ensure_future(_awaited(actor.serves.remote()))
        done, _ = await asyncio.wait([reply], timeout=1.0)
        if not done:
            reply.cancel()
        return not done

    async def _own(self) -> None:
        """Keep other gateways from these detached replicas. Raises RuntimeError if one has them."""
        if self._owner is not None:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + _OWNED_S
        while True:
            options = {"name": _OWNER, "namespace": self._namespace, "num_cpus": 0, "max_restarts": 0}
            try:
                self._owner = await self._block(
                    lambda: self._ray.remote(Owner).options(**options).remote()  # noqa: B023
                )
                return
            except ValueError:
                if loop.time() >= until:
                    raise RuntimeError(ray_words.owned(self._namespace)) from None
            await asyncio.sleep(0.3)

    async def _sweep(self, names: set[str]) -> None:
        async with self._adopting:
            await self._own()
            for name in await self._named():
                if name != _OWNER and name.rpartition(".")[0] not in names:
                    actor = await self._block(self._ray.get_actor, name, self._namespace)
                    await self._quietly(actor.stop.remote(_STOP_MARGIN_S))
                    await self._kill(actor)

    async def _named(self) -> list[str]:
        found: list[str] = await self._block(self._ray.util.list_named_actors)
        return sorted(found)

    # -- watching ------------------------------------------------------------------------------------

    async def _watch(self, key: str, actor: Any) -> None:
        seen = 0
        events: list[dict[str, Any]]
        try:
            while key in self._actors:
                seen, events = await actor.events.remote(seen)
                for event in events:
                    if "ended" in event:
                        if event.get("node"):
                            self._suspect(key)
                        lines = "\n".join([event["ended"], *event["lines"]])
                        await self._lost(key, lines)
                        return
                    self._report({"event": "line", "id": key, **event})
        except self._ray.exceptions.RayError as error:
            if isinstance(error, self._ray.exceptions.ActorUnavailableError):
                self._suspect(key)
            await self._lost(key, self._why(error))

    async def _look(self, key: str) -> None:
        """A machine that lost its power says nothing; Ray gives it a quarter of a minute and more."""
        actor = self._actors.get(key)
        if actor is None or key in self._placing:
            return
        if await self._quietly(actor.serves.remote(), _LOOK_S) is None and self._actors.get(key) is actor:
            self._suspect(key)
            await self._lost(key, "neither the gateway nor Ray can reach its node")

    def _suspect(self, key: str) -> None:
        if key in self._nodes:
            self._suspects[self._nodes[key]] = asyncio.get_running_loop().time()

    async def _lost(self, key: str, error: str) -> None:
        actor = self._actors.pop(key, None)
        self._names.pop(key, None)
        self._nodes.pop(key, None)
        self._report({"event": "lost", "id": key, "error": error})
        if actor is not None:
            await self._kill(actor)

    def _why(self, error: Exception) -> str:
        exceptions = self._ray.exceptions
        if isinstance(error, exceptions.RuntimeEnvSetupError):
            return ray_words.no_environment(error)
        if isinstance(error, exceptions.RayTaskError):
            return ray_words.failed(error.cause)
        if isinstance(error, exceptions.RayActorError):
            return ray_words.died(error)
        return str(error) or repr(error)

    # -- ending --------------------------------------------------------------------------------------

    async def _stop(self, key: str, grace_s: float | None) -> None:
        actor = self._actors.pop(key, None)
        if actor is not None:
            limit_s = None if grace_s is None else grace_s + _STOP_MARGIN_S
            # One that has no node yet has nothing to stop.
            if key not in self._placing:
                await self._quietly(actor.stop.remote(grace_s), limit_s)
            await self._kill(actor)
        self._names.pop(key, None)
        self._nodes.pop(key, None)
        self._report({"event": "stopped", "id": key})

    async def _kill(self, actor: Any) -> None:
        await self._block(lambda: self._ray.kill(actor, no_restart=True))

    async def _quietly(self, reference: Any, limit_s: float | None = 10.0) -> Any:
        """The result of a call to an actor; None if that has died, or takes too long."""
        try:
            return await asyncio.wait_for(_awaited(reference), limit_s)
        except (self._ray.exceptions.RayError, TimeoutError):
            return None

    async def _block(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


async def _awaited(reference: Any) -> Any:
    return await reference


def _report(event: Mapping[str, Any]) -> None:
    try:
        os.write(REPORT_FD, json.dumps(event).encode() + b"\n")
    except BrokenPipeError:
        os._exit(1)  # the gateway has gone


def _connect(cluster: Mapping[str, Any], folder: str | None) -> Any:
    """
    The module ``ray``, connected. Ends the process, with a report, if it cannot be.

    ``folder`` is where a cluster that is started here keeps its files.
    """
    address = cluster["address"]

    def fail(text: str) -> NoReturn:
        _report({"event": "failed", "error": text})
        _end(1, folder)

    os.environ.setdefault(*_DEATH_INFO_MS)
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        fail(ray_words.not_installed(error))
    settings: dict[str, Any] = {
        "namespace": cluster["namespace"],
        "runtime_env": cluster["runtime_env"] or None,
    }
    if not address.startswith(_CLIENT):
        settings.update(log_to_driver=False, logging_level="warning")
    if folder is not None:
        settings.update(num_cpus=cluster["num_cpus"], object_store_memory=cluster["object_store_memory"])
        settings.update(include_dashboard=False, _temp_dir=folder)

    def is_late() -> None:
        is_there = not address.startswith(_CLIENT) and _answers(address)
        fail(ray_words.no_node_here(address) if is_there else ray_words.unreachable(address, ""))

    late = threading.Timer(_CONNECT_S, is_late)
    late.daemon = True
    if folder is None:
        late.start()
    try:
        ray.init(address=address, **settings)
    except (ValueError, TypeError) as error:
        fail(ray_words.refused(error))
    except Exception as error:
        if isinstance(error, ray.exceptions.RuntimeEnvSetupError) or "runtime_env" in str(error):
            fail(ray_words.no_environment(error))
        fail(ray_words.not_started(error) if folder else ray_words.unreachable(address, error))
    late.cancel()
    # Ends with this node, if that ends.
    node = ray.get_runtime_context().get_node_id()
    sys.stdout.write(f"connected through Ray's node {node}\n")
    sys.stdout.flush()
    return ray


def _answers(address: str) -> bool:
    """Whether something listens at ``host:port``."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2.0).close()
    except (OSError, ValueError):
        return False
    return True


def _end(code: int, folder: str | None) -> NoReturn:
    """End at once: threads of Ray's may still be at work. A cluster that was started here leaves no files."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(code)


async def _run(ray: Any, cluster: Mapping[str, Any], rest: bytes) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    errors: list[BaseException] = []

    def broken(error: BaseException) -> None:
        errors.append(error)
        over.set()

    driver = Driver(ray, cluster["namespace"], _report, broken)
    loop.add_signal_handler(signal.SIGTERM, over.set)
    lines = asyncio.StreamReader(limit=1 << 30)
    lines.feed_data(rest)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(os.dup(0), "rb"))

    async def follow() -> None:
        while line := await lines.readline():
            driver.obey(json.loads(line))
        over.set()

    following = loop.create_task(follow())
    _report({"event": "ready"})
    await over.wait()
    following.cancel()
    if errors:
        raise errors[0]


def main() -> None:
    """Serve a gateway until its end of standard input, or SIGTERM."""
    group.lead()
    # Ctrl-C is for the gateway, which ends this process when its replicas have ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    data = b""
    while b"\n" not in data:
        more = os.read(0, 1 << 16)
        if not more:
            return
        data += more
    first, _, rest = data.partition(b"\n")
    cluster = json.loads(first)
    folder = None
    if cluster["address"] == "local":
        # Of a short path: the names of sockets below it have 107 bytes at most.
        folder = tempfile.mkdtemp(prefix="gatewayd-ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
    # Also while it connects, when Ray has no handler yet.
    signal.signal(signal.SIGTERM, lambda *_: _end(0, folder))
    ray = _connect(cluster, folder)
    code = 0
    try:
        asyncio.run(_run(ray, cluster, rest))
    except ConnectionError as error:
        sys.stderr.write(ray_words.disconnected(cluster["address"], error) + "\n")
        code = 1
    except Exception:
        traceback.print_exc()
        code = 1
    ray.shutdown(**_waiting(ray) if folder else {})
    sys.stdout.flush()
    _end(code, folder)


def _waiting(ray: Any) -> dict[str, Any]:
    """How ``ray.shutdown`` is told to wait for the end of what it ends, where it can be."""
    found = inspect.signature(ray.shutdown).parameters
    return {"wait_for_processes": True} if "wait_for_processes" in found else {}


if __name__ == "__main__":
    main()
