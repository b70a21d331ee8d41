"""
What a Flow and a Deployment in Python have in common: both are started as processes, asked, and ended.

    described ── start() ──> running ── close() ──> described

What they describe is a ``Description``; ``process.py`` has the processes.
"""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict, Unpack, cast, overload

import attrs
from typing_extensions import TypeVar

from gatewayd.client.post import CallKeywords, Post, Posts, Waiting, check_keywords
from gatewayd.config import FlowConfig
from gatewayd.flow.description import Description, FlowBuildLevelError, to_yaml
from gatewayd.flow.process import RunningGateway
from gatewayd.flow.settings import checked_gateway
from gatewayd.flow.startup import addresses, startup

if TYPE_CHECKING:
    from gatewayd.client.client import AsyncClient, ClientKeywords, SyncClient
    from gatewayd.export.loading import Exported, FlowToExport
    from gatewayd.export.plan import ExportOptions

# The Client that posts for it: Flow(asyncio=True) has the asynchronous one.
C_co = TypeVar("C_co", bound="SyncClient | AsyncClient", default="SyncClient", covariant=True)

_EVERYWHERE: Final = ("0.0.0.0", "::", "")
# What the reference's Flow and Deployment have besides, and what does its work here.
_ABSENT: Final = {
    "build": "nothing has to be built; `config` is what it means, checked",
    "callback": "use contextlib.ExitStack around it",
    "enter_context": "use contextlib.ExitStack around it",
    "gateway_args": "use config.gateway",
    "num_pods": "use config.deployments, each of which has replicas and shards",
    "push": "use contextlib.ExitStack around it",
}
# How often a stop event of block() is looked at besides the gateway's process.
_LOOK_S: Final = 0.2


class ExportKeywords(TypedDict, total=False):
    """Of the methods that export a Flow; ``gatewayd.export.plan.ExportOptions`` has their meaning."""

    project: str | Path | None
    secrets: Sequence[str]
    secret_name: str
    tls_secret: str | None
    gateway_replicas: int
    max_gateways: int | None
    service_monitor: bool
    cpu: str
    memory: str


