"""
permessage-deflate (RFC 7692) for WebSocket answers, and which offers of it to accept.

Each answer is compressed independently, without context takeover: that saves fewer bytes, but large answers
can be compressed in a pool thread in any order, and an idle connection holds no compressor. Clients may use
context takeover; Autobahn inflates their messages, up to the limit on messages.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Any, Final

from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept

_TAIL_BYTES: Final = 4  # 00 00 ff ff, which the receiver puts back (RFC 7692 section 7.2.1)


_PARAMETER: Final = re.compile(
    r"((server|client)_no_context_takeover|(server_max_window_bits=|client_max_window_bits(=|$))"
    r'("?(9|1[0-5])"?)?)'
)


def usable_offers(header: str) -> str:
    """
    The members of a Sec-WebSocket-Extensions header that can be accepted.

    RFC 7692 section 5.1 requires declining the others; Autobahn would refuse the connection.
    """
    return ", ".join(offer for each in header.split(",") if _is_usable(offer := each.strip()))


def _is_usable(offer: str) -> bool:
    name, *parameters = (part.strip() for part in offer.split(";"))
    keys = [parameter.partition("=")[0] for parameter in parameters]
    return (
        name == "permessage-deflate"
        and len(keys) == len(set(keys))
        and all(_PARAMETER.fullmatch(parameter) for parameter in parameters)
        and "server_max_window_bits=" not in parameters
        and "client_max_window_bits=" not in parameters
    )


def accept_deflate(offers: Iterable[Any]) -> Any:
    """The acceptance of the first offer of permessage-deflate; None without one."""
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None


def deflated(payload: bytes, window_bits: int) -> bytes | None:
    """
    The payload of a frame with RSV1 set; None if compressing saves nothing.

    ``window_bits`` is the size of the client's window, 9 to 15.
    """
    stream = zlib.compressobj(1, zlib.DEFLATED, -window_bits)
    compressed = stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)
    return compressed[:-_TAIL_BYTES] if len(compressed) - _TAIL_BYTES < len(payload) else None
