"""
Replaces variables in a document's values (spec flow-yaml.md, Substitution).

Works on parsed values instead of text: line numbers stay right, and a variable can become a scalar or a flat
list but never add keys. Nothing is evaluated, and a variable's value is not searched for variables again.

An environment variable is looked up in the ``env`` maps around the place of its use, innermost first: the
executor's or the gateway's own, then that of the Flow's ``with``, then the environment of the process. The
values of an ``env`` map may themselves use variables, which come from the maps outside it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import attrs

from gatewayd.config.document import MOST_VALUES, as_number
from gatewayd.config.problems import KeyPath, Place, Source, path_text, suggestion

_REFERENCE: Final = re.compile(
    r"\$\{\{\s*(?P<expression>[^{}]*?)\s*\}\}|\$\{(?P<braced>[A-Za-z_]\w*)\}|\$(?P<bare>[A-Za-z_]\w*)"
)
_LONGEST_TEXT: Final = 1024 * 1024
_STEP: Final = re.compile(r"([A-Za-z_][\w-]*)|\[(\d{1,9})\]")
_ACCEPTED: Final = "ENV.NAME, CONTEXT.name, root.key or this.key, with keys such as a.b[0].c"


@attrs.frozen
class Variables:
    """What variables are replaced by: the environment of the process, and the caller's context."""

    environ: Mapping[str, str] = attrs.field(repr=False)
    context: Mapping[str, Any] = attrs.field(repr=False)

    def with_environ(self, env: Mapping[str, str]) -> Variables:
        """A copy in which ``env`` overrides the environment."""
        return attrs.evolve(self, environ={**self.environ, **env}) if env else self


def holds_reference(value: Any) -> bool:
    """Whether a variable is to be put into ``value`` or into anything in it."""
    match value:
        case str():
            return "$" in value and _REFERENCE.search(value) is not None
        case Mapping():
            return any(map(holds_reference, value.values()))
        case list() | tuple():
            return any(map(holds_reference, value))
    return False


def substitute(
    document: Any, source: Source, variables: Variables, parts: Collection[KeyPath] = ((),)
) -> Any:
    """
    A copy of ``document`` with every reference replaced. Problems are reported in ``source``.

    Only values inside the ``parts`` are searched, paths of the document; all others stay as they are.
    """
    try:
        return _Substitution(document, source, variables, parts).value(document, ())
    except (_TooMuch, RecursionError):
        Place(source).refuse("the references of this document to itself make too many or too long values")
        return document


@attrs.frozen
class _Scope:
    """The map ``env`` at ``path`` applies to everything inside ``prefix``, except to itself."""

    prefix: KeyPath
    path: KeyPath
    env: Mapping[str, Any] = attrs.field(repr=False)

    def holds(self, path: KeyPath) -> bool:
        inside = path[: len(self.prefix)] == self.prefix
        return inside and path[: len(self.path)] != self.path


def _scopes(document: Any) -> list[_Scope]:
    """The ``env`` maps of a Flow or a Deployment, innermost first."""
    if not isinstance(document, Mapping) or document.get("jtype") not in ("Flow", "Deployment"):
        return []
    places: list[tuple[KeyPath, KeyPath]] = [((), ("with", "env")), (("gateway",), ("gateway", "env"))]
    for name in ("executors", "deployments"):
        items = document.get(name)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            wrapped = ("with",) if isinstance(item, Mapping) and "jtype" in item else ()
            places.append(((name, index), (name, index, *wrapped, "env")))
    scopes = []
    for prefix, path in reversed(places):
        try:
            env = _walk(document, path)
        except _Missing:
            continue
        if isinstance(env, Mapping):
            scopes.append(_Scope(prefix, path, env))
    return scopes


class _TooMuch(Exception):
    """References multiply beyond the limits, as in a list of references to lists of references."""


class _Missing(Exception):
    """A path leads nowhere."""


