"""
The gateway as a Twisted service: what twistd starts and stops.

Deliberately thin: everything that loads gRPC is imported when the service starts, because twistd forks
(to become a daemon) between making a service and starting it, and gRPC must not be there yet.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from gatewayd.config import FlowConfig
from gatewayd.errors import ConfigError

if TYPE_CHECKING:
    from gatewayd.gateway import Gateway

log = Logger()


class GatewayService(Service):
    """
    Serves one Flow on one reactor.

    A start that fails (a port is taken) is told in the log, which is the terminal with ``-n``, and ends
    the process with code 1; SIGTERM and SIGINT stop it in order and end it with 0.
    """

    def __init__(self, flow: FlowConfig, reactor: Any) -> None:
        self._flow = flow
        self._reactor = reactor
        self._gateway: Gateway | None = None
        self._stopping = False

    def startService(self) -> None:
        from gatewayd.gateway import Gateway

        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._take_signals)
        gateway = Gateway(self._flow, self._reactor)
        try:
            gateway.start()
        except ConfigError as error:
            log.critical("the gateway cannot start: {error}", error=error)
            # Not an Exception: twistd would print its traceback, and there is no bug to look for.
            raise SystemExit(1) from None
        self._gateway = gateway

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        if self._gateway is None:
            return succeed(None)
        gateway, self._gateway = self._gateway, None
        return Deferred.fromCoroutine(gateway.stop())

    def _take_signals(self) -> None:
        # twistd lets the process die of the signal it was stopped by; whoever watches a service wants
        # to see that it ended as it should.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, _frame: object) -> None:
        self._reactor.callFromThread(self._stop_reactor, signal.Signals(number).name)

    def _stop_reactor(self, name: str) -> None:
        if self._stopping:
            log.info("{name}: already stopping", name=name)
            return
        self._stopping = True
        log.info("{name}: stopping; what is under way may finish", name=name)
        self._reactor.stop()
