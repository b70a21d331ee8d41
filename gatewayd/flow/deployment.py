"""
``Deployment``: one executor, served over any protocol.

    with Deployment(uses=MyExecutor, protocol="http", port=12345) as d:
        d.post("/", inputs=docs)

It is a Flow of one executor, with everything that a Flow's gateway does. Its settings are in one place: what
both a gateway and an executor have is the executor's, but for the host and the port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from gatewayd.callers import caller_folder
from gatewayd.flow.description import to_yaml
from gatewayd.flow.keywords import DeploymentKeywords
from gatewayd.flow.loading import FlowSource, LoadKeywords, loaded_deployment
from gatewayd.flow.served import C_co, Served
from gatewayd.flow.settings import described_deployment

if TYPE_CHECKING:
    from gatewayd.client.client import AsyncClient, SyncClient

__all__ = ["Deployment"]


class Deployment(Served[C_co]):
    """
    One executor and the gateway before it.

    The keywords are those of ``Flow.add`` (``uses``, ``uses_with``, ``replicas``, ``shards``, ``env`` ...)
    and of ``Flow.config_gateway`` (``protocol``, ``cors``, ``ssl_certfile`` ...); ``host`` and ``port`` are
    where clients find it, or with ``external=True`` where the executor is. ``asyncio=True`` gives ``post``
    and its relatives the asynchronous client. Raises FlowError (a ValueError) for keywords and values that
    are not accepted.
    """

    @overload
    def __init__(
        self: Deployment[SyncClient],
        *,
        asyncio: Literal[False] = False,
        **settings: Unpack[DeploymentKeywords],
    ) -> None: ...
    @overload
    def __init__(
        self: Deployment[AsyncClient], *, asyncio: Literal[True], **settings: Unpack[DeploymentKeywords]
    ) -> None: ...
    @overload
    def __init__(self, *, asyncio: bool, **settings: Unpack[DeploymentKeywords]) -> None: ...
    def __init__(self, *, asyncio: bool = False, **settings: Unpack[DeploymentKeywords]) -> None:
        description = described_deployment(settings, caller_folder=caller_folder())
        super().__init__(description, asyncio=asyncio)

    @overload
    @classmethod
    def load_config(
        cls, source: FlowSource, *, asyncio: Literal[False] = False, **keywords: Unpack[LoadKeywords]
    ) -> Deployment[SyncClient]: ...
    @overload
    @classmethod
    def load_config(
        cls, source: FlowSource, *, asyncio: Literal[True], **keywords: Unpack[LoadKeywords]
    ) -> Deployment[AsyncClient]: ...
    @overload
    @classmethod
    def load_config(
        cls, source: FlowSource, *, asyncio: bool, **keywords: Unpack[LoadKeywords]
    ) -> Deployment[Any]: ...
    @classmethod
    def load_config(
        cls, source: FlowSource, *, asyncio: bool = False, **keywords: Unpack[LoadKeywords]
    ) -> Deployment[Any]:
        """
        The Deployment of a file, an open stream, YAML text or a map.

        These hold ``jtype: Deployment`` and its settings in ``with``. The keywords are those of
        ``Flow.load_config``.
        """
        deployment: Deployment[Any] = cls(asyncio=asyncio)
        deployment._description, in_file = loaded_deployment(source, keywords, caller_folder())
        deployment._asyncio = asyncio or in_file
        return deployment

    def to_yaml(self) -> str:
        """The text that ``save_config`` writes."""
        content = self._description.for_file()
        (executor,) = content["executors"]
        settings = {**executor, **content.get("gateway", {})}
        return to_yaml({"jtype": "Deployment", "version": "1", "with": settings})

    @property
    def name(self) -> str:
        """The executor's."""
        return self.config.deployments[0].name

    def __repr__(self) -> str:
        state = "runs" if self._running is not None else "does not run"
        return f"<Deployment {self.name}, {state}>"