class _Substitution:
    def __init__(
        self, document: Any, source: Source, variables: Variables, parts: Collection[KeyPath]
    ) -> None:
        self._document = document
        self._parts = parts
        self._source = source
        self._variables = variables
        self._scopes = _scopes(document)
        self._open: list[KeyPath] = []
        self._count = 0

    def value(self, value: Any, path: KeyPath) -> Any:
        self._count += 1
        if self._count > MOST_VALUES:
            raise _TooMuch
        if isinstance(value, dict):
            return {key: self.value(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and "$" in value and self._is_searched(path):
            return self._text(value, path)
        return value

    def _is_searched(self, path: KeyPath) -> bool:
        return any(path[: len(part)] == part for part in self._parts)

    def _text(self, text: str, path: KeyPath) -> Any:
        if path in self._open:
            names = " -> ".join(path_text(each) for each in [*self._open, path])
            Place(self._source, path).refuse(f"these refer to each other: {names}")
            return text
        self._open.append(path)
        try:
            return self._replace(text, path)
        finally:
            self._open.pop()

    def _replace(self, text: str, path: KeyPath) -> Any:
        if (whole := _REFERENCE.fullmatch(text)) is not None:
            value = self._resolve(whole, path)
            return self._typed(value, path) if isinstance(value, str) and value != text else value
        parts: list[str] = []
        end = 0
        for match in _REFERENCE.finditer(text):
            value = self._resolve(match, path)
            if isinstance(value, dict | list):
                Place(self._source, path).refuse(
                    f"{match.group()} is not a scalar, and is not alone in its text"
                )
                value = match.group()
            parts += [text[end : match.start()], _written(value)]
            end = match.end()
        replaced = "".join([*parts, text[end:]])
        if len(replaced) > _LONGEST_TEXT:
            raise _TooMuch
        return text if replaced == text else self._typed(replaced, path)

    def _typed(self, text: str, path: KeyPath) -> Any:
        value = retyped(text)
        if not isinstance(value, str | list):
            self._source.texts[path] = text
        return value

    def _resolve(self, match: re.Match[str], path: KeyPath) -> Any:
        expression = match["expression"]
        if expression is None:
            return self._environment(match["braced"] or match["bare"], match.group(), path)
        head, dot, rest = expression.partition(".")
        if dot and head in ("ENV", "env") and re.fullmatch(r"\w+", rest):
            return self._environment(rest, f"${rest}", path)
        if dot and head in ("CONTEXT", "context"):
            return self._context(rest, match.group(), path)
        if dot and head == "root":
            return self._same_document((), rest, match.group(), path)
        if dot and head == "this":
            return self._same_document(path[:-1], rest, match.group(), path)
        if not dot and re.fullmatch(r"[A-Za-z_]\w*", expression):
            return self._context(expression, match.group(), path)
        Place(self._source, path).refuse(f"{match.group()} is not understood; accepted: {_ACCEPTED}")
        return match.group()

    def _environment(self, name: str, otherwise: str, path: KeyPath) -> Any:
        for scope in self._scopes:
            if scope.holds(path) and scope.env.get(name) is not None:
                target = (*scope.path, name)
                value = self.value(scope.env[name], target)
                return _written(self._source.literal(target, value))
        if name in self._variables.environ:
            return self._variables.environ[name]
        # Left as it is, as in the reference: a text may contain a dollar sign.
        self._source.unset[path] = name
        Place(self._source, path).warn(
            f"the environment variable {name} is not set; {otherwise} stays as it is"
        )
        return otherwise

    def _context(self, keys: str, written: str, path: KeyPath) -> Any:
        context = self._variables.context
        try:
            return _walk(context, _steps(keys))
        except _Missing:
            known = suggestion(keys, [key for key in context if isinstance(key, str)])
            Place(self._source, path).refuse(f"{written}: the context has no {keys}{known}")
            return written

    def _same_document(self, start: KeyPath, keys: str, written: str, path: KeyPath) -> Any:
        try:
            target = start + _steps(keys)
            found = _walk(self._document, target)
        except _Missing:
            Place(self._source, path).refuse(f"{written}: this document has no such key")
            return written
        if path[: len(target)] == target and path != target:
            Place(self._source, path).refuse(f"{written} would put a value inside itself")
            return written
        return self.value(found, target)


def _steps(keys: str) -> KeyPath:
    steps: list[str | int] = []
    end = 0
    while end < len(keys):
        if keys[end] == "." and steps:
            end += 1
        match = _STEP.match(keys, end)
        if match is None:
            raise _Missing
        steps.append(match[1] if match[1] is not None else int(match[2]))
        end = match.end()
    if not steps:
        raise _Missing
    return tuple(steps)


def _walk(value: Any, steps: KeyPath) -> Any:
    for step in steps:
        match value:
            case Mapping() if step in value:
                value = value[step]
            case list() if isinstance(step, int) and step < len(value):
                value = value[step]
            case _:
                raise _Missing
    return value


def _written(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def retyped(text: str) -> Any:
    """
    A substituted text as null, a boolean, a number, a flat list, or text.

    Quotes around it, as in ``'5'``, are removed and keep it text.
    """
    stripped = text.strip()
    if not stripped:
        return None
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
        return stripped[1:-1]
    if stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    if stripped.startswith("[") and stripped.endswith("]"):
        inner = stripped[1:-1].strip()
        return [retyped(item.strip()) for item in inner.split(",")] if inner else []
    # "inf" and "nan" are usually meant as words.
    number = as_number(stripped) if stripped[0] in "-+.0123456789" and "_" not in stripped else None
    return text if number is None else number
