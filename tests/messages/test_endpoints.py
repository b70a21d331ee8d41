"""Which endpoints an executor can be called with."""

from __future__ import annotations

import pytest

from gatewayd.errors import BadRequest
from gatewayd.messages.endpoints import LONGEST, check_endpoint


@pytest.mark.parametrize("endpoint", ["", "/", "/search", "_jina_dry_run_", "/a b~!", "x" * LONGEST])
def test_printable_ascii_is_an_endpoint(endpoint: str) -> None:
    check_endpoint(endpoint)


@pytest.mark.parametrize("endpoint", ["/é", "/☃", "/a\nb", "/\0", "/\x7f", "/\t", "x" * (LONGEST + 1)])
def test_what_metadata_cannot_carry_is_refused_with_its_place(endpoint: str) -> None:
    with pytest.raises(BadRequest, match="execEndpoint ") as caught:
        check_endpoint(endpoint)
    assert caught.value.problems[0]["loc"] == ["body", "execEndpoint"]
    assert str(caught.value).isascii()
