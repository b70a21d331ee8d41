"""Lines of the log: for people, for programs, for systemd's journal."""

import json

import pytest
from twisted.logger import Logger, capturedLogs, formatEventAsClassicLogText

from gatewayd.telemetry.logs.forms import as_json, as_text, for_journal, form_of, json_for_journal

NAMESPACE = "gatewayd.pool"


def event(level="warn", text="{deployment} lost {address}", failure=False, **fields):
    """An event as Twisted's logger makes it, at a fixed time."""
    log = Logger(namespace=NAMESPACE)
    with capturedLogs() as events:
        if failure:
            try:
                raise LookupError("not\nthere")
            except LookupError:
                log.failure(text, **fields)
        else:
            getattr(log, level)(text, **fields)
    (found,) = events
    return {**found, "log_time": 1795000000.25}


LOST = {"deployment": "a", "address": "unix:/run/a.0"}


def test_a_line_for_people_is_that_of_twistd(caught_failures):
    for found in (event(**LOST), event(text="two\nlines"), event(failure=True, **LOST)):
        assert as_text(found) == formatEventAsClassicLogText(found).replace("\n\t\n", "\n")
    caught_failures.clear()


def test_json_has_the_time_the_message_and_its_fields():
    text = as_json(event(**LOST, count=3, time="never", documents=b"secret", longer="x" * 1000))

    assert text.count("\n") == 1
    assert json.loads(text) == {
        "time": "2026-11-18T11:06:40.250000Z",
        "level": "warn",
        "namespace": NAMESPACE,
        "message": "a lost unix:/run/a.0",
        "deployment": "a",
        "address": "unix:/run/a.0",
        "count": 3,
    }


def test_a_field_with_a_name_of_the_lines_own_gets_an_underscore():
    found = json.loads(as_json(event(text="{level}", level_="x", namespace="y")))

    assert (found["namespace"], found["namespace_"]) == (NAMESPACE, "y")


def test_a_traceback_is_one_field(caught_failures):
    found = json.loads(as_json(event(failure=True, **LOST)))

    assert (found["level"], found["message"]) == ("critical", "a lost unix:/run/a.0")
    assert found["traceback"].startswith("Traceback (most recent call last):\n")
    assert found["traceback"].endswith("LookupError: not\nthere")
    caught_failures.clear()


def test_what_a_worker_sends_is_as_its_own_event():
    found = event(text="{worker}: {text}", worker="worker-1", text_="", **LOST)
    found |= {"text": "lost", "log_fields": {"request_id": "r"}, "log_traceback": "Traceback\n  here"}

    assert as_text(found).endswith("[gatewayd.pool#warn] worker-1: lost\n\tTraceback\n\t  here\n")
    line = json.loads(as_json(found))
    assert (line["worker"], line["request_id"], line["traceback"]) == (
        "worker-1",
        "r",
        "Traceback\n  here",
    )


def test_the_output_of_an_executor_is_its_own_line_and_its_name():
    found = event(text="{replica}: {line}", replica="a/rep-0", line="begun")

    assert as_text(found).endswith("] a/rep-0: begun\n")
    line = json.loads(as_json(found))
    assert (line["message"], line["replica"]) == ("begun", "a/rep-0")


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warn", 4), ("error", 3), ("critical", 2)]
)
def test_the_journal_gets_the_priority_of_each_line_and_no_time(level, priority):
    assert for_journal(event(level, "one\ntwo")) == (f"<{priority}>[gatewayd.pool] one\n<{priority}>\ttwo\n")


def test_json_for_the_journal_is_one_line_with_a_priority():
    text = json_for_journal(event("error", "one\ntwo"))

    assert text.startswith("<3>{")
    assert json.loads(text[3:])["message"] == "one\ntwo"


def test_an_event_without_a_text_is_no_line():
    found = {"log_level": event()["log_level"], "log_time": 0.0}
    assert [form(found) for form in (as_text, as_json, for_journal, json_for_journal)] == [None] * 4


def test_forms_have_names():
    assert form_of("text", journal=False) is as_text
    assert form_of("json", journal=False) is as_json
    assert form_of("text", journal=True) is for_journal
    assert form_of("json", journal=True) is json_for_journal
