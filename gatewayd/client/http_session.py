"""
aiohttp's session for HTTP and WebSocket, and what its exceptions mean.

aiohttp comes with docarray in any case, speaks both protocols, and is what the reference uses.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp

from gatewayd.client.errors import BadClient, BadServerFlow, TimedOut, Unreachable
from gatewayd.client.exchange import Options
from gatewayd.client.target import Target


class SessionOf:
    """A target's session: made on the loop when it is first used, closed with its connections."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._session: aiohttp.ClientSession | None = None

    def get(self) -> aiohttp.ClientSession:
        """Raises BadClient for TLS files that cannot be used."""
        if self._session is None:
            context: Any = True
            if self._target.tls:
                try:
                    context = self._target.certificates.context()
                except OSError as error:
                    raise BadClient(f"the TLS files cannot be used: {error}") from error
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context),
                # Every post says its own cookies; one must not see another's.
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self._target.proxy,
                # Time is limited where it is asked for only: an executor may well take an hour.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30.0),
            )
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def headers_of(options: Options) -> dict[str, str]:
    """
    The user's headers, with ``auth`` among them: a pair of user name and password, or aiohttp's own.

    Raises BadClient.
    """
    headers = dict(options.headers)
    auth = options.auth
    if isinstance(auth, aiohttp.BasicAuth):
        headers["Authorization"] = auth.encode()
    elif isinstance(auth, tuple | list) and len(auth) == 2:
        pair = f"{auth[0]}:{auth[1]}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    elif auth is not None:
        raise BadClient("auth: give a pair of user name and password, or aiohttp.BasicAuth")
    return headers


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """aiohttp's exceptions as errors.py's."""
    try:
        yield
    except TimeoutError as error:
        if isinstance(error, TimedOut):
            raise
        raise TimedOut("no answer within the client's timeout") from error
    except aiohttp.InvalidURL as error:
        raise BadClient(f"no URL: {error}") from error
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
        raise Unreachable(str(error) or "the gateway closed the connection") from error
    except aiohttp.ClientError as error:
        raise BadServerFlow(f"the gateway's answer is no HTTP: {error}") from error


@contextlib.asynccontextmanager
async def requested(
    session: aiohttp.ClientSession, method: str, url: str, options: Options, body: bytes | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    """One HTTP request with the options of its post. Raises errors.py's tree."""
    headers = headers_of(options)
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
    with translated():
        async with session.request(
            method,
            url,
            data=body,
            headers=headers,
            cookies=options.cookies or None,
            timeout=aiohttp.ClientTimeout(total=options.timeout_s, sock_connect=30.0),
        ) as answer:
            yield answer
