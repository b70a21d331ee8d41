"""Which pages may call executors, and by which names the gateway may be called, over both kinds of port."""

from __future__ import annotations

import functools
import http.server
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from klein import Klein

from gatewayd import Gateway
from gatewayd.config import load_flow_text
from gatewayd.errors import ConfigError, ContentTypeRequired, Misdirected, OriginForbidden
from gatewayd.protocols.http.browsers import Browsers, Patterns
from tests.browser import Browser, find_chromium
from tests.custom.serving import serving
from tests.protocols.harness import FakeDispatcher, Served, in_thread, served

JSON = "application/json"
BODY = json.dumps({"data": [{"text": "a"}], "query": "{ docs { id } }"}).encode()
UPGRADE = {
    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip


def loaded(settings: str) -> Any:
    return load_flow_text(f"jtype: Flow\ngateway: {{{settings}}}", environ={})


def ask(
    port: int, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", version: str = "1.1"
) -> tuple[int, dict[str, str], bytes]:
    """One request by hand, with no header but those given; status, headers and body of the answer."""
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in headers.items())]
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall("\r\n".join([*lines, length]).encode("latin-1") + b"\r\n" + body)
        received = b""
        while b"\r\n\r\n" not in received:
            data = client.recv(65536)
            assert data, received
            received += data
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *others = head.decode("latin-1").split("\r\n")
        found = {name.lower(): value for name, _, value in (line.partition(": ") for line in others)}
        while len(rest) < int(found.get("content-length", 0)) and method != "HEAD":
            rest += client.recv(65536)
        return int(first.split()[1]), found, rest


# -- the settings ---------------------------------------------------------------------------------------


def test_origins_and_hosts_are_kept_as_browsers_write_them() -> None:
    gateway = loaded(
        "allowed_origins: ['HTTPS://A.example:443', 'http://b:8080', 'https://*.c.example'], "
        "cors: 'https://D.example', allowed_hosts: [Api.Example, '*.c.example', '[0:0::1]', 10.0.0.1]"
    ).gateway
    assert gateway.allowed_origins == ("https://a.example", "http://b:8080", "https://*.c.example")
    assert gateway.cors == ("https://d.example",)
    assert gateway.allowed_hosts == ("api.example", "*.c.example", "::1", "10.0.0.1")
    assert loaded("allowed_origins: []").gateway.allowed_origins == ()
    assert loaded("").gateway.allowed_origins is None


@pytest.mark.parametrize(
    "settings",
    [
        "allowed_origins: true", "allowed_origins: [a.example]", "allowed_origins: ['null']",
        "allowed_origins: ['https://a.example/path']", "allowed_origins: ['https://a.*']",
        "allowed_hosts: []", "allowed_hosts: ['https://a.example']", "allowed_hosts: ['a.example:80']",
        "allowed_hosts: ['a.*.example']", "allowed_hosts: [1]", "allowed_hosts: ['']",
    ],
)  # fmt: skip
def test_what_is_no_origin_and_no_host_is_refused(settings: str) -> None:
    with pytest.raises(ConfigError, match=rf"gateway\.{settings.partition(':')[0]}.*a list of"):
        loaded(settings)


def test_cors_for_all_and_a_list_of_origins_is_a_warning() -> None:
    (warning,) = loaded("cors: true, allowed_origins: ['https://a.example']").warnings
    assert "gateway.cors" in warning
    assert "allowed_origins" in warning


# -- the rules, as values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a.example", "a.example", True),
        ("a.example", "b.a.example", False),
        ("*.a.example", "b.a.example", True),
        ("*.a.example", "c.b.a.example", True),
        ("*.a.example", "a.example", False),
        ("*.a.example", ".a.example", False),
        ("*.a.example", "b.a.example.evil", False),
        ("*.a.example", "evila.example", False),
        ("https://*.a.example", "https://b.a.example", True),
        ("https://*.a.example", "http://b.a.example", False),
        ("https://*.a.example", "https://b.a.example:8443", False),
        ("https://*.a.example:8443", "https://b.a.example:8443", True),
        ("https://*.a.example", "https://evil/.a.example", False),
        ("https://*.a.example", "https://evil:1@b.a.example", False),
        ("*", "anything", True),
    ],
)
def test_patterns(pattern: str, text: str, matches: bool) -> None:
    assert Patterns.of([pattern]).match(text) is matches


OWN = {b"origin": b"https://gw.example", b"host": b"gw.example", b"content-type": b"application/json"}


