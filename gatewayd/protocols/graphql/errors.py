"""Errors as entries of a GraphQL answer's ``errors``."""

from __future__ import annotations

from typing import Any

from graphql import GraphQLError, GraphQLResolveInfo

from gatewayd.errors import GatewayError
from gatewayd.pb import StatusProto


def encode_error(error: GatewayError) -> GraphQLError:
    """What is raised in place of a field's value."""
    return GraphQLError(str(error))


def encode_executor_error(status: bytes, info: GraphQLResolveInfo[Any]) -> GraphQLError:
    """What an executor raised, from a serialised StatusProto; the field has a value all the same."""
    found = StatusProto.FromString(status)
    return GraphQLError(
        found.description,
        nodes=info.field_nodes,
        path=info.path.as_list(),
        extensions={"executor": found.exception.executor, "exception": found.exception.name},
    )
