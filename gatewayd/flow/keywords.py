"""
The keywords of Flow, its methods and Deployment. Made by ``make keywords`` from config/keys.py.

None is "not set" everywhere. What config/keys.py calls not supported yet takes only its default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from gatewayd.custom.gateway import Gateway
    from gatewayd.executor.executor import Executor

    Uses = type[Executor] | str | Mapping[str, Any]
    GatewayUses = type[Gateway] | str | Mapping[str, Any]

Texts = str | Path | Sequence[str | Path]


class FlowKeywords(TypedDict, total=False):
    """Of ``Flow``: the keys of ``with`` in a Flow file."""

    name: str | Path | None
    """Name of the Flow."""
    workspace: str | Path | None
    """Base folder of executors that set none; relative to the current folder."""
    env: Mapping[str, str | int | float | None] | str | None
    """Environment variables of the gateway and every executor."""
    quiet: bool | None
    """The log is the gateway's: see log_level."""
    quiet_error: bool | None
    """The log is the gateway's: see log_level."""
    workspace_id: Any
    """Executors manage one workspace each."""
    suppress_root_logging: bool | None
    """Logging is twistd's."""
    inspect: Literal["COLLECT", "HANG", "REMOVE"] | None
    """Whether answers wait for inspect executors, do not wait, or these are left out."""
    uses: Literal["Flow"] | None
    """A custom Flow class."""
    ray: str | Mapping[str, Any] | None
    """The Ray cluster of executors with placement: ray."""
    reload: bool | None
    """Take up changes of the Flow file, and of the configurations and code of executors, as they happen."""
    protocol: str | Sequence[str] | None
    """Protocols, one entry for each port; http+websocket share one."""
    protocols: str | Sequence[str] | None
    """The same as protocol."""
    port: int | str | Sequence[int] | None
    """Ports, one for each protocol in the same order; free ones if omitted."""
    ports: int | str | Sequence[int] | None
    """The same as port."""
    port_expose: int | str | Sequence[int] | None
    """The same as port."""
    port_in: int | str | Sequence[int] | None
    """The same as port."""
    host: str | None
    """Address to listen on; 0.0.0.0 and :: are all, of IPv4 and IPv6."""
    host_in: str | None
    """The same as host."""
    workers: int | None
    """Processes that serve; above 1, limits on all clients together are divided among them."""
    docarray: Literal["auto", 1, 2] | None
    """Which documents executors speak: 1 (docarray 0.21), 2 (0.30 and later), or what they tell."""
    ssl_certfile: str | Path | None
    """PEM certificate chain; with it all protocols accept TLS only."""
    ssl_keyfile: str | Path | None
    """PEM key of the certificate, not encrypted."""
    ssl_certificates: Sequence[Mapping[str, Any]] | None
    """Further certificates with their keys, for clients that ask for another name (SNI)."""
    ssl_client_ca: str | Path | None
    """PEM bundle of the authorities that sign clients' certificates."""
    ssl_client_auth: Literal["required", "optional"] | None
    """Whether clients must show a certificate of these; with optional, grpcio's server asks for none."""
    ssl_reload_interval: float | None
    """Seconds after which changed files of TLS are looked for and taken up; 0 for never."""
    ssl_reload_interval_s: float | None
    """The same as ssl_reload_interval."""
    ssl_expiry_warning_days: int | None
    """Days before its end from which a certificate is warned of, or a quarter of its time; 0 for never."""
    hsts: int | Literal[False] | None
    """Seconds for which browsers are to reach this host over TLS only; or false."""
    compression: Literal["none", "gzip", "deflate", "nocompression"] | None
    """Compression of calls to executors."""
    timeout_send: float | None
    """Milliseconds that one call to an executor may take."""
    retries: int | None
    """Retries of a failed call; -1 for automatic."""
    prefetch: int | None
    """Requests in flight on one stream; 0 for no limit."""
    max_message_bytes: int | None
    """Largest body or message of a client."""
    max_buffered_bytes: int | None
    """Bytes of requests and unsent answers that are held, of all clients together; more are refused."""
    max_unsent_bytes: int | None
    """Bytes of answers that one stream may leave unread before it gets no more; 0 for no limit."""
    write_timeout: float | None
    """Seconds for which a client may read nothing of what is sent to it."""
    write_timeout_s: float | None
    """The same as write_timeout."""
    receive_timeout: float | None
    """Seconds that a body or WebSocket message may take to arrive, besides what its size allows."""
    receive_timeout_s: float | None
    """The same as receive_timeout."""
    min_receive_rate: int | None
    """So many bytes allow a body or message a second more; 0 for no limit but max_receive_time."""
    max_receive_time: float | None
    """Seconds that it may take in any case; 0 for no limit."""
    max_receive_time_s: float | None
    """The same as max_receive_time."""
    max_parameter_values: int | None
    """Limit on the values in a request's parameters."""
    max_documents: int | None
    """Documents of a request in JSON or GraphQL, chunks and matches included; more are refused."""
    max_connections: int | None
    """Connections of clients; 0 for what the descriptors allow, less a reserve."""
    max_connections_per_address: int | None
    """Those of one client's address, or network of 64 bits of IPv6; 0 for no limit."""
    compress_above_bytes: int | None
    """Size from which answers are compressed for HTTP and WebSocket clients that accept it; 0 for never."""
    forward_headers: str | Sequence[str] | None
    """Headers and gRPC metadata of clients that executors get, and those of executors that clients get."""
    forward_headers_max_bytes: int | None
    """Largest sum of these headers for one request; each counts for 32 bytes more than it has."""
    http_idle_timeout: float | None
    """Seconds that an HTTP connection may be silent."""
    http_idle_timeout_s: float | None
    """The same as http_idle_timeout."""
    http_head_timeout: float | None
    """Seconds that the head of an HTTP request may take."""
    http_head_timeout_s: float | None
    """The same as http_head_timeout."""
    http_max_head_bytes: int | None
    """Largest head of an HTTP request."""
    websocket_ping_interval: float | None
    """Seconds of silence after which a WebSocket client is pinged; 0 for never."""
    websocket_ping_interval_s: float | None
    """The same as websocket_ping_interval."""
    websocket_ping_timeout: float | None
    """Seconds that it may take to answer a ping; 0 for no limit."""
    websocket_ping_timeout_s: float | None
    """The same as websocket_ping_timeout."""
    websocket_close_timeout: float | None
    """Seconds that a WebSocket client may take to answer a close frame."""
    websocket_close_timeout_s: float | None
    """The same as websocket_close_timeout."""
    websocket_max_frames_per_second: int | None
    """Control frames and tiny fragments that a WebSocket client may send in a second; 0 for no limit."""
    grace_period: float | None
    """Seconds that requests may take to finish on stop."""
    grace_period_s: float | None
    """The same as grace_period."""
    floating_grace_period: float | None
    """Seconds that floating calls may take to finish on stop; no limit where a Flow in Python is closed."""
    floating_grace_period_s: float | None
    """The same as floating_grace_period."""
    title: str | Path | None
    """Title of the HTTP documentation."""
    description: str | Path | None
    """Description in the HTTP documentation."""
    cors: bool | str | Sequence[str] | None
    """Let pages of other origins call HTTP: true for all, or a list of them."""
    allowed_origins: str | Sequence[str] | None
    """Origins whose pages may call executors, besides those of cors; pages of all others are refused."""
    allowed_hosts: str | Sequence[str] | None
    """Names by which HTTP and WebSocket may be called, *.example.org for all below; others are refused."""
    trusted_proxies: str | Sequence[str] | None
    """Addresses and networks of proxies that are believed in from where a request comes."""
    proxy_header: Literal["x-forwarded-for", "forwarded"] | None
    """The header in which they say it."""
    rates: Sequence[Mapping[str, Any]] | None
    """How often callers may ask: rules, all of which must have room for a request."""
    rates_store: Any
    """A Redis in which all gateways and workers with the same rules count their rates together."""
    rates_store_ca_certfile: str | Path | None
    """PEM file of the authorities to trust for it (rediss://), in place of the system's."""
    rates_store_certfile: str | Path | None
    """PEM certificate chain that is shown to it (rediss://)."""
    rates_store_keyfile: str | Path | None
    """PEM key of that certificate; the same file if omitted."""
    rates_store_timeout: float | None
    """Seconds that its answer may take."""
    rates_store_timeout_s: float | None
    """The same as rates_store_timeout."""
    rates_without_store: Literal["divide", "refuse"] | None
    """While it cannot be used: each counts its share for itself, or what has a rate is refused."""
    gateways: int | None
    """How many gateways stand side by side behind one address: rates are divided among them."""
    production: bool | None
    """Serve strangers: keys that are not set and say *in production* have that default."""
    no_debug_endpoints: bool | None
    """Remove /post, /status and /dry_run from HTTP."""
    no_crud_endpoints: bool | None
    """Remove /index, /search, /update and /delete from HTTP."""
    expose_endpoints: Mapping[str, Mapping[str, Any] | None] | str | None
    """HTTP routes of executors' endpoints, or all."""
    expose_graphql_endpoint: bool | None
    """Serve /graphql on HTTP."""
    openai: Mapping[str, Any] | None
    """The endpoints that /v1/chat/completions and /v1/embeddings lead to, for clients of OpenAI's API."""
    expose_graphiql: bool | None
    """With GraphQL, serve a page for writing queries."""
    expose_status: bool | None
    """Serve /status, and _status of gRPC: versions and environment."""
    expose_dry_run: bool | None
    """Serve the dry run, which calls every executor, on all protocols."""
    expose_errors: bool | None
    """Tell clients what failed behind the gateway; if not, only the log does, and hints are left out."""
    expose_docs: bool | None
    """Serve /docs, /redoc and /openapi.json."""
    expose_reflection: bool | None
    """Serve gRPC's reflection."""
    graphql_max_query_bytes: int | None
    """Largest text of a GraphQL query."""
    graphql_max_tokens: int | None
    """Words, numbers and signs of a GraphQL query."""
    graphql_max_depth: int | None
    """Levels of fields in a GraphQL query."""
    graphql_max_fields: int | None
    """Fields of a GraphQL query, those of fragments included."""
    graphql_max_root_fields: int | None
    """Requests that one GraphQL query may make."""
    graphql_max_values: int | None
    """Fields of all documents in a GraphQL answer."""
    graphql_max_operations: int | None
    """Operations of GraphQL that may be under way on one WebSocket connection."""
    graphql_init_timeout: float | None
    """Seconds within which a client of GraphQL over WebSocket has to begin."""
    grpc_max_concurrent_streams: int | None
    """Calls on one gRPC connection; 0 for no limit."""
    grpc_server: Literal["gatewayd", "grpcio"] | None
    """What serves gRPC: gatewayd's own server, or the library's, which costs more and bounds less."""
    grpc_server_options: Mapping[str, int | str] | str | None
    """gRPC channel arguments of the server."""
    admin_port: int | None
    """Port of the admin site: health, metrics, state and actions over HTTP; 0 for a free one."""
    admin_host: str | None
    """Address that the admin site listens on."""
    admin_keys: Mapping[str, str | Sequence[str]] | None
    """Digests of the keys that allow the admin site's actions, by the names of their owners."""
    expose_health: bool | None
    """Serve /livez, /readyz and /startupz on the ports of HTTP and WebSocket, to everybody."""
    drain_delay: float | None
    """Seconds for which a gateway that stops is reported as not ready before it stops listening."""
    drain_delay_s: float | None
    """The same as drain_delay."""
    monitoring: bool | None
    """Serve metrics for Prometheus on a port of their own, with the names of Jina's dashboards, too."""
    port_monitoring: int | None
    """That port; 0 for a free one."""
    metrics: bool | None
    """Send metrics to an OpenTelemetry collector (OTLP), those of executors' processes among them."""
    metrics_exporter_host: str | None
    """The collector's host, localhost if omitted; https://host for TLS."""
    metrics_exporter_port: int | None
    """Its port; 4317 for grpc and 4318 for http if omitted."""
    metrics_exporter_protocol: Literal["grpc", "http"] | None
    """How metrics are sent to it."""
    metrics_exporter_headers: Mapping[str, str | int | float] | str | None
    """Headers, or gRPC metadata, of what is sent to it."""
    metrics_interval: float | None
    """Seconds after which they are sent again."""
    metrics_interval_s: float | None
    """The same as metrics_interval."""
    auth: Mapping[str, Any] | None
    """Who may call: API keys, tokens, certificates, a hook, and rules."""
    pool: Mapping[str, Any] | None
    """Limits and rules for calls to executors."""
    py_modules: Texts | None
    """Python files imported first."""
    uvicorn_kwargs: None
    """Settings of another HTTP server; use the gateway's own keys."""
    tracing: bool | None
    """Send traces to an OpenTelemetry collector (OTLP)."""
    traces_exporter_host: str | None
    """The collector's host, localhost if omitted; https://host for TLS."""
    traces_exporter_port: int | None
    """Its port; 4317 for grpc and 4318 for http if omitted."""
    traces_exporter_protocol: Literal["grpc", "http"] | None
    """How spans are sent to it."""
    traces_exporter_headers: Mapping[str, str | int | float] | str | None
    """Headers, or gRPC metadata, of what is sent to it."""
    traces_sample: float | None
    """The share of requests that are traced, of those whose clients have not begun a trace."""
    traces_from_clients: bool | None
    """Take up the traces that clients have begun; if not, each request begins one of its own."""
    record: str | Mapping[str, Any] | None
    """A file in which requests and answers are recorded, for gatewayd replay."""
    log_level: Literal["debug", "info", "warn", "error", "critical", "warning", "success"] | None
    """Least level of what is logged; info, or JINA_LOG_LEVEL, if omitted (warn for a Flow in Python)."""
    log_levels: Mapping[str, str] | str | None
    """Levels that differ, by namespace: gatewayd.pool, or executor.NAME for what an executor writes."""
    log_format: Literal["text", "json"] | None
    """Lines of the log for people, or JSON."""
    log_config: str | Mapping[str, Any] | None
    """The reference's: default, json, quiet or a YAML file; its level and JsonFormatter are taken."""
    access_log: bool | Mapping[str, Any] | None
    """A line for each request: true for the log itself, or a map of path, sample and format."""
    entrypoint: Any
    """Settings of containers, which gatewayd does not start."""
    docker_kwargs: Any
    """Settings of containers, which gatewayd does not start."""
    volumes: Any
    """Settings of containers, which gatewayd does not start."""
    gpus: Any
    """Settings of containers, which gatewayd does not start."""
    disable_auto_volume: bool | None
    """Settings of containers, which gatewayd does not start."""
    env_from_secret: None
    """Environment variables from Kubernetes secrets."""
    graph_description: Any
    """Made from the executors of the Flow."""
    graph_conditions: Any
    """Made from the executors of the Flow."""
    deployments_addresses: Any
    """Made from the executors of the Flow."""
    deployments_metadata: Any
    """Made from the executors of the Flow."""
    deployments_no_reduce: Any
    """Made from the executors of the Flow."""
    runtime_cls: Any
    """The gateway runs in the service itself."""
    timeout_ctrl: Any
    """The gateway runs in the service itself."""
    timeout_ready: float | None
    """Milliseconds that it may take to start."""
    proxy: bool | None
    """Proxy variables are never used for calls to executors."""
    floating: bool | None
    """A gateway cannot float."""
    when: Mapping[str, Any] | None
    """It gets only documents that match."""
    no_reduce: bool | None
    """Do not merge the documents of several needs."""
    disable_reduce: bool | None
    """The same as no_reduce."""
    uses_metas: Mapping[str, Any] | None
    """Overrides of its metas."""
    uses_requests: Mapping[str, str] | str | None
    """Endpoints and the methods that serve them."""
    uses_dynamic_batching: Mapping[str, Mapping[str, Any]] | str | None
    """Endpoints whose requests are served in batches."""
    env_inherit: str | Sequence[str] | None
    """What its processes inherit of gatewayd's environment besides the usual: names, or patterns."""
    output_array_type: Literal["numpy", "list"] | None
    """Convert arrays in answers."""
    exit_on_exceptions: Texts | None
    """Exception classes that stop the executor."""
    replicas: int | Mapping[str, Any] | None
    """Copies, each a process with a socket or port of its own; a map for as many as the load needs."""
    placement: Literal["local", "ray"] | None
    """What runs its replicas: processes of this machine, or actors of a Ray cluster."""
    shards: int | None
    """Parts of the data, each with all replicas."""
    polling: Literal["any", "all"] | Mapping[str, Literal["any", "all"]] | None
    """Whether a request goes to any shard or to all."""
    external: bool | None
    """It runs elsewhere, and is called but not started."""
    tls: bool | None
    """Call an external executor over TLS."""
    grpc_metadata: Mapping[str, str | int | float] | str | None
    """gRPC metadata of the calls to it."""
    idempotent: bool | Mapping[str, bool] | None
    """Whether a request may be sent again after its connection broke."""
    install_requirements: Literal[False] | None
    """Install the packages it requires."""
    connection_list: Any
    """Processes are started in one way only."""
    native: bool | None
    """Executors always run as they are."""
    force_update: bool | None
    """Executors always run as they are."""
    prefer_platform: Any
    """Settings of containers, which gatewayd does not start."""


