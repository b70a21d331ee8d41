"""
What the dispatcher does with serialised documents: count, merge, filter, sort.

Everything takes and gives the bytes of a DataContentProto. Documents are parsed, because what is
done depends on their ids and fields, but arrays inside them stay the bytes they are.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from gatewayd.errors import GatewayError
from gatewayd.pb import DataContentProto


class UnreadableDocuments(GatewayError):
    """Documents that the gateway would have to look into, and cannot; the text says why."""


def parse(documents: bytes) -> DataContentProto:
    """
    The message in ``documents``.

    Raises UnreadableDocuments for what is no DataContentProto, and for ``docs_bytes``: that is a
    Python pickle, and reading one would run whatever code its sender put there.
    """
    try:
        content = DataContentProto.FromString(documents)
    except DecodeError as error:
        raise UnreadableDocuments(f"the documents are malformed: {error}") from error
    if content.HasField("docs_bytes"):
        raise UnreadableDocuments(
            "these documents are serialised by Python (docs_bytes), which the gateway never opens: they can "
            "be read over gRPC and WebSocket bytes, from a Flow without joins and conditions"
        )
    return content
