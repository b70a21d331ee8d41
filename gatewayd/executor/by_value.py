"""
Sends classes and values of a script or a notebook to an executor's process.

A spawned process has none of its parent's objects. A class that it can import is sent by name
(``module:Class``). Everything else is sent by value, with cloudpickle: classes of ``__main__`` (a script is
not run a second time, so it needs no ``if __name__ == "__main__"``), of a notebook or of a function, and
values in ``uses_with`` that JSON does not have.

The source is sent with them, so that tracebacks show file, line and text, whether the code is in a script, a
module or a notebook's cell.
"""

from __future__ import annotations

import base64
import dis
import importlib.machinery
import inspect
import io
import linecache
import operator
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, ModuleType
from typing import Any

import attrs


class CannotSend(Exception):
    """An object cannot be sent to another process; ``str(error)`` says which and why."""


@attrs.frozen
class ByValue:
    """
    What is sent by value: the class (None if it is sent by name), and entries of ``uses_with``.

    ``known`` is the sender's class of the bare name in ``uses``; one that ``py_modules`` define overrides it.
    """

    cls: type | None = None
    uses_with: Mapping[str, Any] = attrs.field(factory=dict)
    known: type | None = None


def importable_name(cls: type) -> str | None:
    """``module:Class`` if a new process with our ``sys.path`` can import it by that name, else None."""
    module = sys.modules.get(cls.__module__)
    if module is None or cls.__module__ == "__main__" or "<" in cls.__qualname__:
        return None
    value: Any = module
    for part in cls.__qualname__.split("."):
        value = getattr(value, part, None)
    if value is not cls or not _is_found(module):
        return None
    return f"{cls.__module__}:{cls.__qualname__}"


def pack(sent: ByValue) -> str:
    """ASCII text for ``unpack`` in another process of the same Python. Raises CannotSend."""
    import cloudpickle

    cls = sent.cls or sent.known
    module = None if cls is None else sys.modules.get(cls.__module__)
    # If the class's module cannot be imported there (a test's, an exec'd one), send what the class uses of
    # it.
    by_value = module is not None and module.__name__ != "__main__" and not _is_found(module)
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return base64.b64encode(_dumps((sent.cls, dict(sent.uses_with), sent.known))).decode()
    except Exception as error:  # a user's __reduce__ may raise anything
        raise CannotSend(_explained(sent, error)) from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


def unpack(text: str) -> ByValue:
    """The inverse of ``pack``. Raises the errors of importing modules that the class needs."""
    sources, pickled = pickle.loads(base64.b64decode(text))
    for filename, source in sources.items():
        # With None for the time of modification, linecache never compares the entry with a file.
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    cls, uses_with, known = pickle.loads(pickled)
    return ByValue(cls, uses_with, known)


def _dumps(value: object) -> bytes:
    """``value`` pickled together with the source of its code."""
    import cloudpickle

    sources: dict[str, str] = {}

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc, unused-ignore]
        """As cloudpickle's, but code keeps its file name: some releases replace it by ``<dynamic-code>``."""

        def reducer_override(self, obj: Any) -> Any:
            if (type(obj).__module__, type(obj).__name__) == ("werkzeug.routing.map", "Map"):
                return _new_map, (type(obj),), {k: v for k, v in vars(obj).items() if k != "_remap_lock"}
            if (typed := _typed_list(obj)) is not None:
                return typed
            if not isinstance(obj, CodeType):
                return super().reducer_override(obj)
            filename = _shown_filename(obj.co_filename)
            if filename not in sources and (lines := linecache.getlines(obj.co_filename)):
                sources[filename] = "".join(lines)
            make, arguments = self.dispatch_table[CodeType](obj)
            return _restore_code, (make, arguments, filename)

    stream = io.BytesIO()
    Pickler(stream).dump(value)
    return pickle.dumps((sources, stream.getvalue()))


