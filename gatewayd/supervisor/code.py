"""
Which files an executor's code is in, as far as its Flow names them, and what is in these now.

They are the files and packages of ``py_modules``, and the module of ``uses``. What these import besides is
not known without running them. Everything here blocks: it is called in a thread.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

from gatewayd.config.model import DeploymentConfig, ExecutorConfig
from gatewayd.supervisor.replica_id import started_of

# Of a package; what has more is mostly data that lies beside the code.
_MOST_FILES: Final = 2000


def digests_of(deployments: Iterable[DeploymentConfig], base_dir: str) -> Mapping[str, str]:
    """A digest of the code of each executor that is started here, by name."""
    return {each.name: digest_of(each, base_dir) for each in started_of(deployments)}


def digest_of(deployment: DeploymentConfig, base_dir: str) -> str:
    """A digest of the code of an executor that is started here, as it is on disk now."""
    return _digest(files_of(deployment.executor, base_dir))


def files_of(executor: ExecutorConfig, base_dir: str) -> tuple[Path, ...]:
    """The files with its code, in a fixed order. What cannot be found is left out: the start will tell."""
    modules = list(executor.py_modules)
    if executor.uses and (":" in executor.uses or "." in executor.uses):
        separator = ":" if ":" in executor.uses else "."
        modules.append(executor.uses.rpartition(separator)[0])
    found: dict[Path, None] = {}
    for name in modules:
        path = Path(name) if name.endswith(".py") else _origin(name, base_dir)
        if path is not None and path.name == "__init__.py":
            found.update(dict.fromkeys(sorted(path.parent.rglob("*.py"))[:_MOST_FILES]))
        elif path is not None:
            found[path] = None
    return tuple(found)


def _origin(name: str, base_dir: str) -> Path | None:
    """The file of a module that is imported by name. Nothing is executed to find out."""
    where: list[str] | None = [base_dir, *sys.path]
    parts, origin = name.split("."), None
    for end in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:end]), where)
        if spec is None:
            return None
        origin, where = spec.origin, list(spec.submodule_search_locations or ())
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _digest(files: Iterable[Path]) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for part in _contents(files):
        whole.update(part)
    return whole.hexdigest()


def _contents(files: Iterable[Path]) -> Iterator[bytes]:
    for path in files:
        yield str(path).encode() + b"\0"
        try:
            with path.open("rb") as file:
                yield hashlib.file_digest(file, "blake2b").digest()
        except OSError as error:
            yield str(error.errno).encode()
