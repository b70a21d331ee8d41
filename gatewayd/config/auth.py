"""
Who may call a gateway, as its ``auth`` says it.

Nothing here shows the digests of keys, and nothing has a secret: those are in files, or with the clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import attrs

# In the ``allow`` of a rule: every caller who has shown who it is, and also those who have not.
EVERY_CALLER: Final = "*"
STRANGERS: Final = "anonymous"

API_KEY_HEADER: Final = "x-api-key"


@attrs.frozen
class JwtConfig:
    """
    How JSON Web Tokens are verified: with the key in ``key_file`` or those in ``jwks_file``, of which one is
    set, by one of ``algorithms`` and no other.
    """

    key_file: str | None = None
    jwks_file: str | None = None
    algorithms: tuple[str, ...] = ()
    audience: tuple[str, ...] = ()
    issuer: str | None = None
    identity_claim: str = "sub"
    leeway_s: float = 0.0


@attrs.frozen
class HookConfig:
    """
    A server of the user's that is asked about each caller.

    ``headers`` of the client, in lower case, are passed on. ``cache_s`` 0 is for no cache. The answer's
    ``identity_header`` names the caller.
    """

    url: str = ""
    timeout_s: float = 2.0
    cache_s: float = 0.0
    headers: tuple[str, ...] = ("authorization",)
    identity_header: str = "x-identity"


@attrs.frozen
class AccessRule:
    """Whoever is in ``allow`` may call what is in ``endpoints``, where ``/x/*`` is all that begin so."""

    endpoints: tuple[str, ...]
    allow: tuple[str, ...]


@attrs.frozen
class AuthConfig:
    """
    How callers show who they are, and what each may call.

    ``api_keys`` has the SHA-256 digests of keys, in hex, by the names of their callers. Headers are in lower
    case. Without ``rules`` every caller with an identity may call everything.
    """

    api_keys: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, repr=False)
    api_keys_file: str | None = None
    api_key_header: str = API_KEY_HEADER
    jwt: JwtConfig | None = None
    hook: HookConfig | None = None
    certificate_identity: Literal["subject", "san"] | None = None
    rules: tuple[AccessRule, ...] | None = None
    forward_identity: str | None = None

    @property
    def takes_keys(self) -> bool:
        """Whether there are API keys at all."""
        return bool(self.api_keys) or self.api_keys_file is not None
