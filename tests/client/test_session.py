"""aiohttp's session ends with its client, also for a post that is still under way."""

from __future__ import annotations

import asyncio

import pytest

from gatewayd.client.address import Certificates, parse_address
from gatewayd.client.errors import Unreachable
from gatewayd.client.transports.session import HttpSession


def test_no_session_is_made_after_the_end() -> None:
    async def use() -> None:
        session = HttpSession(parse_address("localhost", 1, "http", None, Certificates()))
        first = session.get()
        assert session.get() is first
        await session.close()
        assert first.closed
        with pytest.raises(Unreachable, match="closed"):
            session.get()

    asyncio.run(use())
