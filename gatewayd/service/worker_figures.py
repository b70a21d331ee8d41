"""
Asks the workers of a gateway for their figures, and makes one reading of what they tell.

    read() ── Measure to each worker ──> Measured from all, or two seconds ── united in a thread ──> readers

Workers tell figures as texts, which are decoded when somebody asks: those of many endpoints are large. Counts
of a worker that has ended go on in the sum, as far as they were known. Reactor thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gatewayd.clocks import Clock, Timer
from gatewayd.offload import Offload
from gatewayd.service import worker_messages as messages
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading
from gatewayd.waiters import Waiters

# How long a worker may take to tell its figures: a scraper waits, and a worker that hangs for longer is to be
# seen as that.
_MEASURING_S: Final = 2.0


class Measurable(Protocol):
    """A worker. ``figures`` are what it told last, None before that and from its end on."""

    figures: str | None

    def listens(self) -> bool: ...
    def tell(self, message: messages.ToWorker) -> None: ...


@attrs.define
class _Round:
    """Asking the workers for their figures, once."""

    number: int
    asked: Sequence[Measurable]
    patience: Timer
    missing: list[Measurable] = attrs.field(init=False)

    @missing.default
    def _all(self) -> list[Measurable]:
        return list(self.asked)


class WorkerFigures:
    """``everyone()`` are the workers now; ``offload`` runs pure functions in a thread."""

    def __init__(self, clock: Clock, offload: Offload, everyone: Callable[[], Sequence[Measurable]]) -> None:
        self._clock = clock
        self._offload = offload
        self._everyone = everyone
        self._readers: Waiters[Reading] = Waiters()
        self._rounds = 0
        self._round: _Round | None = None
        self._past = Reading()  # what processes had counted that have ended since; replaced as a whole

    def read(self) -> Deferred[Reading]:
        """The figures of all workers now. One that doesn't answer soon has the counts that it told last."""
        waiting = self._readers.wait()
        if self._round is None:
            self._rounds += 1
            asked = [each for each in self._everyone() if each.listens()]
            patience = self._clock.callLater(_MEASURING_S, self._round_over)
            self._round = _Round(self._rounds, asked, patience)
            for worker in asked:
                worker.tell(messages.Measure(self._rounds))
            if not asked:
                self._round_over()
        return waiting

    def told(self, worker: Measurable, number: int, figures: str) -> None:
        """The figures of one worker."""
        if not worker.listens():  # it has ended, and what it had counted is among the past already
            return
        worker.figures = figures
        if self._round is not None and number == self._round.number:
            self._heard_of(worker)

    def lost(self, worker: Measurable) -> None:
        """A worker has ended, or is about to: its counts go on in the sum, which would fall otherwise."""
        if worker.figures is not None:
            self._past = united(self._past, [(worker.figures, True)])
            worker.figures = None
        self._heard_of(worker)

    def _heard_of(self, worker: Measurable) -> None:
        if self._round is not None and worker in self._round.missing:
            self._round.missing.remove(worker)
            if not self._round.missing:
                self._round_over()

    def _round_over(self) -> None:
        found, self._round = self._round, None
        if found is None:
            return
        if found.patience.active():
            found.patience.cancel()
        # One that did not answer has its counts: without them the sum would fall, and then rise by all.
        texts = [(each.figures, each in found.missing) for each in found.asked if each.figures is not None]
        readers, self._readers = self._readers, Waiters()

        def done(whole: Reading) -> None:
            whole.set(table.SILENT, len(found.missing), "worker")
            readers.fire(whole)

        def failed(failure: Failure) -> None:
            assert failure.value is not None
            readers.fail(failure.value)

        self._offload(united, self._past, texts).addCallbacks(done, failed)


def united(past: Reading, texts: Sequence[tuple[str, bool]]) -> Reading:
    """
    ``past``, which stays as it is, with the readings in ``texts`` (pure).

    Of those with True counts alone: what else they say is true no longer. Raises ValueError.
    """
    whole = Reading()
    whole.unite(past)
    for text, counts_alone in texts:
        found = Reading.from_text(text)
        whole.unite(found.counted() if counts_alone else found)
    return whole
