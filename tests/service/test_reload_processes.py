"""A gateway that reloads, as a process with real executors: who starts, who stays, and what clients see."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from websockets.sync.client import connect

from gatewayd.access.keys import new_key
from gatewayd.pb import DataRequestProto
from tests.certificates import make
from tests.paths import ROOT
from tests.processes import Gateway, environment, free_ports
from tests.service.test_workers_processes import executors, post, workers
from tests.waiting import until

pytestmark = pytest.mark.slow

HOST = "127.0.0.1"
MODULE = str(ROOT / "tests" / "executors.py")
SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
CODE = """
import sys, time
from gatewayd import Executor, requests

class Marked(Executor):
    def __init__(self, mark="{mark}", **kwargs):
        super().__init__(**kwargs)
        self.mark = mark

    @requests
    def mark_it(self, docs, **kwargs):
        for doc in docs:
            doc.text = (doc.text or "") + self.mark

    @requests(on="/slow")
    def slow(self, docs, **kwargs):
        print("begun", flush=True)
        time.sleep(1.0)
        self.mark_it(docs)
"""


def rec(letter: str, **more: Any) -> dict[str, Any]:
    """An executor that adds its letter to each text."""
    return {"name": f"exec_{letter}", "uses": "Rec", "py_modules": MODULE, **more}


class Reloadable:
    """A gateway with the Flow ``flow``, and its file."""

    def __init__(self, flow: dict[str, Any], **options: Any) -> None:
        self.gateway = Gateway(flow, **options)
        self.gateway.line(r"\bready$")

    @property
    def pid(self) -> int:
        return self.gateway.pid

    @property
    def http(self) -> int:
        return self.gateway.ports["http"]

    def command(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gatewayd", "reload", "--pid", str(self.pid)],
            env=environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def reload(self, flow: dict[str, Any]) -> str:
        """Write ``flow``, and reload it. What the command prints."""
        self.gateway.write(flow)
        done = self.command()
        assert done.returncode == 0, done.stderr + self.gateway.output
        return done.stdout

    def refused(self, flow: dict[str, Any]) -> str:
        """The same, for one that is refused."""
        self.gateway.write(flow)
        done = self.command()
        assert done.returncode == 1, done.stdout
        return done.stderr

    def text(self, endpoint: str = "/tag") -> str:
        """What the executors make of no text."""
        return text_of(post(self.http, endpoint))


def text_of(answer: dict[str, Any]) -> str:
    text: str = answer["data"][0]["text"]
    return text.removeprefix("hi")


@contextlib.contextmanager
def serving(flow: dict[str, Any], **options: Any) -> Iterator[Reloadable]:
    found = Reloadable(flow, **options)
    try:
        yield found
        assert found.gateway.stop() == 0
        assert "Traceback" not in found.gateway.output
    finally:
        found.gateway.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "marked.py").write_text(CODE.format(mark="1"))
    return tmp_path


def marked(folder: Path, **more: Any) -> dict[str, Any]:
    return {"name": "marked", "uses": "Marked", "py_modules": str(folder / "marked.py"), **more}


def test_executors_are_added_changed_and_removed_while_the_others_run_on(folder: Path) -> None:
    a, b = rec("a"), rec("b")
    with serving({"executors": [a]}) as flow:
        (first,) = executors(flow.gateway)
        assert flow.text() == "A"

        assert "added exec_b; not touched: exec_a" in flow.reload({"executors": [a, b]})
        assert flow.text() == "AB"

        one = marked(folder, uses_with={"mark": "x"})
        assert "added marked; removed exec_b" in flow.reload({"executors": [a, one]})
        assert flow.text() == "Ax"

        other = marked(folder, uses_with={"mark": "y"})
        assert "changed marked; not touched: exec_a" in flow.reload({"executors": [a, other]})
        assert flow.text() == "Ay"

        assert "removed marked" in flow.reload({"executors": [a]})
        until(lambda: executors(flow.gateway) == [first], what="the end of what was removed")
        assert "nothing has changed" in flow.reload({"executors": [a]})


def test_a_request_that_is_under_way_ends_on_the_old_graph(folder: Path) -> None:
    with serving({"executors": [marked(folder, uses_with={"mark": "x"})]}) as flow:
        body = b'{"data": [{"text": ""}], "execEndpoint": "/slow"}'
        with socket.create_connection((HOST, flow.http), timeout=30) as client:
            client.sendall(
                b"POST /post HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(body), body)
            )
            flow.gateway.line("begun")
            flow.reload({"executors": [marked(folder, uses_with={"mark": "y"})]})
            assert flow.text("/other") == "y"
            assert b'"text":"x"' in client.recv(1 << 16)


def test_replicas_are_added_and_removed_one_by_one() -> None:
    with serving({"executors": [rec("a")]}) as flow:
        (first,) = executors(flow.gateway)
        flow.reload({"executors": [rec("a", replicas=3)]})
        assert len(executors(flow.gateway)) == 3
        flow.reload({"executors": [rec("a")]})
        until(lambda: executors(flow.gateway) == [first])


def test_mistakes_change_nothing_and_are_printed_whole(folder: Path) -> None:
    with serving({"executors": [rec("a")]}) as flow:
        before = executors(flow.gateway)

        text = flow.refused({"executors": [rec("a", replicsa=2)], "gateway": {"prefech": 1}})
        assert "gateway.prefech: unknown key" in text
        assert "replicsa: unknown key" in text

        text = flow.refused({"executors": [rec("a"), {**rec("b"), "uses": "Nobody"}]})
        assert "exec_b/rep-0 cannot start" in text
        assert "Nobody" in text

        text = flow.refused({"executors": [rec("a")], "gateway": {"workers": 2}})
        assert "gateway.workers cannot be changed while the gateway serves" in text

        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            ports = {"protocol": ["grpc", "http", "websocket", "http"], "port": [0, 0, 0, port]}
            text = flow.refused({"executors": [rec("a"), rec("b")], "gateway": ports})
        assert f"cannot listen on {HOST}:{port} for http" in text

        until(lambda: executors(flow.gateway) == before)
        assert flow.text() == "A"


def test_sighup_reloads_and_never_ends_the_process() -> None:
    with serving({"executors": [rec("a")]}) as flow:
        flow.gateway.write({"executors": [rec("a"), rec("b")]})
        os.kill(flow.pid, signal.SIGHUP)
        flow.gateway.line("reloaded: added exec_b")
        assert flow.text() == "AB"

        flow.gateway.path.write_text("jtype: Flow\nexecutors: [")
        os.kill(flow.pid, signal.SIGHUP)
        flow.gateway.line("not reloaded, and what served before serves on: ")
        assert flow.text() == "AB"


def test_sighup_during_the_start_is_a_reload_after_it() -> None:
    gateway = Gateway({"executors": [rec("a")]}, protocols=["http"])
    try:
        os.kill(gateway.pid, signal.SIGHUP)
        gateway.line("reloaded: nothing has changed")
    finally:
        assert gateway.stop() == 0


def test_a_stop_during_a_reload_ends_both(folder: Path) -> None:
    (folder / "hangs.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    with serving({"executors": [rec("a")]}) as flow:
        hanging = {"name": "hanging", "uses": "Executor", "py_modules": str(folder / "hangs.py")}
        flow.gateway.write({"executors": [rec("a"), hanging]})
        os.kill(flow.pid, signal.SIGHUP)
        flow.gateway.line("loading")
        assert flow.gateway.stop() == 0
        assert "Unhandled" not in flow.gateway.output


# -- ports and settings --------------------------------------------------------------------------------


def test_a_port_comes_and_goes_and_connections_to_the_others_stay() -> None:
    (number,) = free_ports(1)
    with serving({"executors": [rec("a")]}) as flow, contextlib.ExitStack() as stack:
        session = stack.enter_context(connect(f"ws://{HOST}:{flow.gateway.ports['websocket']}", proxy=None))
        channel = stack.enter_context(grpc.insecure_channel(f"{HOST}:{flow.gateway.ports['grpc']}"))
        ask = channel.unary_unary(SINGLE)
        ask(DataRequestProto().SerializeToString(), timeout=30)
        plain = stack.enter_context(socket.create_connection((HOST, flow.http), timeout=30))
        more = {"protocol": ["grpc", "http", "websocket", "http"], "port": [0, 0, 0, number]}

        flow.reload({"executors": [rec("a")], "gateway": more})
        assert text_of(post(number)) == "A"
        flow.reload({"executors": [rec("a")]})

        until(lambda: _refuses(number))
        session.send('{"data": [{"text": ""}], "execEndpoint": "/tag"}')
        assert json.loads(session.recv())["data"][0]["text"] == "A"
        ask(DataRequestProto().SerializeToString(), timeout=30)
        plain.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert plain.recv(1 << 16).startswith(b"HTTP/1.1 200")


def _refuses(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_settings_of_ports_take_effect_and_clients_are_led_away_politely() -> None:
    with serving({"executors": [rec("a")]}) as flow, contextlib.ExitStack() as stack:
        kept = stack.enter_context(socket.create_connection((HOST, flow.http), timeout=30))
        session = stack.enter_context(connect(f"ws://{HOST}:{flow.gateway.ports['websocket']}", proxy=None))
        channel = stack.enter_context(grpc.insecure_channel(f"{HOST}:{flow.gateway.ports['grpc']}"))
        ask = channel.unary_unary(SINGLE)
        ask(DataRequestProto().SerializeToString(), timeout=30)

        assert "settings: cors" in flow.reload({"executors": [rec("a")], "gateway": {"cors": True}})

        # The old connection has one more answer, and is told to go; new ones have the new settings.
        get = b"GET / HTTP/1.1\r\nhost: x\r\norigin: http://example.org\r\n\r\n"
        kept.sendall(get)
        answer = kept.recv(1 << 16).lower()
        assert b"connection: close" in answer
        assert b"access-control-allow-origin" not in answer
        new = stack.enter_context(socket.create_connection((HOST, flow.http), timeout=30))
        new.sendall(get)
        assert b"access-control-allow-origin" in new.recv(1 << 16).lower()
        ask(DataRequestProto().SerializeToString(), timeout=30)
        with pytest.raises(Exception, match="1001"):
            session.recv(timeout=30)
        # Ports keep their numbers, and settings can be changed again.
        flow.reload({"executors": [rec("a")]})
        assert flow.text() == "A"


def test_rates_are_not_reset_by_a_reload_of_other_settings() -> None:
    rated = {"rates": [{"requests": 2, "per": 3600, "by": "all"}]}
    with serving({"executors": [rec("a")], "gateway": rated}) as flow:
        assert [flow.text(), flow.text()] == ["A", "A"]
        flow.reload({"executors": [rec("a")], "gateway": {**rated, "cors": True}})
        with pytest.raises(urllib.error.HTTPError) as refused:
            flow.text()
        assert refused.value.code == 429
        refused.value.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_logged_and_recorded_changes(tmp_path: Path, workers: int) -> None:
    def lines_of(name: str) -> int:
        path = tmp_path / name
        return len(path.read_text().splitlines()) if path.exists() else 0

    def flow_with(**gateway: Any) -> dict[str, Any]:
        return {"executors": [rec("a")], "gateway": {"workers": workers, **gateway}}

    access = {"access_log": {"path": str(tmp_path / "access")}}
    with serving(flow_with()) as flow:
        assert flow.text() == "A"
        assert "settings: access_log" in flow.reload(flow_with(**access))
        assert flow.text() == "A"
        until(lambda: lines_of("access") == 1)

        # With the access log going on, requests are recorded; and the log says more.
        record = {"record": {"path": str(tmp_path / "record")}, "log_level": "debug"}
        assert "log_level, record" in flow.reload(flow_with(**access, **record))
        assert flow.text() == "A"
        until(lambda: lines_of("access") == 2)
        if workers == 1:
            until(lambda: lines_of("record") == 2)  # the heading and the request

        refused = flow.refused(flow_with(access_log={"path": str(tmp_path / "nowhere" / "access")}))
        assert "gateway.access_log.path" in refused
        assert "cannot be opened" in refused
        assert flow.text() == "A"
        until(lambda: lines_of("access") == 3)

        flow.reload(flow_with())
        assert flow.text() == "A"
    assert lines_of("access") == 3


def test_a_level_of_the_log_is_taken_up(tmp_path: Path) -> None:
    quiet = {"executors": [rec("a")], "gateway": {"log_level": "error"}}
    with serving({"executors": [rec("a")]}) as flow:
        flow.reload(quiet)
        seen = len(flow.gateway.output)
        flow.reload({**quiet, "gateway": {**quiet["gateway"], "cors": True}})  # type: ignore[dict-item]
        assert "reloaded" not in flow.gateway.output[seen:]
        flow.reload({"executors": [rec("a")]})
        flow.reload({"executors": [rec("a")], "gateway": {"cors": True}})
        until(lambda: "reloaded: settings: cors" in flow.gateway.output[seen:])


def test_a_protocol_is_added_to_a_port() -> None:
    (number,) = free_ports(1)
    one = {"protocol": ["http"], "port": [number]}
    with serving({"executors": [rec("a")], "gateway": one}, protocols=["http"]) as flow:
        flow.reload({"executors": [rec("a")], "gateway": {**one, "protocol": ["http+websocket"]}})
        with connect(f"ws://{HOST}:{number}", proxy=None) as session:
            session.send('{"data": [{"text": ""}], "execEndpoint": "/tag"}')
            assert json.loads(session.recv())["data"][0]["text"] == "A"
        assert flow.text() == "A"


def test_a_gateway_class_and_graphql_are_served_on(folder: Path) -> None:
    (folder / "front.py").write_text(
        "from klein import Klein\nfrom gatewayd import Gateway\n"
        "class Front(Gateway):\n    app = Klein()\n"
        "    @app.route('/front')\n    async def front(self, request):\n"
        "        (doc,) = await self.post('/tag', [{'text': ''}])\n        return doc.text\n"
    )
    own = {"uses": "Front", "py_modules": [str(folder / "front.py")], "expose_graphql_endpoint": True}
    query = b'{"query": "mutation { docs(data: [{text: \\"\\"}], execEndpoint: \\"/tag\\") { text } }"}'

    with serving({"gateway": own, "executors": [rec("a")]}, protocols=["http"]) as flow:

        def both() -> tuple[str, str]:
            with urllib.request.urlopen(f"http://{HOST}:{flow.http}/front", timeout=30) as answer:
                front = answer.read().decode()
            asked = urllib.request.Request(
                f"http://{HOST}:{flow.http}/graphql", query, {"content-type": "application/json"}
            )
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return front, json.load(answer)["data"]["docs"][0]["text"]

        assert both() == ("A", "A")
        flow.reload({"gateway": {**own, "cors": True}, "executors": [rec("a"), rec("b")]})
        assert both() == ("AB", "AB")
        text = flow.refused({"gateway": {**own, "uses_with": {"a": 1}}, "executors": [rec("a")]})
        assert "gateway.uses cannot be changed while the gateway serves" in text
        assert both() == ("AB", "AB")


def test_an_api_key_that_is_revoked_is_refused_at_once() -> None:
    digest = "sha256:" + "0" * 64
    with serving({"executors": [rec("a")]}) as flow:
        flow.reload({"executors": [rec("a")], "gateway": {"auth": {"api_keys": {"someone": digest}}}})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            flow.text()


def _certificate_at(port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((HOST, port), timeout=30) as plain,
        context.wrap_socket(plain) as connection,
    ):
        found = connection.getpeercert(binary_form=True)
        assert found is not None
        return found


def test_certificates_are_taken_up_at_once_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    def put(name: str) -> dict[str, Any]:
        party = make("localhost")
        (tmp_path / f"{name}.pem").write_bytes(party.pem)
        (tmp_path / f"{name}.key").write_bytes(party.key_pem())
        files = {"ssl_certfile": f"{tmp_path}/{name}.pem", "ssl_keyfile": f"{tmp_path}/{name}.key"}
        # Changes are found by a reload alone.
        return {"executors": [rec("a")], "gateway": {**files, "ssl_reload_interval": 0}}

    with serving(put("one")) as flow:
        first = _certificate_at(flow.http)
        flow.reload(put("two"))
        seen = [_certificate_at(port) for port in flow.gateway.ports.values()]
        assert len({first, *seen}) == 2
        put("two")
        flow.reload(put("two"))
        assert _certificate_at(flow.http) not in (first, *seen)
        (tmp_path / "two.key").write_text("no key")
        done = flow.command()
        assert done.returncode == 1
        assert "ssl_keyfile" in done.stderr
        assert _certificate_at(flow.http)

        # From the next reload on, changes are found without one.
        watched = put("two")
        watched["gateway"]["ssl_reload_interval"] = 0.2
        flow.reload(watched)
        before = _certificate_at(flow.http)
        put("two")
        until(lambda: _certificate_at(flow.http) != before)


# -- code ----------------------------------------------------------------------------------------------


def test_edited_code_replaces_the_processes_one_by_one(folder: Path) -> None:
    executor = marked(folder, replicas=2)
    with serving({"executors": [executor, rec("a")]}) as flow:
        before = executors(flow.gateway)
        (folder / "marked.py").write_text(CODE.format(mark="2"))

        assert "new code of marked; not touched: exec_a" in flow.command().stdout
        assert {flow.text() for _ in range(4)} == {"2A"}
        until(lambda: len(executors(flow.gateway)) == 3)
        assert len({*before} & {*executors(flow.gateway)}) == 1

        (folder / "marked.py").write_text("this is no code")
        done = flow.command()
        assert done.returncode == 1
        assert "executors.marked: marked/rep-0 cannot start" in done.stderr
        assert flow.text() == "2A"


def test_after_a_crash_in_between_a_reload_has_all_replicas_run_the_same_code(folder: Path) -> None:
    with serving({"executors": [marked(folder, replicas=2)]}) as flow:
        before = executors(flow.gateway)
        (folder / "marked.py").write_text(CODE.format(mark="2"))
        os.kill(before[0], signal.SIGKILL)
        until(lambda: {flow.text() for _ in range(4)} == {"1", "2"})
        (folder / "marked.py").write_text(CODE.format(mark="1"))

        assert "new code of marked" in flow.command().stdout
        assert {flow.text() for _ in range(4)} == {"1"}
        assert "nothing has changed" in flow.command().stdout


def test_files_are_watched_if_the_flow_says_so(folder: Path) -> None:
    with serving({"with": {"reload": True}, "executors": [marked(folder)]}) as flow:
        assert flow.text("/x") == "1"
        before = executors(flow.gateway)
        (folder / "marked.py").write_text(CODE.format(mark="2"))
        flow.gateway.line("reloaded: new code of marked")
        assert flow.text("/x") == "2"
        until(lambda: len(executors(flow.gateway)) == 1 and executors(flow.gateway) != before)

        flow.gateway.write({"with": {"reload": False}, "executors": [marked(folder), rec("a")]})
        flow.gateway.line("reloaded: added exec_a")
        assert flow.text("/x") == "2"


def test_operators_reload_and_drain_at_the_admin_site(folder: Path) -> None:
    key, digest = new_key()
    (number,) = free_ports(1)
    admin = {"admin_port": number, "admin_keys": {"ada": digest}}
    with serving({"gateway": admin, "executors": [marked(folder)]}) as flow:

        def ask(action: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
            asked = urllib.request.Request(
                f"http://{HOST}:{number}/api/{action}",
                json.dumps(arguments).encode(),
                {"content-type": "application/json", "x-api-key": key},
            )
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        (first,) = executors(flow.gateway)
        status, answer = ask("drain", deployment="marked", shard=0, replica=0)
        assert (status, answer["result"]) == (200, "marked, replica 0 is replaced by a new process")
        until(lambda: first not in executors(flow.gateway))

        flow.gateway.write({"gateway": admin, "executors": [marked(folder), rec("a")]})
        status, answer = ask("reload")
        assert status == 200
        assert answer["result"].startswith("added exec_a; not touched: marked")
        assert flow.text() == "1A"

        flow.gateway.write({"gateway": {**admin, "prefech": 1}, "executors": []})
        status, answer = ask("reload")
        assert status == 422
        assert "gateway.prefech: unknown key" in str(answer)
        status, answer = ask("drain", shard=0)
        assert status == 422


# -- other ways of running -----------------------------------------------------------------------------


def test_workers_are_replaced_by_such_that_serve_the_new_flow(folder: Path) -> None:
    two = {"workers": 2, "grpc_server": "gatewayd"}
    (number,) = free_ports(1)
    more = {**two, "protocol": ["grpc", "http", "websocket", "http"], "port": [0, 0, 0, number]}
    with serving({"gateway": two, "executors": [marked(folder)]}) as flow:
        before, (first,) = workers(flow.gateway), executors(flow.gateway)

        flow.reload({"gateway": more, "executors": [marked(folder), rec("a")]})

        assert {text_of(post(number, "/tag")) for _ in range(8)} == {"1A"}
        assert {flow.text() for _ in range(8)} == {"1A"}
        assert not {*before} & {*workers(flow.gateway)}
        assert first in executors(flow.gateway)

        # Edited code needs no other workers.
        before = workers(flow.gateway)
        (folder / "marked.py").write_text(CODE.format(mark="2"))
        assert "new code of marked" in flow.command().stdout
        assert {flow.text() for _ in range(8)} == {"2A"}
        assert workers(flow.gateway) == before

        assert "prefech" in flow.refused({"gateway": {**two, "prefech": 1}, "executors": []})
        flow.reload({"gateway": two, "executors": [marked(folder)]})
        until(lambda: _refuses(number))
        until(lambda: len(executors(flow.gateway)) == 1)


def test_an_executor_that_dies_while_workers_are_replaced_costs_nobody_an_answer(folder: Path) -> None:
    two = {"workers": 2, "grpc_server": "gatewayd"}
    several = {"executors": [marked(folder, replicas=2)]}
    with serving({"gateway": two, **several}) as flow, ThreadPoolExecutor(4) as threads:
        victim = executors(flow.gateway)[0]
        reloaded = threading.Event()

        def ask() -> int:
            count = 0
            while not reloaded.is_set():
                assert flow.text() == "1"
                count += 1
            return count

        asking = [threads.submit(ask) for _ in range(3)]
        try:
            flow.gateway.write({"gateway": {**two, "prefetch": 7}, **several})
            os.kill(flow.pid, signal.SIGHUP)
            flow.gateway.line("worker-3 is to replace worker-1")
            os.kill(victim, signal.SIGKILL)
            flow.gateway.line("reloaded: settings: prefetch")
        finally:
            reloaded.set()
        assert all(each.result() for each in asking)
        until(lambda: len(executors(flow.gateway)) == 2)
        assert victim not in executors(flow.gateway)


def test_a_daemon_is_found_by_its_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "flow.yml"
    path.write_text("jtype: Flow\ngateway: {host: 127.0.0.1, protocol: http}\n")
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    subprocess.run(
        [*twistd, "gateway", "--config", "flow.yml"], cwd=tmp_path, env=environment(), check=True, timeout=60
    )
    pid = int((tmp_path / "twistd.pid").read_text())
    try:
        until(lambda: " ready\n" in (tmp_path / "twistd.log").read_text())
        path.write_text("jtype: Flow\ngateway: {host: 127.0.0.1, protocol: http, prefetch: 5}\n")
        command = [sys.executable, "-m", "gatewayd", "reload"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("reloaded: settings: prefetch (")
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not (tmp_path / "twistd.pid").exists())


def test_a_process_that_cannot_be_asked_is_named(tmp_path: Path) -> None:
    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gatewayd", "reload", *arguments],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1
        return done.stderr

    assert "twistd.pid: No such file or directory; give --pid" in command()
    (tmp_path / "other.pid").write_text("no number")
    assert "other.pid has no number of a process in it" in command("--pidfile", "other.pid")
    assert "it is no gatewayd that serves a file" in command("--pid", str(os.getpid()))
