"""JSON Web Tokens: which keys can be used, and which tokens are refused."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest

from gatewayd.access.authenticator import BadToken, ExpiredToken
from gatewayd.access.tokens import BadTokenKeys, TokenVerifier, key_in, keys_in
from gatewayd.config.auth import JwtConfig
from tests.access.tokens import SECRET, key, private_pem, public_pem, token

NOW_S = time.time()


def verifier(kind: str = "rsa", algorithm: str = "RS256", **more: Any) -> TokenVerifier:
    content = SECRET if algorithm.startswith("HS") else public_pem(kind)
    return TokenVerifier(JwtConfig(algorithms=(algorithm,), **more), key_in(content, [algorithm]))


def refusal(found: TokenVerifier, text: str, now_s: float = NOW_S) -> str:
    with pytest.raises(BadToken) as caught:
        found.name_in(text, now_s)
    assert text not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("rsa", "RS256"), ("rsa", "PS512"), ("ec", "ES256"), ("ed", "EdDSA"), ("secret", "HS256")],
)
def test_a_token_names_its_caller(kind: str, algorithm: str) -> None:
    assert verifier(kind, algorithm).name_in(token(kind, algorithm), NOW_S) == "team-b"


def test_another_claim_may_name_it() -> None:
    found = verifier(identity_claim="client_id")
    assert found.name_in(token(client_id="c"), NOW_S) == "c"
    assert "names no caller" in refusal(found, token())
    assert "names no caller" in refusal(verifier(), token(sub=""))


def test_what_is_known_of_a_token_ends_with_it() -> None:
    found, text = verifier(), token(exp=int(NOW_S) + 100)
    assert found.name_in(text, NOW_S) == found.name_in(text, NOW_S + 50) == "team-b"
    with pytest.raises(ExpiredToken):
        found.name_in(text, NOW_S + 101)


def test_clocks_may_differ_by_the_leeway() -> None:
    early, late = token(nbf=int(NOW_S) + 20), token(exp=int(NOW_S) - 20)
    assert (
        verifier(leeway_s=30).name_in(early, NOW_S) == verifier(leeway_s=30).name_in(late, NOW_S) == "team-b"
    )
    assert "not valid yet" in refusal(verifier(), early)
    assert "expired" in refusal(verifier(), late)


@pytest.mark.parametrize("exp", ["tomorrow", True, 1e300, [1]])
def test_an_expiry_that_is_no_time_is_refused(exp: Any) -> None:
    assert "exp" in refusal(verifier(), token(exp=exp))


def test_a_token_without_expiry_is_refused() -> None:
    assert "no claim exp" in refusal(verifier(), token(exp=None))


def test_audience_and_issuer_are_compared_where_they_are_set() -> None:
    found = verifier(audience=("gw", "gw2"), issuer="https://i")
    assert found.name_in(token(aud=["gw2", "x"], iss="https://i"), NOW_S) == "team-b"
    assert "audience" in refusal(found, token(aud="other", iss="https://i"))
    assert "no claim aud" in refusal(found, token(iss="https://i"))
    assert "issuer" in refusal(found, token(aud="gw", iss="https://i.evil"))
    assert "audience" in refusal(verifier(), token(aud="other"))


def unsigned(algorithm: str) -> str:
    parts = [{"alg": algorithm, "typ": "JWT"}, {"sub": "team-b", "exp": int(NOW_S) + 60}]
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
        + "."
    )


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "RS256", "HS256"])
def test_a_token_without_a_signature_is_refused(algorithm: str) -> None:
    refusal(verifier(), unsigned(algorithm))


def test_the_public_key_is_no_secret() -> None:
    """The classic: HS256 with the public key's PEM as the secret."""
    import hashlib
    import hmac

    head = unsigned("HS256").rstrip(".")
    mac = hmac.new(public_pem("rsa"), head.encode(), hashlib.sha256).digest()
    forged = f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    assert "another algorithm" in refusal(verifier(), forged)


