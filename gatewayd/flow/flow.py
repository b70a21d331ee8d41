"""
Describes a Flow in Python and runs it.

    f = Flow().config_gateway(protocol="http", port=12345).add(uses=MyExecutor)
    with f:
        f.post("/", inputs=docs)

A Flow never changes: each method that adds something returns another one. ``with`` starts the gateway
and its executors as processes of their own (``process.py``) and ends them.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, Unpack, cast, overload

import attrs
from typing_extensions import TypeVar

from gatewayd.client.post import CallKeywords, Post, Posts, Waiting
from gatewayd.config import FlowConfig
from gatewayd.flow.description import (
    Description,
    FlowError,
    FlowSource,
    FlowTopologyError,
    checked_executor,
    checked_gateway,
    checked_with,
    read_source,
    to_yaml,
)
from gatewayd.flow.keywords import (
    ExecutorKeywords,
    FlowKeywords,
    GatewayKeywords,
    JoinerKeywords,
    RouteKeywords,
)
from gatewayd.flow.process import PortAlreadyUsed, RunningGateway, RuntimeFailToStart
from gatewayd.flow.startup import addresses, startup

if TYPE_CHECKING:
    from gatewayd.client.client import AsyncClient, ClientKeywords, SyncClient

__all__ = ["Flow", "FlowError", "FlowTopologyError", "PortAlreadyUsed", "RuntimeFailToStart"]

# The Client that posts for a Flow: Flow(asyncio=True) has the asynchronous one.
C_co = TypeVar("C_co", bound="SyncClient | AsyncClient", default="SyncClient", covariant=True)

_EVERYWHERE: Final = ("0.0.0.0", "::", "")
# How often a stop event of block() is looked at besides the gateway's process.
_LOOK_S: Final = 0.2


class Flow(Posts[C_co]):
    """
    A gateway and the executors behind it.

    The keywords are those of ``with`` in a Flow file: name, workspace, env are the Flow's own; all
    others go to the gateway, and to every executor that does not set them itself. ``asyncio=True``
    gives ``post`` and its relatives the asynchronous client. Raises FlowError (a ValueError) for
    keywords and values that are not accepted.
    """

    @overload
    def __init__(
        self: Flow[SyncClient], *, asyncio: Literal[False] = False, **settings: Unpack[FlowKeywords]
    ) -> None: ...
    @overload
    def __init__(
        self: Flow[AsyncClient], *, asyncio: Literal[True], **settings: Unpack[FlowKeywords]
    ) -> None: ...
    @overload
    def __init__(self, *, asyncio: bool, **settings: Unpack[FlowKeywords]) -> None: ...
    def __init__(self, *, asyncio: bool = False, **settings: Unpack[FlowKeywords]) -> None:
        self._description = Description(with_=checked_with(settings), base_dir=str(Path.cwd()))
        self._asyncio = asyncio
        self._running: RunningGateway | None = None
        self._client: SyncClient | AsyncClient | None = None

    # -- describing ----------------------------------------------------------------------------------

    def config_gateway(self, **settings: Unpack[GatewayKeywords]) -> Self:
        """
        A copy of this Flow with settings of the gateway, such as ``protocol``, ``port``, ``cors``.

        The keywords are those of ``gateway`` in a Flow file; of what is set twice the later value counts.
        """
        checked = checked_gateway(settings, caller_folder=_caller_folder())
        gateway = {**self._description.gateway, **checked}
        return self._changed(gateway=gateway)

    def add(self, **settings: Unpack[ExecutorKeywords]) -> Self:
        """
        A copy of this Flow with one more executor, behind the last one or those it ``needs``.

        ``uses`` is a class, ``module:Class``, an executor's config.yml, or that file's content;
        without it, requests pass through. Further keywords are those of an executor in a Flow file,
        such as ``replicas``, ``uses_with``, ``py_modules``, ``external``, ``host`` and ``port``.
        """
        return self._added(settings)

    def needs(self, needs: Iterable[str], name: str = "joiner", **settings: Unpack[JoinerKeywords]) -> Self:
        """A copy with an executor that waits for several others, at least two, and joins their answers."""
        wanted = [needs] if isinstance(needs, str) else list(needs)
        if len(wanted) < 2:
            raise FlowTopologyError(
                "no need to wait for a single service, need len(needs) > 1 for adding a joiner; "
                f"found {wanted}"
            )
        return self._added({"name": name, "method": "needs", "needs": wanted, **settings})

    def needs_all(self, name: str = "joiner", **settings: Unpack[JoinerKeywords]) -> Self:
        """A copy with an executor that waits for all others that no other waits for."""
        return self._added({"name": name, "method": "needs_all", **settings})

    def expose_endpoint(
        self, exec_endpoint: str, path: str | None = None, **settings: Unpack[RouteKeywords]
    ) -> Self:
        """
        A copy whose HTTP gateway serves an executors' endpoint at ``path`` (the same if omitted).

        Further keywords: methods (a list, default POST), summary, description, tags, status_code.
        """
        route = dict(settings) if path is None else {"http_path": path, **settings}
        exposed = {**self._description.gateway.get("expose_endpoints", {}), exec_endpoint: route}
        return self.config_gateway(expose_endpoints=exposed)

    @overload
    @classmethod
    def load_config(
        cls, source: FlowSource, *, context: Mapping[str, Any] | None = None, asyncio: Literal[False] = False
    ) -> Flow[SyncClient]: ...
    @overload
    @classmethod
    def load_config(
        cls, source: FlowSource, *, context: Mapping[str, Any] | None = None, asyncio: Literal[True]
    ) -> Flow[AsyncClient]: ...
    @overload
    @classmethod
    def load_config(
        cls, source: FlowSource, *, context: Mapping[str, Any] | None = None, asyncio: bool
    ) -> Flow[Any]: ...
    @classmethod
    def load_config(
        cls, source: FlowSource, *, context: Mapping[str, Any] | None = None, asyncio: bool = False
    ) -> Flow[Any]:
        """
        The Flow of a file, an open stream, YAML text or a map.

        ``context`` gives ``${{ CONTEXT.x }}``; ``${{ ENV.X }}`` is the environment now. Raises
        FileNotFoundError, or FlowError with every problem of it, one a line.
        """
        flow: Flow[Any] = cls(asyncio=asyncio)
        flow._description = read_source(source, context)
        return flow

    def save_config(self, filename: str | Path) -> None:
        """Write a file for ``load_config``. Raises FlowError for classes that no file can name."""
        Path(filename).write_text(self.to_yaml(), encoding="utf-8")

    def to_yaml(self) -> str:
        """The text that ``save_config`` writes."""
        return to_yaml(self._description.for_file())

    @property
    def config(self) -> FlowConfig:
        """All that this Flow means, checked. Raises FlowError with every problem."""
        return self._description.config()

    def plot(self, output: str | Path | None = None) -> Self:
        """
        Draw the Flow: into the file ``output``, and below a notebook's cell, as ``self`` is.

        Raises ValueError for a file that is not to be called ``.svg`` or ``.png``.
        """
        if output is not None:
            from gatewayd.flow.plot import picture

            Path(output).write_bytes(picture(self.config, Path(output).suffix))
        return self

    def _repr_svg_(self) -> str:
        from gatewayd.flow.plot import svg

        return svg(self.config)

    # -- running -------------------------------------------------------------------------------------

    def start(self) -> Self:
        """
        Start the gateway and the executors, and return when all of them serve.

        Raises RuntimeFailToStart with the traceback of the executor that cannot start, FlowError for
        what cannot be used; then everything has ended again. The caller is to ``close`` it.
        """
        if self._running is not None:
            raise RuntimeError("this Flow runs already")
        flow = self.config
        mapping, by_value = self._description.portable()
        message: dict[str, Any] = {
            "flow": mapping,
            "by_value": by_value,
            "base_dir": self._description.base_dir,
        }
        settings = {**mapping.get("with", {}), **mapping.get("gateway", {})}
        # As in the reference, closing waits for everything that was begun, unless a bound is set.
        bounded = not settings.keys().isdisjoint(("floating_grace_period", "floating_grace_period_s"))
        grace_s = max(flow.gateway.grace_period_s, flow.gateway.floating_grace_period_s or 0.0)
        message["wait_for_floating"] = not bounded
        with startup(flow) as show:
            self._running = RunningGateway(message, grace_s if bounded else None, show)
        return self

    def close(self) -> None:
        """
        Finish what is under way, and end all processes. Does nothing on a Flow that does not run.

        Requests that other threads post with ``flow.client`` have the gateway's grace period to be answered.
        """
        running, self._running = self._running, None
        client, self._client = self._client, None
        try:
            if running is not None:
                running.close()
        finally:
            # Only now: its requests may be among those that the gateway finishes.
            if isinstance(client, Waiting):
                client.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def block(self, stop_event: Any = None) -> None:
        """
        Serve until Ctrl-C, SIGTERM (in the main thread) or ``stop_event`` (an Event), then return.

        Says on standard error what listens where. Raises RuntimeError if the gateway ends by itself.
        """
        running = self._is_running()
        where = "\n".join(f"  {address}" for address in addresses(self.config, running.ports))
        sys.stderr.write(f"Flow serves, until Ctrl-C:\n{where}\n")
        try:
            with _terminated_as_interrupted():
                while (code := running.wait(_LOOK_S if stop_event is not None else None)) is None:
                    if stop_event is not None and stop_event.is_set():
                        return
        except KeyboardInterrupt:
            return
        raise RuntimeError(f"the gateway ended by itself, with exit code {code}; see what it wrote")

    # -- asking --------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """Where the gateway listens."""
        return self.config.gateway.host

    @property
    def protocol(self) -> str | list[str]:
        """What clients speak: one, or a list in the order of the ports."""
        protocols = ["+".join(listener.protocols) for listener in self.config.gateway.listeners]
        return protocols[0] if len(protocols) == 1 else protocols

    @property
    def port(self) -> int | list[int] | None:
        """The port, or a list in the order of the protocols. None where a free one is yet to be chosen."""
        ports = (
            self._running.ports
            if self._running is not None
            else [listener.port for listener in self.config.gateway.listeners]
        )
        if not all(ports):
            return None
        return ports[0] if len(ports) == 1 else list(ports)

    @property
    def client(self) -> C_co:
        """
        A Client of this running Flow, for the first of its protocols.

        With TLS it trusts the Flow's own certificate, and that alone, whatever names it has.
        """
        running = self._is_running()
        if self._client is None:
            from gatewayd.client.client import Client

            gateway = self.config.gateway
            host = "127.0.0.1" if gateway.host in _EVERYWHERE else gateway.host
            tls: ClientKeywords = _trusting(gateway.ssl_certfile, host) if gateway.ssl_certfile else {}
            protocol = gateway.listeners[0].protocols[0]
            self._client = Client(host, running.ports[0], protocol, bool(tls), asyncio=self._asyncio, **tls)
        return cast("C_co", self._client)

    def _run(self, post: Post) -> Any:
        return self.client._run(post)

    @overload
    def is_flow_ready(self: Flow[SyncClient], **keywords: Unpack[CallKeywords]) -> bool: ...
    @overload
    def is_flow_ready(
        self: Flow[AsyncClient], **keywords: Unpack[CallKeywords]
    ) -> Literal[False] | Awaitable[bool]: ...
    def is_flow_ready(self, **keywords: Unpack[CallKeywords]) -> Any:
        """Whether the gateway and all executors answer. False when the Flow does not run."""
        return self._running is not None and self.client.is_flow_ready(**keywords)

    dry_run = is_flow_ready

    @overload
    def profiling(self: Flow[SyncClient], show_table: bool = True) -> dict[str, float]: ...
    @overload
    def profiling(self: Flow[AsyncClient], show_table: bool = True) -> Awaitable[dict[str, float]]: ...
    def profiling(self, show_table: bool = True) -> Any:
        """Where the time of one request goes, in milliseconds: see ``Client.profiling``."""
        return self.client.profiling(show_table=show_table)

    # -- inside --------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many executors it has."""
        return len(self._description.executors)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        state = "runs" if self._running is not None else "does not run"
        return f"<Flow with {len(self)} executor(s), {state}>"

    def _is_running(self) -> RunningGateway:
        if self._running is None:
            raise RuntimeError("this Flow does not run: use it in `with flow:`, or call flow.start()")
        return self._running

    def _added(self, settings: Mapping[str, Any]) -> Self:
        given = {key: value for key, value in settings.items() if value is not None}
        if isinstance(needs := given.get("needs"), Iterable) and not isinstance(needs, str):
            given["needs"] = list(needs)
        item = checked_executor(given, caller_folder=_caller_folder())
        return self._changed(executors=(*self._description.executors, item))

    def _changed(self, **parts: Any) -> Self:
        other = type(self)(asyncio=self._asyncio)
        other._description = attrs.evolve(self._description, **parts)
        return other


def description_of(flow: Flow[Any]) -> Description:
    """What ``flow`` says, for the parts of gatewayd that run it."""
    return flow._description


def _trusting(certfile: str, host: str) -> ClientKeywords:
    from gatewayd.client.certificate import server_name

    return {"tls_ca_certfile": certfile, "tls_server_name": server_name(certfile, host)}


def _caller_folder() -> Path | None:
    """The folder of the file that calls us; None in an interactive session."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    file = None if frame is None else frame.f_globals.get("__file__")
    return None if file is None else Path(file).absolute().parent


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, so that what a container's stop sends is as clean as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
