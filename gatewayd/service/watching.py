"""
Watches the files that a Flow is made of, for ``reload: true``.

They are looked at every second, in a pool thread. A change counts once two looks have found the same, so that
what is half written is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.clocks import Clock, Timer
from gatewayd.config import FlowConfig
from gatewayd.offload import Offload
from gatewayd.supervisor.code import files_of
from gatewayd.supervisor.replica_id import started_of

log = Logger()

LOOK_S: Final = 1.0

# By path, what tells one state of a file from another without reading it; of one that is missing, why.
Signature = Mapping[str, object]


def is_watched(flow: FlowConfig) -> bool:
    """Whether any of its files are watched."""
    return flow.reload or flow.gateway.reload or any(each.reload for each in flow.deployments)


def look(flow: FlowConfig) -> Signature:
    """The files that are watched, as they are now. Blocks: it is called in a thread."""
    whole = flow.reload or flow.gateway.reload
    # The first is the Flow file; the others are configurations of executors.
    files = [Path(name) for name in (flow.files if whole else flow.files[1:])]
    for deployment in started_of(flow.deployments):
        if flow.reload or deployment.reload:
            files += files_of(deployment.executor, flow.base_dir)
    return {str(path): _state_of(path) for path in files}


def _state_of(path: Path) -> object:
    try:
        # Of what links lead to: they are how Kubernetes puts new files in place.
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_size, found.st_ino


class Watch:
    """
    Calls ``changed()`` after each change of the files of ``flow()``, which is what serves.

    Reactor thread only.
    """

    def __init__(
        self,
        flow: Callable[[], FlowConfig],
        changed: Callable[[], None],
        *,
        seen: Signature,
        clock: Clock,
        offload: Offload,
    ) -> None:
        """``seen`` are the files as they were when the Flow was read."""
        self._flow = flow
        self._changed = changed
        self._clock = clock
        self._offload = offload
        self._seen: FlowConfig | None = None
        self._judged = seen
        self._changing: Signature = {}
        self._timer: Timer | None = None
        self._looking: Deferred[None] | None = None
        self._stopped = False

    def update(self) -> None:
        """Another Flow serves, or the first one: look from now on, if it wants that."""
        if self._timer is None and self._looking is None:
            self._look()

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        self._timer = None
        flow = self._flow()
        if is_watched(flow) and not self._stopped:
            looking = self._looking = self._offload(look, flow).addCallback(self._looked, flow)
            looking.addErrback(self._failed).addCallback(self._go_on)

    def _go_on(self, _: None) -> None:
        self._looking = None
        if not self._stopped:
            self._timer = self._clock.callLater(LOOK_S, self._look)

    def _looked(self, found: Signature, flow: FlowConfig) -> None:
        before, self._changing = self._changing, found
        if flow is not self._seen:
            # Files that are new here have been read just now; of others, a change may have been missed.
            self._seen = flow
            self._judged = {path: self._judged.get(path, state) for path, state in found.items()}
        if found != self._judged and found == before:
            self._judged = found
            self._changed()

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("looking at the files of the Flow", failure=failure)
