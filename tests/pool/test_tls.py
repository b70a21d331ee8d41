"""Calls to external executors over TLS: their authority, and our certificate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import grpc
import pytest
import pytest_twisted
from cryptography import x509
from twisted.internet import reactor

from gatewayd.bridge import Bridge
from gatewayd.config import DeploymentConfig, GatewayConfig, flow_from_mapping
from gatewayd.errors import ConfigError, GatewayError
from gatewayd.messages.request import Call
from gatewayd.pool.pool import Pool
from gatewayd.tls.peer import names_of_auth_context
from tests.certificates import Party, make
from tests.rpc.servers import ALL, Executor
from tests.waiting import until_on_reactor

pytestmark = pytest.mark.slow

CALL = Call((b"",), "/x")
NAMED = (x509.DNSName("executor.example"),)


@attrs.define
class Files:
    """The files of a gateway's calls, in a folder; ``root`` signs executors, ``clients`` the gateway."""

    folder: Path
    root: Party = attrs.Factory(lambda: make("executors' authority", authority=True))
    clients: Party = attrs.Factory(lambda: make("gateways' authority", authority=True))

    def write(self, name: str, content: bytes) -> str:
        path = self.folder / name
        (self.folder / "new").write_bytes(content)
        (self.folder / "new").replace(path)
        return str(path)

    def own(self, party: Party) -> dict[str, str]:
        """The settings of a certificate to show."""
        chain, key = self.write("own.pem", party.pem), self.write("own.key", party.key_pem())
        return {"tls_certfile": chain, "tls_keyfile": key}

    def trusted(self, *authorities: Party) -> dict[str, str]:
        return {"tls_ca_certfile": self.write("ca.pem", b"".join(each.pem for each in authorities))}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


class Watching(Executor):
    """An executor that notes who calls."""

    def __init__(self) -> None:
        super().__init__(*ALL)
        self.callers: list[str | None] = []

    def service(self, details: Any) -> Any:
        handler = super().service(details)
        if handler is None or handler.unary_unary is None:
            return handler
        respond = handler.unary_unary

        async def noting(message: bytes, context: Any) -> bytes:
            names = names_of_auth_context(context.auth_context())
            self.callers.append(None if names is None else names.common_name)
            return await respond(message, context)

        return grpc.unary_unary_rpc_method_handler(noting)


