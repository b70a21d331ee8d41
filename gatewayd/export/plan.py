"""
Which containers a Flow becomes, and what each of them is to serve (pure).

Each executor is a container with a Flow file that has this one executor, and the gateway one whose Flow file
names all executors as external. Images hold the project, the Flow file's folder or another one above it, at
``PROJECT``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import attrs
import yaml

from gatewayd.config.keys import EXECUTOR, FLOW, GATEWAY, SUPPORTED
from gatewayd.config.model import (
    DeploymentConfig,
    ExecutorConfig,
    FlowConfig,
    GatewayClass,
    GatewayConfig,
    Listener,
)
from gatewayd.config.scaling import ScalingConfig
from gatewayd.errors import ConfigError
from gatewayd.schemes import socket_path

PROJECT: Final = "/app"
SETTINGS: Final = "/etc/gatewayd"
TLS: Final = "/etc/gatewayd-tls"
WORKSPACE: Final = "/workspace"
# Of an executor's container; each has an address of its own.
EXECUTOR_PORT: Final = 8080
METRICS_PORT: Final = 9090
# How long balancers and other gateways get to see that one is about to stop, where the Flow does not say it.
DRAIN_DELAY_S: Final = 5.0
# Between the end of the grace and being killed.
_MARGIN_S: Final = 5.0
_FIRST_PORT: Final = 8080
# So many requests under way at each gateway are one more gateway.
_GATEWAY_REQUESTS: Final = 100
# RFC 1035's labels, which Services of Kubernetes are named by, with room for what is added to them.
_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")
_VARIABLE: Final = re.compile(r"\$\{\{\s*ENV\.(\w+)\s*\}\}")
_IMAGE: Final = "docker://"
_ANY_STORE: Final = "rediss://store.invalid"
_OWN_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
_DEVICES: Final = "CUDA_VISIBLE_DEVICES"
_IN_TURNS: Final = "RR"
# Keys of a gateway that name whom it calls.
_OF_OTHERS: Final = re.compile(r"url|uri|hook|redis|_host$|^tracing$")


class ExportError(ConfigError):
    """What in a Flow cannot be exported: one problem a line, by file and key."""


@attrs.frozen
class ExportOptions:
    """
    What a Flow file does not say.

    ``image`` is that of the gateway, and of executors whose ``uses`` names none. ``project`` is the folder
    that images hold at ``PROJECT``, the Flow file's if None. ``secrets`` are the variables of
    ``${{ ENV.X }}`` that containers get from the engine's secrets; ``secret_name`` is where
    Kubernetes has them, and ``tls_secret`` the certificate of the gateway. With ``max_gateways``
    gateways are scaled up to so many.
    """

    image: str
    project: Path | None = None
    secrets: tuple[str, ...] = ()
    secret_name: str = "gatewayd"
    tls_secret: str | None = None
    namespace: str | None = None
    network: str = "gatewayd"
    include_gateway: bool = True
    gateway_replicas: int = 1
    max_gateways: int | None = None
    service_monitor: bool = False
    cpu: str = "250m"
    memory: str = "512Mi"


@attrs.frozen
class Resources:
    """What one container of a kind needs of its machine; None for what all containers request."""

    cpus: float | None = None
    memory_bytes: int | None = None
    gpus: int = 0


@attrs.frozen
class Container:
    """
    One kind of container: ``replicas`` of it are alike, with ``scaling`` more or fewer with the load.

    ``label`` is its name for the engine, ``settings`` its Flow file. ``secrets`` are the variables that it
    reads there; with ``private``, the file itself may hold what others are not to see. It may take
    ``ready_s`` to start. When it is stopped it serves on for ``delay_s``, and is killed after ``stop_s``.
    ``metrics`` is the port of its metrics, None for none. ``resources`` are what it needs of its machine.
    """

    name: str
    label: str
    image: str
    settings: Mapping[str, Any] = attrs.field(repr=False)
    replicas: int = 1
    secrets: tuple[str, ...] = ()
    private: bool = False
    ready_s: float = 600.0
    delay_s: float = DRAIN_DELAY_S
    stop_s: float = 30.0
    metrics: int | None = None
    has_workspace: bool = False
    scaling: ScalingConfig | None = None
    resources: Resources = Resources()

    @property
    def flow_file(self) -> str:
        """``settings`` as YAML."""
        return yaml.safe_dump(dict(self.settings), sort_keys=False, allow_unicode=True)


@attrs.frozen
class Plan:
    """
    The containers of a Flow. ``listeners`` are the gateway's, with fixed ports.

    ``calls_others`` is whether the gateway may call more than the executors of this plan: it has a class of
    the user's, external executors, or settings that name another host. ``store_port`` is that of the store
    of the rates, None without.
    """

    name: str
    gateway: Container
    listeners: tuple[Listener, ...]
    tls: bool
    executors: tuple[Container, ...]
    warnings: tuple[str, ...]
    calls_others: bool = False
    store_port: int | None = None


def with_images(mapping: Any) -> tuple[Any, dict[str, str]]:
    """
    A Flow file's content without ``uses: docker://image``, and these images by the executor's name.

    Such an image has its config.yml in ``PROJECT``.
    """
    images: dict[str, str] = {}
    if not isinstance(mapping, Mapping):
        return mapping, images
    listed = "executors" if mapping.get("executors") else "deployments"
    items = mapping.get(listed)
    if not isinstance(items, list):
        return mapping, images
    changed = []
    for index, item in enumerate(items):
        uses = item.get("uses") if isinstance(item, Mapping) else None
        if isinstance(uses, str) and uses.startswith(_IMAGE):
            images[item.get("name") or f"executor{index}"] = uses.removeprefix(_IMAGE)
            item = {key: value for key, value in item.items() if key != "uses"}
        changed.append(item)
    return {**mapping, listed: changed}, images


def with_store(content: Any, secrets: Sequence[str]) -> tuple[Any, dict[str, str]]:
    """
    A Flow file's content in which no whole address of the store of the rates is a secret variable.

    Such an address is not known here, and no address either: another one stands in its place, and the
    variables are returned by their section.
    """
    variables: dict[str, str] = {}
    if not isinstance(content, Mapping):
        return content, variables
    changed = dict(content)
    for section in ("with", "gateway"):
        settings = content.get(section)
        if not isinstance(settings, Mapping) or not isinstance(value := settings.get("rates_store"), str):
            continue
        found = _VARIABLE.fullmatch(value.strip())
        if found is not None and found[1] in secrets:
            variables[section] = value
            changed[section] = {**settings, "rates_store": _ANY_STORE}
    return changed, variables


def plan_of(
    flow: FlowConfig,
    mapping: Mapping[str, Any],
    options: ExportOptions,
    *,
    source: str,
    address: Callable[[str], str],
    images: Mapping[str, str] | None = None,
) -> Plan:
    """
    Divide ``flow``, whose file ``source`` has the content ``mapping``, into containers.

    ``address(label)`` is where the gateway finds the executors with this label, as ``host`` of a Flow file
    says it; ``images`` are those that executors name themselves. Raises ExportError.
    """
    return _Planner(flow, mapping, options, source, address, images or {}).plan()


class _Planner:
    """Collects what cannot be exported, to tell all of it at once."""

    def __init__(
        self,
        flow: FlowConfig,
        mapping: Mapping[str, Any],
        options: ExportOptions,
        source: str,
        address: Callable[[str], str],
        images: Mapping[str, str],
    ) -> None:
        self._flow = flow
        self._mapping = mapping
        self._options = options
        self._source = source
        self._address = address
        self._images = images
        self._project = (options.project or Path(flow.base_dir)).absolute()
        self._problems: list[str] = []
        self._warnings: list[str] = []

    def plan(self) -> Plan:
        flow = self._flow
        name = _label(flow.name or "flow")
        if name is None:
            self._refuse("with.name", f"{flow.name!r} is no name for an engine; {_ACCEPTED}")
        labels = self._labels()
        executors = tuple(
            self._executor(each, labels[each.name]) for each in flow.deployments if not each.external
        )
        listeners = _listeners(flow.gateway)
        gateway = self._gateway(listeners, labels)
        if self._problems:
            raise ExportError("\n".join(self._problems))
        return Plan(
            name or "flow",
            gateway,
            listeners,
            flow.gateway.tls is not None,
            executors,
            tuple(self._warnings),
            any(each.external for each in flow.deployments) or _names_others(gateway.settings["gateway"]),
            None if flow.gateway.rates_store is None else flow.gateway.rates_store.port,
        )

    def _refuse(self, key: str, why: str) -> None:
        self._problems.append(f"{self._source}: {key}: cannot be exported: {why}")

    def _warn(self, key: str, what: str) -> None:
        self._warnings.append(f"{self._source}: {key}: {what}")

    def _labels(self) -> dict[str, str]:
        labels: dict[str, str] = {}
        for each in self._flow.deployments:
            label = _label(each.name)
            if label is None:
                self._refuse(f"executors.{each.name}.name", f"engines want other names; {_ACCEPTED}")
            elif (other := next((name for name, used in labels.items() if used == label), None)) is not None:
                self._refuse(
                    f"executors.{each.name}.name", f"{other} has the same name for an engine, {label}"
                )
            labels[each.name] = label or each.name
        return labels

    # -- executors -----------------------------------------------------------------------------------

    def _executor(self, deployment: DeploymentConfig, label: str) -> Container:
        key = f"executors.{deployment.name}"
        if deployment.shards > 1:
            self._refuse(
                f"{key}.shards",
                f"found {deployment.shards}: a gateway calls shards only of executors that it starts itself; "
                "split it into several executors and choose among them with when, or serve the whole Flow in "
                "one container, with gatewayd serve",
            )
        if deployment.no_reduce and len(deployment.needs) > 1:
            self._refuse(f"{key}.no_reduce", "an executor that runs elsewhere gets its needs merged")
        if deployment.host is not None and socket_path(deployment.host) is not None:
            self._refuse(f"{key}.host", "containers cannot share a Unix socket; leave host out")
        executor = deployment.executor
        if executor.by_value is not None:
            self._refuse(f"{key}.uses", "the class is in no file; move it into a module or give py_modules")
        image = self._images.get(deployment.name)
        item = {
            "name": deployment.name,
            **self._loaded(executor, key, in_image=image is not None),
            "host": "0.0.0.0",
            "port": EXECUTOR_PORT,
        }
        resources = self._resources(deployment, item, key)
        if deployment.monitoring:
            item.update(monitoring=True, port_monitoring=METRICS_PORT)
        if executor.workspace is not None:
            item["workspace"] = WORKSPACE
            self._warn(
                f"{key}.workspace",
                f"each container has an empty one of its own, {WORKSPACE}; keep what has to last in a volume",
            )
        if deployment.scaling is not None and deployment.scaling.least < 1:
            self._warn(f"{key}.replicas.min", "engines keep one replica, as nothing would start the first")
        grace_s = self._flow.gateway.grace_period_s
        settings = {
            "jtype": "Flow",
            "version": "1",
            "gateway": {"grace_period": grace_s},
            "executors": [item],
        }
        return Container(
            deployment.name,
            label,
            image or self._options.image,
            settings,
            deployment.replicas,
            self._secrets_in(settings),
            self._is_private(EXECUTOR.find, item, key),
            deployment.timeout_ready_s,
            DRAIN_DELAY_S,
            DRAIN_DELAY_S + grace_s + _MARGIN_S,
            METRICS_PORT if deployment.monitoring else None,
            executor.workspace is not None,
            deployment.scaling,
            resources,
        )

    def _resources(self, deployment: DeploymentConfig, item: dict[str, Any], key: str) -> Resources:
        """
        What is asked of Ray, and a GPU for each replica where they take turns in seeing one.

        That is left out of ``item`` then: a container sees those alone that the engine gives it.
        """
        ray, gpus = deployment.ray, 0
        if str(item.get("env", {}).get(_DEVICES, "")).startswith(_IN_TURNS):
            gpus = 1
            del item["env"][_DEVICES]
        if deployment.placement != "ray" or ray is None:
            return Resources(gpus=gpus)
        lost = [name for name in ("resources", "node_affinity", "runtime_env") if getattr(ray, name)]
        if lost:
            self._warn(
                f"{key}.ray", f"{', '.join(lost)}: containers have none; say it in the image or the manifests"
            )
        return Resources(ray.num_cpus, ray.memory, math.ceil(ray.num_gpus))

    def _loaded(self, executor: ExecutorConfig, key: str, *, in_image: bool) -> dict[str, Any]:
        """What an executor's process loads, in the words of a Flow file."""
        item: dict[str, Any] = {}
        if in_image:
            item["uses"] = f"{PROJECT}/config.yml"
        elif executor.uses is not None:
            item["uses"] = executor.uses
        if executor.py_modules:
            item["py_modules"] = self._in_image(executor.py_modules, f"{key}.py_modules")
        for name in (
            *("uses_with", "uses_metas", "uses_requests", "uses_dynamic_batching", "env"),
            *("output_array_type", "exit_on_exceptions"),
        ):
            value = getattr(executor, name)
            if value:
                item[name] = _plain(value)
        if executor.tracing:
            item.update(_traced(executor))
        return item

    def _in_image(self, paths: Sequence[str], key: str) -> list[str]:
        found = []
        for path in paths:
            try:
                inside = Path(path).relative_to(self._project)
            except ValueError:
                self._refuse(
                    key,
                    f"{path} is not in {self._project}, the folder that images hold at {PROJECT}; name a "
                    "folder that holds it with --project",
                )
                continue
            found.append(str(PurePosixPath(PROJECT, *inside.parts)))
        return found

    # -- the gateway ---------------------------------------------------------------------------------

    def _gateway(self, listeners: Sequence[Listener], labels: Mapping[str, str]) -> Container:
        gateway = self._flow.gateway
        used = [each.port for each in listeners] + [gateway.admin_port]
        metrics = next(port for port in range(METRICS_PORT, METRICS_PORT + 100) if port not in used)
        delay_s = gateway.drain_delay_s or DRAIN_DELAY_S
        settings = self._of_gateway()
        self._check_files(gateway)
        settings.update(
            protocol=["+".join(each.protocols) for each in listeners],
            port=[each.port for each in listeners],
            host="0.0.0.0",
            drain_delay=delay_s,
            monitoring=True,
            port_monitoring=metrics,
        )
        if gateway.tls is not None:
            if self._options.tls_secret is None:
                self._refuse(
                    "gateway.ssl_certfile",
                    "it is a file of this machine; name a secret that has tls.crt and tls.key, with "
                    "--tls-secret",
                )
            settings.update(ssl_certfile=f"{TLS}/tls.crt", ssl_keyfile=f"{TLS}/tls.key")
        if gateway.rates_store_ca_certfile:
            found = self._in_image([gateway.rates_store_ca_certfile], "gateway.rates_store_ca_certfile")
            settings["rates_store_ca_certfile"] = next(iter(found), None)
        if self._options.include_gateway:
            self._check_rates(gateway)
        if gateway.env:
            settings["env"] = dict(gateway.env)
        if gateway.custom is not None:
            settings.update(self._of_class(gateway.custom))
        private = self._is_private(GATEWAY.find, settings, "gateway")
        executors = [self._as_external(each, labels[each.name]) for each in self._flow.deployments]
        for item in executors:
            private |= self._is_private(EXECUTOR.find, item, f"executors.{item['name']}")
        whole: dict[str, Any] = {"jtype": "Flow", "version": "1"}
        if self._flow.name is not None:
            whole["with"] = {"name": self._flow.name}
        whole["gateway"] = settings
        if executors:
            whole["executors"] = executors
        grace_s = max(gateway.grace_period_s, gateway.floating_grace_period_s or 0.0)
        return Container(
            "gateway",
            "gateway",
            self._options.image,
            whole,
            self._options.gateway_replicas,
            self._secrets_in(whole),
            private,
            max((each.timeout_ready_s for each in self._flow.deployments), default=60.0),
            delay_s,
            delay_s + math.ceil(grace_s) + _MARGIN_S,
            metrics,
            scaling=self._of_gateways(),
        )

    def _of_gateways(self) -> ScalingConfig | None:
        """By requests under way at each: a gateway takes what it is given at once."""
        least, most = self._options.gateway_replicas, self._options.max_gateways
        return None if most is None or most <= least else ScalingConfig(most, least, _GATEWAY_REQUESTS)

    def _of_gateway(self) -> dict[str, Any]:
        """The gateway's settings as the Flow file has them, whether they are in ``with`` or ``gateway``."""
        found: dict[str, Any] = {}
        for word, value in (self._mapping.get("with") or {}).items():
            key = GATEWAY.find(word)
            if FLOW.find(word) is None and key is not None and key.status == SUPPORTED:
                found[key.name] = _plain(value)
        for word, value in (self._mapping.get("gateway") or {}).items():
            key = GATEWAY.find(word)
            if key is not None and key.status == SUPPORTED:
                found[key.name] = _plain(value)
        # Said otherwise, or by other means: a changed Flow file starts other containers.
        for name in ("uses", "uses_with", "py_modules", "env", "reload"):
            found.pop(name, None)
        return {name: value for name, value in found.items() if value is not None}

    def _of_class(self, custom: GatewayClass) -> dict[str, Any]:
        if custom.by_value is not None:
            self._refuse("gateway.uses", "the class is in no file; move it into a module")
        found: dict[str, Any] = {"uses": custom.uses}
        if custom.uses_with:
            found["uses_with"] = _plain(custom.uses_with)
        if custom.py_modules:
            found["py_modules"] = self._in_image(custom.py_modules, "gateway.py_modules")
        return found

    def _check_files(self, gateway: GatewayConfig) -> None:
        """Refuse what names files of this machine, or would write some."""
        if gateway.ssl_certificates:
            self._refuse("gateway.ssl_certificates", _A_FILE)
        if gateway.ssl_client_ca:
            self._refuse("gateway.ssl_client_ca", _A_FILE)
        for name in ("rates_store_certfile", "rates_store_keyfile"):
            if getattr(gateway, name):
                self._refuse(f"gateway.{name}", _A_FILE)
        if gateway.record is not None:
            self._refuse("gateway.record", "containers keep no files; leave it out")
        if gateway.access_log is not None and gateway.access_log.path is not None:
            self._refuse("gateway.access_log.path", "containers keep no files; give access_log: true")
        auth = {**(self._mapping.get("with") or {}), **(self._mapping.get("gateway") or {})}.get("auth") or {}
        jwt = auth.get("jwt") or {} if isinstance(auth, Mapping) else {}
        for inside, key in ((auth, "api_keys_file"), (jwt, "key_file"), (jwt, "jwks_file")):
            if isinstance(inside, Mapping) and inside.get(key):
                where = "gateway.auth" if inside is auth else "gateway.auth.jwt"
                self._refuse(f"{where}.{key}", _A_FILE)

    def _check_rates(self, gateway: GatewayConfig) -> None:
        """Warn of what callers may do with several gateways, and of a store that no container reaches."""
        store, least = gateway.rates_store, self._options.gateway_replicas
        most = max(least, self._options.max_gateways or least)
        if store is not None:
            if store.host in _OWN_HOSTS:
                self._warn("gateway.rates_store", f"{store.host} is each container itself; name another host")
        elif gateway.rates and not (least == most == gateway.gateways):
            count = str(most) if least == most else f"{least} to {most}"
            self._warn(
                "gateway.rates",
                f"each gateway counts for itself; they are divided among {gateway.gateways} (gateways), and "
                f"{count} are to run: callers may ask {most / gateway.gateways:g} times as often as the Flow "
                "file says; give rates_store, a Redis in which all gateways count together"
                + (f", or gateways: {most}" if least == most else ""),
            )

    def _as_external(self, deployment: DeploymentConfig, label: str) -> dict[str, Any]:
        """The executor as the gateway of the plan has it: one that runs elsewhere."""
        key = f"executors.{deployment.name}"
        item: dict[str, Any] = {"name": deployment.name, "external": True}
        if deployment.external:
            if any(socket_path(address) is not None for address in deployment.addresses):
                self._refuse(f"{key}.host", "a container cannot reach a Unix socket of this machine")
            for name in ("tls_ca_certfile", "tls_certfile", "tls_keyfile"):
                if getattr(deployment, name):
                    self._refuse(f"{key}.{name}", _A_FILE)
            item["host"] = list(deployment.addresses)
            item.update({name: getattr(deployment, name) for name in ("tls", "tls_server_name")})
        else:
            item["host"] = self._address(label)
        item["needs"] = list(deployment.needs)
        if deployment.collected:
            item["method"] = "inspect"
        elif deployment.floating:
            item["floating"] = True
        timeout_s = deployment.timeout_send_s
        item.update(
            when=_plain(deployment.when),
            no_reduce=deployment.no_reduce,
            grpc_metadata=dict(deployment.grpc_metadata),
            timeout_send=None if timeout_s is None else round(timeout_s * 1000),
            compression=deployment.compression,
            idempotent=dict(deployment.idempotent),
        )
        kept = {name: value for name, value in item.items() if value or name == "timeout_send"}
        if deployment.retries is not None:
            kept["retries"] = deployment.retries
        return {name: value for name, value in kept.items() if value is not None}

    # -- what may be secret --------------------------------------------------------------------------

    def _secrets_in(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        named = {name for text in _texts(settings) for name in _VARIABLE.findall(text)}
        return tuple(sorted(named & set(self._options.secrets)))

    def _is_private(self, find: Callable[[str], Any], item: Mapping[str, Any], key: str) -> bool:
        """Whether a key that may hold secrets does hold something; warns of what is not from a variable."""
        private = False
        for name, value in item.items():
            found = find(name)
            if found is None or not found.secret or not value:
                continue
            private = True
            texts = list(_texts(value))
            if name != "auth" and any(not _VARIABLE.search(text) for text in texts):
                self._warn(
                    f"{key}.{name}",
                    "its values are written as they are; have a secret one as ${{ ENV.NAME }} and name it "
                    "with --secret NAME",
                )
        return private


_ACCEPTED: Final = "accepted: up to 47 letters, digits and _, beginning with a letter"
_A_FILE: Final = "it is a file of this machine, which no container has"


def _label(name: str) -> str | None:
    """``name`` as Kubernetes and DNS accept it; None if that is impossible."""
    label = name.replace("_", "-").lower()
    return label if _LABEL.fullmatch(label) and label != "gateway" else None


def _listeners(gateway: GatewayConfig) -> tuple[Listener, ...]:
    """The gateway's, in which a free port is a fixed one."""
    taken = {each.port for each in gateway.listeners}
    free = (port for port in range(_FIRST_PORT, _FIRST_PORT + 1000) if port not in taken)
    return tuple(each if each.port else attrs.evolve(each, port=next(free)) for each in gateway.listeners)


def _names_others(settings: Mapping[str, Any]) -> bool:
    """Whether a gateway's settings may name another host, besides a store; yes rather than no."""
    store = settings.get("rates_store")
    if store is not None and "://" in store:  # else it is only a variable
        settings = {name: value for name, value in settings.items() if name != "rates_store"}
    if "uses" in settings or any("://" in text or "${{" in text for text in _texts(settings)):
        return True
    return any(_OF_OTHERS.search(key) for key in _keys(settings))


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)


def _traced(executor: ExecutorConfig) -> dict[str, Any]:
    names = ("host", "port", "protocol", "headers")
    found = {f"traces_exporter_{name}": getattr(executor, f"traces_exporter_{name}") for name in names}
    return {"tracing": True, **{name: _plain(value) for name, value in found.items() if value}}


def _plain(value: Any) -> Any:
    """Maps and lists as YAML has them."""
    match value:
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value


def _texts(value: Any) -> Iterator[str]:
    """Every text in ``value``, numbers among them."""
    match value:
        case Mapping():
            for item in value.values():
                yield from _texts(item)
        case list() | tuple():
            for item in value:
                yield from _texts(item)
        case str():
            yield value
        case bool() | None:
            return
        case int() | float():
            yield str(value)
