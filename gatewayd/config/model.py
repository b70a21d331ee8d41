"""
The meaning of a Flow file: frozen objects, checked and complete, which the rest of gatewayd is built from.

Nothing here reads files. Durations are in seconds (``_s``) and sizes in bytes (``_bytes``), whatever the
file's unit. None means "no limit" or "not set", as each field says. What may hold secrets is in no repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from gatewayd.config.auth import AuthConfig
from gatewayd.config.log_kinds import AccessLogConfig
from gatewayd.config.openai import OpenAIConfig
from gatewayd.config.rates import RateRule
from gatewayd.config.rates_store import RatesStore
from gatewayd.config.ray import RayCluster, RayOptions
from gatewayd.config.recording import RecordConfig
from gatewayd.config.scaling import ScalingConfig
from gatewayd.errors import ConfigError
from gatewayd.messages.generations import Generation
from gatewayd.messages.headers import AllowList
from gatewayd.messages.trace_context import TRACE_HEADERS
from gatewayd.otlp import Collector
from gatewayd.otlp import Protocol as OtlpProtocol
from gatewayd.tls.credentials import ClientAuth, PairFiles, TlsFiles

Protocol = Literal["grpc", "http", "websocket"]
Compression = Literal["none", "gzip", "deflate"]
Polling = Literal["any", "all"]
PlacementName = Literal["local", "ray"]

# Processes of the gateway's own machine.
LOCAL: Final[PlacementName] = "local"

# In ``expose_endpoints``: each endpoint that executors bind and that is not named there.
EVERY_ENDPOINT: Final = "*"


@attrs.frozen
class Listener:
    """
    One port and the protocols it serves. Port 0 picks a free one.

    ``protocols`` has one entry, or http and websocket together, which can share a port.
    """

    protocols: tuple[Protocol, ...]
    port: int = 0


@attrs.frozen
class PoolLimits:
    """Limits and rules for calls to executors, the same for every Deployment of a gateway."""

    max_in_flight_per_replica: int = 1000
    max_in_flight: int = 4000
    max_queued: int = 4000
    queue_timeout_s: float = 5.0
    balancing: Literal["least_in_flight", "round_robin"] = "least_in_flight"
    connect_timeout_s: float = 0.8
    max_connecting: int = 64
    max_pings: int = 2
    eject_after_failures: int = 5
    eject_s: float = 5.0
    retry_budget: float = 0.2
    dns_refresh_s: float = 30.0
    subset: int = 0
    max_executor_message_bytes: int = 1 << 30
    stream_window: int = 8


@attrs.frozen
class GatewayClass:
    """
    A gateway class of the user's own (``gateway.uses``), to be loaded when the gateway starts.

    ``uses``, ``py_modules`` and ``by_value`` are as in ExecutorConfig. ``place`` is where the Flow file names
    the class, for messages.
    """

    uses: str
    uses_with: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    py_modules: tuple[str, ...] = ()
    place: str = attrs.field(default="", eq=False)
    by_value: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class GatewayConfig:
    """
    The gateway of a Flow: where it listens and how it treats requests.

    ``log_level`` and those of ``log_levels``, by namespace, are names of Twisted's; None for what the
    environment says, or the way of running.

    ``timeout_send_s`` limits one call to an executor, None for no limit; ``retries`` is the number of retries
    after a first attempt, -1 for automatic. ``prefetch`` limits the requests in flight on one stream, 0 for
    no limit. ``max_buffered_bytes`` limits what all listeners together hold of requests and unsent answers,
    ``max_unsent_bytes`` the unsent answers of one stream before it gets no more; ``write_timeout_s`` is how
    long a client may read nothing of what is sent. A body or message may take ``receive_timeout_s`` to arrive
    and a second more for each ``min_receive_rate`` bytes, 0 for any rate, but no longer than
    ``max_receive_time_s``, 0 for no limit. ``max_documents`` limits the documents of a request in JSON, with
    chunks and matches. A ``websocket_max_frames_per_second`` or ``grpc_max_concurrent_streams`` of 0 is no
    limit. ``ssl_certificates`` are further key pairs, for clients that name another server; ``ssl_client_ca``
    are the authorities of clients' certificates. A ``ssl_reload_interval_s`` of 0 never looks for renewed
    files. ``hsts`` is the age of RFC 6797 in seconds. ``max_connections`` limits those of all but grpcio's
    server, 0 for what the descriptors allow; ``max_connections_per_address`` those of one client, 0 for no
    limit. Answers from ``compress_above_bytes`` on are compressed for clients that accept it, 0 for never; 0
    also turns a ping interval or timeout off. ``floating_grace_period_s`` limits how long a stop waits for
    floating calls, None for no limit. ``forward_headers`` names the headers that go from clients to executors
    and back, ``x-*`` all that begin so. ``workers`` are the processes that serve, among which the limits on
    all clients together are divided (``shares.py``). ``docarray`` is the generation of all documents,
    None for what executors tell. ``cors`` are the origins whose pages may use HTTP, ``("*",)`` for all.
    ``allowed_origins`` are those whose pages may call executors besides, and
    ``allowed_hosts`` the names that a Host header may have; None for all. ``expose_endpoints`` maps an
    executor's endpoint, or EVERY_ENDPOINT, to the options of its HTTP route. ``trusted_proxies`` are networks
    whose members are believed in what ``proxy_header`` says of a client's address. With ``auth`` callers have
    to show who they are; ``rates``, those of the Flow file divided among ``gateways``, say how often they may
    ask, and all of them must allow a request. With a ``rates_store``, ``shared_rates`` are those of the Flow
    file, undivided, which all gateways count there together; ``rates_store_tls`` are the files of its TLS.
    ``custom`` is a class whose routes are served beside the gateway's own. With ``tracing``, a share of the
    requests that are not part of a trace is traced, ``traces_sample``; none is part of one without
    ``traces_from_clients``. ``record`` says which requests are recorded, and where. An ``admin_port`` of None
    is no admin site; ``admin_keys`` are digests of keys by their owners, as those of ``auth``. For
    ``drain_delay_s`` a gateway that stops is not ready, and serves on. With ``monitoring`` there are metrics
    at ``port_monitoring``, 0 for a free port; with ``metrics`` they are sent to a collector. With ``reload``
    the files of the Flow are watched.
    """

    name: str = "gateway"
    host: str = "0.0.0.0"
    listeners: tuple[Listener, ...] = (Listener(("grpc",)),)
    workers: int = 1
    docarray: Generation | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_certificates: tuple[PairFiles, ...] = ()
    ssl_client_ca: str | None = None
    ssl_client_auth: ClientAuth = "required"
    ssl_reload_interval_s: float = 5.0
    ssl_expiry_warning_days: int = 14
    hsts: int = 0
    compression: Compression = "none"
    timeout_send_s: float | None = None
    retries: int = -1
    prefetch: int = 1000
    max_message_bytes: int = 100 * 1000 * 1000
    max_buffered_bytes: int = 1 << 30
    max_documents: int = 100_000
    max_parameter_values: int = 250_000
    max_connections: int = 0
    max_connections_per_address: int = 0
    max_unsent_bytes: int = 1 << 25
    write_timeout_s: float = 60.0
    receive_timeout_s: float = 30.0
    min_receive_rate: int = 500
    max_receive_time_s: float = 3600.0
    compress_above_bytes: int = 4096
    forward_headers: tuple[str, ...] = ()
    forward_headers_max_bytes: int = 4096
    grace_period_s: float = 10.0
    floating_grace_period_s: float | None = 60.0
    http_idle_timeout_s: float = 75.0
    http_head_timeout_s: float = 30.0
    http_max_head_bytes: int = 64 * 1024
    websocket_ping_interval_s: float = 20.0
    websocket_ping_timeout_s: float = 20.0
    websocket_close_timeout_s: float = 30.0
    websocket_max_frames_per_second: int = 1000
    title: str | None = None
    description: str | None = None
    cors: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] | None = None
    allowed_hosts: tuple[str, ...] | None = None
    trusted_proxies: tuple[str, ...] = ()
    proxy_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    rates: tuple[RateRule, ...] = ()
    shared_rates: tuple[RateRule, ...] = ()
    rates_store: RatesStore | None = None
    rates_store_ca_certfile: str | None = None
    rates_store_certfile: str | None = None
    rates_store_keyfile: str | None = None
    rates_store_timeout_s: float = 0.02
    rates_without_store: Literal["divide", "refuse"] = "divide"
    gateways: int = 1
    production: bool = False
    no_debug_endpoints: bool = False
    no_crud_endpoints: bool = False
    expose_endpoints: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    expose_graphql_endpoint: bool = False
    expose_graphiql: bool = True
    openai: OpenAIConfig | None = None
    expose_status: bool = True
    expose_dry_run: bool = True
    expose_docs: bool = True
    expose_errors: bool = True
    expose_reflection: bool = True
    graphql_max_query_bytes: int = 256 * 1024
    graphql_max_tokens: int = 5000
    graphql_max_depth: int = 32
    graphql_max_fields: int = 1000
    graphql_max_root_fields: int = 50
    graphql_max_values: int = 250_000
    graphql_max_operations: int = 32
    graphql_init_timeout_s: float = 3.0
    grpc_max_concurrent_streams: int = 2000
    grpc_server: str = "gatewayd"
    grpc_server_options: Mapping[str, int | str] = attrs.field(factory=dict)
    admin_port: int | None = None
    admin_host: str = "127.0.0.1"
    admin_keys: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, repr=False)
    expose_health: bool = False
    monitoring: bool = False
    port_monitoring: int = 0
    metrics: bool = False
    metrics_exporter_host: str | None = None
    metrics_exporter_port: int | None = None
    metrics_exporter_protocol: OtlpProtocol = "grpc"
    metrics_exporter_headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    metrics_interval_s: float = 15.0
    drain_delay_s: float = 0.0
    log_level: str | None = None
    log_levels: Mapping[str, str] = attrs.field(factory=dict)
    log_format: str = "text"
    access_log: AccessLogConfig | None = None
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    pool: PoolLimits = PoolLimits()
    auth: AuthConfig | None = None
    custom: GatewayClass | None = None
    tracing: bool = False
    traces_exporter_host: str | None = None
    traces_exporter_port: int | None = None
    traces_exporter_protocol: OtlpProtocol = "grpc"
    traces_exporter_headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    traces_sample: float = 1.0
    traces_from_clients: bool = True
    record: RecordConfig | None = None
    reload: bool = False

    @property
    def measures(self) -> bool:
        """Whether somebody may ask for metrics, so that there have to be some."""
        return self.admin_port is not None or self.monitoring or self.metrics

    @property
    def gives_hints(self) -> bool:
        """Whether clients get hints, which name executors and their endpoints."""
        return self.expose_errors and not self.no_debug_endpoints

    @property
    def forwarded(self) -> AllowList:
        """``forward_headers`` as the rule that decides of each header."""
        private = () if self.auth is None else (self.auth.api_key_header,)
        return AllowList.of(self.forward_headers, self.forward_headers_max_bytes, private)

    @property
    def received(self) -> AllowList:
        """Which headers of requests are read: those that are forwarded, and with ``tracing`` the traces'."""
        return attrs.evolve(self.forwarded, own=TRACE_HEADERS) if self.tracing else self.forwarded

    @property
    def metric_collector(self) -> Collector | None:
        """Where its metrics are sent; None without ``metrics``."""
        if not self.metrics:
            return None
        return Collector(
            self.metrics_exporter_host or Collector().host,
            self.metrics_exporter_port or None,
            self.metrics_exporter_protocol,
            self.metrics_exporter_headers,
        )

    @property
    def traces(self) -> Collector | None:
        """Where its spans go; None without ``tracing``."""
        return _collector(self)

    @property
    def tls(self) -> TlsFiles | None:
        """The files of TLS, None without."""
        own = PairFiles(self.ssl_certfile or None, self.ssl_keyfile or None)
        pairs = (own, *self.ssl_certificates) if own != PairFiles(None, None) else self.ssl_certificates
        grpc = any("grpc" in listener.protocols for listener in self.listeners)
        grpc = grpc and self.grpc_server == "grpcio"
        return TlsFiles(pairs, self.ssl_client_ca or None, self.ssl_client_auth, grpc) if pairs else None

    @property
    def rates_store_tls(self) -> TlsFiles:
        """Whom connections to the store of the rates trust, and what they show; nothing for the system's."""
        certfile, keyfile = self.rates_store_certfile, self.rates_store_keyfile
        own = PairFiles(
            certfile,
            keyfile or certfile,
            certfile_at=("rates_store_certfile",),
            keyfile_at=("rates_store_keyfile",) if keyfile else ("rates_store_certfile",),
        )
        return TlsFiles(
            (own,) if certfile else (),
            self.rates_store_ca_certfile or None,
            client_ca_at=("rates_store_ca_certfile",),
        )


