"""conf/monitoring/: dashboard and alerts ask for what exists, and alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatewayd.telemetry.metrics import table
from tests.paths import ROOT

FOLDER = ROOT / "conf" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text())
RULES = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

BY_SAMPLE = {name: metric for metric in table.METRICS for name in metric.samples()}
# Those of every metric that is scraped, and a bucket's.
EVERYWHERE = {"job", "instance", "le"}


def expressions() -> Iterator[tuple[str, str]]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in RULES:
        yield rule["alert"], rule["expr"]


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\bgatewayd_\w+", expression))


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_what_is_asked_for_exists(title: str, expression: str) -> None:
    names = metrics_in(expression)
    assert names <= BY_SAMPLE.keys()
    known = {label for name in names for label in BY_SAMPLE[name].labels} | EVERYWHERE
    grouped = {
        label.strip() for found in re.findall(r"by \(([^)]*)\)", expression) for label in found.split(",")
    }
    assert grouped <= known
    for name, matchers in re.findall(r"\b(gatewayd_\w+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels <= {*BY_SAMPLE[name].labels, *EVERYWHERE}


def test_texts_name_labels_that_are_there() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            _check_labels(target["expr"], re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"]))
    for rule in RULES:
        texts = " ".join(rule["annotations"].values())
        _check_labels(rule["expr"], re.findall(r"\$labels\.(\w+)", texts))


def _check_labels(expression: str, labels: list[str]) -> None:
    names = metrics_in(expression)
    assert set(labels) <= {label for name in names for label in BY_SAMPLE[name].labels} | EVERYWHERE
    # What is summed away is not there any more.
    for found in re.findall(r"by \(([^)]*)\)", expression)[:1]:
        assert set(labels) <= {label.strip() for label in found.split(",")}


def test_the_dashboard_shows_every_metric_that_tells_of_load_or_failure() -> None:
    shown = {BY_SAMPLE[name].name for _, expression in expressions() for name in metrics_in(expression)}

    # What is left is the same in other words, of one replica; or it tells of the version or the documents.
    assert {metric.name for metric in table.METRICS} - shown <= {
        table.INFO.name,
        table.GENERATION.name,
        table.REPLICA_CONNECTED.name,
        table.REPLICA_UP.name,
    }


def test_its_panels_have_places_and_numbers_of_their_own() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def promtool(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_promtool_reads_the_rules_and_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "alerts.yml", folder=FOLDER)
    recorded = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, (_, expression) in enumerate(expressions())
    ]
    file = tmp_path / "recorded.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    promtool("check", "rules", file.name, folder=tmp_path)


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    own = {"job": "gatewayd", "instance": "a:9100", **labels}
    return {
        "series": name + "{" + ",".join(f'{key}="{value}"' for key, value in own.items()) + "}",
        "values": values,
    }


PART = {"deployment": "ranker", "shard": "0"}
# What a series has to be for each alert, and after how many minutes it fires.
FIRES: dict[str, tuple[list[dict[str, str]], int]] = {
    "GatewaydDown": ([series("up", "0x30")], 5),
    "GatewaydNotReady": ([series("gatewayd_ready", "0x30")], 5),
    "GatewaydNoReplica": ([series("gatewayd_deployment_connected_replicas", "0x30", **PART)], 5),
    "GatewaydFailing": (
        [
            series(
                "gatewayd_requests_total", "0+10x30", protocol="http", endpoint="/x", outcome="unavailable"
            ),
            series("gatewayd_requests_total", "0+90x30", protocol="http", endpoint="/x", outcome="ok"),
        ],
        15,
    ),
    "GatewaydBug": (
        [series("gatewayd_requests_total", "0 0 1x28", protocol="http", endpoint="/x", outcome="internal")],
        5,
    ),
    "GatewaydSlow": (
        [
            series("gatewayd_request_duration_seconds_bucket", "0+50x30", protocol="http", le="5.0"),
            series("gatewayd_request_duration_seconds_bucket", "0+60x30", protocol="http", le="10.0"),
            series("gatewayd_request_duration_seconds_bucket", "0+60x30", protocol="http", le="+Inf"),
        ],
        20,
    ),
    "GatewaydQueueing": ([series("gatewayd_deployment_queued", "3x30", **PART)], 15),
    "GatewaydRetryBudgetSpent": ([series("gatewayd_deployment_retry_budget", "0.4x30", **PART)], 10),
    "GatewaydReplicaRestarts": (
        [series("gatewayd_replica_restarts_total", "0+1x30", replica="0", **PART)],
        20,
    ),
    "GatewaydReplicaEjected": ([series("gatewayd_replica_ejected", "1x30", replica="0", **PART)], 10),
    "GatewaydWorkerRestarts": ([series("gatewayd_worker_restarts_total", "0+1x30", process="worker-1")], 20),
    "GatewaydSilentProcesses": ([series("gatewayd_silent_processes", "1x30", kind="worker")], 10),
    "GatewaydConnectionsNearLimit": (
        [
            series("gatewayd_connections", "90x30", protocols="http", port="80"),
            series("gatewayd_connections_limit", "100x30"),
        ],
        10,
    ),
    "GatewaydBytesNearLimit": (
        [
            series("gatewayd_held_bytes", "90x30", buffer="requests"),
            series("gatewayd_held_bytes_limit", "100x30", buffer="requests"),
        ],
        5,
    ),
    "GatewaydReactorLate": (
        [
            series("gatewayd_reactor_lag_seconds_bucket", "0+50x30", process="gateway", le="0.1"),
            series("gatewayd_reactor_lag_seconds_bucket", "0+60x30", process="gateway", le="0.25"),
            series("gatewayd_reactor_lag_seconds_bucket", "0+60x30", process="gateway", le="+Inf"),
        ],
        15,
    ),
    "GatewaydRatesStoreLost": ([series("gatewayd_rates_store_lost", "1x30")], 5),
}
# A gateway that is well, for as long.
WELL = [
    series("up", "1x30"),
    series("gatewayd_ready", "1x30"),
    series("gatewayd_deployment_connected_replicas", "2x30", **PART),
    series("gatewayd_deployment_connected_replicas", "1x9 0x20", deployment="resting", shard="0"),
    series("gatewayd_deployment_wanted_replicas", "1x9 0x20", deployment="resting", shard="0"),
    series("gatewayd_requests_total", "0+100x30", protocol="http", endpoint="/x", outcome="ok"),
    series("gatewayd_requests_total", "0+50x30", protocol="http", endpoint="/x", outcome="cancelled"),
    series("gatewayd_request_duration_seconds_bucket", "0+100x30", protocol="http", le="0.1"),
    series("gatewayd_request_duration_seconds_bucket", "0+100x30", protocol="http", le="+Inf"),
    series("gatewayd_deployment_queued", "0 3 0 1 0 0 2 0x23", **PART),
    series("gatewayd_deployment_retry_budget", "1000x30", **PART),
    series("gatewayd_replica_restarts_total", "1x30", replica="0", **PART),
    series("gatewayd_replica_ejected", "0 1 1 0x27", replica="0", **PART),
    series("gatewayd_connections", "10x30", protocols="http", port="80"),
    series("gatewayd_connections_limit", "100x30"),
    series("gatewayd_reactor_lag_seconds_bucket", "0+240x30", process="gateway", le="0.001"),
    series("gatewayd_reactor_lag_seconds_bucket", "0+240x30", process="gateway", le="+Inf"),
    series("gatewayd_rates_store_lost", "0 0 0 1 1 0x25"),
]


@needs_promtool
def test_each_alert_fires_when_it_should_and_none_for_a_gateway_that_is_well(tmp_path: Path) -> None:
    assert FIRES.keys() == {rule["alert"] for rule in RULES}
    # promtool compares labels and texts as well: here it is asked for how many there are.
    count = 'count(ALERTS{alertname="%s", alertstate="firing"})'

    def asked(minute: int, name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
        return {"expr": count % name, "eval_time": f"{minute}m", "exp_samples": found}

    tests: list[dict[str, Any]] = [
        {
            "interval": "1m",
            "input_series": given,
            "promql_expr_test": [asked(minute, name, [{"labels": "{}", "value": 1}])],
        }
        for name, (given, minute) in FIRES.items()
    ]
    tests.append(
        {
            "interval": "1m",
            "input_series": WELL,
            "promql_expr_test": [asked(minute, name, []) for name in FIRES for minute in (5, 10, 20, 30)],
        }
    )
    file = tmp_path / "tests.yml"
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    file.write_text(
        yaml.safe_dump({"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests})
    )
    promtool("test", "rules", file.name, folder=tmp_path)
