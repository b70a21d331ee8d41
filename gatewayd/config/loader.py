"""
Loads Flow files and mappings as FlowConfig, for the service, the command and Flows in Python alike.

A file is parsed into values with their places (``document``), variables are replaced (``substitution``), each
map is read by its section of the key table (``sections``), and the executors are connected (``graph``). Every
part reports its problems and continues, so that one ConfigError lists them all.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from gatewayd.config import deployments
from gatewayd.config.auth_loading import auth_of
from gatewayd.config.document import parse
from gatewayd.config.executors import gateway_class
from gatewayd.config.files import Folder, read_text
from gatewayd.config.graph import Entry, connect
from gatewayd.config.keys import FLOW, GATEWAY, IN_PRODUCTION, POOL, TOP
from gatewayd.config.log_config import LogConfigError, read_log_config
from gatewayd.config.model import DeploymentConfig, FlowConfig, GatewayConfig, Listener, PoolLimits
from gatewayd.config.problems import Diagnostics, KeyPath, Place, Source, type_name
from gatewayd.config.sections import Given, Layer, Spread, gather, model_arguments, read, read_value, spread
from gatewayd.config.shares import divided, indivisible
from gatewayd.config.substitution import Variables, substitute
from gatewayd.messages.generations import Generation
from gatewayd.messages.redacting import why_none
from gatewayd.tls.credentials import UnusableTlsFile
from gatewayd.tls.files import load_credentials

_OF_STORE: Final = ("rates_store_ca_certfile", "rates_store_certfile", "rates_store_keyfile")


@attrs.frozen
class FlowDocument:
    """
    A loaded Flow file: its meaning as ``config``, and its content as ``mapping``.

    In ``mapping`` variables are replaced by their values, so that ``flow_from_mapping`` makes the same
    ``config`` from it, here or in another process. What ``unset`` warns of, variables without a value, is not
    found again there.
    """

    config: FlowConfig
    mapping: dict[str, Any] = attrs.field(repr=False)
    unset: tuple[str, ...] = ()


@attrs.frozen
class Sources:
    """
    What a load takes from elsewhere than its file.

    ``context`` gives ``${{ CONTEXT.x }}``, ``environ`` (os.environ) ``${{ ENV.X }}``. Relative paths are
    looked for in the file's folder, then in ``folders``. ``with_`` overrides entries of the file's ``with``.
    Variables are replaced only inside ``parts`` of the content.
    """

    context: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    environ: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    folders: tuple[Path, ...] = ()
    with_: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    parts: Collection[KeyPath] = ((),)


def load_flow(
    source: str | Path, *, context: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> FlowConfig:
    """
    Read a Flow file. ``context`` gives ``${{ CONTEXT.x }}``, ``environ`` (os.environ) ``${{ ENV.X }}``.

    Raises ConfigError with every problem of the file, one a line.
    """
    return read_flow(source, Sources(context, environ)).config


def read_flow(source: str | Path, sources: Sources) -> FlowDocument:
    """As ``load_flow``, with the file's content."""
    diagnostics = Diagnostics()
    path = Path(source)
    text = read_text(path, Place(Source(str(source), diagnostics)))
    diagnostics.files.append(str(path.absolute()))
    diagnostics.raise_problems()
    return _read_text(text or "", Source(str(source), diagnostics), path.parent, sources)


def load_flow_text(
    text: str,
    *,
    base_dir: str | Path = ".",
    context: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    name: str = "<text>",
) -> FlowConfig:
    """As ``load_flow``, from YAML text; relative paths start at ``base_dir``."""
    sources = Sources(context, environ)
    return read_flow_text(text, sources, base_dir=base_dir, name=name).config


def read_flow_text(
    text: str, sources: Sources, *, base_dir: str | Path = ".", name: str = "<text>"
) -> FlowDocument:
    """As ``load_flow_text``, with the text's content."""
    return _read_text(text, Source(name, Diagnostics()), Path(base_dir), sources)