@attrs.frozen
class ExecutorConfig:
    """
    What one executor process loads.

    ``uses`` is a class (``module.Class``, ``module:Class``, or a bare name defined in ``py_modules``); None
    is the pass-through ``Executor`` itself. ``py_modules`` and ``workspace``, the base folder, are absolute
    paths. ``env_inherit`` are the variables that its process inherits, as supervisor/environment.py reads
    them. ``by_value`` is what a Flow in Python sends by value (``executor/by_value.py``); a class in it
    replaces ``uses``. With ``tracing`` the calls of its methods have spans.
    """

    uses: str | None = None
    uses_with: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    uses_metas: Mapping[str, Any] = attrs.field(factory=dict)
    uses_requests: Mapping[str, str] = attrs.field(factory=dict)
    uses_dynamic_batching: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    py_modules: tuple[str, ...] = ()
    workspace: str | None = None
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    env_inherit: tuple[str, ...] = ("*",)
    output_array_type: Literal["numpy", "list"] | None = None
    exit_on_exceptions: tuple[str, ...] = ()
    by_value: str | None = attrs.field(default=None, repr=False)
    tracing: bool = False
    traces_exporter_host: str | None = None
    traces_exporter_port: int | None = None
    traces_exporter_protocol: OtlpProtocol = "grpc"
    traces_exporter_headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def traces(self) -> Collector | None:
        """Where its spans go; None without ``tracing``."""
        return _collector(self)


