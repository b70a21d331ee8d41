"""The executor behind the gateway that other libraries' clients call."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

from gatewayd import Executor, requests


class Answers(Executor):
    """
    Gives documents and headers back; ``/sleep`` takes the "seconds" it gets.

    Each request that sleeps makes a file in ``folder`` when it begins.
    """

    def __init__(self, folder: str, **more: Any) -> None:
        super().__init__(**more)
        self.folder = Path(folder)

    @requests
    async def echo(self, headers: Any, response_headers: Any, **_: Any) -> None:
        response_headers.update(headers)

    @requests(on="/sleep")
    async def sleep(self, parameters: Any, **_: Any) -> None:
        (self.folder / uuid.uuid4().hex).touch()
        await asyncio.sleep(parameters["seconds"])
