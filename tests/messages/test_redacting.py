"""What is left out of recordings."""

from __future__ import annotations

import pytest

from gatewayd.messages.redacting import Redaction, check_rule
from gatewayd.pb import DataRequestProto, StatusProto
from gatewayd.pb.second import DataRequestProto as SecondDataRequestProto


def message() -> DataRequestProto:
    request = DataRequestProto()
    request.header.request_id = "r"
    request.parameters.update({"key": "s3cret", "limit": 3})
    document = request.data.docs.docs.add(id="d", text="s3cret", uri="u")
    document.tags.update({"token": "s3cret", "shop": "a"})
    document.chunks.add(id="c", blob=b"s3cret").matches.add(id="m", text="s3cret")
    return request


def applied(request: DataRequestProto, *rules: str) -> DataRequestProto:
    redaction = Redaction.of(check_rule(rule) for rule in rules)
    assert redaction
    return DataRequestProto.FromString(redaction.applied(request.SerializeToString()))


def test_fields_of_documents_their_chunks_and_matches() -> None:
    found = applied(message(), "text", "blob", "parameters.key", "tags.token")

    (document,) = found.data.docs.docs
    assert b"s3cret" not in found.SerializeToString()
    assert (document.id, document.uri, dict(document.tags)) == ("d", "u", {"shop": "a"})
    assert dict(found.parameters) == {"limit": 3}
    assert document.chunks[0].matches[0].id == "m"


def test_all_parameters() -> None:
    assert not applied(message(), "parameters").HasField("parameters")
    assert not applied(message(), "parameters.*").HasField("parameters")


def test_what_an_executor_raised_may_quote_documents() -> None:
    request = message()
    status = StatusProto(code=StatusProto.ERROR, description="ValueError('s3cret')")
    status.exception.name = "ValueError"
    status.exception.args.append("s3cret")
    status.exception.stacks.append("line with s3cret")
    request.header.status.CopyFrom(status)
    request.routes.add(executor="a").status.CopyFrom(status)

    found = applied(request, "text", "blob", "tags", "parameters")

    assert b"s3cret" not in found.SerializeToString()
    assert found.header.status.exception.name == "ValueError"


def test_pythons_own_serialisation_is_left_out_as_a_whole() -> None:
    request = DataRequestProto()
    request.data.docs_bytes = b"s3cret"

    assert not applied(request, "text").data.docs_bytes
    assert applied(request, "parameters").data.docs_bytes


def test_without_rules_there_is_none() -> None:
    assert not Redaction.of(())


@pytest.mark.parametrize("rule", ["id", "chunks", "colour", "parameters.", "tags.", "fields.", "fields", ""])
def test_no_rule(rule: str) -> None:
    with pytest.raises(ValueError, match=r"no field of documents|a name is missing"):
        check_rule(rule)


def second() -> SecondDataRequestProto:
    request = SecondDataRequestProto()
    fields = request.data.docs.docs.add().data
    fields["id"].text = "d"
    fields["text"].text = "s3cret"
    fields["number"].integer = 5
    fields["vector"].ndarray.dense.buffer = b"s3cret!!"
    fields["vector"].ndarray.dense.dtype = "<f4"
    fields["vector"].ndarray.dense.shape[:] = [2]
    fields["tags"].dict.data["token"].text = "s3cret"
    fields["tags"].dict.data["shop"].text = "a"
    fields["inner"].doc.data["customer"].text = "s3cret"
    fields["several"].doc_array.docs.add().data["customer"].doc.data["name"].text = "s3cret"
    fields["listed"].list.data.add().dict.data["customer"].blob = b"s3cret"
    return request


def test_documents_of_the_second_generation_keep_their_kinds() -> None:
    rules = ("text", "tags.token", "fields.number", "fields.vector", "fields.customer")
    redaction = Redaction.of(check_rule(rule) for rule in rules)

    written = redaction.applied(second().SerializeToString())

    assert b"s3cret" not in written
    (document,) = SecondDataRequestProto.FromString(written).data.docs.docs
    fields = document.data
    assert (fields["id"].text, fields["tags"].dict.data["shop"].text) == ("d", "a")
    assert [fields[name].WhichOneof("content") for name in ("text", "number")] == ["text", "integer"]
    assert fields["number"].integer == 0
    assert (fields["vector"].ndarray.dense.buffer, fields["vector"].ndarray.dense.shape) == (bytes(8), [2])
    assert fields["inner"].doc.data["customer"].WhichOneof("content") == "text"
    assert fields["several"].doc_array.docs[0].data["customer"].WhichOneof("content") == "doc"


def test_rules_that_find_something_are_named() -> None:
    rules = ("text", "blob", "uri", "tags.token", "tags.x", "parameters.key", "parameters.x", "fields.y")
    met: set[str] = set()
    Redaction.of(rules).applied(message().SerializeToString(), met)
    assert met == {"text", "blob", "uri", "tags.token", "parameters.key"}

    met.clear()
    rules = ("text", "blob", "tags.token", "fields.customer", "fields.costumer")
    Redaction.of(rules).applied(second().SerializeToString(), met)
    assert met == {"text", "tags.token", "fields.customer"}

    met.clear()
    Redaction.of(["parameters"]).applied(message().SerializeToString(), met)
    assert met == {"parameters"}


def test_a_field_has_one_name() -> None:
    assert check_rule("fields.text") == "text"
    assert check_rule("fields.customer") == "fields.customer"
