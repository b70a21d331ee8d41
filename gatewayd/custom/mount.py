# mypy: disable-error-code="no-untyped-call"
"""
Serves the routes of a gateway class beside the gateway's own, and starts and stops it.

    port ── a path that is not its own ──> Mounted ──> a resource, on the reactor
                                               └─────> an ASGI application, on a loop of its own

The loop is for the class alone: a route that blocks it holds up other ASGI routes of the class, but neither
the reactor nor gRPC.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import attrs
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.python.threadable import isInIOThread
from twisted.web.resource import IResource, getChildForRequest

from gatewayd.bridge import Bridge
from gatewayd.clocks import Clock
from gatewayd.custom.asgi import AsgiApp, StartupFailed
from gatewayd.custom.gateway import Gateway
from gatewayd.errors import ConfigError, Overloaded, PathNotFound
from gatewayd.messages.request import Request, Response
from gatewayd.protocols.backend import Dispatcher
from gatewayd.protocols.http.errors import encode_error
from gatewayd.protocols.http.request import GatewayRequest

P = ParamSpec("P")
T = TypeVar("T")

log = Logger()

# What a route may hold the reactor before the log says so. A tenth of a second is what a user notices.
_LONG_S: Final = 0.1
# For `shutdown` where the grace period is over.
_LEAST_SHUTDOWN_S: Final = 5.0


class App(Protocol):
    """One application, mounted. Reactor thread only."""

    def render(self, http_request: GatewayRequest, prefix: int) -> None:
        """Answer a request whose path begins with ``prefix`` segments that led here."""
        ...


class ResourceApp:
    """A resource of twisted.web, Klein's among them. It runs on the reactor."""

    def __init__(self, resource: Any, clock: Clock, fixed_paths: Sequence[bytes] = ()) -> None:
        self.fixed_paths = fixed_paths
        self._resource = resource
        self._clock = clock

    def render(self, http_request: GatewayRequest, prefix: int) -> None:
        http_request.begin_foreign(prefix)
        began_s = self._clock.seconds()
        http_request.render(getChildForRequest(self._resource, http_request))
        held_s = self._clock.seconds() - began_s
        if held_s > _LONG_S:
            log.warn(
                "{method} {path} held the whole gateway for {held_s:.1f} s; what takes long belongs into "
                "`await self.in_thread(function)`",
                method=http_request.method.decode("latin-1"),
                path=http_request.path.decode("latin-1"),
                held_s=held_s,
            )


@attrs.frozen
class Mount:
    """Where an application is: the segments that its paths begin with."""

    segments: tuple[bytes, ...]
    app: App


