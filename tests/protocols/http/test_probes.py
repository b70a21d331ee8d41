"""/livez, /readyz and /startupz on clients' ports: on request, and to everybody."""

import json

import pytest
import pytest_twisted

from gatewayd.access.control import AccessControl
from gatewayd.health import PROBES, Health, Part
from tests.protocols.harness import in_thread, served
from tests.protocols.http.test_http import call

OTHER_NAME = {"Host": "10.0.0.7:80"}
UNWELL = Health("serving", True, (Part("a", 0, 0),))


@pytest.mark.parametrize("protocols", [("http",), ("websocket",), ("http", "websocket")])
@pytest_twisted.ensureDeferred
async def test_they_are_served_on_request(protocols):
    async with served(protocols, expose_health=True, health=lambda: UNWELL) as gateway:
        answers = {path: await in_thread(call, gateway.port, "GET", path) for path in PROBES}

    assert {path: status for path, (status, _, _) in answers.items()} == {
        "/livez": 200,
        "/readyz": 503,
        "/startupz": 200,
    }
    assert json.loads(answers["/readyz"][2])["reasons"][0]["deployment"] == "a"


@pytest_twisted.ensureDeferred
async def test_otherwise_there_are_none():
    async with served() as gateway:
        for path in PROBES:
            assert (await in_thread(call, gateway.port, "GET", path))[0] == 404


@pytest_twisted.ensureDeferred
async def test_they_need_no_identity_and_no_name_of_the_gateway():
    settings = {"expose_health": True, "access": AccessControl(), "allowed_hosts": ("a.example",)}
    async with served(**settings) as gateway:
        for path in PROBES:
            found = await in_thread(call, gateway.port, "GET", path, None, OTHER_NAME)
            assert found[0] == 200
        assert (await in_thread(call, gateway.port, "GET", "/status", None, OTHER_NAME))[0] == 421
        assert (await in_thread(call, gateway.port, "POST", "/livez", b""))[0] == 421


@pytest_twisted.ensureDeferred
async def test_strangers_do_not_learn_what_is_inside():
    async with served(expose_health=True, expose_errors=False, health=lambda: UNWELL) as gateway:
        _, _, body = await in_thread(call, gateway.port, "GET", "/readyz")

    assert json.loads(body) == {"ok": False, "reasons": [{"reason": "no_replica"}]}
