"""
What watches requests because the settings say so: traces, a recording, the access log.

A reload that changes one of them makes it anew beside the others; the old one ends when the requests that it
has seen begin have ended.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gatewayd.clocks import Reactor
from gatewayd.config import FlowConfig
from gatewayd.errors import ConfigError
from gatewayd.offload import Offload
from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.reading import Reading
from gatewayd.telemetry.observed import Observer

log = Logger()

_Ending = Callable[[], Coroutine[Deferred[Any], Any, None]]


def _nothing() -> None:
    """There is no file of its own."""


@attrs.frozen(eq=False)
class Watching:
    """
    One observer: ``end()`` lets it finish what it has, ``discard()`` is for one that has seen nothing, in any
    thread, and ``reopen()`` opens its file anew. ``dropped()`` counts what it had to leave out.
    """

    observer: Observer
    end: _Ending
    discard: Callable[[], None]
    reopen: Callable[[], None] = _nothing
    dropped: Callable[[], int] = lambda: 0


_Make = Callable[[FlowConfig, Reactor, Offload], Watching | None]


class Observing:
    """
    The observers of one front. Reactor thread only, but for ``of`` and ``discard``.

    ``parts`` are by name, in the order in which they are told.
    """

    def __init__(self, parts: Mapping[str, Watching], settings: Mapping[str, object]) -> None:
        self.parts = parts
        self._settings = settings

    @classmethod
    def of(
        cls, flow: FlowConfig, reactor: Reactor, offload: Offload, before: Observing | None = None
    ) -> Observing:
        """
        Those of ``flow``; those of ``before`` whose settings are the same go on. Opens files, and blocks for
        a moment. Raises ConfigError; then nothing is left open.
        """
        parts: dict[str, Watching] = {}
        fresh: list[Watching] = []
        settings: dict[str, object] = {}
        try:
            for name, (keys, make) in _PARTS.items():
                settings[name] = tuple(getattr(flow.gateway, key) for key in keys)
                if before is not None and before._settings[name] == settings[name]:
                    part = before.parts.get(name)
                else:
                    part = make(flow, reactor, offload)
                    fresh += [] if part is None else [part]
                if part is not None:
                    parts[name] = part
        except BaseException:
            for each in fresh:
                each.discard()
            raise
        return cls(parts, settings)

    @property
    def observers(self) -> tuple[Observer, ...]:
        return tuple(part.observer for part in self.parts.values())

    def reopen(self) -> None:
        """Open the files anew that are written here."""
        for part in self.parts.values():
            part.reopen()

    def discard(self, keeping: Observing) -> None:
        """It is not used after all: release what ``keeping`` does not have. Any thread; may block."""
        for part in self._others([keeping]):
            part.discard()

    async def end(self, keeping: Iterable[Observing] = ()) -> None:
        """No more requests come: end what those that are ``keeping`` on do not have."""
        for part in self._others(keeping):
            await part.end()

    def _others(self, keeping: Iterable[Observing]) -> Collection[Watching]:
        kept = {part for each in keeping for part in each.parts.values()}
        return [part for part in self.parts.values() if part not in kept]


def read_dropped(reading: Reading, several: Iterable[Observing]) -> None:
    """What recordings and access logs have left out, those that are about to end among them."""
    parts = {(name, part) for each in several for name, part in each.parts.items() if name in _FILES}
    for name, part in parts:
        reading.add(table.LEFT_OUT, part.dropped(), name)


def _traces(flow: FlowConfig, reactor: Reactor, offload: Offload) -> Watching | None:
    settings = flow.gateway
    if settings.traces is None:
        return None
    # Few gateways send traces, and what sends them is large.
    from gatewayd.telemetry.exporting import SpanExport
    from gatewayd.telemetry.tracer import Tracer

    instance = f"{settings.name}/{socket.gethostname()}/{os.getpid()}"
    export = SpanExport(settings.traces, settings.name, instance, flow.name)
    tracer = Tracer(
        settings.traces_sample,
        export.export,
        reactor.seconds,
        from_clients=settings.traces_from_clients,
    )
    return Watching(tracer, lambda: export.stop(reactor, offload), export.discard)


def _recording(flow: FlowConfig, reactor: Reactor, offload: Offload) -> Watching | None:
    config = flow.gateway.record
    if config is None:
        return None
    from gatewayd.telemetry.recorder import Recorder

    log.info("requests and their answers are recorded in {path} (gateway.record)", path=config.path)
    recorder = Recorder(config, flow.name, offload, reactor)
    try:
        recorder.open()
    except OSError as error:
        raise ConfigError(
            f"gateway.record: {config.path} cannot be written: {error.strerror}; name a file in a folder "
            "that the gateway's user may write to"
        ) from error

    async def end() -> None:
        await recorder.stop()
        recorder.discard()

    return Watching(recorder, end, recorder.discard, dropped=lambda: recorder.dropped)


def _access_log(flow: FlowConfig, reactor: Reactor, offload: Offload) -> Watching | None:
    config = flow.gateway.access_log
    if config is None:
        return None
    from gatewayd.telemetry.access_file import AccessFile
    from gatewayd.telemetry.access_log import AccessLog, EntriesOfTheLog, as_json, as_text

    async def nothing_to_end() -> None:
        """The log itself goes on."""

    def made(entries: Any) -> AccessLog:
        return AccessLog(
            entries,
            sample=config.sample,
            dice=random.random,
            wall_clock=time.time,
            slower_than_s=config.slower_than_s,
        )

    if config.path is None:
        return Watching(made(EntriesOfTheLog()), nothing_to_end, _nothing)
    form = as_json if (config.form or flow.gateway.log_format) == "json" else as_text
    file = AccessFile(config.path, form, reactor, offload)

    async def end() -> None:
        await file.stop()

    return Watching(made(file), end, file.discard, file.reopen, lambda: file.dropped)


_FILES: Final = frozenset({"record", "access_log"})
_PARTS: Final[Mapping[str, tuple[tuple[str, ...], _Make]]] = {
    "traces": (
        (
            *("tracing", "traces_exporter_host", "traces_exporter_port", "traces_exporter_protocol"),
            *("traces_exporter_headers", "traces_sample", "traces_from_clients", "name"),
        ),
        _traces,
    ),
    "record": (("record",), _recording),
    "access_log": (("access_log", "log_format"), _access_log),
}
