"""
Documents of the second generation, as methods get them: docarray 0.40 and later (see ``documents.py``).

docarray reads and writes them, with message classes of its own. Errors of pydantic reach whoever has sent the
documents (spec 34/executor.md).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
import pydantic
from docarray import BaseDoc, DocList
from docarray.base_doc import AnyDoc
from docarray.proto import DocListProto, DocProto
from docarray.typing import AnyTensor
from google.protobuf.message import DecodeError

from gatewayd.errors import BadRequest
from gatewayd.executor.forms import Annotations, Form, without_none, yielded
from gatewayd.messages.generations import Generation, generation_of
from gatewayd.messages.wire import HEADER, Malformed, field, split

_NOTHING: Final = (inspect.Parameter.empty, None, type(None))
_DICTS: Final = (dict, Mapping)
_OF_PYDANTIC_2: Final = not pydantic.VERSION.startswith("1.")
# Where the gateway keeps what methods have returned as dicts: no parameter of a client's.
_RESULTS: Final = "__results__"


class LegacyDocumentJina(AnyDoc):  # type: ignore[misc, unused-ignore]
    """
    What a method without annotations gets: the fields of the first generation, and any others.

    The name is what gateways of the reference know it by.
    """

    tensor: AnyTensor | None = None
    chunks: DocList[LegacyDocumentJina] | None = None
    matches: DocList[LegacyDocumentJina] | None = None
    blob: bytes | None = None
    text: str | None = None
    url: str | None = None
    embedding: AnyTensor | None = None
    tags: dict[str, Any] = {}  # noqa: RUF012  # pydantic copies it
    scores: dict[str, Any] | None = None

    @classmethod
    def _get_field_annotation(cls, field: str) -> Any:
        # docarray asks for it when a field arrives. AnyDoc says of all fields that they have no type.
        return super(AnyDoc, cls)._get_field_annotation(field) if field in cls._docarray_fields() else AnyDoc

    @classmethod
    def _get_field_annotation_array(cls, field: str) -> Any:
        return super(AnyDoc, cls)._get_field_annotation(field) if field in cls._docarray_fields() else DocList


if _OF_PYDANTIC_2:
    LegacyDocumentJina.model_rebuild()
else:
    LegacyDocumentJina.update_forward_refs()


class FirstGeneration(BadRequest):
    """Documents in the format of docarray 0.21."""

    def __init__(self) -> None:
        super().__init__(
            "the documents are in the format of docarray 0.21, and this executor takes those of docarray "
            "0.40 and later: install docarray>=0.40, and a Jina that speaks it, where the request is made"
        )


def typed(form: Form, annotations: Annotations, where: str) -> Form:
    """``form`` with the types of the annotations. Raises TypeError for some that are none of documents."""
    given, returned = annotations.documents, yielded(annotations.returned)
    if given in _NOTHING:
        input_ = LegacyDocumentJina
    else:
        input_ = _document_class(
            given, form, f"{where}: {'doc' if form.single else 'docs'} is annotated with"
        )
    returned = without_none(returned)
    if returned in _NOTHING or returned in _DICTS or getattr(returned, "__origin__", None) in _DICTS:
        output = input_
    else:
        output = _document_class(returned, form, f"{where}: what it {_gives(form)} is annotated with")
    model = without_none(annotations.parameters)
    is_model = isinstance(model, type) and issubclass(model, pydantic.BaseModel)
    return attrs.evolve(form, input=input_, output=output, parameters=model if is_model else None)


def _gives(form: Form) -> str:
    return "yields" if form.streams else "returns"


def _document_class(annotation: Any, form: Form, what: str) -> Any:
    listed = getattr(annotation, "__origin__", annotation)
    is_list = isinstance(listed, type) and issubclass(listed, DocList)
    # A decorator's schema may be of either form.
    if is_list and not form.single:
        found = getattr(listed, "doc_type", None)
        return found if annotation is not DocList and found is not None else LegacyDocumentJina
    if isinstance(annotation, type) and issubclass(annotation, BaseDoc):
        if form.single:
            return annotation
        raise TypeError(f"{what} {annotation.__name__}: write DocList[{annotation.__name__}]")
    shown = annotation.__name__ if isinstance(annotation, type) else annotation
    wanted = "a class of documents (a BaseDoc)" if form.single else "DocList[...] of a class of documents"
    raise TypeError(f"{what} {shown}, which is not {wanted}")


class SecondDocuments:
    """``Documents`` of the classes that methods are annotated with."""

    array = "DocList"
    document = "BaseDoc"
    has_array_types = False

    def read(self, data: bytes, form: Form) -> Any:
        of_class = DocList[form.input]
        if not data:
            return of_class()
        _check(data)
        # As in document_arrays: the fields have the numbers of a message's header and parameters.
        docs, docs_bytes, _, _ = split(data)
        if docs_bytes:
            if docs_bytes[0] != HEADER:
                raise Malformed(
                    "docs_bytes holds documents in a form that is not read here; send them as docs, or "
                    "serialised with protocol='protobuf-array'"
                )
            docs = docs_bytes
        try:
            return of_class.from_protobuf(DocListProto.FromString(docs))
        except DecodeError as error:
            raise Malformed(f"the documents are not a DocListProto: {error}") from error

    def read_one(self, data: bytes, form: Form) -> Any:
        _check(b"".join(field(HEADER, b"".join(field(HEADER, data)))))
        try:
            return form.input.from_protobuf(DocProto.FromString(data))
        except DecodeError as error:
            raise Malformed(f"the document is not a DocProto: {error}") from error

    def write(self, array: Any, array_type: Any) -> bytes:
        return b"".join(field(HEADER, array.to_protobuf().SerializeToString()))

    def write_one(self, document: Any) -> bytes:
        written: bytes = document.to_protobuf().SerializeToString()
        return written

    def array_of(self, documents: Iterable[Any], form: Form) -> Any:
        return DocList[form.input](documents)

    def answers_of(self, documents: Iterable[Any]) -> Any:
        return DocList[BaseDoc](documents)

    def is_array(self, value: object) -> bool:
        return isinstance(value, DocList)

    def is_document(self, value: object) -> bool:
        return isinstance(value, BaseDoc)

    def misfit(self, value: object, form: Form) -> str | None:
        if isinstance(value, form.output):
            return None
        given, wanted = type(value).__name__, form.output.__name__
        return f"output document type {given} does not match the endpoint output type {wanted}"

    def parameters(self, form: Form, parameters: Mapping[str, Any]) -> Any:
        if form.parameters is None:
            return parameters
        return form.parameters(**{key: value for key, value in parameters.items() if key != _RESULTS})

    def schemas(self, forms: Mapping[str, Form]) -> dict[str, Any]:
        return {
            endpoint: {
                "input": _schema(form.input),
                "output": _schema(form.output),
                "is_generator": form.streams,
                "is_singleton_doc": form.single,
                "parameters": (
                    {"name": None, "model": None} if form.parameters is None else _schema(form.parameters)
                ),
            }
            for endpoint, form in forms.items()
        }


def _check(data: bytes) -> None:
    """Raises FirstGeneration for a DataContentProto with documents of it."""
    if generation_of(data) is Generation.FIRST:
        raise FirstGeneration


def _schema(cls: Any) -> dict[str, Any]:
    model = cls.model_json_schema() if _OF_PYDANTIC_2 else cls.schema()
    return {"name": cls.__name__, "model": model}
