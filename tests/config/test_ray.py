"""``placement`` and ``ray`` in Flow files."""

from __future__ import annotations

import pytest

from gatewayd.config import FlowConfig, load_flow_text
from gatewayd.config.ray import RayCluster, RayOptions
from gatewayd.errors import ConfigError


def load(executors: str, with_: str = "") -> FlowConfig:
    return load_flow_text(f"jtype: Flow\nwith: {{{with_}}}\nexecutors:\n{executors}\n", environ={})


def test_each_executor_names_its_own_and_the_flow_a_default() -> None:
    flow = load(
        "  - name: a\n"
        "    ray: {num_cpus: 2, resources: {disk: 1}, scheduling_strategy: spread, detached: true}\n"
        "  - {name: b, placement: local}\n"
        "  - {name: c, external: true, host: 10.0.0.1, port: 1}",
        "placement: ray, ray: {address: 'ray://head:10001', namespace: search}",
    )

    assert [each.placement for each in flow.deployments] == ["ray", "local", "local"]
    assert flow.deployments[0].ray == RayOptions(num_cpus=2, resources={"disk": 1}, detached=True)
    assert flow.ray == RayCluster("ray://head:10001", "search")


def test_without_them_all_are_processes_of_this_machine() -> None:
    flow = load("  - {name: a}")
    assert (flow.deployments[0].placement, flow.ray.address) == ("local", "auto")
    assert load("  - {name: a}", "ray: local").ray.address == "local"


@pytest.mark.parametrize(
    ("executor", "with_", "where", "why"),
    [
        ("placement: ray, port: 8080", "", "port", "each replica listens at a free port of its node"),
        ("placement: rya", "", "placement", "did you mean ray?"),
        ("ray: {cpus: 1}", "", "cpus", "unknown key; accepted: num_cpus"),
        ("ray: {num_gpus: -1}", "", "num_gpus", "accepted: a number, 0 or more"),
        ("ray: {runtime_env: {working_dir: ./code}}", "", "working_dir", "give them in the Flow's ray"),
        ("ray: {runtime_env: {env_vars: {N: 1}}}", "", "env_vars", "accepted: a map of texts to texts"),
        ("placement: ray, ray: {detached: true}", "ray: local", "ray.detached", "ends with the gateway"),
        ("placement: ray", "ray: {num_cpus: 4}", "num_cpus", "only a cluster that is started here"),
    ],
)
def test_what_is_refused_says_where_and_why(executor: str, with_: str, where: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"  - {{name: a, {executor}}}", with_)

    assert where in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("of_executor", "of_flow"),
    [(", env: {CUDA_VISIBLE_DEVICES: RR, B: '1'}", ""), ("", ", env: {CUDA_VISIBLE_DEVICES: RR, B: '1'}")],
)
def test_gpus_are_rays_to_give(of_executor: str, of_flow: str) -> None:
    flow = load(f"  - {{name: a{of_executor}}}", f"placement: ray{of_flow}")
    (warning,) = flow.warnings
    assert "CUDA_VISIBLE_DEVICES is ignored: Ray sets it for each replica" in warning
    assert flow.deployments[0].executor.env == {"B": "1"}


def test_ray_settings_without_its_placement_are_warned_of() -> None:
    (warning,) = load("  - {name: a, ray: {num_cpus: 1}}").warnings
    assert "it is for placement: ray" in warning
