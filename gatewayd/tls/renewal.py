"""
Takes up the files of TLS when they change: each key pair by itself, and the authorities.

The files are looked at every few seconds, in a pool thread. A change is judged once two looks have found the
same, so that what is half written, or has only one of its two files yet, is left alone. What is unusable
then is refused with one line of the log, and what was there before stays in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.clocks import Clock, Timer
from gatewayd.offload import Offload
from gatewayd.tls.credentials import (
    Authorities,
    KeyPair,
    PairFiles,
    TlsCredentials,
    TlsFiles,
    UnusableTlsFile,
)
from gatewayd.tls.files import load_authorities, load_key_pair

log = Logger()

# What is renewed by itself: a key pair, or the path of the authorities.
Unit = PairFiles | str
# What tells one content of a unit's files from another without reading them; of a file that is missing, why.
Signature = tuple[object, ...]

# How often certificates are looked at where files are not.
_EXPIRY_LOOK_S: Final = 3600.0
_ONCE_A_DAY: Final = timedelta(days=1)
# Certificates of a day or a week would be within the warning's days for all of their life.
_LAST_PART: Final = 4


def wall_clock() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


@attrs.frozen
class Watched:
    """Files with their signatures from before they were read, so that no change is missed."""

    files: TlsFiles
    signatures: Mapping[Unit, Signature]

    @classmethod
    def of(cls, files: TlsFiles) -> Watched:
        return cls(files, {unit: _signature(unit) for unit in _units(files)})


@attrs.frozen
class Change:
    """A unit whose files have changed; ``found`` is None while they may still be changing."""

    unit: Unit
    signature: Signature
    found: KeyPair | Authorities | UnusableTlsFile | None = None


class Renewal:
    """
    Watches the files of a gateway's ports, or of its calls to a deployment. Reactor thread only.

    ``renewed`` gets the credentials after each change. With an ``interval_s`` of 0 files are not looked at.
    A certificate that expires within ``warning_days`` is warned of once a day; 0 is never.
    """

    def __init__(
        self,
        watched: Watched,
        credentials: TlsCredentials,
        renewed: Callable[[TlsCredentials], None],
        *,
        clock: Clock,
        offload: Offload,
        interval_s: float,
        warning_days: int,
        now: Callable[[], datetime] = wall_clock,
    ) -> None:
        self.credentials = credentials
        self._files = watched.files
        self._renewed = renewed
        self._clock = clock
        self._offload = offload
        self._interval_s = interval_s
        self._warning = timedelta(days=warning_days)
        self._now = now
        self._judged = dict(watched.signatures)
        self._changing: dict[Unit, Signature] = {}
        self._warned: dict[PairFiles, datetime] = {}
        self._timer: Timer | None = None
        self._looking: Deferred[Any] | None = None
        self._stopped = False

    def start(self) -> None:
        """Warn of what expires soon, and look at the files from now on."""
        self._warn_of_expiry()
        self._timer = self._clock.callLater(self._interval_s or _EXPIRY_LOOK_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        if not self._interval_s:
            self.start()
            return
        self._looking = self._offload(
            look, self._files, dict(self._judged), dict(self._changing), self._now()
        )
        self._looking.addCallback(self._looked).addErrback(self._failed).addCallback(self._go_on)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("looking at the files of TLS", failure=failure)

    def _go_on(self, _: None) -> None:
        self._looking = None
        if not self._stopped:
            self.start()

    def _looked(self, changes: Sequence[Change]) -> None:
        self._changing = {change.unit: change.signature for change in changes if change.found is None}
        before = self.credentials
        for change in changes:
            if change.found is not None:
                self._judged[change.unit] = change.signature
                self._judge(change.unit, change.found)
        if self.credentials != before:
            self._renewed(self.credentials)

    def _judge(self, unit: Unit, found: KeyPair | Authorities | UnusableTlsFile) -> None:
        match found:
            case UnusableTlsFile():
                log.error("{reason}; what was read before stays in use", reason=found.reason)
            case Authorities() if found != self.credentials.authorities:
                self.credentials = attrs.evolve(self.credentials, authorities=found)
                log.info(
                    "{path}: the authorities are renewed; there are {count}",
                    path=found.path,
                    count=found.count,
                )
            case KeyPair() if found not in self.credentials.pairs:
                pairs = tuple(found if each.files == unit else each for each in self.credentials.pairs)
                self.credentials = attrs.evolve(self.credentials, pairs=pairs)
                self._warned.pop(found.files, None)
                log.info(
                    "{certfile}: the certificate of {subject} is renewed; it is valid until {expires}",
                    certfile=found.files.certfile,
                    subject=found.subject,
                    expires=found.expires,
                )

    def _warn_of_expiry(self) -> None:
        now = self._now()
        for pair in self.credentials.pairs:
            limit = min(self._warning, (pair.expires - pair.begins) / _LAST_PART)
            last = self._warned.get(pair.files)
            if pair.expires - now >= limit or (last is not None and now - last < _ONCE_A_DAY):
                continue
            self._warned[pair.files] = now
            log.warn(
                "{certfile}: the certificate of {subject} {expires} {end}; renew it{hint}",
                certfile=pair.files.certfile,
                subject=pair.subject,
                expires="expired on" if now > pair.expires else "expires on",
                end=pair.expires,
                hint="" if self._interval_s else " and restart the gateway",
            )


def look(
    files: TlsFiles, judged: Mapping[Unit, Signature], changing: Mapping[Unit, Signature], now: datetime
) -> tuple[Change, ...]:
    """
    What differs from ``judged``; what is still as it was in ``changing`` is read and checked.

    Blocks: it is called in a thread.
    """
    changes = []
    for unit in _units(files):
        signature = _signature(unit)
        if signature == judged[unit]:
            continue
        found = None
        if signature == changing.get(unit):
            found = _load(unit, files, now)
            # What changed meanwhile is looked at again.
            if (after := _signature(unit)) != signature:
                signature, found = after, None
        changes.append(Change(unit, signature, found))
    return tuple(changes)


def _load(unit: Unit, files: TlsFiles, now: datetime) -> KeyPair | Authorities | UnusableTlsFile:
    try:
        if isinstance(unit, str):
            return load_authorities(unit, now, files.client_ca_at)
        return load_key_pair(unit, now, grpc=files.grpc)
    except UnusableTlsFile as error:
        # Without the traceback, whose frames have the key.
        return error.with_traceback(None)


def _units(files: TlsFiles) -> tuple[Unit, ...]:
    return files.pairs if files.client_ca is None else (*files.pairs, files.client_ca)


def _signature(unit: Unit) -> Signature:
    paths = (unit,) if isinstance(unit, str) else (unit.certfile, unit.keyfile)
    return tuple(_signature_of_file(path) for path in paths if path is not None)


def _signature_of_file(path: str) -> object:
    try:
        # Of what links lead to: they are how certbot and Kubernetes put new files in place.
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
