# mypy: disable-error-code="no-untyped-call"
"""
The API server of the cluster that this gateway runs in, asked over HTTPS on the reactor.

As in every pod, variables say where it is, and files have the authority of its certificate and the token of
the service account. Kubernetes changes these files from time to time, so that they are read for each
question: a watch is one for minutes, and the files are in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from gatewayd._version import __version__
from gatewayd.config.addresses import authority
from gatewayd.pool.kubernetes import ApiError
from gatewayd.pool.roots import trust_in

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CONNECT_S: Final = 5.0
_OK: Final = 200


def in_cluster(
    reactor: Any, environment: Mapping[str, str] = os.environ, account: Path = _ACCOUNT
) -> Cluster | None:
    """The API server; None where this process is no pod, or has no service account (its files)."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not port.isdigit():
        return None
    try:
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return Cluster(reactor, host, int(port), account, namespace)


class Cluster:
    """Asks the server at ``host`` and ``port`` as the service account with the files in ``account``."""

    def __init__(self, reactor: Any, host: str, port: int, account: Path, namespace: str) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._account = account
        self.namespace = namespace

    def get(self, path: str, on_begin: Callable[[], None], on_data: Callable[[bytes], None]) -> Deferred[int]:
        """As ``ApiServer.get``."""
        asked: Deferred[int] = Deferred.fromCoroutine(self._get(path, on_begin, on_data))
        return asked.addErrback(_as_api_error)

    async def _get(self, path: str, on_begin: Callable[[], None], on_data: Callable[[bytes], None]) -> int:
        token = self._read("token").decode("ascii", "replace").strip()
        tls = optionsForClientTLS(self._host, trustRoot=trust_in(self._read("ca.crt")))
        tcp = HostnameEndpoint(self._reactor, self._host, self._port, timeout=_CONNECT_S)
        endpoint = _Remembering(wrapClientTLS(tls, tcp))
        headers = Headers(
            {
                "Authorization": [f"Bearer {token}"],
                "Accept": ["application/json"],
                "User-Agent": [f"gatewayd/{__version__}"],
            }
        )
        agent = Agent.usingEndpointFactory(self._reactor, _Always(endpoint))
        url = f"https://{authority(self._host, self._port)}{path}"
        response: Any = await agent.request(b"GET", url.encode(), headers)
        status = int(response.code)
        if status == _OK:
            on_begin()
        body = _Body(on_data if status == _OK else _ignored, endpoint.abort)
        response.deliverBody(body)
        await body.ended
        return status

    def _read(self, name: str) -> bytes:
        try:
            return (self._account / name).read_bytes()
        except OSError as error:
            raise ApiError(f"{name} of the service account cannot be read: {error.strerror}") from error


def _ignored(data: bytes) -> None:
    """The text of another status than 200, which says it all."""


def _as_api_error(failure: Failure) -> Failure:
    """Cancelled is what we have done ourselves; all else is told by its text, which has no token in it."""
    if failure.check(CancelledError, ApiError):
        return failure
    reasons = getattr(failure.value, "reasons", None)
    error = reasons[0].value if reasons else failure.value
    return Failure(ApiError(f"{type(error).__name__}: {error}"))


@implementer(IAgentEndpointFactory)
class _Always:
    """One endpoint for whatever is asked for."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: Any) -> Any:
        return self._endpoint


@implementer(IStreamClientEndpoint)
class _Remembering:
    """An endpoint whose connection can be cut: Twisted's bodies can only ask the other side to end it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._connected: Any = None

    def connect(self, factory: IProtocolFactory) -> Any:
        if isinstance(factory, Factory):
            factory.noisy = False  # else the log has each watch
        return self._inner.connect(factory).addCallback(self._remember)

    def _remember(self, protocol: Any) -> Any:
        self._connected = protocol
        return protocol

    def abort(self) -> None:
        if self._connected is not None and self._connected.transport is not None:
            self._connected.transport.abortConnection()


class _Body(Protocol):
    """Hands a body on; the end of ``ended`` is its end, and cancelling it cuts the connection."""

    def __init__(self, on_data: Callable[[bytes], None], abort: Callable[[], None]) -> None:
        self._on_data = on_data
        self.ended: Deferred[None] = Deferred(lambda _: abort())

    def dataReceived(self, data: bytes) -> None:
        if not self.ended.called:
            self._on_data(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.ended.called:
            return
        if reason.check(ResponseDone):
            self.ended.callback(None)
        else:
            self.ended.errback(ApiError("the connection broke in the middle of an answer"))
