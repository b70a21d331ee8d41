"""Which files an executor's code is in, and whether they have changed."""

from __future__ import annotations

from pathlib import Path

from gatewayd.config import DeploymentConfig, ExecutorConfig
from gatewayd.supervisor.code import digests_of, files_of


def digest(executor: ExecutorConfig, base_dir: Path) -> str:
    return digests_of([DeploymentConfig("a", executor=executor)], str(base_dir))["a"]


def test_a_file_a_package_and_a_module_by_name(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for path in (tmp_path / "one.py", package / "__init__.py", package / "inner.py", tmp_path / "two.py"):
        path.touch()

    executor = ExecutorConfig(
        uses="two:Class", py_modules=(str(tmp_path / "one.py"), str(package / "__init__.py"))
    )

    assert [path.name for path in files_of(executor, str(tmp_path))] == [
        "one.py",
        "__init__.py",
        "inner.py",
        "two.py",
    ]


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    assert files_of(ExecutorConfig(uses="Executor"), str(tmp_path)) == ()
    assert files_of(ExecutorConfig(uses="no.such.Class", py_modules=("sys",)), str(tmp_path)) == ()


def test_the_digest_changes_with_the_content_alone(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    executor = ExecutorConfig(py_modules=(str(path),))
    path.write_text("a = 1\n")
    first = digest(executor, tmp_path)

    path.touch()
    assert digest(executor, tmp_path) == first
    path.write_text("a = 2\n")
    second = digest(executor, tmp_path)
    path.unlink()

    assert len({first, second, digest(executor, tmp_path)}) == 3


def test_external_executors_have_no_code_here(tmp_path: Path) -> None:
    assert digests_of([DeploymentConfig("a", external=True)], str(tmp_path)) == {}
