"""Errors as entries of a GraphQL answer's ``errors``."""

from __future__ import annotations

from typing import Any

from graphql import GraphQLError, GraphQLResolveInfo

from gatewayd.errors import BadRequest, GatewayError
from gatewayd.pb import StatusProto
from gatewayd.protocols.told import told


def encode_error(error: GatewayError) -> GraphQLError:
    """The error to raise in place of a field's value."""
    told(error, "graphql")
    problems = error.problems if isinstance(error, BadRequest) else ()
    return GraphQLError(str(error), extensions={"detail": problems} if problems else None)


def encode_executor_error(status: bytes, info: GraphQLResolveInfo[Any]) -> GraphQLError:
    """An executor's exception, from a serialised StatusProto; the field still has a value."""
    raised = StatusProto.FromString(status)
    return GraphQLError(
        raised.description,
        nodes=info.field_nodes,
        path=info.path.as_list(),
        extensions={"executor": raised.exception.executor, "exception": raised.exception.name}
        if raised.HasField("exception")
        else None,
    )
