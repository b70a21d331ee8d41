"""What Flows become for Kubernetes and Docker Compose, and what is refused."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import click.testing
import pytest
import yaml

from gatewayd import Flow
from gatewayd.cli import main
from gatewayd.config import load_flow_text
from gatewayd.errors import ConfigError
from gatewayd.export.plan import ExportError, ExportOptions
from tests.export.flows import GOLDEN, LARGE, exports, of_text

OPTIONS = ExportOptions("gatewayd:1")


def manifests(text: str, options: ExportOptions = OPTIONS) -> dict[tuple[str, str], Any]:
    files = of_text(f"jtype: Flow\n{text}").kubernetes(options).files
    found = [each for file in files.values() for each in yaml.safe_load_all(file)]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def flow_file(found: dict[tuple[str, str], Any], name: str) -> str:
    settings = found.get(("ConfigMap", f"{name}-flow")) or found["Secret", f"{name}-flow"]
    text: str = settings.get("data", settings.get("stringData"))["flow.yml"]
    return text


@pytest.mark.parametrize("folder", ["small/k8s", "small", "large/k8s", "large"])
def test_exports_are_as_they_were(folder: str) -> None:
    for name, text in exports()[folder].files.items():
        assert text == (GOLDEN / folder / name).read_text(), "python -m tests.export.flows writes it anew"


def test_the_gateway_of_an_export_calls_all_executors_at_their_services(monkeypatch) -> None:
    for name in ("API_KEY", "REDIS_PASSWORD"):
        monkeypatch.setenv(name, "k")
    found = manifests(LARGE.removeprefix("\njtype: Flow\n"))

    flow = load_flow_text(flow_file(found, "gateway"))

    assert {each.name: each.addresses for each in flow.deployments} == {
        "encoder": ("kubernetes://encoder.text-search:8080",),
        "ranker": ("kubernetes://ranker.text-search:8080",),
        "elsewhere": ("rank.example:8443",),
        "audit": ("kubernetes://audit.text-search:8080",),
    }
    original = of_text(LARGE)
    assert original.content["gateway"]["rates"] == [{"requests": 100, "per": 1}]
    elsewhere, audit = flow.deployments[2:]
    assert (elsewhere.tls, elsewhere.timeout_send_s, elsewhere.retries) == (True, 0.5, 2)
    assert (elsewhere.needs, elsewhere.when) == (("encoder", "ranker"), {"tags__lang": {"$eq": "en"}})
    assert (audit.floating, audit.collected) == (True, True)
    assert (flow.gateway.drain_delay_s, flow.gateway.timeout_send_s, len(flow.gateway.rates)) == (8.0, 3.0, 1)


def test_the_flow_file_of_an_executor_has_that_executor_alone() -> None:
    found = manifests("executors: [{name: a, uses: m.A, uses_with: {n: 3}}, {name: b}]")

    (only,) = load_flow_text(flow_file(found, "a")).deployments

    assert (only.name, only.executor.uses, only.executor.uses_with) == ("a", "m.A", {"n": 3})
    assert (only.host, only.ports) == ("0.0.0.0", (8080,))


def test_a_stop_takes_no_longer_than_kubernetes_waits() -> None:
    gateway = "gateway: {drain_delay: 7, grace_period: 30, floating_grace_period: 90}"
    found = manifests(f"{gateway}\nexecutors: [{{name: a}}]")

    def pod(name: str) -> Any:
        return found["Deployment", name]["spec"]["template"]["spec"]

    assert pod("gateway")["terminationGracePeriodSeconds"] > 7 + 90
    assert pod("a")["terminationGracePeriodSeconds"] > 5 + 30
    assert pod("a")["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]


def test_variables_that_are_secret_are_written_nowhere(monkeypatch) -> None:
    monkeypatch.setenv("KEY", "deep secret")
    text = "executors: [{name: a, uses_with: {key: '${{ ENV.KEY }}'}, env: {KEY: '${{ ENV.KEY }}'}}]"
    options = ExportOptions("gatewayd:1", secrets=("KEY",), secret_name="mine")

    exported = of_text(f"jtype: Flow\n{text}").kubernetes(options)

    assert "deep secret" not in "".join(exported.files.values())
    assert exported.warnings == ()
    pod = manifests(text, options)["Deployment", "a"]["spec"]["template"]["spec"]
    variables = pod["containers"][0]["env"]
    assert {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "KEY"}}} in variables
    composed = of_text(f"jtype: Flow\n{text}").compose(options).files["docker-compose.yml"]
    service = yaml.safe_load(composed)["services"]["a"]
    assert "deep secret" not in composed
    assert service["environment"]["KEY"] == "${KEY:?set KEY for a}"


@pytest.mark.parametrize(
    "text",
    [
        "executors: [{name: a, uses_with: {key: deep secret}}]",
        "executors: [{name: a, env: {KEY: deep secret}}]",
        "executors: [{name: a, external: true, host: h:1, grpc_metadata: {key: deep secret}}]",
        "gateway: {env: {KEY: deep secret}}",
    ],
)
def test_a_secret_in_clear_is_in_no_config_map_and_warned_of(text: str) -> None:
    exported = of_text(f"jtype: Flow\n{text}").kubernetes(OPTIONS)

    for (kind, _), manifest in manifests(text).items():
        assert kind == "Secret" or "deep secret" not in str(manifest)
    (warning,) = exported.warnings
    assert warning.startswith("flow.yml: ")
    assert "--secret NAME" in warning
    assert "deep secret" not in warning


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("executors: [{name: a, shards: 2}]", "executors.a.shards: cannot be exported: found 2"),
        ("executors: [{name: a, host: 'unix:/a'}]", "executors.a.host: cannot be exported: contain"),
        ("executors: [{name: a, external: true, host: 'unix:/a'}]", "executors.a.host: cannot be exported"),
        ("executors: [{name: a, py_modules: ../../setup.py}]", "executors.a.py_modules: cannot be exported"),
        ("executors: [{name: a_b}, {name: A_B}]", "executors.A_B.name: cannot be exported: a_b has the same"),
        ("executors: [{name: _a}]", "executors._a.name: cannot be exported"),
        (
            "executors: [{name: a}, {name: b, needs: gateway}, {name: c, needs: [a, b], no_reduce: true}]",
            "executors.c.no_reduce: cannot be exported",
        ),
        ("gateway: {record: {path: x}}", "gateway.record: cannot be exported"),
        ("gateway: {access_log: {path: x}}", "gateway.access_log.path: cannot be exported"),
        ("gateway: {auth: {api_keys_file: x}}", "gateway.auth.api_keys_file: cannot be exported"),
    ],
)
def test_what_cannot_be_exported_is_refused_by_file_and_key(text: str, told: str) -> None:
    for export in (of_text(f"jtype: Flow\n{text}").kubernetes, of_text(f"jtype: Flow\n{text}").compose):
        with pytest.raises(ExportError) as refused:
            export(OPTIONS)
        assert str(refused.value).startswith(f"flow.yml: {told}")


def test_only_the_gateway_reaches_executors() -> None:
    found = manifests("executors: [{name: a}]")

    (rule,) = found["NetworkPolicy", "a"]["spec"]["ingress"]
    labels = found["Deployment", "gateway"]["spec"]["template"]["metadata"]["labels"]

    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    assert rule["ports"] == [{"protocol": "TCP", "port": 8080}]


def test_the_gateway_alone_may_follow_endpoint_slices_and_nothing_else() -> None:
    found = manifests(
        "executors: [{name: a}, {name: b, external: true, host: 'kubernetes://b.models:80'}]",
        ExportOptions("gatewayd:1", namespace="search"),
    )

    # The Role of the other namespace has the same name.
    role, binding = found["Role", "flow-gateway"], found["RoleBinding", "flow-gateway"]
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    ]
    files = (
        of_text(
            "jtype: Flow\nexecutors: [{name: a}, {name: b, external: true, host: 'kubernetes://b.models:80'}]"
        )
        .kubernetes(ExportOptions("gatewayd:1", namespace="search"))
        .files
    )
    kinds = [
        (each["kind"], each["metadata"]["namespace"])
        for each in yaml.safe_load_all(files["gateway/gateway.yml"])
        if each["kind"].startswith("Role")
    ]
    assert sorted(kinds) == [
        ("Role", "models"),
        ("Role", "search"),
        ("RoleBinding", "models"),
        ("RoleBinding", "search"),
    ]
    (subject,) = binding["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "flow-gateway", "namespace": "search"}
    pods = {name: found["Deployment", name]["spec"]["template"]["spec"] for name in ("a", "gateway")}
    assert pods["gateway"]["serviceAccountName"] == "flow-gateway"
    assert pods["gateway"]["automountServiceAccountToken"] is True
    assert pods["a"]["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pods["a"]


@pytest.mark.parametrize(
    ("text", "open_"),
    [
        ("executors: [{name: a}]", False),
        ("gateway: {timeout_send: 3000, allowed_hosts: [a.example]}\nexecutors: [{name: a}]", False),
        ("executors: [{name: a}, {name: b, external: true, host: 'h:1'}]", True),
        ("gateway: {tracing: true}\nexecutors: [{name: a}]", True),
        ("gateway: {traces_exporter_host: collector}\nexecutors: [{name: a}]", True),
        ("gateway: {auth: {hook: {url: 'http://auth/check'}}}\nexecutors: [{name: a}]", True),
        ("gateway: {uses: m.G, port: 80}\nexecutors: [{name: a}]", True),
    ],
)
def test_the_gateway_calls_executors_and_the_engine_unless_its_file_names_others(
    text: str, open_: bool
) -> None:
    policy = manifests(text)["NetworkPolicy", "gateway"]["spec"]

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    if open_:
        assert policy["egress"] == [{}]
    else:
        ports = [each["port"] for rule in policy["egress"] for each in rule["ports"]]
        assert ports == [53, 53, 8080, 443, 6443]


def test_the_gateway_reaches_the_store_of_the_rates_and_its_password_is_a_secret() -> None:
    text = "gateway: {rates: [{requests: 9}], rates_store: 'redis://:${{ ENV.PW }}@redis:7000'}"
    options = ExportOptions("gatewayd:1", secrets=("PW",), secret_name="mine", gateway_replicas=2)

    found = manifests(f"{text}\nexecutors: [{{name: a}}]", options)

    egress = found["NetworkPolicy", "gateway"]["spec"]["egress"]
    assert [each["port"] for rule in egress for each in rule["ports"]] == [53, 53, 8080, 443, 6443, 7000]
    assert "redis://:${{ ENV.PW }}@redis:7000" in found["Secret", "gateway-flow"]["stringData"]["flow.yml"]
    variables = found["Deployment", "gateway"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "PW"}}} in variables


@pytest.mark.parametrize("section", ["gateway", "with"])
def test_the_whole_address_of_the_store_may_be_a_secret(section: str) -> None:
    text = f"{section}: {{rates: [{{requests: 9}}], rates_store: '${{{{ ENV.STORE }}}}'}}"
    options = ExportOptions("gatewayd:1", secrets=("STORE",), gateway_replicas=2)

    found = manifests(f"{text}\nexecutors: [{{name: a}}]", options)

    settings = yaml.safe_load(flow_file(found, "gateway"))["gateway"]
    assert settings["rates_store"] == "${{ ENV.STORE }}"
    # Where it is, and at which port, is not known.
    assert found["NetworkPolicy", "gateway"]["spec"]["egress"] == [{}]
    (container,) = found["Deployment", "gateway"]["spec"]["template"]["spec"]["containers"]
    assert "STORE" in [each["name"] for each in container["env"]]
    with pytest.raises(ConfigError, match=r"gateway\.rates_store"):
        of_text("jtype: Flow\ngateway: {rates_store: 'no store'}").kubernetes(options)


@pytest.mark.parametrize(
    ("settings", "counts", "told"),
    [
        ("", {}, None),
        ("", {"gateway_replicas": 3}, "3 are to run: callers may ask 3 times as often"),
        ("gateways: 3", {"gateway_replicas": 3}, None),
        ("gateways: 2", {"gateway_replicas": 2, "max_gateways": 5}, "2 to 5 are to run: callers may ask 2.5"),
        ("rates_store: 'redis://redis'", {"gateway_replicas": 2, "max_gateways": 5}, None),
        ("rates_store: 'redis://127.0.0.1'", {}, "127.0.0.1 is each container itself"),
        ("", {"gateway_replicas": 3, "include_gateway": False}, None),
    ],
)
def test_rates_that_several_gateways_would_multiply_are_warned_of(
    settings: str, counts: dict[str, Any], told: str | None
) -> None:
    text = f"jtype: Flow\ngateway: {{rates: [{{requests: 9}}], {settings}}}\nexecutors: [{{name: a}}]"
    warnings = of_text(text).kubernetes(ExportOptions("gatewayd:1", **counts)).warnings
    # That an address is written as it is has a test of its own.
    found = [each for each in warnings if "--secret" not in each]
    assert len(found) == (told is not None)
    if told is not None:
        assert found[0].startswith("flow.yml: gateway.rates")
        assert told in found[0]


@pytest.mark.parametrize(
    ("given", "requests", "gpus", "env"),
    [
        ("env: {CUDA_VISIBLE_DEVICES: RR, A: b}", {"cpu": "250m", "memory": "512Mi"}, 1, {"A": "b"}),
        ("env: {CUDA_VISIBLE_DEVICES: RR1}", {"cpu": "250m", "memory": "512Mi"}, 1, {}),
        ("env: {CUDA_VISIBLE_DEVICES: '0'}", {"cpu": "250m", "memory": "512Mi"}, None,
         {"CUDA_VISIBLE_DEVICES": "0"}),
        ("placement: ray, ray: {num_cpus: 0.5, num_gpus: 1.5, memory: 1000000000}",
         {"cpu": "500m", "memory": "1000000000"}, 2, None),
        ("placement: ray", {"cpu": "250m", "memory": "512Mi"}, None, None),
    ],
)  # fmt: skip
def test_what_replicas_take_of_a_machine_containers_ask_for(
    given: str, requests: dict[str, str], gpus: int | None, env: dict[str, str] | None
) -> None:
    text = f"executors: [{{name: a, uses: m.A, {given}}}]"
    found = manifests(text)

    (container,) = found["Deployment", "a"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == requests
    assert container["resources"].get("limits") == (None if gpus is None else {"nvidia.com/gpu": gpus})
    (item,) = yaml.safe_load(flow_file(found, "a"))["executors"]
    assert item.get("env") == env
    assert "placement" not in item
    composed = yaml.safe_load(of_text(f"jtype: Flow\n{text}").compose(OPTIONS).files["docker-compose.yml"])
    reserved = composed["services"]["a"]["deploy"].get("resources", {}).get("reservations", {}).get("devices")
    assert reserved == (
        None if gpus is None else [{"driver": "nvidia", "count": gpus, "capabilities": ["gpu"]}]
    )


def test_what_only_ray_can_give_is_warned_of() -> None:
    executor = "{name: a, uses: m.A, placement: ray, ray: {resources: {tpu: 1}, num_cpus: 1}}"
    text = f"jtype: Flow\nexecutors: [{executor}]"
    (warning,) = [each for each in of_text(text).kubernetes(OPTIONS).warnings if ".ray: " in each]
    assert warning.startswith("flow.yml: executors.a.ray: resources: containers have none")


def test_the_authority_of_the_store_has_to_be_in_the_image(tmp_path: Path) -> None:
    from tests.certificates import make

    (tmp_path / "ca.pem").write_bytes(make("root", authority=True).pem)
    text = (
        f"jtype: Flow\ngateway: {{rates_store: 'rediss://redis', rates_store_ca_certfile: {tmp_path}/ca.pem}}"
    )

    exported = of_text(text).kubernetes(ExportOptions("gatewayd:1", project=tmp_path))

    assert "rates_store_ca_certfile: /app/ca.pem" in exported.files["gateway/gateway.yml"]
    with pytest.raises(ExportError, match=r"gateway\.rates_store_ca_certfile: cannot be exported"):
        of_text(text).kubernetes(OPTIONS)


def test_the_command_writes_files_for_their_owner_alone(tmp_path: Path) -> None:
    flow = tmp_path / "flow.yml"
    flow.write_text("jtype: Flow\nexecutors: [{name: a}]\n")
    run = click.testing.CliRunner().invoke

    done = run(main, ["export", "kubernetes", str(flow), "-o", str(tmp_path / "k8s"), "--image", "x:1"])
    composed = run(main, ["export", "compose", str(flow), "-o", str(tmp_path / "c.yml")])

    assert (done.exit_code, composed.exit_code) == (0, 0)
    written = [*(tmp_path / "k8s").rglob("*.yml"), tmp_path / "c.yml"]
    assert [path.name for path in sorted(written)] == ["c.yml", "a.yml", "gateway.yml"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    flow = tmp_path / "flow.yml"
    flow.write_text("jtype: Flow\nexecutors: [{name: a, shards: 2}]\n")

    done = click.testing.CliRunner().invoke(main, ["export", "kubernetes", str(flow)])

    assert done.exit_code == 1
    assert "flow.yml: executors.a.shards: cannot be exported" in done.output
    assert not (tmp_path / "k8s").exists()


def test_a_flow_in_python_is_exported(tmp_path: Path) -> None:
    flow = Flow(name="shop", protocol="http", port=8000).add(name="a", replicas=2)

    flow.to_kubernetes_yaml(tmp_path / "k8s", k8s_namespace="n", include_gateway=False)
    flow.to_docker_compose_yaml(tmp_path / "c.yml", network_name="net")

    assert [path.name for path in (tmp_path / "k8s").iterdir()] == ["a"]
    kinds = {each["kind"]: each for each in yaml.safe_load_all((tmp_path / "k8s/a/a.yml").read_text())}
    assert kinds["Deployment"]["metadata"]["namespace"] == "n"
    assert kinds["Deployment"]["spec"]["replicas"] == 2
    composed = yaml.safe_load((tmp_path / "c.yml").read_text())
    assert composed["services"]["gateway"]["ports"] == ["8000:8000"]
    assert list(composed["networks"]) == ["net"]