def test_the_gateways_own_pages_are_known_once_its_names_are() -> None:
    listed = Patterns.of(["https://a.example"])
    with pytest.raises(OriginForbidden):
        Browsers(listed).check(b"POST", OWN.get)
    Browsers(listed, Patterns.of(["gw.example"])).check(b"POST", OWN.get)
    with pytest.raises(OriginForbidden):
        other_port = {**OWN, b"host": b"gw.example:8080"}
        Browsers(listed, Patterns.of(["gw.example"])).check(b"POST", other_port.get)


@pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
def test_a_browsers_request_without_an_origin_is_refused_if_another_site_made_it(site: bytes) -> None:
    rules = Browsers(Patterns.of(["https://a.example"]))
    with pytest.raises(OriginForbidden, match="in requests without Origin"):
        rules.check(b"GET", {b"sec-fetch-site": site}.get)
    for own in (b"none", b"same-origin"):
        rules.check(b"GET", {b"sec-fetch-site": own}.get)


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"application/ld+json", True),
        (b"application/x-protobuf", True),
        (b"text/plain", False),
        (b"text/plain; application/json", False),
        (b"application/x-www-form-urlencoded", False),
        (b"multipart/form-data; boundary=x", False),
        (None, False),
    ],
)
def test_what_a_form_could_send_is_refused(content_type: bytes | None, accepted: bool) -> None:
    rules = Browsers(Patterns.of(["https://a.example"]))
    header = {b"origin": b"https://a.example", b"content-type": content_type}.get
    rules.check(b"GET", header)
    if accepted:
        rules.check(b"POST", header)
    else:
        with pytest.raises(ContentTypeRequired):
            rules.check(b"POST", header)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (b"gw.example", True),
        (b"GW.example:8080", True),
        (b"gw.example.", True),
        (b"a.b.example", True),
        (b"[::1]:80", True),
        (b"[0:0:0::1]", True),
        (b"b.example", False),
        (b"evil", False),
        (b"", False),
        (b"gw.example.evil", False),
    ],
)
def test_hosts_are_compared_without_port_case_and_last_dot(host: bytes, allowed: bool) -> None:
    rules = Browsers(hosts=Patterns.of(["gw.example", "*.b.example", "::1"]))
    if allowed:
        rules.check_host(b"/", [host])
        with pytest.raises(Misdirected):
            rules.check_host(b"http://evil/", [host])
    else:
        with pytest.raises(Misdirected):
            rules.check_host(b"/", [host])


# -- over real ports ------------------------------------------------------------------------------------

CALLS = [
    ("POST", "/post"),
    ("POST", "/search"),
    ("DELETE", "/delete"),
    ("POST", "/%70ost"),
    ("POST", "/graphql"),
    ("GET", "/graphql?query={docs{id}}"),
    ("GET", "/dry_run"),
    ("GET", "/read"),
]
SETTINGS: dict[str, Any] = {
    "allowed_origins": ("https://a.example",),
    "cors": ("https://c.example",),
    "expose_endpoints": {"/read": {"methods": ["GET"]}},
    "expose_graphql_endpoint": True,
}


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest_twisted.ensureDeferred
async def test_pages_of_other_origins_call_no_executor(method: str, path: str) -> None:
    async with served(("http", "websocket"), **SETTINGS) as gateway:
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://x"},  # the gateway's own, if Host could be believed
            {"Sec-Fetch-Site": "cross-site"},
        ):
            headers |= {"Host": "x", "Content-Type": JSON}
            status, _, body = await in_thread(ask, gateway.port, method, path, headers, BODY)
            assert (status, b"allowed_origins" in body) == (403, True), headers
        assert not gateway.dispatcher.requests
        for allowed in ("https://a.example", "https://c.example"):
            headers = {"Host": "x", "Origin": allowed, "Content-Type": JSON}
            status, _, _ = await in_thread(ask, gateway.port, method, path, headers, BODY)
            assert status == 200
        status, _, _ = await in_thread(
            ask, gateway.port, method, path, {"Host": "x", "Content-Type": JSON}, BODY
        )
        assert status == 200


@pytest_twisted.ensureDeferred
async def test_a_forbidden_page_that_waits_with_its_body_is_refused_before_it() -> None:
    async with served(**SETTINGS) as gateway:
        headers = {"Host": "x", "Origin": "https://evil.example", "Content-Type": JSON}
        headers |= {"Expect": "100-continue", "Content-Length": "2"}
        status, _, _ = await in_thread(ask, gateway.port, "POST", "/post", headers)
    assert status == 403


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
@pytest_twisted.ensureDeferred
async def test_an_allowed_page_has_to_send_json(content_type: str | None) -> None:
    typed = {} if content_type is None else {"Content-Type": content_type}
    async with served(**SETTINGS) as gateway:
        for method, path in CALLS[:4]:
            headers = {"Host": "x", "Origin": "https://a.example", **typed}
            status, _, body = await in_thread(ask, gateway.port, method, path, headers, BODY)
            assert (status, b"Content-Type" in body) == (415, True)
        assert not gateway.dispatcher.requests


