"""
Files that a Flow names: found, read, and made into documents with their places.
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

# What the name of a YAML file ends with.
FILE_ENDINGS: Final = (".yml", ".yaml", ".jaml")

_LARGEST_BYTES: Final = 8 * 1024 * 1024


@attrs.frozen
class Opened:
    """A document, the places of its values, and the folder that its own paths are relative to."""

    value: Any
    source: Source
    folder: Folder


@attrs.frozen
class Folder:
    """Where relative paths of one file begin. Nothing else is searched."""

    path: Path
    variables: Variables

    def with_environ(self, env: Mapping[str, str]) -> Folder:
        """This folder, for files in which ``env`` is over the environment."""
        return attrs.evolve(self, variables=self.variables.with_environ(env))

    def open(self, name: str, place: Place) -> Opened | None:
        """Read the YAML file ``name``; what is wrong with it is reported, the path at ``place``."""
        path = self._find(name, place)
        if path is None:
            return None
        text = read_text(path, place)
        if text is None:
            return None
        source = Source(str(path), place.source.diagnostics)
        before = len(source.diagnostics.problems)
        value = substitute(parse(text, source), source, self.variables)
        if value is None and len(source.diagnostics.problems) > before:
            return None
        return Opened(value, source, Folder(path.parent, self.variables))

    def document(self, text: str, name: str, place: Place) -> Any:
        """YAML or JSON that stands as text in a file; its problems are reported under ``name``."""
        source = Source(name, place.source.diagnostics)
        return substitute(parse(text, source), source, self.variables)

    def modules(self, names: Sequence[str], place: Place) -> tuple[str, ...]:
        """
        Absolute paths of Python files; of a package, a folder, that of its ``__init__.py``.

        ``package.module`` stays as it is where no such file is, but such a module.
        """
        paths = []
        for name in names:
            if not (self.path / name).exists() and self._is_module(name):
                paths.append(name)
                continue
            path = self._find(name, place)
            if path is not None and path.is_dir():
                path = self._find(str(path / "__init__.py"), place)
            if path is not None:
                paths.append(str(path))
        return tuple(paths)

    def _is_module(self, name: str) -> bool:
        """Whether ``name`` can be imported from here; nothing is run to find out."""
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
        try:
            path = (self.path / Path(name).expanduser()).resolve()
            if path.exists():
                return path
        except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, no home folder
            place.refuse(f"{name[:80]!r} cannot be a file: {error}")
            return None
        place.refuse(f"can not find {name[:200]}, looked for {path}")
        return None


def read_text(path: Path, place: Place) -> str | None:
    """The text of a file, or None after a report of why there is none."""
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
