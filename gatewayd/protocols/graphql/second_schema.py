"""
The GraphQL schema of Flows whose documents are of the second generation: documents are JSON, whole.

Their classes are the executors' own, may differ from endpoint to endpoint, and may change while the gateway
serves; a type of GraphQL belongs to a field, whatever endpoint it names. So documents have the JSON that HTTP
has for the endpoint, by its schemas, and a query chooses none of their fields. Loop thread only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from graphql import GraphQLError, GraphQLField, GraphQLNonNull, GraphQLResolveInfo

from gatewayd.messages.request import Request, Response
from gatewayd.messages.second import reading, writing
from gatewayd.protocols.graphql.errors import encode_executor_error
from gatewayd.protocols.graphql.schema import JSON, QueryContext, arguments, many, schema_of


def _request(context: QueryContext, data: Any, target: str | None, parameters: Any, endpoint: str) -> Request:
    """Raises BadRequest, TooManyDocuments."""
    fields: dict[str, Any] = {"exec_endpoint": endpoint}
    if data is not None:
        fields["data"] = data
    if parameters is not None:
        fields["parameters"] = parameters
    if target is not None:
        fields["header"] = {"target_executor": target}
    return reading.request_of(
        fields,
        reading.UNKNOWN,
        None,
        request_id=context.request_id(),
        max_documents=context.max_documents,
        models=context.models,
    )


def _documents(context: QueryContext, request: Request, response: Response, info: Any) -> list[Any]:
    """Raises GraphQLError where an executor raised, and GatewayError."""
    if response.status:
        raise encode_executor_error(response.status, info)
    model = context.models.get(request.endpoint, reading.UNKNOWN)
    return [
        orjson.Fragment(context.size.count(text))
        for text in writing.write_documents(response.documents, model)
    ]


async def _resolve_docs(
    _root: None,
    info: GraphQLResolveInfo[Any],
    *,
    data: list[Any] | None,
    target: str | None,
    parameters: Any,
    endpoint: str,
) -> list[Any]:
    context: QueryContext = info.context
    try:
        request = _request(context, data, target, parameters, endpoint)
        response = await context.dispatch(request)
        if response.hint:
            context.hints.append(response.hint)
        return _documents(context, request, response, info)
    except GraphQLError:
        raise
    except Exception as error:
        raise context.encode_error(error) from None


async def _stream_doc(
    _root: None,
    info: GraphQLResolveInfo[Any],
    *,
    data: Any,
    target: str | None,
    parameters: Any,
    endpoint: str,
) -> AsyncIterator[Any]:
    context: QueryContext = info.context
    try:
        request = _request(context, [{} if data is None else data], target, parameters, endpoint)
        async for response in context.stream(request):
            for document in _documents(context, request, response, info):
                yield document
    except GraphQLError:
        raise
    except Exception as error:
        raise context.encode_error(error) from None


SECOND_SCHEMA: Final = schema_of(
    GraphQLField(GraphQLNonNull(many(JSON)), args=arguments(many(JSON)), resolve=_resolve_docs),
    GraphQLField(
        GraphQLNonNull(JSON),
        args=arguments(JSON),
        subscribe=_stream_doc,
        resolve=lambda document, info, **arguments: document,
    ),
)
