"""The systemd unit: what it restricts, and that the gateway and its executors work under its restrictions."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.processes import Child, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here"),
]

TEMPLATE = (ROOT / "conf" / "gatewayd.service").read_text()
GPU = ("PrivateDevices=no", "DevicePolicy=closed", "DeviceAllow=char-nvidia* rw", "DeviceAllow=char-kfd rw")
LOW_PORTS = ("CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE")
READ_ONLY = 'mount --make-rprivate / && mount --bind "$PWD" "$PWD" && mount -o remount,bind,ro / && exec "$@"'
# Becomes the command under what the unit's lines do, but for namespaces: the umask, no capabilities, no new
# privileges, and the filter of system calls.
RESTRICTED = """
import ctypes, json, os, sys
order = json.loads(sys.argv[1])
os.umask(0o077)
libc, seccomp = ctypes.CDLL(None, use_errno=True), ctypes.CDLL("libseccomp.so.2")
number = 0
while libc.prctl(23, number, 0, 0, 0) >= 0:
    libc.prctl(24, number, 0, 0, 0)
    number += 1
assert libc.prctl(38, 1, 0, 0, 0) == 0
seccomp.seccomp_init.restype = ctypes.c_void_p
context = ctypes.c_void_p(seccomp.seccomp_init(0x00050000 | order["errno"]))
for name in order["allowed"]:
    found = seccomp.seccomp_syscall_resolve_name(name.encode())
    if found != -1:
        assert seccomp.seccomp_rule_add(context, 0x7FFF0000, found, 0) == 0
assert seccomp.seccomp_load(context) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


def analyze(*arguments: str) -> str:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def with_lines(*lines: str) -> str:
    """The unit with some of its commented lines in force, in place of those that set the same keys."""
    text = TEMPLATE
    for line in lines:
        assert f"\n#{line}\n" in text, line
        key = line.partition("=")[0]
        text = re.sub(rf"^{key}=(yes)?\n", "", text, flags=re.MULTILINE)
    for line in lines:
        text = text.replace(f"\n#{line}\n", f"\n{line}\n")
    return text


@pytest.mark.parametrize("relaxed", [(), GPU, LOW_PORTS], ids=["as it is", "GPUs", "ports below 1024"])
def test_systemd_rates_the_exposure_of_the_unit_as_ok(tmp_path: Path, relaxed: tuple[str, ...]) -> None:
    unit = tmp_path / "gatewayd.service"
    unit.write_text(with_lines(*relaxed))

    rated = analyze("security", "--offline=true", "--no-pager", str(unit))

    found = re.search(r"Overall exposure level for gatewayd\.service: ([\d.]+) OK", rated)
    assert found is not None, rated
    assert float(found[1]) < 2.5


def test_every_commented_line_is_one_that_systemd_knows(tmp_path: Path) -> None:
    settings = re.findall(r"^#([A-Z]\w+=.*)$", TEMPLATE, re.MULTILINE)
    assert len(settings) > 8
    text = re.sub(r"^#([A-Z]\w+=.*)$", r"\1", TEMPLATE, flags=re.MULTILINE)
    text = re.sub("/opt/gatewayd/venv/bin/(twistd|gatewayd)", sys.executable, text)
    (tmp_path / "gatewayd.service").write_text(text)

    ended = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "gatewayd.service")], capture_output=True, text=True
    )

    assert (ended.returncode, ended.stderr) == (0, "")


def system_calls() -> list[str]:
    """What the unit's SystemCallFilter lines leave."""
    allowed: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.+)$", TEMPLATE, re.MULTILINE):
        names = line.removeprefix("~").split()
        found = set()
        while names:
            name = names.pop()
            if name.startswith("@"):
                names += re.findall(r"^    ([@\w-]+)$", analyze("syscall-filter", name), re.MULTILINE)
            else:
                found.add(name)
        allowed = allowed - found if line.startswith("~") else allowed | found
    return sorted(allowed)


def can_mount() -> bool:
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return sys.platform == "linux" and os.geteuid() == 0 and done.returncode == 0


@pytest.mark.parametrize("read_only", [False, True], ids=["writable files", "read-only files"])
def test_a_flow_is_served_under_the_unit_s_restrictions(tmp_path: Path, read_only: bool) -> None:
    if read_only and not can_mount():
        pytest.skip("needs to mount file systems")
    try:
        subprocess.run(
            [sys.executable, "-c", "import ctypes; ctypes.CDLL('libseccomp.so.2')"],
            check=True,
            capture_output=True,
        )
    except subprocess.CalledProcessError:
        pytest.skip("there is no libseccomp here")
    allowed = system_calls()
    assert "openat" in allowed
    assert "reboot" not in allowed
    (tmp_path / "flow.yml").write_text(
        "jtype: Flow\n"
        "gateway: {host: 127.0.0.1, protocol: [grpc, http, websocket], port: [0, 0, 0]}\n"
        f"with: {{workspace: {tmp_path}/state, py_modules: {ROOT}/examples/search/executors.py}}\n"
        "executors: [{name: encoder, uses: HashEncoder, replicas: 2}, {name: indexer, uses: SqliteIndexer}]\n"
    )
    (tmp_path / "run").mkdir(mode=0o700)
    order = json.dumps({"allowed": allowed, "errno": 1})
    twistd = [
        sys.executable,
        "-c",
        "from twisted.scripts.twistd import run; run()",
        "--nodaemon",
        "--pidfile=",
    ]
    command = [sys.executable, "-c", RESTRICTED, order, *twistd, "gateway", "--config", "flow.yml"]
    if read_only:
        command = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", *command]
    # Sockets have paths of 107 bytes at most, and pytest's folders may be deep.
    short = Path("/tmp") / f"gatewayd-unit-{os.getpid()}"
    short.symlink_to(tmp_path / "run")
    try:
        gateway = Child(command, cwd=tmp_path, env=environment(RUNTIME_DIRECTORY=str(short)))
        try:
            (found,) = gateway.line(r"http on 127\.0\.0\.1:(\d+)")
            gateway.line("#info] ready")
            (link, *_) = gateway.line(r"serves at unix:(\S+)")
            assert link[1].startswith(f"{short}/")
            for path, text in (("index", "a red apple"), ("search", "apples")):
                asked = urllib.request.Request(
                    f"http://127.0.0.1:{found[1]}/{path}",
                    json.dumps({"data": [{"text": text}]}).encode(),
                    {"content-type": "application/json"},
                )
                with urllib.request.urlopen(asked, timeout=30) as response:
                    answer = json.load(response)
            assert answer["data"][0]["matches"][0]["text"] == "a red apple"
        finally:
            assert gateway.stop() == 0
        assert not any((tmp_path / "run").iterdir())
        files = [*(tmp_path / "state").rglob("*")]
        assert files
        assert not [path for path in files if path.stat().st_mode & 0o077]
    finally:
        short.unlink()
