"""
What a client may do on one connection besides asking: frames that bring nothing, resets, pings.

Each kind has an allowance that is used up by frames and refilled as time passes and requests are answered. A
client that asks for work can spend as much as it likes; one that only costs us work is cut off with
ENHANCE_YOUR_CALM. No clock: the connection's owner calls ``refill`` once a second.
"""

from __future__ import annotations

from typing import Final

from gatewayd.rpc.frames import ENHANCE_YOUR_CALM, Violation

# A connection may send so many frames without content at once, and so many more each second.
_NOISE: Final = 8000
_NOISE_PER_S: Final = 2000
# A message of ours is followed by a few frames about it: updates of windows, acknowledgements of pings.
_NOISE_PER_MESSAGE: Final = 8
# The part of all resets that is allowed again after each second.
_RESETS_EACH_S: Final = 20
# Pings that come too early and are forgiven; gRPC's servers have the same number.
_MAX_PING_STRIKES: Final = 2
_LONG_AGO_S: Final = float("-inf")


class Conduct:
    """
    The allowances of one connection. Every method that uses one up raises Violation when it is empty.

    ``ping_interval_s`` is the least time between two pings without an answer of ours between them, 0 for any.
    ``resets`` are of requests that were not answered yet, at once; a twentieth of them more each second. A
    client of the reference may give up its 1000 calls at once.
    """

    __slots__ = ("_last_ping_s", "_most_resets", "_noise", "_ping_interval_s", "_ping_strikes", "_resets")

    def __init__(self, ping_interval_s: float = 0.0, resets: int = 2000) -> None:
        self._noise = _NOISE
        self._most_resets = self._resets = resets
        self._ping_interval_s = ping_interval_s
        self._ping_strikes = 0
        self._last_ping_s = _LONG_AGO_S

    def noise(self, weight: int = 1) -> None:
        """A frame without content, or one that costs as much as ``weight`` of them."""
        self._noise -= weight
        if self._noise < 0:
            raise Violation(ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def small(self) -> None:
        """A tiny piece of a message, which is rarely one by itself."""
        self.noise()

    def reset(self) -> None:
        """A request was reset before it was answered (CVE-2023-44487)."""
        self._resets -= 1
        if self._resets < 0:
            raise Violation(ENHANCE_YOUR_CALM, "too many requests are reset before they are answered")

    def ping(self, now_s: float) -> None:
        """A ping, which is no acknowledgement (gRPC's doc/keepalive.md)."""
        self.noise()
        early = now_s - self._last_ping_s < self._ping_interval_s
        self._last_ping_s = now_s
        if early:
            self._ping_strikes += 1
            if self._ping_strikes > _MAX_PING_STRIKES:
                raise Violation(ENHANCE_YOUR_CALM, "too_many_pings")

    def sent(self) -> None:
        """Headers, data or a window went out: pings are welcome again, as in gRPC's own server."""
        self._ping_strikes = 0
        self._last_ping_s = _LONG_AGO_S

    def message_sent(self, count: int = 1) -> None:
        """So many whole messages, or a good part of one, went out: as ``sent``, too."""
        self._ping_strikes = 0
        self._last_ping_s = _LONG_AGO_S
        noise = self._noise + _NOISE_PER_MESSAGE * count
        self._noise = noise if noise < _NOISE else _NOISE

    def answered(self) -> None:
        """A request has been answered: as ``message_sent``, in the same call."""
        self._ping_strikes = 0
        self._last_ping_s = _LONG_AGO_S
        noise = self._noise + _NOISE_PER_MESSAGE
        self._noise = noise if noise < _NOISE else _NOISE
        if self._resets < self._most_resets:
            self._resets += 1

    def refill(self) -> None:
        """A second has passed."""
        self._noise = min(_NOISE, self._noise + _NOISE_PER_S)
        most = self._most_resets
        self._resets = min(most, self._resets + most // _RESETS_EACH_S)
