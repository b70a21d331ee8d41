"""Which certificate and key files are taken, and how the others are refused."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gatewayd.config import flow_from_mapping
from gatewayd.tls.credentials import PairFiles, UnusableTlsFile
from gatewayd.tls.files import load_key_pair
from gatewayd.tls.web import WebTls
from tests.certificates import Party, make, write_files


@pytest.fixture(scope="module")
def party() -> Party:
    return make("localhost")


@pytest.fixture
def paths(tmp_path: Path, party: Party) -> tuple[Path, Path]:
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    certfile.write_bytes(party.pem)
    keyfile.write_bytes(party.key_pem())
    return certfile, keyfile


def refusal(certfile: object, keyfile: object, **more: object) -> UnusableTlsFile:
    with pytest.raises(UnusableTlsFile) as caught:
        load_key_pair(
            PairFiles(None if certfile is None else str(certfile), None if keyfile is None else str(keyfile)),
            **more,  # type: ignore[arg-type]
        )
    return caught.value


def test_a_chain_and_its_key_are_a_key_pair(tmp_path: Path) -> None:
    files = write_files(tmp_path)

    credentials = files.credentials

    (key_pair,) = credentials.pairs
    assert key_pair.chain_pem.count(b"BEGIN CERTIFICATE") == 2
    assert (key_pair.subject, key_pair.names) == ("CN=localhost", ("localhost",))
    assert WebTls(credentials).serverConnectionForTLS(None) is not None


def test_a_key_pair_shows_no_key(paths: tuple[Path, Path]) -> None:
    assert "PRIVATE" not in repr(load_key_pair(PairFiles(*map(str, paths))))


@pytest.mark.parametrize("given", [("a.pem", None), (None, "a.pem")])
def test_one_file_without_the_other_is_refused_in_the_known_words(given: tuple[str | None, ...]) -> None:
    error = str(refusal(*given))

    assert "you can't pass a ssl_keyfile without a ssl_certfile and vice versa" in error
    assert "a.pem" in error


@pytest.mark.parametrize("index", [0, 1])
def test_a_missing_file_is_named(paths: tuple[Path, Path], index: int) -> None:
    paths[index].unlink()

    error = refusal(*paths)

    assert error.setting == (("ssl_certfile", "ssl_keyfile")[index],)
    assert error.reason == f"{paths[index]} cannot be read: No such file or directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(paths: tuple[Path, Path]) -> None:
    paths[1].chmod(0)

    assert refusal(*paths).reason == f"{paths[1]} cannot be read: Permission denied"


def test_a_folder_is_no_file(paths: tuple[Path, Path], tmp_path: Path) -> None:
    assert refusal(tmp_path, paths[1]).reason == f"{tmp_path} cannot be read: Is a directory"


@pytest.mark.parametrize("index", [0, 1])
def test_a_file_of_something_else_is_refused_and_not_shown(paths: tuple[Path, Path], index: int) -> None:
    paths[index].write_bytes(b"-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n")

    error = refusal(*paths)

    assert str(paths[index]) in error.reason
    assert "holds no PEM" in error.reason
    assert "secret" not in str(error)


def test_an_encrypted_key_is_refused(paths: tuple[Path, Path], party: Party) -> None:
    paths[1].write_bytes(party.key_pem(b"password"))

    assert f"{paths[1]} is encrypted" in refusal(*paths).reason


@pytest.mark.parametrize(
    ("begin_days", "end_days", "words"), [(-9, -8, "expired on"), (8, 9, "is not valid before")]
)
def test_a_certificate_out_of_its_time_is_refused(
    paths: tuple[Path, Path], begin_days: float, end_days: float, words: str
) -> None:
    party = make("localhost", begin_days=begin_days, end_days=end_days)
    paths[0].write_bytes(party.pem)
    paths[1].write_bytes(party.key_pem())

    reason = refusal(*paths).reason

    assert str(paths[0]) in reason
    assert f"CN=localhost {words}" in reason


def test_an_expired_certificate_in_the_middle_of_the_chain_is_refused(tmp_path: Path) -> None:
    root = make("root", authority=True)
    middle = root.issue("middle", authority=True, begin_days=-9, end_days=-8)
    own = middle.issue()
    (tmp_path / "chain.pem").write_bytes(own.pem + middle.pem)
    (tmp_path / "key.pem").write_bytes(own.key_pem())

    assert "CN=middle expired on" in refusal(tmp_path / "chain.pem", tmp_path / "key.pem").reason


def test_time_is_a_parameter(paths: tuple[Path, Path]) -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=400)

    assert "expired" in refusal(*paths, now=later).reason


def test_the_key_of_another_certificate_is_refused(paths: tuple[Path, Path]) -> None:
    paths[1].write_bytes(make("other").key_pem())

    assert refusal(*paths).reason == f"{paths[1]} is not the key of the certificate in {paths[0]}"


def test_a_chain_in_the_wrong_order_is_refused(paths: tuple[Path, Path], party: Party) -> None:
    paths[0].write_bytes(make("first").pem + party.pem)

    assert "belongs to certificate 2 of the file" in refusal(*paths).reason


def test_a_key_too_weak_for_openssl_is_refused(paths: tuple[Path, Path]) -> None:
    weak = make("localhost", key=rsa.generate_private_key(65537, 1024))
    paths[0].write_bytes(weak.pem)
    paths[1].write_bytes(weak.key_pem())

    assert "ee key too small" in refusal(*paths).reason


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (rsa.generate_private_key(65537, 2048), None),
        (ec.generate_private_key(ec.SECP384R1()), None),
        (ec.generate_private_key(ec.SECP521R1()), "secp521r1"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ],
    ids=["RSA", "P-384", "P-521", "Ed25519"],
)
def test_keys_that_grpc_clients_do_not_know_are_warned_of(
    paths: tuple[Path, Path], key: object, kind: str | None
) -> None:
    party = make("localhost", key=key)
    paths[0].write_bytes(party.pem)
    paths[1].write_bytes(party.key_pem())

    flow = flow_from_mapping({"gateway": {"ssl_certfile": str(paths[0]), "ssl_keyfile": str(paths[1])}})

    assert [f"of the kind {kind};" in warning for warning in flow.warnings] == ([True] if kind else [])
