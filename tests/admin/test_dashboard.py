"""The page of the admin site in a real browser, in front of a gateway whose executors work and end."""

from __future__ import annotations

import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.access.keys import new_key
from gatewayd.admin.dashboard import HEADERS, dashboard
from tests.browser import Browser, find_chromium
from tests.processes import Gateway
from tests.waiting import until

KEY, DIGEST = new_key()

EXECUTORS = """
import pathlib
import time

from gatewayd import Executor, requests

while pathlib.Path(__file__).with_name("hold").exists():
    time.sleep(0.05)

class Work(Executor):
    @requests
    def work(self, docs, **kwargs):
        if any(doc.text == "bad" for doc in docs):
            raise ValueError("<b>the index</b> is not loaded")
"""


def test_its_files_name_each_other_and_nothing_else() -> None:
    page, *others = dashboard("Pictures & <words>")

    assert page.path == "/"
    assert b"<title>Pictures &amp; &lt;words&gt; " in page.body
    assert {each.path for each in others} == {"/dashboard.css", "/dashboard.js"}
    assert all(each.path[1:].encode() in page.body for each in others)
    assert b"//" not in page.body.replace(b"<!doctype", b"")
    assert b"default-src 'none'" in dict(HEADERS)[b"Content-Security-Policy"]


browsed = pytest.mark.skipif(
    find_chromium() is None, reason="there is no Chromium (Debian: apt-get install chromium)"
)


class Serving:
    """A gateway with two executors, the first with two replicas, that is asked all the time."""

    def __init__(self, module: Path) -> None:
        self.hold = module.with_name("hold")  # as long as it is there, no executor gets ready
        work = {"uses": "Work", "py_modules": [str(module)]}
        executors = [
            {"name": "encoder", "replicas": 2, **work},
            {"name": "ranker", "needs": "encoder", **work},
        ]
        settings = {"admin_port": 0, "admin_keys": {"ada": [DIGEST]}}
        self.gateway = Gateway(
            {"with": {"name": "pictures"}, "gateway": settings, "executors": executors}, protocols=("http",)
        )
        (found,) = self.gateway.line(r"admin site on (http://\S+)")
        self.site = found[1]
        self._stopping = threading.Event()
        self._client = threading.Thread(target=self._ask_on)
        self._client.start()

    def post(self, text: str) -> None:
        body = json.dumps({"data": [{"text": text}], "execEndpoint": "/search"}).encode()
        url = f"http://127.0.0.1:{self.gateway.ports['http']}/post"
        asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(asked, timeout=20).close()
        except urllib.error.HTTPError as error:
            error.close()

    def pids(self, deployment: str) -> list[int]:
        with urllib.request.urlopen(f"{self.site}/api/state", timeout=20) as answer:
            state = json.load(answer)
        return [each["pid"] for each in state["replicas"] if each["deployment"] == deployment]

    def _ask_on(self) -> None:
        while not self._stopping.wait(0.02):
            self.post("good")

    def stop(self) -> None:
        self._stopping.set()
        self._client.join()
        self.gateway.stop()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    module = tmp_path_factory.mktemp("executors") / "work.py"
    module.write_text(EXECUTORS)
    one = Serving(module)
    yield one
    one.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    assert path is not None
    one = Browser(path)
    yield one
    one.stop()


def edge(of: str) -> str:
    return f"(document.querySelector('#graph path[data-of={of}]')?.getAttribute('class') ?? '')"


@browsed
@pytest.mark.slow
def test_it_shows_the_graph_and_loads_nothing_from_elsewhere(browser: Browser, serving: Serving) -> None:
    browser.open(serving.site)
    browser.until("document.querySelectorAll('#graph [data-node]').length === 4")
    browser.until(f"{edge('encoder')} === 'ok' && {edge('ranker')} === 'ok'")
    browser.until("/[1-9].*\\/s/.test(document.querySelector('[data-rate=ranker]')?.textContent)")

    assert browser.evaluate("document.querySelector('#flow').textContent") == "pictures"
    assert browser.evaluate("document.querySelector('#phase').textContent") == "ready"
    assert browser.evaluate("document.querySelectorAll('#replicas tbody tr').length") == 3
    assert all(url.startswith((serving.site, "data:", "about:")) for url in browser.asked())
    assert browser.complaints() == []


@browsed
@pytest.mark.slow
def test_an_edge_turns_when_its_last_replica_ends_and_turns_back(browser: Browser, serving: Serving) -> None:
    browser.open(serving.site)
    browser.until(f"{edge('ranker')} === 'ok'")
    (pid,) = serving.pids("ranker")

    serving.hold.touch()
    os.kill(pid, signal.SIGKILL)
    browser.until(f"{edge('ranker')} === 'down'")
    serving.hold.unlink()
    browser.until(f"['ok', 'strained'].includes({edge('ranker')})", 60)

    row = "[...document.querySelectorAll('#replicas tbody tr')].find(row => row.innerText.includes('ranker'))"
    assert "SIGKILL" in browser.until(f"{row}.innerText")
    until(lambda: serving.pids("ranker") not in ([pid], [None]))


@browsed
@pytest.mark.slow
def test_it_tells_why_the_last_request_failed_as_text(browser: Browser, serving: Serving) -> None:
    serving.post("bad")
    browser.open(serving.site)

    browser.until("document.querySelector('#failures')?.innerText.includes('<b>the index</b> is not loaded')")
    assert "executor_error" in browser.evaluate("document.querySelector('#failures').innerText")


@browsed
@pytest.mark.slow
def test_it_can_be_read_on_a_phone_and_in_the_dark(browser: Browser, serving: Serving) -> None:
    browser.open("about:blank")
    browser.resize(390, 800, dark=True)
    browser.command("Page.navigate", url=serving.site)
    browser.until("document.querySelectorAll('#graph [data-node]').length === 4")

    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    colour = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) < 150


@browsed
@pytest.mark.slow
def test_the_picture_of_the_guide(browser: Browser, serving: Serving, tmp_path: Path) -> None:
    """`make pictures` has it written where the guide shows it."""
    browser.open("about:blank")
    browser.resize(1100, 780)
    browser.command("Page.navigate", url=serving.site)
    # As many states as rates are made of.
    browser.until("/[1-9].*\\/s/.test(document.querySelector('[data-rate=ranker]')?.textContent)")
    browser.until(f"{edge('encoder')} === 'ok' && {edge('ranker')} === 'ok'", 60)
    picture = browser.picture()

    assert picture.startswith(b"\x89PNG")
    Path(os.environ.get("GATEWAYD_PICTURES", tmp_path), "dashboard.png").write_bytes(picture)


@browsed
@pytest.mark.slow
def test_to_other_machines_it_shows_the_inside_to_administrators(browser: Browser) -> None:
    settings = {"admin_port": 0, "admin_host": "0.0.0.0", "admin_keys": {"ada": [DIGEST]}}
    gateway = Gateway({"gateway": settings}, protocols=("http",))
    try:
        (found,) = gateway.line(r"admin site on http://\S+:(\d+)")
        browser.open(f"http://127.0.0.1:{found[1]}")
        browser.until("document.querySelector('#asking')?.open")
        assert browser.evaluate("document.querySelector('#phase').textContent") == "no answer"

        browser.evaluate(f"document.querySelector('#key').value = {json.dumps(KEY)}")
        browser.click("#asking-go")
        browser.until("document.querySelector('#phase').textContent === 'ready'")
    finally:
        gateway.stop()
