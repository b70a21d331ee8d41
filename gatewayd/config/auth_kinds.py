"""The kinds of values in a gateway's ``auth``. A value that may be a secret is never in a message."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from gatewayd.config.auth import EVERY_CALLER, STRANGERS, AccessRule
from gatewayd.config.kinds import Refused, ValueKind, map_from
from gatewayd.config.problems import KeyPath, suggestion
from gatewayd.messages.headers import check_entry

_DIGEST: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
_NAME: Final = re.compile(r"[\x21-\x39\x3b-\x7e]{1,128}")  # printable, without blanks and colons
_A_DIGEST: Final = "sha256: and 64 hex digits, as `gatewayd api-key NAME` prints it"

# Those that PyJWT verifies. What is in one family may be pinned together.
_OF_SECRETS: Final = ("HS256", "HS384", "HS512")
_OF_KEYS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES256K", "ES384", "ES512", "EdDSA"),
)


def name_fault(name: str) -> str:
    """Why ``name`` cannot be a caller's; empty if it can."""
    if name in (EVERY_CALLER, STRANGERS):
        return f"{name!r} is a word of auth.rules, and cannot be the name of a caller"
    if not _NAME.fullmatch(name):
        return f"{name[:40]!r} cannot be the name of a caller; accepted: printable ASCII without blanks and :"
    return ""


def digest_of(text: Any) -> str:
    """The hex digits of ``sha256:<hex>``. Raises Refused."""
    found = _DIGEST.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        # Its author may have written the key itself.
        raise Refused(message=f"this is no digest of a key; accepted: {_A_DIGEST}")
    return found[1].lower()


def _api_keys(value: Any) -> dict[str, tuple[str, ...]]:
    keys: dict[str, tuple[str, ...]] = {}
    owners: dict[str, str] = {}
    for name, given in map_from(value).items():
        if fault := name_fault(name):
            raise Refused(message=fault)
        if not isinstance(given, str | list | tuple) or not given:
            raise Refused(inside=(name,), message=f"accepted: {_A_DIGEST}, or a list of these")
        found = []
        for index, text in enumerate([given] if isinstance(given, str) else given):
            inside: KeyPath = (name,) if isinstance(given, str) else (name, index)
            try:
                digest = digest_of(text)
            except Refused as refused:
                raise Refused(inside=inside, message=refused.message) from None
            if owners.setdefault(digest, name) != name:
                raise Refused(
                    inside=inside, message=f"this is a key of {owners[digest]}, too; each has its own"
                )
            found.append(digest)
        keys[name] = tuple(found)
    return keys


API_KEYS: Final = ValueKind(
    f"a map of names to {_A_DIGEST}, or to lists of these",
    _api_keys,
    literal=True,
    annotation="Mapping[str, str | Sequence[str]]",
)


def _header_name(value: Any) -> str:
    if not isinstance(value, str) or "*" in value:
        raise Refused
    try:
        return check_entry(value)
    except ValueError as error:
        raise Refused(message=str(error)) from error


HEADER_NAME: Final = ValueKind("the name of a header", _header_name, annotation="str")


def _parts(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else [value]


def _algorithms(value: Any) -> tuple[str, ...]:
    known = {name.lower(): name for name in (*_OF_SECRETS, *_OF_KEYS)}
    found: list[str] = []
    for index, part in enumerate(_parts(value)):
        inside: KeyPath = (index,) if isinstance(value, list | tuple) else ()
        word = part.lower() if isinstance(part, str) else ""
        if word == "none":
            raise Refused(inside=inside, message="none would accept tokens that anybody can write")
        if word not in known:
            accepted = f"{', '.join(known.values())}{suggestion(word, known)}"
            raise Refused(inside=inside, found=part, accepted=accepted)
        found.append(known[word])
    if set(found) & set(_OF_SECRETS) and set(found) & set(_OF_KEYS):
        raise Refused(
            message="HS algorithms use a shared secret, and the others a public key, which anybody may know: "
            "with both, a token signed with the public key as its secret would be valid; name one kind"
        )
    if not found:
        raise Refused
    return tuple(dict.fromkeys(found))


ALGORITHMS: Final = ValueKind(
    "algorithms such as RS256, ES256 or HS256, or a list of them",
    _algorithms,
    annotation="str | Sequence[str]",
)


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise Refused
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise Refused
    if parts.username or parts.password:
        raise Refused(message="an URL with a password would be shown in logs; let the hook trust our address")
    return value


URL: Final = ValueKind("an URL such as http://127.0.0.1:9000/auth", _url, annotation="str")


def _rules(value: Any) -> tuple[AccessRule, ...]:
    if not isinstance(value, list | tuple):
        raise Refused
    rules = []
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise Refused(inside=(index,), found=item, accepted=_A_RULE)
        for key in item:
            if key not in ("endpoints", "allow"):
                near = suggestion(str(key), ("endpoints", "allow"))
                text = f"unknown key of a rule; accepted: endpoints, allow{near}"
                raise Refused(inside=(index, str(key)), message=text)
        for key in ("endpoints", "allow"):
            if key not in item:
                raise Refused(inside=(index,), message=f"{key} is missing; accepted: {_A_RULE}")
        rules.append(
            AccessRule(
                _words(item["endpoints"], (index, "endpoints"), _endpoint_fault),
                _words(item["allow"], (index, "allow"), _allowed_fault),
            )
        )
    return tuple(rules)


def _words(value: Any, inside: KeyPath, fault_of: Callable[[str], str]) -> tuple[str, ...]:
    found = []
    for index, part in enumerate(_parts(value)):
        at = (*inside, index) if isinstance(value, list | tuple) else inside
        if not isinstance(part, str) or not part:
            raise Refused(inside=at, found=part, accepted="text")
        if fault := fault_of(part):
            raise Refused(inside=at, message=fault)
        found.append(part)
    return tuple(found)


def _endpoint_fault(endpoint: str) -> str:
    if "*" in endpoint[:-1]:
        return f"found {endpoint[:80]!r}; * stands at the end only, for all endpoints that begin so"
    if not endpoint.startswith(("/", "*")):
        return f"found {endpoint[:80]!r}; an endpoint begins with /, as in /search"
    return ""


def _allowed_fault(word: str) -> str:
    return (
        "" if word in (EVERY_CALLER, STRANGERS) or "*" not in word else f"found {word[:80]!r}; * stands alone"
    )


_A_RULE: Final = "a map such as {endpoints: [/search], allow: [team-a]}"
RULES: Final = ValueKind(
    f"a list of maps such as {_A_RULE.removeprefix('a map such as ')}",
    _rules,
    annotation="Sequence[Mapping[str, str | Sequence[str]]]",
)