@pytest.mark.parametrize(
    "text", ["", "x", "a.b.c", "....", "\u20ac.b.c", "x" * 100_000, token()[:-4] + "AAAA"]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(BadToken):
        verifier().name_in(text, NOW_S)


def test_a_token_of_another_key_is_refused() -> None:
    assert "Signature" in refusal(verifier(), token("other rsa"))


def test_a_token_names_no_key_of_its_own() -> None:
    own = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key("other rsa").public_key()))
    refusal(verifier(), token("other rsa", headers={"jwk": own, "jku": "https://evil/jwks.json"}))


# -- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "algorithms", "said"),
    [
        (b"hello", ["RS256"], "neither a public key nor a certificate"),
        (private_pem("rsa"), ["RS256"], "private key"),
        (public_pem("ec"), ["RS256"], "not one for RS256"),
        (public_pem("ec"), ["ES384"], "not one for ES384"),
        (public_pem("small rsa"), ["RS256"], "1024 bits"),
        (b"short", ["HS256"], "5 bytes"),
        (SECRET, ["HS512"], "needs 64"),
        (public_pem("rsa"), ["HS256"], "PEM file"),
    ],
)
def test_a_key_that_cannot_be_used_is_told(content: bytes, algorithms: list[str], said: str) -> None:
    with pytest.raises(BadTokenKeys, match=said):
        key_in(content, algorithms)


def jwk(kind: str, **more: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if "rsa" in kind else jwt.algorithms.ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key(kind).public_key())), **more}


def key_set(*entries: Any) -> bytes:
    return json.dumps({"keys": entries}).encode()


def test_a_key_set_has_the_key_that_a_token_names() -> None:
    content = key_set(jwk("rsa", kid="1"), jwk("other rsa", kid="2"), jwk("ec", kid="3", use="enc"))
    found = TokenVerifier(JwtConfig(algorithms=("RS256", "ES256")), keys_in(content, ["RS256", "ES256"]))

    assert found.name_in(token("rsa", headers={"kid": "1"}), NOW_S) == "team-b"
    assert found.name_in(token("other rsa", headers={"kid": "2"}), NOW_S) == "team-b"
    assert "key that is not known" in refusal(found, token("rsa", headers={"kid": "9"}))
    assert "key that is not known" in refusal(found, token("rsa"))
    assert "Signature" in refusal(found, token("rsa", headers={"kid": "2"}))
    assert "another algorithm" in refusal(found, token("ec", "ES256", headers={"kid": "3"}))


def test_a_key_set_may_pin_the_algorithm_of_a_key() -> None:
    content = key_set(jwk("rsa", kid="1", alg="RS512"))
    found = TokenVerifier(JwtConfig(algorithms=("RS256", "RS512")), keys_in(content, ["RS256", "RS512"]))
    assert found.name_in(token("rsa", "RS512"), NOW_S) == "team-b"
    assert "another algorithm" in refusal(found, token("rsa", "RS256"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": 1}',
        b'{"keys": [1]}',
        key_set(),
        key_set(jwk("ec")),
        key_set({"kty": "RSA"}),
    ],
)
def test_a_key_set_without_a_usable_key_is_told(content: bytes) -> None:
    with pytest.raises(BadTokenKeys):
        keys_in(content, ["RS256"])


@pytest.mark.parametrize(
    "content", [b'{"keys": [{"kty": "RSA", "kid": [1]}]}', b"[" * 100_000], ids=["kid", "nested"]
)
def test_a_key_set_of_odd_values_is_told(content: bytes) -> None:
    with pytest.raises(BadTokenKeys):
        keys_in(content, ["RS256"])


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadToken, match="names no caller"):
        verifier().name_in(token(sub="\ud800"), NOW_S)


def test_nothing_shows_a_secret() -> None:
    (found,) = key_in(SECRET, ["HS256"])
    assert SECRET.decode() not in repr(found)