def _typed_list(obj: Any) -> tuple[Any, Any] | None:
    """
    How to make docarray's ``DocList[A]`` again; None for what is none.

    It is of a class that docarray makes at run time, under the name of another.
    """
    again: Callable[[Any, Any], Any]
    if type(obj).__name__ == "_GenericAlias":
        cls, again = obj.__origin__, operator.getitem
    elif isinstance(obj, type):
        cls, again = obj, _class_of_list
    else:
        return None
    if getattr(cls, "__module__", None) != "docarray.array.any_array" or "doc_type" not in vars(cls):
        return None
    base = cls.__mro__[1]
    return None if base.__module__ == cls.__module__ else (again, (base, cls.doc_type))


def _class_of_list(base: Any, doc_type: type) -> Any:
    return base[doc_type].__origin__


def _new_map(cls: Any) -> Any:
    """A Klein app's routes: they have a lock, which cannot be pickled; all else comes later, as its state."""
    routes = cls.__new__(cls)
    routes._remap_lock = threading.Lock()
    return routes


def _restore_code(make: Callable[..., CodeType], arguments: tuple[Any, ...], filename: str) -> CodeType:
    return make(*arguments).replace(co_filename=filename)


def _shown_filename(filename: str) -> str:
    """The file name for tracebacks: a notebook's cell has its number, instead of IPython's temporary file."""
    ipython = sys.modules.get("IPython")
    session = None if ipython is None else ipython.get_ipython()
    label = None if session is None else session.compile.format_code_name(filename)
    return filename if label is None else " ".join(label)


def own_path() -> list[str]:
    """The folders of ``sys.path`` that a new process would lack, absolute."""
    fresh = {os.path.realpath(folder) for folder in _standard_path()}
    folders = (os.path.abspath(folder or os.curdir) for folder in sys.path)
    return [folder for folder in dict.fromkeys(folders) if os.path.realpath(folder) not in fresh]


def _standard_path() -> Iterator[str]:
    import sysconfig

    paths = sysconfig.get_paths()
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield paths[name]
    yield os.path.join(paths["platstdlib"], "lib-dynload")
    yield os.path.join(
        sys.base_prefix, sys.platlibdir, f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    )


def _is_found(module: ModuleType) -> bool:
    """Whether importing its name in a new process finds the same file."""
    path: list[str] | None = None
    spec = None
    for index, _ in enumerate(parts := module.__name__.split(".")):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[: index + 1]), path)
        if spec is None:
            return False
        path = list(spec.submodule_search_locations or ())
    file = getattr(module, "__file__", None)
    return spec is not None and file is not None and spec.origin == file


def _explained(sent: ByValue, error: Exception) -> str:
    """Which part cannot be pickled, found by trying each of them."""
    for name, value in sent.uses_with.items():
        if (reason := _refusal(value)) is not None:
            return f"uses_with: {name} (a {type(value).__name__}) cannot be sent to another process: {reason}"
    cls = sent.cls or sent.known
    if cls is None:
        return str(error)
    for method, name, value in _used(cls):
        if (reason := _refusal(value)) is not None:
            return (
                f"{cls.__name__}.{method} uses {name} (a {type(value).__name__}), which cannot be sent to "
                f"the executor's process: {reason}. Make it in {cls.__name__}.__init__, or move the class "
                "into a module that can be imported"
            )
    return (
        f"{cls.__name__} cannot be sent to the executor's process: {error!r}. Move it into a module that "
        "can be imported"
    )


def _refusal(value: object) -> str | None:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception as error:
        return str(error)
    return None


def _used(cls: type) -> Iterator[tuple[str, str, object]]:
    """What a class refers to: method, name and value for each global or closure, and its attributes."""
    for attribute, value in vars(cls).items():
        function = inspect.unwrap(getattr(value, "__func__", value)) if callable(value) else None
        code = getattr(function, "__code__", None)
        if function is None or code is None:
            if not attribute.startswith("__"):
                yield attribute, attribute, value
            continue
        closure = inspect.getclosurevars(function)
        for name in _global_names(code):
            if name in function.__globals__ and function.__globals__[name] is not cls:
                yield attribute, name, function.__globals__[name]
        for name, captured in closure.nonlocals.items():
            if captured is not cls and name != "__class__":
                yield attribute, name, captured


def _global_names(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)
