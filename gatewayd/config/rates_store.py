"""The store that gateways count their rates in together: its address, and how that is written."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote, urlsplit

import attrs

from gatewayd.config.kinds import Refused, ValueKind

PORT: Final = 6379


@attrs.frozen
class RatesStore:
    """
    A Redis. ``username`` and ``password`` are None for a store that asks for none, ``database`` its number.

    With ``tls`` its certificate must have the name ``host``.
    """

    host: str
    port: int = PORT
    database: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)

    @property
    def label(self) -> str:
        """What messages call it: its address without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"


def _store(value: Any) -> RatesStore:
    if not isinstance(value, str):
        raise Refused
    try:
        url = urlsplit(value)
        port = url.port or PORT
    except ValueError:
        raise Refused from None
    database = url.path.removeprefix("/") or "0"
    plain = database.isascii() and database.isdecimal() and not url.query and not url.fragment
    if url.scheme not in ("redis", "rediss") or not url.hostname or not plain:
        raise Refused
    return RatesStore(
        url.hostname,
        port,
        int(database),
        url.scheme == "rediss",
        unquote(url.username) if url.username else None,
        unquote(url.password) if url.password else None,
    )


STORE: Final = ValueKind("an address such as redis://host:6379/0 or rediss://user:password@host", _store)
