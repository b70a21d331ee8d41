"""
Fetches what the documentation pages show, from the npm registry, into this folder: ``make assets``.

The files are part of gatewayd, so that its pages work where there is no internet. Each package's are
in a folder named after it and its version, unchanged, with its licence.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Package:
    """What is taken of one package; ``sha512`` is that of the archive that the registry published."""

    name: str
    version: str
    sha512: str
    files: tuple[str, ...]


# GraphiQL 4 and React 18 are the last that have a build for a page without a bundler.
PACKAGES = (
    Package(
        "swagger-ui-dist",
        "5.35.0",
        "U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==",
        (
            "LICENSE",
            "NOTICE",
            "swagger-ui-bundle.js",
            "swagger-ui-bundle.js.LICENSE.txt",
            "swagger-ui.css",
            "oauth2-redirect.js",
            "favicon-32x32.png",
        ),
    ),
    Package(
        "redoc",
        "2.5.4",
        "M6jWhG1qoBnH6TFmzJnstyCZ87HmOY/UzDm78mHiYihEdlV/YcS9ogOo1NlElnJMeLsyxHFe2yFc4sNjHTrABQ==",
        (
            "LICENSE",
            "bundles/redoc.standalone.js",
            "bundles/redoc.standalone.js.LICENSE.txt",
        ),
    ),
    Package(
        "graphiql",
        "4.1.2",
        "rNlzQIAzm6i2KBXmVQWBgLvt0TloxFVB2d18bukvdsvjEuFDHsKx5IVOomL1W1o5WW+tE54+ioHb2AEKzO2cUg==",
        (
            "LICENSE",
            "graphiql.min.js",
            "graphiql.min.css",
        ),
    ),
    Package(
        "react",
        "18.3.1",
        "wS+hAgJShR0KhEvPJArfuPVN1+Hz1t0Y6n5jLrGQbkb4urgPE/0Rve+1kMB1v/oWgHgm4WIcV+i7F2pTVj+2iQ==",
        (
            "LICENSE",
            "umd/react.production.min.js",
        ),
    ),
    Package(
        "react-dom",
        "18.3.1",
        "5m4nQKp+rZRb09LNH59GM4BxTh9251/ylbKIbpe7TpGxfJ+9kv6BLkLBXIjjspbgbnIBNqlI23tRnTWT0snUIw==",
        (
            "LICENSE",
            "umd/react-dom.production.min.js",
        ),
    ),
)


def fetch(package: Package) -> bytes:
    """The package's archive. Ends the program if it is not the one that was pinned."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = f"{package.name}@{package.version}"
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", folder, pinned], check=True)
        (path,) = Path(folder).iterdir()
        archive = path.read_bytes()
    found = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != package.sha512:
        sys.exit(f"{pinned} is not what was pinned: its SHA-512 is {found}")
    return archive


def main() -> None:
    for package in PACKAGES:
        archived = fetch(package)
        for old in HERE.glob(f"{package.name}-[0-9]*"):
            shutil.rmtree(old)
        folder = HERE / f"{package.name}-{package.version}"
        folder.mkdir()
        with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
            for name in package.files:
                member = archive.extractfile(f"package/{name}")
                assert member is not None
                (folder / Path(name).name).write_bytes(member.read())


if __name__ == "__main__":
    main()
