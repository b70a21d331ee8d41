"""
The admin site: health, metrics, state and actions of a gateway over HTTP, on a port apart from clients'.

It has the connections, limits and checks of clients' HTTP ports with settings of its own (``ground_of``), so
that neither a flood of clients keeps operators out, nor a page in an operator's browser gets in. Reading is
for everybody who reaches the port; actions are for owners of keys. What is at a path is a table: none has
variables.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs
import orjson
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from gatewayd.access.control import AccessControl
from gatewayd.access.operators import is_for_this_machine
from gatewayd.admin.actions import Action, Actions, Admins, check_arguments
from gatewayd.buffers import Buffers
from gatewayd.clocks import PortReactor
from gatewayd.config.model import GatewayConfig, Listener
from gatewayd.errors import (
    BadRequest,
    ConfigError,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    PathNotFound,
    PortTaken,
    Unparsable,
)
from gatewayd.health import PROBES, Health
from gatewayd.protocols.admission import Admission
from gatewayd.protocols.connections import Connections
from gatewayd.protocols.hangups import HangUps
from gatewayd.protocols.http.cors import Cors
from gatewayd.protocols.http.errors import response_to
from gatewayd.protocols.http.probes import answer_probe
from gatewayd.protocols.http.request import GatewayRequest
from gatewayd.protocols.http.site import GatewaySite, SiteLimits
from gatewayd.protocols.port import LAST_WORDS_S
from gatewayd.protocols.slow_lane import SlowLane
from gatewayd.protocols.tcp import ListeningPorts, listen_tcp
from gatewayd.tls.credentials import TlsCredentials

log = Logger()

Handler = Callable[[GatewayRequest], Deferred[None] | None]

METRICS: Final = "/metrics"
STATE: Final = "/api/state"
_ACTIONS: Final = "/api/"

# An operator's page, a probe and a scraper or two; each may have several connections.
_MOST_CONNECTIONS: Final = 64
_BODY_BYTES: Final = 1 << 20
# What all of them together hold of requests and answers.
_BUFFER_BYTES: Final = 1 << 26
_KEY_HEADER: Final = "x-api-key"


@attrs.frozen
class AdminGround:
    """What the connections of the site need (``protocols.backend.Ground``)."""

    gateway: GatewayConfig
    reactor: PortReactor
    buffers: Buffers
    admission: Admission
    access: AccessControl | None = None
    tls: TlsCredentials | None = None
    slow_lane: SlowLane | None = None
    secure_headers: tuple[tuple[bytes, bytes], ...] = ()
    why_hosts: str = "gateway.allowed_hosts"  # why it is called by no other names


def ground_of(gateway: GatewayConfig, reactor: PortReactor) -> AdminGround:
    """
    That of the admin site of a gateway.

    Where it listens for this machine alone, it is called by the names of this machine: a page whose name was
    made to resolve to it (DNS rebinding) is refused, and so are pages of other origins.
    """
    assert gateway.admin_port is not None
    hosts, why_hosts = gateway.allowed_hosts, "gateway.allowed_hosts"
    if is_for_this_machine(gateway):
        hosts = tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", gateway.admin_host.lower())))
        why_hosts = f"gateway.admin_host: the admin site answers to {', '.join(hosts)}"
    settings = GatewayConfig(
        name=gateway.name,
        host=gateway.admin_host,
        listeners=(Listener(("http",), gateway.admin_port),),
        max_message_bytes=_BODY_BYTES,
        max_buffered_bytes=_BUFFER_BYTES,
        max_connections=_MOST_CONNECTIONS,
        http_idle_timeout_s=gateway.http_idle_timeout_s,
        http_head_timeout_s=gateway.http_head_timeout_s,
        write_timeout_s=gateway.write_timeout_s,
        # The site's own pages are known by the names that it has.
        allowed_origins=None if hosts is None else (),
        allowed_hosts=hosts,
        # Load balancers and orchestrators ask by whatever address.
        expose_health=True,
    )
    return AdminGround(
        settings,
        reactor,
        Buffers(_BUFFER_BYTES),
        Admission.of(settings, reactor),
        why_hosts=why_hosts,
    )


class Site:
    """
    A port for operators. Reactor thread only.

    It is called ``name`` in the log, and its port is that of ``key``.
    """

    def __init__(self, ground: AdminGround, name: str, key: str, *, closed: bool = False) -> None:
        """Who asks a ``closed`` one for what is not public has to show who they are, if they can."""
        self._ground = ground
        self._name = name
        self._key = key
        self._connections = Connections(ground.reactor)
        self._hangups = HangUps(ground.reactor)
        self._listening: ListeningPorts | None = None
        self._root = _Root(closed=closed)

    @property
    def port(self) -> int:
        """Where it listens, after ``listen``."""
        assert self._listening is not None
        return int(self._listening.getHost().port)

    def add(self, path: str, handler: Handler, *, is_public: bool = False) -> None:
        """
        Answer GET at ``path``, which is new.

        What is not ``is_public`` is refused to other machines while there are no keys.
        """
        assert path.encode() not in self._root.handlers, path
        self._root.handlers[path.encode()] = handler
        if is_public:
            self._root.public.add(path.encode())

    def add_probes(self, health: Callable[[], Health], *, withheld: bool) -> None:
        """Answer probes of the gateway, whose ``health()`` is as it is now; see ``answer_probe``."""
        for probe in PROBES:
            self.add(probe, _probes(probe, health, withheld=withheld), is_public=True)

    def listen(self) -> None:
        """Bind and serve. Raises PortTaken."""
        settings = self._ground.gateway
        (listener,) = settings.listeners
        site = GatewaySite(
            self._root,
            SiteLimits.of(settings),
            self._ground,
            self._connections,
            self._hangups,
            cors=Cors(),
            # Operators are no clients, whose errors are counted.
            encode_error=response_to,
        )
        site.browsers = attrs.evolve(
            site.browsers,
            why_origins=f"the {self._name} is for its own pages",
            why_hosts=self._ground.why_hosts,
        )
        try:
            self._listening = listen_tcp(listener, self._ground, site)
        except PortTaken as taken:
            raise PortTaken(self._name, settings.host, taken.port, taken.reason, key=self._key) from taken
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        log.info("{name} on http://{host}:{port}", name=self._name, host=host, port=self.port)

    async def stop(self) -> None:
        """Answer what was asked, and close."""
        if self._listening is not None:
            unbound = self._listening.stopListening()
            await DeferredList([unbound, self._connections.close_all(LAST_WORDS_S)], consumeErrors=True)
        self._hangups.close()


def metrics_site(gateway: GatewayConfig, reactor: PortReactor) -> Site:
    """That of ``port_monitoring``: metrics and probes, for everybody who reaches the gateway's own ports."""
    settings = GatewayConfig(
        name=gateway.name,
        host=gateway.host,
        listeners=(Listener(("http",), gateway.port_monitoring),),
        max_message_bytes=_BODY_BYTES,
        max_buffered_bytes=_BUFFER_BYTES,
        max_connections=_MOST_CONNECTIONS,
        write_timeout_s=gateway.write_timeout_s,
    )
    ground = AdminGround(settings, reactor, Buffers(_BUFFER_BYTES), Admission.of(settings, reactor))
    return Site(ground, "metrics", "gateway.port_monitoring")


