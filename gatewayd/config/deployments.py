"""
Turns one item of the list of executors into a DeploymentConfig. ``graph`` decides its place in the Flow.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from typing import Any

import attrs

from gatewayd.config import addresses
from gatewayd.config.executors import executor_config
from gatewayd.config.files import FILE_ENDINGS, Folder
from gatewayd.config.flow_kinds import HOST, VERSION
from gatewayd.config.graph import START
from gatewayd.config.heads import head_executors
from gatewayd.config.keys import EXECUTOR, EXECUTOR_IN_PRODUCTION
from gatewayd.config.kinds import Refused
from gatewayd.config.model import LOCAL, DeploymentConfig, ExternalHead
from gatewayd.config.problems import Place, show, suggestion, type_name
from gatewayd.config.scaling import ScalingConfig
from gatewayd.config.sections import Layer, gather, model_arguments, read
from gatewayd.schemes import socket_path
from gatewayd.tls.credentials import UnusableTlsFile
from gatewayd.tls.files import load_credentials

# Fields of DeploymentConfig that are computed from several keys, here or in ``graph``. The others have the
# value of their own key (``model_arguments``).
_DERIVED = frozenset(
    {"name", "needs", "floating", "collected", "external", "addresses", "tls", "host", "ports"}
    | {"executor", "uses_before", "uses_after", "replicas"}
)
_TLS_FILES = ("tls_ca_certfile", "tls_certfile", "tls_keyfile")
_DEVICES = "CUDA_VISIBLE_DEVICES"
# What executors around shards have in common with them.
_TRACED = ("tracing", *(f"traces_exporter_{name}" for name in ("host", "port", "protocol", "headers")))
_WRAPPER_KEYS = ("jtype", "version", "with")


@attrs.frozen
class Draft:
    """An item after reading: all its values by key, its own layer without ``with``, and its folder."""

    place: Place
    values: Mapping[str, Any] = attrs.field(repr=False)
    own: Layer
    folder: Folder


def draft(item: Any, place: Place, inherited: Layer, folder: Folder) -> Draft | None:
    """
    Read an item: a map, a map with ``jtype: Deployment`` and ``with``, or the name of a file with such a map.

    Returns None if it cannot be read, which is reported, or describes the gateway.
    """
    if isinstance(item, str):
        if not item.endswith(FILE_ENDINGS):
            place.refuse(
                f"found {show(item)}; a map is wanted, such as {{uses: {item[:40]}}}, or the name of a "
                "Deployment's YAML file"
            )
            return None
        opened = folder.open(item, place)
        if opened is None:
            return None
        item, place, folder = opened.value, Place(opened.source), opened.folder
        if isinstance(item, Mapping) and "jtype" not in item:
            place.refuse("jtype is missing; accepted: jtype: Deployment")
            return None
    if not isinstance(item, Mapping):
        place.refuse(f"found {type_name(item)}; accepted: a map, or the name of a Deployment's YAML file")
        return None
    if "jtype" in item:
        if item["jtype"] != "Deployment":
            inside = place.inside("jtype")
            inside.refuse(f"found {show(item['jtype'])}; accepted: Deployment; an executor's class is uses")
            return None
        item, place = unwrapped(item, place)
    own = gather(EXECUTOR, item, place)
    if "name" in own and own["name"].value == START:
        place.warn("ignored: an executor cannot be called gateway; the gateway has a section of its own")
        return None
    return Draft(place, read({**inherited, **own}), own, folder)


def unwrapped(item: Mapping[str, Any], place: Place) -> tuple[Mapping[str, Any], Place]:
    """The settings of a map with ``jtype: Deployment``, and their place; problems are reported."""
    for key in item:
        if key not in _WRAPPER_KEYS:
            place.inside(key).refuse(
                f"unknown key beside jtype: Deployment; accepted: {', '.join(_WRAPPER_KEYS)}"
                f"{suggestion(key, _WRAPPER_KEYS)}"
            )
    if (version := item.get("version")) is not None:
        try:
            VERSION.read(version)
        except Refused as refused:
            place.inside("version").refuse(refused.message or VERSION.accepted)
    inner = item.get("with")
    if inner is None:
        inner = {}
    if not isinstance(inner, Mapping):
        place.inside("with").refuse_value(inner, "a map of the executor's keys")
        inner = {}
    return inner, place.inside("with")


def build(draft: Draft, flow: Mapping[str, Any], *, production: bool = False) -> DeploymentConfig:
    """
    The Deployment of a draft, which inherits workspace and env from ``flow``, the Flow's settings.

    ``production`` is the gateway's.
    """
    values = {**EXECUTOR_IN_PRODUCTION, **draft.values} if production else dict(draft.values)
    if "workspace" in values:
        values["workspace"] = os.path.abspath(values["workspace"])
    elif "workspace" in flow:
        values["workspace"] = flow["workspace"]
    values["env"] = {**flow.get("env", {}), **values.get("env", {})}
    _leave_devices_to_ray(draft, values)
    replicas = values.get("replicas", 1)
    scaling = replicas if isinstance(replicas, ScalingConfig) else None
    if scaling is not None:
        if values.get("external"):
            _refuse_scaling(draft)
            scaling = None
            of_draft = {name: each for name, each in draft.values.items() if name != "replicas"}
        else:
            of_draft = {**draft.values, "replicas": scaling.first}
        draft = attrs.evolve(draft, values=of_draft)
    folder = draft.folder.with_environ(values["env"])
    fields = model_arguments(EXECUTOR, values, DeploymentConfig, but=_DERIVED)
    fields.update(_tls_paths(values))
    fields["replicas"] = draft.values.get("replicas", 1)
    try:
        if scaling is not None:
            fields["scaling"] = _scaled(draft, scaling)
        where = _external(draft) if values.get("external") else _local(draft)
    except Refused as refused:
        draft.place.inside(*refused.inside).refuse(refused.message or "refused")
        where = {}
    built = DeploymentConfig(
        name="",
        executor=executor_config(values, draft.place, folder),
        **_heads(draft, values, folder),
        **{**fields, **where},
    )
    _check_tls(draft, built)
    return built


def _leave_devices_to_ray(draft: Draft, values: dict[str, Any]) -> None:
    """Ray gives each replica GPUs that no other has; a variable of the executor's would give it others."""
    if values.get("placement") == "ray" and not values.get("external") and _DEVICES in values["env"]:
        where = ("env", _DEVICES) if _DEVICES in draft.values.get("env", {}) else ("placement",)
        draft.place.inside(*where).warn(
            f"{_DEVICES} is ignored: Ray sets it for each replica; ask for GPUs with ray: {{num_gpus: 1}}"
        )
        del values["env"][_DEVICES]


