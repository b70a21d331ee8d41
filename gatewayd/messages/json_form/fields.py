"""
The fields of JSON bodies: one table for everything that describes them.

``documents`` and ``requests`` read and write exactly these fields, as a test checks; OpenAPI's schemas and
GraphQL's types are made from them.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

FieldKind = Literal[
    "text",
    "unsigned",  # an integer that fits uint32
    "number",  # finite as a 32-bit float
    "numbers",
    "blob",  # base64
    "array",  # nested lists
    "object",
    "scores",  # an object from names to SCORE's fields
    "documents",
]


@attrs.frozen
class FieldSpec:
    """A field of an object, which may be null. ``doc`` is a sentence for authors of clients."""

    name: str
    kind: FieldKind
    doc: str


@attrs.frozen
class RequestField:
    """A field of a request's body; ``alias`` is another spelling that is accepted."""

    name: str
    alias: str | None
    doc: str


# In the order of answers.
DOCUMENT: Final = (
    FieldSpec("id", "text", "Identifies the document; generated if missing."),
    FieldSpec("parent_id", "text", "The id of the document that it is a chunk of."),
    FieldSpec("granularity", "unsigned", "Its nesting level in chunks of chunks."),
    FieldSpec("adjacency", "unsigned", "Its nesting level in matches of matches."),
    FieldSpec("blob", "blob", "Raw bytes, in base64."),
    FieldSpec("tensor", "array", "An n-dimensional array of numbers, as nested lists."),
    FieldSpec("mime_type", "text", "The type of its content; guessed from uri if missing."),
    FieldSpec("text", "text", "Its text. Of tensor, blob and text only the first that is present is used."),
    FieldSpec("weight", "number", "Its weight."),
    FieldSpec("uri", "text", "The source of its content."),
    FieldSpec("tags", "object", "Any values; numbers are floats in answers."),
    FieldSpec("offset", "number", "Its start in the document that it is a part of."),
    FieldSpec("location", "numbers", "Its position in the document that it is a part of."),
    FieldSpec("embedding", "array", "Its vector, as nested lists of numbers."),
    FieldSpec("modality", "text", "The kind of its data."),
    FieldSpec("evaluations", "scores", "Evaluations by name."),
    FieldSpec("scores", "scores", "Scores by name."),
    FieldSpec("chunks", "documents", "The documents that it consists of."),
    FieldSpec("matches", "documents", "The documents that match it."),
)

SCORE: Final = (
    FieldSpec("value", "number", "The score itself."),
    FieldSpec("op_name", "text", "The operation that computed it."),
    FieldSpec("description", "text", "Its meaning."),
    FieldSpec("ref_id", "text", "The id of the document compared with."),
)

DATA: Final = RequestField(
    "data",
    None,
    "The documents: a list, or an object with the list as docs. Optional.",
)
TARGET: Final = RequestField(
    "targetExecutor",
    "target_executor",
    "A regular expression: only executors whose names match get the request.",
)
PARAMETERS: Final = RequestField(
    "parameters", None, "Parameters for executors; name__key is for the executor of that name alone."
)
ENDPOINT: Final = RequestField(
    "execEndpoint", "exec_endpoint", "The endpoint that executors bind methods to, such as /search."
)
REQUEST_ID: Final = RequestField(
    "requestId",
    "request_id",
    "Names the request in its answer; made if missing or empty. The header X-Request-ID wins over it.",
)