class Mounted:
    """
    A gateway class at work. Reactor thread only, but for ``dispatch`` and ``in_thread``.

    It is the ``extension`` of ports, and the ``GatewayHost`` of its instance.
    """

    def __init__(
        self, gateway: Gateway, place: str, *, dispatcher: Dispatcher, reactor: Any, web: bool = True
    ) -> None:
        """
        ``place`` is where the class is named, for messages; ``web`` says whether a port can serve routes.

        Raises ConfigError.
        """
        self._gateway = gateway
        self._name = type(gateway).__name__
        self._place = place
        self._dispatcher = dispatcher
        self._reactor = reactor
        self._bridge = Bridge(reactor, "gateway class loop")
        self._ready = False
        self._starting: Deferred[None] | None = None
        gateway._host = self
        self._mounts = self._mounted()
        if self._mounts and not web:
            raise self._refusal(
                f"the routes of {self._name} need a port of HTTP or WebSocket, and there is none; set "
                "protocol: http, or a list with it"
            )

    def start(self) -> Deferred[None]:
        """Call ``startup``, and start the applications. Fails with ConfigError."""
        self._bridge.start()
        starting = self._starting = Deferred.fromCoroutine(self._start())
        return starting

    async def stop(self, grace_s: float) -> None:
        """
        End the applications, call ``shutdown``, and end the loop.

        The first two may take ``grace_s`` together, or a few seconds.
        """
        if self._starting is not None:
            self._starting.cancel()  # nothing happens if it has started
        if self._ready:
            self._ready = False
            ending = Deferred.fromCoroutine(self._stop())
            ending.addTimeout(max(grace_s, _LEAST_SHUTDOWN_S), self._reactor)
            try:
                await ending
            except (DeferredTimeout, CancelledError):
                log.warn("shutdown of {name} has not ended in time; it is cancelled", name=self._name)
            except Exception:
                log.failure("shutdown of {name} failed", name=self._name)
        await self._bridge.stop()

    # -- for ports -----------------------------------------------------------------------------------

    def render(self, http_request: GatewayRequest) -> None:
        if not self._ready:
            error = Overloaded(f"{self._name} has not started yet; try again")
            http_request.respond_with(encode_error(error))
            return
        segments = http_request.path[1:].split(b"/")
        for mount in self._mounts:  # the longest first
            length = len(mount.segments)
            if tuple(segments[:length]) == mount.segments:
                mount.app.render(http_request, length)
                return
        http_request.respond_with(encode_error(PathNotFound()))

    @property
    def name(self) -> str:
        """The class's, for messages."""
        return self._name

    def fixed_paths(self) -> Iterator[bytes]:
        """The paths of Klein's routes that have no variables; of other applications nothing is known."""
        for mount in self._mounts:
            prefix = b"".join(b"/" + segment for segment in mount.segments)
            if isinstance(mount.app, ResourceApp):
                yield from (prefix + path for path in mount.app.fixed_paths)

    # -- for the instance ----------------------------------------------------------------------------

    def dispatch(self, request: Request, timeout_s: float | None) -> Awaitable[Response]:
        """Any of the two threads."""
        if self._bridge.is_here:
            return self._bridge.on_reactor(self._dispatch, request, timeout_s)
        _check_reactor_thread("post")
        return self._dispatch(request, timeout_s)

    def _dispatch(self, request: Request, timeout_s: float | None) -> Deferred[Response]:
        # Which dispatcher it is, is decided on the reactor thread: a reload may replace it meanwhile.
        return self._dispatcher.dispatch(request, timeout_s=timeout_s)

    def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Any of the two threads."""
        if self._bridge.is_here:
            return asyncio.to_thread(function, *args, **kwargs)
        _check_reactor_thread("in_thread")
        # In asyncio's threads: those of the reactor's pool are for the gateway's own work.
        return self._bridge.on_loop(asyncio.to_thread, function, *args, **kwargs)

    # -- inside --------------------------------------------------------------------------------------

    async def _start(self) -> None:
        try:
            await self._call(self._gateway.startup)
            for app in self._asgi:
                await self._bridge.on_loop(app.startup)
        except StartupFailed as error:
            raise self._refusal(f"the application of {self._name} cannot start: {error}") from error
        except CancelledError:
            raise  # by ``stop``
        except Exception as error:
            log.failure("startup of {name} failed", name=self._name)
            raise self._refusal(f"startup of {self._name} failed: {error!r}") from error
        self._ready = True

    async def _stop(self) -> None:
        for app in self._asgi:
            await self._bridge.on_loop(app.shutdown)
        await self._call(self._gateway.shutdown)

    def _call(self, hook: Callable[[], Any]) -> Deferred[Any]:
        """Run a hook where the routes run."""
        return self._bridge.on_loop(_awaited, hook) if self._asgi else maybeDeferred(hook)

    @property
    def _asgi(self) -> list[AsgiApp]:
        return [mount.app for mount in self._mounts if isinstance(mount.app, AsgiApp)]

    def _mounted(self) -> list[Mount]:
        try:
            given = getattr(self._gateway, "app", None)
        except Exception as error:
            raise self._refusal(f"app of {self._name} cannot be made: {error!r}") from error
        if given is None:
            return []
        apps = given if isinstance(given, Mapping) else {"/": given}
        found = [Mount(self._segments(path), self._app(app)) for path, app in apps.items()]
        return sorted(found, key=lambda mount: -len(mount.segments))

    def _segments(self, path: Any) -> tuple[bytes, ...]:
        if not isinstance(path, str) or not path.startswith("/"):
            raise self._refusal(f"{path!r} cannot be a path of app; one begins with /")
        return tuple(segment.encode() for segment in path.split("/") if segment)

    def _app(self, app: Any) -> App:
        if isinstance(app, Klein):
            rules = [rule.rule for rule in app.url_map.iter_rules() if not rule.arguments]
            return ResourceApp(app.resource(), self._reactor, [rule.encode() for rule in rules])
        if IResource.providedBy(app):
            return ResourceApp(app, self._reactor)
        if not callable(app):
            raise self._refusal(
                f"app of {self._name} is a {type(app).__name__}; accepted: a Klein app, a resource of "
                "twisted.web, an ASGI application, or a map of paths to these"
            )
        if not _takes_three(app):
            raise self._refusal(
                f"app of {self._name} is not called with scope, receive and send, as an ASGI application is; "
                "one of WSGI (Flask) can be wrapped in asgiref.wsgi.WsgiToAsgi"
            )
        return AsgiApp(app, self._bridge)

    def _refusal(self, text: str) -> ConfigError:
        return ConfigError(f"{self._place}: gateway.uses: {text}" if self._place else f"gateway.uses: {text}")


async def _awaited(hook: Callable[[], Any]) -> None:
    result = hook()
    if inspect.isawaitable(result):
        await result


def _takes_three(app: Callable[..., Any]) -> bool:
    try:
        inspect.signature(app).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # it is not written in Python, and does not say
        return True
    return True


def _check_reactor_thread(name: str) -> None:
    if not isInIOThread():
        raise RuntimeError(
            f"{name} can be awaited in coroutines of the gateway only, not in another thread; make the route "
            "an `async def`"
        )