@pytest.mark.parametrize("content_type", ["text/plain", "application/graphql", None])
@pytest_twisted.ensureDeferred
async def test_graphql_takes_json_alone_whatever_is_allowed(content_type: str | None) -> None:
    typed = {} if content_type is None else {"Content-Type": content_type}
    async with served(expose_graphql_endpoint=True) as gateway:
        status, _, body = await in_thread(ask, gateway.port, "POST", "/graphql", {"Host": "x", **typed}, BODY)
    assert (status, body) == (400, b"Unsupported content type")


@pytest.mark.parametrize("protocols", [("websocket",), ("http", "websocket")])
@pytest_twisted.ensureDeferred
async def test_websocket_handshakes_of_other_pages_are_refused(protocols: tuple[str, ...]) -> None:
    async with served(protocols, **SETTINGS) as gateway:
        for path in ("/", "/dry_run"):
            for origin, expected in (
                ({"Origin": "https://evil.example"}, 403),
                ({"Origin": "null"}, 403),
                ({"Origin": "http://127.0.0.1"}, 403),
                ({"Origin": "https://a.example"}, 101),
                ({"Origin": "https://c.example"}, 101),
                ({}, 101),
            ):
                headers = {"Host": "127.0.0.1", **UPGRADE, **origin}
                status, _, _ = await in_thread(ask, gateway.port, "GET", path, headers)
                assert status == expected, (path, origin)


@pytest.mark.parametrize("protocols", [("http",), ("websocket",), ("http", "websocket")])
@pytest_twisted.ensureDeferred
async def test_other_names_than_the_gateways_are_refused_but_for_health(protocols: tuple[str, ...]) -> None:
    async with served(protocols, allowed_hosts=("gw.example",), expose_graphql_endpoint=True) as gateway:

        async def status(method: str, path: str, *, version: str = "1.1", **headers: str) -> int:
            found, _, _ = await in_thread(ask, gateway.port, method, path, headers, b"", version)
            return int(found)

        for path in ("/status", "/docs", "/dry_run", "/openapi.json", "/nothing", "http://gw.example/status"):
            assert await status("GET", path, Host="evil.example") == 421
        assert await status("GET", "http://evil.example/status", Host="gw.example") == 421
        assert await status("POST", "/post", Host="evil.example") == 421
        assert await status("GET", "/", **UPGRADE, Host="evil.example") == 421
        assert await status("GET", "/status", version="1.0") == 421
        assert await status("GET", "/", Host="10.0.0.7:8080") == 200
        assert await status("HEAD", "/", Host="10.0.0.7:8080") == 200
        assert await status("GET", "/", version="1.0") == 200
        assert await status("GET", "/status", Host="GW.example:8080") == 200


class Routes(Gateway):
    app = Klein()

    @app.route("/own", methods=["GET", "POST"])
    def own(self, http_request: Any) -> str:
        return "here"


@pytest_twisted.ensureDeferred
async def test_routes_of_a_gateway_class_are_for_allowed_pages_of_any_content_type() -> None:
    settings = {"allowed_origins": ("https://a.example",), "allowed_hosts": ("x",)}
    async with serving(Routes(), **settings) as gateway:

        async def status(**headers: str) -> int:
            headers = {"Host": "x", **headers}
            found, answered, _ = await in_thread(ask, gateway.port, "POST", "/own", headers, b"a=b")
            assert answered["x-content-type-options"] == "nosniff"
            return int(found)

        assert await status(Origin="https://evil.example") == 403
        assert await status(Host="evil") == 421
        assert await status(**{"Origin": "https://a.example", "Content-Type": "text/plain"}) == 200
        assert await status(**{"Sec-Fetch-Site": "cross-site"}) == 200


@pytest.mark.parametrize("protocols", [("http",), ("http", "websocket")])
@pytest_twisted.ensureDeferred
async def test_no_answer_may_be_taken_for_another_type(protocols: tuple[str, ...]) -> None:
    async with served(protocols, expose_graphql_endpoint=True) as gateway:
        for method, path, headers, expected in [
            ("GET", "/", {}, 200),
            ("GET", "/docs", {}, 200),
            ("GET", "/openapi.json", {}, 200),
            ("GET", "/nothing", {}, 404),
            ("PUT", "/post", {}, 405),
            ("OPTIONS", "/post", {}, 204),
            ("GET", "/docs/", {}, 307),
            ("POST", "/post", {"Content-Type": JSON}, 422),
            ("GET", "/graphql", {}, 400),
            ("GET", "a", {}, 400),  # refused by the channel
            ("GET", "/", {"Host": "a b"}, 400),
        ]:
            status, answered, _ = await in_thread(ask, gateway.port, method, path, {"Host": "x", **headers})
            assert (status, answered["x-content-type-options"]) == (expected, "nosniff")
        if "websocket" in protocols:
            for path in ("/elsewhere", "/?results_in_order=perhaps"):
                _, answered, _ = await in_thread(ask, gateway.port, "GET", path, {"Host": "x", **UPGRADE})
                assert answered["x-content-type-options"] == "nosniff"