class AdminSite(Site):
    """
    The listening site. Reactor thread only.

    ``health()`` is how the gateway is now. Other parts add their paths and ``actions``.
    """

    def __init__(self, gateway: GatewayConfig, reactor: PortReactor, health: Callable[[], Health]) -> None:
        """``gateway`` are the settings of the one that is shown."""
        # Who reads the inside of a service from elsewhere is to be somebody.
        withheld = not is_for_this_machine(gateway)
        super().__init__(ground_of(gateway, reactor), "admin site", "gateway.admin_port", closed=withheld)
        self.actions = Actions()
        self._admins = Admins.of(gateway.admin_keys)
        self._root.identify = self._identify
        self._running: dict[Deferred[Any], None] = {}  # actions under way, whoever waits for them
        self.add_probes(health, withheld=withheld)
        self.add("/api/actions", self._list_actions)
        self._root.fallback = self._act

    async def stop(self) -> None:
        """As any site's. Actions that are under way are cancelled."""
        for running in tuple(self._running):
            running.cancel()
        await super().stop()

    # -- actions -------------------------------------------------------------------------------------

    def _list_actions(self, http_request: GatewayRequest) -> None:
        listed = [
            {
                "name": each.name,
                "doc": each.doc,
                "arguments": dict(each.arguments),
                "required": list(each.required),
            }
            for each in self.actions
        ]
        http_request.respond(200, orjson.dumps({"actions": listed}))

    def _act(self, http_request: GatewayRequest) -> Deferred[None] | None:
        """POST to /api/NAME, of whoever may."""
        path = http_request.path.decode("latin-1")
        if not path.startswith(_ACTIONS):
            raise PathNotFound
        who = self._identify(http_request)
        action = self.actions.find(path.removeprefix(_ACTIONS))
        if http_request.method != b"POST":
            raise MethodNotAllowed("OPTIONS, POST")
        arguments = check_arguments(action, _json_of(http_request.body))
        log.info("{who} asks for {action}", who=who, action=action.name)
        # A client that leaves does not break off what it began: another one can look what became of it.
        return answering(http_request, self._run(http_request, action, arguments, who))

    def _identify(self, http_request: GatewayRequest) -> str:
        """The administrator who asks. Raises Forbidden, Unauthenticated."""
        return self._admins.identify(
            http_request.text_header("authorization"), http_request.text_header(_KEY_HEADER)
        )

    async def _run(self, http_request: GatewayRequest, action: Action, arguments: Any, who: str) -> None:
        running = maybeDeferred(action.run, arguments)
        self._running[running] = None
        try:
            found = await running
        except ConfigError as error:
            log.warn("{action} of {who} failed: {error}", action=action.name, who=who, error=error)
            raise BadRequest(str(error)) from error
        finally:
            del self._running[running]
        http_request.respond(200, orjson.dumps({"ok": True, "result": found}))


