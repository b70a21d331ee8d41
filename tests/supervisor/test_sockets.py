"""The private folder of executors' sockets: where it is made, who may enter it, and when it goes."""

import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from gatewayd.config import DeploymentConfig
from gatewayd.errors import ConfigError
from gatewayd.schemes import socket_path
from gatewayd.supervisor.sockets import SocketFolder
from tests.equivalence.asking import Answered, Question, Refused, over_unary
from tests.paths import ROOT
from tests.processes import Child, Gateway, environment
from tests.supervisor.test_supervisor import Setup


@pytest.fixture
def parent():
    """A folder whose path is short enough, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as name:
        yield Path(name)


def bound(path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)


def test_only_this_user_can_enter_the_folder(parent):
    folder = SocketFolder.create({"XDG_RUNTIME_DIR": str(parent)})
    assert folder.path.parent == parent
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.remove()
    assert not any(parent.iterdir())


@pytest.mark.parametrize(
    "name", ["encoder", "encoder/uses_before-0", "a" * 300, "Kodierer für Bücher", "../x"]
)
def test_every_name_gets_a_path_of_its_own_at_which_a_socket_can_listen(parent, name):
    long = parent / ("x" * (70 - len(str(parent)) - 1 - 25))
    long.mkdir()
    folder = SocketFolder.create({"TMPDIR": str(long)})
    paths = {folder.socket_for(name) for _ in range(2)}
    for path in paths:
        assert Path(path).parent == folder.path
        bound(path)
    assert len(paths) == 2
    folder.remove()
    assert not folder.path.exists()


def test_the_service_manager_s_folder_comes_first_and_one_with_a_long_path_is_left_out(parent):
    long = parent / ("x" * 80)
    long.mkdir()
    places = {"RUNTIME_DIRECTORY": f"{parent}:/run/other", "XDG_RUNTIME_DIR": "/tmp"}
    folder = SocketFolder.create(places)
    assert folder.path.parent == parent
    folder.remove()

    folder = SocketFolder.create({**places, "RUNTIME_DIRECTORY": str(long)})
    assert folder.path.parent == Path("/tmp")
    folder.remove()


def test_a_folder_in_which_other_users_may_rename_ours_is_not_used(parent):
    open_to_all = parent / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    folder = SocketFolder.create({"XDG_RUNTIME_DIR": str(open_to_all), "TMPDIR": str(parent)})
    assert folder.path.parent == parent
    folder.remove()


def test_without_any_fit_folder_the_error_names_each_and_says_what_to_do(parent, monkeypatch):
    monkeypatch.setattr("gatewayd.supervisor.sockets._parents", lambda environment: [parent / "missing"])
    with pytest.raises(ConfigError, match=r"missing: No such file or directory\); set TMPDIR .* or give"):
        SocketFolder.create()


def test_what_a_killed_process_left_behind_is_removed_and_what_lives_or_is_not_ours_stays(parent):
    where = {"TMPDIR": str(parent)}
    making = (
        "import os, signal\n"
        "from gatewayd.supervisor.sockets import SocketFolder\n"
        f"folder = SocketFolder.create({where!r})\n"
        "import socket; socket.socket(socket.AF_UNIX).bind(folder.socket_for('a'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", making], check=False).returncode == -signal.SIGKILL
    (left_behind,) = parent.iterdir()
    assert len(list(left_behind.iterdir())) == 2
    other = parent / "gatewayd-test-x"
    other.mkdir()
    with_files = parent / "gatewayd-sockets-files"
    with_files.mkdir()
    (with_files / "notes.txt").touch()
    os.utime(with_files, (time.time() - 3600,) * 2)
    new = parent / "gatewayd-sockets-new"
    new.mkdir()

    living = SocketFolder.create(where)
    another = SocketFolder.create(where)
    assert set(parent.iterdir()) == {other, with_files, new, living.path, another.path}
    assert (with_files / "notes.txt").exists()
    living.remove()
    another.remove()


def test_a_folder_without_a_lock_is_removed_when_it_is_old(parent):
    old = parent / "gatewayd-sockets-old"
    old.mkdir()
    os.utime(old, (time.time() - 3600,) * 2)
    folder = SocketFolder.create({"TMPDIR": str(parent)})
    assert not old.exists()
    folder.remove()


def test_the_end_of_the_process_removes_the_folder(parent):
    importing = "from gatewayd.supervisor.sockets import SocketFolder"
    making = f"{importing}; SocketFolder.create({{'TMPDIR': {str(parent)!r}}})"
    subprocess.run([sys.executable, "-c", making], check=True)
    assert not any(parent.iterdir())


def test_the_lock_is_not_inherited_by_executors(parent):
    folder = SocketFolder.create({"TMPDIR": str(parent)})
    with subprocess.Popen(["sleep", "60"]) as child:
        folder.remove()
        kept = parent / "gatewayd-sockets-kept"
        kept.mkdir()
        lock = os.open(kept / "lock", os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.close(lock)
        SocketFolder.create({"TMPDIR": str(parent)}).remove()
        assert not kept.exists()
        child.kill()


def test_replicas_listen_at_sockets_unless_the_flow_names_a_port_or_a_host(parent):
    folder = SocketFolder.create({"TMPDIR": str(parent)})
    setup = Setup(
        DeploymentConfig("many", replicas=2, shards=2),
        DeploymentConfig("named", ports=(7001,)),
        DeploymentConfig("mixed", replicas=2, ports=(0, 7002)),
        DeploymentConfig("hosted", host="0.0.0.0"),
        sockets=folder,
    )
    found = [(each.spec.deployment, each.spec.port, each.spec.socket) for each in setup.processes]
    assert [(name, port, bool(path)) for name, port, path in found] == [
        *[("many", 0, True)] * 4,
        ("named", 7001, False),
        ("mixed", 0, True),
        ("mixed", 7002, False),
        ("hosted", 0, False),
    ]
    paths = [path for *_, path in found if path]
    assert len(set(paths)) == 5

    # A replica that is started again listens at the same path.
    setup.processes[0].exit(code=1)
    setup.reactor.advance(1.0)
    assert setup.processes[-1].spec.socket == paths[0]

    setup.supervisor.stop(1.0)
    assert folder.path.exists()
    for process in setup.processes:
        if not process.exited:
            process.exit()
    setup.reactor.advance(1.0)
    assert not folder.path.exists()


def test_a_gateway_calls_its_executors_at_sockets_in_a_folder_that_goes_with_it(parent):
    flow = {"executors": [{"name": "exec_a", "replicas": 2}, {"name": "exec_b", "port": 0}]}
    gateway = Gateway(flow, protocols=["http"], XDG_RUNTIME_DIR=str(parent), RUNTIME_DIRECTORY="")
    try:
        (folder,) = parent.iterdir()
        addresses = [match[1] for match in gateway.line(r"serves at (\S+)", count=3)]
        for address in addresses:
            path = socket_path(address)
            assert path is not None
            assert Path(path).parent == folder
            assert stat.S_ISSOCK(Path(path).stat().st_mode)
        body = json.dumps({"data": [{"text": "x"}], "execEndpoint": "/"}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{gateway.ports['http']}/post", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert json.load(answer)["data"][0]["text"] == "x"
    finally:
        assert gateway.stop() == 0
    assert not any(parent.iterdir())


@pytest.mark.slow
def test_an_executor_at_a_named_socket_serves_the_gateways_that_name_it(parent):
    path = parent / "exec.sock"
    settings = ["--uses", "Rec", "--py-modules", str(ROOT / "tests" / "executors.py"), "--name", "exec_a"]
    command = [sys.executable, "-m", "gatewayd", "executor", *settings, "--host", f"unix:{path}"]
    child = Child(command, env=environment())
    gateway = None
    try:
        child.line(f"serves at unix:{path}")
        executor = {"name": "exec_a", "external": True, "host": f"unix:{path}"}
        gateway = Gateway({"executors": [executor]}, protocols=["grpc", "http"])
        answer = over_unary(gateway, Question("/tag", ({"id": "d0", "text": "hi"},)))
        assert isinstance(answer, Answered)
        assert answer.documents[0][1] == "hiA"

        assert child.stop() == 0
        refused = over_unary(gateway, Question("/tag", ({"id": "d0", "text": "hi"},)))
        assert isinstance(refused, Refused)
        assert refused.code == "UNAVAILABLE"
        assert "deployment exec_a" in refused.text
        assert "called by a socket of the gateway's machine" in refused.text
    finally:
        child.stop()
        if gateway is not None:
            assert gateway.stop() == 0
