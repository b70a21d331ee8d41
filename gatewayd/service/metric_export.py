# mypy: disable-error-code="no-untyped-call"
"""Has the figures of a service sent to an OpenTelemetry collector, again and again."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.bridge import Offloading
from gatewayd.config import FlowConfig
from gatewayd.otlp import Collector
from gatewayd.telemetry.metrics.reading import Reading

log = Logger()


class MetricExport:
    """
    Sends what ``read()`` gives, every ``metrics_interval``. Reactor thread only.

    A thread of its own sends: a collector that is down delays the next reading, and nothing else.
    """

    def __init__(
        self,
        flow: FlowConfig,
        collector: Collector,
        reactor: Any,
        read: Callable[[], Coroutine[Deferred[Any], Any, Reading]],
    ) -> None:
        # Few gateways send metrics, and what sends them is large.
        from gatewayd.telemetry.metrics.sending import MetricSender

        settings = flow.gateway
        instance = f"{settings.name}/{socket.gethostname()}/{os.getpid()}"
        self._sender = MetricSender(collector, settings.name, instance, flow.name, time.time_ns())
        self._offloading = Offloading(reactor)
        self._read = read
        self._sending = False
        self._interval_s = settings.metrics_interval_s
        self._loop = LoopingCall(lambda: Deferred.fromCoroutine(self.send()))
        self._loop.clock = reactor

    def start(self) -> None:
        """Send from now on."""
        self._loop.start(self._interval_s, now=False).addErrback(self._failed)

    async def send(self) -> None:
        """Send now, unless that is being done; for a gateway that is about to stop."""
        if self._sending:
            return
        self._sending = True
        try:
            reading = await self._read()
            await self._offloading.offload(self._sender.send, reading, time.time_ns())
        except CancelledError:
            return  # it is stopped, or has taken too long
        except Exception:
            # A bug, which must not end the sending of what can be read.
            log.failure("metrics could not be sent")
        finally:
            self._sending = False

    def stop(self) -> None:
        """Send nothing any more. What is being sent is given up."""
        if self._loop.running:
            self._loop.stop()
        # It waits for a moment if something is being sent, and nobody needs that.
        self._offloading.offload(self._sender.close).addErrback(lambda failure: failure.trap(CancelledError))
        self._offloading.stop()

    def _failed(self, failure: Failure) -> None:
        log.failure("metrics are not sent any more", failure=failure)
