"""
Which connections are opened next, where many are wanted at once. Pure: no clock, no sockets.

A gateway's handshakes are the work of one reactor: when it begins thousands together, all of them are late.
So only some are under way, and what wants to connect waits for its turn. Each Deployment has a ``Line``. The
next turn goes to a Deployment that has requests waiting, then to the one with the fewest handshakes under
way: replicas of one that do not answer keep no other waiting for longer than one handshake may take. In a
line, connections that something waits for come first, and those that have just failed last.

A handshake that hangs is no work for the reactor: while others wait it keeps its turn for ``HANGS_S`` only,
so that a thousand replicas that are silent do not delay those behind them. The pool's probes of replicas take
turns in the same way, among themselves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal

# After so long without an answer another may begin beside it: some round trips to a machine that is near.
HANGS_S: Final = 0.1

Place = Literal["urgent", "first", "again"]

_PLACES: Final[tuple[Place, ...]] = ("urgent", "first", "again")


class Turns:
    """At most ``limit`` handshakes at once, in all lines together; None for any number."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.under_way = 0
        self.failed = 0  # how many are tried again and again
        self._waiting: dict[
            Line, None
        ] = {}  # the lines in which something waits, in the order of their last turn
        self._hanging: dict[Turn, None] = {}  # those under way that hang, the longest first
        self._serving = False

    def line(self, is_needed: Callable[[], bool] = lambda: False) -> Line:
        """One more line. ``is_needed`` says whether requests wait for any connection of it."""
        return Line(self, is_needed)

    @property
    def waiting(self) -> int:
        """How many connections wait for their turn."""
        return sum(len(line) for line in self._waiting)

    @property
    def stretch(self) -> float:
        """
        By how much longer those that fail have to pause.

        So that thousands that are away are not tried more often, all together, than ``limit`` would be.
        """
        return 1.0 if self.limit is None else max(1.0, self.failed / self.limit)

    # -- for lines -----------------------------------------------------------------------------------

    def joined(self, line: Line) -> None:
        """Something waits in a line."""
        self._waiting.setdefault(line)
        self.serve()

    def left(self, line: Line) -> None:
        """Something waits there no more."""
        if not len(line):
            self._waiting.pop(line, None)

    def serve(self) -> None:
        """Begin as many as there is room for."""
        # One may fail while it begins, which brings us back here: the loop then simply goes on.
        if self._serving:
            return
        self._serving = True
        try:
            while self._waiting and (self.limit is None or self.under_way < self.limit or self._give_way()):
                line = min(self._waiting, key=Line.rank)
                # It goes behind those of the same rank.
                del self._waiting[line]
                turn = line.take()
                if len(line):
                    self._waiting[line] = None
                turn.begin()
        finally:
            self._serving = False

    def hangs(self, turn: Turn) -> None:
        """It may give way to another."""
        self._hanging[turn] = None
        self.serve()

    def ended(self, turn: Turn) -> None:
        """It is not under way any more."""
        self._hanging.pop(turn, None)
        self.under_way -= 1
        self.serve()

    def _give_way(self) -> bool:
        """End the turn of the one that hangs for longest; False if none does."""
        turn = next(iter(self._hanging), None)
        if turn is not None:
            turn.end()
        return turn is not None


class Line:
    """The connections of one Deployment that wait to be opened."""

    def __init__(self, turns: Turns, is_needed: Callable[[], bool]) -> None:
        self.turns = turns
        self.under_way = 0
        self._is_needed = is_needed
        self._waiting: dict[Place, OrderedDict[Turn, None]] = {place: OrderedDict() for place in _PLACES}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def turn(self, begin: Callable[[], None], place: Place) -> Turn:
        """One for a connection, which has to ask for it; ``again`` is for one that has just failed."""
        return Turn(self, begin, place)

    def add(self, turn: Turn) -> None:
        """One waits from now on."""
        self._waiting[turn.place][turn] = None
        self.turns.joined(self)

    def rank(self) -> tuple[bool, int]:
        """The least comes next."""
        return not (self._waiting["urgent"] or self._is_needed()), self.under_way

    def take(self) -> Turn:
        """The one that comes next. Not when the line is empty."""
        place = next(place for place in _PLACES if self._waiting[place])
        turn, _ = self._waiting[place].popitem(last=False)
        return turn

    def hurry(self, turn: Turn) -> None:
        """Put one that waits before those that nothing waits for."""
        if turn in self._waiting[turn.place]:
            del self._waiting[turn.place][turn]
            turn.place = "urgent"
            self._waiting["urgent"][turn] = None

    def discard(self, turn: Turn) -> None:
        """One does not wait any longer."""
        self._waiting[turn.place].pop(turn, None)
        self.turns.left(self)


class Turn:
    """
    One connection's: it waits, then its handshake is under way, then it has ended.

    ``begin`` is called when it may connect; it may not raise.
    """

    __slots__ = ("_begin", "_line", "_state", "place")

    def __init__(self, line: Line, begin: Callable[[], None], place: Place) -> None:
        self.place = place
        self._begin = begin
        self._line = line
        self._state: Literal["waits", "under way", "over"] = "waits"

    @property
    def waits(self) -> bool:
        """Whether it was asked for, and has not begun."""
        return self._state == "waits"

    def ask(self) -> None:
        """Wait for it. It may begin at once."""
        self._line.add(self)

    def begin(self) -> None:
        """For its line: it is its turn."""
        self._state = "under way"
        self._line.under_way += 1
        self._line.turns.under_way += 1
        self._begin()

    def hurry(self) -> None:
        """Something waits for the connection now."""
        if self._state == "waits":
            self._line.hurry(self)

    def hang(self) -> None:
        """It has been under way for ``HANGS_S``: if another waits it ends, though the handshake goes on."""
        if self._state == "under way":
            self._line.turns.hangs(self)

    def end(self) -> None:
        """The handshake has ended, well or not, or is not wanted any more. Harmless when repeated."""
        was, self._state = self._state, "over"
        if was == "waits":
            self._line.discard(self)
        elif was == "under way":
            self._line.under_way -= 1
            self._line.turns.ended(self)
