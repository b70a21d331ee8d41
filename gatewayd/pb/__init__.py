"""
The wire contract's message classes, in a descriptor pool of their own.

docarray registers ``docarray.proto`` in protobuf's default pool at import, and the real ``jina``
registers ``jina.proto``; a second registration under those names fails. Our copies therefore live in
``POOL``: any import order works, in one process, and reflection (which is given ``POOL``) still shows
the true names. Messages of ``POOL`` and of the default pool are different classes with the same
bytes: cross between them by serialising.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import (
    any_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
)

from gatewayd.pb.descriptors import FILES

POOL = descriptor_pool.DescriptorPool()
for _wellknown in (struct_pb2, timestamp_pb2, empty_pb2, any_pb2, duration_pb2):
    POOL.AddSerializedFile(_wellknown.DESCRIPTOR.serialized_pb)
for _file in FILES.values():
    POOL.AddSerializedFile(_file)


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


if TYPE_CHECKING:
    from google.protobuf.empty_pb2 import Empty
    from google.protobuf.struct_pb2 import ListValue, Struct, Value
    from google.protobuf.timestamp_pb2 import Timestamp

    from gatewayd.pb.docarray_pb2 import (
        DenseNdArrayProto,
        DocumentArrayProto,
        DocumentProto,
        NamedScoreProto,
        NdArrayProto,
    )
    from gatewayd.pb.jina_pb2 import (
        DataRequestListProto,
        DataRequestProto,
        EndpointsProto,
        HeaderProto,
        JinaInfoProto,
        RouteProto,
        SingleDocumentRequestProto,
        StatusProto,
    )
    from gatewayd.pb.rpc_status_pb2 import RetryInfo
    from gatewayd.pb.rpc_status_pb2 import Status as RpcStatus

    DataContentProto = DataRequestProto.DataContentProto
else:
    Empty = _message("google.protobuf.Empty")
    Struct = _message("google.protobuf.Struct")
    Value = _message("google.protobuf.Value")
    ListValue = _message("google.protobuf.ListValue")
    Timestamp = _message("google.protobuf.Timestamp")
    DenseNdArrayProto = _message("docarray.DenseNdArrayProto")
    NdArrayProto = _message("docarray.NdArrayProto")
    NamedScoreProto = _message("docarray.NamedScoreProto")
    DocumentProto = _message("docarray.DocumentProto")
    DocumentArrayProto = _message("docarray.DocumentArrayProto")
    DataRequestProto = _message("jina.DataRequestProto")
    DataContentProto = _message("jina.DataRequestProto.DataContentProto")
    DataRequestListProto = _message("jina.DataRequestListProto")
    EndpointsProto = _message("jina.EndpointsProto")
    HeaderProto = _message("jina.HeaderProto")
    JinaInfoProto = _message("jina.JinaInfoProto")
    RouteProto = _message("jina.RouteProto")
    SingleDocumentRequestProto = _message("jina.SingleDocumentRequestProto")
    StatusProto = _message("jina.StatusProto")
    RpcStatus = _message("google.rpc.Status")
    RetryInfo = _message("google.rpc.RetryInfo")

__all__ = [
    "POOL",
    "DataContentProto",
    "DataRequestListProto",
    "DataRequestProto",
    "DenseNdArrayProto",
    "DocumentArrayProto",
    "DocumentProto",
    "Empty",
    "EndpointsProto",
    "HeaderProto",
    "JinaInfoProto",
    "ListValue",
    "NamedScoreProto",
    "NdArrayProto",
    "RetryInfo",
    "RouteProto",
    "RpcStatus",
    "SingleDocumentRequestProto",
    "StatusProto",
    "Struct",
    "Timestamp",
    "Value",
]
