"""
Replicas behind host names: every address that a name resolves to is a replica of its own.

Names are looked up at the start, every ``refresh_s``, and when no replica can be reached. An address that
has disappeared from the answer gets no more calls, and its calls in flight may finish. A lookup that fails
changes nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHostResolution, IResolutionReceiver
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gatewayd.clocks import Clock, Timer
from gatewayd.pool.steps import Steps, a_few_at_once
from gatewayd.schemes import KUBERNETES, socket_path

if TYPE_CHECKING:
    from gatewayd.pool.watching import Watched

log = Logger()

# The pause after a lookup that failed, and the least between two lookups when no replica can be reached.
_AGAIN_S: Final = 1.0
# How often the log says again why a name cannot be looked up: that of pods that load a model has no address.
_TOLD_S: Final = 60.0
# How often a name is looked up while none of its addresses can be reached.
_OUTAGE_S: Final = 2.0
# How many addresses a line of the log names.
_MOST_NAMED: Final = 20

Resolve = Callable[[str], Deferred[Sequence[str]]]
# Which of some addresses are called.
Choose = Callable[[Collection[str]], frozenset[str]]


class NameResolver(Protocol):
    """The part of IReactorPluggableNameResolver that is used here."""

    nameResolver: Any


def resolver(reactor: NameResolver) -> Resolve:
    """Look names up as ``reactor`` does: by default in threads that call getaddrinfo."""

    def resolve(host: str) -> Deferred[Sequence[str]]:
        receiver = _Receiver()
        reactor.nameResolver.resolveHostName(receiver, host, 0, [IPv4Address, IPv6Address])
        return receiver.addresses

    return resolve


@implementer(IResolutionReceiver)
class _Receiver:
    """Collects the addresses, in the resolver's order."""

    def __init__(self) -> None:
        self.addresses: Deferred[Sequence[str]] = Deferred()
        self._found: list[str] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        """Nothing to do yet."""

    def addressResolved(self, address: Any) -> None:
        self._found.append(address.host)

    def resolutionComplete(self) -> None:
        self.addresses.callback(tuple(dict.fromkeys(self._found)))


@attrs.frozen
class HostName:
    """``host:port`` of a Flow file, where host is a name."""

    host: str
    port: str

    @classmethod
    def of(cls, address: str) -> HostName | None:
        """The name in ``address``, None where no lookup is needed."""
        if socket_path(address) is not None or address.startswith(KUBERNETES):
            return None
        host, _, port = address.rpartition(":")
        bare = host.strip("[]")
        try:
            ipaddress.ip_address(bare.partition("%")[0])
        except ValueError:
            # Both families of localhost are one machine: one replica, and connecting tries them in turn.
            local = bare.lower().rstrip(".")
            return None if local == "localhost" or local.endswith(".localhost") else cls(bare, port)
        return None

    @property
    def label(self) -> str:
        return f"{self.host}:{self.port}"


class NamedReplicas:
    """Keeps one name's replicas in a set as the name's addresses change: a Watcher."""

    how = ""

    def __init__(
        self,
        name: HostName,
        replicas: Watched,
        resolve: Resolve,
        clock: Clock,
        refresh_s: float,
        choose: Choose = frozenset,
        known: frozenset[str] = frozenset(),
    ) -> None:
        """``choose`` says which of the addresses are called; those ``known`` are in the set already."""
        self._choose = choose
        self._name = name
        self._replicas = replicas
        self._resolve = resolve
        self._clock = clock
        self._refresh_s = refresh_s
        self._timer: Timer | None = None
        self._asking: Deferred[Any] | None = None
        self._changing: Steps | None = None
        self._asked_s = 0.0
        self._current = known
        self._both_families = False
        self._why = ""  # it could not be looked up, as the log said it last
        self._told_s = 0.0
        self._closed = False

    def start(self) -> None:
        """Look the name up, now and from time to time."""
        self._timer = None
        self._asked_s = self._clock.seconds()
        asking = self._asking = self._resolve(self._name.host)
        asking.addCallbacks(self._found, self._not_found).addErrback(self._unexpected)

    def refresh_soon(self) -> None:
        """No replica can be reached: the name may resolve to others by now."""
        if self._closed or self._asking is not None or self._changing is not None:
            return
        pause_s = max(0.0, self._asked_s + _AGAIN_S - self._clock.seconds())
        self._schedule(pause_s)

    def close(self) -> None:
        """Stop looking the name up."""
        self._closed = True
        if self._changing is not None:
            self._changing.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, pause_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.callLater(pause_s, self.start)

    def _found(self, found: Sequence[str]) -> None:
        self._asking = None
        if self._closed:
            return
        if not found:
            self._failed("the name has no address")
            return
        addresses = self._choose([self._dial_address(host) for host in self._usable(found)])
        self._changing = Steps(self._clock, self._changes(addresses))
        self._changing.done.addCallback(lambda _: self._changed(addresses)).addErrback(self._unexpected)
        self._changing.start()

    def _changes(self, addresses: frozenset[str]) -> Iterator[None]:
        come, gone = sorted(addresses - self._current), sorted(self._current - addresses)
        yield from a_few_at_once(come, lambda address: self._replicas.add(address, self._name.host))
        yield from a_few_at_once(gone, self._replicas.retire)

    def _changed(self, addresses: frozenset[str]) -> None:
        self._changing = None
        if addresses != self._current:
            log.info(
                "{deployment}: {name} is {addresses}",
                deployment=self._replicas.deployment,
                name=self._name.host,
                addresses=_in_words(sorted(addresses)),
            )
        self._current = addresses
        self._why = ""
        # During an outage no replica changes, so that refresh_soon is not called again.
        self._schedule(min(self._refresh_s, _OUTAGE_S) if not self._replicas.connected else self._refresh_s)

    def _usable(self, found: Sequence[str]) -> Sequence[str]:
        """The addresses of one family: those of the other are the same machines again."""
        if self._current and not self._replicas.connected:
            # The family that we chose does not work. From now on use both: it may be broken for good.
            self._both_families = True
        if self._both_families:
            return found
        version = _version(found[0])
        return [host for host in found if _version(host) == version]

    def _dial_address(self, host: str) -> str:
        return f"[{host}]:{self._name.port}" if ":" in host else f"{host}:{self._name.port}"

    def _not_found(self, failure: Failure) -> None:
        failure.trap(OSError, CancelledError)
        self._failed(str(failure.value))

    def _failed(self, why: str) -> None:
        self._asking = self._changing = None
        if self._closed:
            return
        self._replicas.not_found(f"DNS resolution failed for {self._name.label}: {why}")
        if why != self._why or self._clock.seconds() - self._told_s >= _TOLD_S:
            self._why, self._told_s = why, self._clock.seconds()
            log.warn(
                "{deployment}: {name} cannot be looked up: {why}; it is tried again each second or few",
                deployment=self._replicas.deployment,
                name=self._name.host,
                why=why,
            )
        self._schedule(_AGAIN_S if not self._current else min(self._refresh_s, 5 * _AGAIN_S))

    def _unexpected(self, failure: Failure) -> None:
        log.failure("looking up {name}", failure=failure, name=self._name.host)
        self._failed("an error of ours, which is in the log")


def _in_words(addresses: Sequence[str]) -> str:
    named = ", ".join(addresses[:_MOST_NAMED])
    more = len(addresses) - _MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


def _version(host: str) -> int:
    return 6 if ":" in host else 4
