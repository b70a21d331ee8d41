"""
What systemd is told of the service, by the protocol of sd_notify(3): its state, and that its reactor lives.

    starting ── ready ──> serving ── reloading ──> reloading ── reloaded, not_reloaded ──> serving
       └──────────────────────┴──────── stopping() from anywhere ──> draining

``Notifier`` decides what to say, and ``NotifySocket`` sends it. Nothing here keeps the gateway from serving.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Literal, Protocol

from twisted.logger import Logger

from gatewayd.clocks import Clock, Timer

log = Logger()

# While it starts or drains, systemd is asked at each pulse to wait so much longer, whatever its own limits.
_PATIENCE_S: Final = 30.0
# Before the reactor runs there is no pulse: a gateway class may load a model meanwhile. As an executor has.
_LOADING_S: Final = 600.0
# At the latest after so long the status is brought up to date.
_PULSE_S: Final = 5.0
_TRANSITION_PULSE_S: Final = 1.0
# systemd looks at what comes as soon as it can: more than a few are left over only if it hangs.
_MOST_UNSENT: Final = 16
# What comes again by itself, or matters for a moment.
_PULSES: Final = frozenset({"WATCHDOG", "STATUS", "EXTEND_TIMEOUT_USEC"})
_LONGEST_STATUS: Final = 200

Phase = Literal["starting", "serving", "reloading", "draining", "failed"]
_TRANSITIONS: Final = ("starting", "reloading", "draining")


class Sender(Protocol):
    """What sends to systemd."""

    def send(self, message: str) -> None:
        """Lines of ``NAME=value``. Never raises, nor waits."""
        ...

    def close(self) -> None:
        """Nothing is sent any more."""
        ...


class NotifySocket:
    """
    A datagram socket to systemd, or whoever is at the address. Reactor thread only.

    It is connected at once, while the path can be seen (twistd's ``--chroot``), and again with what comes
    next after it was lost. What could not be sent is sent with what comes next; of too much, pulses are
    dropped first. That it cannot be reached is logged once, until it is reached again.
    """

    def __init__(self, address: str) -> None:
        """A path, or the name of an abstract socket with ``@`` before it."""
        self._address = address
        self._socket: socket.socket | None = None
        self._unsent: deque[str] = deque()
        self._is_closed = False
        self._is_lost = False
        self._error: str | None = None  # which is not in the log yet
        self._connect()

    def send(self, message: str) -> None:
        """Lines of ``NAME=value``."""
        if self._is_closed:
            return
        self._keep(message)
        if self._socket is None:
            self._connect()
        try:
            while self._unsent and self._socket is not None:
                self._socket.send(self._unsent[0].encode("utf-8", "backslashreplace"))
                self._unsent.popleft()
                self._is_lost = False
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
        self._tell_error()

    def close(self) -> None:
        """Nothing is sent any more."""
        self._is_closed = True
        self._unsent.clear()
        self._disconnect()

    def _keep(self, message: str) -> None:
        self._unsent.append(message)
        if len(self._unsent) > _MOST_UNSENT:
            self._unsent.remove(next(filter(_is_pulse, self._unsent), self._unsent[0]))

    def _connect(self) -> None:
        address = self._address
        try:
            if not address.startswith(("/", "@")):
                raise OSError("the address is neither a path nor @ and a name")
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.connect(f"\0{address[1:]}" if address[0] == "@" else address)
        except OSError as error:
            self._lose(error)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _lose(self, error: OSError) -> None:
        self._disconnect()
        if not self._is_lost:
            self._is_lost = True
            self._error = error.strerror or str(error)

    def _tell_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            log.warn(
                "systemd is told nothing: its socket {address} (NOTIFY_SOCKET) cannot be reached: {error}",
                address=self._address,
                error=error,
            )


def _is_pulse(message: str) -> bool:
    return all(line.partition("=")[0] in _PULSES for line in message.splitlines())


class Notifier:
    """
    Tells systemd what happens to the service. Reactor thread only.

    Its own timer is the watchdog's pulse: a reactor that hangs sends none. ``replicas()`` are how many serve,
    and how many there are; ``under_way()`` are the requests, None if that is not known.
    """

    def __init__(
        self,
        sender: Sender,
        clock: Clock,
        *,
        watchdog_s: float | None = None,
        replicas: Callable[[], tuple[int, int]] = lambda: (0, 0),
        under_way: Callable[[], int | None] = lambda: None,
        monotonic_us: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
        pid: Callable[[], int] = os.getpid,
    ) -> None:
        self._sender = sender
        self._clock = clock
        self._watchdog_s = watchdog_s
        self._replicas = replicas
        self._under_way = under_way
        self._monotonic_us = monotonic_us
        self._pid = pid
        self._phase: Phase = "starting"
        self._ports = 0
        self._why = ""  # it cannot start
        self._not_reloaded = ""  # why, if the last reload came to nothing
        self._status = ""
        self._timer: Timer | None = None

    def start(self) -> None:
        """The reactor is about to run."""
        # twistd's daemon is another process than the one that systemd started.
        lines = [f"MAINPID={self._pid()}", f"EXTEND_TIMEOUT_USEC={_us(_LOADING_S)}"]
        if self._watchdog_s is not None:
            # The watchdog's period until it is ready; systemd's own begins with the process.
            lines.append(f"WATCHDOG_USEC={_us(max(_LOADING_S, self._watchdog_s))}")
        self._send(*lines)
        self._schedule()

    def happened(self, event: Mapping[str, object]) -> None:
        """An event of the service's: see ``GatewayService``."""
        was = self._phase
        match event.get("event"):
            case "listening":
                ports = event.get("ports")
                self._ports = len(ports) if isinstance(ports, list) else 0
            case "ready" | "reloaded" | "not_reloaded" if self._phase in ("starting", "reloading"):
                self._phase = "serving"
                self._not_reloaded = " ".join(str(event.get("error", "")).split())
                self._send("READY=1", *self._watchdog_lines(was))
            case "reloading" if self._phase == "serving":
                self._phase = "reloading"
                self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_us()}")
            case "failed" if event.get("kind") != "replica" and self._phase == "starting":
                self._phase = "failed"
                self._why = str(event.get("error"))
                self._send()
            case "up":
                self._send()

    def stopping(self) -> None:
        """It takes no new requests; what is under way may finish."""
        if self._phase != "failed":
            self._phase = "draining"
        self._send("STOPPING=1")
        self._pulse()

    def stop(self) -> None:
        """All has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sender.close()

    def _watchdog_lines(self, was: Phase) -> list[str]:
        """It is ready: the watchdog has its own period from now on."""
        if self._watchdog_s is None or was != "starting":
            return []
        return [f"WATCHDOG_USEC={_us(self._watchdog_s)}", "WATCHDOG=1"]

    def _pulse(self) -> None:
        in_transition = self._phase in _TRANSITIONS
        lines = [] if self._watchdog_s is None else ["WATCHDOG=1"]
        if in_transition:
            lines.append(f"EXTEND_TIMEOUT_USEC={_us(_PATIENCE_S)}")
        self._send(*lines)
        self._schedule()

    def _schedule(self) -> None:
        """The next pulse."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        in_transition = self._phase in _TRANSITIONS
        periods = [_TRANSITION_PULSE_S if in_transition else _PULSE_S]
        if self._watchdog_s is not None:
            periods.append(self._watchdog_s / 2)
        self._timer = self._clock.callLater(min(periods), self._pulse)

    def _send(self, *lines: str) -> None:
        status = self._status_now()
        if status != self._status:
            self._status = status
            lines = (*lines, f"STATUS={status}")
        if lines:
            self._sender.send("\n".join(lines))

    def _status_now(self) -> str:
        ready, all_of_them = self._replicas()
        match self._phase:
            case "starting":
                return f"starting: {ready} of {all_of_them} replicas are ready" if all_of_them else "starting"
            case "reloading":
                return "reloading"
            case "draining":
                count = self._under_way()
                return "draining" if count is None else f"draining: {_counted(count, 'request')} under way"
            case "failed":
                return f"cannot start: {' '.join(self._why.split())}"[:_LONGEST_STATUS]
        status = f"serving {_counted(self._ports, 'port')}"
        if missing := all_of_them - ready:
            status += f"; {missing} of {all_of_them} replicas {'is' if missing == 1 else 'are'} down"
        if self._not_reloaded:
            status += f"; the last reload changed nothing: {self._not_reloaded}"
        return status[:_LONGEST_STATUS]


def _us(seconds: float) -> int:
    return int(seconds * 1e6)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
