"""
gRPC's server reflection, for a server of our own.

The messages of its versions v1 and v1alpha are the same on the wire, so those of v1alpha serve both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from gatewayd.rpc.server.call import ServerCall, Streaming, Unary
from gatewayd.rpc.server.small import MAX_BYTES, Unreadable, read_small

V1: Final = "grpc.reflection.v1.ServerReflection"
V1_ALPHA: Final = "grpc.reflection.v1alpha.ServerReflection"

# The numbers of gRPC's status codes.
_INVALID_ARGUMENT: Final = (3, "invalid argument")
_NOT_FOUND: Final = (5, "not found")


class Reflection:
    """The ``services`` of a server, and the types of ``pool``."""

    def __init__(self, services: Iterable[str], pool: Any) -> None:
        self.show(services, pool)

    def show(self, services: Iterable[str], pool: Any) -> None:
        """Have these from now on."""
        self._services = tuple(sorted(services))
        self._pool = pool

    def methods(self) -> dict[str, Unary | Streaming]:
        """The method of either version by its path."""
        streaming = Streaming(lambda call: _Questions(self, call), MAX_BYTES)
        return {f"/{version}/ServerReflectionInfo": streaming for version in (V1, V1_ALPHA)}

    def answer(self, question: Any) -> Any:
        """A ServerReflectionResponse."""
        answer = reflection_pb2.ServerReflectionResponse(valid_host=question.host, original_request=question)
        try:
            self._fill(answer, question)
        except KeyError:
            code, text = _NOT_FOUND
            answer.error_response.error_code, answer.error_response.error_message = code, text
        return answer

    def _fill(self, answer: Any, question: Any) -> None:
        pool, kind = self._pool, question.WhichOneof("message_request")
        if kind == "list_services":
            for name in self._services:
                answer.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            _add_files(answer, pool.FindFileByName(question.file_by_filename))
        elif kind == "file_containing_symbol":
            _add_files(answer, pool.FindFileContainingSymbol(question.file_containing_symbol))
        elif kind == "file_containing_extension":
            asked = question.file_containing_extension
            message = pool.FindMessageTypeByName(asked.containing_type)
            _add_files(answer, pool.FindExtensionByNumber(message, asked.extension_number).file)
        elif kind == "all_extension_numbers_of_type":
            message = pool.FindMessageTypeByName(question.all_extension_numbers_of_type)
            numbers = answer.all_extension_numbers_response
            numbers.base_type_name = message.full_name
            numbers.extension_number.extend(sorted(each.number for each in pool.FindAllExtensions(message)))
        else:
            code, text = _INVALID_ARGUMENT
            answer.error_response.error_code, answer.error_response.error_message = code, text


def _add_files(answer: Any, wanted: FileDescriptor) -> None:
    """The file, and all that it imports."""
    files: dict[str, FileDescriptor] = {}
    missing = [wanted]
    while missing:
        file = missing.pop(0)
        if file.name not in files:
            files[file.name] = file
            missing += file.dependencies
    for file in files.values():
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        answer.file_descriptor_response.file_descriptor_proto.append(proto.SerializeToString())


class _Questions:
    """One client's questions, answered one at a time (a ``MessageHandler``)."""

    def __init__(self, reflection: Reflection, call: ServerCall) -> None:
        self._reflection = reflection
        self._call = call
        self._sending = False
        self._half_closed = False

    def on_message(self, message: bytes, compressed: bool) -> None:
        try:
            question = read_small(reflection_pb2.ServerReflectionRequest, message, compressed)
        except Unreadable as error:
            self._call.fail("INVALID_ARGUMENT", str(error))
            return
        if not self._call.send(self._reflection.answer(question).SerializeToString()):
            self._sending = True
            self._call.pause_reading()

    def on_half_closed(self) -> None:
        self._half_closed = True
        if not self._sending:
            self._call.finish()

    def on_sent(self) -> None:
        self._sending = False
        self._call.resume_reading()

    def on_cancelled(self) -> None:
        """Nothing is under way."""
