"""
Says who has shown which credentials, or that another has to be asked. It knows no sockets and no clock.

What a client shows is tried in a fixed order, and the first of these that is there decides: an API key, a
bearer token, a certificate, then the hook. A credential that is wrong is refused, even where none is needed.
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

import attrs

from gatewayd.access.credentials import Credentials
from gatewayd.access.keys import KeyRing
from gatewayd.config.auth import API_KEY_HEADER, AuthConfig
from gatewayd.errors import Unauthenticated
from gatewayd.messages.caller import Caller
from gatewayd.tls.peer import PeerNames

_REALM: Final = 'Bearer realm="gateway"'
_INVALID: Final = f'{_REALM}, error="invalid_token"'


class BadToken(Exception):
    """A token is refused; ``str(error)`` says why, for the log, and shows nothing of it."""


class ExpiredToken(BadToken):
    """It was valid once."""


class Tokens(Protocol):
    """What verifies tokens, for any thread (``tokens.TokenVerifier``)."""

    def name_in(self, token: str, now_s: float) -> str:
        """Raises BadToken."""
        ...


class InvalidCredential(Unauthenticated):
    """A credential is wrong; ``reason`` is for the log, and shows nothing of it."""

    def __init__(self, message: str, reason: str) -> None:
        self.reason = reason
        super().__init__(message, _INVALID)


@attrs.frozen
class Question:
    """What the hook is asked: the headers to pass on, and what the client wants."""

    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    address: str
    method: str
    target: str
    protocol: str

    @property
    def digest(self) -> bytes:
        """The same for the same question; credentials cannot be read from it."""
        digest = hashlib.sha256()
        for part in (self.address, self.method, self.target, self.protocol, *sum(self.headers, ())):
            encoded = part.encode("utf-8", "replace")
            digest.update(b"%d:" % len(encoded) + encoded)
        return digest.digest()


@attrs.frozen
class Authenticator:
    """``keys`` and ``tokens`` are those known now: one that knows others takes its place."""

    auth: AuthConfig
    keys: KeyRing = attrs.field(factory=KeyRing)
    tokens: Tokens | None = None

    def identify(self, credentials: Credentials, now_s: float) -> Caller | Question | None:
        """
        The caller, what to ask of the hook, or None if no credential was shown.

        Raises Unauthenticated for a wrong one. ``now_s`` is seconds since the epoch. For any thread.
        """
        auth, address = self.auth, credentials.address
        bearer = credentials.bearer
        if auth.takes_keys:
            key = credentials.header(auth.api_key_header)
            if key is None and bearer is not None and (self.tokens is None or bearer.count(".") != 2):
                key = bearer
            if key is not None:
                return Caller(self._owner(key), address, "key")
        if self.tokens is not None and bearer is not None:
            return Caller(self._subject(self.tokens, bearer, now_s), address, "token")
        if auth.certificate_identity is not None and (names := credentials.certificate()) is not None:
            if (name := _name_in(names, auth.certificate_identity)) is None:
                raise InvalidCredential(
                    "the certificate does not say whose it is; ask the gateway's operator for another",
                    f"the certificate has no {auth.certificate_identity} (auth.certificate_identity)",
                )
            return Caller(name, address, "certificate")
        if auth.hook is not None:
            passed = ((name, credentials.header(name)) for name in auth.hook.headers)
            return Question(
                tuple((name, value) for name, value in passed if value is not None),
                address,
                credentials.method,
                credentials.target,
                credentials.protocol,
            )
        return None

    def nothing_shown(self) -> Unauthenticated:
        """The error for a client that has shown no credential where one is needed."""
        auth, ways = self.auth, []
        if auth.takes_keys:
            header = "X-API-Key" if auth.api_key_header == API_KEY_HEADER else auth.api_key_header
            ways.append(f"an API key in the header {header}")
        if auth.jwt is not None:
            ways.append("a token in the header Authorization, after the word Bearer")
        if auth.certificate_identity is not None:
            ways.append("a client certificate")
        how = " or ".join(ways)
        return Unauthenticated(
            f"the gateway has to know who calls; send {how}" if ways else "the gateway has to know who calls",
            _REALM,
        )

    def _owner(self, key: str) -> str:
        name = self.keys.owner(key)
        if name is None:
            raise InvalidCredential(
                "the API key is not valid; check it, or ask the gateway's operator for another",
                "the API key is not known",
            )
        return name

    def _subject(self, tokens: Tokens, token: str, now_s: float) -> str:
        try:
            return tokens.name_in(token, now_s)
        except ExpiredToken as error:
            raise InvalidCredential("the token has expired; get a new one", f"the token: {error}") from error
        except BadToken as error:
            text = "the token is not valid; get one that is made for this gateway"
            raise InvalidCredential(text, f"the token: {error}") from error


def _name_in(names: PeerNames, which: str) -> str | None:
    """Of several alternative names the most particular one: a URI (as SPIFFE's), a host's, an address."""
    if which == "subject":
        return names.common_name or None
    return next((name for name in (*names.uris, *names.dns, *names.emails) if name), None)