class GatewayKeywords(TypedDict, total=False):
    """Of ``config_gateway``."""

    protocol: str | Sequence[str] | None
    """Protocols, one entry for each port; http+websocket share one."""
    protocols: str | Sequence[str] | None
    """The same as protocol."""
    port: int | str | Sequence[int] | None
    """Ports, one for each protocol in the same order; free ones if omitted."""
    ports: int | str | Sequence[int] | None
    """The same as port."""
    port_expose: int | str | Sequence[int] | None
    """The same as port."""
    port_in: int | str | Sequence[int] | None
    """The same as port."""
    host: str | None
    """Address to listen on; 0.0.0.0 and :: are all, of IPv4 and IPv6."""
    host_in: str | None
    """The same as host."""
    name: str | Path | None
    """Name in answers and logs."""
    workers: int | None
    """Processes that serve; above 1, limits on all clients together are divided among them."""
    docarray: Literal["auto", 1, 2] | None
    """Which documents executors speak: 1 (docarray 0.21), 2 (0.30 and later), or what they tell."""
    ssl_certfile: str | Path | None
    """PEM certificate chain; with it all protocols accept TLS only."""
    ssl_keyfile: str | Path | None
    """PEM key of the certificate, not encrypted."""
    ssl_certificates: Sequence[Mapping[str, Any]] | None
    """Further certificates with their keys, for clients that ask for another name (SNI)."""
    ssl_client_ca: str | Path | None
    """PEM bundle of the authorities that sign clients' certificates."""
    ssl_client_auth: Literal["required", "optional"] | None
    """Whether clients must show a certificate of these; with optional, grpcio's server asks for none."""
    ssl_reload_interval: float | None
    """Seconds after which changed files of TLS are looked for and taken up; 0 for never."""
    ssl_reload_interval_s: float | None
    """The same as ssl_reload_interval."""
    ssl_expiry_warning_days: int | None
    """Days before its end from which a certificate is warned of, or a quarter of its time; 0 for never."""
    hsts: int | Literal[False] | None
    """Seconds for which browsers are to reach this host over TLS only; or false."""
    compression: Literal["none", "gzip", "deflate", "nocompression"] | None
    """Compression of calls to executors."""
    timeout_send: float | None
    """Milliseconds that one call to an executor may take."""
    retries: int | None
    """Retries of a failed call; -1 for automatic."""
    prefetch: int | None
    """Requests in flight on one stream; 0 for no limit."""
    max_message_bytes: int | None
    """Largest body or message of a client."""
    max_buffered_bytes: int | None
    """Bytes of requests and unsent answers that are held, of all clients together; more are refused."""
    max_unsent_bytes: int | None
    """Bytes of answers that one stream may leave unread before it gets no more; 0 for no limit."""
    write_timeout: float | None
    """Seconds for which a client may read nothing of what is sent to it."""
    write_timeout_s: float | None
    """The same as write_timeout."""
    receive_timeout: float | None
    """Seconds that a body or WebSocket message may take to arrive, besides what its size allows."""
    receive_timeout_s: float | None
    """The same as receive_timeout."""
    min_receive_rate: int | None
    """So many bytes allow a body or message a second more; 0 for no limit but max_receive_time."""
    max_receive_time: float | None
    """Seconds that it may take in any case; 0 for no limit."""
    max_receive_time_s: float | None
    """The same as max_receive_time."""
    max_parameter_values: int | None
    """Limit on the values in a request's parameters."""
    max_documents: int | None
    """Documents of a request in JSON or GraphQL, chunks and matches included; more are refused."""
    max_connections: int | None
    """Connections of clients; 0 for what the descriptors allow, less a reserve."""
    max_connections_per_address: int | None
    """Those of one client's address, or network of 64 bits of IPv6; 0 for no limit."""
    compress_above_bytes: int | None
    """Size from which answers are compressed for HTTP and WebSocket clients that accept it; 0 for never."""
    forward_headers: str | Sequence[str] | None
    """Headers and gRPC metadata of clients that executors get, and those of executors that clients get."""
    forward_headers_max_bytes: int | None
    """Largest sum of these headers for one request; each counts for 32 bytes more than it has."""
    http_idle_timeout: float | None
    """Seconds that an HTTP connection may be silent."""
    http_idle_timeout_s: float | None
    """The same as http_idle_timeout."""
    http_head_timeout: float | None
    """Seconds that the head of an HTTP request may take."""
    http_head_timeout_s: float | None
    """The same as http_head_timeout."""
    http_max_head_bytes: int | None
    """Largest head of an HTTP request."""
    websocket_ping_interval: float | None
    """Seconds of silence after which a WebSocket client is pinged; 0 for never."""
    websocket_ping_interval_s: float | None
    """The same as websocket_ping_interval."""
    websocket_ping_timeout: float | None
    """Seconds that it may take to answer a ping; 0 for no limit."""
    websocket_ping_timeout_s: float | None
    """The same as websocket_ping_timeout."""
    websocket_close_timeout: float | None
    """Seconds that a WebSocket client may take to answer a close frame."""
    websocket_close_timeout_s: float | None
    """The same as websocket_close_timeout."""
    websocket_max_frames_per_second: int | None
    """Control frames and tiny fragments that a WebSocket client may send in a second; 0 for no limit."""
    grace_period: float | None
    """Seconds that requests may take to finish on stop."""
    grace_period_s: float | None
    """The same as grace_period."""
    floating_grace_period: float | None
    """Seconds that floating calls may take to finish on stop; no limit where a Flow in Python is closed."""
    floating_grace_period_s: float | None
    """The same as floating_grace_period."""
    title: str | Path | None
    """Title of the HTTP documentation."""
    description: str | Path | None
    """Description in the HTTP documentation."""
    cors: bool | str | Sequence[str] | None
    """Let pages of other origins call HTTP: true for all, or a list of them."""
    allowed_origins: str | Sequence[str] | None
    """Origins whose pages may call executors, besides those of cors; pages of all others are refused."""
    allowed_hosts: str | Sequence[str] | None
    """Names by which HTTP and WebSocket may be called, *.example.org for all below; others are refused."""
    trusted_proxies: str | Sequence[str] | None
    """Addresses and networks of proxies that are believed in from where a request comes."""
    proxy_header: Literal["x-forwarded-for", "forwarded"] | None
    """The header in which they say it."""
    rates: Sequence[Mapping[str, Any]] | None
    """How often callers may ask: rules, all of which must have room for a request."""
    rates_store: Any
    """A Redis in which all gateways and workers with the same rules count their rates together."""
    rates_store_ca_certfile: str | Path | None
    """PEM file of the authorities to trust for it (rediss://), in place of the system's."""
    rates_store_certfile: str | Path | None
    """PEM certificate chain that is shown to it (rediss://)."""
    rates_store_keyfile: str | Path | None
    """PEM key of that certificate; the same file if omitted."""
    rates_store_timeout: float | None
    """Seconds that its answer may take."""
    rates_store_timeout_s: float | None
    """The same as rates_store_timeout."""
    rates_without_store: Literal["divide", "refuse"] | None
    """While it cannot be used: each counts its share for itself, or what has a rate is refused."""
    gateways: int | None
    """How many gateways stand side by side behind one address: rates are divided among them."""
    production: bool | None
    """Serve strangers: keys that are not set and say *in production* have that default."""
    no_debug_endpoints: bool | None
    """Remove /post, /status and /dry_run from HTTP."""
    no_crud_endpoints: bool | None
    """Remove /index, /search, /update and /delete from HTTP."""
    expose_endpoints: Mapping[str, Mapping[str, Any] | None] | str | None
    """HTTP routes of executors' endpoints, or all."""
    expose_graphql_endpoint: bool | None
    """Serve /graphql on HTTP."""
    openai: Mapping[str, Any] | None
    """The endpoints that /v1/chat/completions and /v1/embeddings lead to, for clients of OpenAI's API."""
    expose_graphiql: bool | None
    """With GraphQL, serve a page for writing queries."""
    expose_status: bool | None
    """Serve /status, and _status of gRPC: versions and environment."""
    expose_dry_run: bool | None
    """Serve the dry run, which calls every executor, on all protocols."""
    expose_errors: bool | None
    """Tell clients what failed behind the gateway; if not, only the log does, and hints are left out."""
    expose_docs: bool | None
    """Serve /docs, /redoc and /openapi.json."""
    expose_reflection: bool | None
    """Serve gRPC's reflection."""
    graphql_max_query_bytes: int | None
    """Largest text of a GraphQL query."""
    graphql_max_tokens: int | None
    """Words, numbers and signs of a GraphQL query."""
    graphql_max_depth: int | None
    """Levels of fields in a GraphQL query."""
    graphql_max_fields: int | None
    """Fields of a GraphQL query, those of fragments included."""
    graphql_max_root_fields: int | None
    """Requests that one GraphQL query may make."""
    graphql_max_values: int | None
    """Fields of all documents in a GraphQL answer."""
    graphql_max_operations: int | None
    """Operations of GraphQL that may be under way on one WebSocket connection."""
    graphql_init_timeout: float | None
    """Seconds within which a client of GraphQL over WebSocket has to begin."""
    grpc_max_concurrent_streams: int | None
    """Calls on one gRPC connection; 0 for no limit."""
    grpc_server: Literal["gatewayd", "grpcio"] | None
    """What serves gRPC: gatewayd's own server, or the library's, which costs more and bounds less."""
    grpc_server_options: Mapping[str, int | str] | str | None
    """gRPC channel arguments of the server."""
    admin_port: int | None
    """Port of the admin site: health, metrics, state and actions over HTTP; 0 for a free one."""
    admin_host: str | None
    """Address that the admin site listens on."""
    admin_keys: Mapping[str, str | Sequence[str]] | None
    """Digests of the keys that allow the admin site's actions, by the names of their owners."""
    expose_health: bool | None
    """Serve /livez, /readyz and /startupz on the ports of HTTP and WebSocket, to everybody."""
    drain_delay: float | None
    """Seconds for which a gateway that stops is reported as not ready before it stops listening."""
    drain_delay_s: float | None
    """The same as drain_delay."""
    monitoring: bool | None
    """Serve metrics for Prometheus on a port of their own, with the names of Jina's dashboards, too."""
    port_monitoring: int | None
    """That port; 0 for a free one."""
    metrics: bool | None
    """Send metrics to an OpenTelemetry collector (OTLP), those of executors' processes among them."""
    metrics_exporter_host: str | None
    """The collector's host, localhost if omitted; https://host for TLS."""
    metrics_exporter_port: int | None
    """Its port; 4317 for grpc and 4318 for http if omitted."""
    metrics_exporter_protocol: Literal["grpc", "http"] | None
    """How metrics are sent to it."""
    metrics_exporter_headers: Mapping[str, str | int | float] | str | None
    """Headers, or gRPC metadata, of what is sent to it."""
    metrics_interval: float | None
    """Seconds after which they are sent again."""
    metrics_interval_s: float | None
    """The same as metrics_interval."""
    env: Mapping[str, str | int | float | None] | str | None
    """Environment variables of the gateway."""
    auth: Mapping[str, Any] | None
    """Who may call: API keys, tokens, certificates, a hook, and rules."""
    pool: Mapping[str, Any] | None
    """Limits and rules for calls to executors."""
    uses: GatewayUses | None
    """A gateway class of your own, whose routes are served, too."""
    uses_with: Mapping[str, Any] | None
    """Arguments of that gateway class."""
    py_modules: Texts | None
    """Python files imported first."""
    uvicorn_kwargs: None
    """Settings of another HTTP server; use the gateway's own keys."""
    reload: bool | None
    """Take up changes of the Flow file, and of the configurations of executors, as they happen."""
    tracing: bool | None
    """Send traces to an OpenTelemetry collector (OTLP)."""
    traces_exporter_host: str | None
    """The collector's host, localhost if omitted; https://host for TLS."""
    traces_exporter_port: int | None
    """Its port; 4317 for grpc and 4318 for http if omitted."""
    traces_exporter_protocol: Literal["grpc", "http"] | None
    """How spans are sent to it."""
    traces_exporter_headers: Mapping[str, str | int | float] | str | None
    """Headers, or gRPC metadata, of what is sent to it."""
    traces_sample: float | None
    """The share of requests that are traced, of those whose clients have not begun a trace."""
    traces_from_clients: bool | None
    """Take up the traces that clients have begun; if not, each request begins one of its own."""
    record: str | Mapping[str, Any] | None
    """A file in which requests and answers are recorded, for gatewayd replay."""
    log_level: Literal["debug", "info", "warn", "error", "critical", "warning", "success"] | None
    """Least level of what is logged; info, or JINA_LOG_LEVEL, if omitted (warn for a Flow in Python)."""
    log_levels: Mapping[str, str] | str | None
    """Levels that differ, by namespace: gatewayd.pool, or executor.NAME for what an executor writes."""
    log_format: Literal["text", "json"] | None
    """Lines of the log for people, or JSON."""
    log_config: str | Mapping[str, Any] | None
    """The reference's: default, json, quiet or a YAML file; its level and JsonFormatter are taken."""
    access_log: bool | Mapping[str, Any] | None
    """A line for each request: true for the log itself, or a map of path, sample and format."""
    quiet: bool | None
    """The log is the gateway's: see log_level."""
    quiet_error: bool | None
    """The log is the gateway's: see log_level."""
    entrypoint: Any
    """Settings of containers, which gatewayd does not start."""
    docker_kwargs: Any
    """Settings of containers, which gatewayd does not start."""
    volumes: Any
    """Settings of containers, which gatewayd does not start."""
    gpus: Any
    """Settings of containers, which gatewayd does not start."""
    disable_auto_volume: bool | None
    """Settings of containers, which gatewayd does not start."""
    env_from_secret: None
    """Environment variables from Kubernetes secrets."""
    graph_description: Any
    """Made from the executors of the Flow."""
    graph_conditions: Any
    """Made from the executors of the Flow."""
    deployments_addresses: Any
    """Made from the executors of the Flow."""
    deployments_metadata: Any
    """Made from the executors of the Flow."""
    deployments_no_reduce: Any
    """Made from the executors of the Flow."""
    workspace: Any
    """The gateway keeps no files."""
    runtime_cls: Any
    """The gateway runs in the service itself."""
    timeout_ctrl: Any
    """The gateway runs in the service itself."""
    timeout_ready: Any
    """The gateway runs in the service itself."""
    proxy: bool | None
    """Proxy variables are never used for calls to executors."""
    floating: bool | None
    """A gateway cannot float."""


