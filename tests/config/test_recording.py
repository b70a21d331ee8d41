"""``gateway.record``: which requests are recorded, and where."""

from __future__ import annotations

import os
from typing import Any

import pytest

from gatewayd import Flow
from gatewayd.config import FlowConfig, flow_from_mapping
from gatewayd.config.recording import RecordConfig
from gatewayd.config.shares import of_slot, share_of
from gatewayd.errors import ConfigError


def flow(record: Any, **more: Any) -> FlowConfig:
    return flow_from_mapping({"gateway": {"record": record, **more}}, environ={})


def test_all_of_it() -> None:
    record = {
        "path": "/var/r.jsonl",
        "sample": 0.5,
        "max_bytes": 1_000_000,
        "redact": ["text", "parameters.*"],
    }

    assert flow(record).gateway.record == RecordConfig("/var/r.jsonl", 0.5, 1_000_000, ("text", "parameters"))


def test_what_is_kept_besides_the_sample() -> None:
    found = flow({"path": "/r", "sample": 0.1, "keep": "errors", "slower_than": 2}).gateway.record
    assert found == RecordConfig("/r", 0.1, keep="errors", slower_than_s=2.0)


def test_a_file_alone_is_found_from_the_current_folder() -> None:
    assert flow("r.jsonl").gateway.record == RecordConfig(os.path.abspath("r.jsonl"))
    assert flow_from_mapping({}).gateway.record is None


def test_in_python() -> None:
    found = Flow(record={"path": "/r.jsonl"})._description.config()

    assert found.gateway.record == RecordConfig("/r.jsonl")


def test_each_worker_has_a_share_and_a_file() -> None:
    gateway = share_of(flow({"path": "/r.jsonl", "max_bytes": 1_000_000}, workers=2).gateway)

    assert of_slot(gateway, 1).record == RecordConfig("/r.jsonl.w1", max_bytes=500_000)
    assert of_slot(flow_from_mapping({}).gateway, 1).record is None


def test_a_field_that_documents_of_the_first_generation_cannot_have_is_refused() -> None:
    record = {"path": "/r", "redact": ["fields.text", "tags.customer", "fields.custmer"]}
    problem = r"gateway\.record\.redact: fields\.custmer: documents of docarray 0\.21 have no field 'custmer'"
    with pytest.raises(ConfigError, match=problem) as caught:
        flow(record, docarray=1)

    assert "tags.customer" not in str(caught.value)
    for docarray in ("auto", 2):
        assert flow(record, docarray=docarray).gateway.record is not None


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({}, "path is missing"),
        ({"path": "/r", "samples": 1}, r"record\.samples: unknown key; .*did you mean sample\?"),
        ({"path": "/r", "sample": 2}, r"record\.sample: found 2; accepted: a number from 0 to 1"),
        ({"path": "/r", "max_bytes": 1}, r"record\.max_bytes: found 1; accepted: an integer from 65536 up"),
        ({"path": "/r", "redact": ["colour"]}, r"record\.redact: 'colour' is no field of documents"),
        ({"path": "/r", "keep": "all"}, r"record\.keep: found 'all'; accepted: sample, errors"),
        (5, r"record: found 5; accepted: a file, or a map"),
    ],
)
def test_what_is_refused(record: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        flow(record)
