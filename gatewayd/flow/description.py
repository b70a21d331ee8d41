"""
What a Flow in Python says: the map that a Flow file would hold, and what no file can hold.

The map goes to ``gatewayd.config``: in this process to be checked, in the gateway's to be served. Classes
and objects are taken out of it on the way (``by_value.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import yaml

from gatewayd.config import FlowConfig
from gatewayd.config.loader import FlowDocument, Sources, read_flow_mapping
from gatewayd.config.problems import KeyPath
from gatewayd.errors import BaseJinaException, ConfigError
from gatewayd.executor.by_value import ByValue, CannotSend, importable_name, pack
from gatewayd.executor.classes import class_named

# Where a class may stand, and the field of DeploymentConfig that comes of it.
ROLES: Final = {"uses": "executor", "uses_before": "uses_before", "uses_after": "uses_after"}


class FlowError(ConfigError, ValueError):
    """Something in a Flow that cannot be used; ``str(error)`` says where, and what is accepted."""


class FlowTopologyError(FlowError):
    """Executors that cannot be joined as asked."""


class FlowBuildLevelError(RuntimeError, BaseJinaException):
    """What a Flow cannot do before its start, or while it runs."""


@attrs.frozen
class Description:
    """
    A Flow as it was written: ``with``, ``gateway`` and the list of executors, in the words of Flow files.

    ``uses`` may be a class, and ``uses_with`` may hold any object. Files are named by absolute paths;
    modules are found in ``base_dir``, and what is not there in ``folders``. Variables are replaced in
    executors and the ``uses_with`` of a gateway class when a Flow is checked or started; in the executors at
    ``loaded``, and with ``gateway_loaded``, they have been, because these are a file's. ``unset`` are the
    warnings of variables that had no value then.
    """

    with_: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    gateway: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    executors: tuple[Any, ...] = attrs.field(default=(), repr=False)
    base_dir: str = "."
    folders: tuple[Path, ...] = ()
    loaded: frozenset[int] = frozenset()
    gateway_loaded: bool = False
    unset: tuple[str, ...] = ()

    def config(self) -> FlowConfig:
        """All of it, checked. Raises FlowError."""
        mapping, _ = self.separated()
        config = self._read(mapping).config
        return attrs.evolve(config, warnings=(*self.unset, *config.warnings))

    def portable(self) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
        """
        As ``separated``, with the values of variables, and the objects as text, among them classes that
        ``uses`` names; and warnings of the variables that have no value.

        Raises FlowError for what cannot be used or sent.
        """
        mapping, objects = self.separated()
        document = self._read(mapping)
        mapping = document.mapping
        for key, cls in _known_classes(document.config):
            part = objects.get(key, ByValue())
            if part.cls is None:
                objects[key] = attrs.evolve(part, known=cls)
        by_value: dict[str, str] = {}
        for key, part in objects.items():
            try:
                by_value[key] = pack(part)
            except CannotSend as error:
                index = key.partition(".")[0]
                where = "gateway" if key == "gateway" else f"executors[{index}]"
                raise FlowError(f"Flow: {where}.{error}") from error.__cause__
        return mapping, by_value, (*self.unset, *document.unset)

    def separated(self) -> tuple[dict[str, Any], dict[str, ByValue]]:
        """
        The map, with nothing in it that JSON does not have, and beside it the classes and objects.

        Their keys are ``<index of the executor>``, ``<index>.uses_before``, or ``gateway`` (see
        ``service/child.py``).
        """
        objects: dict[str, ByValue] = {}
        gateway, part = gateway_parted(self.gateway)
        if part is not None:
            objects["gateway"] = part
        items = []
        index = 0
        for item in self.executors:
            if isinstance(item, Mapping):
                if item.get("name") == "gateway":  # the loader leaves it out as well
                    items.append(dict(item))
                    continue
                item, parts = parted(item)
                for role, part in parts:
                    objects[str(index) if role == "executor" else f"{index}.{role}"] = part
            items.append(item)
            index += 1
        return self._whole(gateway, items), objects

    def for_file(self) -> dict[str, Any]:
        """The map as a Flow file holds it. Raises FlowError for what no file can hold."""
        gateway, part = gateway_parted(self.gateway)
        if part is not None:
            gateway = _written_part(gateway, part)
        executors = [_written(item) if isinstance(item, Mapping) else item for item in self.executors]
        return self._whole(gateway, executors)

    def _read(self, mapping: Mapping[str, Any]) -> FlowDocument:
        parts: list[KeyPath] = [
            ("executors", index) for index in range(len(self.executors)) if index not in self.loaded
        ]
        if not self.gateway_loaded:
            parts.append(("gateway", "uses_with"))
        with as_flow_error():
            return read_flow_mapping(
                mapping, Sources(parts=parts, folders=self.folders), base_dir=self.base_dir
            )

    def _whole(self, gateway: Mapping[str, Any], executors: list[Any]) -> dict[str, Any]:
        sections = {"with": dict(self.with_), "gateway": dict(gateway), "executors": executors}
        whole = {"jtype": "Flow", "version": "1", **{key: value for key, value in sections.items() if value}}
        plain: dict[str, Any] = plain_values(whole)
        return plain


@contextmanager
def as_flow_error() -> Iterator[None]:
    try:
        yield
    except FlowError:
        raise
    except ConfigError as error:
        raise FlowError(str(error)) from None


def parted(item: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, ByValue]]]:
    """One executor without classes and objects, and these by their role."""
    plain = dict(item)
    parts: dict[str, ByValue] = {}
    for key, role in ROLES.items():
        if isinstance(cls := item.get(key), type):
            name = _checked_class(cls, key) and importable_name(cls)
            plain[key] = name or cls.__name__
            if name is None:
                parts[role] = ByValue(cls=cls)
    with_ = item.get("uses_with")
    if isinstance(with_, Mapping):
        objects = {key: value for key, value in with_.items() if not is_plain(value)}
        plain["uses_with"] = {key: value for key, value in with_.items() if key not in objects}
        if objects:
            parts["executor"] = attrs.evolve(parts.get("executor", ByValue()), uses_with=objects)
    return plain, list(parts.items())


def _known_classes(config: FlowConfig) -> Iterator[tuple[str, type]]:
    """
    The classes of this process that ``uses`` means by a bare name, in a file or in Python.

    With the keys of ``Description.separated``.
    """
    from gatewayd.executor.executor import Executor

    for index, deployment in enumerate(config.deployments):
        for role in ROLES.values():
            executor = getattr(deployment, role)
            uses: str | None = getattr(executor, "uses", None)  # what runs elsewhere has none
            if uses is None or deployment.external:
                continue
            name = uses.removeprefix("__main__.").removeprefix("__main__:")
            cls = class_named(name, Executor) if name.isidentifier() else None
            # With py_modules it is a guess: they are likely to define the class themselves.
            if cls is not None and (not executor.py_modules or _can_be_sent(cls)):
                yield str(index) if role == "executor" else f"{index}.{role}", cls


def _can_be_sent(cls: type) -> bool:
    try:
        pack(ByValue(known=cls))
    except CannotSend:
        return False
    return True


def _checked_class(cls: type, key: str) -> bool:
    from gatewayd.executor.executor import Executor

    if not issubclass(cls, Executor):
        raise FlowError(
            f"{key}: {cls.__qualname__} is not an Executor; does it inherit from gatewayd.Executor?"
        )
    return True


def with_objects(plain: Any, original: Any) -> Any:
    """``plain``, with the classes and objects that were taken out of ``original``."""
    if not isinstance(original, Mapping):
        return plain
    classes = {key: original[key] for key in ROLES if isinstance(original.get(key), type)}
    result = {**plain, **classes}
    if isinstance(with_ := original.get("uses_with"), Mapping):
        objects = {key: value for key, value in with_.items() if not is_plain(value)}
        result["uses_with"] = {**plain["uses_with"], **objects}
    return result


def gateway_parted(gateway: Mapping[str, Any]) -> tuple[dict[str, Any], ByValue | None]:
    """The gateway's settings without its class and objects, and these if they are sent by value."""
    plain = dict(gateway)
    cls = gateway.get("uses")
    part = ByValue()
    if isinstance(cls, type):
        from gatewayd.custom.loading import check_class

        with as_flow_error():
            check_class(cls)
        name = importable_name(cls)
        plain["uses"] = name or cls.__name__
        part = ByValue(None if name else cls)
    with_ = gateway.get("uses_with")
    if isinstance(with_, Mapping):
        objects = {key: value for key, value in with_.items() if not is_plain(value)}
        plain["uses_with"] = {key: value for key, value in with_.items() if key not in objects}
        part = attrs.evolve(part, uses_with=objects)
    return plain, part if part != ByValue() else None


