"""The documentation pages as a person sees them, in a browser that reaches nothing but the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from gatewayd.messages.methods import DISCOVERY, SINGLE
from tests.browser import Browser, find_chromium
from tests.paths import ROOT
from tests.processes import Gateway, external

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_chromium() is None, reason="there is no Chromium (Debian: apt-get install chromium)"
    ),
]

REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}
TITLE = "Pictures & <words>"

SHOUTING = """
from gatewayd import Executor, requests

class Shouting(Executor):
    @requests(on="/shout")
    def shout(self, docs, **kwargs):
        for doc in docs:
            doc.text = doc.text.upper()

    @requests(on="/count")
    def count(self, docs, **kwargs):
        \"\"\"Counts the **documents**.\"\"\"
        return {"count": len(docs)}

    @requests
    def others(self, docs, **kwargs):
        pass
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    settings = {"expose_graphql_endpoint": True, "title": TITLE}
    gateway = Gateway({"gateway": settings, "executors": [REC]}, protocols=["http"])
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def origin(gateway: Gateway) -> str:
    return f"http://127.0.0.1:{gateway.ports['http']}"


@pytest.fixture(scope="module")
def by_default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a Flow whose only executor has the name that it gets by default."""
    code = tmp_path_factory.mktemp("by_default") / "shouting.py"
    code.write_text(SHOUTING)
    executor = {"uses": "Shouting", "py_modules": str(code)}
    exposed = {"*": {"methods": ["GET", "POST"]}, "/default/name": {"methods": ["PUT"]}}
    settings = {"expose_endpoints": exposed, "expose_graphql_endpoint": True}
    gateway = Gateway({"gateway": settings, "executors": [executor]}, protocols=["http"])
    yield f"http://127.0.0.1:{gateway.ports['http']}"
    gateway.stop()


class Echoes(grpc.GenericRpcHandler):
    """An executor of Jina 3.34's, as it told its endpoints, which answers with what it gets."""

    def service(self, details: Any) -> Any:
        told = (ROOT / "tests" / "golden34" / "grpc" / "39_resp0.bin").read_bytes()
        answers = {DISCOVERY: lambda _message, _context: told, SINGLE: lambda message, _context: message}
        found = answers.get(details.method)
        return None if found is None else grpc.unary_unary_rpc_method_handler(found)


