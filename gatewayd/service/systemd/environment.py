"""What systemd gives a service, and asks of it, in environment variables."""

from __future__ import annotations

from collections.abc import MutableMapping

import attrs

from gatewayd.service.systemd.notifying import NotifySocket, Sender
from gatewayd.service.systemd.sockets import GivenSockets


@attrs.frozen
class Systemd:
    """
    ``sender`` is None where nobody wants to be told, ``watchdog_s`` where there is no watchdog.
    """

    sockets: GivenSockets = attrs.field(factory=GivenSockets)
    sender: Sender | None = None
    watchdog_s: float | None = None

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str], pid: int) -> Systemd:
        """
        What the variables say. They are taken out: executors and workers are no services of systemd's.

        Raises ConfigError for sockets that no port can use.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        period, of = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        watched = period.isdecimal() and int(period) > 0 and of in ("", str(pid))
        return cls(
            GivenSockets.taken_from(environ, pid),
            NotifySocket(address) if address else None,
            int(period) / 1e6 if watched else None,
        )
