"""
Every key of a Flow file: the table behind loading, messages and the reference page.

A ``NOT_YET`` key is refused unless it is set to its default; once it is implemented, change that word. An
``IGNORED`` key has no meaning here: setting it is only a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import attrs

from gatewayd.config import auth_kinds as a
from gatewayd.config import client_kinds as c
from gatewayd.config import flow_kinds as f
from gatewayd.config import kinds as k
from gatewayd.config import log_kinds as g
from gatewayd.config.kinds import ValueKind
from gatewayd.config.openai import OPENAI
from gatewayd.config.rates import RATES
from gatewayd.config.rates_store import STORE
from gatewayd.config.ray import RAY_CLUSTER, RAY_OPTIONS
from gatewayd.config.recording import RECORD
from gatewayd.config.routes import EXPOSED
from gatewayd.config.scaling import REPLICAS

Status = Literal["supported", "not supported yet", "ignored"]
SUPPORTED: Final[Status] = "supported"
NOT_YET: Final[Status] = "not supported yet"
IGNORED: Final[Status] = "ignored"


@attrs.frozen
class Key:
    """
    One key as users write it.

    ``default`` is in the file's units, None for "not set". ``field`` is the model's attribute if it is named
    differently. ``spreads`` says whether it may also stand in the Flow's ``with``. The value of a ``secret``
    key is never quoted in messages. ``in_production`` is the default where the gateway has
    ``production: true``, None for the same.
    """

    name: str
    kind: ValueKind
    default: Any
    doc: str
    status: Status = attrs.field(default=SUPPORTED, kw_only=True)
    aliases: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    field: str = attrs.field(kw_only=True)
    spreads: bool = attrs.field(default=True, kw_only=True)
    secret: bool = attrs.field(default=False, kw_only=True)
    in_production: Any = attrs.field(default=None, kw_only=True)

    @field.default
    def _same_name(self) -> str:
        return self.name


@attrs.frozen
class Section:
    """The keys of one map; ``title`` is what messages call it."""

    title: str
    keys: tuple[Key, ...]
    _by_word: dict[str, Key] = attrs.field(init=False, eq=False, repr=False)

    @_by_word.default
    def _index(self) -> dict[str, Key]:
        return {word: key for key in self.keys for word in (key.name, *key.aliases)}

    def find(self, word: str) -> Key | None:
        """The key of this name or alias."""
        return self._by_word.get(word)

    def words(self) -> Iterator[str]:
        """Every name and alias."""
        return iter(self._by_word)


def _ignored(kind: ValueKind, doc: str, *names: str, default: Any = None) -> tuple[Key, ...]:
    return tuple(Key(name, kind, default, doc, status=IGNORED, spreads=True) for name in names)


def _not_yet(kind: ValueKind, doc: str, *names: str, default: Any = None) -> tuple[Key, ...]:
    return tuple(Key(name, kind, default, doc, status=NOT_YET, spreads=True) for name in names)


# The same for the gateway and for executors.
_OBSERVED: Final = (
    Key("tracing", k.BOOLEAN, False, "Send traces to an OpenTelemetry collector (OTLP)."),
    Key(
        "traces_exporter_host",
        f.COLLECTOR,
        None,
        "The collector's host, localhost if omitted; https://host for TLS.",
    ),
    Key("traces_exporter_port", f.PORT, None, "Its port; 4317 for grpc and 4318 for http if omitted."),
    Key("traces_exporter_protocol", k.choice("grpc", "http"), "grpc", "How spans are sent to it."),
    Key(
        "traces_exporter_headers",
        f.METADATA,
        None,
        "Headers, or gRPC metadata, of what is sent to it.",
        secret=True,
    ),
)
# The gateway sends the figures of the whole service, those of executors' processes among them.
_SENT_BY_GATEWAY: Final = (
    *_ignored(k.BOOLEAN, "The gateway sends its metrics.", "metrics", default=False),
    *_ignored(k.TEXT, "The gateway sends its metrics.", "metrics_exporter_host"),
    *_ignored(f.PORT, "The gateway sends its metrics.", "metrics_exporter_port"),
)
_CONTAINERS: Final = (
    *_ignored(k.ANYTHING, "Settings of containers, which gatewayd does not start.",
              "entrypoint", "docker_kwargs", "volumes", "gpus"),
    *_ignored(k.BOOLEAN, "Settings of containers, which gatewayd does not start.",
              "disable_auto_volume", default=False),
    *_not_yet(k.ANYTHING, "Environment variables from Kubernetes secrets.", "env_from_secret"),
)  # fmt: skip
_LOGGED: Final = (
    *_ignored(k.BOOLEAN, "The log is the gateway's: see log_level.", "quiet", "quiet_error", default=False),
)  # fmt: skip

FLOW: Final = Section("with", (
    Key("name", k.TEXT, None, "Name of the Flow.", spreads=False),
    Key("workspace", k.TEXT, None, "Base folder of executors that set none; relative to the current folder.",
        spreads=False),
    Key("env", f.VARIABLES, None, "Environment variables of the gateway and every executor.", spreads=False,
        secret=True),
    *_LOGGED,
    *_ignored(k.ANYTHING, "Executors manage one workspace each.", "workspace_id"),
    *_ignored(k.BOOLEAN, "Whether flow.post of Flow.load_config() in Python is asynchronous.", "asyncio",
              default=False),
    *_ignored(k.BOOLEAN, "Logging is twistd's.", "suppress_root_logging", default=False),
    Key("inspect", k.choice("COLLECT", "HANG", "REMOVE"), "COLLECT",
        "Whether answers wait for inspect executors, do not wait, or these are left out.", spreads=False),
    *_not_yet(k.TEXT, "A custom Flow class.", "uses", default="Flow"),
    Key("ray", RAY_CLUSTER, "auto", "The Ray cluster of executors with placement: ray.", spreads=False,
        secret=True),
    Key("reload", k.BOOLEAN, False,
        "Take up changes of the Flow file, and of the configurations and code of executors, as they happen.",
        spreads=False),
))  # fmt: skip

GATEWAY: Final = Section("gateway", (
    Key("protocol", f.PROTOCOLS, "grpc", "Protocols, one entry for each port; http+websocket share one.",
        aliases=("protocols",), field="listeners"),
    Key("port", f.PORTS, None, "Ports, one for each protocol in the same order; free ones if omitted.",
        aliases=("ports", "port_expose", "port_in"), field="listeners"),
    Key("host", f.HOST, "0.0.0.0", "Address to listen on; 0.0.0.0 and :: are all, of IPv4 and IPv6.",
        aliases=("host_in",)),
    Key("name", k.TEXT, "gateway", "Name in answers and logs.", spreads=False),
    Key("workers", k.integer(1, 256), 1,
        "Processes that serve; above 1, limits on all clients together are divided among them.",
        spreads=True),
    Key("docarray", f.DOCARRAY, "auto",
        "Which documents executors speak: 1 (docarray 0.21), 2 (0.30 and later), or what they tell."),
    Key("ssl_certfile", k.TEXT, None, "PEM certificate chain; with it all protocols accept TLS only."),
    Key("ssl_keyfile", k.TEXT, None, "PEM key of the certificate, not encrypted."),
    Key("ssl_certificates", f.CERTIFICATES, None,
        "Further certificates with their keys, for clients that ask for another name (SNI)."),
    Key("ssl_client_ca", k.TEXT, None, "PEM bundle of the authorities that sign clients' certificates."),
    Key("ssl_client_auth", k.choice("required", "optional"), "required",
        "Whether clients must show a certificate of these; with optional, grpcio's server asks for none."),
    Key("ssl_reload_interval", k.seconds(zero=True), 5.0,
        "Seconds after which changed files of TLS are looked for and taken up; 0 for never.",
        aliases=("ssl_reload_interval_s",), field="ssl_reload_interval_s"),
    Key("ssl_expiry_warning_days", k.integer(0), 14,
        "Days before its end from which a certificate is warned of, or a quarter of its time; 0 for never."),
    Key("hsts", f.HSTS, False, "Seconds for which browsers are to reach this host over TLS only; or false."),
    Key("compression", f.COMPRESSION, "none", "Compression of calls to executors."),
    Key("timeout_send", f.CALL_LIMIT, None, "Milliseconds that one call to an executor may take.",
        field="timeout_send_s"),
    Key("retries", f.RETRIES, -1, "Retries of a failed call; -1 for automatic."),
    Key("prefetch", k.integer(0), 1000, "Requests in flight on one stream; 0 for no limit."),
    Key("max_message_bytes", k.integer(1, (1 << 31) - 1), 100_000_000, "Largest body or message of a client.",
        spreads=True),
    Key("max_buffered_bytes", k.integer(1), 1 << 30,
        "Bytes of requests and unsent answers that are held, of all clients together; more are refused."),
    Key("max_unsent_bytes", k.integer(0), 1 << 25,
        "Bytes of answers that one stream may leave unread before it gets no more; 0 for no limit."),
    Key("write_timeout", k.seconds(zero=False), 60.0,
        "Seconds for which a client may read nothing of what is sent to it.",
        aliases=("write_timeout_s",), field="write_timeout_s"),
    Key("receive_timeout", k.seconds(zero=False), 30.0,
        "Seconds that a body or WebSocket message may take to arrive, besides what its size allows.",
        aliases=("receive_timeout_s",), field="receive_timeout_s"),
    Key("min_receive_rate", k.integer(0), 500,
        "So many bytes allow a body or message a second more; 0 for no limit but max_receive_time."),
    Key("max_receive_time", k.seconds(zero=True), 3600.0,
        "Seconds that it may take in any case; 0 for no limit.",
        aliases=("max_receive_time_s",), field="max_receive_time_s"),
    Key("max_parameter_values", k.integer(1), 250_000, "Limit on the values in a request's parameters."),
    Key("max_documents", k.integer(1), 100_000,
        "Documents of a request in JSON or GraphQL, chunks and matches included; more are refused."),
    Key("max_connections", k.integer(0), 0,
        "Connections of clients; 0 for what the descriptors allow, less a reserve."),
    Key("max_connections_per_address", k.integer(0), 0,
        "Those of one client's address, or network of 64 bits of IPv6; 0 for no limit."),
    Key("compress_above_bytes", k.integer(0), 4096,
        "Size from which answers are compressed for HTTP and WebSocket clients that accept it; 0 for never."),
    Key("forward_headers", f.HEADER_NAMES, None,
        "Headers and gRPC metadata of clients that executors get, and those of executors that clients get."),
    Key("forward_headers_max_bytes", k.integer(1, 64 * 1024), 4096,
        "Largest sum of these headers for one request; each counts for 32 bytes more than it has."),
    Key("http_idle_timeout", k.seconds(zero=False), 75.0, "Seconds that an HTTP connection may be silent.",
        aliases=("http_idle_timeout_s",), field="http_idle_timeout_s"),
    Key("http_head_timeout", k.seconds(zero=False), 30.0,
        "Seconds that the head of an HTTP request may take.",
        aliases=("http_head_timeout_s",), field="http_head_timeout_s"),
    Key("http_max_head_bytes", k.integer(1024, 1 << 24), 64 * 1024, "Largest head of an HTTP request."),
    Key("websocket_ping_interval", k.seconds(zero=True), 20.0,
        "Seconds of silence after which a WebSocket client is pinged; 0 for never.",
        aliases=("websocket_ping_interval_s",), field="websocket_ping_interval_s"),
    Key("websocket_ping_timeout", k.seconds(zero=True), 20.0,
        "Seconds that it may take to answer a ping; 0 for no limit.",
        aliases=("websocket_ping_timeout_s",), field="websocket_ping_timeout_s"),
    Key("websocket_close_timeout", k.seconds(zero=False), 30.0,
        "Seconds that a WebSocket client may take to answer a close frame.",
        aliases=("websocket_close_timeout_s",), field="websocket_close_timeout_s"),
    Key("websocket_max_frames_per_second", k.integer(0), 1000,
        "Control frames and tiny fragments that a WebSocket client may send in a second; 0 for no limit."),
    Key("grace_period", k.seconds(zero=True), 10.0, "Seconds that requests may take to finish on stop.",
        aliases=("grace_period_s",), field="grace_period_s"),
    Key("floating_grace_period", k.seconds(zero=True), 60.0,
        "Seconds that floating calls may take to finish on stop; no limit where a Flow in Python is closed.",
        aliases=("floating_grace_period_s",), field="floating_grace_period_s"),
    Key("title", k.TEXT, None, "Title of the HTTP documentation."),
    Key("description", k.TEXT, None, "Description in the HTTP documentation."),
    Key("cors", c.CORS, False, "Let pages of other origins call HTTP: true for all, or a list of them."),
    Key("allowed_origins", c.ORIGINS, None,
        "Origins whose pages may call executors, besides those of cors; pages of all others are refused."),
    Key("allowed_hosts", c.HOST_NAMES, None,
        "Names by which HTTP and WebSocket may be called, *.example.org for all below; others are refused."),
    Key("trusted_proxies", c.NETWORKS, None,
        "Addresses and networks of proxies that are believed in from where a request comes."),
    Key("proxy_header", k.choice("x-forwarded-for", "forwarded"), "x-forwarded-for",
        "The header in which they say it."),
    Key("rates", RATES, None, "How often callers may ask: rules, all of which must have room for a request."),
    Key("rates_store", STORE, None,
        "A Redis in which all gateways and workers with the same rules count their rates together.",
        secret=True),
    Key("rates_store_ca_certfile", k.TEXT, None,
        "PEM file of the authorities to trust for it (rediss://), in place of the system's."),
    Key("rates_store_certfile", k.TEXT, None, "PEM certificate chain that is shown to it (rediss://)."),
    Key("rates_store_keyfile", k.TEXT, None, "PEM key of that certificate; the same file if omitted."),
    Key("rates_store_timeout", k.seconds(zero=False), 0.02, "Seconds that its answer may take.",
        aliases=("rates_store_timeout_s",), field="rates_store_timeout_s"),
    Key("rates_without_store", k.choice("divide", "refuse"), "divide",
        "While it cannot be used: each counts its share for itself, or what has a rate is refused."),
    Key("gateways", k.integer(1, 10_000), 1,
        "How many gateways stand side by side behind one address: rates are divided among them."),
    Key("production", k.BOOLEAN, False,
        "Serve strangers: keys that are not set and say *in production* have that default."),
    Key("no_debug_endpoints", k.BOOLEAN, False, "Remove /post, /status and /dry_run from HTTP."),
    Key("no_crud_endpoints", k.BOOLEAN, False, "Remove /index, /search, /update and /delete from HTTP."),
    Key("expose_endpoints", EXPOSED, None, "HTTP routes of executors' endpoints, or all."),
    Key("expose_graphql_endpoint", k.BOOLEAN, False, "Serve /graphql on HTTP."),
    Key("openai", OPENAI, None,
        "The endpoints that /v1/chat/completions and /v1/embeddings lead to, for clients of OpenAI's API."),
    Key("expose_graphiql", k.BOOLEAN, True, "With GraphQL, serve a page for writing queries.",
        in_production=False),
    Key("expose_status", k.BOOLEAN, True, "Serve /status, and _status of gRPC: versions and environment.",
        in_production=False),
    Key("expose_dry_run", k.BOOLEAN, True, "Serve the dry run, which calls every executor, on all protocols.",
        in_production=False),
    Key("expose_errors", k.BOOLEAN, True,
        "Tell clients what failed behind the gateway; if not, only the log does, and hints are left out.",
        in_production=False),
    Key("expose_docs", k.BOOLEAN, True, "Serve /docs, /redoc and /openapi.json.", in_production=False),
    Key("expose_reflection", k.BOOLEAN, True, "Serve gRPC's reflection.", in_production=False),
    Key("graphql_max_query_bytes", k.integer(1), 256 * 1024, "Largest text of a GraphQL query."),
    Key("graphql_max_tokens", k.integer(1), 5000, "Words, numbers and signs of a GraphQL query."),
    Key("graphql_max_depth", k.integer(1), 32, "Levels of fields in a GraphQL query."),
    Key("graphql_max_fields", k.integer(1), 1000, "Fields of a GraphQL query, those of fragments included."),
    Key("graphql_max_root_fields", k.integer(1), 50, "Requests that one GraphQL query may make."),
    Key("graphql_max_values", k.integer(1), 250_000, "Fields of all documents in a GraphQL answer."),
    Key("graphql_max_operations", k.integer(1), 32,
        "Operations of GraphQL that may be under way on one WebSocket connection."),
    Key("graphql_init_timeout", k.seconds(zero=False), 3.0,
        "Seconds within which a client of GraphQL over WebSocket has to begin.",
        field="graphql_init_timeout_s"),
    Key("grpc_max_concurrent_streams", k.integer(0), 2000,
        "Calls on one gRPC connection; 0 for no limit."),
    Key("grpc_server", k.choice("gatewayd", "grpcio"), "gatewayd",
        "What serves gRPC: gatewayd's own server, or the library's, which costs more and bounds less."),
    Key("grpc_server_options", f.OPTIONS, None, "gRPC channel arguments of the server."),
    Key("admin_port", f.PORT, None,
        "Port of the admin site: health, metrics, state and actions over HTTP; 0 for a free one."),
    Key("admin_host", f.HOST, "127.0.0.1", "Address that the admin site listens on."),
    Key("admin_keys", a.API_KEYS, None,
        "Digests of the keys that allow the admin site's actions, by the names of their owners.",
        secret=True),
    Key("expose_health", k.BOOLEAN, False,
        "Serve /livez, /readyz and /startupz on the ports of HTTP and WebSocket, to everybody."),
    Key("drain_delay", k.seconds(zero=True), 0.0,
        "Seconds for which a gateway that stops is reported as not ready before it stops listening.",
        aliases=("drain_delay_s",), field="drain_delay_s"),
    Key("monitoring", k.BOOLEAN, False,
        "Serve metrics for Prometheus on a port of their own, with the names of Jina's dashboards, too."),
    Key("port_monitoring", f.PORT, 0, "That port; 0 for a free one."),
    Key("metrics", k.BOOLEAN, False,
        "Send metrics to an OpenTelemetry collector (OTLP), those of executors' processes among them."),
    Key("metrics_exporter_host", f.COLLECTOR, None,
        "The collector's host, localhost if omitted; https://host for TLS."),
    Key("metrics_exporter_port", f.PORT, None, "Its port; 4317 for grpc and 4318 for http if omitted."),
    Key("metrics_exporter_protocol", k.choice("grpc", "http"), "grpc", "How metrics are sent to it."),
    Key("metrics_exporter_headers", f.METADATA, None, "Headers, or gRPC metadata, of what is sent to it.",
        secret=True),
    Key("metrics_interval", k.seconds(zero=False), 15.0, "Seconds after which they are sent again.",
        aliases=("metrics_interval_s",), field="metrics_interval_s"),
    Key("env", f.VARIABLES, None, "Environment variables of the gateway.", spreads=False, secret=True),
    Key("auth", k.MAP, None, "Who may call: API keys, tokens, certificates, a hook, and rules.", secret=True),
    Key("pool", k.MAP, None, "Limits and rules for calls to executors."),
    Key("uses", f.GATEWAY_USES, None, "A gateway class of your own, whose routes are served, too.",
        spreads=False),
    Key("uses_with", k.MAP, None, "Arguments of that gateway class.", spreads=False, secret=True),
    Key("py_modules", k.TEXTS, None, "Python files imported first."),
    Key("uvicorn_kwargs", k.MAP, None, "Settings of another HTTP server; use the gateway's own keys.",
        status=NOT_YET),
    Key("reload", k.BOOLEAN, False,
        "Take up changes of the Flow file, and of the configurations of executors, as they happen.",
        spreads=False),
    *_OBSERVED,
    Key("traces_sample", k.share(), 1.0,
        "The share of requests that are traced, of those whose clients have not begun a trace."),
    Key("traces_from_clients", k.BOOLEAN, True,
        "Take up the traces that clients have begun; if not, each request begins one of its own.",
        in_production=False),
    Key("record", RECORD, None, "A file in which requests and answers are recorded, for gatewayd replay."),
    Key("log_level", g.LEVEL, None,
        "Least level of what is logged; info, or JINA_LOG_LEVEL, if omitted (warn for a Flow in Python)."),
    Key("log_levels", g.LEVELS, None,
        "Levels that differ, by namespace: gatewayd.pool, or executor.NAME for what an executor writes."),
    Key("log_format", k.choice("text", "json"), "text", "Lines of the log for people, or JSON."),
    Key("log_config", g.CONFIG, None,
        "The reference's: default, json, quiet or a YAML file; its level and JsonFormatter are taken."),
    Key("access_log", g.ACCESS_LOG, False,
        "A line for each request: true for the log itself, or a map of path, sample and format."),
    *_LOGGED,
    *_CONTAINERS,
    *_ignored(k.ANYTHING, "Made from the executors of the Flow.", "graph_description", "graph_conditions",
              "deployments_addresses", "deployments_metadata", "deployments_no_reduce"),
    *_ignored(k.ANYTHING, "The gateway keeps no files.", "workspace"),
    *_ignored(k.ANYTHING, "The gateway runs in the service itself.", "runtime_cls", "timeout_ctrl",
              "timeout_ready"),
    *_ignored(k.BOOLEAN, "Proxy variables are never used for calls to executors.", "proxy", default=False),
    *_ignored(k.BOOLEAN, "A gateway cannot float.", "floating", default=False),
))  # fmt: skip

IN_PRODUCTION: Final = {key.field: key.in_production for key in GATEWAY.keys if key.in_production is not None}

POOL: Final = Section("gateway.pool", (
    Key("max_in_flight_per_replica", k.integer(1), 1000, "Limit on calls to one replica at once."),
    Key("max_in_flight", k.integer(1), 4000, "Limit on calls to all executors at once."),
    Key("max_queued", k.integer(0), 4000, "Limit on an executor's waiting calls; more are refused."),
    Key("queue_timeout", k.seconds(zero=True), 5.0, "Seconds that a call may wait for a slot.",
        aliases=("queue_timeout_s",), field="queue_timeout_s"),
    Key("balancing", k.choice("least_in_flight", "round_robin"), "least_in_flight",
        "How the replica for a call is chosen."),
    Key("connect_timeout", k.seconds(zero=False), 0.8, "Seconds that a connection may take to open.",
        aliases=("connect_timeout_s",), field="connect_timeout_s"),
    Key("max_connecting", k.integer(1), 64,
        "Limit on connections to executors that are being opened at once, and on probes under way."),
    Key("max_pings", k.integer(0), 2,
        "Pings to an external executor that sends nothing meanwhile; 0 for no limit."),
    Key("eject_after_failures", k.integer(1), 5, "Failures in a row after which a replica is ejected."),
    Key("eject_time", k.seconds(zero=False), 5.0, "Seconds for which it is ejected.",
        aliases=("eject_s",), field="eject_s"),
    Key("retry_budget", k.share(), 0.2, "Limit on retries, as a share of recent calls."),
    Key("dns_refresh", k.seconds(zero=False), 30.0, "Seconds after which host names are resolved again.",
        aliases=("dns_refresh_s",), field="dns_refresh_s"),
    Key("subset", k.integer(0), 0,
        "How many of an external executor's replicas this gateway calls; 0 for all."),
    Key("max_executor_message_bytes", k.integer(1, (1 << 31) - 1), 1 << 30,
        "Largest message from an executor."),
    Key("stream_window", k.integer(1, 1000), 8,
        "Documents under way behind each executor that streams, for each request."),
))  # fmt: skip

AUTH: Final = Section("gateway.auth", (
    Key("api_keys", a.API_KEYS, None, "Digests of API keys by the names of their callers.", secret=True),
    Key("api_keys_file", k.TEXT, None, "A file with more of them, one name:sha256:hex a line; read again "
        "when it changes."),
    Key("api_key_header", a.HEADER_NAME, "x-api-key", "Header, and gRPC metadata, with the key."),
    Key("jwt", k.MAP, None, "How tokens (JWT) are verified."),
    Key("hook", k.MAP, None, "A server that is asked about each caller."),
    Key("certificate_identity", k.choice("subject", "san"), None,
        "What of a verified certificate names its caller: the common name, or an alternative name."),
    Key("rules", a.RULES, None, "Who may call which endpoints; the first rule that names one decides. "
        "Without rules, every caller with an identity may call all."),
    Key("forward_identity", a.HEADER_NAME, None, "Header in which executors get the caller's name."),
))  # fmt: skip

AUTH_JWT: Final = Section("gateway.auth.jwt", (
    Key("key_file", k.TEXT, None, "PEM public key, or secret of HS algorithms; read again when it changes."),
    Key("jwks_file", k.TEXT, None, "Public keys as a JSON Web Key Set; read again when it changes."),
    Key("algorithms", a.ALGORITHMS, None, "Those that tokens may be signed with."),
    Key("audience", k.TEXTS, None, "Whom tokens have to be for, one of these; others are refused."),
    Key("issuer", k.TEXT, None, "Who has to have issued them."),
    Key("identity_claim", k.TEXT, "sub", "The claim that names the caller."),
    Key("leeway", k.seconds(zero=True), 0.0, "Seconds by which clocks may differ.", aliases=("leeway_s",),
        field="leeway_s"),
))  # fmt: skip

AUTH_HOOK: Final = Section("gateway.auth.hook", (
    Key("url", a.URL, None, "Asked with GET; 2xx allows, 401 and 403 refuse, all else is a failure."),
    Key("timeout", k.seconds(zero=False), 2.0, "Seconds that an answer may take; then the caller is refused.",
        aliases=("timeout_s",), field="timeout_s"),
    Key("cache", k.seconds(zero=True), 0.0, "Seconds for which an answer is kept; 0 for never.",
        aliases=("cache_s",), field="cache_s"),
    Key("headers", f.HEADER_NAMES, "authorization", "Headers of the client that are passed on."),
    Key("identity_header", a.HEADER_NAME, "x-identity", "Header of the answer that names the caller."),
))  # fmt: skip

EXECUTOR: Final = Section("executor", (
    Key("name", k.TEXT, None, "A Python identifier; executor0, executor1 ... if omitted.", spreads=False),
    Key("method", k.choice("add", "needs", "needs_all", "inspect", "gather_inspect"), "add",
        "How it joins the Flow.",
        spreads=False),
    Key("needs", k.TEXTS, None, "Executors it waits for, or gateway; the one before it if omitted.",
        spreads=False),
    Key("floating", k.BOOLEAN, False, "The Flow's answer does not wait for it.", spreads=False),
    Key("when", f.CONDITION, None, "It gets only documents that match."),
    Key("no_reduce", k.BOOLEAN, False, "Do not merge the documents of several needs.",
        aliases=("disable_reduce",)),
    Key("uses", f.USES, "BaseExecutor", "Its class, its config.yml, or that file's content.",
        spreads=False),
    Key("uses_with", k.MAP, None, "Arguments of the class.", spreads=False, secret=True),
    Key("uses_metas", k.MAP, None, "Overrides of its metas."),
    Key("uses_requests", f.METHODS, None, "Endpoints and the methods that serve them."),
    Key("uses_dynamic_batching", f.BATCHING, None, "Endpoints whose requests are served in batches."),
    Key("py_modules", k.TEXTS, None, "Python files imported first."),
    Key("workspace", k.TEXT, None, "Base folder of its files; relative to the current folder."),
    Key("env", f.VARIABLES, None, "Environment variables of its processes.", secret=True),
    Key("env_inherit", f.VARIABLE_NAMES, "*",
        "What its processes inherit of gatewayd's environment besides the usual: names, or patterns.",
        in_production=()),
    Key("output_array_type", k.choice("numpy", "list"), None, "Convert arrays in answers."),
    Key("exit_on_exceptions", k.TEXTS, None, "Exception classes that stop the executor."),
    Key("replicas", REPLICAS, 1,
        "Copies, each a process with a socket or port of its own; a map for as many as the load needs."),
    Key("placement", k.choice("local", "ray"), "local",
        "What runs its replicas: processes of this machine, or actors of a Ray cluster."),
    Key("ray", RAY_OPTIONS, None, "What Ray is asked for each replica: resources, nodes, its environment.",
        spreads=False, secret=True),
    Key("shards", k.integer(1, 1024), 1, "Parts of the data, each with all replicas."),
    Key("polling", f.POLLING, None, "Whether a request goes to any shard or to all."),
    Key("host", f.HOSTS, "127.0.0.1", "Address of its ports; for an external executor, its address.",
        aliases=("host_in",)),
    Key("port", f.PORTS, None, "One for each replica; private sockets if omitted.",
        aliases=("ports", "port_in"), field="ports", spreads=False),
    Key("external", k.BOOLEAN, False, "It runs elsewhere, and is called but not started."),
    Key("tls", k.BOOLEAN, False, "Call an external executor over TLS."),
    Key("tls_ca_certfile", k.TEXT, None,
        "PEM file of the authorities to trust for it, in place of the system's.", spreads=False),
    Key("tls_certfile", k.TEXT, None, "PEM certificate chain that the gateway shows to it.", spreads=False),
    Key("tls_keyfile", k.TEXT, None, "PEM key of that certificate; the same file if omitted.", spreads=False),
    Key("tls_server_name", k.TEXT, None, "Name that its certificate must have; its host if omitted.",
        spreads=False),
    Key("grpc_metadata", f.METADATA, None, "gRPC metadata of the calls to it.", secret=True),
    Key("timeout_send", f.CALL_LIMIT, None, "Milliseconds that a call may take; the gateway's if omitted.",
        field="timeout_send_s", spreads=False),
    Key("retries", f.RETRIES, None, "Retries of a failed call; the gateway's if omitted.", spreads=False),
    Key("compression", f.COMPRESSION, None, "Compression of calls to it; the gateway's if omitted.",
        spreads=False),
    Key("monitoring", k.BOOLEAN, False,
        "Measure it, and serve its metrics for Prometheus, those of @monitor among them."),
    Key("port_monitoring", f.PORTS, None,
        "Ports of these metrics, one for each replica; free ones if omitted.",
        field="monitoring_ports", spreads=False),
    Key("idempotent", f.IDEMPOTENT, None, "Whether a request may be sent again after its connection broke."),
    Key("timeout_ready", f.READY_LIMIT, 600_000, "Milliseconds that it may take to start.",
        field="timeout_ready_s"),
    Key("uses_before", f.USES, None, "Executor before the shards.", spreads=False),
    Key("uses_after", f.USES, None, "Executor after the shards.", spreads=False),
    Key("uses_before_address", f.HOSTS, None, "Address of one that runs elsewhere, in place of uses_before.",
        field="uses_before", spreads=False),
    Key("uses_after_address", f.HOSTS, None, "Address of one that runs elsewhere, in place of uses_after.",
        field="uses_after", spreads=False),
    *_not_yet(k.BOOLEAN, "Install the packages it requires.", "install_requirements", default=False),
    *_not_yet(f.OPTIONS, "gRPC channel arguments of its server.", "grpc_server_options"),
    Key("reload", k.BOOLEAN, False, "Take up changes of its configuration and code as they happen.",
        spreads=False),
    *_OBSERVED,
    *_SENT_BY_GATEWAY,
    *_ignored(k.ANYTHING, "Executors write to the gateway's log: see log_levels there.", "log_config"),
    *_LOGGED,
    *_CONTAINERS,
    *_ignored(k.ANYTHING, "Processes are started in one way only.", "runtime_cls", "timeout_ctrl",
              "connection_list"),
    *_ignored(k.BOOLEAN, "Executors always run as they are.", "native", "force_update", default=False),
    *_ignored(k.ANYTHING, "Settings of containers, which gatewayd does not start.", "prefer_platform"),
))  # fmt: skip

EXECUTOR_IN_PRODUCTION: Final = {
    key.name: key.in_production for key in EXECUTOR.keys if key.in_production is not None
}

# What only an executor among others has.
_AMONG_OTHERS: Final = ("method", "needs", "floating")


def _of_deployment() -> Iterator[Key]:
    """
    The keys of one executor with a gateway of its own: the executor's, and those that only a gateway has.

    Its host and port are the gateway's, at which clients find it.
    """
    found = []
    for key in EXECUTOR.keys:
        other = GATEWAY.find(key.name)
        better = other is not None and other.status == SUPPORTED and key.status != SUPPORTED
        if key.name not in (*_AMONG_OTHERS, "host", "port") and not better:
            found.append(key.name)
            yield key
    yield from (key for key in GATEWAY.keys if key.name not in (*found, *_AMONG_OTHERS))


DEPLOYMENT: Final = Section("Deployment", tuple(_of_deployment()))

CONFIG_FILE: Final = Section("executor configuration", (
    Key("jtype", k.TEXT, "BaseExecutor", "The executor's class.", spreads=False),
    Key("version", f.VERSION, "1", "Version of the format.", spreads=False),
    Key("with", k.MAP, None, "Arguments of the class.", spreads=False, secret=True),
    Key("metas", k.MAP, None, "Name, description, workspace, py_modules.", spreads=False),
    Key("py_modules", k.TEXTS, None, "Python files imported first; relative to this file.", spreads=False),
    Key("requests", f.METHODS, None, "Endpoints and the methods that serve them.", spreads=False),
    Key("dynamic_batching", f.BATCHING, None, "Endpoints served in batches.", spreads=False),
))  # fmt: skip

TOP: Final = Section("Flow file", (
    Key("jtype", k.choice("Flow"), None, "Flow.", spreads=False),
    Key("version", f.VERSION, "1", "Version of the format.", spreads=False),
    Key("with", k.MAP, None, "Settings of the Flow, its gateway and all executors.", spreads=False),
    Key("gateway", k.MAP, None, "Settings of the gateway, which override those in with.", spreads=False),
    Key("executors", k.ANYTHING, None, "The list of executors.", spreads=False),
    Key("deployments", k.ANYTHING, None, "Another name for executors, which wins if both are present.",
        spreads=False),
))  # fmt: skip

SECTIONS: Final = (TOP, FLOW, GATEWAY, POOL, AUTH, AUTH_JWT, AUTH_HOOK, EXECUTOR, CONFIG_FILE)