class JoinerKeywords(TypedDict, total=False):
    """Of ``needs`` and ``needs_all``."""

    floating: bool | None
    """The Flow's answer does not wait for it."""
    when: Mapping[str, Any] | None
    """It gets only documents that match."""
    no_reduce: bool | None
    """Do not merge the documents of several needs."""
    disable_reduce: bool | None
    """The same as no_reduce."""
    uses: Uses | None
    """Its class, its config.yml, or that file's content."""
    uses_with: Mapping[str, Any] | None
    """Arguments of the class."""
    uses_metas: Mapping[str, Any] | None
    """Overrides of its metas."""
    uses_requests: Mapping[str, str] | str | None
    """Endpoints and the methods that serve them."""
    uses_dynamic_batching: Mapping[str, Mapping[str, Any]] | str | None
    """Endpoints whose requests are served in batches."""
    py_modules: Texts | None
    """Python files imported first."""
    workspace: str | Path | None
    """Base folder of its files; relative to the current folder."""
    env: Mapping[str, str | int | float | None] | str | None
    """Environment variables of its processes."""
    env_inherit: str | Sequence[str] | None
    """What its processes inherit of gatewayd's environment besides the usual: names, or patterns."""
    output_array_type: Literal["numpy", "list"] | None
    """Convert arrays in answers."""
    exit_on_exceptions: Texts | None
    """Exception classes that stop the executor."""
    replicas: int | Mapping[str, Any] | None
    """Copies, each a process with a socket or port of its own; a map for as many as the load needs."""
    placement: Literal["local", "ray"] | None
    """What runs its replicas: processes of this machine, or actors of a Ray cluster."""
    ray: Mapping[str, Any] | None
    """What Ray is asked for each replica: resources, nodes, its environment."""
    shards: int | None
    """Parts of the data, each with all replicas."""
    polling: Literal["any", "all"] | Mapping[str, Literal["any", "all"]] | None
    """Whether a request goes to any shard or to all."""
    host: str | Sequence[str] | None
    """Address of its ports; for an external executor, its address."""
    host_in: str | Sequence[str] | None
    """The same as host."""
    port: int | str | Sequence[int] | None
    """One for each replica; private sockets if omitted."""
    ports: int | str | Sequence[int] | None
    """The same as port."""
    port_in: int | str | Sequence[int] | None
    """The same as port."""
    external: bool | None
    """It runs elsewhere, and is called but not started."""
    tls: bool | None
    """Call an external executor over TLS."""
    tls_ca_certfile: str | Path | None
    """PEM file of the authorities to trust for it, in place of the system's."""
    tls_certfile: str | Path | None
    """PEM certificate chain that the gateway shows to it."""
    tls_keyfile: str | Path | None
    """PEM key of that certificate; the same file if omitted."""
    tls_server_name: str | Path | None
    """Name that its certificate must have; its host if omitted."""
    grpc_metadata: Mapping[str, str | int | float] | str | None
    """gRPC metadata of the calls to it."""
    timeout_send: float | None
    """Milliseconds that a call may take; the gateway's if omitted."""
    retries: int | None
    """Retries of a failed call; the gateway's if omitted."""
    compression: Literal["none", "gzip", "deflate", "nocompression"] | None
    """Compression of calls to it; the gateway's if omitted."""
    monitoring: bool | None
    """Measure it, and serve its metrics for Prometheus, those of @monitor among them."""
    port_monitoring: int | str | Sequence[int] | None
    """Ports of these metrics, one for each replica; free ones if omitted."""
    idempotent: bool | Mapping[str, bool] | None
    """Whether a request may be sent again after its connection broke."""
    timeout_ready: float | None
    """Milliseconds that it may take to start."""
    uses_before: Uses | None
    """Executor before the shards."""
    uses_after: Uses | None
    """Executor after the shards."""
    uses_before_address: str | Sequence[str] | None
    """Address of one that runs elsewhere, in place of uses_before."""
    uses_after_address: str | Sequence[str] | None
    """Address of one that runs elsewhere, in place of uses_after."""
    install_requirements: Literal[False] | None
    """Install the packages it requires."""
    grpc_server_options: None
    """gRPC channel arguments of its server."""
    reload: bool | None
    """Take up changes of its configuration and code as they happen."""
    tracing: bool | None
    """Send traces to an OpenTelemetry collector (OTLP)."""
    traces_exporter_host: str | None
    """The collector's host, localhost if omitted; https://host for TLS."""
    traces_exporter_port: int | None
    """Its port; 4317 for grpc and 4318 for http if omitted."""
    traces_exporter_protocol: Literal["grpc", "http"] | None
    """How spans are sent to it."""
    traces_exporter_headers: Mapping[str, str | int | float] | str | None
    """Headers, or gRPC metadata, of what is sent to it."""
    metrics: bool | None
    """The gateway sends its metrics."""
    metrics_exporter_host: str | Path | None
    """The gateway sends its metrics."""
    metrics_exporter_port: int | None
    """The gateway sends its metrics."""
    log_config: Any
    """Executors write to the gateway's log: see log_levels there."""
    quiet: bool | None
    """The log is the gateway's: see log_level."""
    quiet_error: bool | None
    """The log is the gateway's: see log_level."""
    entrypoint: Any
    """Settings of containers, which gatewayd does not start."""
    docker_kwargs: Any
    """Settings of containers, which gatewayd does not start."""
    volumes: Any
    """Settings of containers, which gatewayd does not start."""
    gpus: Any
    """Settings of containers, which gatewayd does not start."""
    disable_auto_volume: bool | None
    """Settings of containers, which gatewayd does not start."""
    env_from_secret: None
    """Environment variables from Kubernetes secrets."""
    runtime_cls: Any
    """Processes are started in one way only."""
    timeout_ctrl: Any
    """Processes are started in one way only."""
    connection_list: Any
    """Processes are started in one way only."""
    native: bool | None
    """Executors always run as they are."""
    force_update: bool | None
    """Executors always run as they are."""
    prefer_platform: Any
    """Settings of containers, which gatewayd does not start."""


