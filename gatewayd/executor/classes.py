"""
Finds the class that ``uses`` means, and imports the modules that define it.

Errors here are for the class's author to fix, so each names the file and what was looked for.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from gatewayd.extras import wrong_docarray

T = TypeVar("T")


class LoadError(Exception):
    """A class that cannot be loaded, or used; ``str(error)`` says which file or class, and why."""


def _why(error: Exception) -> str:
    return f"{error!r}{wrong_docarray(error)}"


def import_modules(py_modules: Iterable[str], base_dir: str) -> str:
    """
    Import files and modules, with ``base_dir``, whose absolute path is returned, being importable.

    Raises LoadError.
    """
    base_dir = str(Path(base_dir).absolute())
    if base_dir not in sys.path:
        sys.path.insert(0, base_dir)
    for module in py_modules:
        _import(module, base_dir)
    return base_dir


def _import(module: str, base_dir: str) -> None:
    """Import a file, or a module by its dotted name."""
    path = Path(base_dir, module)
    if path.suffix == ".py" or path.exists() or os.sep in module:
        import_file(path)
        return
    try:
        importlib.import_module(module)
    except Exception as error:
        raise LoadError(f"py_modules: {module} cannot be imported: {_why(error)}") from error


def import_file(path: Path) -> ModuleType:
    """
    Import a file (or a package's folder) under its own name, and make its folder importable.

    Raises LoadError.
    """
    if path.is_dir():
        path = path / "__init__.py"
    if not path.is_file():
        raise LoadError(f"py_modules: there is no file {path}")
    package = path.name == "__init__.py"
    folder = path.parent.parent if package else path.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    name = path.parent.name if package else path.stem
    loaded = sys.modules.get(name)
    if loaded is not None:
        if getattr(loaded, "__file__", None) == str(path):
            return loaded
        # Another module, such as a standard one, has this name: keep both.
        name = f"{name}_{hashlib.sha1(str(path).encode(), usedforsecurity=False).hexdigest()[:8]}"
    module_spec = importlib.util.spec_from_file_location(
        name, path, submodule_search_locations=[str(path.parent)] if package else None
    )
    if module_spec is None or module_spec.loader is None:
        raise LoadError(f"py_modules: {path} is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise LoadError(f"{path} cannot be imported: {_why(error)}") from error
    return module


def find_class(uses: str, base: type[T], py_modules: Iterable[str] = ()) -> type[T]:
    """
    The subclass of ``base`` that ``uses`` means: ``module.Class``, ``module:Class``, or a loaded one's name.

    Raises LoadError.
    """
    separator = ":" if ":" in uses else "."
    module_name, _, class_name = uses.rpartition(separator)
    if not module_name:
        return _loaded_class(uses, base, list(py_modules))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise LoadError(
            f"uses: {uses}: the module {module_name} cannot be imported: {_why(error)}"
        ) from error
    found: object = module
    for part in class_name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise LoadError(f"uses: {uses}: {module.__file__} has no class {class_name}")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise LoadError(
            f"uses: {uses}: {class_name} in {module.__file__} is not a gatewayd {base.__name__}; "
            f"does it import {base.__name__} from gatewayd?"
        )
    return found


def class_named(name: str, base: type[T], py_modules: Iterable[str] | None = None) -> type[T] | None:
    """
    The subclass of ``base`` of this name in this process, None if there is none; of several the latest.

    With ``py_modules``, only those that are defined in one of these files or modules.
    """
    named = [cls for cls in _subclasses(base) if cls.__name__ == name]
    if py_modules is not None:
        modules = {str(Path(each, "__init__.py") if Path(each).is_dir() else each) for each in py_modules}
        named = [cls for cls in named if where(cls) in modules or cls.__module__ in modules]
    return named[-1] if named else None


def _loaded_class(name: str, base: type[T], py_modules: list[str]) -> type[T]:
    # A process that runs several Flows, as tests do, may have loaded other classes of this name.
    found = class_named(name, base, py_modules) or class_named(name, base)
    if found is not None:
        return found
    looked = ", ".join(py_modules) or "no py_modules are given"
    there = ", ".join(sorted({cls.__name__ for cls in _subclasses(base)})) or "none"
    raise LoadError(f"uses: there is no {base.__name__} class {name} (looked in: {looked}); found: {there}")


def _subclasses(cls: type[T]) -> Iterator[type[T]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def where(cls: type) -> str:
    """The file that defines a class."""
    if cls.__module__ == "__main__":  # that of another process
        codes = (getattr(value, "__code__", None) for value in vars(cls).values())
        return next((code.co_filename for code in codes if code is not None), "a Flow in Python")
    return str(getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__)
