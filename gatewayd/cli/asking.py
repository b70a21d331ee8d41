"""``gatewayd status`` and ``gatewayd ping``, which query a running gateway or executor."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import click
import grpc
from google.protobuf.message import Message

from gatewayd.cli.output import fail, say, table
from gatewayd.client.address import (
    COMMAND_LINE,
    CertificateMistake,
    Certificates,
    GatewayAddress,
    parse_address,
)
from gatewayd.client.hints import explained
from gatewayd.messages import methods
from gatewayd.redaction import redacted_url
from gatewayd.status import status_maps

_HEADER_VARIABLE: Final = "GATEWAYD_HEADER"

# Of a refusal: a gateway's are far shorter.
_MOST_BYTES: Final = 64 * 1024

Pairs = tuple[tuple[str, str], ...]


def show_status(
    url: str, timeout_s: float, certificates: Certificates, headers: Sequence[str], as_json: bool
) -> int:
    """Print the status of the gateway or executor at ``url``. Returns the exit code."""
    address, sent = address_of(url, certificates), pairs_of(headers)
    try:
        status = (
            _status_grpc(address, timeout_s, sent)
            if address.protocol == "grpc"
            else _status_web(address, timeout_s, sent)
        )
    except (OSError, ValueError, grpc.RpcError) as error:
        return fail(f"{redacted_url(url)} does not answer with its status: {_reason(error, address)}")
    if as_json:
        say(json.dumps(status, indent=2))
        return 0
    for title, section in status.items():
        say(title, bold=True)
        rows = [(key, str(value)) for key, value in section.items() if value != "(unset)"]
        for line in table(rows) if rows else ["(nothing is set)"]:
            say(f"  {line}")
    return 0


def ping_url(
    url: str, timeout_s: float, certificates: Certificates, headers: Sequence[str], quiet: bool
) -> int:
    """Returns 0 if the gateway or executor at ``url`` is ready, else 1."""
    address, sent = address_of(url, certificates), pairs_of(headers)
    url = redacted_url(url)
    began = time.monotonic()
    ask = _ping_grpc if address.protocol == "grpc" else _ping_web
    problem = ask(address, timeout_s, sent)
    took_ms = (time.monotonic() - began) * 1000
    if problem is None:
        if not quiet:
            say(f"{url} is ready ({took_ms:.0f} ms)")
        return 0
    if not quiet:
        fail(f"{url} is not ready: {problem}")
    return 1


def address_of(url: str, certificates: Certificates) -> GatewayAddress:
    """Where a command goes. Raises click's errors for a wrong use."""
    try:
        return parse_address(url, None, None, None, certificates, spelling=COMMAND_LINE)
    except CertificateMistake as error:
        raise click.UsageError(str(error)) from error
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from error


def pairs_of(headers: Sequence[str]) -> Pairs:
    """Names and values of ``headers``, or of the environment's. A mistake is told without the value."""
    variable = os.environ.get(_HEADER_VARIABLE)
    found = []
    for header in headers or ([variable] if variable else []):
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            place = "--header" if headers else _HEADER_VARIABLE
            raise click.BadParameter("a header is 'NAME: VALUE', such as 'x-api-key: KEY'", param_hint=place)
        found.append((name.strip().lower(), value.strip()))
    return tuple(found)


def _channel(address: GatewayAddress) -> grpc.Channel:
    # Call the address directly, even if the environment names proxies.
    options = [("grpc.enable_http_proxy", 0)]
    if not address.tls:
        return grpc.insecure_channel(address.authority, options)
    credentials = grpc.ssl_channel_credentials(*address.certificates.contents())
    return grpc.secure_channel(address.authority, credentials, options)


def _status_grpc(
    address: GatewayAddress, timeout_s: float, headers: Pairs
) -> Mapping[str, Mapping[str, str]]:
    from gatewayd.pb import JinaInfoProto

    status = _unary(address, methods.STATUS, JinaInfoProto, timeout_s, headers)
    # Protobuf's maps have no order: use that of HTTP's answer.
    jina, envs = status_maps()
    return {"jina": _ordered(status.jina, jina), "envs": _ordered(status.envs, envs)}


