"""
A plan as manifests of Kubernetes (pure).

Every executor is a Deployment behind a headless Service, so that the gateway sees each replica's address and
balances calls itself; the gateway is a Deployment behind a Service with one address.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final, Literal

from gatewayd.config.scaling import ScalingConfig
from gatewayd.export.plan import (
    EXECUTOR_PORT,
    PROJECT,
    SETTINGS,
    TLS,
    WORKSPACE,
    Container,
    ExportOptions,
    Plan,
)
from gatewayd.health import LIVE, READY, STARTED
from gatewayd.schemes import KUBERNETES, ServiceName
from gatewayd.telemetry.metrics.table import IN_FLIGHT, REQUESTS_UNDER_WAY

Manifest = Mapping[str, Any]

# Of the images that conf/docker builds: no user of the host.
_USER: Final = 10001
_PROBE_S: Final = 5
# Of API servers: managed ones have the first, those of kubeadm and k3s the second.
_API_SERVER_PORTS: Final = (443, 6443)
_DNS_PORT: Final = 53
# As the device plugin of NVIDIA calls it.
_GPU: Final = "nvidia.com/gpu"
_PART_OF: Final = "app.kubernetes.io/part-of"
_NAME: Final = "app.kubernetes.io/name"
_COMPONENT: Final = "app.kubernetes.io/component"


def namespace_of(plan_name: str, options: ExportOptions) -> str:
    """The namespace of the reference: the Flow's name, unless one is given."""
    return options.namespace or plan_name


def address_in(namespace: str, label: str) -> str:
    """``host`` of an executor as the gateway in the cluster follows it: a headless Service."""
    return f"{KUBERNETES}{label}.{namespace}:{EXECUTOR_PORT}"


def manifests_of(plan: Plan, options: ExportOptions) -> dict[str, list[Manifest]]:
    """The manifests of each container, by its label, in the order in which they are to be applied."""
    found = {each.label: _executor(plan, each, options) for each in plan.executors}
    if options.include_gateway:
        found[plan.gateway.label] = _gateway(plan, options)
    return found


def _executor(plan: Plan, container: Container, options: ExportOptions) -> list[Manifest]:
    namespace = namespace_of(plan.name, options)
    ports = [
        {"name": "grpc", "port": EXECUTOR_PORT, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}
    ]
    headless = {"clusterIP": "None", "selector": _selector(plan, container), "ports": ports}
    command = ["gatewayd", "executor", "--flow", f"{SETTINGS}/flow.yml"]
    health = {"grpc": {"port": EXECUTOR_PORT}}
    probes = {
        "startupProbe": {**health, **_startup(container)},
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 5},
        "readinessProbe": {**health, "periodSeconds": _PROBE_S},
    }
    # SIGTERM ends an executor at once; gateways are to have heard of it before.
    hook = {"preStop": {"exec": {"command": ["sleep", f"{container.delay_s:g}"]}}}
    pod = _pod(
        plan,
        container,
        options,
        command=command,
        ports={"grpc": EXECUTOR_PORT},
        probes={**probes, "lifecycle": hook},
    )
    found = [
        _settings(plan, container, namespace),
        _manifest("v1", "Service", plan, container, namespace, headless),
        _deployment(plan, container, namespace, pod),
        _disruptions(plan, container, namespace),
        _executor_policy(plan, container, namespace),
    ]
    if container.scaling is not None:
        # Gateways count it, not these pods: an external metric, divided by the number of replicas.
        selector = {"matchLabels": {"deployment": container.name}}
        external = {"metric": {"name": IN_FLIGHT.name, "selector": selector}}
        found.append(_scaler(plan, container, namespace, container.scaling, "External", external))
    if options.service_monitor and container.metrics is not None:
        found.append(_pod_monitor(plan, container, namespace))
    return found


