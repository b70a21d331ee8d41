"""``gatewayd unit``: what the unit says of an installation, and that the wheel brings it along."""

import pwd
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from gatewayd.cli.installed import socket_unit, unit
from tests.paths import ROOT
from tests.processes import environment

TEMPLATE = (ROOT / "conf" / "gatewayd.service").read_text()
TWISTD = Path("/opt/venv/bin/twistd")
FLOW = Path("/etc/gatewayd/flow.yml")
# systemd hides it as it hides /home.
SUPERUSERS_HOME = pwd.getpwuid(0).pw_dir


def settings(*, twistd=TWISTD, flow=FLOW, read=()):
    text = unit(TEMPLATE, twistd=twistd, flow=flow, user="me", read=read)
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#")


def test_the_unit_names_twistd_the_flow_file_and_the_user():
    found = settings()

    assert (
        found["ExecStart"]
        == "/opt/venv/bin/twistd --nodaemon --pidfile= gateway --config /etc/gatewayd/flow.yml"
    )
    assert (found["User"], found["Group"]) == ("me", "me")


def test_only_command_user_and_group_differ_from_the_unit_of_the_sources():
    lines = unit(TEMPLATE, twistd=TWISTD, flow=FLOW, user="me", read=[]).splitlines()

    changed = set(lines) - set(TEMPLATE.splitlines())
    assert {line.partition("=")[0] for line in changed} == {"ExecStart", "ExecReload", "User", "Group"}
    assert lines[0] == "[Unit]"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("my flow.yml", '"/etc/my flow.yml"'),
        ("100%.yml", "/etc/100%%.yml"),
        ("$HOME.yml", "/etc/$$HOME.yml"),
        (r"back\slash.yml", r'"/etc/back\\slash.yml"'),
        ('quo"te.yml', r'"/etc/quo\"te.yml"'),
    ],
)
def test_a_path_is_one_word_to_systemd(name, word):
    found = settings(flow=Path("/etc") / name)

    assert found["ExecStart"].endswith(f" --config {word}")


def test_a_dollar_sign_in_the_path_of_the_program_stays_as_it_is():
    found = settings(twistd=Path("/opt/$x/twistd"))

    assert found["ExecStart"].startswith("/opt/$x/twistd ")


@pytest.mark.parametrize(
    ("read", "home", "tmp"),
    [
        ("/opt/venv", "yes", "yes"),
        ("/home/me/venv", "read-only", "yes"),
        (f"{SUPERUSERS_HOME}/venv", "read-only", "yes"),
        ("/tmp/venv", "yes", "no"),
    ],
)
def test_what_the_service_reads_is_not_hidden_from_it(read, home, tmp):
    found = settings(read=[Path(read)])

    assert (found["ProtectHome"], found["PrivateTmp"]) == (home, tmp)


def test_the_command_prints_the_unit_of_this_installation(tmp_path):
    flow = tmp_path / "my flow.yml"

    done = subprocess.run(
        [sys.executable, "-m", "gatewayd", "unit", str(flow)],
        env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    twistd = Path(sysconfig.get_path("scripts")) / "twistd"
    assert f'ExecStart={twistd} --nodaemon --pidfile= gateway --config "{flow}"' in done.stdout
    assert "/opt/gatewayd" not in done.stdout


@pytest.mark.parametrize(
    ("host", "places"),
    [
        ("0.0.0.0", ["8080", "12345"]),
        ("127.0.0.1", ["127.0.0.1:8080", "127.0.0.1:12345"]),
        ("::1", ["[::1]:8080", "[::1]:12345"]),
    ],
)
def test_the_unit_of_the_ports_names_each_of_them(host, places):
    lines = socket_unit(host, [8080, 12345]).splitlines()

    assert [line.partition("=")[2] for line in lines if line.startswith("ListenStream=")] == places
    assert lines[-1] == "WantedBy=sockets.target"


def test_the_command_prints_the_unit_of_the_ports(tmp_path):
    flow = tmp_path / "flow.yml"

    def printed(port):
        flow.write_text(f"jtype: Flow\ngateway: {{host: 127.0.0.1, protocol: [http, grpc], port: {port}}}\n")
        command = [sys.executable, "-m", "gatewayd", "unit", "--socket", str(flow)]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)

    assert "\nListenStream=127.0.0.1:8080\nListenStream=127.0.0.1:12345\n" in printed("[8080, 12345]").stdout
    refused = printed("[8080, 0]")
    assert refused.returncode == 1
    assert "systemd has to know each port, and grpc has none" in refused.stderr


def test_the_installed_distribution_has_the_unit_and_a_flow_to_try(tmp_path):
    # Away from the sources: what pip installed is asked.
    share = Path(sysconfig.get_path("data")) / "share" / "gatewayd"
    unit_file = share / "conf" / "gatewayd.service"
    assert unit_file.is_file(), "gatewayd is not installed, or in place: make .venv/.test"
    assert unit_file.read_text() == TEMPLATE, "an older gatewayd is installed: make .venv/.test"

    done = subprocess.run(
        [sys.executable, "-m", "gatewayd", "check", str(share / "conf" / "flow.yml")],
        env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
