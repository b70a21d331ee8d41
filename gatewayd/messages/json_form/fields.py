"""
What a JSON body consists of: the one table of its fields, for everything that describes them.

``documents`` and ``requests`` read and write exactly these (a test holds them to it); OpenAPI's schemas
and GraphQL's types are made from them.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

Kind = Literal[
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
class Field:
    """A field of an object; each may be null. ``doc`` is a sentence for the client's author."""

    name: str
    kind: Kind
    doc: str


@attrs.frozen
class RequestField:
    """A field of a request's body, with the other spelling that is read, too."""

    name: str
    alias: str | None
    doc: str


# In the order in which answers have them.
DOCUMENT: Final = (
    Field("id", "text", "Identifies the document; made if missing."),
    Field("parent_id", "text", "The id of the document that it is a chunk of."),
    Field("granularity", "unsigned", "How deep it lies in chunks of chunks."),
    Field("adjacency", "unsigned", "How deep it lies in matches of matches."),
    Field("blob", "blob", "Raw bytes, in base64."),
    Field("tensor", "array", "An n-dimensional array of numbers, as nested lists."),
    Field("mime_type", "text", "The type of its content; guessed from uri if missing."),
    Field("text", "text", "Its text. Of tensor, blob and text the first that is given counts."),
    Field("weight", "number", "Its weight."),
    Field("uri", "text", "Where its content is from."),
    Field("tags", "object", "Anything; numbers come back as floats."),
    Field("offset", "number", "Where it begins in what it was taken from."),
    Field("location", "numbers", "Where it is in what it was taken from."),
    Field("embedding", "array", "Its vector, as nested lists of numbers."),
    Field("modality", "text", "What kind of data it is of."),
    Field("evaluations", "scores", "Evaluations by name."),
    Field("scores", "scores", "Scores by name."),
    Field("chunks", "documents", "The documents that it consists of."),
    Field("matches", "documents", "The documents that match it."),
)

SCORE: Final = (
    Field("value", "number", "The score itself."),
    Field("op_name", "text", "What made it."),
    Field("description", "text", "What it means."),
    Field("ref_id", "text", "The id of the document that it compares with."),
)

DATA: Final = RequestField(
    "data", None, "The documents: a list, or an object that holds it as docs. Nothing is no documents."
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