def _ordered(section: Mapping[str, str], like: Mapping[str, str]) -> dict[str, str]:
    known = {key: section[key] for key in like if key in section}
    return {**known, **{key: section[key] for key in sorted(section.keys() - known.keys())}}


def _status_web(address: GatewayAddress, timeout_s: float, headers: Pairs) -> Mapping[str, Mapping[str, str]]:
    context = address.certificates.context() if address.tls else None
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    asked = urllib.request.Request(address.url("/status"), headers=dict(headers))
    with opener.open(asked, timeout=timeout_s) as answer:
        status: Mapping[str, Mapping[str, str]] = json.load(answer)
    if not isinstance(status, dict) or "jina" not in status:
        raise ValueError("this is not a gateway")
    return status


def _ping_grpc(address: GatewayAddress, timeout_s: float, headers: Pairs) -> str | None:
    """Why it is not ready, or None. A gateway has a dry run; otherwise it is checked as an executor."""
    from grpc_health.v1.health_pb2 import HealthCheckResponse

    from gatewayd.pb import StatusProto

    try:
        result = _unary(address, methods.DRY_RUN, StatusProto, timeout_s, headers)
        return None if result.code == StatusProto.SUCCESS else result.description or "the dry run failed"
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            return _reason(error, address)
    try:
        health = _unary(address, "/grpc.health.v1.Health/Check", HealthCheckResponse, timeout_s, headers)
    except grpc.RpcError as error:
        return _reason(error, address)
    serving = health.status == HealthCheckResponse.SERVING
    return None if serving else HealthCheckResponse.ServingStatus.Name(health.status)


def _ping_web(address: GatewayAddress, timeout_s: float, headers: Pairs) -> str | None:
    from gatewayd.client import errors
    from gatewayd.client.post import PostOptions
    from gatewayd.client.transport_handle import TransportHandle

    loop, transport = TransportHandle(address).get()
    try:
        return loop.run(transport.unready(PostOptions(timeout=timeout_s, headers=dict(headers))))
    except errors.NoSuchEndpoint:
        return "it has no dry run (gateway.expose_dry_run, which production turns off), or is no gateway"
    except (errors.BadClient, errors.BadServerFlow, errors.NetworkError) as error:
        return str(error)
    finally:
        loop.run(loop.closed(transport))


def _unary(
    address: GatewayAddress, method: str, answer: type[Message], timeout_s: float, headers: Pairs
) -> Any:
    with _channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, Message] = channel.unary_unary(
            method, response_deserializer=answer.FromString
        )
        return call(b"", timeout=timeout_s, metadata=headers)


def _reason(error: BaseException, address: GatewayAddress) -> str:
    if _is_missing(error):
        return "it has none (gateway.expose_status, which production turns off), or is no gateway"
    if isinstance(error, grpc.RpcError):
        return f"{explained(error.details() or '', address)} ({error.code().name})"
    if isinstance(error, urllib.error.HTTPError):
        return f"{_detail(error) or error.reason} (HTTP status {error.code})"
    reason = getattr(error, "reason", None)
    cause = reason if isinstance(error, urllib.error.URLError) and reason else error
    return explained(str(cause), address, cause if isinstance(cause, BaseException) else None)


def _detail(error: urllib.error.HTTPError) -> str:
    """What a gateway says in its refusal; empty where the answer is not of one."""
    try:
        with error:
            return str(json.loads(error.read(_MOST_BYTES))["detail"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _is_missing(error: BaseException) -> bool:
    if isinstance(error, grpc.RpcError):
        return error.code() is grpc.StatusCode.UNIMPLEMENTED
    return isinstance(error, urllib.error.HTTPError) and error.code == HTTPStatus.NOT_FOUND
