"""
JSON Web Tokens, verified with PyJWT.

What the config pins is not for a token to choose: its header may name one of the pinned algorithms, and which
of the known keys it is signed with. Expiry is checked here, by a clock that is passed in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gatewayd.access.authenticator import BadToken, ExpiredToken
from gatewayd.access.cache import Decisions
from gatewayd.config.auth import JwtConfig

_LONGEST: Final = 16 * 1024
_LONGEST_NAME: Final = 256
# RFC 7518 sections 3.2 and 3.3.
_LEAST_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_LEAST_RSA_BITS: Final = 2048
_CURVES: Final = {"ES256": "secp256r1", "ES256K": "secp256k1", "ES384": "secp384r1", "ES512": "secp521r1"}


class BadTokenKeys(Exception):
    """A file of keys cannot be used; ``str(error)`` says why, and shows nothing of it."""


@attrs.frozen
class TokenKey:
    """One key, the algorithms of the pinned ones that it is for, and its id in a key set."""

    key: Any = attrs.field(repr=False)
    algorithms: tuple[str, ...]
    key_id: str | None = None


def key_in(content: bytes, algorithms: Sequence[str]) -> tuple[TokenKey, ...]:
    """The one key of a ``key_file``. Raises BadTokenKeys."""
    if algorithms[0] in _LEAST_SECRET_BYTES:
        return (_of_secret(content.strip(), algorithms, None),)
    if b"PRIVATE KEY" in content:
        raise BadTokenKeys("it is a private key, which is the issuer's alone; give the public one")
    try:
        if b"BEGIN CERTIFICATE" in content:
            key: Any = x509.load_pem_x509_certificate(content).public_key()
        else:
            key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise BadTokenKeys("it is neither a public key nor a certificate in PEM") from None
    return (_of_public(key, algorithms, None),)


def keys_in(content: bytes, algorithms: Sequence[str]) -> tuple[TokenKey, ...]:
    """The keys of a ``jwks_file`` that ``algorithms`` can use. Raises BadTokenKeys."""
    try:
        entries = json.loads(content)["keys"]
        found = [_of_entry(entry, algorithms) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadTokenKeys('it is not a JSON Web Key Set, such as {"keys": [...]}') from None
    keys = tuple(key for key in found if key is not None)
    if not keys:
        raise BadTokenKeys(f"none of its keys is one for {', '.join(algorithms)}")
    ids = [key.key_id for key in keys]
    if len(set(ids)) < len(ids):
        raise BadTokenKeys("two of its keys have the same kid, or none")
    return keys


def _of_entry(entry: Mapping[str, Any], algorithms: Sequence[str]) -> TokenKey | None:
    """None for a key that is for something else."""
    if entry.get("use", "sig") != "sig" or not isinstance(entry.get("kid"), str | None):
        return None
    if "alg" in entry:
        algorithms = [each for each in algorithms if each == entry["alg"]]
    if not algorithms:
        return None
    try:
        key = jwt.PyJWK(dict(entry)).key
        if isinstance(key, bytes):
            fits = algorithms[0] in _LEAST_SECRET_BYTES
            return _of_secret(key, algorithms, entry.get("kid")) if fits else None
        # A private key may be in a set, too; what verifies is its public half.
        key = key.public_key() if hasattr(key, "public_key") else key
        return _of_public(key, algorithms, entry.get("kid"))
    except (jwt.PyJWTError, BadTokenKeys):
        return None


def _of_secret(secret: bytes, algorithms: Sequence[str], key_id: str | None) -> TokenKey:
    least = max(_LEAST_SECRET_BYTES.get(algorithm, 0) for algorithm in algorithms)
    if len(secret) < least:
        raise BadTokenKeys(
            f"the secret has {len(secret)} bytes; {', '.join(algorithms)} needs {least} at least"
        )
    if b"-----BEGIN" in secret:
        raise BadTokenKeys("it is a PEM file, and no secret for HS algorithms; name those of the key's kind")
    return TokenKey(secret, tuple(algorithms), key_id)


def _of_public(key: Any, algorithms: Sequence[str], key_id: str | None) -> TokenKey:
    usable = tuple(algorithm for algorithm in algorithms if _fits(key, algorithm))
    if not usable:
        raise BadTokenKeys(f"its key is not one for {', '.join(algorithms)}")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        raise BadTokenKeys(f"its RSA key has {key.key_size} bits; {_LEAST_RSA_BITS} are needed")
    return TokenKey(key, usable, key_id)


def _fits(key: Any, algorithm: str) -> bool:
    match key:
        case rsa.RSAPublicKey():
            return algorithm.startswith(("RS", "PS"))
        case ec.EllipticCurvePublicKey():
            return _CURVES.get(algorithm) == key.curve.name
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return algorithm == "EdDSA"
    return False


class TokenVerifier:
    """
    Verifies tokens with a fixed set of keys; what it has found is known until the token expires.

    For any thread.
    """

    def __init__(self, config: JwtConfig, keys: Iterable[TokenKey]) -> None:
        self._config = config
        self._keys = tuple(keys)
        self._known: Decisions[str] = Decisions()

    def name_in(self, token: str, now_s: float) -> str:
        """Whose ``token`` this is, at ``now_s`` since the epoch. Raises BadToken."""
        if len(token) > _LONGEST:
            raise BadToken(f"it is longer than {_LONGEST} characters")
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        name = self._known.get(digest, now_s)
        if name is None:
            name, until_s = self._verified(token, now_s)
            self._known.put(digest, name, until_s)
        return name

    def _verified(self, token: str, now_s: float) -> tuple[str, float]:
        config = self._config
        try:
            key = self._key_for(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key.key,
                algorithms=list(key.algorithms),
                audience=list(config.audience) or None,
                issuer=config.issuer,
                options={
                    "require": ["exp"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except BadToken:
            raise
        except jwt.InvalidAudienceError as error:
            raise BadToken("it is for another audience (auth.jwt.audience)") from error
        except jwt.InvalidIssuerError as error:
            raise BadToken("it is by another issuer (auth.jwt.issuer)") from error
        except jwt.MissingRequiredClaimError as error:
            raise BadToken(f"it has no claim {error.claim}") from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise BadToken(type(error).__name__) from error
        return _name(claims, config.identity_claim), _end_s(claims, now_s, config.leeway_s)

    def _key_for(self, header: Mapping[str, Any]) -> TokenKey:
        key_id, algorithm = header.get("kid"), header.get("alg")
        fitting = [key for key in self._keys if algorithm in key.algorithms]
        if not fitting:
            raise BadToken("it is signed by another algorithm (auth.jwt.algorithms)")
        named = [key for key in fitting if key.key_id is None or key_id is None or key.key_id == key_id]
        if len(named) != 1:
            raise BadToken("it is signed with a key that is not known")
        return named[0]


def _name(claims: Mapping[str, Any], claim: str) -> str:
    name = claims.get(claim)
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or _has_surrogates(name):
        raise BadToken(f"its claim {claim} names no caller (auth.jwt.identity_claim)")
    return name


def _has_surrogates(text: str) -> bool:
    """Whether it has halves of characters, which JSON can hold and UTF-8 cannot."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _end_s(claims: Mapping[str, Any], now_s: float, leeway_s: float) -> float:
    """Until when a token is valid. Raises BadToken if it is not valid now."""
    for claim in ("exp", "nbf", "iat"):
        value = claims.get(claim, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
            raise BadToken(f"its claim {claim} is no time")
    end_s = float(claims["exp"]) + leeway_s
    if end_s <= now_s:
        raise ExpiredToken("it has expired")
    if max(claims.get("nbf", 0), claims.get("iat", 0)) - leeway_s > now_s:
        raise BadToken("it is not valid yet: do the clocks agree?")
    return end_s
