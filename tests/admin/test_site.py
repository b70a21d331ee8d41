"""The admin site on a real socket, in front of a gateway that is made up."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from gatewayd.access.keys import new_key
from gatewayd.admin.actions import Action
from gatewayd.admin.site import AdminSite
from gatewayd.config.model import GatewayConfig
from gatewayd.errors import ConfigError, Draining, PortTaken
from gatewayd.health import Health, Part
from gatewayd.protocols.told import counts
from tests.protocols.harness import in_thread, until

reactor: Any = _reactor
KEY, DIGEST = new_key()
KEYS = {"ada": (DIGEST.removeprefix("sha256:"),)}
BEARER = {"Authorization": f"Bearer {KEY}"}
SERVING = Health("serving", True, (Part("a", 0, 1),))


@attrs.define
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@attrs.define
class Setup:
    site: AdminSite
    health: Health = SERVING
    called: list[Any] = attrs.Factory(list)
    answers: Any = None

    async def ask(
        self, path: str, body: Any = None, headers: Mapping[str, str] = {}, method: str | None = None
    ) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **headers}
        asked = urllib.request.Request(f"http://127.0.0.1:{self.site.port}{path}", data, sent, method=method)

        def ask() -> Answer:
            try:
                with urllib.request.urlopen(asked, timeout=20) as answer:
                    return Answer(answer.status, answer.read(), answer.headers)
            except urllib.error.HTTPError as error:
                with error:
                    return Answer(error.code, error.read(), error.headers)

        return await in_thread(ask)


@contextlib.asynccontextmanager
async def site_of(**settings: Any) -> AsyncIterator[Setup]:
    gateway = GatewayConfig(**{"admin_port": 0, "admin_keys": KEYS, **settings})
    setup: Setup
    site = AdminSite(gateway, reactor, lambda: setup.health)
    setup = Setup(site)

    def run(arguments: Mapping[str, Any]) -> Deferred[Any]:
        setup.called.append(arguments)
        return setup.answers(arguments) if setup.answers is not None else succeed({"done": True})

    site.actions.add(Action("reload", "Read the Flow file again.", run, {"force": "Whatever."}))
    site.add("/inside", lambda http_request: http_request.respond(200, b'{"inside": 1}'))
    site.listen()
    try:
        yield setup
    finally:
        await site.stop()


@pytest_twisted.ensureDeferred
async def test_probes_answer_with_a_status_and_reasons() -> None:
    async with site_of() as setup:
        for path in ("/livez", "/readyz", "/startupz"):
            answer = await setup.ask(path)
            assert (answer.status, answer.json) == (200, {"ok": True, "reasons": []})

        setup.health = attrs.evolve(SERVING, parts=(Part("a", 0, 0),))
        answer = await setup.ask("/readyz")
        assert answer.status == 503
        assert answer.json["reasons"] == [
            {"reason": "no_replica", "detail": "no replica of a is connected", "deployment": "a", "shard": 0}
        ]
        assert answer.headers["Cache-Control"] == "no-store"
        assert (await setup.ask("/livez")).status == 200


@pytest_twisted.ensureDeferred
async def test_an_action_is_run_for_the_owner_of_a_key() -> None:
    async with site_of() as setup:
        answer = await setup.ask("/api/reload", {"force": True}, BEARER)
        assert (answer.status, answer.json) == (200, {"ok": True, "result": {"done": True}})
        assert (await setup.ask("/api/reload", {}, {"X-API-Key": KEY})).status == 200
        assert setup.called == [{"force": True}, {}]
        assert [each["name"] for each in (await setup.ask("/api/actions")).json["actions"]] == ["reload"]


@pytest_twisted.ensureDeferred
async def test_nobody_else_has_it_run() -> None:
    async with site_of() as setup:
        assert (await setup.ask("/api/reload", {})).status == 401
        assert (await setup.ask("/api/reload", {}, {"X-API-Key": "x" * 43})).status == 401
        # A page of another origin, and one whose name was made to resolve to this machine.
        answer = await setup.ask("/api/reload", {}, {**BEARER, "Origin": "http://evil.example"})
        assert answer.status == 403
        assert "the admin site is for its own pages" in answer.json["detail"]
        answer = await setup.ask("/inside", headers={"Host": "evil.example"})
        assert answer.status == 421
        assert "the admin site answers to localhost, 127.0.0.1, ::1" in answer.body.decode()
        assert "allowed_" not in answer.body.decode()
        assert (await setup.ask("/api/reload", headers=BEARER, method="GET")).status == 405
        assert (await setup.ask("/api/nothing", {}, BEARER)).status == 404
        assert (await setup.ask("/api/reload", {"froce": 1}, BEARER)).status == 422
        assert setup.called == []

    async with site_of(admin_keys={}) as setup:
        answer = await setup.ask("/api/reload", {}, BEARER)
        assert answer.status == 403
        assert "gateway.admin_keys" in answer.json["detail"]
        assert setup.called == []


@pytest_twisted.ensureDeferred
async def test_the_names_of_a_site_for_other_machines_are_those_of_the_flow_file() -> None:
    async with site_of(admin_host="0.0.0.0", allowed_hosts=("ops.example",)) as setup:
        answer = await setup.ask("/api/actions", headers={"Host": "evil.example", **BEARER})
        assert answer.status == 421
        assert "gateway.allowed_hosts" in answer.body.decode()


@pytest_twisted.ensureDeferred
async def test_the_sites_own_page_may_ask() -> None:
    async with site_of() as setup:
        own = {"Origin": f"http://127.0.0.1:{setup.site.port}", **BEARER}
        assert (await setup.ask("/api/reload", {}, own)).status == 200


@pytest_twisted.ensureDeferred
async def test_what_an_action_fails_with_is_told() -> None:
    async with site_of() as setup:
        setup.answers = lambda arguments: fail(ConfigError("flow.yml:3: wrong"))
        answer = await setup.ask("/api/reload", {}, BEARER)
        assert answer.status == 422
        assert "flow.yml:3: wrong" in answer.body.decode()

        setup.answers = lambda arguments: fail(Draining())
        assert (await setup.ask("/api/reload", {}, BEARER)).status == 503


@pytest_twisted.ensureDeferred
async def test_an_action_is_not_broken_off_by_a_client_that_leaves_but_by_the_sites_end() -> None:
    waiting: Deferred[Any] = Deferred()
    ended: list[Any] = []
    waiting.addErrback(lambda failure: ended.append(failure.trap(CancelledError)) or failure)
    async with site_of() as setup:
        setup.answers = lambda arguments: waiting
        with socket.create_connection(("127.0.0.1", setup.site.port)) as client:
            client.sendall(
                b"POST /api/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
                b"Authorization: Bearer %s\r\n\r\n" % KEY.encode()
            )
            await until(lambda: setup.called)
        assert not ended
    assert ended == [CancelledError]


@pytest_twisted.ensureDeferred
async def test_paths_and_methods() -> None:
    async with site_of() as setup:
        assert (await setup.ask("/inside")).json == {"inside": 1}
        assert (await setup.ask("/inside", {})).status == 405
        assert (await setup.ask("/nowhere")).status == 404
        assert (await setup.ask("/inside", method="HEAD")).body == b""


@pytest_twisted.ensureDeferred
async def test_what_operators_are_told_is_not_counted_as_told_to_clients() -> None:
    async with site_of() as setup:
        before = counts()
        assert (await setup.ask("/nowhere")).status == 404
        assert (await setup.ask("/api/reload", {})).status == 401
        assert (await setup.ask("/api/reload", {}, {"X-API-Key": "wrong"})).status == 401
        assert (await setup.ask("/inside", headers={"Host": "evil.example"})).status == 421

        assert counts() == before


@pytest_twisted.ensureDeferred
async def test_to_other_machines_a_site_without_keys_shows_health_alone() -> None:
    async with site_of(admin_host="0.0.0.0", admin_keys={}) as setup:
        setup.health = attrs.evolve(SERVING, parts=(Part("a", 0, 0),))
        assert (await setup.ask("/readyz")).json == {"ok": False, "reasons": [{"reason": "no_replica"}]}
        for path in ("/inside", "/api/actions", "/nowhere"):
            answer = await setup.ask(path)
            assert answer.status == 403
            assert "gateway.admin_keys" in answer.json["detail"]


@pytest_twisted.ensureDeferred
async def test_to_other_machines_a_site_with_keys_shows_health_and_to_administrators_all() -> None:
    async with site_of(admin_host="0.0.0.0") as setup:
        assert (await setup.ask("/readyz")).status == 200
        for headers in ({}, {"X-API-Key": "wrong"}):
            for path in ("/inside", "/api/actions", "/nowhere"):
                assert (await setup.ask(path, headers=headers)).status == 401
        assert (await setup.ask("/inside", headers=BEARER)).status == 200
        assert (await setup.ask("/inside", headers={"X-API-Key": KEY})).status == 200


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken_is_named_with_its_key() -> None:
    async with site_of() as setup:
        other = AdminSite(GatewayConfig(admin_port=setup.site.port), reactor, lambda: SERVING)
        with pytest.raises(PortTaken, match=r"gateway\.admin_port"):
            other.listen()
