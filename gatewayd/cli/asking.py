"""``gatewayd status`` and ``gatewayd ping``, which query a running gateway or executor."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import click
import grpc
from google.protobuf.message import Message

from gatewayd.cli.output import fail, say, table
from gatewayd.client.address import Certificates, GatewayAddress, parse_address
from gatewayd.client.hints import explained
from gatewayd.messages import methods
from gatewayd.redaction import redacted_url
from gatewayd.status import status_maps


def show_status(url: str, timeout_s: float, certificates: Certificates, as_json: bool) -> int:
    """Print the status of the gateway or executor at ``url``. Returns the exit code."""
    address = _address(url, certificates)
    try:
        status = (
            _status_grpc(address, timeout_s)
            if address.protocol == "grpc"
            else _status_web(address, timeout_s)
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


def ping_url(url: str, timeout_s: float, certificates: Certificates, quiet: bool) -> int:
    """Returns 0 if the gateway or executor at ``url`` is ready, else 1."""
    address = _address(url, certificates)
    url = redacted_url(url)
    began = time.monotonic()
    problem = _ping_grpc(address, timeout_s) if address.protocol == "grpc" else _ping_web(address, timeout_s)
    took_ms = (time.monotonic() - began) * 1000
    if problem is None:
        if not quiet:
            say(f"{url} is ready ({took_ms:.0f} ms)")
        return 0
    if not quiet:
        fail(f"{url} is not ready: {problem}")
    return 1


def _address(url: str, certificates: Certificates) -> GatewayAddress:
    try:
        return parse_address(url, None, None, None, certificates)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from error


def _channel(address: GatewayAddress) -> grpc.Channel:
    # Call the address directly, even if the environment names proxies.
    options = [("grpc.enable_http_proxy", 0)]
    if not address.tls:
        return grpc.insecure_channel(address.authority, options)
    credentials = grpc.ssl_channel_credentials(*address.certificates.contents())
    return grpc.secure_channel(address.authority, credentials, options)


def _status_grpc(address: GatewayAddress, timeout_s: float) -> Mapping[str, Mapping[str, str]]:
    from gatewayd.pb import JinaInfoProto

    status = _unary(address, methods.STATUS, JinaInfoProto, timeout_s)
    # Protobuf's maps have no order: use that of HTTP's answer.
    jina, envs = status_maps()
    return {"jina": _ordered(status.jina, jina), "envs": _ordered(status.envs, envs)}


def _ordered(section: Mapping[str, str], like: Mapping[str, str]) -> dict[str, str]:
    known = {key: section[key] for key in like if key in section}
    return {**known, **{key: section[key] for key in sorted(section.keys() - known.keys())}}


def _status_web(address: GatewayAddress, timeout_s: float) -> Mapping[str, Mapping[str, str]]:
    context = address.certificates.context() if address.tls else None
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(address.url("/status"), timeout=timeout_s) as answer:
        status: Mapping[str, Mapping[str, str]] = json.load(answer)
    if not isinstance(status, dict) or "jina" not in status:
        raise ValueError("this is not a gateway")
    return status


def _ping_grpc(address: GatewayAddress, timeout_s: float) -> str | None:
    """Why it is not ready, or None. A gateway has a dry run; otherwise it is checked as an executor."""
    from grpc_health.v1.health_pb2 import HealthCheckResponse

    from gatewayd.pb import StatusProto

    try:
        result = _unary(address, methods.DRY_RUN, StatusProto, timeout_s)
        return None if result.code == StatusProto.SUCCESS else result.description or "the dry run failed"
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            return _reason(error, address)
    try:
        health = _unary(address, "/grpc.health.v1.Health/Check", HealthCheckResponse, timeout_s)
    except grpc.RpcError as error:
        return _reason(error, address)
    serving = health.status == HealthCheckResponse.SERVING
    return None if serving else HealthCheckResponse.ServingStatus.Name(health.status)


def _ping_web(address: GatewayAddress, timeout_s: float) -> str | None:
    from gatewayd.client import errors
    from gatewayd.client.post import PostOptions
    from gatewayd.client.transport_handle import TransportHandle

    loop, transport = TransportHandle(address).get()
    try:
        return loop.run(transport.unready(PostOptions(timeout=timeout_s)))
    except errors.NoSuchEndpoint:
        return "it has no dry run (gateway.expose_dry_run, which production turns off), or is no gateway"
    except (errors.BadClient, errors.BadServerFlow, errors.NetworkError) as error:
        return str(error)
    finally:
        loop.run(loop.closed(transport))


def _unary(address: GatewayAddress, method: str, answer: type[Message], timeout_s: float) -> Any:
    with _channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, Message] = channel.unary_unary(
            method, response_deserializer=answer.FromString
        )
        return call(b"", timeout=timeout_s)


def _reason(error: BaseException, address: GatewayAddress) -> str:
    if _is_missing(error):
        return "it has none (gateway.expose_status, which production turns off), or is no gateway"
    if isinstance(error, grpc.RpcError):
        return f"{explained(error.details() or '', address)} ({error.code().name})"
    reason = getattr(error, "reason", None)
    cause = reason if isinstance(error, urllib.error.URLError) and reason else error
    return explained(str(cause), address, cause if isinstance(cause, BaseException) else None)


def _is_missing(error: BaseException) -> bool:
    if isinstance(error, grpc.RpcError):
        return error.code() is grpc.StatusCode.UNIMPLEMENTED
    return isinstance(error, urllib.error.HTTPError) and error.code == HTTPStatus.NOT_FOUND
