"""
Exports checked by the schemas of Kubernetes and by a parser of the Compose specification, and the Dockerfiles
by a linter: ``make test-kubernetes``.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.export.flows import GOLDEN
from tests.paths import ROOT

pytestmark = pytest.mark.kubernetes

BIN = ROOT / ".venv-kubernetes" / "bin"
# Custom resources of the Prometheus operator have no schema among those of Kubernetes.
_CUSTOM = "monitoring.coreos.com/"
RELEASES = ["1.34", "1.35", "1.36"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("flow", ["small", "large"])
def test_manifests_are_what_kubernetes_accepts(flow: str, release: str, tmp_path: Path) -> None:
    files = sorted((GOLDEN / flow / "k8s").rglob("*.yml"))
    assert files
    for file in files:
        documents = [part for part in file.read_text().split("---\n") if _CUSTOM not in part]
        copy = tmp_path / file.name
        copy.write_text("---\n".join(documents))
        command = [BIN / "kubernetes-validate", "--strict", "-k", release, copy]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# A parser that refuses what the specification does not have, and names that lead nowhere.
_PARSE = """
import sys
from compose_spec import PyCompose
PyCompose.from_yaml(sys.stdin.read()).validate()
"""


def composed(text: str) -> str:
    """What the parser has to say of a file of Compose; empty if nothing."""
    done = subprocess.run(
        [BIN / "python", "-c", _PARSE], input=text, capture_output=True, text=True, check=False
    )
    return done.stderr


@pytest.mark.parametrize("flow", ["small", "large"])
def test_a_file_of_compose_is_as_its_specification_says(flow: str) -> None:
    text = (GOLDEN / flow / "docker-compose.yml").read_text()

    assert composed(text) == ""
    assert "does not start with" in composed(text.replace("read_only:", "readonly:"))
    assert "is not defined" in composed(text.replace("    networks:\n    - ", "    networks:\n    - other-"))


@pytest.mark.parametrize("name", ["gateway", "executor"])
def test_dockerfiles_are_without_findings(name: str) -> None:
    file = ROOT / "conf" / "docker" / f"{name}.Dockerfile"
    done = subprocess.run([BIN / "hadolint", file], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")
