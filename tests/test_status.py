import json
import uuid

import pytest

from gatewayd.messages.generations import Generation
from gatewayd.status import status_maps, status_of, with_documents
from tests.paths import GOLDEN

RECORDED = json.loads((GOLDEN / "status.json").read_text())["http GET /status"]["json"]


def test_every_recorded_key_is_there_and_every_value_is_text():
    versions, environment = status_maps({})

    assert set(RECORDED["jina"]) <= set(versions)
    assert set(RECORDED["envs"]) <= set(environment)
    assert all(isinstance(value, str) for value in [*versions.values(), *environment.values()])


def test_what_the_reference_fixes_is_the_same_here():
    versions, _ = status_maps({})

    fixed = {key: value for key, value in RECORDED["jina"].items() if value != "<volatile>"}
    assert {key: versions[key] for key in fixed} == fixed


def test_a_variable_shows_its_value_and_is_unset_otherwise():
    _, environment = status_maps({"JINA_LOG_LEVEL": "DEBUG"})

    assert environment["JINA_LOG_LEVEL"] == "DEBUG"
    assert environment["JINA_LOG_CONFIG"] == "(unset)"


def test_secrets_show_only_that_they_are_set():
    _, environment = status_maps({"JINA_AUTH_TOKEN": "hush", "JINA_STREAMER_ARGS": '{"a": "10.0.0.1:1"}'})

    assert environment["JINA_AUTH_TOKEN"] == "(set)"
    assert environment["JINA_STREAMER_ARGS"] == "(hidden)"
    assert status_maps({})[1]["JINA_AUTH_TOKEN"] == "(unset)"


def test_only_the_session_differs_between_two_calls():
    (first, environment), (second, again) = status_maps({}), status_maps({})

    assert environment == again
    assert {key for key in first if first[key] != second[key]} == {"session-id"}
    assert uuid.UUID(first["session-id"]).version == 4


def test_nothing_tells_which_machine_it_is():
    versions, environment = status_maps()

    mac = uuid.getnode()
    shown = " ".join([*versions.values(), *environment.values()]).lower()
    assert str(mac) not in shown
    assert f"{mac:012x}" not in shown.replace(":", "").replace("-", "")
    assert uuid.UUID(versions["session-id"]).node != mac
    assert versions["uid"].isdecimal()


def test_replicas_that_are_scaled_are_counted_without_their_names() -> None:
    assert status_of(replicas=(1, 3))["jina"]["gatewayd-replicas"] == "1 of 3 that are wanted serve"
    assert "gatewayd-replicas" not in status_of()["jina"]


@pytest.mark.parametrize(
    ("generation", "told"),
    [(None, "not known yet"), (Generation.FIRST, "docarray 0.21 and earlier")],
)
def test_which_documents_the_flow_speaks(generation, told):
    found = with_documents(status_of(), generation)

    assert found["jina"]["gatewayd-documents"] == told
    assert found["jina"]["jina"] == "3.14.1"
