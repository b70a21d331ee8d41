"""Reads a gateway's ``auth`` and the maps in it."""

from __future__ import annotations

import os
from typing import Any, Final

from gatewayd.config.auth import AuthConfig, HookConfig, JwtConfig
from gatewayd.config.keys import AUTH, AUTH_HOOK, AUTH_JWT, Section
from gatewayd.config.sections import Given, Layer, gather, read, read_value

_MEANS: Final = ("api_keys", "api_keys_file", "jwt", "hook", "certificate_identity")
_FILES: Final = ("api_keys_file", "key_file", "jwks_file")


def auth_of(given: Given) -> AuthConfig | None:
    """The settings in ``given``; what is wrong with them is reported."""
    layer = _layer(AUTH, given)
    if layer is None:
        return None
    jwt, hook = layer.pop("jwt", None), layer.pop("hook", None)
    if jwt is None and hook is None and not any(name in layer for name in _MEANS):
        given.place.refuse(
            "no caller could show who it is; give at least one of api_keys, api_keys_file, jwt, hook, "
            "certificate_identity"
        )
        return None
    return AuthConfig(
        jwt=None if jwt is None else _jwt(jwt), hook=None if hook is None else _hook(hook), **_fields(layer)
    )


def _jwt(given: Given) -> JwtConfig | None:
    layer = _layer(AUTH_JWT, given)
    if layer is None:
        return None
    if len([name for name in ("key_file", "jwks_file") if name in layer]) != 1:
        given.place.refuse(
            "tokens are verified with the key in key_file or those in jwks_file; give one of them"
        )
    if "algorithms" not in layer:
        given.place.refuse(
            "algorithms is missing; name those that your tokens are signed with, such as [RS256]: what the "
            "token itself names must not decide"
        )
    return JwtConfig(**_fields(layer))


def _hook(given: Given) -> HookConfig | None:
    layer = _layer(AUTH_HOOK, given)
    if layer is None:
        return None
    if "url" not in layer:
        given.place.refuse("url is missing; accepted: an URL such as http://127.0.0.1:9000/auth")
    return HookConfig(**_fields(layer))


def _layer(section: Section, given: Given) -> Layer | None:
    mapping = read_value(given)
    return None if mapping is ... else gather(section, mapping, given.place)


def _fields(layer: Layer) -> dict[str, Any]:
    """The values by the names of the model's fields. Paths are absolute: a daemon changes its folder."""
    values = {layer[name].key.field: value for name, value in read(layer).items()}
    return {name: os.path.abspath(value) if name in _FILES else value for name, value in values.items()}