class Served(Posts[C_co]):
    """A gateway and the executors behind it: ``Flow`` has any number of these, ``Deployment`` one."""

    def __init__(self, description: Description, *, asyncio: bool) -> None:
        self._description = description
        self._asyncio = asyncio
        self._running: RunningGateway | None = None
        self._client: SyncClient | AsyncClient | None = None

    @property
    def config(self) -> FlowConfig:
        """All that it means, checked. Raises FlowError with every problem."""
        return self._description.config()

    def save_config(self, filename: str | Path) -> None:
        """Write a file for ``load_config``. Raises FlowError for classes that no file can name."""
        Path(filename).write_text(self.to_yaml(), encoding="utf-8")

    def to_yaml(self) -> str:
        """The text that ``save_config`` writes."""
        return to_yaml(self._description.for_file())

    # -- exporting -----------------------------------------------------------------------------------

    def to_kubernetes_yaml(
        self,
        output_base_path: str | Path,
        k8s_namespace: str | None = None,
        include_gateway: bool = True,
        *,
        image: str | None = None,
        **options: Unpack[ExportKeywords],
    ) -> None:
        """
        Write manifests of Kubernetes, ``<name>/<name>.yml`` in the folder ``output_base_path``.

        As ``gatewayd export kubernetes``, whose page tells what they hold. Warns of what has another effect
        there. Raises ExportError with all that cannot be exported, OSError where a file cannot be written.
        """
        chosen = _export_options(image, include_gateway, options, namespace=k8s_namespace)
        self._export(lambda flow: flow.kubernetes(chosen), Path(output_base_path))

    to_k8s_yaml = to_kubernetes_yaml

    def to_docker_compose_yaml(
        self,
        output_path: str | Path | None = None,
        network_name: str | None = None,
        include_gateway: bool = True,
        *,
        image: str | None = None,
        **options: Unpack[ExportKeywords],
    ) -> None:
        """Write a file of Docker Compose, docker-compose.yml if omitted; as ``to_kubernetes_yaml``."""
        path = Path(output_path or "docker-compose.yml")
        chosen = _export_options(image, include_gateway, options, network=network_name)
        self._export(lambda flow: flow.compose(chosen, path.name), path.parent)

    def _export(self, export: Callable[[FlowToExport], Exported], folder: Path) -> None:
        from gatewayd.export.loading import FlowToExport

        description = self._description
        flow = FlowToExport.of_mapping(description.for_file(), Path(description.base_dir))
        exported = export(flow)
        for warning in exported.warnings:
            warnings.warn(warning, stacklevel=3)
        exported.write(folder)

    # -- running -------------------------------------------------------------------------------------

    def start(self) -> Self:
        """
        Start the gateway and the executors, and return when all of them serve.

        Raises RuntimeFailToStart with the traceback of the executor that cannot start, FlowError for
        what cannot be used; then everything has ended again. The caller is to ``close`` it.
        """
        if self._running is not None:
            raise FlowBuildLevelError(f"this {self._kind} runs already")
        flow = self.config
        mapping, by_value, unset = self._description.portable()
        message: dict[str, Any] = {
            "flow": mapping,
            "by_value": by_value,
            "unset": unset,
            "base_dir": self._description.base_dir,
            "folders": [str(folder) for folder in self._description.folders],
        }
        settings = {**mapping.get("with", {}), **mapping.get("gateway", {})}
        # As in the reference, closing waits for everything that was begun, unless a bound is set.
        bounded = not settings.keys().isdisjoint(("floating_grace_period", "floating_grace_period_s"))
        grace_s = max(flow.gateway.grace_period_s, flow.gateway.floating_grace_period_s or 0.0)
        grace_s += flow.gateway.drain_delay_s
        message["wait_for_floating"] = not bounded
        with startup(flow, self._kind) as show:
            self._running = RunningGateway(message, grace_s if bounded else None, show)
        return self

    def close(self) -> None:
        """
        Finish what is under way, and end all processes. Does nothing where nothing runs.

        Requests that other threads post with ``client`` have the gateway's grace period to be answered.
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
        try:
            with _terminated_as_interrupted():
                sys.stderr.write(f"{self._kind} serves, until Ctrl-C:\n{where}\n")
                while (code := running.wait(_LOOK_S if stop_event is not None else None)) is None:
                    if stop_event is not None and stop_event.is_set():
                        return
        except KeyboardInterrupt:
            return
        raise RuntimeError(f"the gateway ended by itself, with exit code {code}; see what it wrote")

    # -- asking --------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """Where the gateway listens. May be set before the start, as ``config_gateway(host=...)`` does."""
        return self.config.gateway.host

    @host.setter
    def host(self, host: str) -> None:
        self._set_gateway(host=host)

    @property
    def protocol(self) -> str | list[str]:
        """What clients speak: one, or a list in the order of the ports. May be set before the start."""
        protocols = ["+".join(listener.protocols) for listener in self.config.gateway.listeners]
        return protocols[0] if len(protocols) == 1 else protocols

    @protocol.setter
    def protocol(self, protocol: str | Sequence[str]) -> None:
        self._set_gateway(protocol=protocol)

    @property
    def port(self) -> int | list[int] | None:
        """
        The port, or a list in the order of the protocols. May be set before the start.

        None where a free one is yet to be chosen.
        """
        ports = self._ports()
        if not all(ports):
            return None
        return ports[0] if len(ports) == 1 else list(ports)

    @port.setter
    def port(self, port: int | str | Sequence[int]) -> None:
        self._set_gateway(port=port)

    @property
    def client(self) -> C_co:
        """
        A Client for the first protocol; before the start, for the host and port that are set.

        With TLS it trusts the gateway's own certificate, and that alone, whatever names it has. Raises
        FlowBuildLevelError where no port is known before the start.
        """
        if self._client is None:
            from gatewayd.client.client import Client

            port = self._ports()[0]
            if not port:
                raise FlowBuildLevelError(
                    f"{self._stands_still()}; its port is chosen then, unless one is set"
                )
            gateway = self.config.gateway
            host = "127.0.0.1" if gateway.host in _EVERYWHERE else gateway.host
            certfile = None if gateway.tls is None else gateway.tls.pairs[0].certfile
            tls: ClientKeywords = {} if certfile is None else _trusting(certfile, host)
            protocol = gateway.listeners[0].protocols[0]
            self._client = Client(host, port, protocol, bool(tls), asyncio=self._asyncio, **tls)
        return cast("C_co", self._client)

    def _run(self, post: Post) -> Any:
        self._is_running()
        return self.client._run(post)

    def _stream(self, post: Post) -> Any:
        self._is_running()
        return self.client._stream(post)

    @overload
    def is_flow_ready(self: Served[SyncClient], **keywords: Unpack[CallKeywords]) -> bool: ...
    @overload
    def is_flow_ready(
        self: Served[AsyncClient], **keywords: Unpack[CallKeywords]
    ) -> Literal[False] | Awaitable[bool]: ...
    def is_flow_ready(self, **keywords: Unpack[CallKeywords]) -> Any:
        """Whether the gateway and all executors answer. False where nothing runs."""
        return self._running is not None and self.client.is_flow_ready(**keywords)

    dry_run = is_flow_ready

    @overload
    def profiling(self: Served[SyncClient], show_table: bool = True) -> dict[str, float]: ...
    @overload
    def profiling(self: Served[AsyncClient], show_table: bool = True) -> Awaitable[dict[str, float]]: ...
    def profiling(self, show_table: bool = True) -> Any:
        """Where the time of one request goes, in milliseconds: see ``Client.profiling``."""
        self._is_running()
        return self.client.profiling(show_table=show_table)

    # -- inside --------------------------------------------------------------------------------------

    @property
    def _kind(self) -> str:
        return type(self).__name__

    if not TYPE_CHECKING:  # type checkers would take it for any attribute

        def __getattr__(self, name: str) -> Any:
            if name not in _ABSENT:
                return object.__getattribute__(self, name)  # raises as it would without this method
            message = f"{type(self).__name__!r} object has no attribute {name!r}: {_ABSENT[name]}"
            raise AttributeError(message, name=name, obj=self)

    def _ports(self) -> Sequence[int]:
        if self._running is not None:
            return self._running.ports
        return [listener.port for listener in self.config.gateway.listeners]

    def _set_gateway(self, **settings: Any) -> None:
        gateway = {**self._description.gateway, **checked_gateway(settings, caller_folder=None)}
        self._describe(attrs.evolve(self._description, gateway=gateway))

    def _describe(self, description: Description) -> None:
        """Change what is described. Raises FlowBuildLevelError while it runs."""
        if self._running is not None:
            raise FlowBuildLevelError(f"this {self._kind} runs: change it before the start, or after close()")
        self._description = description
        self._client = None  # it may be the Client of another address

    def _is_running(self) -> RunningGateway:
        if self._running is None:
            raise FlowBuildLevelError(self._stands_still())
        return self._running

    def _stands_still(self) -> str:
        name = self._kind.lower()
        return f"this {self._kind} does not run: use it in `with {name}:`, or call {name}.start()"


def _export_options(
    image: str | None, include_gateway: bool, options: ExportKeywords, **own: Any
) -> ExportOptions:
    from gatewayd import __version__
    from gatewayd.export.plan import ExportOptions

    check_keywords("export", options, ExportKeywords.__annotations__)
    given = {name: value for name, value in {**options, **own}.items() if value is not None}
    if project := given.get("project"):
        given["project"] = Path(project)
    given["secrets"] = tuple(given.get("secrets", ()))
    return ExportOptions(image or f"gatewayd:{__version__}", include_gateway=include_gateway, **given)


def description_of(served: Served[Any]) -> Description:
    """What ``served`` says, for the parts of gatewayd that run it."""
    return served._description


def _trusting(certfile: str, host: str) -> ClientKeywords:
    from gatewayd.client.certificate import server_name

    return {"tls_ca_certfile": certfile, "tls_server_name": server_name(certfile, host)}


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
