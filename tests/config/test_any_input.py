"""Whatever the text, a load gives a Flow or a ConfigError, and soon."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewayd.config import FlowConfig, flow_from_mapping, graph_description, load_flow_text
from gatewayd.config.keys import SECTIONS
from gatewayd.errors import ConfigError

pytestmark = pytest.mark.slow

WORDS = sorted(
    {word for section in SECTIONS for word in section.words()} | {"/x", "tags__k", "$eq", "$and", "x-y"}
)
TEXTS = st.sampled_from(
    ["Flow", "Deployment", "gateway", "a", "executor0", "add", "needs", "needs_all", "grpc", "http+websocket",
     "1,2", "grpcs://h:1", "[::1]:2", "any", "gzip", "${{ ENV.A }}", "$A", "${{root.with}}", "${{this.name}}",
     "${{ c }}", "{}", '{"jtype": "X"}', "jtype: [", "x.yml", "!X {}", "docker://x", "m:C",
     "\x00", "~nobody/x.py", ""]
) | st.text(max_size=8)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | TEXTS, inner, max_size=4)
    ),
    max_leaves=12,
)
EXECUTOR_WORDS = [
    "name",
    "needs",
    "method",
    "floating",
    "host",
    "port",
    "external",
    "replicas",
    "uses",
    "tls",
    "when",
]
ITEMS = st.dictionaries(st.sampled_from(EXECUTOR_WORDS), VALUES, max_size=4) | VALUES
FLOWS = st.fixed_dictionaries(
    {"jtype": st.just("Flow")},
    optional={"with": VALUES, "gateway": VALUES, "executors": st.lists(ITEMS, max_size=4)},
)
FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(FLOWS | VALUES)
def test_any_mapping_is_a_flow_or_a_config_error(value: Any) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(flow_from_mapping(value, environ={}), FlowConfig)


@FEW
@given(FLOWS)
def test_any_yaml_is_a_flow_or_a_config_error(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    with contextlib.suppress(ConfigError):
        assert isinstance(load_flow_text(text, environ={"A": "[1, a]"}, context={"c": {"d": 1}}), FlowConfig)


@FEW
@given(st.text() | st.text(alphabet="jtype: Flow\n[]{}&*!|>'\"-$%@`#,?<", max_size=60))
def test_any_text_is_a_flow_or_a_config_error(text: str) -> None:
    for whole in (text, f"jtype: Flow\n{text}"):
        with contextlib.suppress(ConfigError):
            assert isinstance(load_flow_text(whole, environ={}), FlowConfig)


NAMES = ["a", "b", "c", "d", "e"]


@FEW
@given(
    st.lists(st.tuples(st.lists(st.sampled_from(["gateway", *NAMES]), max_size=3), st.booleans()), max_size=5)
)
def test_a_graph_that_is_accepted_has_one_answer_and_no_other_end(
    wishes: list[tuple[list[str], bool]],
) -> None:
    items = [
        {"name": name, "needs": needs, "floating": floating}
        for name, (needs, floating) in zip(NAMES, wishes, strict=False)
    ]
    try:
        flow = flow_from_mapping({"executors": items}, environ={})
    except ConfigError:
        return
    graph = graph_description(flow)
    answers = [name for name, followers in graph.items() if "end-gateway" in followers]
    assert answers == [each.name for each in flow.deployments if not each.floating][-1:]
    for each in flow.deployments:
        assert each.needs
        assert graph[each.name] or each.floating


def test_loading_a_small_file_takes_few_calls() -> None:
    text = "jtype: Flow\ngateway: {protocol: [grpc, http], port: [1, 2]}\nexecutors:\n" + "".join(
        f"  - {{name: e{index}, uses: m.C{index}, uses_with: {{a: 1}}, port: {5000 + index}}}\n"
        for index in range(5)
    )
    load_flow_text(text, environ={})  # what is imported or compiled at first use
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        load_flow_text(text, environ={})
    finally:
        sys.setprofile(None)
    # About 15 ms; counted, since time depends on what else the machine does.
    assert calls < 40_000
