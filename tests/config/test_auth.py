"""A gateway's `auth`, in YAML and in Python, and what is said of mistakes in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gatewayd import Deployment, Flow
from gatewayd.config import load_flow_text
from gatewayd.config.auth import AccessRule, AuthConfig, HookConfig, JwtConfig
from gatewayd.errors import ConfigError

DIGEST = "ab" * 32
KEY = f"sha256:{DIGEST}"
ALL = f"""
    api_keys: {{a: '{KEY}', b: ['sha256:{"CD" * 32}', 'sha256:{"ef" * 32}']}}
    api_keys_file: k.txt
    api_key_header: X-Key
    jwt:
      {{key_file: k.pem, algorithms: [rs256, PS256], audience: me, issuer: i, identity_claim: c, leeway: 5}}
    hook:
      url: http://h/x
      timeout: 1
      cache: 2
      headers: [Authorization, Cookie]
      identity_header: X-Who
    rules: [{{endpoints: [/search, '/a/*'], allow: ['*']}}, {{endpoints: /x, allow: a}}]
    forward_identity: X-I
"""


def load(auth: str) -> AuthConfig:
    found = load_flow_text(f"jtype: Flow\ngateway:\n  auth: {auth}\n", environ={}).gateway.auth
    assert found is not None
    return found


def test_every_key_arrives() -> None:
    found = load(ALL)
    assert found == AuthConfig(
        api_keys={"a": (DIGEST,), "b": ("cd" * 32, "ef" * 32)},
        api_keys_file=str(Path("k.txt").absolute()),
        api_key_header="x-key",
        jwt=JwtConfig(
            key_file=str(Path("k.pem").absolute()),
            algorithms=("RS256", "PS256"),
            audience=("me",),
            issuer="i",
            identity_claim="c",
            leeway_s=5.0,
        ),
        hook=HookConfig(
            url="http://h/x",
            timeout_s=1,
            cache_s=2,
            headers=("authorization", "cookie"),
            identity_header="x-who",
        ),
        rules=(AccessRule(("/search", "/a/*"), ("*",)), AccessRule(("/x",), ("a",))),
        forward_identity="x-i",
    )


@pytest.mark.parametrize(
    "made",
    [
        lambda auth: Flow(auth=auth),
        lambda auth: Flow().config_gateway(auth=auth),
        lambda auth: Deployment(auth=auth),
    ],
)
def test_it_is_the_same_in_python(made: Any) -> None:
    config = made({"api_keys": {"a": KEY}})._description.config()
    assert config.gateway.auth == AuthConfig(api_keys={"a": (DIGEST,)})


def test_without_it_callers_are_not_asked() -> None:
    assert load_flow_text("jtype: Flow", environ={}).gateway.auth is None


def test_the_digests_are_never_shown() -> None:
    assert DIGEST not in repr(
        load_flow_text(f"jtype: Flow\nwith: {{auth: {{api_keys: {{a: '{KEY}'}}}}}}", environ={})
    )


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ("{}", "auth: no caller could show who it is; give at least one of api_keys"),
        ("{rules: []}", "auth: no caller could show who it is"),
        ("{apikeys: {}}", "auth.apikeys: unknown key of the gateway.auth; did you mean api_keys"),
        ("[1]", "auth: found a list; accepted: a map"),
        (
            "{api_keys: {a: my-secret}}",
            "auth.api_keys.a: this is no digest of a key; accepted: sha256:",
        ),
        ("{api_keys: {a: []}}", "auth.api_keys.a: accepted: sha256:"),
        (f"{{api_keys: {{'*': '{KEY}'}}}}", "auth.api_keys: '*' is a word of auth.rules"),
        (f"{{api_keys: {{anonymous: '{KEY}'}}}}", "'anonymous' is a word of auth.rules"),
        (f"{{api_keys: {{a: '{KEY}', b: '{KEY}'}}}}", "auth.api_keys.b: this is a key of a, too"),
        (f"{{api_keys: {{a: ['{KEY}', my-secret]}}}}", "auth.api_keys.a[1]: this is no digest"),
        ("{api_keys: my-secret}", "auth.api_keys: found text; accepted: a map of names"),
        ("{api_keys_file: k, api_key_header: 'x y'}", "auth.api_key_header: 'x y' is no header's name"),
        ("{api_keys_file: k, api_key_header: 'x-*'}", "auth.api_key_header: found 'x-*'"),
        ("{api_keys_file: k, forward_identity: te}", "auth.forward_identity: 'te' belongs to one connection"),
        ("{jwt: {algorithms: RS256}}", "auth.jwt: tokens are verified with the key in key_file"),
        ("{jwt: {algorithms: RS256, key_file: a, jwks_file: b}}", "give one of them"),
        ("{jwt: {key_file: a}}", "auth.jwt: algorithms is missing"),
        ("{jwt: {key_file: a, algorithms: []}}", "auth.jwt.algorithms: found []"),
        ("{jwt: {key_file: a, algorithms: [none]}}", "auth.jwt.algorithms[0]: none would accept"),
        (
            "{jwt: {key_file: a, algorithms: [RS256, HS256]}}",
            "auth.jwt.algorithms: HS algorithms use",
        ),
        ("{jwt: {key_file: a, algorithms: RS265}}", "did you mean rs256"),
        ("{jwt: {key_file: a, algorithms: RS256, leeway: -1}}", "auth.jwt.leeway: found -1"),
        ("{hook: {}}", "auth.hook: url is missing"),
        ("{hook: {url: 'ftp://x'}}", "auth.hook.url: found 'ftp://x'; accepted: an URL such as"),
        ("{hook: {url: 'http://u:my-secret@x'}}", "auth.hook.url: an URL with a password"),
        ("{hook: {url: 'http://x', timeout: 0}}", "auth.hook.timeout: found 0"),
        ("{hook: {url: 'http://x', headers: '*'}}", "auth.hook.headers: would forward every header"),
        (
            "{certificate_identity: san}",
            "auth.certificate_identity: no client is asked for a certificate; give",
        ),
        ("{certificate_identity: issuer}", "auth.certificate_identity: found 'issuer'"),
        ("{api_keys_file: k, rules: {}}", "auth.rules: found a map; accepted: a list of maps"),
        ("{api_keys_file: k, rules: [{endpoints: /x}]}", "auth.rules[0]: allow is missing"),
        ("{api_keys_file: k, rules: [{endpoint: /x, allow: a}]}", "did you mean endpoints"),
        ("{api_keys_file: k, rules: [{endpoints: x, allow: a}]}", "an endpoint begins with /"),
        ("{api_keys_file: k, rules: [{endpoints: '/*/x', allow: a}]}", "* stands at the end only"),
        ("{api_keys_file: k, rules: [{endpoints: /x, allow: 'a*'}]}", "auth.rules[0].allow: found 'a*'"),
        (
            "{api_keys_file: k, rules: [{endpoints: [/x, 1], allow: a}]}",
            "rules[0].endpoints[1]: found 1",
        ),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_to_do(auth: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(auth)
    assert said in str(caught.value)
    assert "my-secret" not in str(caught.value)
    assert DIGEST not in str(caught.value)


def test_an_api_key_is_forwarded_by_its_name_only() -> None:
    text = "jtype: Flow\ngateway: {forward_headers: ['x-*'%s], auth: {api_keys_file: k, api_key_header: x-k}}"
    assert not load_flow_text(text % "", environ={}).gateway.forwarded.allows("x-k")
    assert load_flow_text(text % ", x-k", environ={}).gateway.forwarded.allows("x-k")
    assert load_flow_text(text % "", environ={}).gateway.forwarded.allows("x-j")
