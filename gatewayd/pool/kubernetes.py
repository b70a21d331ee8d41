"""
Replicas behind a Service of Kubernetes, followed by a watch of its EndpointSlices.

A pod that is ready is a replica; one that is not, or ends, gets no more calls, and those that it has may
finish. While the API server cannot be asked nothing changes. Where this gateway runs in no cluster, may not
watch EndpointSlices, or has not reached the API server yet, the Service's name is looked up instead (that of
a headless Service has all of its pods). The API server is asked again from time to time, because a right may
come after the pod that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.backoff import Backoff
from gatewayd.clocks import Clock, Timer
from gatewayd.pool.dns import Choose, HostName
from gatewayd.pool.endpoint_slices import MOST_BYTES, Expired, Slices, Unintelligible
from gatewayd.pool.steps import Steps, a_few_at_once
from gatewayd.pool.watching import ByName, Watched, Watcher
from gatewayd.schemes import ServiceName

log = Logger()

# The API server ends a watch after about this time, and we do somewhat later: its machine may be gone without
# a word. Gateways that started together are not to ask together.
_WATCH_S: Final = (100, 140)
_PATIENCE_S: Final = 20.0
_LIST_S: Final = 30.0
# A watch that ends sooner is no success: the next one waits.
_SHORT_S: Final = 1.0
# With no replica connected, a watch that has been silent for so long is not trusted.
_STALE_S: Final = 10.0
_AGAIN: Final = Backoff(0.5, ceiling_s=30.0, low=0.8, high=1.2)
# Whether the right to watch has come.
_ALLOWED: Final = Backoff(5.0, ceiling_s=300.0, low=0.8, high=1.2)
_OK: Final = 200
_FORBIDDEN: Final = (401, 403)
_GONE: Final = 410
# After a change, others are taken together for so long: each looks at all pods, and a roll-out of thousands
# has dozens a second.
_TOGETHER_S: Final = 0.25
# So many addresses are in a line of the log.
_SHOWN: Final = 10

SLICES: Final = "EndpointSlices"


class ApiError(Exception):
    """The API server could not be asked; the text says why."""


class ApiServer(Protocol):
    """The API server of the cluster that this gateway runs in; ``namespace`` is that of its pod."""

    namespace: str

    def get(self, path: str, on_begin: Callable[[], None], on_data: Callable[[bytes], None]) -> Deferred[int]:
        """
        Ask for ``path``. Fires with the status, at the end of the answer.

        ``on_begin`` is called when a 200 begins, and ``on_data`` gets its body in pieces. Fails with
        ApiError. Cancelling it ends the connection.
        """
        ...


class FollowedService:
    """
    Keeps one Service's replicas in a set: a Watcher. Reactor thread only.

    ``api`` is None outside of a cluster. ``by_name`` makes the watcher that looks a name up, for a gateway
    that may not watch; ``choose`` says which of the addresses are called.
    """

    def __init__(
        self,
        service: ServiceName,
        replicas: Watched,
        api: ApiServer | None,
        clock: Clock,
        dice: Callable[[], float],
        by_name: ByName,
        choose: Choose = frozenset,
    ) -> None:
        if service.namespace is None and api is not None:
            service = attrs.evolve(service, namespace=api.namespace)
        self._service = service
        self._host = service.host
        self._replicas = _Tracked(replicas)
        self._api = api
        self._clock = clock
        self._dice = dice
        self._by_name = by_name
        self._choose = choose
        self._slices = Slices(service.port)
        self._listed_before = False
        self._failures = 0
        self._refusals = 0
        self._timer: Timer | None = None
        self._due_s = 0.0
        self._work: Callable[[], None] = self._list  # what the timer is for
        self._told_s = float("-inf")
        self._telling: Timer | None = None
        self._asking: Deferred[Any] | None = None
        self._heard_s = 0.0  # when something came last
        self._watching = False
        self._reading: Steps | None = None
        self._changing: Steps | None = None
        self._tell_again = False  # once these changes are made
        self._trouble: Expired | Unintelligible | None = None
        self._interrupted = False
        self._fallback: Watcher | None = None
        self._why_dns = ""
        self._closed = False

    @property
    def how(self) -> str:
        """How its replicas are found, for the status: without the inner addresses of a cluster."""
        if self._fallback is not None:
            return f"DNS ({self._why_dns})"
        return f"{SLICES} (interrupted)" if self._interrupted else SLICES

    def start(self) -> None:
        """List the slices, and watch them from then on."""
        if self._api is None:
            log.warn(
                "{deployment}: {name} is looked up by DNS: this gateway runs in no pod with a service "
                "account, and cannot follow {slices}",
                deployment=self._replicas.deployment,
                name=self._host,
                slices=SLICES,
            )
            self._look_up("not in a cluster")
        else:
            self._list()

    def refresh_soon(self) -> None:
        """A watch tells changes as they happen, unless it is broken or its other side has gone."""
        if self._closed:
            return
        if self._fallback is not None:
            self._fallback.refresh_soon()
        elif self._timer is not None:
            soon_s = self._clock.seconds() + _SHORT_S * (1 + self._dice())
            if soon_s < self._due_s:
                self._schedule(self._work, soon_s - self._clock.seconds())
        elif self._watching and self._clock.seconds() - self._heard_s >= _STALE_S:
            self._give_up(Expired())

    def close(self) -> None:
        """Ask nothing more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._tell_no_more()
        for steps in (self._reading, self._changing):
            if steps is not None:
                steps.stop()
        if self._asking is not None:
            self._asking.cancel()
        if self._fallback is not None:
            self._fallback.close()

    # -- asking --------------------------------------------------------------------------------------

    def _list(self) -> None:
        body = bytearray()

        def take(data: bytes) -> None:
            if len(body) + len(data) > MOST_BYTES:
                self._give_up(Unintelligible(f"a list of more than {MOST_BYTES} bytes"))
            elif self._trouble is None:
                body.extend(data)

        # The first list may be a little old, from the API server's memory; after a gap it is the newest.
        version = {} if self._listed_before else {"resourceVersion": "0"}
        self._ask(
            self._path(**version), _LIST_S, _nothing, take, lambda status: self._listed(status, bytes(body))
        )

    def _watch(self) -> None:
        self._slices.watch_begins()
        low, high = _WATCH_S
        watch_s = round(low + (high - low) * self._dice())
        path = self._path(
            watch="1",
            resourceVersion=self._slices.version,
            allowWatchBookmarks="true",
            timeoutSeconds=str(watch_s),
        )
        self._watching = True
        self._ask(path, watch_s + _PATIENCE_S, self._watch_begun, self._watched, self._watch_ended)

    def _path(self, **more: str) -> str:
        query = {"labelSelector": f"kubernetes.io/service-name={self._service.service}", **more}
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{self._service.namespace}/endpointslices"
        return f"{slices}?{urlencode(query)}"

    def _ask(
        self,
        path: str,
        patience_s: float,
        on_begin: Callable[[], None],
        on_data: Callable[[bytes], None],
        then: Callable[[int], None],
    ) -> None:
        assert self._api is not None
        self._timer = None
        self._trouble = None
        self._heard_s = self._clock.seconds()
        began_s = self._heard_s
        asking = self._asking = self._api.get(path, on_begin, on_data)
        late = self._clock.callLater(patience_s, asking.cancel)

        def ended(result: Any) -> Any:
            if late.active():
                late.cancel()
            if self._watching and self._clock.seconds() - began_s >= _SHORT_S:
                self._failures = 0
            self._asking = None
            self._watching = False
            return result

        asking.addBoth(ended).addCallbacks(
            lambda status: None if self._closed else then(status), self._failed
        ).addErrback(self._unexpected)

    def _give_up(self, trouble: Expired | Unintelligible) -> None:
        """End what is under way; its end is told to ``_failed``."""
        if self._trouble is None:
            self._trouble = trouble
            if self._asking is not None:
                self._asking.cancel()

    # -- what comes of it ----------------------------------------------------------------------------

    def _listed(self, status: int, body: bytes) -> None:
        if status in _FORBIDDEN:
            self._forbidden(status)
            return
        if status != _OK:
            self._again(self._list, f"the API server answers {status}")
            return
        self._reading = Steps(self._clock, self._slices.listed(body))
        self._reading.done.addCallbacks(lambda _: self._read(), self._not_read).addErrback(self._unexpected)
        self._reading.start()

    def _read(self) -> None:
        self._listed_before = True
        if self._fallback is None:
            self._tell()
        if not self._closed:
            self._watch()

    def _not_read(self, failure: Failure) -> None:
        failure.trap(Unintelligible)
        self._again(self._list, f"the API server sends {failure.value}")

    def _watch_begun(self) -> None:
        """What may be listed may not have been allowed to be watched: from here on it is."""
        self._heard_s = self._clock.seconds()
        if self._fallback is not None:
            self._fallback.close()
            self._fallback = None
            self._refusals = 0
            log.info(
                "{deployment}: {name} is followed by {slices} from now on",
                deployment=self._replicas.deployment,
                name=self._host,
                slices=SLICES,
            )
            self._tell()
        if self._interrupted:
            self._interrupted = False
            log.info(
                "{deployment}: {name} is followed again",
                deployment=self._replicas.deployment,
                name=self._host,
            )

    def _watched(self, data: bytes) -> None:
        if self._trouble is not None or self._closed:
            return
        self._heard_s = self._clock.seconds()
        trouble: Expired | Unintelligible | None = None
        try:
            self._slices.watched(data)
        except (Expired, Unintelligible) as error:
            trouble = error
        self._tell_soon()
        if trouble is not None:
            self._give_up(trouble)

    def _watch_ended(self, status: int) -> None:
        if status in _FORBIDDEN:
            self._forbidden(status)
        elif status == _GONE:
            self._wait(self._list)
        elif status != _OK:
            # Whatever it has against this watch, a list begins anew.
            self._again(self._list, f"the API server answers {status} to a watch")
        elif self._failures:
            self._wait(self._watch)
        else:
            self._failures = 1  # until the next one has lasted
            self._watch()

    def _tell_soon(self) -> None:
        if self._telling is None:
            left_s = self._told_s + _TOGETHER_S - self._clock.seconds()
            if left_s > 0:
                self._telling = self._clock.callLater(left_s, self._tell)
            else:
                self._tell()

    def _tell_no_more(self) -> None:
        if self._telling is not None and self._telling.active():
            self._telling.cancel()
        self._telling = None

    def _tell(self) -> None:
        self._tell_no_more()
        if self._changing is not None:
            self._tell_again = True
            return
        self._told_s = self._clock.seconds()
        before, now = self._replicas.addresses.copy(), self._choose(self._slices.addresses())
        come, gone = sorted(now - before), sorted(before - now)
        if not come and not gone:
            if not now:
                self._replicas.why_empty = f"no pod of {self._host} is ready"
            return
        if not now:
            self._replicas.why_empty = f"no pod of {self._host} is ready"
        self._changing = Steps(self._clock, self._changes(come, gone))
        self._changing.done.addErrback(self._unexpected).addCallback(lambda _: self._changed())
        self._changing.start()
        log.info(
            "{deployment}: {name} has {count} replicas that are ready; new: {come}; gone: {gone}",
            deployment=self._replicas.deployment,
            name=self._host,
            count=len(now),
            come=_some(come),
            gone=_some(gone),
        )

    def _changes(self, come: Collection[str], gone: Collection[str]) -> Iterator[None]:
        yield from a_few_at_once(come, lambda address: self._replicas.add(address, self._host))
        yield from a_few_at_once(gone, self._replicas.retire)

    def _changed(self) -> None:
        """All are told; meanwhile there may have been other changes."""
        self._changing = None
        if self._tell_again:
            self._tell_again = False
            self._tell_soon()

    def _forbidden(self, status: int) -> None:
        """Look the name up, and ask again after a while."""
        if self._fallback is None:
            log.warn(
                "{deployment}: {name} is looked up by DNS: this gateway may not watch {slices} in the "
                "namespace {namespace} (the API server answers {status}); give its service account list and "
                "watch of endpointslices in discovery.k8s.io, as the Role does that gatewayd export "
                "kubernetes writes",
                deployment=self._replicas.deployment,
                name=self._host,
                slices=SLICES,
                namespace=self._service.namespace,
                status=status,
            )
            self._interrupted = False
            self._look_up(f"no right to watch {SLICES}")
        self._refusals += 1
        self._schedule(self._list, _ALLOWED.delay_s(self._refusals, self._dice()))

    def _look_up(self, why: str) -> None:
        self._why_dns = why
        if self._changing is not None:
            self._changing.stop()
            self._changing, self._tell_again = None, False
        # Pods that were told of end unheard from now on, and others get their addresses.
        name, known = HostName(self._host, str(self._service.port)), frozenset(self._replicas.addresses)
        self._fallback = self._by_name(name, self._replicas, known)
        self._fallback.start()

    def _failed(self, failure: Failure) -> None:
        if self._closed:
            failure.trap(CancelledError, ApiError)
            return
        # Until something is heard again of the version that is known, nothing has to be listed.
        resume = self._watch if self._slices.version else self._list
        if failure.check(CancelledError):
            if self._trouble is None:
                self._again(resume, "the API server has fallen silent")
            elif isinstance(self._trouble, Expired):
                self._wait(self._list)
            else:
                self._again(self._list, f"the API server sends {self._trouble}")
            return
        failure.trap(ApiError)
        self._again(resume, str(failure.value))

    def _unexpected(self, failure: Failure) -> None:
        log.failure("following {name}", failure=failure, name=self._host)
        if not self._closed and self._timer is None and self._asking is None:
            self._again(self._list, "an error of ours, which is in the log")

    # -- another time --------------------------------------------------------------------------------

    def _again(self, work: Callable[[], None], why: str) -> None:
        """Do ``work`` after a pause, because of ``why``, which is told once; not while DNS does the work."""
        if self._fallback is None and not self._listed_before:
            log.warn(
                "{deployment}: {name} is looked up by DNS, because the API server cannot be asked: {why}; it "
                "is tried again",
                deployment=self._replicas.deployment,
                name=self._host,
                why=why,
            )
            self._look_up("the API server cannot be asked")
        if self._fallback is not None:
            self._wait(work)
            return
        self._replicas.not_found(f"{self._host} cannot be followed: {why}")
        if not self._interrupted:
            self._interrupted = True
            log.warn(
                "{deployment}: {name} cannot be followed: {why}; its replicas stay as they are, and it is "
                "tried again",
                deployment=self._replicas.deployment,
                name=self._host,
                why=why,
            )
        self._wait(work)

    def _wait(self, work: Callable[[], None]) -> None:
        self._failures += 1
        self._schedule(work, _AGAIN.delay_s(self._failures, self._dice()))

    def _schedule(self, work: Callable[[], None], pause_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._work = work
        self._due_s = self._clock.seconds() + pause_s
        self._timer = self._clock.callLater(pause_s, work)


class _Tracked:
    """A set of replicas, and the addresses that it was told: of slices and DNS, whichever tells them."""

    def __init__(self, replicas: Watched) -> None:
        self._replicas = replicas
        self.deployment = replicas.deployment
        self.addresses: set[str] = set()

    @property
    def why_empty(self) -> str:
        return self._replicas.why_empty

    @why_empty.setter
    def why_empty(self, why: str) -> None:
        self._replicas.why_empty = why

    @property
    def connected(self) -> bool:
        return self._replicas.connected

    def add(self, address: str, host: str | None = None) -> None:
        self.addresses.add(address)
        self._replicas.add(address, host)

    def retire(self, address: str) -> Deferred[None]:
        self.addresses.discard(address)
        return self._replicas.retire(address)

    def not_found(self, why: str) -> None:
        self._replicas.not_found(why)


def _some(addresses: Collection[str]) -> str:
    shown = ", ".join(list(addresses)[:_SHOWN]) or "none"
    return shown if len(addresses) <= _SHOWN else f"{shown} and {len(addresses) - _SHOWN} more"


def _nothing() -> None:
    """A list tells all at its end."""