@pytest.fixture(scope="module")
def typed_origin() -> Iterator[str]:
    """The origin of a Flow whose executor has typed documents."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([Echoes()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    settings = {"expose_graphql_endpoint": True}
    gateway = Gateway({"gateway": settings, "executors": [external("a", port)]}, protocols=["http"])
    gateway.line(r"\bready$")
    yield f"http://127.0.0.1:{gateway.ports['http']}"
    gateway.stop()
    server.stop(0).wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    assert path is not None
    browser = Browser(path)
    yield browser
    browser.stop()


def test_swagger_ui_tries_an_endpoint_and_shows_its_answer(browser: Browser, origin: str) -> None:
    browser.open(f"{origin}/docs")
    browser.until("document.querySelectorAll('.opblock').length >= 8")
    assert browser.evaluate("document.title") == f"{TITLE} - Swagger UI"
    assert TITLE in browser.evaluate("document.querySelector('.info .title').innerText")

    block = "[id^=operations-Debug-post_post]"
    browser.click(f"{block} .opblock-summary-control")
    browser.click(f"{block} .try-out__btn")
    body = json.dumps({"data": [{"text": "hi"}], "execEndpoint": "/tag"})
    browser.until(f"document.querySelector('{block} textarea') !== null")
    browser.evaluate(
        f"""(() => {{
          const area = document.querySelector('{block} textarea');
          // React sees a change only if its own setter is passed by.
          const set = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set;
          set.call(area, {json.dumps(body)});
          area.dispatchEvent(new Event('input', {{ bubbles: true }}));
        }})()"""
    )
    browser.click(f"{block} .execute")

    status = f"document.querySelector('{block} .live-responses-table tbody .response-col_status')?.innerText"
    assert browser.until(status).startswith("200")
    shown = browser.until(
        f"document.querySelector('{block} .live-responses-table tbody .highlight-code')?.innerText"
    )
    assert '"text": "hiA"' in shown
    assert all(url.startswith((origin, "data:")) for url in browser.answered()), browser.answered()
    assert not browser.complaints()


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("Debug-post_post", "hello"),
        ("CRUD-search_post", "hello"),
        ("Customized-shout_post", "HELLO"),
        ("Customized-default_name_put", "hello"),
        ("Customized-count_post", "hello"),
    ],
)
def test_the_body_that_swagger_ui_fills_in_reaches_the_executors(
    browser: Browser, by_default: str, operation: str, answer: str
) -> None:
    browser.open(f"{by_default}/docs")
    block = f"[id^=operations-{operation}]"
    browser.click(f"{block} .opblock-summary-control")
    browser.click(f"{block} .try-out__btn")
    browser.click(f"{block} .execute")

    shown = json.loads(
        browser.until(
            f"document.querySelector('{block} .live-responses-table tbody .highlight-code code')?.innerText"
        )
    )

    assert [doc["text"] for doc in shown["data"]] == [answer]
    (route,) = [route for route in shown["routes"] if route["executor"] == "executor0"]
    assert route["endTime"] is not None
    assert shown["header"]["status"] is None
    assert not browser.complaints()


def test_an_endpoint_that_is_read_is_tried_without_a_body_and_has_its_docstring(
    browser: Browser, by_default: str
) -> None:
    browser.open(f"{by_default}/docs")
    block = "[id^=operations-Customized-count_get]"
    browser.click(f"{block} .opblock-summary-control")
    shown = browser.until(f"document.querySelector('{block} .opblock-description')?.innerText")
    assert shown.startswith("Counts the documents.")
    browser.click(f"{block} .try-out__btn")
    browser.click(f"{block} .execute")

    answer = json.loads(
        browser.until(
            f"document.querySelector('{block} .live-responses-table tbody .highlight-code code')?.innerText"
        )
    )

    assert answer["parameters"]["__results__"]["executor0/rep-0"] == {"count": 0}
    assert not browser.complaints()


def test_the_query_that_swagger_ui_fills_in_is_answered(browser: Browser, by_default: str) -> None:
    browser.open(f"{by_default}/docs")
    for block in ("[id$=graphql_get]", "[id$=graphql_post]"):
        browser.click(f"{block} .opblock-summary-control")
        browser.click(f"{block} .try-out__btn")
        browser.click(f"{block} .execute")
        code = (
            f"document.querySelector('{block} .live-responses-table tbody .highlight-code code')?.innerText"
        )
        assert json.loads(browser.until(code))["data"]["docs"][0]["text"] == "hello"
    assert not browser.complaints()


def test_swagger_ui_shows_typed_routes_and_the_body_that_it_fills_in_fits_them(
    browser: Browser, typed_origin: str
) -> None:
    browser.open(f"{typed_origin}/docs")
    block = "[id$=post_echo_post]"
    browser.click(f"{block} .opblock-summary-control")
    browser.click(f"{block} .try-out__btn")
    browser.click(f"{block} .execute")
    status = f"document.querySelector('{block} .live-responses-table tbody .response-col_status')?.innerText"
    code = f"document.querySelector('{block} .live-responses-table tbody .highlight-code code')?.innerText"
    assert browser.until(status).startswith("200"), browser.evaluate(code)
    (document,) = json.loads(browser.until(code))["data"]
    assert document["text"] == "string"
    assert not browser.complaints()


def test_redoc_shows_typed_routes(browser: Browser, typed_origin: str) -> None:
    browser.open(f"{typed_origin}/redoc")
    browser.until("document.querySelector('.api-content')?.innerText.includes('Endpoint /echo')")
    assert not browser.complaints()


def test_graphql_of_typed_documents_is_tried_from_the_page(browser: Browser, typed_origin: str) -> None:
    browser.open(f"{typed_origin}/docs")
    block = "[id$=graphql_post]"
    browser.click(f"{block} .opblock-summary-control")
    browser.click(f"{block} .try-out__btn")
    assert "query" in browser.until(f"document.querySelector('{block} textarea')?.value")
    browser.click(f"{block} .execute")
    code = f"document.querySelector('{block} .live-responses-table tbody .highlight-code code')?.innerText"
    shown = browser.until(code)
    data = json.loads(shown)["data"]
    assert data is not None, shown
    assert data["docs"][0]["text"] == "hello"
    assert not browser.complaints()


def test_redoc_shows_the_same_operations(browser: Browser, origin: str) -> None:
    browser.open(f"{origin}/redoc")

    text = browser.until("document.querySelector('.api-content')?.innerText")

    assert TITLE in text
    assert "Send documents to an endpoint of the executors" in text
    assert all(url.startswith((origin, "data:", "blob:")) for url in browser.asked()), browser.asked()
    shown = "[...document.querySelectorAll('[src], link[href]')].map(one => one.src || one.href)"
    assert all(url.startswith((origin, "data:", "blob:")) for url in browser.evaluate(shown))
    assert not browser.complaints()


def test_graphiql_runs_a_query_and_shows_its_answer(browser: Browser, origin: str) -> None:
    browser.open(f"{origin}/graphql")
    browser.until("document.querySelector('.graphiql-query-editor .CodeMirror')?.CodeMirror.getValue()")
    browser.click(".graphiql-execute-button")

    shown = browser.until("document.querySelector('.result-window .CodeMirror')?.CodeMirror.getValue()")

    assert json.loads(shown)["data"]["docs"][0]["text"] == "helloA"
    assert browser.evaluate("document.title") == f"{TITLE} - GraphiQL"
    assert all(url.startswith((origin, "data:", "blob:")) for url in browser.answered()), browser.answered()
    assert not browser.complaints()
