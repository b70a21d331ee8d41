"""
The fields of a JSON body: the one table, for everything that describes them.

``documents`` and ``requests`` read and write exactly these (a test holds them to it); OpenAPI's schemas
and GraphQL's types are made from them.
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
    """A field of an object; each may be null. ``doc`` is a sentence for the client's author."""

    name: str
    kind: FieldKind
    doc: str


@attrs.frozen
class RequestField:
    """A field of a request's body, and the other spelling that is accepted."""

    name: str
    alias: str | None
    doc: str


# In the order in which answers have them.
DOCUMENT: Final = (
    FieldSpec("id", "text", "Identifies the document; made if missing."),
    FieldSpec("parent_id", "text", "The id of the document that it is a chunk of."),
    FieldSpec("granularity", "unsigned", "How deep it lies in chunks of chunks."),
    FieldSpec("adjacency", "unsigned", "How deep it lies in matches of matches."),
    FieldSpec("blob", "blob", "Raw bytes, in base64."),
    FieldSpec("tensor", "array", "An n-dimensional array of numbers, as nested lists."),
    FieldSpec("mime_type", "text", "The type of its content; guessed from uri if missing."),
    FieldSpec("text", "text", "Its text. Of tensor, blob and text the first that is present counts."),
    FieldSpec("weight", "number", "Its weight."),
    FieldSpec("uri", "text", "Where its content is from."),
    FieldSpec("tags", "object", "Anything; numbers come back as floats."),
    FieldSpec("offset", "number", "Where it begins in what it was taken from."),
    FieldSpec("location", "numbers", "Where it is in what it was taken from."),
    FieldSpec("embedding", "array", "Its vector, as nested lists of numbers."),
    FieldSpec("modality", "text", "What kind of data it is of."),
    FieldSpec("evaluations", "scores", "Evaluations by name."),
    FieldSpec("scores", "scores", "Scores by name."),
    FieldSpec("chunks", "documents", "The documents that it consists of."),
    FieldSpec("matches", "documents", "The documents that match it."),
)

SCORE: Final = (
    FieldSpec("value", "number", "The score itself."),
    FieldSpec("op_name", "text", "What made it."),
    FieldSpec("description", "text", "What it means."),
    FieldSpec("ref_id", "text", "The id of the document that it compares with."),
)

DATA: Final = RequestField(
    "data",
    None,
    "The documents: a list, or an object that holds it as docs. May be left out.",
)
TARGET: Final = RequestField(
    "targetExecutor",
    "target_executor",
    "A regular expression: only executors whose names match work on it.",
)
PARAMETERS: Final = RequestField(
    "parameters", None, "For the executors; name__key reaches only the executor of that name."
)
ENDPOINT: Final = RequestField(
    "execEndpoint", "exec_endpoint", "The endpoint that executors bind functions to, such as /search."
)
REQUEST_ID: Final = RequestField(
    "requestId",
    "request_id",
    "Names the request in its answer; made if missing or empty. The header X-Request-ID wins over it.",
)
