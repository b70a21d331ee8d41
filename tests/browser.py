"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import tempfile
import time
from typing import Any

import websockets.sync.client

from tests.processes import Child, environment

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--remote-debugging-port=0",
    # Nothing but this machine can be reached, whatever a page asks for.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)  # fmt: skip


def find_chromium() -> str | None:
    """Its path, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page at a time. ``events`` are those of the browser so far."""

    def __init__(self, path: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="gatewayd-browser-", ignore_cleanup_errors=True)
        command = [path, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = Child(command, env=environment())
        self.events: list[dict[str, Any]] = []
        self._open = contextlib.ExitStack()
        self._asked = 0
        self._session: str | None = None
        try:
            (match,) = self._process.line(r"DevTools listening on (ws://\S+)")
            connection = websockets.sync.client.connect(match[1], max_size=None, proxy=None)
            self._socket = self._open.enter_context(connection)
        except BaseException:
            self.stop()
            raise

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Have one command of the protocol carried out; its result."""
        self._asked += 1
        message: dict[str, Any] = {"id": self._asked, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            heard: dict[str, Any] = json.loads(self._socket.recv(timeout=30))
            if heard.get("id") == self._asked:
                assert "error" not in heard, heard
                result: dict[str, Any] = heard["result"]
                return result
            # A page that was left may still have something to say.
            if heard.get("sessionId") == self._session:
                self.events.append(heard)

    def open(self, url: str) -> None:
        """Show ``url`` in a page of its own."""
        self.events.clear()
        self._session = None
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.command(f"{domain}.enable")
        self.command("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str, timeout_s: float = 30.0) -> Any:
        """Wait until an expression is true in the page; its value."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.evaluate(script)):
            if time.monotonic() > deadline:
                page = self.evaluate("document.body.innerText")
                raise AssertionError(
                    f"{script} did not come true; the page says:\n{page}\n{self.complaints()}"
                )
            self.command(
                "Runtime.evaluate", expression="new Promise(requestAnimationFrame)", awaitPromise=True
            )
        return value

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Show the page in a window of this size, in CSS pixels, and in light or dark colours."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])

    def click(self, selector: str) -> None:
        """Click the first element of a CSS selector as soon as it is there."""
        quoted = json.dumps(selector)
        self.until(f"document.querySelector({quoted})?.click() ?? document.querySelector({quoted}) !== null")

    def answered(self) -> list[str]:
        """The addresses of everything that the page got an answer for."""
        heard = [one["params"] for one in self.events if one["method"] == "Network.responseReceived"]
        return [one["response"]["url"] for one in heard]

    def asked(self) -> list[str]:
        """The addresses of everything that the page wanted, blocked requests included."""
        heard = [one["params"] for one in self.events if one["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in heard]

    def complaints(self) -> list[str]:
        """Errors that the page's console shows."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            elif event["method"] == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(details.get("exception", {}).get("description") or details["text"])
        return found

    def stop(self) -> None:
        self._open.close()
        self._process.stop()
        self._profile.cleanup()
