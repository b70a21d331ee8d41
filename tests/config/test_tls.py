"""The keys of TLS: what they mean together, and where their problems are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatewayd.config import FlowConfig, flow_from_mapping
from gatewayd.errors import ConfigError
from tests.certificates import Files, make, write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("tls"))


def flow(files: Files | None, **gateway: Any) -> FlowConfig:
    settings = {} if files is None else files.settings
    return flow_from_mapping({"gateway": {**settings, **gateway}})


def refusal(files: Files | None, **gateway: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        flow(files, **gateway)
    return str(caught.value)


def test_without_files_there_is_no_tls() -> None:
    assert flow(None).gateway.tls is None


def test_the_default_pair_is_the_first(files: Files) -> None:
    pair = {"certfile": str(files.chain), "keyfile": str(files.key), "names": "A.example.org"}

    tls = flow(files, ssl_certificates=[pair]).gateway.tls

    assert tls is not None
    assert [each.names for each in tls.pairs] == [(), ("A.example.org",)]


def test_the_first_of_the_list_is_the_default_where_there_is_no_other(files: Files) -> None:
    pair = {"certfile": str(files.chain), "keyfile": str(files.key)}

    tls = flow(None, ssl_certificates=[pair]).gateway.tls

    assert tls is not None
    assert [each.certfile for each in tls.pairs] == [str(files.chain)]


def test_paths_are_made_absolute(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files.chain.parent)
    relative = {"certfile": files.chain.name, "keyfile": Path(files.key.name)}

    tls = flow(None, ssl_certificates=[relative], ssl_client_ca=files.roots.name).gateway.tls

    assert tls is not None
    assert (tls.pairs[0].certfile, tls.pairs[0].keyfile) == (str(files.chain), str(files.key))
    assert tls.client_ca == str(files.roots)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a.pem", "ssl_certificates: found 'a.pem'; accepted: a list of maps such as {certfile: a.pem"),
        (["a.pem"], "ssl_certificates[0]: found 'a.pem'; accepted: a list of maps"),
        ([{"certfile": "a.pem"}], "ssl_certificates[0]: keyfile is missing"),
        ([{"certfile": ["a"], "keyfile": "b"}], "ssl_certificates[0].certfile: found ['a']"),
        ([{"certfile": "a", "keyfile": "b", "name": "c"}], "ssl_certificates[0].name: unknown key; accepted"),
        ([{"certfile": "a", "keyfile": "b", "names": [1]}], "ssl_certificates[0].names[0]: found 1"),
        ([{"certfile": "/no/a", "keyfile": "/no/b"}], "ssl_certificates[0].certfile: /no/a cannot be read"),
    ],
    ids=str,
)
def test_a_bad_entry_of_the_list_is_named(files: Files, value: Any, said: str) -> None:
    assert said in refusal(files, ssl_certificates=value)


def test_the_key_of_another_entry_is_refused_at_its_place(files: Files, tmp_path: Path) -> None:
    (tmp_path / "other.key").write_bytes(make("other").key_pem())
    pair = {"certfile": str(files.chain), "keyfile": str(tmp_path / "other.key")}

    assert "ssl_certificates[0].keyfile: " in refusal(files, ssl_certificates=[pair])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds no PEM certificate"),
        (make("old", authority=True, begin_days=-9, end_days=-8).pem, "the certificate CN=old expired on"),
        (make("new", authority=True, begin_days=8, end_days=9).pem, "CN=new is not valid before"),
    ],
    ids=["missing", "empty", "broken", "expired", "not yet valid"],
)
def test_a_bad_bundle_of_authorities_is_refused(
    files: Files, tmp_path: Path, content: bytes | None, said: str
) -> None:
    bundle = tmp_path / "clients.pem"
    if content is not None:
        bundle.write_bytes(content)

    error = refusal(files, ssl_client_ca=str(bundle))

    assert f"gateway.ssl_client_ca: {bundle}" in error
    assert said in error


def test_an_expired_authority_among_valid_ones_does_no_harm(files: Files, tmp_path: Path) -> None:
    bundle = tmp_path / "clients.pem"
    old = make("old", authority=True, begin_days=-9, end_days=-8)
    bundle.write_bytes(old.pem + make("new", authority=True).pem)

    assert flow(files, ssl_client_ca=str(bundle)).gateway.ssl_client_ca == str(bundle)


def test_what_would_have_no_effect_is_refused(files: Files) -> None:
    assert "give ssl_certfile" in refusal(None, ssl_client_ca=str(files.roots))
    assert "no effect without ssl_client_ca" in refusal(files, ssl_client_auth="required")


def test_what_grpcios_server_cannot_do_is_warned_of(files: Files) -> None:
    pair = {"certfile": str(files.chain), "keyfile": str(files.key), "names": ["a.example.org"]}
    settings = {"ssl_client_ca": str(files.roots), "ssl_client_auth": "optional", "ssl_certificates": [pair]}

    over_grpc = flow(files, protocol="grpc", grpc_server="grpcio", **settings).warnings
    over_http = flow(files, protocol="http", grpc_server="grpcio", **settings).warnings

    assert "asked for none" in "".join(over_grpc)
    assert "names has no effect" in "".join(over_grpc)
    assert over_http == flow(files, protocol="grpc", **settings).warnings == ()


def test_hsts_is_for_tls(files: Files) -> None:
    assert flow(files, hsts=31536000).gateway.hsts == 31536000
    assert flow(None, hsts=False).gateway.hsts == 0
    assert "give ssl_certfile" in refusal(None, hsts=60)
    assert "a number of seconds, or false" in refusal(files, hsts="always")


STORE = "rediss://store"


def test_the_files_for_the_store_of_the_rates_are_checked(files: Files, tmp_path: Path) -> None:
    own = {"rates_store_certfile": str(files.chain), "rates_store_keyfile": str(files.key)}
    gateway = flow(None, rates_store=STORE, rates_store_ca_certfile=str(files.roots), **own).gateway
    assert gateway.rates_store_tls.client_ca == str(files.roots)
    assert [each.keyfile for each in gateway.rates_store_tls.pairs] == [str(files.key)]

    missing = str(tmp_path / "missing.pem")
    told = refusal(None, rates_store=STORE, rates_store_ca_certfile=missing)
    assert f"gateway.rates_store_ca_certfile: {missing} cannot be read" in told


@pytest.mark.parametrize(
    ("store", "key", "said"),
    [
        ("redis://store", "rates_store_ca_certfile", "begins with rediss://"),
        (None, "rates_store_certfile", "begins with rediss://"),
        (STORE, "rates_store_keyfile", "give rates_store_certfile"),
    ],
)
def test_files_for_a_store_that_cannot_use_them_are_refused(
    files: Files, store: str | None, key: str, said: str
) -> None:
    given = {"rates_store": store} if store else {}
    told = refusal(None, **given, **{key: str(files.key)})
    assert f"gateway.{key}: " in told
    assert said in told
