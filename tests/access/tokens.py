"""Keys that sign tokens, made once, and tokens signed with them."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

SECRET = b"0123456789abcdef0123456789abcdef"


@cache
def key(kind: str) -> Any:
    match kind:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "other rsa":
            return rsa.generate_private_key(65537, 2048)
        case "small rsa":
            return rsa.generate_private_key(65537, 1024)
        case "ec":
            return ec.generate_private_key(ec.SECP256R1())
        case "ed":
            return ed25519.Ed25519PrivateKey.generate()
    return SECRET


def public_pem(kind: str) -> bytes:
    return bytes(key(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def private_pem(kind: str) -> bytes:
    return bytes(key(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def token(kind: str = "rsa", algorithm: str = "RS256", *, headers: Any = None, **claims: Any) -> str:
    """A token that is valid for an hour, unless ``claims`` say otherwise; None leaves one out."""
    now = int(time.time())
    merged = {"sub": "team-b", "exp": now + 3600, **claims}
    return jwt.encode(
        {name: value for name, value in merged.items() if value is not None}, key(kind), algorithm, headers
    )
