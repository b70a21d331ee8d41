"""What ``gatewayd top`` draws of two states, and what it says of a site that has none."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from gatewayd.cli.top import picture, show_top

BOUNDS = [0.01, 0.1]


def times(*counts: int) -> dict[str, Any]:
    return {"bounds_s": BOUNDS, "counts": list(counts), "total_s": 1.0, "p50_s": None, "p99_s": None}


def state(*, asked: int = 0, failed: int = 0, **more: Any) -> dict[str, Any]:
    replica = {
        "deployment": "indexer", "shard": 0, "replica": "0", "connected": True, "ejected": False,
        "in_flight": 1, "state": "ready", "pid": 7, "restarts": 2, "memory_bytes": 3 << 20, "cpu_s": 1.0,
        "last_words": None,
    }  # fmt: skip
    deployment = {
        "name": "indexer", "needs": ["gateway"], "attempts": asked, "errors": failed, "queued": 3,
        "in_flight": 1, "retries": {"UNAVAILABLE": 0}, "times": times(asked, 0, 0),
    }  # fmt: skip
    requests = {
        "protocol": "http", "endpoint": "/search",
        "outcomes": {"ok": asked - failed, "executor_error": failed}, "times": times(0, asked, 0),
    }  # fmt: skip
    return {
        "version": "1", "flow": "pictures", "phase": "serving", "ready": True, "reasons": [], "under_way": 1,
        "ports": [{"connections": 5}], "requests": [requests], "deployments": [deployment],
        "replicas": [replica], "failures": [], **more,
    }  # fmt: skip


def drawn(before: dict[str, Any], now: dict[str, Any], lasted_s: float, width: int = 150) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(picture(before, now, lasted_s))
    return out.getvalue()


def test_rates_are_of_the_time_in_between() -> None:
    text = drawn(state(asked=100, failed=10), state(asked=300, failed=14), 2.0)

    title, _, _, deployment, *_ = text.splitlines()
    assert title.startswith("pictures  ready  100/s, 2.0/s failed, 1 under way, 5 connections")
    assert deployment.split() == [
        "indexer",
        "100/s",
        "5",
        "ms",
        "9.9",
        "ms",
        "1",
        "3",
        "2.0/s",
        "0/s",
        *["1", "of", "1"],
    ]
    assert "14 executor_error" in text


@pytest.mark.parametrize(
    ("documents", "shown"), [(None, "not known yet"), ("docarray 0.30 and later", "docarray 0.30 and later")]
)
def test_it_says_which_documents_the_flow_speaks(documents: str | None, shown: str) -> None:
    assert f"connections  documents: {shown}  gatewayd 1" in drawn(state(), state(documents=documents), 1.0)


@pytest.mark.parametrize(("wanted", "shown"), [(3, "1 of 3"), (1, "1 of 1")])
def test_of_replicas_that_are_scaled_it_shows_how_many_are_wanted(wanted: int, shown: str) -> None:
    scaled = {**state()["deployments"][0], "wanted": wanted}

    assert shown in drawn(state(), state(deployments=[scaled]), 1.0)


def test_one_that_needs_no_replica_is_not_down() -> None:
    resting = {**state()["deployments"][0], "wanted": 0}

    assert "0 of 0" in drawn(state(), state(deployments=[resting], replicas=[]), 1.0)


def test_a_gateway_that_is_not_ready_says_why() -> None:
    reasons = [{"reason": "no_replica", "detail": "no replica of indexer is connected"}]
    lost = {
        **state()["replicas"][0],
        "connected": False,
        "state": "waiting",
        "last_words": "killed by SIGKILL",
    }

    text = drawn(state(), state(ready=False, reasons=reasons, replicas=[lost]), 1.0)

    assert "not ready" in text
    assert "no replica of indexer is connected" in text
    assert "waiting" in text
    assert "killed by SIGKILL" in text


def test_counts_that_were_begun_anew_are_no_negative_rate() -> None:
    assert "-" not in drawn(state(asked=300), state(asked=5), 1.0).splitlines()[0].replace("not ready", "")


def test_the_last_failures_come_first() -> None:
    failures = [
        {"at_s": 0.0, "request_id": name, "outcome": "deadline", "reason": "too late"}
        for name in ("one", "two")
    ]
    text = drawn(state(), state(failures=failures), 1.0)

    assert text.index("two") < text.index("one  ")
    assert "too late" in text


def test_where_it_is_narrow_reasons_are_cut_and_ids_are_not() -> None:
    request_id = "7ffc14fe0d2c72d5b0331dd23c2e139b"
    failed = {"at_s": 0.0, "request_id": request_id, "outcome": "executor_error", "reason": "no model " * 20}

    text = drawn(state(), state(failures=[failed]), 1.0, width=80)

    (line,) = (line for line in text.splitlines() if request_id in line)
    assert "executor_error  no model" in line
    assert line.rstrip().endswith("\N{HORIZONTAL ELLIPSIS}")


def test_nothing_that_answers_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_top("127.0.0.1:1", 1.0, once=True) == 1
    assert "127.0.0.1:1 does not answer as an admin site: " in capsys.readouterr().err


def test_texts_of_clients_are_no_markup() -> None:
    failed = {"at_s": 0.0, "request_id": "[/x][red]a", "outcome": "deadline", "reason": "[bold]"}

    text = drawn(state(), state(failures=[failed]), 1.0)

    assert "[/x][red]a" in text
    assert "[bold]" in text
