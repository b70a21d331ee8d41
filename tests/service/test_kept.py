"""What is made once for all who look."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gatewayd.service.kept import Kept


class Setup:
    def __init__(self) -> None:
        self.clock = Clock()
        self.making: list[Deferred[int]] = []
        self.kept = Kept(self._make, self.clock)

    async def _make(self) -> int:
        self.making.append(Deferred())
        return await self.making[-1]

    def get(self) -> list[Any]:
        found: list[Any] = []
        self.kept.get().addBoth(found.append)
        return found


def test_all_who_ask_within_a_moment_get_the_same() -> None:
    setup = Setup()
    first, second = setup.get(), setup.get()
    assert len(setup.making) == 1
    assert (first, second) == ([], [])

    setup.making[0].callback(7)

    setup.clock.advance(0.4)
    assert (first, second, setup.get()) == ([7], [7], [7])
    setup.clock.advance(0.2)
    assert setup.get() == []
    assert len(setup.making) == 2


def test_who_leaves_takes_it_from_nobody() -> None:
    setup = Setup()
    leaving = setup.kept.get()
    leaving.addErrback(lambda _: None)
    staying = setup.get()
    leaving.cancel()

    setup.making[0].callback(7)

    assert staying == [7]


def test_a_failure_is_told_and_not_kept() -> None:
    setup = Setup()
    found = setup.get()
    setup.making[0].errback(ValueError("no"))
    assert found[0].check(ValueError)

    assert setup.get() == []
    assert len(setup.making) == 2