def _gateway(plan: Plan, options: ExportOptions) -> list[Manifest]:
    namespace, container = namespace_of(plan.name, options), plan.gateway
    ports = {"-".join(each.protocols): each.port for each in plan.listeners}
    # Services' ports have names of up to 15 characters.
    ports = {name.replace("websocket", "ws"): port for name, port in ports.items()}
    # The port of metrics answers probes without TLS, whatever clients have to show.
    probes = {
        "startupProbe": {**_http(STARTED), **_startup(container)},
        "livenessProbe": {**_http(LIVE), "periodSeconds": 10, "timeoutSeconds": 5},
        "readinessProbe": {**_http(READY), "periodSeconds": 2},
    }
    pod = _pod(
        plan,
        container,
        options,
        command=["gatewayd", "serve", f"{SETTINGS}/flow.yml"],
        ports=ports,
        # drain_delay of its Flow file is what a preStop hook that sleeps would be.
        probes=probes,
    )
    service = {
        "selector": _selector(plan, container),
        "ports": [{"name": name, "port": port, "targetPort": name} for name, port in ports.items()],
    }
    found = [
        *_rights(plan, namespace),
        _settings(plan, container, namespace),
        _manifest("v1", "Service", plan, container, namespace, service),
        _deployment(plan, container, namespace, pod),
        _disruptions(plan, container, namespace),
        _gateway_policy(plan, container, namespace, ports),
    ]
    if container.scaling is not None:
        of_pods = {"metric": {"name": REQUESTS_UNDER_WAY.name}}
        found.append(_scaler(plan, container, namespace, container.scaling, "Pods", of_pods))
    if options.service_monitor:
        found.append(_pod_monitor(plan, container, namespace))
    return found


def _http(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "metrics"}}


def _startup(container: Container) -> dict[str, int]:
    return {"periodSeconds": _PROBE_S, "failureThreshold": max(1, math.ceil(container.ready_s / _PROBE_S))}


def _followed(plan: Plan, namespace: str) -> list[str]:
    """The namespaces of Services whose EndpointSlices the gateway follows."""
    hosts = [host for each in plan.gateway.settings.get("executors", ()) for host in _hosts(each)]
    services = [service for service in map(ServiceName.of, hosts) if service is not None]
    return sorted({service.namespace or namespace for service in services})


def _hosts(executor: Mapping[str, Any]) -> list[str]:
    host = executor["host"]
    return [host] if isinstance(host, str) else list(host)


def _rights(plan: Plan, namespace: str) -> list[Manifest]:
    """A service account for the gateway that may follow EndpointSlices, and nothing else."""
    followed = _followed(plan, namespace)
    if not followed:
        return []
    container, name = plan.gateway, f"{plan.name}-gateway"

    def manifest(group: str, kind: str, where: str, **content: Any) -> Manifest:
        metadata = {"name": name, "namespace": where, "labels": _labels(plan, container)}
        return {"apiVersion": group, "kind": kind, "metadata": metadata, **content}

    rbac = "rbac.authorization.k8s.io"
    found = [manifest("v1", "ServiceAccount", namespace, automountServiceAccountToken=False)]
    for each in followed:
        rule = {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        }
        found += [
            manifest(f"{rbac}/v1", "Role", each, rules=[rule]),
            manifest(
                f"{rbac}/v1",
                "RoleBinding",
                each,
                roleRef={"apiGroup": rbac, "kind": "Role", "name": name},
                subjects=[{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            ),
        ]
    return found


def _labels(plan: Plan, container: Container) -> dict[str, str]:
    component = "gateway" if container is plan.gateway else "executor"
    return {_NAME: container.label, _COMPONENT: component, _PART_OF: plan.name}


def _selector(plan: Plan, container: Container) -> dict[str, str]:
    return {_NAME: container.label, _PART_OF: plan.name}


def _manifest(
    version: str, kind: str, plan: Plan, container: Container, namespace: str, spec: Mapping[str, Any]
) -> Manifest:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": container.label, "namespace": namespace, "labels": _labels(plan, container)},
        "spec": spec,
    }


def _settings(plan: Plan, container: Container, namespace: str) -> Manifest:
    """The Flow file of a container, in a Secret where it may hold some."""
    found: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret" if container.private else "ConfigMap",
        "metadata": {
            "name": f"{container.label}-flow",
            "namespace": namespace,
            "labels": _labels(plan, container),
        },
    }
    found["stringData" if container.private else "data"] = {"flow.yml": container.flow_file}
    return found


