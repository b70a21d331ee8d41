"""
The GraphQL schema: queries and mutations with one field, ``docs``, which sends a Request, and subscriptions
with ``doc``, which streams.

Types, names and defaults are the reference's (golden: graphql.json), which has no subscriptions; their fields
come from ``json_form.fields``. Loop thread only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import orjson
from graphql import (
    GraphQLArgument,
    GraphQLError,
    GraphQLField,
    GraphQLFloat,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    Undefined,
    ValueNode,
    value_from_ast_untyped,
)

from gatewayd.messages.json_form import requests, responses
from gatewayd.messages.json_form.documents import Allowance, read_field, read_score
from gatewayd.messages.json_form.fields import DOCUMENT, SCORE, FieldKind
from gatewayd.messages.json_form.groups import dumps
from gatewayd.messages.request import Request, Response
from gatewayd.messages.second.reading import Model
from gatewayd.pb import DocumentProto
from gatewayd.protocols.graphql.errors import encode_executor_error
from gatewayd.protocols.graphql.limits import AnswerSize


class QueryContext(Protocol):
    """The context value of graphql-core, which resolvers get."""

    dispatch: Callable[[Request], Awaitable[Response]]
    stream: Callable[[Request], AsyncIterator[Response]]
    request_id: Callable[[], str]  # of the next Request
    allowance: Allowance  # of all Requests together
    max_documents: int
    models: Mapping[str, Model]  # of the second generation, by endpoint
    size: AnswerSize
    last_object: tuple[object, str, bytes | None]  # a document, a field of it, and its text
    encode_error: Callable[[Exception], GraphQLError]
    failures: list[GraphQLError]  # of executors: they do not change the data
    hints: list[str]


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _parse_json(value: Any) -> Any:
    """A text that holds JSON, as the reference wants it, or the value itself."""
    if isinstance(value, str):
        return orjson.loads(value)
    orjson.dumps(value)  # refuses what a literal can hold and JSON cannot, such as integers beyond 64 bits
    return value


def _parse_json_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    return _parse_json(_defined(value_from_ast_untyped(node, variables)))


def _defined(value: Any) -> Any:
    """Without the variables that have no value, which while a query is validated is all of them."""
    if isinstance(value, dict):
        return {key: _defined(item) for key, item in value.items() if item is not Undefined}
    if isinstance(value, list):
        return [None if item is Undefined else _defined(item) for item in value]
    return value


def _parse_base64(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a blob is a text in base64, not {type(value).__name__}")
    return value


_BASE64: Final = GraphQLScalarType("Base64", parse_value=_parse_base64)
_ARRAY: Final = GraphQLScalarType("NdArray")
JSON: Final = GraphQLScalarType(
    "JSONScalar",
    description="Any JSON value in answers; in arguments a JSON object, or a text that holds one.",
    parse_value=_parse_json,
    parse_literal=_parse_json_literal,
)

_SCALARS: Final[Mapping[FieldKind, Any]] = {
    "text": GraphQLString,
    "unsigned": GraphQLInt,
    "number": GraphQLFloat,
    "numbers": GraphQLList(GraphQLNonNull(GraphQLFloat)),
    "blob": _BASE64,
    "array": _ARRAY,
    "object": JSON,
}


def many(of: Any) -> GraphQLList[Any]:
    """A list without nulls in it."""
    return GraphQLList(GraphQLNonNull(of))


def _reads(name: str) -> Callable[[Mapping[str, Any], GraphQLResolveInfo[Any]], Any]:
    return lambda score, info: info.context.size.count(score[name])


# Documents are read field by field, as they are asked for: most of them hold far more.


def _reads_value(name: str) -> Callable[[DocumentProto, GraphQLResolveInfo[Any]], Any]:
    return lambda document, info: info.context.size.count(read_field(document, name))


def _reads_object(name: str) -> Callable[[DocumentProto, GraphQLResolveInfo[Any]], Any]:
    def read(document: DocumentProto, info: GraphQLResolveInfo[Any]) -> Any:
        context: QueryContext = info.context
        # As text its size is known. It may be asked for by many names, and take a second to write.
        known, field, _ = context.last_object
        if known is not document or field != name:
            found = read_field(document, name)
            context.last_object = document, name, None if found is None else dumps(found)
        text = context.size.count(context.last_object[2])
        return None if text is None else orjson.Fragment(text)

    return read


def _reads_documents(name: str) -> Callable[[DocumentProto, GraphQLResolveInfo[Any]], Any]:
    def read(document: DocumentProto, info: GraphQLResolveInfo[Any]) -> Any:
        info.context.size.count(None)
        return getattr(document, name) or None

    return read


def _reads_scores(name: str) -> Callable[[DocumentProto, GraphQLResolveInfo[Any]], Any]:
    def read(document: DocumentProto, info: GraphQLResolveInfo[Any]) -> Any:
        scores = getattr(document, name)
        info.context.size.count(None, 2 * len(scores))
        return [{"name": name, "score": read_score(score)} for name, score in scores.items()] or None

    return read


# -- answers ------------------------------------------------------------------------------------------

_SCORE_FIELDS: Final = {
    _camel(field.name): GraphQLField(_SCALARS[field.kind], resolve=_reads(field.name)) for field in SCORE
}
_SCORE_INTERFACE: Final = GraphQLInterfaceType(
    "Namedscoreinterface",
    {name: GraphQLField(field.type) for name, field in _SCORE_FIELDS.items()},
    resolve_type=lambda *_: "Namedscore",
)
_SCORE: Final = GraphQLObjectType("Namedscore", _SCORE_FIELDS, interfaces=[_SCORE_INTERFACE])
_SCORE_ITEM: Final = GraphQLObjectType(
    "Namescoreitem",
    {"name": GraphQLField(GraphQLNonNull(GraphQLString)), "score": GraphQLField(GraphQLNonNull(_SCORE))},
)


def _document_fields() -> dict[str, GraphQLField]:
    types = {**_SCALARS, "scores": many(_SCORE_ITEM), "documents": many(_DOCUMENT)}
    readers = {"scores": _reads_scores, "documents": _reads_documents, "object": _reads_object}
    return {
        _camel(field.name): GraphQLField(
            types[field.kind], resolve=readers.get(field.kind, _reads_value)(field.name)
        )
        for field in DOCUMENT
    }


_DOCUMENT: Final = GraphQLObjectType("StrawberryDocument", _document_fields)


# -- arguments ----------------------------------------------------------------------------------------


def _input(kind: Any, name: str | None = None) -> GraphQLInputField:
    return GraphQLInputField(kind, default_value=None, out_name=name)


_SCORE_INPUT: Final = GraphQLInputObjectType(
    "Namedscoreinput", {_camel(field.name): _input(_SCALARS[field.kind], field.name) for field in SCORE}
)
_SCORE_ITEM_INPUT: Final = GraphQLInputObjectType(
    "Namescoreiteminput",
    {
        "name": GraphQLInputField(GraphQLNonNull(GraphQLString)),
        "score": GraphQLInputField(GraphQLNonNull(_SCORE_INPUT)),
    },
)


def _document_input_fields() -> dict[str, GraphQLInputField]:
    types = {**_SCALARS, "scores": many(_SCORE_ITEM_INPUT), "documents": many(_DOCUMENT_INPUT)}
    return {_camel(field.name): _input(types[field.kind], field.name) for field in DOCUMENT}


def _to_json(values: dict[str, Any]) -> dict[str, Any]:
    """An input document in the JSON form that HTTP uses."""
    for field in DOCUMENT:
        items: Iterable[Mapping[str, Any]] | None = values.get(field.name)
        if field.kind == "scores" and items is not None:
            values[field.name] = {item["name"]: item["score"] for item in items}
    return values


_DOCUMENT_INPUT: Final = GraphQLInputObjectType(
    "StrawberryDocumentInput", _document_input_fields, out_type=_to_json
)


# -- the field ----------------------------------------------------------------------------------------


async def _resolve_docs(
    _root: None,
    info: GraphQLResolveInfo[Any],
    *,
    data: list[dict[str, Any]] | None,
    target: str | None,
    parameters: Any,
    endpoint: str,
) -> Sequence[DocumentProto]:
    context: QueryContext = info.context
    fields = {"data": data, "targetExecutor": target, "parameters": parameters}
    try:
        request = requests.build_request(
            fields, endpoint=endpoint, request_id=context.request_id(), allowance=context.allowance
        )
        response = await context.dispatch(request)
        documents = responses.documents_in(response.documents)
    except Exception as error:
        raise context.encode_error(error) from None
    if response.status:
        context.failures.append(encode_executor_error(response.status, info))
    if response.hint:
        context.hints.append(response.hint)
    return documents


async def _stream_doc(
    _root: None,
    info: GraphQLResolveInfo[Any],
    *,
    data: dict[str, Any] | None,
    target: str | None,
    parameters: Any,
    endpoint: str,
) -> AsyncIterator[DocumentProto]:
    context: QueryContext = info.context
    fields = {"data": [data or {}], "targetExecutor": target, "parameters": parameters}
    try:
        request = requests.build_request(
            fields, endpoint=endpoint, request_id=context.request_id(), allowance=context.allowance
        )
        async for response in context.stream(request):
            if response.status:
                raise encode_executor_error(response.status, info)
            for document in responses.documents_in(response.documents):
                yield document
    except GraphQLError:
        raise
    except Exception as error:
        raise context.encode_error(error) from None


def arguments(data: Any) -> dict[str, GraphQLArgument]:
    """Those of a field that sends a Request with ``data``."""
    return {
        "data": GraphQLArgument(data, default_value=None),
        "targetExecutor": GraphQLArgument(GraphQLString, default_value=None, out_name="target"),
        "parameters": GraphQLArgument(JSON, default_value=None),
        "execEndpoint": GraphQLArgument(
            GraphQLNonNull(GraphQLString), default_value="/search", out_name="endpoint"
        ),
    }


def schema_of(docs: GraphQLField, doc: GraphQLField, types: Sequence[Any] = ()) -> GraphQLSchema:
    """Queries and mutations have ``docs``, subscriptions ``doc``."""
    return GraphQLSchema(
        query=GraphQLObjectType("Query", {"docs": docs}),
        mutation=GraphQLObjectType("Mutation", {"docs": docs}),
        subscription=GraphQLObjectType("Subscription", {"doc": doc}),
        types=types,
    )


SCHEMA: Final = schema_of(
    GraphQLField(
        GraphQLNonNull(many(_DOCUMENT)), args=arguments(many(_DOCUMENT_INPUT)), resolve=_resolve_docs
    ),
    GraphQLField(
        GraphQLNonNull(_DOCUMENT),
        args=arguments(_DOCUMENT_INPUT),
        subscribe=_stream_doc,
        resolve=lambda document, info, **arguments: document,
    ),
    [_SCORE_INTERFACE],
)
