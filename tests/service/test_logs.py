"""The log of whole processes: its levels and forms, and its file, which may be moved at any time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT
from tests.processes import Child, Gateway, environment, runs
from tests.waiting import until

pytestmark = pytest.mark.slow

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
TALKS = """
import logging
from gatewayd import Executor, requests

class Talks(Executor):
    @requests(on="/talk")
    def talk(self, **kwargs):
        print("printed", flush=True)
        self.logger.debug("debugged")
        self.logger.info("informed")
        self.logger.warning("warned")
        try:
            1 / 0
        except ZeroDivisionError:
            logging.getLogger("numbers").exception("divided")
"""
TALKED = r"ZeroDivisionError"


def talking(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "talks.py").write_text(TALKS)
    return {"name": "talks", "uses": "Talks", "py_modules": [str(folder / "talks.py")], **more}


def ask(port: int, endpoint: str = "/talk", request_id: str = "r0") -> None:
    asked = {"data": [{"id": "d0"}], "execEndpoint": endpoint, "header": {"requestId": request_id}}
    body = json.dumps(asked).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/post", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[int]:
    """A daemon with ``twistd.pid`` and ``twistd.log`` in ``tmp_path``; its process id."""
    write(tmp_path, {"gateway": {}, "executors": [talking(tmp_path)]})
    command = [*TWISTD, "gateway", "--config", "flow.yml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    pid = int((tmp_path / "twistd.pid").read_text())
    until(lambda: "#info] ready\n" in (tmp_path / "twistd.log").read_text())
    yield pid
    os.kill(pid, signal.SIGTERM)
    until(lambda: not runs(pid))


def of_executor(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(line["level"], line["message"]) for line in lines if line["namespace"] == "executor.talks"]


def test_lines_are_json_with_the_levels_of_the_gateway_and_its_executors(tmp_path: Path) -> None:
    flow = {"gateway": {"log_format": "json", "log_level": "info"}, "executors": [talking(tmp_path)]}
    gateway = Gateway(flow, protocols=["http"])
    try:
        gateway.line('"ready"')
        ask(gateway.ports["http"])
        gateway.line(TALKED)
    finally:
        assert gateway.stop() == 0

    lines = json_lines(gateway.output)
    assert {"time", "level", "namespace", "message"} <= set.intersection(*(set(line) for line in lines))
    assert {line["replica"] for line in lines if line["namespace"] == "executor.talks"} == {"talks/rep-0"}
    assert of_executor(lines) == [
        ("info", "printed"),
        ("info", "INFO Talks: informed"),
        ("warn", "WARNING Talks: warned"),
        ("error", "ERROR numbers: divided"),
    ]
    (divided,) = [line for line in lines if "traceback" in line]
    assert divided["deployment"] == "talks"
    assert divided["traceback"].startswith("Traceback (most recent call last):\n")
    assert divided["traceback"].endswith("\nZeroDivisionError: division by zero")


def test_what_a_method_raises_is_one_object_with_its_request(tmp_path: Path) -> None:
    executor = talking(tmp_path)
    source = (tmp_path / "talks.py").read_text()
    raises = '\n    @requests(on="/raise")\n    def fail(self, **kwargs):\n        raise ValueError("boom")\n'
    (tmp_path / "talks.py").write_text(source + raises)
    gateway = Gateway({"gateway": {"log_format": "json"}, "executors": [executor]}, protocols=["http"])
    try:
        gateway.line('"ready"')
        ask(gateway.ports["http"], "/raise", "r1")
        gateway.line("ValueError")
    finally:
        assert gateway.stop() == 0

    (found,) = [line for line in json_lines(gateway.output) if "ValueError" in str(line)]
    assert (found["replica"], found["deployment"], found["request_id"]) == ("talks/rep-0", "talks", "r1")
    assert found["message"].endswith("talks/rep-0 failed on '/raise': ValueError: boom")
    assert found["traceback"].endswith('raise ValueError("boom")\nValueError: boom')


def test_an_executor_has_a_level_of_its_own_and_what_is_printed_is_always_logged(tmp_path: Path) -> None:
    quiet = talking(tmp_path, name="quiet")
    levels = {"executor.talks": "debug"}
    flow = {
        "gateway": {"log_format": "json", "log_level": "error", "log_levels": levels},
        "executors": [talking(tmp_path), quiet],
    }
    gateway = Child(
        [*TWISTD, "-n", "--pidfile=", "gateway", "--config", "flow.yml"], cwd=write(tmp_path, flow)
    )
    try:
        port = listening(gateway.pid)
        until(lambda: answers(port))
        gateway.line(TALKED, count=2)
    finally:
        assert gateway.stop() == 0

    lines = json_lines(gateway.output)
    assert of_executor(lines)[:3] == [
        ("info", "printed"),
        ("debug", "DEBUG Talks: debugged"),
        ("info", "INFO Talks: informed"),
    ]
    others = [line for line in lines if line["namespace"] == "executor.quiet"]
    assert [line["message"] for line in others[:2]] == ["printed", "ERROR numbers: divided"]
    assert not [line for line in lines if line["namespace"].startswith("gatewayd.")]


def write(folder: Path, flow: dict[str, Any]) -> Path:
    """``flow`` as ``flow.yml``, with an HTTP port on loopback."""
    gateway = {"host": "127.0.0.1", "protocol": "http", **flow["gateway"]}
    (folder / "flow.yml").write_text(json.dumps({"jtype": "Flow", **flow, "gateway": gateway}))
    return folder


def listening(pid: int) -> int:
    """The port at which a process listens that says nothing of it."""

    def sockets() -> Iterator[int]:
        with os.scandir(f"/proc/{pid}/fd") as descriptors:
            for each in descriptors:
                with contextlib.suppress(FileNotFoundError):  # it has been closed meanwhile
                    if match := re.match(r"socket:\[(\d+)\]", os.readlink(each.path)):
                        yield int(match[1])

    def found() -> int:
        own = set(sockets())
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and int(parts[9]) in own:
                return int(parts[1].partition(":")[2], 16)
        return 0

    return until(found)


def answers(port: int) -> bool:
    try:
        ask(port)
    except OSError:
        return False
    return True


def test_workers_say_their_names_levels_and_fields(tmp_path: Path) -> None:
    flow = {"gateway": {"log_format": "json", "workers": 2}, "executors": [talking(tmp_path)]}
    gateway = Gateway(flow, protocols=["http"])
    try:
        gateway.line('"ready"')
        gateway.line("talks: .* connected", count=2)
    finally:
        assert gateway.stop() == 0

    lines = json_lines(gateway.output)
    (found,) = {
        (line["level"], line["namespace"], line["deployment"])
        for line in lines
        if "talks: " in line["message"] and line["message"].endswith(" connected")
    }
    assert found == ("info", "gatewayd.pool.events", "talks")
    assert {line.get("worker") for line in lines} >= {"worker-1", "worker-2"}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_variable_of_the_reference_sets_the_level(tmp_path: Path, workers: int) -> None:
    command = [*TWISTD, "-n", "--pidfile=", "gateway", "--config", "flow.yml"]
    folder = write(tmp_path, {"gateway": {"workers": workers, "log_level": "debug"}})
    gateway = Child(command, cwd=folder, env=environment(JINA_LOG_LEVEL="ERROR"))
    try:
        listening(gateway.pid)
    finally:
        assert gateway.stop() == 0
    assert gateway.output == ""


def test_in_the_journal_lines_have_priorities_and_no_times(tmp_path: Path) -> None:
    write(tmp_path, {"gateway": {}, "executors": [talking(tmp_path)]})
    # What systemd does: it names the device and inode of the stream.
    shell = 'JOURNAL_STREAM=$(stat -Lc %d:%i /proc/$$/fd/1) exec "$0" "$@"'
    twistd = [*TWISTD, "-n", "--pidfile=", "gateway", "--config", "flow.yml"]
    gateway = Child(["/bin/sh", "-c", shell, *twistd], cwd=tmp_path)
    try:
        (found,) = gateway.line(r"http on 127\.0\.0\.1:(\d+)")
        gateway.line("ready")
        ask(int(found[1]))
        gateway.line(TALKED)
    finally:
        assert gateway.stop() == 0

    lines = gateway.output.splitlines()
    assert not [line for line in lines if not re.match(r"<[2-7]>", line)]
    assert "<6>[gatewayd.service.gateway] ready" in lines
    assert "<6>[executor.talks] talks/rep-0: printed" in lines
    assert "<4>[executor.talks] talks/rep-0: WARNING Talks: warned" in lines


def test_without_a_file_the_signal_for_a_new_one_ends_nobody(tmp_path: Path) -> None:
    gateway = Gateway({"gateway": {"workers": 2}, "executors": [talking(tmp_path)]}, protocols=["http"])
    try:
        gateway.line("ready")
        everyone = [gateway.pid, *processes_below(gateway.pid)]
        assert len(everyone) == 4
        for pid in everyone:
            os.kill(pid, signal.SIGUSR1)
        for _ in range(20):
            ask(gateway.ports["http"])
        assert all(map(runs, everyone))
    finally:
        assert gateway.stop() == 0
    assert len(re.findall("starts as process", gateway.output)) == 3


def processes_below(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def test_a_signal_that_comes_while_it_starts_ends_nobody(tmp_path: Path) -> None:
    write(tmp_path, {"gateway": {}})
    gateway = Child([*TWISTD, "-n", "--pidfile=", "gateway", "--config", "flow.yml"], cwd=tmp_path)
    try:
        # From the moment on at which our own code takes it.
        until(lambda: takes(gateway.pid, signal.SIGUSR1))
        for _ in range(5):
            os.kill(gateway.pid, signal.SIGUSR1)
        gateway.line("ready")
    finally:
        assert gateway.stop() == 0


def takes(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def test_a_daemons_log_that_is_moved_is_opened_anew_under_load_and_loses_no_line(
    daemon: int, tmp_path: Path
) -> None:
    log = tmp_path / "twistd.log"
    found = re.search(r"http on 127\.0\.0\.1:(\d+)", log.read_text())
    assert found is not None
    port, over, asked = int(found[1]), threading.Event(), [0]

    def load() -> None:
        while not over.is_set():
            ask(port)
            asked[0] += 1

    client = threading.Thread(target=load)
    client.start()
    try:
        for number in range(5):
            log.rename(tmp_path / f"moved.{number}")
            os.kill(daemon, signal.SIGUSR1)
            until(lambda: log.exists() and "printed" in log.read_text())
    finally:
        over.set()
        client.join()

    def printed() -> int:
        files = [log, *tmp_path.glob("moved.*")]
        return sum(each.read_text().count("talks/rep-0: printed\n") for each in files)

    until(lambda: printed() == asked[0], what=lambda: f"{printed()} of {asked[0]} lines")


def test_a_daemons_log_that_nobody_moves_gets_a_number(daemon: int, tmp_path: Path) -> None:
    os.kill(daemon, signal.SIGUSR1)
    until((tmp_path / "twistd.log.1").exists)
    assert "ready" in (tmp_path / "twistd.log.1").read_text()


def test_a_flow_in_python_survives_the_signal(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal\nfrom gatewayd import Flow\n"
        "with Flow(protocol='http', log_format='json', log_level='info') as flow:\n"
        "    os.kill(flow._running.pid, signal.SIGUSR1)\n"
        "    assert flow.is_flow_ready()\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], env=environment(), capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("{")]
    assert "stopped" in [json.loads(line)["message"] for line in lines]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_operator_changes_levels_while_it_serves(tmp_path: Path, workers: int) -> None:
    key = "an operator's key"
    digest = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    settings = {"admin_port": 0, "admin_keys": {"ada": [digest]}, "workers": workers, "log_format": "json"}
    gateway = Gateway({"gateway": settings, "executors": [talking(tmp_path)]}, protocols=["http"])

    def act(**arguments: str) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{admin[1]}/api/log_level",
            json.dumps(arguments).encode(),
            {"content-type": "application/json", "x-api-key": key},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    try:
        (admin,) = gateway.line(r"admin site on http://127.0.0.1:(\d+)")
        gateway.line('"ready"')
        assert act(level="debug", namespace="executor.talks") == {
            "ok": True,
            "result": "executor.talks: debug",
        }
        # The executor is told over a pipe, and hears of it when it reads.
        until(lambda: ask(gateway.ports["http"]) or "debugged" in gateway.output)
        act(level="ERROR", namespace="executor")
        act(level="error", namespace="executor.talks")
        marker = len(gateway.output)
        until(lambda: ask(gateway.ports["http"]) or "divided" in gateway.output[marker:])
        with pytest.raises(urllib.error.HTTPError, match="422"):
            act(level="loud")
        with pytest.raises(urllib.error.HTTPError, match="422"):
            act(level="debug", namespace="executor.nosuch")
        act(level="critical")
    finally:
        assert gateway.stop() == 0

    assert '"stopped"' not in gateway.output


def test_the_signal_that_replaces_workers_ends_no_gateway_that_has_none(tmp_path: Path) -> None:
    gateway = Gateway({"gateway": {}, "executors": [talking(tmp_path)]}, protocols=["http"])
    try:
        gateway.line("#info] ready")
        os.kill(gateway.pid, signal.SIGUSR2)
        gateway.line(r"#warn\] SIGUSR2 replaces workers, of which there are none")
        ask(gateway.ports["http"])
    finally:
        assert gateway.stop() == 0


def test_an_executor_by_itself_has_the_level_of_the_variable(tmp_path: Path) -> None:
    talking(tmp_path)
    source = (tmp_path / "talks.py").read_text()
    made = "    def __init__(self, **more):\n        super().__init__(**more)\n"
    made += "        self.logger.debug('made')\n"
    (tmp_path / "talks.py").write_text(source.replace("(Executor):\n", f"(Executor):\n{made}"))
    command = [sys.executable, "-m", "gatewayd", "executor", "--uses", "Talks", "--py-modules", "talks.py"]
    executor = Child(command, cwd=tmp_path, env=environment(JINA_LOG_LEVEL="DEBUG"))
    try:
        executor.line("^DEBUG Talks: made")
    finally:
        executor.stop()
