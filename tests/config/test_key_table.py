"""The table of keys agrees with the model, so that its defaults can be documented."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gatewayd.config import DeploymentConfig, ExecutorConfig, GatewayConfig, PoolLimits
from gatewayd.config.auth import AuthConfig, HookConfig, JwtConfig
from gatewayd.config.keys import (
    AUTH,
    AUTH_HOOK,
    AUTH_JWT,
    EXECUTOR,
    GATEWAY,
    POOL,
    SECTIONS,
    SUPPORTED,
    Key,
    Section,
)

MODELS: list[tuple[Section, list[Any]]] = [
    (GATEWAY, [GatewayConfig()]),
    (POOL, [PoolLimits()]),
    (AUTH, [AuthConfig()]),
    (AUTH_JWT, [JwtConfig()]),
    (AUTH_HOOK, [HookConfig()]),
    (EXECUTOR, [DeploymentConfig(name=""), ExecutorConfig()]),
]
ELSEWHERE = {"auth", "jwt", "hook", "method", "protocol", "port", "pool"}  # read by code of their own
# Of the gateway: together they are its `custom`; log_config sets log_level and log_format.
ELSEWHERE_IN_GATEWAY = {"uses", "uses_with", "py_modules", "log_config"}
KEYS = [
    pytest.param(key, models, id=f"{section.title}.{key.name}")
    for section, models in MODELS
    for key in section.keys
    if key.status == SUPPORTED
    and key.name not in ELSEWHERE
    and not (section is GATEWAY and key.name in ELSEWHERE_IN_GATEWAY)
]


@pytest.mark.parametrize(("key", "models"), KEYS)
def test_a_supported_key_is_a_field_of_the_model_with_the_same_default(key: Key, models: list[Any]) -> None:
    holders = [model for model in models if key.field in attrs.fields_dict(type(model))]
    assert holders, f"{key.field}: add it to {' or '.join(type(model).__name__ for model in models)}"
    model = holders[0]
    default = getattr(model, key.field)
    if key.default is None:
        assert default in (None, {}, (), ("gateway",), "")
    elif key.name not in ("uses", "host"):
        assert key.kind.read(key.default) == default


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_no_word_of_a_section_means_two_keys(section: Section) -> None:
    words = [word for key in section.keys for word in (key.name, *key.aliases)]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_every_key_has_one_line_of_documentation(section: Section) -> None:
    assert all(key.doc.endswith(".") and "\n" not in key.doc for key in section.keys)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_every_default_is_of_its_own_kind(section: Section) -> None:
    for key in section.keys:
        if key.default is not None:
            key.kind.read(key.default)
