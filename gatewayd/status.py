"""
What /status and _status answer: versions, platform and environment, as two maps of texts.

The keys are those of the running reference and of its documentation (spec status.md), and ``gatewayd``, our
own version. Secrets are left out: of a token only whether it is set, and nothing of the gateway's inner
addresses. What identifies the machine in the reference is random here.
"""

from __future__ import annotations

import datetime
import functools
import os
import platform
import secrets
import uuid
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Final

import attrs
from google.protobuf.internal import api_implementation

from gatewayd._version import __version__
from gatewayd.messages.generations import NAMED, NOT_KNOWN_YET, Generation
from gatewayd.redaction import without_passwords

# What clients may count on: the release of the reference whose protocols gatewayd speaks.
COMPATIBLE_VERSION: Final = "3.14.1"
COMPATIBLE_PROTO_VERSION: Final = "0.1.13"

UNSET: Final = "(unset)"
_NOT_AVAILABLE: Final = "not-available"


@attrs.frozen
class ServiceIdentity:
    """What tells one run of a service from another: a random number, and the moment of its start (ISO)."""

    uid: str
    started: str


# Evaluated at import, which every process does when it starts. The uid is in the reference the MAC address,
# and a session id that holds it: they tell machines apart for good.
OWN_IDENTITY: Final = ServiceIdentity(
    str(secrets.randbits(48)),
    datetime.datetime.now(datetime.UTC).astimezone().replace(tzinfo=None).isoformat(),
)

_ENVIRONMENT: Final = (
    "JINA_AUTH_TOKEN",
    "JINA_DEFAULT_HOST",
    "JINA_DEFAULT_TIMEOUT_CTRL",
    "JINA_DEPLOYMENT_NAME",
    "JINA_DISABLE_HEALTHCHECK_LOGS",
    "JINA_DISABLE_UVLOOP",
    "JINA_EARLY_STOP",
    "JINA_FULL_CLI",
    "JINA_GATEWAY_IMAGE",
    "JINA_GRPC_RECV_BYTES",
    "JINA_GRPC_SEND_BYTES",
    "JINA_HUBBLE_REGISTRY",
    "JINA_HUB_NO_IMAGE_REBUILD",
    "JINA_LOG_CONFIG",
    "JINA_LOG_LEVEL",
    "JINA_LOG_NO_COLOR",
    "JINA_MP_START_METHOD",
    "JINA_OPTOUT_TELEMETRY",
    "JINA_RANDOM_PORT_MAX",
    "JINA_RANDOM_PORT_MIN",
    "JINA_LOCKS_ROOT",
    "JINA_K8S_ACCESS_MODES",
    "JINA_K8S_STORAGE_CLASS_NAME",
    "JINA_K8S_STORAGE_CAPACITY",
    "JINA_STREAMER_ARGS",
)
_REDACTED: Final[Mapping[str, str]] = {"JINA_AUTH_TOKEN": "(set)", "JINA_STREAMER_ARGS": "(hidden)"}

# The variable by which each service can be known, from its own documentation.
_CI_VENDORS: Final = {
    "GITHUB_ACTIONS": "GitHub Actions",
    "GITLAB_CI": "GitLab CI",
    "JENKINS_URL": "Jenkins",
    "CIRCLECI": "CircleCI",
    "TRAVIS": "Travis CI",
    "BUILDKITE": "Buildkite",
    "TF_BUILD": "Azure Pipelines",
}


def status_maps(
    environment: Mapping[str, str] = os.environ,
    *,
    new_id: Callable[[], uuid.UUID] = uuid.uuid4,
    identity: ServiceIdentity = OWN_IDENTITY,
) -> tuple[dict[str, str], dict[str, str]]:
    """The maps ``jina`` and ``envs``, as they are now. Only ``session-id`` differs between two calls."""
    vendor = next((name for key, name in _CI_VENDORS.items() if environment.get(key)), UNSET)
    system = platform.uname()
    versions = {
        **_versions(),
        "jina-vcs-tag": environment.get("JINA_VCS_VERSION") or UNSET,
        "python": platform.python_version(),
        "platform": system.system,
        "platform-release": system.release,
        "platform-version": system.version,
        "architecture": system.machine,
        "processor": _processor(),
        "uid": identity.uid,
        "session-id": str(new_id()),
        "uptime": identity.started,
        "ci-vendor": vendor,
        "internal": str("jina-ai" in environment.get("GITHUB_ACTION_REPOSITORY", "")),
    }
    return versions, {key: _shown(key, environment.get(key)) for key in _ENVIRONMENT}


def status_of(
    identity: ServiceIdentity = OWN_IDENTITY,
    workers: tuple[int, int] | None = None,
    replicas: tuple[int, int] | None = None,
) -> Mapping[str, Mapping[str, str]]:
    """
    Both maps as a gateway answers them.

    ``workers`` are those that serve, and those that are to, where there are several; so are ``replicas``, of
    executors that are scaled with their load.
    """
    jina, envs = status_maps(identity=identity)
    if workers is not None:
        jina["gatewayd-workers"] = "{} of {} serve".format(*workers)
    if replicas is not None:
        jina["gatewayd-replicas"] = "{} of {} that are wanted serve".format(*replicas)
    return {"jina": jina, "envs": envs}


def with_documents(
    maps: Mapping[str, Mapping[str, str]], generation: Generation | None
) -> Mapping[str, Mapping[str, str]]:
    """``maps``, and which documents the Flow speaks; None while nobody has said it."""
    text = NOT_KNOWN_YET if generation is None else NAMED[generation]
    return {**maps, "jina": {**maps["jina"], "gatewayd-documents": text}}


def with_followed(
    maps: Mapping[str, Mapping[str, str]], followed: Mapping[str, int]
) -> Mapping[str, Mapping[str, str]]:
    """``maps``, and how Services of Kubernetes are followed (``Pool.followed``), if any are."""
    if not followed:
        return maps
    text = "; ".join(f"{count} by {how}" for how, count in sorted(followed.items()))
    return {**maps, "jina": {**maps["jina"], "gatewayd-kubernetes": text}}


def _shown(key: str, value: str | None) -> str:
    if value is None:
        return UNSET
    return _REDACTED.get(key, without_passwords(value))


@functools.cache
def _processor() -> str:
    # Runs a program; its answer does not change.
    return platform.processor()


@functools.cache
def _versions() -> dict[str, str]:
    return {
        "jina": COMPATIBLE_VERSION,
        "gatewayd": __version__,
        "docarray": _version("docarray"),
        "jcloud": _version("jcloud"),
        "jina-hubble-sdk": _version("jina-hubble-sdk"),
        "jina-proto": COMPATIBLE_PROTO_VERSION,
        "protobuf": _version("protobuf"),
        "proto-backend": api_implementation.Type(),
        "grpcio": _version("grpcio"),
        "pyyaml": _version("pyyaml"),
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return _NOT_AVAILABLE