def _refuse_scaling(draft: Draft) -> None:
    """An external executor is as many replicas as it has addresses, whatever the Flow says of the others."""
    if "replicas" in draft.own:
        draft.place.inside("replicas").refuse(
            "an external executor is not started here, so that its replicas cannot be scaled; leave this "
            "out: it has one replica for each address"
        )


def _scaled(draft: Draft, scaling: ScalingConfig) -> ScalingConfig:
    """Raises Refused where replicas cannot come and go."""
    values = draft.values
    at_a_socket = any(socket_path(host) is not None for host in values.get("host", ()))
    for name in ("port", "port_monitoring", *(("host",) if at_a_socket else ())):
        if name == "host" or any(values.get(name, ())):
            raise Refused(
                inside=(name,),
                message="each of the replicas that come and go finds a place of its own: leave this out, or "
                "give a number of replicas",
            )
    if scaling.least == 0 and values.get("shards", 1) > 1:
        raise Refused(
            inside=("replicas", "min"),
            message="found 0, but every shard has a part of the data: with shards, each has one replica at "
            "least; give min: 1 or more",
        )
    return scaling


def _tls_paths(values: Mapping[str, Any]) -> dict[str, str]:
    """The files of TLS as absolute paths: a daemon changes its folder."""
    return {name: os.path.abspath(values[name]) for name in _TLS_FILES if values.get(name)}


def _check_tls(draft: Draft, built: DeploymentConfig) -> None:
    """Refuse files that TLS cannot use, and settings without effect."""
    given = [name for name in (*_TLS_FILES, "tls_server_name") if getattr(built, name)]
    if not given:
        return
    if not any(each.tls for each in (built, *head_executors(built))):
        message = "has no effect without TLS: give tls: true, or an address that begins with grpcs://"
        draft.place.inside(given[0]).refuse(message)
    elif built.tls_keyfile and not built.tls_certfile:
        draft.place.inside("tls_keyfile").refuse("a key needs its certificate: give tls_certfile")
    else:
        try:
            load_credentials(built.tls_files)
        except UnusableTlsFile as error:
            draft.place.inside(*error.setting).refuse(error.reason)


def _heads(draft: Draft, values: Mapping[str, Any], folder: Folder) -> dict[str, Any]:
    """The executors before and after the shards, which share modules, workspace and environment."""
    names = ("py_modules", "workspace", "env", "env_inherit", *_TRACED)
    shared = {name: values[name] for name in names if name in values}
    heads: dict[str, Any] = {}
    for name in ("uses_before", "uses_after"):
        uses, hosts = values.get(name), values.get(f"{name}_address")
        for key in (name, f"{name}_address"):
            if key in values and (values.get("external") or values.get("shards", 1) < 2):
                draft.place.inside(key).warn("ignored: it stands around shards, and there are none")
                uses = hosts = None
        if uses is not None:
            if hosts is not None:
                draft.place.inside(f"{name}_address").warn(f"ignored: {name} is there, too, and wins")
            place = draft.place.inside(name)
            heads[name] = executor_config({**shared, "uses": uses}, place, folder)
        elif hosts is not None:
            head = _external_head(hosts, draft.place.inside(f"{name}_address"))
            if head is not None:
                heads[name] = head
    return heads