# -- in a browser ---------------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(
    find_chromium() is None, reason="there is no Chromium (Debian: apt-get install chromium)"
)


@pytest.fixture
def browser() -> Iterator[Browser]:
    path = find_chromium()
    assert path is not None
    browser = Browser(path)
    yield browser
    browser.stop()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[int]:
    """The port of a site with an empty page."""
    (tmp_path / "index.html").write_text("<!doctype html><title>a page</title><body></body>")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


ATTEMPTS = """(async () => {
  const gateway = 'http://127.0.0.1:PORT';
  const body = JSON.stringify({data: [{text: 'stolen'}], query: '{ docs { id } }'});
  for (const path of ['/post', '/graphql'])
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', null])
      await fetch(gateway + path, {
        method: 'POST', mode: 'no-cors', body: type ? body : new Blob([body]),
        headers: type ? {'Content-Type': type} : {},
      }).catch(() => 0);
  for (const path of ['/read', '/dry_run', '/graphql?query={docs{id}}'])
    await new Promise(done => {
      const image = new Image();
      image.onerror = image.onload = done;
      image.src = gateway + path;
    });
  const frame = document.createElement('iframe');
  frame.name = 'target';
  await new Promise(done => { frame.onload = done; document.body.appendChild(frame); });
  const form = document.body.appendChild(document.createElement('form'));
  Object.assign(form, {action: gateway + '/post', method: 'post', enctype: 'text/plain', target: 'target'});
  const field = form.appendChild(document.createElement('input'));
  field.name = '{"data":[{"text":"'; field.value = '"}]}';
  const loaded = new Promise(done => frame.onload = done);
  form.submit();
  await loaded;
  return await new Promise(done => {
    const socket = new WebSocket('ws://127.0.0.1:PORT/');
    socket.onopen = () => done('open'); socket.onerror = () => done('refused');
  });
})()"""


@pytest.mark.slow
@needs_chromium
@pytest_twisted.ensureDeferred
async def test_in_a_browser_only_pages_that_are_allowed_reach_executors(browser: Browser, pages: int) -> None:
    allowed = f"http://localhost:{pages}"
    settings = {
        **SETTINGS,
        "allowed_origins": (allowed,),
        "cors": (allowed,),
        "allowed_hosts": ("127.0.0.1",),
    }

    def visit(url: str, script: str) -> Any:
        browser.open(url)
        browser.until("document.readyState === 'complete' && document.body !== null")
        return browser.evaluate(script)

    dispatcher = FakeDispatcher()
    async with served(("http", "websocket"), dispatcher, **settings) as gateway:
        attempts = ATTEMPTS.replace("PORT", str(gateway.port))
        # Another origin of the same site.
        assert await in_thread(visit, f"http://127.0.0.1:{pages}/", attempts) == "refused"
        assert not dispatcher.requests

        call = """(async () => {
          const body = JSON.stringify({data: [{text: 'asked'}]});
          const headers = {'Content-Type': 'application/json'};
          return (await fetch('ADDRESS/post', {method: 'POST', body, headers})).status;
        })()"""
        mine = f"http://127.0.0.1:{gateway.port}"
        assert await in_thread(visit, f"{allowed}/", call.replace("ADDRESS", mine)) == 200
        assert await in_thread(visit, f"{mine}/docs", call.replace("ADDRESS", "")) == 200
        assert len(dispatcher.requests) == 2
        assert await in_thread(visit, f"{allowed}/", attempts) == "open"
        # What an allowed page sends as a form would is refused, and so are links: they could be another's.
        assert len(dispatcher.requests) == 2


@pytest.mark.slow
@needs_chromium
@pytest_twisted.ensureDeferred
async def test_in_a_browser_a_name_that_was_made_to_lead_here_shows_nothing(browser: Browser) -> None:
    def shown(served: Served) -> str:
        browser.open(f"http://localhost:{served.port}/status")
        return str(browser.until("document.body?.innerText"))

    async with served(allowed_hosts=("127.0.0.1",)) as gateway:
        assert "gateway.allowed_hosts" in await in_thread(shown, gateway)
