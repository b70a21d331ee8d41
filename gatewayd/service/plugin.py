"""
Turns the twistd command line into a running service: ``twistd gateway --config flow.yml``.

The Flow file is read while options are parsed, so that a mistake in it is printed on the terminal before
twistd becomes a daemon.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.components import Componentized

from gatewayd import __version__
from gatewayd.clocks import ServiceReactor
from gatewayd.config import FlowConfig, load_flow
from gatewayd.config.assignments import assignment
from gatewayd.errors import ConfigError
from gatewayd.service.loaded import loading
from gatewayd.service.logs import Reopening, logs_under_twistd
from gatewayd.service.reactor import install_reactor
from gatewayd.service.service import GatewayService
from gatewayd.service.signals import ReloadSignal, StopSignals
from gatewayd.service.systemd.environment import Systemd
from gatewayd.service.together import FlowFile, check_together, environment_of
from gatewayd.supervisor.requirements import check_installed

log = Logger()


class Options(usage.Options):
    """The options of ``twistd gateway``."""

    synopsis = "[options]"
    longdesc = (
        "Serves a Flow: takes requests over gRPC, HTTP and WebSocket, routes each through the Flow's "
        "executors, and answers. Starts and watches the executors that are not marked external. What is "
        "served, on which ports and with which limits is all in the Flow file. Several --config serve "
        "several Flows, each on ports of its own, in one process with one log. twistd's own options (-n to "
        "stay in the foreground, --pidfile, --logfile) go before the word gateway."
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # From here on a signal ends the process in order, whatever it is doing.
        self.signals = StopSignals()
        self.signals.install()
        self.reopening = Reopening()
        self.reopening.install()
        self.reload_signal = ReloadSignal()
        self.reload_signal.install()
        self.systemd: Systemd
        self.context: dict[str, str] = {}
        self.files: list[str] = []
        self.flows: list[FlowFile] = []

    def opt_config(self, file: str) -> None:
        """
        A Flow file to serve (YAML), flow.yml if omitted. May be given several times, for several Flows.
        """
        if Path(file).resolve() in [Path(other).resolve() for other in self.files]:
            raise usage.UsageError(f"--config {file}: is given twice; a process serves each Flow file once")
        self.files.append(file)

    opt_c = opt_config

    def opt_context(self, variable: str) -> None:
        """
        A variable for ${{ CONTEXT.name }} in the Flow file, as name=value. May be given several times.
        """
        try:
            name, value = assignment(variable)
        except ValueError as error:
            raise usage.UsageError(f"--context {variable}: {error}") from error
        self.context[name] = value

    def opt_version(self) -> NoReturn:
        """Display gatewayd's version and exit."""
        print(f"gatewayd {__version__}")  # noqa: T201
        raise SystemExit(0)

    @loading()
    def postOptions(self) -> None:
        """Read the Flow files; a mistake in one ends the process with code 1 before anything starts."""
        # A daemon changes its folder, and ``env`` of the Flow this process's environment.
        environ = dict(os.environ)

        def read(source: Path) -> FlowConfig:
            flow = load_flow(source, context=self.context, environ=environ)
            flow.check_conflicts()
            check_installed(flow)
            return flow

        try:
            for file in self.files or ["flow.yml"]:
                path = Path(file).absolute()
                # Mistakes are told with the name that the user gave.
                self.flows.append(FlowFile(read(Path(file)), file, str(path), partial(read, path)))
            check_together([(each.file, each.flow) for each in self.flows])
            # Now, before twistd forks: the variables name this process.
            self.systemd = Systemd.taken_from(os.environ, os.getpid())
        except ConfigError as error:
            print(f"gatewayd: {error}", file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None


class TwistdService(GatewayService):
    """The service as twistd runs it, which asks the application where the log goes."""

    def setServiceParent(self, parent: Any) -> None:
        if self.logs is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.logs)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]


@loading()
def makeService(options: Options) -> GatewayService:
    """The service of one Flow or several, on the reactor that twistd runs."""
    install_reactor()
    from twisted.internet import reactor

    if options.systemd.watchdog_s is not None:
        # systemd ends a reactor that hangs with SIGABRT: the log then says where.
        faulthandler.enable()
    # gRPC reads some of its settings from the environment when it is loaded.
    os.environ.update(environment_of([each.flow for each in options.flows]))
    twistd = options.parent
    try:
        logs = (
            None if twistd is None else logs_under_twistd(options.flows[0].flow.gateway, twistd, os.environ)
        )
    except OSError as error:
        print(f"gatewayd: the log cannot be written: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
    return TwistdService(
        options.flows,
        cast(ServiceReactor, reactor),
        signals=options.signals,
        reopening=options.reopening,
        logs=logs,
        systemd=options.systemd,
        reload_signal=options.reload_signal,
        daemon=twistd is not None and not twistd["nodaemon"],
    )
