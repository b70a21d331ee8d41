"""
What an executor tells of itself, to and from the bytes of an EndpointsProto (spec 34/wire.md).

Executors of the first generation send names of endpoints alone; ours add docstrings, and which stream.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from gatewayd.messages.discovery import DRY_RUN, Endpoints, Schema, Told, TypedEndpoint
from gatewayd.messages.generations import Generation
from gatewayd.messages.structs import struct_of
from gatewayd.pb.second import EndpointsProto

# The class of a Jina newer than 3.14 that runs with docarray of the first generation.
_FIRST_MODEL: Final = "PydanticDocument"


def read_endpoints(message: bytes) -> Told:
    """
    An EndpointsProto.

    Raises DecodeError; also for schemas that do not have the form that the second generation gives them.
    """
    proto = EndpointsProto.FromString(message)
    bound = {endpoint: proto.descriptions.get(endpoint, "") for endpoint in proto.endpoints}
    streaming = frozenset(proto.streaming)
    schemas: dict[str, Any] = MessageToDict(proto.schemas) if proto.schemas.fields else {}
    # A map of protobuf has another order in each process.
    order = [*bound, *sorted(schemas.keys() - bound.keys())]
    typed = {endpoint: _typed(endpoint, schemas[endpoint]) for endpoint in order if endpoint in schemas}
    if not typed or all(_is_first(endpoint) for endpoint in typed.values()):
        return Told(bound, Generation.FIRST, streaming=streaming)
    streaming |= {endpoint for endpoint, one in typed.items() if one.streams}
    return Told(bound, Generation.SECOND, typed, streaming)


def write_endpoints(endpoints: Endpoints) -> bytes:
    """
    An EndpointsProto of a whole Flow of the second generation, as one of its executors would tell it.

    So a gateway can stand behind another one. The reference's own leave out names and parameters, and mostly
    fail (spec 34/wire.md, EndpointsProto of a gateway).
    """
    proto = EndpointsProto(
        endpoints=[*endpoints.bound, DRY_RUN],
        descriptions={name: text for name, text in endpoints.bound.items() if text},
        streaming=sorted(endpoints.streaming),
    )
    typed = dict(endpoints.typed)
    if endpoints.dry_run is not None:
        typed[DRY_RUN] = endpoints.dry_run
    schemas = {name: _told(one) for name, one in typed.items()}
    if schemas:
        proto.schemas.ParseFromString(struct_of(schemas, "schemas"))
    return proto.SerializeToString()


def _told(one: TypedEndpoint) -> dict[str, Any]:
    return {
        "input": {"name": one.input_name, "model": one.input},
        "output": {"name": one.output_name, "model": one.output},
        "is_generator": one.streams,
        "is_singleton_doc": one.single,
        "parameters": {"name": one.parameters_name or None, "model": one.parameters},
    }


def _is_first(endpoint: TypedEndpoint) -> bool:
    return endpoint.input.get("title") == _FIRST_MODEL


def _typed(endpoint: str, told: Any) -> TypedEndpoint:
    try:
        parameters = told.get("parameters") or {}
        (taken, taken_name), (given, given_name) = _documents(told["input"]), _documents(told["output"])
        return TypedEndpoint(
            taken,
            given,
            taken_name,
            given_name,
            bool(told.get("is_generator", False)),
            bool(told.get("is_singleton_doc", False)),
            None if parameters.get("model") is None else _schema(parameters["model"]),
            str(parameters.get("name") or ""),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise DecodeError(f"the schemas of endpoint {endpoint[:80]!r} cannot be read: {error!r}") from error


def _documents(told: Any) -> tuple[Schema, str]:
    """A schema and its name. A gateway of the reference tells the schema alone (spec 34/wire.md)."""
    if "model" not in told and "properties" in told:
        return _schema(told), str(told.get("title", ""))
    return _schema(told["model"]), str(told["name"])


def _schema(value: Any) -> Schema:
    if type(value) is not dict:
        raise TypeError(f"a schema is {type(value).__name__}")
    return value
