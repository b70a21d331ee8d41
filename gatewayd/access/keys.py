"""
API keys, of which the gateway knows digests only (pure).

Keys are random and long (``new_key``: 256 bits), so one round of SHA-256 hides them: there is nothing to
guess, and salt and slow hashes are for passwords, which people choose.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final

import attrs

from gatewayd.config.auth_kinds import digest_of, name_fault
from gatewayd.config.kinds import Refused

_BYTES: Final = 32
# No key that was made for this is longer; what is, need not be hashed.
_LONGEST: Final = 1024


class BadKeyFile(Exception):
    """A file of keys cannot be used; ``str(error)`` says why, with the line, and shows nothing of it."""


@attrs.frozen
class KeyRing:
    """Digests, and the callers whose keys they are."""

    _names: Mapping[bytes, str] = attrs.field(factory=dict, repr=False)

    @classmethod
    def of(cls, digests: Mapping[str, tuple[str, ...]]) -> KeyRing:
        """``digests`` are hex, by the names of callers."""
        return cls({bytes.fromhex(digest): name for name, own in digests.items() for digest in own})

    def __bool__(self) -> bool:
        """Whether there is a key at all."""
        return bool(self._names)

    def with_keys(self, other: KeyRing) -> KeyRing:
        """The keys of both; where they disagree, those of this one."""
        return KeyRing({**other._names, **self._names})

    def owner(self, key: str) -> str | None:
        """Whose ``key`` this is. How long that takes does not depend on which key it is, or nearly is."""
        if len(key) > _LONGEST:
            return None
        shown = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        found = None
        for digest, name in self._names.items():
            if hmac.compare_digest(digest, shown):
                found = name
        return found


def ring_in(content: bytes) -> KeyRing:
    """The keys in a file: lines ``name:sha256:hex``, and comments after ``#``. Raises BadKeyFile."""
    names: dict[bytes, str] = {}
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise BadKeyFile("it is not text") from None
    for number, line in enumerate(lines, 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        name, _, digest = line.partition(":")
        fault = name_fault(name)
        if fault and ":" in line:
            raise BadKeyFile(f"line {number}: {fault}")
        try:
            found = bytes.fromhex(digest_of(digest))
        except Refused:
            raise BadKeyFile(
                f"line {number} is not name:sha256:hex, as `gatewayd api-key NAME` prints it"
            ) from None
        if names.setdefault(found, name) != name:
            raise BadKeyFile(f"line {number}: this is a key of {names[found]}, too; each has its own")
    return KeyRing(names)


def new_key() -> tuple[str, str]:
    """A new key, and its digest as configs have it."""
    key = secrets.token_urlsafe(_BYTES)
    return key, f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