def flow_from_mapping(
    mapping: Mapping[str, Any],
    *,
    base_dir: str | Path = ".",
    context: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> FlowConfig:
    """
    A Flow from a mapping with the content of a Flow file. ``jtype`` may be omitted.

    Variables are replaced in the files that it names, not in ``mapping`` itself. A class stands for its
    ``module:Class``. Raises ConfigError.
    """
    return read_flow_mapping(mapping, Sources(context, environ, parts=()), base_dir=base_dir).config


def read_flow_mapping(
    mapping: Mapping[str, Any], sources: Sources, *, base_dir: str | Path = "."
) -> FlowDocument:
    """As ``flow_from_mapping``, with its content; variables are replaced as ``sources`` says."""
    source = Source("Flow", Diagnostics())
    try:
        plain = _plain(mapping)
    except RecursionError:
        Place(source).refuse("the mapping holds itself")
        plain = {}
    if isinstance(plain, dict):
        plain = {"jtype": "Flow", **plain}
    return _read(plain, source, Path(base_dir), sources)


def read_flow_value(value: Any, source: Source, base_dir: Path, sources: Sources) -> FlowDocument:
    """As ``load_flow``, from the content of ``source`` as ``document.parse`` gives it."""
    return _read(value, source, base_dir, sources)


def _variables(context: Mapping[str, Any] | None, environ: Mapping[str, str] | None) -> Variables:
    return Variables(os.environ if environ is None else environ, context or {})


def _plain(value: Any) -> Any:
    """Maps, lists and scalars as in a file. Other objects are kept: they are refused at their places."""
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case Path():
            return str(value)
        case type():
            return f"{value.__module__}:{value.__qualname__}"
    return value


def _read_text(text: str, source: Source, base_dir: Path, sources: Sources) -> FlowDocument:
    value = parse(text, source)
    if value is None:
        source.diagnostics.raise_problems()
    return _read(value, source, base_dir, sources)


def replaced(value: Any, source: Source, sources: Sources) -> Any:
    """``value``, the content of ``source``, overridden and with variables replaced as ``sources`` says."""
    if isinstance(value, dict) and sources.with_ and isinstance(own := value.get("with") or {}, dict):
        value = {**value, "with": {**own, **_plain(sources.with_)}}
    return substitute(value, source, _variables(sources.context, sources.environ), sources.parts)


def _read(value: Any, source: Source, base_dir: Path, sources: Sources) -> FlowDocument:
    variables = _variables(sources.context, sources.environ)
    value = replaced(value, source, sources)
    unset = warnings_of(source)
    config = _flow(value, Place(source), Folder(base_dir.absolute(), variables, sources.folders))
    restore_texts(value, source)
    return FlowDocument(config, value, unset)


def warnings_of(source: Source) -> tuple[str, ...]:
    """What has been warned of so far."""
    return tuple(source.diagnostics.ordered(source.diagnostics.warnings))


def restore_texts(value: Any, source: Source) -> None:
    """Put the texts of variables where texts were wanted, so that ``value`` is read alike again."""
    for path, literal in source.read_as_texts.items():
        *parents, last = path
        inside = value
        for step in parents:
            inside = inside[step]
        inside[last] = literal


def _flow(value: Any, place: Place, folder: Folder) -> FlowConfig:
    diagnostics = place.source.diagnostics
    if not isinstance(value, dict):
        empty = "nothing" if value is None else type_name(value)
        place.refuse(f"found {empty}; accepted: a map that begins with jtype: Flow")
        diagnostics.raise_problems()
    if value.get("jtype") is None:
        place.refuse("jtype is missing; accepted: jtype: Flow")
    top = gather(TOP, value, place, free_prefix="x-")
    maps = read({name: given for name, given in top.items() if name not in ("executors", "deployments")})

    shared = spread(maps.get("with", {}), place.inside("with"))
    flow = read(shared.flow)
    if "workspace" in flow:
        # As in the reference, relative to the current folder, not to the Flow file: it is data of this run.
        flow["workspace"] = os.path.abspath(flow["workspace"])
    gateway = _gateway(maps.get("gateway", {}), place.inside("gateway"), shared, flow.get("env", {}), folder)
    built = _deployments(top, shared, flow, gateway, folder.with_environ(flow.get("env", {})))
    diagnostics.raise_problems()
    computed: dict[str, Any] = {
        "gateway": gateway,
        "deployments": built,
        "base_dir": str(folder.path),
        "files": tuple(dict.fromkeys(diagnostics.files)),
        "warnings": warnings_of(place.source),
        "conflicts": tuple(diagnostics.ordered(diagnostics.conflicts)),
    }
    return FlowConfig(**model_arguments(FLOW, flow, FlowConfig, but=computed.keys()), **computed)


def _gateway(
    mapping: Mapping[str, Any], place: Place, shared: Spread, env: Mapping[str, str], folder: Folder
) -> GatewayConfig:
    layer: Layer = {**shared.gateway, **gather(GATEWAY, mapping, place)}
    listeners = _listeners(layer, place)
    pool = PoolLimits()
    if given := layer.pop("pool", None):
        limits = read_value(given)
        if limits is not ...:
            pool_layer = gather(POOL, limits, given.place)
            pool = PoolLimits(**_fields(pool_layer))
    asked = layer.pop("auth", None)
    auth = None if asked is None else auth_of(asked)
    named = read({key: layer.pop(key) for key in ("uses", "uses_with", "py_modules") if key in layer})
    log_config = layer.pop("log_config", None)
    fields = _fields(layer)
    if log_config is not None:
        fields = {**_logged(log_config, folder), **fields}
    if fields.get("production"):
        fields = {**IN_PRODUCTION, **fields}
    fields["env"] = {**env, **fields.get("env", {})}
    fields["custom"] = gateway_class(named, place, folder.with_environ(fields["env"]))
    _absolute_tls_files(fields)
    if record := fields.get("record"):
        fields["record"] = attrs.evolve(record, path=os.path.abspath(record.path))
        if fields.get("docarray") is Generation.FIRST:
            for rule in record.redact:
                if why := why_none(rule):
                    layer["record"].place.inside("redact").refuse(f"{rule}: {why} (docarray: 1)")
    if (access_log := fields.get("access_log")) is not None and access_log.path is not None:
        fields["access_log"] = attrs.evolve(access_log, path=os.path.abspath(access_log.path))
    if fields.get("rates_store") is not None:
        fields["shared_rates"] = fields.get("rates", ())
    if fields.get("rates"):
        fields["rates"] = divided(fields["rates"], fields.get("gateways", 1))
    gateway = GatewayConfig(listeners=listeners, pool=pool, auth=auth, **fields)
    _check_tls(gateway, layer)
    _check_store(gateway, layer)
    _check_workers(gateway, layer)
    if asked is not None and auth is not None and auth.certificate_identity and not gateway.ssl_client_ca:
        asked.place.inside("certificate_identity").refuse(
            "no client is asked for a certificate; give gateway.ssl_client_ca, or leave this out"
        )
    if "*" in gateway.cors and "allowed_origins" in layer:
        layer["cors"].place.warn("admits pages of all origins, so that allowed_origins refuses none of them")
    return gateway


def _logged(given: Given, folder: Folder) -> dict[str, Any]:
    """The fields that the reference's ``log_config`` gives."""
    value = read_value(given)
    if value is ...:
        return {}
    try:
        found = read_log_config(value, folder.path)
    except LogConfigError as error:
        given.place.refuse(str(error))
        return {}
    for text in found.ignored:
        given.place.warn(text)
    fields = {"log_level": found.level, "log_format": found.log_format}
    return {name: each for name, each in fields.items() if each is not None}


def _absolute_tls_files(fields: dict[str, Any]) -> None:
    """Make their paths absolute: a daemon changes its folder."""
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_client_ca", *_OF_STORE):
        if fields.get(name):
            fields[name] = os.path.abspath(fields[name])
    if pairs := fields.get("ssl_certificates"):
        fields["ssl_certificates"] = tuple(
            attrs.evolve(
                each,
                certfile=os.path.abspath(each.certfile),
                keyfile=os.path.abspath(each.keyfile),
            )
            for each in pairs
        )


def _check_tls(gateway: GatewayConfig, layer: Layer) -> None:
    """Refuse files that TLS cannot use, and settings without effect."""
    files = gateway.tls
    grpc = files is not None and files.grpc
    if files is None and gateway.ssl_client_ca:
        layer["ssl_client_ca"].place.refuse("clients show certificates over TLS only; give ssl_certfile, too")
    if files is None and gateway.hsts:
        layer["hsts"].place.refuse("is for answers over TLS only; give ssl_certfile, too")
    if "ssl_client_auth" in layer and not gateway.ssl_client_ca:
        layer["ssl_client_auth"].place.refuse("has no effect without ssl_client_ca")
    elif grpc and gateway.ssl_client_auth == "optional":
        layer["ssl_client_auth"].place.warn(
            "grpcio's server can demand a certificate or ask for none: over gRPC, clients are asked for none "
            "(grpc_server: gatewayd can)"
        )
    if grpc and any(each.names for each in gateway.ssl_certificates):
        layer["ssl_certificates"].place.warn(
            "grpcio's server chooses by the names in the certificates: over gRPC, names has no effect "
            "(grpc_server: gatewayd can)"
        )
    if files is None:
        return
    try:
        credentials = load_credentials(files)
    except UnusableTlsFile as error:
        key, *inside = error.setting
        layer[str(key)].place.inside(*inside).refuse(error.reason)
        return
    for pair in credentials.pairs:
        if pair.key_kind is not None:
            key, *inside = pair.files.keyfile_at
            layer[str(key)].place.inside(*inside).warn(
                f"gRPC's clients in Python and C++ know no keys of the kind {pair.key_kind}; "
                "RSA and the curves P-256 and P-384 are known to all"
            )


def _check_store(gateway: GatewayConfig, layer: Layer) -> None:
    """Refuse files for the store of the rates that TLS cannot use, or does not."""
    given = [name for name in _OF_STORE if getattr(gateway, name)]
    if not given:
        return
    if gateway.rates_store is None or not gateway.rates_store.tls:
        layer[given[0]].place.refuse(
            "has no effect without TLS: give a rates_store that begins with rediss://"
        )
    elif gateway.rates_store_keyfile and not gateway.rates_store_certfile:
        layer["rates_store_keyfile"].place.refuse("a key needs its certificate: give rates_store_certfile")
    else:
        try:
            load_credentials(gateway.rates_store_tls)
        except UnusableTlsFile as error:
            layer[str(error.setting[0])].place.refuse(error.reason)


def _check_workers(gateway: GatewayConfig, layer: Layer) -> None:
    """Refuse several workers where each could not have its share."""
    if gateway.workers == 1:
        return
    place = layer["workers"].place
    if gateway.grpc_server == "grpcio" and any("grpc" in each.protocols for each in gateway.listeners):
        place.refuse(
            f"found {gateway.workers}: grpcio's server cannot share its port with other processes; set "
            "gateway.grpc_server: gatewayd, or leave workers at 1"
        )
    for key, value in indivisible(gateway):
        place.refuse(
            f"found {gateway.workers}: gateway.{key} is {value}, which is less than 1 for each worker; raise "
            "it, or have fewer workers"
        )


def _fields(layer: Layer) -> dict[str, Any]:
    """The values of a layer, by the model's field names."""
    return {layer[name].key.field: value for name, value in read(layer).items()}


def _listeners(layer: Layer, place: Place) -> tuple[Listener, ...]:
    protocol, port = layer.pop("protocol", None), layer.pop("port", None)
    protocols = read_value(protocol) if protocol else (("grpc",),)
    ports = read_value(port) if port else ()
    if protocols is ... or ports is ...:
        return GatewayConfig().listeners
    protocols = protocols or (("grpc",),)
    ports = ports or (0,) * len(protocols)
    at = port.place if port else protocol.place if protocol else place
    if len(protocols) != len(ports):
        at.refuse(
            "You need to specify as much protocols as ports if you want to use a jina built-in gateway: "
            f"found {len(protocols)} protocol(s) ({', '.join('+'.join(each) for each in protocols)}) "
            f"and {len(ports)} port(s) ({', '.join(map(str, ports))})"
        )
        return GatewayConfig().listeners
    for number in sorted({each for each in ports if each and ports.count(each) > 1}):
        at.refuse(f"the port {number} is given twice; each needs its own (http+websocket can share one)")
    return tuple(Listener(each, number) for each, number in zip(protocols, ports, strict=True))


def _deployments(
    top: Layer, shared: Spread, flow: Mapping[str, Any], gateway: GatewayConfig, folder: Folder
) -> tuple[DeploymentConfig, ...]:
    items = top.get("executors") or top.get("deployments")
    if items is None:
        return ()
    if "executors" in top and "deployments" in top:
        top["deployments"].place.warn("ignored: executors is there too, and wins")
    if not isinstance(items.value, list):
        items.place.refuse_value(items.value, "a list of executors, such as [{name: a, uses: MyExecutor}]")
        return ()
    drafts = [
        draft
        for index, item in enumerate(items.value)
        if (draft := deployments.draft(item, items.place.inside(index), shared.executors, folder)) is not None
    ]
    methods = [draft.values.get("method", "add") for draft in drafts]
    inspect = flow.get("inspect", "COLLECT")
    # The answer waits for all inspect executors, wherever in the list that is asked for.
    collect = inspect == "COLLECT" or "gather_inspect" in methods
    left_out = ("gather_inspect", "inspect") if inspect == "REMOVE" else ("gather_inspect",)
    drafts = [draft for draft, method in zip(drafts, methods, strict=True) if method not in left_out]
    joined = connect(
        [
            Entry(
                draft.place,
                name=draft.values.get("name"),
                method=draft.values.get("method", "add"),
                needs=draft.values.get("needs"),
                floating=draft.values.get("floating", False),
            )
            for draft in drafts
        ],
        collect=collect,
    )
    built = tuple(
        attrs.evolve(deployments.build(draft, flow, production=gateway.production), **attrs.asdict(placed))
        for draft, placed in zip(drafts, joined, strict=True)
    )
    _check_ports(gateway, list(zip(drafts, built, strict=True)))
    _check_scaling(gateway, list(zip(drafts, built, strict=True)))
    _check_detached(flow, list(zip(drafts, built, strict=True)))
    return built


def _check_detached(
    flow: Mapping[str, Any], built: Sequence[tuple[deployments.Draft, DeploymentConfig]]
) -> None:
    """Refuse replicas that are to outlive a cluster that ends with the gateway."""
    cluster = flow.get("ray")
    if cluster is not None and cluster.address == "local":
        for draft, deployment in built:
            if deployment.ray is not None and deployment.ray.detached:
                draft.place.inside("ray", "detached").refuse(
                    "found true, and the Flow's ray is {address: local}: that cluster ends with the gateway, "
                    "and all that runs on it; give the address of one that stays, or leave detached out"
                )


def _check_scaling(
    gateway: GatewayConfig, built: Sequence[tuple[deployments.Draft, DeploymentConfig]]
) -> None:
    """Refuse to scale where the gateway cannot, or where no request could wait for the first replica."""
    for draft, deployment in built:
        scaling = deployment.scaling
        if scaling is not None and scaling.least == 0 and gateway.workers > 1:
            draft.place.inside("replicas", "min").refuse(
                f"found 0, and gateway.workers is {gateway.workers}: a request that waits for the first "
                "replica is known to one worker alone; leave workers out, or give min: 1"
            )
        if scaling is not None and scaling.least == 0:
            for key in ("max_queued", "queue_timeout"):
                if not getattr(gateway.pool, "queue_timeout_s" if key == "queue_timeout" else key):
                    draft.place.inside("replicas", "min").refuse(
                        f"found 0, and gateway.pool.{key} is 0: no request could wait for the first replica, "
                        f"which would never start; raise {key}, or give min: 1"
                    )


def _check_ports(gateway: GatewayConfig, built: Sequence[tuple[deployments.Draft, DeploymentConfig]]) -> None:
    """
    Report ports that two would listen on: two executors that are started here, or one and the gateway.

    As in the reference the file is valid, and only serving it fails.
    """
    taken = [(gateway.host, each.port, "the gateway") for each in gateway.listeners if each.port]
    if gateway.admin_port:
        taken.append((gateway.admin_host, gateway.admin_port, "the admin site"))
    if gateway.monitoring and gateway.port_monitoring:
        taken.append((gateway.host, gateway.port_monitoring, "the gateway's metrics"))
    for draft, deployment in built:
        executors_host = deployment.host or "127.0.0.1"
        of_metrics = deployment.monitoring_ports if deployment.monitoring else ()
        for key, ports in (("port", deployment.ports), ("port_monitoring", of_metrics)):
            for port in filter(None, ports):
                met = (who for host, at, who in taken if at == port and _meet(host, executors_host))
                if (other := next(met, None)) is not None:
                    text = f"the port {port} is that of {other}; each needs its own"
                    draft.place.inside(key).conflict(text)
            taken += [(executors_host, port, f"executor {deployment.name}") for port in ports if port]


def _meet(one: str, other: str) -> bool:
    """Whether listening on both hosts may take the same address."""
    return one == other or any(host in ("0.0.0.0", "::", "[::]", "") for host in (one, other))
