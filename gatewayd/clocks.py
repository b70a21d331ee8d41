"""The narrow views of a reactor: its clock, its connections, its descriptors, and its threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class Timer(Protocol):
    """The part of IDelayedCall that is used here."""

    def active(self) -> bool: ...
    def cancel(self) -> None: ...


class Clock(Protocol):
    """The part of IReactorTime that is used here."""

    def seconds(self) -> float: ...
    def callLater(self, delay: float, callable: Callable[..., object], *args: Any) -> Timer: ...


class Connector(Clock, Protocol):
    """The parts of IReactorTCP, -UNIX and -PluggableNameResolver that an endpoint of a client uses."""

    nameResolver: Any

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> Any: ...
    def connectUNIX(
        self, address: str, factory: Any, timeout: float = 30.0, checkPID: bool = False
    ) -> Any: ...


class ListeningPort(Protocol):
    """The part of IListeningPort that is used here."""

    def getHost(self) -> Any: ...
    def stopListening(self) -> Deferred[None]: ...


class Acceptor(Protocol):
    """The parts of IReactorTCP and IReactorSocket for incoming connections."""

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> ListeningPort: ...
    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> ListeningPort: ...


class Watcher(Protocol):
    """The part of IReactorFDSet that is used here."""

    def addReader(self, reader: Any) -> None: ...
    def removeReader(self, reader: Any) -> None: ...


class Threads(Protocol):
    """The part of IReactorThreads that is used here."""

    def callFromThread(self, callable: Callable[..., object], *args: Any) -> None: ...
    def callInThread(self, callable: Callable[..., object], *args: Any) -> None: ...
    def getThreadPool(self) -> Any: ...


class PortReactor(Clock, Acceptor, Watcher, Threads, Protocol):
    """What a port of any protocol may use of the reactor."""


class Reactor(PortReactor, Connector, Protocol):
    """What the parts of a gateway use of the reactor."""


class ServiceReactor(Reactor, Protocol):
    """What a service uses of it besides: its start, its end and its processes (IReactorCore, -Process)."""

    spawnProcess: Any

    def callWhenRunning(self, callable: Callable[..., object], *args: Any) -> Any: ...
    def stop(self) -> None: ...
