"""The client's own deadline, when it has passed."""

from __future__ import annotations

from gatewayd.errors import DeadlineExceeded


class DeadlineOver(DeadlineExceeded):
    """The client's own deadline passed; ``deployment`` names all that were still waited for."""

    def __init__(self, waiting_for: tuple[str, ...], timeout_s: float) -> None:
        self.waiting_for = waiting_for
        self.timeout_s = timeout_s
        super().__init__(", ".join(waiting_for), ())

    def explanation(self) -> str:
        waiting = f" while waiting for {self.deployment}" if self.waiting_for else ""
        return (
            f"Deadline Exceeded|Gateway: the request's own deadline of {self.timeout_s:g} s passed{waiting}."
        )

    def summary(self) -> str:
        return f"The request's own deadline of {self.timeout_s:g} s passed."
