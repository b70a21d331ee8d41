"""Documents of docarray 0.30 and later are distinguished from those of docarray 0.21 by their bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.messages.generations import ForeignDocuments, check_generation
from gatewayd.messages.request import Request
from gatewayd.messages.wire import decode_request, encode_request, split
from gatewayd.pb import DataContentProto, DocumentProto
from tests.paths import GOLDEN, ROOT

RECORDED = sorted((GOLDEN / "grpc").glob("*_re[qs]*.bin"))
TYPED_REQUESTS = sorted((ROOT / "tests" / "golden34" / "grpc").glob("*_req*.bin"))
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
    with pytest.raises(ForeignDocuments):
        decode_request(path.read_bytes())


def test_a_request_with_one_is_refused() -> None:
    with pytest.raises(ForeignDocuments):
        decode_request(encode_request(Request("r", "/", documents=TYPED)))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_every_recorded_message_of_the_first_generation_passes(path: Path) -> None:
    _, _, _, documents = split(path.read_bytes())
    check_generation(documents or b"")


@given(st.builds(DocumentProto, id=st.text(), text=st.text(), blob=st.none() | st.binary()))
def test_no_document_of_the_first_generation_is_taken_for_one_of_the_second(document: DocumentProto) -> None:
    content = DataContentProto()
    content.docs.docs.append(document)
    check_generation(content.SerializeToString())


@given(st.integers(0, len(TYPED) - 1))
def test_a_message_that_is_cut_off_is_left_to_its_parser(end: int) -> None:
    check_generation(TYPED[:end])


@given(st.binary(max_size=60))
def test_any_bytes_can_be_looked_at(content: bytes) -> None:
    try:
        check_generation(b"\x0a" + content)
    except ForeignDocuments:
        assert len(content) > 8
