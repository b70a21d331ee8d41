"""
Clients of other libraries against real gateways, with either gRPC server: the same calls, the same outcomes.

`make test-grpc-clients` installs what can be had, and names what is skipped.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatewayd.messages import methods
from gatewayd.pb import DataRequestProto
from tests import certificates
from tests.grpc_clients.conftest import Running, gateway
from tests.processes import Gateway
from tests.waiting import until

pytestmark = [pytest.mark.grpc_clients, pytest.mark.slow]

Start = Callable[[dict[str, Any]], Running]

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SERVING = b"\x08\x01"
LIST_SERVICES = b"\x3a\x01*"
MB_5 = 5 << 20


def asked(text: str, endpoint: str = "/", seconds: float = 0.0) -> bytes:
    request = DataRequestProto()
    request.header.exec_endpoint = endpoint
    request.header.request_id = text[:8]
    request.parameters.update({"seconds": seconds})
    request.data.docs.docs.add(text=text)
    return request.SerializeToString()


def texts(answers: list[bytes]) -> list[str]:
    return [DataRequestProto.FromString(each).data.docs.docs[0].text for each in answers]


def call(name: str, path: str, *messages: bytes, kind: str = "unary", **more: Any) -> dict[str, Any]:
    given = {
        "metadata": [],
        "timeout_s": None,
        "cancel_s": None,
        "answers": 0,
        "times": 1,
        "at_once": False,
        "traceparent": False,
        **more,
    }
    encoded = [base64.b64encode(each).decode() for each in messages]
    return {"name": name, "path": path, "kind": kind, "messages": encoded, **given}


HEADERS = [["x-a", "one, two"], ["x-b-bin", base64.b64encode(b"\0\1\xff").decode()]]
CALLS = [
    call("unary", methods.SINGLE, asked("a")),
    call(
        "stream",
        methods.STREAM,
        *(asked(str(number)) for number in range(20)),
        kind="bidi",
        metadata=[["__results_in_order__", "true"]],
    ),
    call("headers", methods.SINGLE, asked("h"), metadata=HEADERS),
    call("deadline", methods.SINGLE, asked("d", "/sleep", 60), timeout_s=0.5),
    call("cancel", methods.SINGLE, asked("c", "/sleep", 60), cancel_s=0.5),
    call("large", methods.SINGLE, asked("x" * MB_5)),
    call("unreadable", methods.SINGLE, b"\xff" * 9),
    call("unknown", "/a.b/c", b""),
    call("check", CHECK, b""),
    call("unknown service", CHECK, b"\x0a\x01x"),
    call("watch", WATCH, b"", kind="server", answers=1),
    call("reflection", REFLECTION, LIST_SERVICES, kind="bidi"),
    call("at once", methods.SINGLE, asked("o"), times=100, at_once=True),
    call("in a row", methods.SINGLE, asked("r"), times=1000, traceparent=True),
    call("after all", methods.SINGLE, asked("z")),
]


def job(one: Gateway, *calls: dict[str, Any], ca: Path | None = None) -> dict[str, Any]:
    target = f"127.0.0.1:{one.ports['grpc']}"
    return {"target": target, "ca": None if ca is None else str(ca), "calls": calls}


def ok(outcome: dict[str, Any]) -> list[bytes]:
    """The answers of a call that has succeeded."""
    assert (outcome["code"], outcome["details"]) == (0, "")
    answers: list[bytes] = outcome["answers"]
    return answers


def test_every_call_comes_out_as_it_should(plain: Gateway, start: Start) -> None:
    running = start(job(plain, *CALLS))

    def only(name: str) -> dict[str, Any]:
        (found,) = running.outcomes(name)
        return found

    assert texts(ok(only("unary"))) == ["a"]
    assert texts(ok(only("stream"))) == [str(number) for number in range(20)]
    assert texts(ok(only("headers"))) == ["h"]
    trailers = [pair for pair in only("headers")["trailers"] if pair[0].startswith("x-")]
    assert sorted(trailers) == [["x-a", "one, two"], ["x-b-bin", "AAH/"]]
    assert only("deadline")["code"] == 4
    assert only("cancel")["code"] == 1
    assert texts(ok(only("large"))) == ["x" * MB_5]
    unreadable = only("unreadable")
    assert (unreadable["code"], unreadable["answers"]) == (3, [])
    assert unreadable["details"] == "not a DataRequestProto: it ends within a number"
    assert only("unknown")["code"] == 12
    assert ok(only("check")) == [SERVING]
    assert only("unknown service")["code"] == 5
    watch = only("watch")
    assert (watch["code"], watch["answers"]) == (1, [SERVING])
    (listed,) = ok(only("reflection"))
    assert b"jina.JinaRPC" in listed
    for name, text, times in (("at once", "o", 100), ("in a row", "r", 1000), ("after all", "z", 1)):
        outcomes = running.outcomes(name)
        assert [texts(ok(each)) for each in outcomes] == [[text]] * times


def test_calls_over_tls(secured: Gateway, files: certificates.Files, start: Start) -> None:
    calls = [each for each in CALLS if each["name"] in ("unary", "stream", "large", "at once", "check")]
    running = start(job(secured, *calls, ca=files.roots))
    assert texts(ok(running.outcomes("unary")[0])) == ["a"]
    assert texts(ok(running.outcomes("stream")[0])) == [str(number) for number in range(20)]
    assert texts(ok(running.outcomes("large")[0])) == ["x" * MB_5]
    assert ok(running.outcomes("check")[0]) == [SERVING]
    assert [texts(ok(each)) for each in running.outcomes("at once")] == [["o"]] * 100


def test_a_gateway_that_stops_lets_calls_finish(
    request: pytest.FixtureRequest, server: str, start: Start, tmp_path: Path
) -> None:
    if "grpclib" in request.node.name:
        pytest.skip("grpclib hangs up at the first GOAWAY, whichever server sends it")
    began = tmp_path / "began"
    began.mkdir()
    one = gateway(server, began)
    try:
        slow = call("slow", methods.SINGLE, asked("s", "/sleep", 1.5), times=10, at_once=True)
        running = start(job(one, slow))
        until(lambda: len([*began.iterdir()]) == 10)
        os.kill(one.pid, signal.SIGTERM)
        assert [texts(ok(each)) for each in running.outcomes("slow")] == [["s"]] * 10
    finally:
        one.stop()


# -- nghttp2's own tools -----------------------------------------------------------------------------------


def framed(tmp_path: Path, message: bytes) -> Path:
    path = tmp_path / "body"
    path.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    return path


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install nghttp2-client")
    return found


AS_GRPC = ["-H", "content-type: application/grpc", "-H", "te: trailers"]


def test_nghttp(plain: Gateway, tmp_path: Path) -> None:
    at = f"http://127.0.0.1:{plain.ports['grpc']}{methods.SINGLE}"
    body = framed(tmp_path, asked("n"))
    ran = subprocess.run(
        [tool("nghttp"), "-v", "-n", "-d", str(body), *AS_GRPC, at],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ":status: 200" in ran.stdout
    assert "grpc-status: 0" in ran.stdout
    assert not re.search(r"error_code=(?!NO_ERROR)", ran.stdout)


@pytest.mark.parametrize("more", [[], ["-w", "16", "-W", "16"]], ids=["", "small windows"])
def test_h2load(plain: Gateway, tmp_path: Path, more: list[str]) -> None:
    at = f"http://127.0.0.1:{plain.ports['grpc']}{methods.SINGLE}"
    body = framed(tmp_path, asked("n" * 1000))
    ran = subprocess.run(
        [tool("h2load"), "-n", "2000", "-c", "10", "-m", "32", *more, "-d", str(body), *AS_GRPC, at],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in ran.stdout
