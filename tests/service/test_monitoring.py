"""``monitoring`` as users of the reference know it: ports, names, @monitor; and all of it at the gateway."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gatewayd import DocumentArray, Executor, Flow, monitor, requests
from gatewayd.config import load_flow_text
from gatewayd.errors import ConfigError
from gatewayd.health import PROBES
from tests.processes import Gateway, environment, free_ports
from tests.service.test_metrics import of, post, scrape

pytestmark = pytest.mark.slow

MODULE = """
from gatewayd import Executor, monitor, requests

class Watched(Executor):
    @requests(on="/tag")
    def tag(self, docs, **kwargs):
        self.work()

    @monitor(name="work_seconds", documentation="the work")
    def work(self):
        with self.monitor("part_seconds", "a part of it"):
            pass
"""


@contextlib.contextmanager
def running(folder: Path, replicas: int = 2, **gateway: Any) -> Iterator[tuple[Gateway, int]]:
    """The gateway, and the port of its metrics."""
    module = folder / "watched.py"
    module.write_text(MODULE)
    executor = {"name": "a", "uses": "Watched", "py_modules": str(module), "replicas": replicas}
    flow = {"with": {"monitoring": True}, "gateway": gateway, "executors": [executor]}
    process = Gateway(flow, protocols=["http"])
    try:
        (found,) = process.line(r"metrics on http://127.0.0.1:(\d+)")
        process.line(r"\bready$")
        yield process, int(found[1])
    finally:
        process.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_gateways_page_has_its_own_names_the_references_and_its_executors(
    tmp_path: Path, workers: int
) -> None:
    with running(tmp_path, workers=workers, admin_port=0) as (gateway, port):
        for _ in range(6):
            assert post(gateway.ports["http"], "/tag") == 200
        (admin,) = gateway.line(r"admin site on http://127.0.0.1:(\d+)")
        for each in (port, int(admin[1])):
            found = scrape(each)
            assert of(found, "gatewayd_requests_total", endpoint="/tag") == 6
            assert of(found, "jina_successful_requests_total", runtime_name="gateway/rep-0") == 6
            replicas = [
                of(found, "jina_work_seconds_count", runtime_name=f"a/rep-{number}") for number in (0, 1)
            ]
            assert sum(replicas) == 6
            assert of(found, "jina_part_seconds_count") == 6
            assert of(found, "jina_process_request_seconds_count", executor_endpoint="/tag") == 6
            assert of(found, "gatewayd_silent_processes", kind="executor") == 0


def test_the_ports_and_names_are_those_of_the_reference() -> None:
    class Watched(Executor):
        @requests
        @monitor()
        def tell(self, docs: DocumentArray, **kwargs: Any) -> None:
            pass

    own, first, second = free_ports(3)
    flow = Flow(protocol="http", monitoring=True, port_monitoring=own).add(
        name="a", uses=Watched, replicas=2, port_monitoring=[first, second]
    )
    with flow:
        flow.post("/", DocumentArray.empty(3), request_size=1)
        names = {name for name, _ in scrape(own)}
        for probe in PROBES:  # for kubelets, which cannot ask at every port of clients
            with urllib.request.urlopen(f"http://127.0.0.1:{own}{probe}", timeout=10) as answer:
                assert answer.status == 200
        executors = [scrape(each) for each in (first, second)]
        for port in (first, second):
            # Loopback, as the executor's own port.
            with pytest.raises(OSError), socket.create_connection((_other_address(), port), timeout=5):
                pass
    for each in (
        *("receiving_request_seconds", "sending_request_seconds"),
        *("received_request_bytes", "sent_response_bytes"),
    ):
        assert {f"jina_{each}_sum", f"jina_{each}_count"} <= names
    assert {"jina_successful_requests_total", "jina_failed_requests_total"} <= names
    assert "jina_number_of_pending_requests" in names
    assert sum(of(each, "jina_tell_seconds_count") for each in executors) == 3
    assert sum(of(each, "jina_document_processed_total") for each in executors) == 3


def _other_address() -> str:
    """One of this machine that is not that of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


def test_an_executor_that_does_not_answer_is_counted_and_holds_nobody_up(tmp_path: Path) -> None:
    with running(tmp_path) as (gateway, port):
        (found,) = gateway.line(r"a/rep-1 starts as process (\d+)")
        os.kill(int(found[1]), signal.SIGSTOP)
        try:
            samples = scrape(port)
        finally:
            os.kill(int(found[1]), signal.SIGCONT)
        assert of(samples, "gatewayd_silent_processes", kind="executor") == 1
        assert of(samples, "gatewayd_replica_up") == 2


def test_a_port_of_metrics_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError, match=r"gateway\.port_monitoring: cannot listen on"):
            Gateway({"gateway": {"monitoring": True, "port_monitoring": port}}, protocols=["http"])
        executor = {"name": "a", "uses": "Executor", "monitoring": True, "port_monitoring": port}
        # "deployments" is the other name of the list: it is not waited for what is in it.
        process = Gateway({"deployments": [executor]}, protocols=["http"])
        try:
            process.line(r"port_monitoring: cannot listen on 127\.0\.0\.1")
        finally:
            process.stop()


@pytest.mark.parametrize(
    ("executors", "text"),
    [
        ("- {name: a, replicas: 2, port_monitoring: 5}", "found 1 port(s) for 2 replica(s)"),
        (
            "- {name: a, port_monitoring: 5}\n- {name: b, port_monitoring: 5}",
            "the port 5 is that of executor a",
        ),
        ("- {name: a, monitoring: true, port_monitoring: 7}", "the port 7 is that of the admin site"),
    ],
)
def test_ports_that_do_not_fit_are_refused(executors: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_flow_text(
            f"jtype: Flow\nwith: {{monitoring: true}}\ngateway: {{admin_port: 7}}\nexecutors:\n{executors}\n",
            environ={},
        ).check_conflicts()

    assert text in str(caught.value)


def test_what_is_not_measured_does_not_load_the_library() -> None:
    code = (
        "import sys, gatewayd.executor.handling, gatewayd.executor.loading, gatewayd.executor.runtime\n"
        "assert not any(name.startswith('prometheus_client') for name in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_page_is_prometheus_own_format(tmp_path: Path) -> None:
    with running(tmp_path, replicas=1) as (_, port):
        answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20)
        with answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            families = list(text_string_to_metric_families(answer.read().decode()))
    assert len({each.name for each in families}) == len(families)