def _external_head(hosts: tuple[str, ...], place: Place) -> ExternalHead | None:
    try:
        at = addresses.resolve(hosts, ())
    except Refused as refused:
        # Here the port has no key of its own.
        place.refuse((refused.message or "refused").replace("give port: 8080 or host: h:8080", "give h:8080"))
        return None
    return ExternalHead(at.addresses, bool(at.tls))


def _external(draft: Draft) -> dict[str, Any]:
    values = draft.values
    for name in ("placement", "ray"):
        if name in draft.own:
            draft.place.inside(name).warn("ignored: an external executor is not started here")
    for name in ("uses", "uses_with", "py_modules", "uses_metas", "uses_requests", "uses_dynamic_batching"):
        if name in draft.own and values.get(name):
            draft.place.inside(name).warn("ignored: an external executor is not started here")
    needs = values.get("needs") or ()
    if values.get("no_reduce") and len(needs) > 1:
        raise Refused(
            inside=("no_reduce",), message="an external executor cannot join several needs with no_reduce"
        )
    resolved = addresses.resolve(values.get("host", ()), values.get("port", ()))
    if resolved.tls is False and values.get("tls"):
        raise Refused(inside=("tls",), message="tls: true, but the host's scheme is one without TLS")
    count = len(resolved.addresses)
    if values.get("replicas", count) != count and "replicas" in draft.own:
        raise Refused(
            inside=("replicas",),
            message=f"found {values['replicas']}, but host and port give {count} address(es), one a replica",
        )
    return {
        "external": True,
        "placement": LOCAL,
        "addresses": resolved.addresses,
        "tls": bool(resolved.tls or values.get("tls", False)),
        "replicas": count,
    }


def _local(draft: Draft) -> dict[str, Any]:
    values = draft.values
    if values.get("placement", LOCAL) != LOCAL:
        return _elsewhere(draft)
    if "ray" in draft.own:
        draft.place.inside("ray").warn("ignored: it is for placement: ray")
    if values.get("tls") and "tls" in draft.own:
        raise Refused(inside=("tls",), message="only an external executor can have this; set external: true")
    fields: dict[str, Any] = {}
    if hosts := values.get("host"):
        if len(set(hosts)) > 1:
            raise Refused(
                inside=("host",),
                message="an executor that is started here has one host; or set external: true",
            )
        try:
            fields["host"] = _listening(hosts[0], values)
        except Refused as refused:
            if refused.message:
                raise Refused(inside=("host",), message=refused.message) from None
            message = f"found {hosts[0][:80]!r}; accepted: {HOST.accepted} (those need external: true)"
            raise Refused(inside=("host",), message=message) from None
    ports: tuple[int, ...] = values.get("port", ())
    count = values.get("replicas", 1) * values.get("shards", 1)
    if len(ports) == 1 and values.get("shards", 1) > 1:
        # In the reference the head process listens on it; gatewayd has no such process.
        draft.place.inside("port").warn("ignored: with shards, every replica gets a free port")
        ports = ()
    monitored: tuple[int, ...] = values.get("port_monitoring", ())
    if any(monitored) and len(monitored) != count:
        raise Refused(
            inside=("port_monitoring",),
            message=f"found {len(monitored)} port(s) for {count} replica(s); give one for each, or none",
        )
    if any(ports):
        if len(ports) != count:
            raise Refused(
                inside=("port",),
                message=f"found {len(ports)} port(s) for {count} replica(s); give one for each, or none",
            )
        used = [port for port in ports if port]
        if len(set(used)) < len(used):
            raise Refused(inside=("port",), message="a port is given twice; each replica needs its own")
        fields["ports"] = ports
    elif "host" not in draft.own:
        # That of the Flow's with is for the gateway, in the first place.
        fields.pop("host", None)
    return fields


def _elsewhere(draft: Draft) -> dict[str, Any]:
    """Ray finds a node for each replica, which listens at a free port there."""
    values = draft.values
    for name in ("tls", "host", "port", "port_monitoring"):
        if values.get(name) and name in draft.own:
            raise Refused(
                inside=(name,),
                message=f"has no meaning with placement: {values['placement']}: each replica listens at a "
                "free port of its node, and its calls carry a secret; leave it out",
            )
    return {"host": None, "ports": (), "monitoring_ports": ()}


def _listening(host: str, values: Mapping[str, Any]) -> str:
    """Raises Refused, with a message unless it is about the form of a host."""
    if socket_path(host) is None:
        return HOST.read(host)  # type: ignore[no-any-return]
    addresses.check_socket(host)
    if values.get("port") or values.get("replicas", 1) * values.get("shards", 1) > 1:
        raise Refused(message="at a Unix socket of its own there is one replica, and no port")
    return host
