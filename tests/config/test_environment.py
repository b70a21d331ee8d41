"""``env`` maps of a Flow file are visible to variables where they apply, the innermost first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatewayd.config import load_flow_text
from gatewayd.errors import ConfigError

PROCESS = {"P": "process", "V": "process"}


def arguments(text: str, base_dir: Path | str = ".") -> dict[str, Any]:
    """``uses_with`` of each executor."""
    flow = load_flow_text(text, base_dir=base_dir, environ=PROCESS)
    return {each.name: dict(each.executor.uses_with) for each in flow.deployments}


def test_each_executor_sees_its_own_env_then_the_flows_then_the_process() -> None:
    found = arguments("""
jtype: Flow
with: {env: {V: flow, W: "$P-w", N: 5}}
executors:
  - {name: a, uses: M, uses_with: {v: "${{ ENV.V }}", n: $N}, env: {V: own}}
  - {name: b, uses: M, uses_with: {v: "${{ ENV.V }}", w: "${W}", p: $P}}
""")
    assert found == {"a": {"v": "own", "n": 5}, "b": {"v": "flow", "w": "process-w", "p": "process"}}


def test_an_env_map_is_substituted_by_those_around_it() -> None:
    found = arguments(
        'jtype: Flow\nwith: {env: {V: flow}}\nexecutors: [{name: a, env: {V: "$V!"}, uses_with: {v: $V}}]'
    )
    assert found == {"a": {"v": "flow!"}}


def test_other_keys_of_the_executor_and_the_gateway_see_it() -> None:
    flow = load_flow_text(
        """
jtype: Flow
with: {env: {COUNT: 2}}
gateway: {port: "${{ ENV.PORT }}", env: {PORT: 8080}}
executors:
  - {name: a, replicas: $COUNT, timeout_send: $LIMIT, env: {LIMIT: 1500}}
  - {jtype: Deployment, with: {name: b, replicas: $COUNT, env: {COUNT: 3}}}
""",
        environ=PROCESS,
    )
    assert [each.port for each in flow.gateway.listeners] == [8080]
    assert [(each.replicas, each.timeout_send_s) for each in flow.deployments] == [(2, 1.5), (3, None)]


def test_files_that_an_executor_names_see_it(tmp_path: Path) -> None:
    # In an executor's own file, with holds arguments: an argument called env is no environment.
    (tmp_path / "executor.yml").write_text("jtype: M\nwith: {v: $V, env: {V: argument}}\n")
    (tmp_path / "deployment.yml").write_text(
        "jtype: Deployment\nwith: {name: c, env: {V: inner}, uses: executor.yml, uses_with: {x: $V, w: $W}}\n"
    )
    found = arguments(
        """
jtype: Flow
with: {env: {V: flow, W: w}}
executors:
  - {name: a, uses: executor.yml, env: {V: own}}
  - {name: b, uses: executor.yml}
  - deployment.yml
""",
        tmp_path,
    )
    argument = {"V": "argument"}
    assert found == {
        "a": {"v": "own", "env": argument},
        "b": {"v": "flow", "env": argument},
        "c": {"v": "inner", "env": argument, "x": "inner", "w": "w"},
    }


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("gateway: {port: '${{ ENV.NOPE }}'}", "gateway.port"),
        ("gateway: {retries: $NOPE}", "gateway.retries"),
        ("executors: [{name: a, replicas: '${NOPE}'}]", "executors[0].replicas"),
        ("executors: [{name: a, port: [$NOPE, 1]}]", "executors[0].port[0]"),
    ],
)
def test_a_variable_that_is_not_set_is_named_where_its_value_is_refused(text: str, where: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_flow_text(f"jtype: Flow\n{text}\n", environ=PROCESS)
    assert f"{where}: the environment variable NOPE is not set; accepted: " in str(refused.value)


def test_a_cycle_of_env_maps_is_refused() -> None:
    with pytest.raises(ConfigError, match="refer to each other"):
        load_flow_text("jtype: Flow\nwith: {env: {A: '${{ this.B }}', B: '${{ this.A }}'}}\n", environ={})
