"""Executors and a gateway class whose failures hold what clients must not see: the words with ``canary``."""

from __future__ import annotations

from typing import Any

from klein import Klein

from gatewayd import Executor, Gateway, requests


class CanaryError(Exception):
    """Its name, arguments and traceback are inner matters."""


class Raises(Executor):
    """Raises on every endpoint, with a cause; the source line is in the traceback."""

    @requests
    def canary_method(self, **_: Any) -> None:
        try:
            raise KeyError("canary-cause")
        except KeyError as cause:
            raise CanaryError("canary-argument", "/srv/canary/path.py", "10.1.2.3:4567") from cause

    @requests(on="/_jina_dry_run_")
    def dry(self, **_: Any) -> None:
        pass


class Passes(Gateway):
    """A route that passes on what it gets to know of a failure."""

    def __init__(self, token: str = "") -> None:
        self.token = token
        app: Any = Klein()
        self.app = app

        @app.route("/told/<target>")
        async def told(_request: Any, target: str) -> str:
            try:
                await self.post("/", target_executor=target)
            except Exception as error:
                return f"{error!r} {error} {getattr(error, 'stacks', '')}"
            return "fine"

        @app.route("/untold/<target>")
        async def untold(_request: Any, target: str) -> str:
            await self.post("/", target_executor=target)
            return "fine"