class ExecutorKeywords(JoinerKeywords, total=False):
    """Of ``add``."""

    name: str | Path | None
    """A Python identifier; executor0, executor1 ... if omitted."""
    method: Literal["add", "needs", "needs_all", "inspect", "gather_inspect"] | None
    """How it joins the Flow."""
    needs: str | Iterable[str] | None
    """Executors it waits for, or gateway; the one before it if omitted."""


class DeploymentKeywords(TypedDict, total=False):
    """Of ``Deployment``."""

    name: str | Path | None
    """A Python identifier; executor0, executor1 ... if omitted."""
    when: Mapping[str, Any] | None
    """It gets only documents that match."""
    no_reduce: bool | None
    """Do not merge the documents of several needs."""
    disable_reduce: bool | None
    """The same as no_reduce."""
    uses: Uses | None
    """Its class, its config.yml, or that file's content."""
    uses_with: Mapping[str, Any] | None
    """Arguments of the class."""
    uses_metas: Mapping[str, Any] | None
    """Overrides of its metas."""
    uses_requests: Mapping[str, str] | str | None
    """Endpoints and the methods that serve them."""
    uses_dynamic_batching: Mapping[str, Mapping[str, Any]] | str | None
    """Endpoints whose requests are served in batches."""
    py_modules: Texts | None
    """Python files imported first."""
    workspace: str | Path | None
    """Base folder of its files; relative to the current folder."""
    env: Mapping[str, str | int | float | None] | str | None
    """Environment variables of its processes."""
    env_inherit: str | Sequence[str] | None
    """What its processes inherit of gatewayd's environment besides the usual: names, or patterns."""
    output_array_type: Literal["numpy", "list"] | None
    """Convert arrays in answers."""
    exit_on_exceptions: Texts | None
    """Exception classes that stop the executor."""
    replicas: int | Mapping[str, Any] | None
    """Copies, each a process with a socket or port of its own; a map for as many as the load needs."""
    placement: Literal["local", "ray"] | None
    """What runs its replicas: processes of this machine, or actors of a Ray cluster."""
    ray: Mapping[str, Any] | None
    """What Ray is asked for each replica: resources, nodes, its environment."""
    shards: int | None
    """Parts of the data, each with all replicas."""
    polling: Literal["any", "all"] | Mapping[str, Literal["any", "all"]] | None
    """Whether a request goes to any shard or to all."""
    external: bool | None
    """It runs elsewhere, and is called but not started."""
    tls: bool | None
    """Call an external executor over TLS."""
    tls_ca_certfile: str | Path | None
    """PEM file of the authorities to trust for it, in place of the system's."""
    tls_certfile: str | Path | None
    """PEM certificate chain that the gateway shows to it."""
    tls_keyfile: str | Path | None
    """PEM key of that certificate; the same file if omitted."""
    tls_server_name: str | Path | None
    """Name that its certificate must have; its host if omitted."""
    grpc_metadata: Mapping[str, str | int | float] | str | None
    """gRPC metadata of the calls to it."""
    timeout_send: float | None
    """Milliseconds that a call may take; the gateway's if omitted."""
    retries: int | None
    """Retries of a failed call; the gateway's if omitted."""
    compression: Literal["none", "gzip", "deflate", "nocompression"] | None
    """Compression of calls to it; the gateway's if omitted."""
    monitoring: bool | None
    """Measure it, and serve its metrics for Prometheus, those of @monitor among them."""
    port_monitoring: int | str | Sequence[int] | None
    """Ports of these metrics, one for each replica; free ones if omitted."""
    idempotent: bool | Mapping[str, bool] | None
    """Whether a request may be sent again after its connection broke."""
    timeout_ready: float | None
    """Milliseconds that it may take to start."""
    uses_before: Uses | None
    """Executor before the shards."""
    uses_after: Uses | None
    """Executor after the shards."""
    uses_before_address: str | Sequence[str] | None
    """Address of one that runs elsewhere, in place of uses_before."""
    uses_after_address: str | Sequence[str] | None
    """Address of one that runs elsewhere, in place of uses_after."""
    install_requirements: Literal[False] | None
    """Install the packages it requires."""
    reload: bool | None
    """Take up changes of its configuration and code as they happen."""
    tracing: bool | None
    """Send traces to an OpenTelemetry collector (OTLP)."""
    traces_exporter_host: str | None
    """The collector's host, localhost if omitted; https://host for TLS."""
    traces_exporter_port: int | None
    """Its port; 4317 for grpc and 4318 for http if omitted."""
    traces_exporter_protocol: Literal["grpc", "http"] | None
    """How spans are sent to it."""
    traces_exporter_headers: Mapping[str, str | int | float] | str | None
    """Headers, or gRPC metadata, of what is sent to it."""
    quiet: bool | None
    """The log is the gateway's: see log_level."""
    quiet_error: bool | None
    """The log is the gateway's: see log_level."""
    entrypoint: Any
    """Settings of containers, which gatewayd does not start."""
    docker_kwargs: Any
    """Settings of containers, which gatewayd does not start."""
    volumes: Any
    """Settings of containers, which gatewayd does not start."""
    gpus: Any
    """Settings of containers, which gatewayd does not start."""
    disable_auto_volume: bool | None
    """Settings of containers, which gatewayd does not start."""
    env_from_secret: None
    """Environment variables from Kubernetes secrets."""
    runtime_cls: Any
    """Processes are started in one way only."""
    timeout_ctrl: Any
    """Processes are started in one way only."""
    connection_list: Any
    """Processes are started in one way only."""
    native: bool | None
    """Executors always run as they are."""
    force_update: bool | None
    """Executors always run as they are."""
    prefer_platform: Any
    """Settings of containers, which gatewayd does not start."""
    protocol: str | Sequence[str] | None
    """Protocols, one entry for each port; http+websocket share one."""
    protocols: str | Sequence[str] | None
    """The same as protocol."""
    port: int | str | Sequence[int] | None
    """Ports, one for each protocol in the same order; free ones if omitted."""
    ports: int | str | Sequence[int] | None
    """The same as port."""
    port_expose: int | str | Sequence[int] | None
    """The same as port."""
    port_in: int | str | Sequence[int] | None
    """The same as port."""
    host: str | None
    """Address to listen on; 0.0.0.0 and :: are all, of IPv4 and IPv6."""
    host_in: str | None
    """The same as host."""
    workers: int | None
    """Processes that serve; above 1, limits on all clients together are divided among them."""
    docarray: Literal["auto", 1, 2] | None
    """Which documents executors speak: 1 (docarray 0.21), 2 (0.30 and later), or what they tell."""
    ssl_certfile: str | Path | None
    """PEM certificate chain; with it all protocols accept TLS only."""
    ssl_keyfile: str | Path | None
    """PEM key of the certificate, not encrypted."""
    ssl_certificates: Sequence[Mapping[str, Any]] | None
    """Further certificates with their keys, for clients that ask for another name (SNI)."""
    ssl_client_ca: str | Path | None
    """PEM bundle of the authorities that sign clients' certificates."""
    ssl_client_auth: Literal["required", "optional"] | None
    """Whether clients must show a certificate of these; with optional, grpcio's server asks for none."""
    ssl_reload_interval: float | None
    """Seconds after which changed files of TLS are looked for and taken up; 0 for never."""
    ssl_reload_interval_s: float | None
    """The same as ssl_reload_interval."""
    ssl_expiry_warning_days: int | None
    """Days before its end from which a certificate is warned of, or a quarter of its time; 0 for never."""
    hsts: int | Literal[False] | None
    """Seconds for which browsers are to reach this host over TLS only; or false."""
    prefetch: int | None
    """Requests in flight on one stream; 0 for no limit."""
    max_message_bytes: int | None
    """Largest body or message of a client."""
    max_buffered_bytes: int | None
    """Bytes of requests and unsent answers that are held, of all clients together; more are refused."""
    max_unsent_bytes: int | None
    """Bytes of answers that one stream may leave unread before it gets no more; 0 for no limit."""
    write_timeout: float | None
    """Seconds for which a client may read nothing of what is sent to it."""
    write_timeout_s: float | None
    """The same as write_timeout."""
    receive_timeout: float | None
    """Seconds that a body or WebSocket message may take to arrive, besides what its size allows."""
    receive_timeout_s: float | None
    """The same as receive_timeout."""
    min_receive_rate: int | None
    """So many bytes allow a body or message a second more; 0 for no limit but max_receive_time."""
    max_receive_time: float | None
    """Seconds that it may take in any case; 0 for no limit."""
    max_receive_time_s: float | None
    """The same as max_receive_time."""
    max_parameter_values: int | None
    """Limit on the values in a request's parameters."""
    max_documents: int | None
    """Documents of a request in JSON or GraphQL, chunks and matches included; more are refused."""
    max_connections: int | None
    """Connections of clients; 0 for what the descriptors allow, less a reserve."""
    max_connections_per_address: int | None
    """Those of one client's address, or network of 64 bits of IPv6; 0 for no limit."""
    compress_above_bytes: int | None
    """Size from which answers are compressed for HTTP and WebSocket clients that accept it; 0 for never."""
    forward_headers: str | Sequence[str] | None
    """Headers and gRPC metadata of clients that executors get, and those of executors that clients get."""
    forward_headers_max_bytes: int | None
    """Largest sum of these headers for one request; each counts for 32 bytes more than it has."""
    http_idle_timeout: float | None
    """Seconds that an HTTP connection may be silent."""
    http_idle_timeout_s: float | None
    """The same as http_idle_timeout."""
    http_head_timeout: float | None
    """Seconds that the head of an HTTP request may take."""
    http_head_timeout_s: float | None
    """The same as http_head_timeout."""
    http_max_head_bytes: int | None
    """Largest head of an HTTP request."""
    websocket_ping_interval: float | None
    """Seconds of silence after which a WebSocket client is pinged; 0 for never."""
    websocket_ping_interval_s: float | None
    """The same as websocket_ping_interval."""
    websocket_ping_timeout: float | None
    """Seconds that it may take to answer a ping; 0 for no limit."""
    websocket_ping_timeout_s: float | None
    """The same as websocket_ping_timeout."""
    websocket_close_timeout: float | None
    """Seconds that a WebSocket client may take to answer a close frame."""
    websocket_close_timeout_s: float | None
    """The same as websocket_close_timeout."""
    websocket_max_frames_per_second: int | None
    """Control frames and tiny fragments that a WebSocket client may send in a second; 0 for no limit."""
    grace_period: float | None
    """Seconds that requests may take to finish on stop."""
    grace_period_s: float | None
    """The same as grace_period."""
    floating_grace_period: float | None
    """Seconds that floating calls may take to finish on stop; no limit where a Flow in Python is closed."""
    floating_grace_period_s: float | None
    """The same as floating_grace_period."""
    title: str | Path | None
    """Title of the HTTP documentation."""
    description: str | Path | None
    """Description in the HTTP documentation."""
    cors: bool | str | Sequence[str] | None
    """Let pages of other origins call HTTP: true for all, or a list of them."""
    allowed_origins: str | Sequence[str] | None
    """Origins whose pages may call executors, besides those of cors; pages of all others are refused."""
    allowed_hosts: str | Sequence[str] | None
    """Names by which HTTP and WebSocket may be called, *.example.org for all below; others are refused."""
    trusted_proxies: str | Sequence[str] | None
    """Addresses and networks of proxies that are believed in from where a request comes."""
    proxy_header: Literal["x-forwarded-for", "forwarded"] | None
    """The header in which they say it."""
    rates: Sequence[Mapping[str, Any]] | None
    """How often callers may ask: rules, all of which must have room for a request."""
    rates_store: Any
    """A Redis in which all gateways and workers with the same rules count their rates together."""
    rates_store_ca_certfile: str | Path | None
    """PEM file of the authorities to trust for it (rediss://), in place of the system's."""
    rates_store_certfile: str | Path | None
    """PEM certificate chain that is shown to it (rediss://)."""
    rates_store_keyfile: str | Path | None
    """PEM key of that certificate; the same file if omitted."""
    rates_store_timeout: float | None
    """Seconds that its answer may take."""
    rates_store_timeout_s: float | None
    """The same as rates_store_timeout."""
    rates_without_store: Literal["divide", "refuse"] | None
    """While it cannot be used: each counts its share for itself, or what has a rate is refused."""
    gateways: int | None
    """How many gateways stand side by side behind one address: rates are divided among them."""
    production: bool | None
    """Serve strangers: keys that are not set and say *in production* have that default."""
    no_debug_endpoints: bool | None
    """Remove /post, /status and /dry_run from HTTP."""
    no_crud_endpoints: bool | None
    """Remove /index, /search, /update and /delete from HTTP."""
    expose_endpoints: Mapping[str, Mapping[str, Any] | None] | str | None
    """HTTP routes of executors' endpoints, or all."""
    expose_graphql_endpoint: bool | None
    """Serve /graphql on HTTP."""
    openai: Mapping[str, Any] | None
    """The endpoints that /v1/chat/completions and /v1/embeddings lead to, for clients of OpenAI's API."""
    expose_graphiql: bool | None
    """With GraphQL, serve a page for writing queries."""
    expose_status: bool | None
    """Serve /status, and _status of gRPC: versions and environment."""
    expose_dry_run: bool | None
    """Serve the dry run, which calls every executor, on all protocols."""
    expose_errors: bool | None
    """Tell clients what failed behind the gateway; if not, only the log does, and hints are left out."""
    expose_docs: bool | None
    """Serve /docs, /redoc and /openapi.json."""
    expose_reflection: bool | None
    """Serve gRPC's reflection."""
    graphql_max_query_bytes: int | None
    """Largest text of a GraphQL query."""
    graphql_max_tokens: int | None
    """Words, numbers and signs of a GraphQL query."""
    graphql_max_depth: int | None
    """Levels of fields in a GraphQL query."""
    graphql_max_fields: int | None
    """Fields of a GraphQL query, those of fragments included."""
    graphql_max_root_fields: int | None
    """Requests that one GraphQL query may make."""
    graphql_max_values: int | None
    """Fields of all documents in a GraphQL answer."""
    graphql_max_operations: int | None
    """Operations of GraphQL that may be under way on one WebSocket connection."""
    graphql_init_timeout: float | None
    """Seconds within which a client of GraphQL over WebSocket has to begin."""
    grpc_max_concurrent_streams: int | None
    """Calls on one gRPC connection; 0 for no limit."""
    grpc_server: Literal["gatewayd", "grpcio"] | None
    """What serves gRPC: gatewayd's own server, or the library's, which costs more and bounds less."""
    grpc_server_options: Mapping[str, int | str] | str | None
    """gRPC channel arguments of the server."""
    admin_port: int | None
    """Port of the admin site: health, metrics, state and actions over HTTP; 0 for a free one."""
    admin_host: str | None
    """Address that the admin site listens on."""
    admin_keys: Mapping[str, str | Sequence[str]] | None
    """Digests of the keys that allow the admin site's actions, by the names of their owners."""
    expose_health: bool | None
    """Serve /livez, /readyz and /startupz on the ports of HTTP and WebSocket, to everybody."""
    drain_delay: float | None
    """Seconds for which a gateway that stops is reported as not ready before it stops listening."""
    drain_delay_s: float | None
    """The same as drain_delay."""
    metrics: bool | None
    """Send metrics to an OpenTelemetry collector (OTLP), those of executors' processes among them."""
    metrics_exporter_host: str | None
    """The collector's host, localhost if omitted; https://host for TLS."""
    metrics_exporter_port: int | None
    """Its port; 4317 for grpc and 4318 for http if omitted."""
    metrics_exporter_protocol: Literal["grpc", "http"] | None
    """How metrics are sent to it."""
    metrics_exporter_headers: Mapping[str, str | int | float] | str | None
    """Headers, or gRPC metadata, of what is sent to it."""
    metrics_interval: float | None
    """Seconds after which they are sent again."""
    metrics_interval_s: float | None
    """The same as metrics_interval."""
    auth: Mapping[str, Any] | None
    """Who may call: API keys, tokens, certificates, a hook, and rules."""
    pool: Mapping[str, Any] | None
    """Limits and rules for calls to executors."""
    uvicorn_kwargs: None
    """Settings of another HTTP server; use the gateway's own keys."""
    traces_sample: float | None
    """The share of requests that are traced, of those whose clients have not begun a trace."""
    traces_from_clients: bool | None
    """Take up the traces that clients have begun; if not, each request begins one of its own."""
    record: str | Mapping[str, Any] | None
    """A file in which requests and answers are recorded, for gatewayd replay."""
    log_level: Literal["debug", "info", "warn", "error", "critical", "warning", "success"] | None
    """Least level of what is logged; info, or JINA_LOG_LEVEL, if omitted (warn for a Flow in Python)."""
    log_levels: Mapping[str, str] | str | None
    """Levels that differ, by namespace: gatewayd.pool, or executor.NAME for what an executor writes."""
    log_format: Literal["text", "json"] | None
    """Lines of the log for people, or JSON."""
    log_config: str | Mapping[str, Any] | None
    """The reference's: default, json, quiet or a YAML file; its level and JsonFormatter are taken."""
    access_log: bool | Mapping[str, Any] | None
    """A line for each request: true for the log itself, or a map of path, sample and format."""
    graph_description: Any
    """Made from the executors of the Flow."""
    graph_conditions: Any
    """Made from the executors of the Flow."""
    deployments_addresses: Any
    """Made from the executors of the Flow."""
    deployments_metadata: Any
    """Made from the executors of the Flow."""
    deployments_no_reduce: Any
    """Made from the executors of the Flow."""
    proxy: bool | None
    """Proxy variables are never used for calls to executors."""


class RouteKeywords(TypedDict, total=False):
    """Of ``expose_endpoint``."""

    http_path: str | None
    methods: str | Sequence[str] | None
    tags: Sequence[str] | None
    summary: str | None
    description: str | None
    response_description: str | None
    status_code: int | None
    deprecated: bool | None
    name: str | None
    operation_id: str | None
    include_in_schema: bool | None
