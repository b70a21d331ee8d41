"""
Describes a Flow in Python, to be run or written to a file.

    f = Flow().config_gateway(protocol="http", port=12345).add(uses=MyExecutor)
    with f:
        f.post("/", inputs=docs)

As in the reference, ``config_gateway``, ``add``, ``needs`` and ``needs_all`` return a changed copy, or with
``copy_flow=False`` change the Flow itself; ``expose_endpoint`` and the setters always do that. What runs a
Flow is in ``served.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

import attrs

from gatewayd.callers import caller_folder
from gatewayd.config import DeploymentConfig
from gatewayd.config.kinds import Refused
from gatewayd.config.routes import routes_by_endpoint
from gatewayd.flow.description import Description, FlowBuildLevelError, FlowError, FlowTopologyError
from gatewayd.flow.keywords import (
    ExecutorKeywords,
    FlowKeywords,
    GatewayKeywords,
    JoinerKeywords,
    RouteKeywords,
)
from gatewayd.flow.loading import FlowSource, LoadKeywords, loaded_flow
from gatewayd.flow.process import PortAlreadyUsed, RuntimeFailToStart
from gatewayd.flow.served import C_co, Served, description_of
from gatewayd.flow.settings import checked_executor, checked_gateway, checked_with

if TYPE_CHECKING:
    from gatewayd.client.client import AsyncClient, SyncClient
    from gatewayd.flow.deployment import Deployment

__all__ = [
    "Flow",
    "FlowBuildLevelError",
    "FlowError",
    "FlowTopologyError",
    "PortAlreadyUsed",
    "RuntimeFailToStart",
]


class Flow(Served[C_co]):
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
        description = Description(with_=checked_with(settings), base_dir=str(Path.cwd()))
        super().__init__(description, asyncio=asyncio)

    # -- describing ----------------------------------------------------------------------------------

    def config_gateway(self, *, copy_flow: bool = True, **settings: Unpack[GatewayKeywords]) -> Self:
        """
        A copy of this Flow with settings of the gateway, such as ``protocol``, ``port``, ``cors``.

        The keywords are those of ``gateway`` in a Flow file; of what is set twice the later value counts.
        """
        checked = checked_gateway(settings, caller_folder=caller_folder())
        gateway = {**self._description.gateway, **checked}
        loaded = self._description.gateway_loaded and "uses_with" not in checked
        return self._changed(copy_flow, gateway=gateway, gateway_loaded=loaded)

    def add(
        self,
        deployment: Deployment[Any] | None = None,
        *,
        copy_flow: bool = True,
        **settings: Unpack[ExecutorKeywords],
    ) -> Self:
        """
        A copy of this Flow with one more executor, behind the last one or those it ``needs``.

        Of a ``deployment`` the executor is added, without its protocol, host and port; ``settings`` override
        its own.

        ``uses`` is a class, ``module:Class``, an executor's config.yml, or that file's content;
        without it, requests pass through. Further keywords are those of an executor in a Flow file,
        such as ``replicas``, ``uses_with``, ``py_modules``, ``external``, ``host`` and ``port``.
        """
        if deployment is None:
            return self._added(settings, copy_flow)
        if not isinstance(deployment, Served) or isinstance(deployment, Flow):
            raise TypeError(
                f"add() takes a Deployment by position, not {deployment!r}; name it: add(uses=...)"
            )
        description = description_of(deployment)
        (executor,) = description.executors
        added = self._added(settings, copy_flow, executor, replaced=bool(description.loaded))
        return added._changed(False, unset=(*self._description.unset, *description.unset))

    def needs(
        self,
        needs: Iterable[str],
        name: str = "joiner",
        *,
        copy_flow: bool = True,
        **settings: Unpack[JoinerKeywords],
    ) -> Self:
        """A copy with an executor that waits for several others, at least two, and joins their answers."""
        wanted = [needs] if isinstance(needs, str) else list(needs)
        if len(wanted) < 2:
            raise FlowTopologyError(
                "no need to wait for a single service, need len(needs) > 1 for adding a joiner; "
                f"found {wanted}"
            )
        return self._added({"name": name, "method": "needs", "needs": wanted, **settings}, copy_flow)

    def needs_all(
        self, name: str = "joiner", *, copy_flow: bool = True, **settings: Unpack[JoinerKeywords]
    ) -> Self:
        """A copy with an executor that waits for all others that no other waits for."""
        return self._added({"name": name, "method": "needs_all", **settings}, copy_flow)

    def inspect(
        self, name: str = "inspect", *, copy_flow: bool = True, **settings: Unpack[JoinerKeywords]
    ) -> Self:
        """
        A copy with an executor that gets what the last one answers, and changes nothing of the Flow's answer.

        The Flow's ``inspect`` says whether answers wait for it (COLLECT, the default), do not wait (HANG), or
        it is left out (REMOVE). If it fails, that is logged.
        """
        return self._added({"name": name, "method": "inspect", **settings}, copy_flow)

    def gather_inspect(
        self,
        name: str = "gather_inspect",
        include_last_deployment: bool = True,
        *,
        copy_flow: bool = True,
    ) -> Self:
        """A copy whose answers wait for its inspect executors. No executor is added, so no name is used."""
        with_ = self._description.with_
        if with_.get("inspect") != "REMOVE":
            with_ = {**with_, "inspect": "COLLECT"}
        return self._changed(copy_flow, with_=with_)

    def expose_endpoint(
        self, exec_endpoint: str, path: str | None = None, **settings: Unpack[RouteKeywords]
    ) -> Self:
        """
        Serve an executors' endpoint at ``path`` (the same if omitted) of HTTP. Returns this Flow, changed.

        Further keywords: methods (a list, default POST), summary, description, tags, status_code.
        """
        route = dict(settings) if path is None else {"http_path": path, **settings}
        given = self._description.gateway.get("expose_endpoints") or {}
        try:
            before = routes_by_endpoint(given)
        except Refused:
            raise FlowError(
                f"expose_endpoint({exec_endpoint!r}): expose_endpoints is {given!r}, to which no "
                "route can be added"
            ) from None
        return self.config_gateway(expose_endpoints={**before, exec_endpoint: route}, copy_flow=False)

    @overload
    @classmethod
    def load_config(
        cls, source: FlowSource, *, asyncio: Literal[False] = False, **keywords: Unpack[LoadKeywords]
    ) -> Flow[SyncClient]: ...
    @overload
    @classmethod
    def load_config(
        cls, source: FlowSource, *, asyncio: Literal[True], **keywords: Unpack[LoadKeywords]
    ) -> Flow[AsyncClient]: ...
    @overload
    @classmethod
    def load_config(
        cls, source: FlowSource, *, asyncio: bool, **keywords: Unpack[LoadKeywords]
    ) -> Flow[Any]: ...
    @classmethod
    def load_config(
        cls, source: FlowSource, *, asyncio: bool = False, **keywords: Unpack[LoadKeywords]
    ) -> Flow[Any]:
        """
        The Flow of a file, an open stream, YAML text or a map.

        A file is looked for in ``extra_search_paths``, the current folder and that of the calling code; so
        are the files that it names, after its own folder. ``context`` gives ``${{ CONTEXT.x }}``;
        ``${{ ENV.X }}`` is the environment now; with ``substitute=False`` both stay as they are.
        ``uses_with`` overrides entries of its ``with``; ``py_modules`` come before those of its ``with``.

        Raises TypeError for unknown keywords, FileNotFoundError, or FlowError with every problem of the
        Flow, one a line.
        """
        flow: Flow[Any] = cls(asyncio=asyncio)
        flow._description, in_file = loaded_flow(source, keywords, caller_folder())
        flow._asyncio = asyncio or in_file
        return flow

    def plot(self, output: str | Path | None = None, vertical_layout: bool = False) -> Self:
        """
        Draw the Flow: into the file ``output``, and below a notebook's cell, as ``self`` is.

        It goes from left to right, or with ``vertical_layout`` from top to bottom. Raises ValueError for
        a file that is not to be called ``.svg`` or ``.png``.
        """
        if output is not None:
            from gatewayd.flow.plot import picture

            Path(output).write_bytes(picture(self.config, Path(output).suffix, vertical=vertical_layout))
        return self

    def _repr_svg_(self) -> str:
        from gatewayd.flow.plot import svg

        return svg(self.config)

    # -- looking into it -----------------------------------------------------------------------------

    @property
    def num_deployments(self) -> int:
        """How many executors it has; while it runs, as in the reference, the gateway is counted too."""
        return len(self) + (self._running is not None)

    def __getitem__(self, key: str | int) -> DeploymentConfig:
        """The settings of one executor, by its name or its index. Raises KeyError or IndexError."""
        found = self.config.deployments
        if isinstance(key, int):
            return found[key]
        return {each.name: each for each in found}[key]

    def __iter__(self) -> Iterator[tuple[str, DeploymentConfig]]:
        """The executors' names and settings, in the Flow's order."""
        return iter([(each.name, each) for each in self.config.deployments])

    def __len__(self) -> int:
        """How many executors it has."""
        return len(self._description.executors)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        state = "runs" if self._running is not None else "does not run"
        return f"<Flow with {len(self)} executor(s), {state}>"

    # -- inside --------------------------------------------------------------------------------------

    def _added(
        self,
        settings: Mapping[str, Any],
        copy_flow: bool,
        executor: Mapping[str, Any] | None = None,
        *,
        replaced: bool = False,
    ) -> Self:
        """With ``settings`` put over ``executor``, in which variables are ``replaced`` or not yet."""
        given = {key: value for key, value in settings.items() if value is not None}
        if isinstance(needs := given.get("needs"), Iterable) and not isinstance(needs, str):
            given["needs"] = list(needs)
        item = checked_executor(given, caller_folder=caller_folder())
        others, loaded = self._description.executors, self._description.loaded
        if replaced:
            loaded |= {len(others)}
        return self._changed(copy_flow, executors=(*others, {**(executor or {}), **item}), loaded=loaded)

    def _changed(self, copy_flow: bool, **parts: Any) -> Self:
        if not copy_flow:
            self._describe(attrs.evolve(self._description, **parts))
            return self
        other = type(self)(asyncio=self._asyncio)
        other._description = attrs.evolve(self._description, **parts)
        return other