def _collector(config: GatewayConfig | ExecutorConfig) -> Collector | None:
    if not config.tracing:
        return None
    return Collector(
        config.traces_exporter_host or Collector().host,
        config.traces_exporter_port or None,
        config.traces_exporter_protocol,
        config.traces_exporter_headers,
    )


@attrs.frozen
class ExternalHead:
    """An executor before or after shards that runs elsewhere: ``host:port``, one per replica."""

    addresses: tuple[str, ...]
    tls: bool = False


@attrs.frozen
class DeploymentConfig:
    """
    A named unit in the Flow.

    ``needs`` names what it waits for; ``"gateway"`` is the start. The Flow's answer does not wait for one
    that is ``floating``, unless it is ``collected``; its documents are not in the answer either way. An
    external one has ``addresses``, ``host:port`` or ``unix:/path`` of each replica; for others gatewayd
    starts ``shards * replicas`` processes of ``executor``, which listen on ``host`` at ``ports``, or at
    sockets of this gateway's own if both are empty. ``when`` filters the documents that go in.
    ``polling`` maps an endpoint (or ``"*"``) to whether its requests go to any shard or to all. Executors
    ``uses_before`` and ``uses_after`` run before and after the shards, and are not started without
    shards. ``idempotent`` says per endpoint (or ``"*"``) whether a request may be sent again after its
    connection broke. With ``monitoring`` each replica serves metrics, at ``monitoring_ports`` or at free
    ones. With ``reload`` the files of its executor are watched. With ``scaling`` there are more or fewer
    replicas of each shard with the load; ``replicas`` are those that are started first. ``placement`` is the
    engine that runs its replicas, and ``ray`` what Ray is asked for each of them. Executors that listen on a
    network demand ``secret`` of callers; it is made anew for each start of a gateway.
    """

    name: str
    needs: tuple[str, ...] = ("gateway",)
    floating: bool = False
    collected: bool = False
    when: Mapping[str, Any] | None = None
    no_reduce: bool = False
    external: bool = False
    addresses: tuple[str, ...] = ()
    tls: bool = False
    tls_ca_certfile: str | None = None
    tls_certfile: str | None = None
    tls_keyfile: str | None = None
    tls_server_name: str | None = None
    grpc_metadata: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    host: str | None = None
    ports: tuple[int, ...] = ()
    replicas: int = 1
    scaling: ScalingConfig | None = None
    shards: int = 1
    polling: Mapping[str, Polling] = attrs.field(factory=dict)
    timeout_send_s: float | None = None
    retries: int | None = None
    compression: Compression | None = None
    idempotent: Mapping[str, bool] = attrs.field(factory=dict)
    monitoring: bool = False
    monitoring_ports: tuple[int, ...] = ()
    timeout_ready_s: float = 600.0
    reload: bool = attrs.field(default=False, eq=False)
    executor: ExecutorConfig = ExecutorConfig()
    placement: PlacementName = LOCAL
    ray: RayOptions | None = None
    secret: str | None = attrs.field(default=None, eq=False, repr=False)
    uses_before: ExecutorConfig | ExternalHead | None = None
    uses_after: ExecutorConfig | ExternalHead | None = None

    @property
    def most_replicas(self) -> int:
        """How many replicas each shard may have."""
        return self.replicas if self.scaling is None else self.scaling.most

    @property
    def tls_files(self) -> TlsFiles:
        """Whom calls to it trust, and what they show; nothing where the system's authorities are trusted."""
        own = PairFiles(
            self.tls_certfile,
            self.tls_keyfile or self.tls_certfile,
            certfile_at=("tls_certfile",),
            keyfile_at=("tls_keyfile",) if self.tls_keyfile else ("tls_certfile",),
        )
        return TlsFiles(
            (own,) if self.tls_certfile else (), self.tls_ca_certfile, client_ca_at=("tls_ca_certfile",)
        )


