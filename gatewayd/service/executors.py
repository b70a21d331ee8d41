"""What a gateway needs of the processes of its executors, wherever they are supervised."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred


class Executors(Protocol):
    """A ``Supervisor``, or what stands for one that is in another process."""

    def stop(self, grace_s: float, /) -> Deferred[None]:
        """Fires when all have ended, at the latest a moment after ``grace_s``."""
        ...
