"""Documents of docarray 0.30 and later are distinguished from those of docarray 0.21 by their bytes."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.messages.generations import ForeignDocuments, Generation, check_generation, generation_of
from gatewayd.messages.methods import SINGLE, STREAM
from gatewayd.messages.request import Request
from gatewayd.messages.rope import Rope
from gatewayd.messages.wire import decode_request, encode_request, field, split
from gatewayd.pb import DataContentProto, DocumentProto
from tests.paths import GOLDEN, GOLDEN34

RECORDED = sorted((GOLDEN / "grpc").glob("*_re[qs]*.bin"))
CONVERSATIONS = json.loads((GOLDEN34 / "grpc" / "manifest.json").read_text())
# Those that carry documents, whether in a request of their own or among several.
TYPED_REQUESTS = sorted(
    GOLDEN34 / "grpc" / request["file"]
    for conversation in CONVERSATIONS
    if conversation["method"] in (SINGLE, STREAM)
    for request in conversation["requests"]
    if any(request["decoded"].get("data", {}).get("docs", {}).get("docs", ()))
)
# DocListProto, its first DocProto, and in it an entry {key: "id", value: {text: "a", type: "id"}}.
ENTRY = b"\x0a\x0d" + b"\x0a\x02id" + b"\x12\x07" + b"\x0a\x01a" + b"\x6a\x02id"
TYPED = b"\x0a\x11" + b"\x0a\x0f" + ENTRY


@pytest.mark.parametrize("before", [b"", b"\x0a\x00", b"\x0a\x00\x0a\x00"])
def test_a_typed_document_after_empty_ones_is_refused(before: bytes) -> None:
    documents = before + TYPED[2:]
    content = before + bytes((0x0A, len(documents))) + documents
    with pytest.raises(ForeignDocuments):
        check_generation(content)


def test_a_typed_document_is_refused_by_name() -> None:
    with pytest.raises(ForeignDocuments, match=r"docarray 0\.30 and later.*docarray<0\.30"):
        check_generation(TYPED)


@pytest.mark.parametrize("path", TYPED_REQUESTS, ids=lambda path: path.name)
def test_recorded_requests_of_the_second_generation_are_refused(path: Path) -> None:
    documents = decode_request(path.read_bytes()).documents
    check_generation(documents, Generation.SECOND)
    with pytest.raises(ForeignDocuments):
        check_generation(documents)


def test_a_request_with_one_is_refused() -> None:
    with pytest.raises(ForeignDocuments):
        check_generation(decode_request(encode_request(Request("r", "/", documents=TYPED))).documents)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_every_recorded_message_of_the_first_generation_passes(path: Path) -> None:
    _, _, _, documents = split(path.read_bytes())
    check_generation(documents or b"")
    read = DataContentProto.FromString(documents or b"").docs.docs
    if next((each for each in read if each.ByteSize()), None) is not None:
        with pytest.raises(ForeignDocuments, match=r"docarray 0\.21.*docarray 0\.30.*docarray>=0\.40"):
            check_generation(documents or b"", Generation.SECOND)


@given(st.builds(DocumentProto, id=st.text(), text=st.text(), blob=st.none() | st.binary()))
def test_no_document_of_the_first_generation_is_taken_for_one_of_the_second(document: DocumentProto) -> None:
    content = DataContentProto()
    content.docs.docs.append(document)
    check_generation(content.SerializeToString())
    # Every byte of an id is a client's; only one that begins as an entry does could be taken for one.
    if document.ByteSize() and not document.id.startswith("\n"):
        with pytest.raises(ForeignDocuments):
            check_generation(content.SerializeToString(), Generation.SECOND)


@given(st.integers(0, len(TYPED) - 1))
def test_a_message_that_is_cut_off_is_left_to_its_parser(end: int) -> None:
    check_generation(TYPED[:end])
    check_generation(TYPED[:end], Generation.SECOND)


@given(st.binary(max_size=60))
def test_any_bytes_can_be_looked_at(content: bytes) -> None:
    try:
        check_generation(b"\x0a" + content)
    except ForeignDocuments:
        assert len(content) > 8
    else:
        with contextlib.suppress(ForeignDocuments):
            check_generation(b"\x0a" + content, Generation.SECOND)


@pytest.mark.parametrize("content", [b"", b"\x0a\x00", b"\x0a\x02\x0a\x00", b"\x12\x02\x08\x01", TYPED])
def test_no_documents_empty_ones_and_typed_ones_pass_where_the_second_is_served(content: bytes) -> None:
    check_generation(content, Generation.SECOND)


def test_empty_documents_are_passed_over_as_far_as_that_is_cheap() -> None:
    empty = b"\x0a\0" * 5_000_000
    began = time.process_time()
    for content in (empty, b"".join(field(0x0A, empty)), Rope([empty[:100_000]] * 100)):
        assert generation_of(content) is None
    assert time.process_time() - began < 0.5  # it took eight seconds
