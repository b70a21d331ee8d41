"""
aiohttp's session for HTTP and WebSocket, and what its exceptions mean.

aiohttp comes with docarray in any case, speaks both protocols, and is what the reference uses.
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict

from gatewayd.client.address import GatewayAddress
from gatewayd.client.errors import BadClient, BadServerFlow, TimedOut, Unreachable
from gatewayd.client.hints import explained
from gatewayd.client.post import PostOptions
from gatewayd.messages.headers import METADATA_BYTES

_JSON_BODY: Final = {"Content-Type": "application/json"}


class LostConnection(Unreachable, aiohttp.ClientConnectionError):
    """A connection that was made has ended."""


class NoListener(Unreachable, aiohttp.ClientConnectorError):
    """No connection was made, with what aiohttp has to say of it."""

    def __init__(self, details: str, error: aiohttp.ClientConnectorError) -> None:
        aiohttp.ClientConnectorError.__init__(self, error._conn_key, error.os_error)
        Unreachable.__init__(self, details)
        self.errno = error.errno

    def __str__(self) -> str:
        return self.details


class HttpSession:
    """
    An address's session: made on the loop when it is first used, closed with its connections, for good.

    A post that is under way may ask for it after that; a session made then would never be closed.
    """

    def __init__(self, address: GatewayAddress) -> None:
        self.address = address
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def get(self) -> aiohttp.ClientSession:
        """Raises BadClient for TLS files that cannot be used, and Unreachable after ``close``."""
        if self._closed:
            raise Unreachable("the client was closed")
        if self._session is None:
            context: Any = True
            if self.address.tls:
                try:
                    context = self.address.certificates.context()
                except OSError as error:
                    raise BadClient(f"the TLS files cannot be used: {error}") from error
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context),
                # Every post says its own cookies; one must not see another's.
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self.address.proxy,
                # Time is limited where it is asked for only: an executor may well take an hour.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30.0),
                max_field_size=METADATA_BYTES,
            )
        return self._session

    async def close(self) -> None:
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def headers_of(options: PostOptions) -> dict[str, str]:
    """
    The user's headers, with ``auth`` among them: a pair of user name and password, or aiohttp's own.

    Raises BadClient.
    """
    try:
        headers = options.sent_headers()
    except ValueError as error:
        raise BadClient(str(error)) from error
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
def translated(address: GatewayAddress) -> Iterator[None]:
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
        seen = str(error) or "the gateway closed the connection"
        details = explained(seen, address, _ssl_error(error))
        if isinstance(error, aiohttp.ClientConnectorError):
            raise NoListener(details, error) from error
        raise LostConnection(details) from error
    except aiohttp.ClientError as error:
        raise BadServerFlow(explained(f"the gateway's answer is no HTTP: {error}", address)) from error


def _ssl_error(error: Exception) -> BaseException:
    """What is inside aiohttp's exception for a certificate; others as they are."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    return error


@contextlib.asynccontextmanager
async def requested(
    session: HttpSession,
    method: str,
    url: str,
    options: PostOptions,
    body: bytes | None = None,
    headers: Mapping[str, str] = _JSON_BODY,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """
    One HTTP request with the options of its post, whose headers win over ``headers``.

    ``headers`` are sent with a body only. Raises errors.py's tree.
    """
    sent = CIMultiDict(headers if body is not None else {})
    sent.update(headers_of(options))
    with translated(session.address):
        async with session.get().request(
            method,
            url,
            # In pieces: a large body that is bytes would be written at once, and aiohttp warns of that.
            data=None if body is None else io.BytesIO(body),
            headers=sent,
            cookies=options.cookies or None,
            timeout=aiohttp.ClientTimeout(total=options.timeout, sock_connect=30.0),
            server_hostname=session.address.certificates.server_name,
        ) as answer:
            yield answer


def waiting_s(header: str | None) -> float | None:
    """The seconds that Retry-After says; None without it, and where it is a date."""
    return float(header) if header is not None and header.isdecimal() else None