class Bench:
    """Executors that demand certificates, and pools that call them."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.bridge = Bridge(reactor)
        self.bridge.start()
        self.executors: list[Watching] = []
        self.pools: list[Pool] = []

    async def serve(self, party: Party, *, demands: bool = True, port: int = 0) -> tuple[Watching, int]:
        executor = Watching()
        pair = (party.key_pem(), party.pem)
        clients = self.files.clients.pem if demands else None
        credentials = grpc.ssl_server_credentials([pair], clients, demands)
        bound = await self.bridge.on_loop(executor.start, f"127.0.0.1:{port}", credentials)
        self.executors.append(executor)
        return executor, bound

    def pool(self, port: int, host: str = "127.0.0.1", **tls: Any) -> Pool:
        deployment = DeploymentConfig(name="a", external=True, addresses=(f"{host}:{port}",), tls=True, **tls)
        gateway = GatewayConfig(retries=0, ssl_reload_interval_s=0.1)
        self.pools.append(Pool.over(self.bridge, gateway, (deployment,), reactor))
        return self.pools[-1]

    async def close(self) -> None:
        for pool in self.pools:
            pool.close()
        for executor in self.executors:
            await self.bridge.on_loop(executor.stop)
        await self.bridge.stop()


@pytest.fixture
def bench(files: Files) -> Any:
    bench = Bench(files)
    yield bench
    pytest_twisted.blockon(_ended(bench))


def _ended(bench: Bench) -> Any:
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(bench.close())


async def called(pool: Pool) -> bool:
    return not (await pool.send("a", CALL, 10.0)).failed


@pytest_twisted.ensureDeferred
async def test_an_executor_that_demands_a_certificate_gets_it(bench: Bench, files: Files) -> None:
    executor, port = await bench.serve(files.root.issue())

    assert await called(bench.pool(port, **files.trusted(files.root), **files.own(files.clients.issue("gw"))))
    assert set(executor.callers) == {"gw"}


@pytest_twisted.ensureDeferred
async def test_one_file_may_have_certificate_and_key(bench: Bench, files: Files) -> None:
    _, port = await bench.serve(files.root.issue())
    own = files.clients.issue("gw")
    both = files.write("both.pem", own.pem + own.key_pem())

    assert await called(bench.pool(port, **files.trusted(files.root), tls_certfile=both))


@pytest_twisted.ensureDeferred
async def test_a_certificate_is_shown_with_what_leads_to_its_authority(bench: Bench, files: Files) -> None:
    _, port = await bench.serve(files.root.issue())
    middle = files.clients.issue("middle", authority=True)
    own = middle.issue("gw")
    settings = {
        "tls_certfile": files.write("chain.pem", own.pem + middle.pem),
        "tls_keyfile": files.write("chain.key", own.key_pem()),
    }

    assert await called(bench.pool(port, **files.trusted(files.root), **settings))


@pytest.mark.parametrize(
    "settings",
    [
        lambda files: files.trusted(files.root),
        lambda files: {**files.trusted(files.root), **files.own(make("gw"))},
        lambda files: {**files.trusted(make("x", authority=True)), **files.own(files.clients.issue())},
        lambda files: files.own(files.clients.issue()),
    ],
    ids=["no certificate", "of a stranger", "another authority is trusted", "the system's are"],
)
@pytest_twisted.ensureDeferred
async def test_what_does_not_match_is_refused_on_either_side(
    bench: Bench, files: Files, settings: Callable[[Files], dict[str, str]]
) -> None:
    executor, port = await bench.serve(files.root.issue())

    with pytest.raises(GatewayError):
        await called(bench.pool(port, **settings(files)))
    assert executor.callers == []


@pytest_twisted.ensureDeferred
async def test_the_name_in_the_certificate_must_be_that_of_the_server(bench: Bench, files: Files) -> None:
    _, port = await bench.serve(files.root.issue("other", names=NAMED), demands=False)

    with pytest.raises(GatewayError):
        await called(bench.pool(port, **files.trusted(files.root)))
    with pytest.raises(GatewayError):
        await called(bench.pool(port, tls_server_name="another.example", **files.trusted(files.root)))
    assert await called(bench.pool(port, tls_server_name="executor.example", **files.trusted(files.root)))


@pytest_twisted.ensureDeferred
async def test_renewed_files_hold_from_the_next_connection_on(bench: Bench, files: Files) -> None:
    executor, port = await bench.serve(files.root.issue())
    pool = bench.pool(port, **files.trusted(files.root), **files.own(files.clients.issue("first")))
    assert await called(pool)
    new_root = make("new authority", authority=True)
    (renewal,) = pool._renewals
    before = renewal.credentials

    files.trusted(new_root)
    files.own(files.clients.issue("second"))
    await until_on_reactor(
        reactor,
        lambda: (
            renewal.credentials.pairs != before.pairs
            and renewal.credentials.authorities != before.authorities
        ),
    )
    # The connection is the one of before, and its server has the certificate of before.
    assert await called(pool)
    assert set(executor.callers) == {"first"}

    await bench.bridge.on_loop(executor.stop)
    again, _ = await bench.serve(new_root.issue(), port=port)
    await until_on_reactor(reactor, lambda: again.callers)
    assert await called(pool)
    assert set(again.callers) == {"second"}


# -- the config ------------------------------------------------------------------------------------------


def refusal(**executor: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        flow_from_mapping({"executors": [{"name": "a", **executor}]})
    return str(caught.value)


EXTERNAL = {"external": True, "host": "executor.example", "port": 8080}


def test_the_files_are_absolute_in_the_config(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.trusted(files.root)
    files.own(files.clients.issue())
    monkeypatch.chdir(files.folder)
    relative = {"tls_ca_certfile": "ca.pem", "tls_certfile": "own.pem", "tls_keyfile": "own.key"}

    (found,) = flow_from_mapping({"executors": [{**EXTERNAL, "tls": True, **relative}]}).deployments

    assert [getattr(found, name) for name in relative] == [
        str(files.folder / name) for name in relative.values()
    ]


def test_an_external_head_has_them_too(files: Files) -> None:
    settings = {**files.trusted(files.root), "tls_server_name": "head.example"}
    executor = {"shards": 2, "uses_before_address": "grpcs://127.0.0.1:8080", **settings}

    (found,) = flow_from_mapping({"executors": [executor]}).deployments

    assert found.tls_server_name == "head.example"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tls_ca_certfile": "/no/ca.pem"}, "executors[0].tls_ca_certfile: /no/ca.pem cannot be read"),
        ({"tls_certfile": "/no/own.pem"}, "executors[0].tls_certfile: /no/own.pem cannot be read"),
        ({"tls_keyfile": "/no/own.key"}, "executors[0].tls_keyfile: a key needs its certificate"),
    ],
    ids=str,
)
def test_bad_files_are_refused_at_the_start(settings: dict[str, str], said: str) -> None:
    assert said in refusal(**EXTERNAL, tls=True, **settings)


def test_the_key_of_another_certificate_is_refused(files: Files) -> None:
    own = files.own(files.clients.issue())
    files.write("own.key", make("other").key_pem())

    assert "executors[0].tls_keyfile: " in (text := refusal(**EXTERNAL, tls=True, **own))
    assert "own.key is not the key of the certificate in" in text


@pytest.mark.parametrize("where", [EXTERNAL, {}], ids=["external", "started here"])
def test_without_tls_they_have_no_effect(files: Files, where: dict[str, Any]) -> None:
    assert "has no effect without TLS" in refusal(**where, **files.trusted(files.root))
