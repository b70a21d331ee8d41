"""The probes of health as HTTP answers: 200, or 503 with the reasons as JSON."""

from __future__ import annotations

from typing import Final

import orjson

from gatewayd.errors import SUCCESS, Draining, codes_of
from gatewayd.health import Health, verdict_of
from gatewayd.protocols.http.request import GatewayRequest

_UNAVAILABLE: Final = codes_of(Draining).http
# A proxy's copy would be an answer to another question.
_NEVER_KEPT: Final = ((b"Cache-Control", b"no-store"),)


def answer_probe(http_request: GatewayRequest, probe: str, health: Health, *, withheld: bool) -> None:
    """Answer one of ``gatewayd.health.PROBES``; see ``Verdict.as_json`` for what is ``withheld``."""
    verdict = verdict_of(probe, health)
    body = orjson.dumps(verdict.as_json(withheld=withheld))
    http_request.respond(SUCCESS.http if verdict.ok else _UNAVAILABLE, body, headers=_NEVER_KEPT)