def _deployment(plan: Plan, container: Container, namespace: str, pod: Any) -> Manifest:
    spec: dict[str, Any] = {
        "selector": {"matchLabels": _selector(plan, container)},
        # Never fewer than before: a replica goes when the one in its place is ready.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": pod,
    }
    if container.scaling is None:  # else whoever applies it again would undo what the autoscaler did
        spec = {"replicas": container.replicas, **spec}
    return _manifest("apps/v1", "Deployment", plan, container, namespace, spec)


def _pod(
    plan: Plan,
    container: Container,
    options: ExportOptions,
    *,
    command: list[str],
    ports: Mapping[str, int],
    probes: Mapping[str, Any],
) -> Any:
    volumes: list[dict[str, Any]] = [_settings_volume(container), {"name": "tmp", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [
        {"name": "flow", "mountPath": SETTINGS, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    if container.has_workspace:
        volumes.append({"name": "workspace", "emptyDir": {}})
        mounts.append({"name": "workspace", "mountPath": WORKSPACE})
    if container is plan.gateway and plan.tls:
        volumes.append({"name": "tls", "secret": {"secretName": options.tls_secret}})
        mounts.append({"name": "tls", "mountPath": TLS, "readOnly": True})
    if container.metrics is not None:
        ports = {**ports, "metrics": container.metrics}
    variables: list[dict[str, Any]] = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": options.secret_name, "key": name}}}
        for name in container.secrets
    ]
    own = container.resources
    requests = {
        "cpu": options.cpu if own.cpus is None else _quantity(own.cpus),
        "memory": options.memory if own.memory_bytes is None else str(own.memory_bytes),
    }
    resources: dict[str, Any] = {"requests": requests}
    if own.gpus:
        resources["limits"] = {_GPU: own.gpus}
    one = {
        "name": "gateway" if container is plan.gateway else "executor",
        "image": container.image,
        "args": command,
        "workingDir": PROJECT,
        # Where libraries write what they keep of a user; the rest of the image is read-only.
        "env": [{"name": "HOME", "value": "/tmp"}, *variables],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        **probes,
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    # A changed Flow file is other pods: nothing in them follows it.
    digest = hashlib.sha256(container.flow_file.encode()).hexdigest()
    follows = container is plan.gateway and bool(_followed(plan, namespace_of(plan.name, options)))
    spec = {
        **({"serviceAccountName": f"{plan.name}-gateway"} if follows else {}),
        "automountServiceAccountToken": follows,
        "terminationGracePeriodSeconds": math.ceil(container.stop_s),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [one],
        "volumes": volumes,
    }
    metadata = {"labels": _labels(plan, container), "annotations": {"gatewayd/flow-sha256": digest}}
    return {"metadata": metadata, "spec": spec}


def _settings_volume(container: Container) -> dict[str, Any]:
    name = f"{container.label}-flow"
    source = {"secret": {"secretName": name}} if container.private else {"configMap": {"name": name}}
    return {"name": "flow", **source}


def _disruptions(plan: Plan, container: Container, namespace: str) -> Manifest:
    """One at a time, when nodes are emptied; of a single replica, that one."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _selector(plan, container)}}
    return _manifest("policy/v1", "PodDisruptionBudget", plan, container, namespace, spec)


def _scaler(
    plan: Plan,
    container: Container,
    namespace: str,
    scaling: ScalingConfig,
    kind: Literal["External", "Pods"],
    metric: Mapping[str, Any],
) -> Manifest:
    target = {"type": "AverageValue", "averageValue": _quantity(scaling.target_in_flight)}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": container.label},
        "minReplicas": scaling.first,
        "maxReplicas": scaling.most,
        "metrics": [{"type": kind, kind.lower(): {**metric, "target": target}}],
        "behavior": {
            "scaleUp": {"stabilizationWindowSeconds": round(scaling.up_after_s)},
            "scaleDown": {"stabilizationWindowSeconds": round(scaling.down_after_s)},
        },
    }
    return _manifest("autoscaling/v2", "HorizontalPodAutoscaler", plan, container, namespace, spec)


def _quantity(number: float) -> str:
    """As Kubernetes writes numbers: in thousandths where it is no integer."""
    return f"{number:g}" if float(number).is_integer() else f"{round(number * 1000)}m"


def _executor_policy(plan: Plan, container: Container, namespace: str) -> Manifest:
    """Calls come from the Flow's gateway alone; metrics are for the whole cluster."""
    gateway = {"podSelector": {"matchLabels": {_COMPONENT: "gateway", _PART_OF: plan.name}}}
    ingress: list[dict[str, Any]] = [
        {"from": [gateway], "ports": [{"protocol": "TCP", "port": EXECUTOR_PORT}]}
    ]
    if container.metrics is not None:
        ingress.append(_for_scrapers(container.metrics))
    return _policy(plan, container, namespace, ingress)


def _gateway_policy(plan: Plan, container: Container, namespace: str, ports: Mapping[str, int]) -> Manifest:
    ingress: list[dict[str, Any]] = [
        {"ports": [{"protocol": "TCP", "port": port} for port in ports.values()]}
    ]
    if container.metrics is not None:
        ingress.append(_for_scrapers(container.metrics))
    return _policy(plan, container, namespace, ingress, _gateway_egress(plan))


def _gateway_egress(plan: Plan) -> list[dict[str, Any]]:
    """Executors, DNS, the API server, a store; everything, where the Flow file names others to call."""
    if plan.calls_others:
        return [{}]
    executors = {"podSelector": {"matchLabels": {_COMPONENT: "executor", _PART_OF: plan.name}}}
    names = [{"protocol": protocol, "port": _DNS_PORT} for protocol in ("UDP", "TCP")]
    found: list[dict[str, Any]] = [{"ports": names}]
    if plan.executors:
        found += [
            {"to": [executors], "ports": [{"protocol": "TCP", "port": EXECUTOR_PORT}]},
            # On nodes, or outside: no selector finds it.
            {"ports": [{"protocol": "TCP", "port": port} for port in _API_SERVER_PORTS]},
        ]
    if plan.store_port is not None:
        # Of whatever address: it may be outside of the cluster.
        found.append({"ports": [{"protocol": "TCP", "port": plan.store_port}]})
    return found


def _for_scrapers(port: int) -> dict[str, Any]:
    return {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": port}]}


def _policy(
    plan: Plan,
    container: Container,
    namespace: str,
    ingress: list[dict[str, Any]],
    egress: list[dict[str, Any]] | None = None,
) -> Manifest:
    """Without ``egress`` a pod calls whom it wants: executors fetch models."""
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": _selector(plan, container)},
        "policyTypes": ["Ingress"] if egress is None else ["Ingress", "Egress"],
        "ingress": ingress,
    }
    if egress is not None:
        spec["egress"] = egress
    return _manifest("networking.k8s.io/v1", "NetworkPolicy", plan, container, namespace, spec)


def _pod_monitor(plan: Plan, container: Container, namespace: str) -> Manifest:
    """Of the Prometheus operator: clients' Services have no port for metrics, so pods are scraped."""
    spec = {
        "selector": {"matchLabels": _selector(plan, container)},
        "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics"}],
    }
    return _manifest("monitoring.coreos.com/v1", "PodMonitor", plan, container, namespace, spec)