@attrs.frozen
class FlowConfig:
    """
    A gateway and the Deployments behind it.

    ``inspect`` says what was made of its inspect executors. ``base_dir`` is the Flow file's folder. With
    ``reload`` all its files are watched. ``files`` are those that it was read from, the Flow file first.
    ``ray`` is the cluster of those of its replicas that run on one.
    ``warnings`` are for the log: settings without effect, or with another one than their author may
    expect. ``conflicts``, ports that two parts would listen on, keep the Flow from being served. The
    last Deployment that does not float gives the Flow's answer.
    """

    gateway: GatewayConfig = GatewayConfig()
    deployments: tuple[DeploymentConfig, ...] = ()
    name: str | None = None
    workspace: str | None = None
    inspect: Literal["COLLECT", "HANG", "REMOVE"] = "COLLECT"
    base_dir: str = "."
    ray: RayCluster = attrs.field(factory=RayCluster)
    reload: bool = attrs.field(default=False, eq=False)
    files: tuple[str, ...] = attrs.field(default=(), eq=False)
    warnings: tuple[str, ...] = attrs.field(default=(), eq=False)
    conflicts: tuple[str, ...] = attrs.field(default=(), eq=False)

    def check_conflicts(self) -> None:
        """Raises ConfigError with all ``conflicts``, one a line, if there are any."""
        if self.conflicts:
            raise ConfigError("\n".join(self.conflicts))