class _Root(Resource):
    """
    All paths. ``fallback`` gets what is not in ``handlers``, and every method but GET and HEAD.

    If it is ``closed``, all but the ``public`` ones are for those whom ``identify`` knows.
    """

    isLeaf = True

    def __init__(self, *, closed: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.handlers: dict[bytes, Handler] = {}
        self.public: set[bytes] = set()
        self.fallback: Handler = _not_found
        self.identify: Callable[[GatewayRequest], str] = _nobody
        self._closed = closed

    def wants_body(self, http_request: GatewayRequest) -> bool:
        return http_request.method == b"POST"

    def render(self, http_request: GatewayRequest) -> int:
        try:
            self._handle(http_request)
        except GatewayError as error:
            http_request.respond_with(response_to(error))
        return NOT_DONE_YET

    def _handle(self, http_request: GatewayRequest) -> None:
        path, method = http_request.path, http_request.method
        if path not in self.public:
            http_request.site.browsers.check(method, http_request.header)
            if self._closed:
                self.identify(http_request)
        handler = self.handlers.get(path)
        if handler is not None and method in (b"GET", b"HEAD"):
            handler(http_request)
        elif handler is not None:
            raise MethodNotAllowed("GET, HEAD, OPTIONS")
        else:
            self.fallback(http_request)


def _nobody(http_request: GatewayRequest) -> str:
    raise Forbidden("this port shows what is public, and nothing else")


def _not_found(http_request: GatewayRequest) -> None:
    raise PathNotFound


def _probes(probe: str, health: Callable[[], Health], *, withheld: bool) -> Handler:
    return lambda http_request: answer_probe(http_request, probe, health(), withheld=withheld)


def answering(http_request: GatewayRequest, work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
    """Do ``work``, which answers; its failure is answered, and logged if it is a bug."""

    def failed(failure: Any) -> None:
        if failure.check(CancelledError) and http_request.gone:
            return
        if failure.check(GatewayError):
            http_request.respond_with(response_to(failure.value))
        else:
            http_request.processingFailed(failure)

    return Deferred.fromCoroutine(work).addErrback(failed)


def _json_of(body: bytes) -> Any:
    """Raises Unparsable."""
    try:
        return orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise Unparsable(f"the body is no JSON: {error}") from None
