"""
What scanners of TLS find at the ports: sslyze, against Mozilla's intermediate profile, and testssl.sh.

sslyze comes with ``make test-security``; testssl.sh is a package of Debian's.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from tests.certificates import make
from tests.paths import ROOT
from tests.processes import Gateway, environment

pytestmark = pytest.mark.security

SSLYZE: Final = ROOT / ".venv-security" / "bin" / "sslyze"
TESTSSL: Final = shutil.which("testssl") or shutil.which("testssl.sh")
PORTS: Final = ("http", "websocket", "grpc", "own grpc")
# What is known, and why it stays.
KNOWN: Final = {
    # Python's ssl module has no way to limit the groups of a context; X448 and P-521 are strong.
    "own grpc": {"tls_curves"},
    # BoringSSL lets clients choose among its ciphers, which are all of the profile; so does the profile.
    "grpc": {"cipher_order"},
}
# Of any certificate that no public authority has signed.
OF_A_TEST: Final = {"cert_revocation", "DNS_CAArecord"}


@attrs.frozen
class Scanned:
    """Ports by name, and the file of the authority that signed their certificate."""

    ports: dict[str, int]
    roots: Path


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scanned]:
    folder = tmp_path_factory.mktemp("scanned")
    root = make("authority", authority=True, end_days=1000)
    own = root.issue("localhost", end_days=200)
    for name, content in (("own.pem", own.pem), ("own.key", own.key_pem()), ("roots.pem", root.pem)):
        (folder / name).write_bytes(content)
    settings: dict[str, Any] = {
        "ssl_certfile": str(folder / "own.pem"),
        "ssl_keyfile": str(folder / "own.key"),
        "hsts": 31536000,
    }
    gateway = Gateway({"gateway": {**settings, "grpc_server": "grpcio"}})
    other = Gateway({"gateway": {**settings, "grpc_server": "gatewayd"}}, protocols=("grpc",))
    yield Scanned({**gateway.ports, "own grpc": other.ports["grpc"]}, folder / "roots.pem")
    assert [gateway.stop(), other.stop()] == [0, 0]


def scan(*command: str, timeout_s: float) -> str:
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=timeout_s, check=False
    )
    return done.stdout


@pytest.mark.skipif(not SSLYZE.exists(), reason="sslyze is missing: make .venv-security/.installed")
@pytest.mark.parametrize("port", PORTS)
def test_every_port_is_as_mozillas_intermediate_profile(scanned: Scanned, port: str) -> None:
    found = scan(
        str(SSLYZE),
        "--mozilla_config=intermediate",
        f"--certinfo_ca_file={scanned.roots}",
        f"localhost:{scanned.ports[port]}",
        timeout_s=120,
    )

    assert "COMPLIANCE AGAINST TLS CONFIGURATION" in found, found
    differences = [line.strip(" *") for line in found.splitlines() if line.startswith("        * ")]
    assert [each for each in differences if each.partition(":")[0] not in KNOWN.get(port, ())] == []
    assert "VULNERABLE -" not in found


@pytest.mark.skipif(TESTSSL is None, reason="testssl.sh is missing: apt-get install testssl.sh")
@pytest.mark.parametrize("port", PORTS)
def test_testssl_finds_nothing(scanned: Scanned, tmp_path: Path, port: str) -> None:
    assert TESTSSL is not None
    for attempt in range(3):
        file = tmp_path / f"found-{attempt}.json"
        scan(
            TESTSSL,
            "--quiet",
            "--warnings=off",
            "--color=0",
            f"--jsonfile={file}",
            f"--add-ca={scanned.roots}",
            f"localhost:{scanned.ports[port]}",
            timeout_s=600,
        )
        found = json.loads(file.read_text())
        # By WARN it says that a check of its own came to no result, as that of tickets does now and then.
        if not any(each["severity"] == "WARN" for each in found):
            break

    fine = OF_A_TEST | KNOWN.get(port, set())
    assert any(each["id"] == "TLS1_3" and each["severity"] == "OK" for each in found)
    assert [
        each for each in found if each["severity"] not in ("OK", "INFO", "DEBUG") and each["id"] not in fine
    ] == []
