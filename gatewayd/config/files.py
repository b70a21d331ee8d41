"""
Finds and reads the files that a Flow names.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Final

import attrs

from gatewayd.config.document import parse
from gatewayd.config.problems import Place, Source
from gatewayd.config.substitution import Variables, substitute

FILE_ENDINGS: Final = (".yml", ".yaml", ".jaml")

_LARGEST_BYTES: Final = 8 * 1024 * 1024


@attrs.frozen
class Opened:
    """A parsed file: its value, the positions in it, and the folder that its paths are relative to."""

    value: Any
    source: Source
    folder: Folder


@attrs.frozen
class Folder:
    """The folder that relative paths of one file start at; what is not there is looked for in ``others``."""

    path: Path
    variables: Variables
    others: tuple[Path, ...] = ()

    def with_environ(self, env: Mapping[str, str]) -> Folder:
        """This folder, for files in which ``env`` overrides the environment."""
        return attrs.evolve(self, variables=self.variables.with_environ(env))

    def open(self, name: str, place: Place) -> Opened | None:
        """Read the YAML file ``name``. Problems in it are reported; a missing file at ``place``."""
        path = self._find(name, place)
        if path is None:
            return None
        text = read_text(path, place)
        if text is None:
            return None
        source = Source(str(path), place.source.diagnostics)
        source.diagnostics.files.append(str(path))
        before = len(source.diagnostics.problems)
        value = substitute(parse(text, source), source, self.variables)
        if value is None and len(source.diagnostics.problems) > before:
            return None
        return Opened(value, source, attrs.evolve(self, path=path.parent))

    def document(self, text: str, name: str, place: Place) -> Any:
        """The value of YAML or JSON text within a file. Its problems are reported under ``name``."""
        source = Source(name, place.source.diagnostics)
        return substitute(parse(text, source), source, self.variables)

    def modules(self, names: Sequence[str], place: Place) -> tuple[str, ...]:
        """
        The absolute paths of Python files; a folder is a package and means its ``__init__.py``.

        A name that is not a file but an importable module, such as ``package.module``, is kept.
        """
        paths = []
        for name in names:
            is_file = any((folder / name).exists() for folder in (self.path, *self.others))
            if not is_file and self._is_module(name):
                paths.append(name)
                continue
            path = self._find(name, place)
            if path is not None and path.is_dir():
                path = self._find(str(path / "__init__.py"), place)
            if path is not None:
                paths.append(str(path))
        return tuple(paths)

    def _is_module(self, name: str) -> bool:
        """Whether ``name`` can be imported from here. Nothing is executed to find out."""
        parts = name.split(".")
        if not all(part.isidentifier() for part in parts):
            return False
        where: list[str] | None = [str(self.path), *sys.path]
        for end in range(1, len(parts) + 1):
            spec = PathFinder.find_spec(".".join(parts[:end]), where)
            if spec is None:
                return end == len(parts) == 1 and name in sys.builtin_module_names
            where = list(spec.submodule_search_locations or ())
        return True

    def _find(self, name: str, place: Place) -> Path | None:
        looked = []
        for folder in dict.fromkeys((self.path, *self.others)):
            try:
                path = (folder / Path(name).expanduser()).resolve()
                if path.exists():
                    return path
            except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, no home folder
                place.refuse(f"{name[:80]!r} cannot be a file: {error}")
                return None
            looked.append(str(path))
        place.refuse(f"can not find {name[:200]}, looked for {' and '.join(dict.fromkeys(looked))}")
        return None


def read_text(path: Path, place: Place) -> str | None:
    """The text of a file; None if it cannot be read, which is reported."""
    try:
        if not path.is_file():
            place.refuse(f"{path} is not a file" if path.exists() else f"can not find {path}")
        elif path.stat().st_size > _LARGEST_BYTES:
            place.refuse(f"{path} is larger than {_LARGEST_BYTES} bytes")
        else:
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        place.refuse(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}")
    except (OSError, ValueError) as error:
        place.refuse(f"{str(path)[:200]!r} cannot be read: {error}")
    return None
