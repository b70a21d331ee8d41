"""
The message classes whose contents differ in the second generation of documents, in a pool of their own.

Headers, parameters, routes and status are the same bytes in both: those of ``gatewayd.pb`` serve. A pool of
its own, because both generations claim the names ``docarray.proto`` and ``jina.proto`` (spec 34/wire.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, empty_pb2, message_factory, struct_pb2, timestamp_pb2

from gatewayd.pb.second_descriptors import FILES

POOL = descriptor_pool.DescriptorPool()
for _wellknown in (struct_pb2, timestamp_pb2, empty_pb2):
    POOL.AddSerializedFile(_wellknown.DESCRIPTOR.serialized_pb)
for _name in ("docarray.proto", "jina.proto"):
    POOL.AddSerializedFile(FILES[_name])


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


if TYPE_CHECKING:
    from gatewayd.pb.docarray_second_pb2 import (
        DenseNdArrayProto,
        DictOfAnyProto,
        DocListProto,
        DocProto,
        ListOfAnyProto,
        NdArrayProto,
        NodeProto,
    )
    from gatewayd.pb.jina_second_pb2 import DataRequestProto, EndpointsProto, SingleDocumentRequestProto

    DataContentProto = DataRequestProto.DataContentProto
else:
    DenseNdArrayProto = _message("docarray.DenseNdArrayProto")
    NdArrayProto = _message("docarray.NdArrayProto")
    NodeProto = _message("docarray.NodeProto")
    DocProto = _message("docarray.DocProto")
    DocListProto = _message("docarray.DocListProto")
    ListOfAnyProto = _message("docarray.ListOfAnyProto")
    DictOfAnyProto = _message("docarray.DictOfAnyProto")
    DataRequestProto = _message("jina.DataRequestProto")
    DataContentProto = _message("jina.DataRequestProto.DataContentProto")
    EndpointsProto = _message("jina.EndpointsProto")
    SingleDocumentRequestProto = _message("jina.SingleDocumentRequestProto")

__all__ = [
    "POOL",
    "DataContentProto",
    "DataRequestProto",
    "DenseNdArrayProto",
    "DictOfAnyProto",
    "DocListProto",
    "DocProto",
    "EndpointsProto",
    "ListOfAnyProto",
    "NdArrayProto",
    "NodeProto",
    "SingleDocumentRequestProto",
]
