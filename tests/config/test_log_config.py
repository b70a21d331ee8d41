"""What a Flow file says of the log: its own keys, and the reference's ``log_config``."""

import os

import pytest

from gatewayd import Flow
from gatewayd.config import load_flow_text
from gatewayd.config.log_kinds import AccessLogConfig
from gatewayd.errors import ConfigError

# The form of the reference's resources/logging.*.yml.
FILE = """
handlers: [StreamHandler, FileHandler]
level: WARNING
configs:
  StreamHandler: {format: '%(message)s', formatter: JsonFormatter}
  FileHandler: {format: '%(message)s', output: 'jina.log'}
"""


def load(gateway="", *, with_="", base_dir="."):
    text = f"jtype: Flow\nwith: {{{with_}}}\ngateway: {{{gateway}}}\nexecutors: [{{name: a}}]\n"
    return load_flow_text(text, environ={}, base_dir=base_dir)


def logged(flow):
    gateway = flow.gateway
    return gateway.log_level, gateway.log_format, dict(gateway.log_levels)


def problem(gateway, **options):
    with pytest.raises(ConfigError) as caught:
        load(gateway, **options)
    return str(caught.value)


def test_without_keys_the_level_is_left_to_the_way_of_running():
    assert logged(load()) == (None, "text", {})


def test_its_own_keys():
    gateway = "log_level: WARNING, log_format: json, log_levels: {gatewayd.pool: debug, executor.a: success}"
    assert logged(load(gateway)) == ("warn", "json", {"gatewayd.pool": "debug", "executor.a": "info"})


def test_levels_as_json_text():
    gateway = """log_levels: '{"gatewayd.pool": "DEBUG"}'"""
    assert load(gateway).gateway.log_levels == {"gatewayd.pool": "debug"}


def test_they_may_stand_in_with_and_in_python():
    assert logged(load(with_="log_level: debug"))[0] == "debug"
    assert Flow(log_level="error")._description.config().gateway.log_level == "error"


@pytest.mark.parametrize(
    ("gateway", "text"),
    [
        ("log_level: loud", "gateway.log_level: found 'loud'; accepted: debug, info, warn, error, critical"),
        ("log_levels: {gatewayd.pool: loud}", "gateway.log_levels.gatewayd.pool: found 'loud'; accepted:"),
        ("log_levels: {a..b: info}", "'a..b' is no namespace; accepted: the name of a module"),
        ("log_levels: info", "accepted: a map of namespaces, such as gatewayd.pool, to debug"),
        ("log_format: xml", "accepted: text, json"),
        ("log_config: [json]", "accepted: default, json, quiet, the path of a YAML file"),
        ("log_config: none.yml", "cannot be read (No such file or directory); accepted: default, json"),
        ('log_config: "a\\0b"', "cannot be read (embedded null byte); accepted: default, json"),
        ("log_config: {level: loud}", "level: 'loud' is no level; accepted: debug, info, success"),
        ("log_config: {handlers: 3}", "handlers has to be a list of names"),
    ],
)
def test_what_is_wrong_is_told_by_key(gateway, text):
    assert text in problem(gateway)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("default", (None, "text", {})),
        ("json", (None, "json", {})),
        ("logging.json.yml", (None, "json", {})),
        ("quiet", ("critical", "text", {})),
        ("docker", (None, "text", {})),
    ],
)
def test_presets_of_the_reference(named, expected):
    assert logged(load(with_=f"log_config: {named}")) == expected


def test_a_file_of_the_reference(tmp_path):
    (tmp_path / "log.yml").write_text(FILE)
    flow = load("log_config: log.yml", base_dir=tmp_path)

    assert logged(flow) == ("warn", "json", {})
    assert flow.warnings == (
        "<text>:3:11: gateway.log_config: FileHandler is ignored: the log goes where the start says "
        "(twistd's --logfile, --syslog)",
    )


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "log.yml").write_text("level: [")
    (tmp_path / "list.yml").write_text("[level]")
    assert "is not YAML" in problem("log_config: log.yml", base_dir=tmp_path)
    assert "holds no map" in problem("log_config: list.yml", base_dir=tmp_path)


def test_own_keys_come_before_it():
    assert logged(load("log_config: {level: ERROR}, log_level: debug"))[0] == "debug"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("false", None),
        ("true", AccessLogConfig()),
        ("{}", AccessLogConfig()),
        ("{path: a.log}", AccessLogConfig(path=os.path.abspath("a.log"))),
        ("{path: /a.log, sample: 0.5, format: JSON}", AccessLogConfig("/a.log", 0.5, "json")),
    ],
)
def test_the_access_log(written, expected):
    assert load(f"access_log: {written}").gateway.access_log == expected


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("often", "gateway.access_log: found 'often'; accepted: true, false, or a map of path, sample,"),
        ("{paht: x}", "gateway.access_log.paht: unknown key of access_log; did you mean path?"),
        ("{sample: 2}", "gateway.access_log.sample: found 2; accepted: a number from 0 to 1"),
        ("{format: xml}", "accepted: text, json"),
    ],
)
def test_what_is_wrong_with_the_access_log(written, text):
    assert text in problem(f"access_log: {written}")


def test_the_access_log_of_a_flow_in_python():
    found = Flow(access_log={"sample": 0.5})._description.config().gateway.access_log
    assert found == AccessLogConfig(sample=0.5)


def test_an_executors_is_ignored():
    text = "jtype: Flow\nexecutors: [{name: a, log_config: json}]\n"
    (warning,) = load_flow_text(text, environ={}).warnings
    assert warning.endswith(
        "log_config: ignored: Executors write to the gateway's log: see log_levels there."
    )
