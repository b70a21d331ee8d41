"""A gateway whose executors have not told yet what they bind."""

from __future__ import annotations

import json
import socket
import threading

import pytest
import pytest_twisted
from twisted.internet import reactor

from gatewayd.config import DeploymentConfig, FlowConfig, GatewayConfig
from gatewayd.config.model import Listener, PoolLimits
from gatewayd.service.gateway import GatewayServer
from gatewayd.supervisor.supervisor import Supervisor
from tests.protocols.harness import in_thread, until
from tests.protocols.http.test_http import call
from tests.rpc.servers import listening, resets

pytestmark = pytest.mark.slow


@pytest_twisted.ensureDeferred
async def test_requests_wait_until_they_have_or_it_is_known_that_they_cannot() -> None:
    hang_up = threading.Event()

    def greet_nobody(connection: socket.socket) -> None:
        hang_up.wait(60.0)
        resets(connection)

    with listening(greet_nobody) as port:
        flow = FlowConfig(
            gateway=GatewayConfig(
                host="127.0.0.1",
                listeners=(Listener(("http",)),),
                pool=PoolLimits(connect_timeout_s=60.0),
            ),
            deployments=(DeploymentConfig("a", external=True, addresses=(f"127.0.0.1:{port}",)),),
        )
        supervisor = Supervisor(reactor, [], lambda *up: None, lambda *down: None)
        gateway = GatewayServer(flow, reactor, supervisor)
        gateway.start()
        await gateway.serve()
        asked = in_thread(call, gateway.ports[0], "GET", "/chat")
        await until(lambda: gateway.graph.pool._deciding)
        assert not asked.called
        hang_up.set()
        status, _, answer = await asked
        assert not gateway.graph.dispatcher.undecided
        await gateway.stop()

    assert status == 503
    assert "no executor has told what it binds" in json.loads(answer)["detail"]
