"""
``python -m gatewayd.service.child``: the gateway of a Flow written in Python, in a process of its own.

It is the service that twistd runs, configured by its parent instead of a command line. One line of JSON comes
on standard input: ``{"flow": what a Flow file holds, "base_dir": ..., "folders": others that paths may start
at, "parent": pid, "by_value": {...}, "unset": warnings of variables without a value, "wait_for_floating":
whether a stop waits for all floating calls, "warns_of_strangers": whether the log may}``, where ``by_value``
maps ``<index of the executor>`` (or ``<index>.uses_before``, or ``gateway``) to the class or object that is
sent by value. Reports go back as lines of JSON on what was standard output (see ``service.py``).

It lives as long as its parent: when standard input ends, or the parent does, it stops in order. Ctrl-C
reaches this process as well, but only the parent acts on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import attrs
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogBeginner
from zope.interface import implementer

from gatewayd.clocks import ServiceReactor
from gatewayd.config import FlowConfig
from gatewayd.config.loader import Sources, read_flow_mapping
from gatewayd.errors import ConfigError
from gatewayd.service.logs import Reopening
from gatewayd.service.reactor import install_reactor
from gatewayd.service.service import GatewayService
from gatewayd.service.signals import StopSignals
from gatewayd.service.together import FlowFile
from gatewayd.supervisor.requirements import check_installed
from gatewayd.telemetry.logs.forms import as_text, level_of, namespace_of
from gatewayd.telemetry.logs.observer import Logs, stream_logs
from gatewayd.telemetry.logs.settings import LogSettings

# What these say of a start that fails, its parent says.
_REPORTED = ("gatewayd.supervisor.process", "gatewayd.service.service")


def main() -> int:
    """Serve until the parent stops us. Returns the exit code: 1 if the gateway cannot start."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals = StopSignals((signal.SIGTERM,))
    signals.install()
    reopening = Reopening()
    reopening.install()
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what anything here prints is for the terminal
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    order: Mapping[str, Any] = json.loads(line)
    report = _Reports(answers)
    try:
        sources = Sources(folders=tuple(map(Path, order["folders"])), parts=())
        found = read_flow_mapping(order["flow"], sources, base_dir=order["base_dir"])
        flow = _with_by_value(found.config, order["by_value"])
        flow.check_conflicts()
        check_installed(flow)
    except ConfigError as error:
        report({"event": "failed", "kind": "ConfigError", "error": str(error)})
        return 1
    flow = attrs.evolve(flow, warnings=(*order["unset"], *flow.warnings))
    if order["wait_for_floating"]:
        flow = attrs.evolve(flow, gateway=attrs.evolve(flow.gateway, floating_grace_period_s=None))
    os.environ.update(flow.gateway.env)
    logs = stream_logs(sys.stderr, LogSettings.of(flow.gateway, os.environ, default="warn"), os.environ)
    globalLogBeginner.beginLoggingTo([_observer(logs, report)], redirectStandardIO=False)
    return _serve(flow, order, report, signals, reopening, logs)


def _serve(
    flow: FlowConfig,
    order: Mapping[str, Any],
    report: _Reports,
    signals: StopSignals,
    reopening: Reopening,
    logs: Logs,
) -> int:
    parent: int = order["parent"]
    install_reactor()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    service = GatewayService(
        [FlowFile(flow)],
        reactor,
        on_event=report,
        signals=signals,
        reopening=reopening,
        logs=logs,
        warns_of_strangers=order["warns_of_strangers"],
    )
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    service.startService()
    reactor.addReader(_Ending(0, reactor))
    # A process that the parent forked may hold our standard input open; the parent's pidfd ends with it.
    with contextlib.suppress(OSError, AttributeError):
        reactor.addReader(_Ending(os.pidfd_open(parent), reactor))
    if os.getppid() != parent:
        reactor.callWhenRunning(reactor.stop)
    reactor.run()
    return 0


def _with_by_value(flow: FlowConfig, by_value: Mapping[str, str]) -> FlowConfig:
    """``flow`` with the classes and objects that are sent to its executors by value."""
    deployments = list(flow.deployments)
    for key, packed in by_value.items():
        index, _, role = key.partition(".")
        if key == "gateway":
            continue
        deployment = deployments[int(index)]
        role = role or "executor"
        config = attrs.evolve(getattr(deployment, role), by_value=packed)
        deployments[int(index)] = attrs.evolve(deployment, **{role: config})
    gateway = flow.gateway
    if gateway.custom is not None and "gateway" in by_value:
        gateway = attrs.evolve(gateway, custom=attrs.evolve(gateway.custom, by_value=by_value["gateway"]))
    return attrs.evolve(flow, gateway=gateway, deployments=tuple(deployments))


@implementer(IReadDescriptor)
class _Ending:
    """A descriptor that becomes readable when the parent is done with us or gone."""

    def __init__(self, descriptor: int, reactor: ServiceReactor) -> None:
        self._descriptor = descriptor
        self._reactor = reactor

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        self._reactor.removeReader(self)
        self._ended()

    def connectionLost(self, reason: object) -> None:
        # The other end of the pipe was closed, with nothing left to read.
        self._ended()

    def _ended(self) -> None:
        with contextlib.suppress(ReactorNotRunning):  # the other descriptor was first
            self._reactor.stop()

    def logPrefix(self) -> str:
        return "parent"


class _Reports:
    """Writes the service's reports until ``ready``; nothing reads later ones."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.done = False

    def __call__(self, event: Mapping[str, object]) -> None:
        if self.done:
            return
        # The parent has gone; its end is noticed elsewhere.
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(json.dumps(event) + "\n")
        self.done = event["event"] == "ready"


def _observer(logs: Logs, report: _Reports) -> Any:
    """
    What a user of the Flow sees on standard error: what executors print, and what ``logs`` admits.

    Until the Flow is ready, the parent reports failures.
    """
    plain = logs.form is as_text

    def observe(event: LogEvent) -> None:
        failed = event.get("log_level", LogLevel.info) >= LogLevel.error
        reported_by_parent = event.get("log_namespace") in _REPORTED
        if plain and "line" in event and "replica" in event:
            if logs.levels.admits(namespace_of(event), level_of(event)):
                sys.stderr.write(formatEvent(event) + "\n")
                sys.stderr.flush()
        elif report.done or not failed or not reported_by_parent:
            logs(event)

    return observe


if __name__ == "__main__":
    sys.exit(main())