def _written(item: Mapping[str, Any]) -> dict[str, Any]:
    plain, parts = parted(item)
    for role, part in parts:
        written = _written_part(plain, part)
        if role == "executor":
            plain = written
    return plain


def _written_part(plain: Mapping[str, Any], part: ByValue) -> dict[str, Any]:
    """``plain`` with the script that the class of ``part`` is written in."""
    if part.uses_with:
        refuse_to_write(f"uses_with: {', '.join(part.uses_with)}", "is no plain value")
    cls = part.cls
    assert cls is not None
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if cls.__module__ != "__main__" or script is None or "." in cls.__qualname__:
        refuse_to_write(cls.__qualname__, "is defined where no other process can import it")
    modules = [] if plain.get("py_modules") is None else list(plain["py_modules"])
    return {**plain, "py_modules": [*modules, str(Path(script).absolute())]}


def refuse_to_write(what: str, why: str) -> NoReturn:
    raise FlowError(f"this Flow cannot be written to a file: {what} {why}. Move it into a module")


def is_plain(value: Any) -> bool:
    match value:
        case None | bool() | int() | float() | str() | Path():
            return True
        case list() | tuple():
            return all(map(is_plain, value))
        case dict():
            return all(isinstance(key, str) for key in value) and all(map(is_plain, value.values()))
    return False


def plain_values(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): plain_values(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain_values(item) for item in value]
        case Path():
            return str(value)
    return value


def to_yaml(mapping: Mapping[str, Any]) -> str:
    """As a Flow file."""
    return yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True)
