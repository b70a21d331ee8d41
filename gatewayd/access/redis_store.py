"""
Counts rates in a Redis that several gateways share, with its clock. Reactor thread only.

    connecting ──(a trial is answered)──> up ──(lost, or too late too often)──> connecting

While it is not up, whoever asks is told so at once. The protocol is that of ``txredisapi``
(docs/decisions/shared-rates.md), which is imported when a store is named.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.access.rates import Bucket
from gatewayd.backoff import Backoff
from gatewayd.clocks import Connector, Timer
from gatewayd.config.rates_store import RatesStore
from gatewayd.tls.credentials import TlsFiles, UnusableTlsFile
from gatewayd.tls.files import load_credentials
from gatewayd.tls.outgoing import CallTls

log = Logger()

CONNECT_S: Final = 5.0
# So many answers in a row that come too late, or are errors, and it is given up until it answers again.
MOST_FAILURES: Final = 3
_NO_FILES: Final = TlsFiles(())
_UNTRUSTED: Final = "certificate verify failed"  # OpenSSL's words, which do not say why
_AGAIN: Final = Backoff(0.1, ceiling_s=5.0, low=0.8, high=1.2)

# A bucket is one number, the moment when it will be full again, in microseconds of the store's clock: it need
# not be kept for longer than that. All of them are taken from, or none, as by ``rates.Rates``.
SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local missing, longest, refusing = {}, 0, 0
for i, key in ipairs(KEYS) do
  local taken, size = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local before = (tonumber(redis.call('GET', key) or '0') or 0) - now
  -- No more than everything is missing, even where the clock was put back.
  missing[i] = math.min(math.max(before, 0), size) + taken
  local wait = missing[i] - size
  if wait > 1 and wait > longest then
    longest, refusing = wait, i
  end
end
if refusing > 0 then
  return {refusing, math.ceil(longest)}
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, string.format('%.3f', now + missing[i]), 'PX', math.ceil(missing[i] / 1000) + 1)
end
return {0, 0}
"""


class StoreLost(Exception):
    """The store has not answered, or not in time; ``str(error)`` says why, without its password."""


class Verdict(NamedTuple):
    """``refusing`` is the index of the bucket that has no room for ``wait_s`` seconds; None if all had."""

    refusing: int | None
    wait_s: float


class RedisStore:
    """
    The connection to ``where``, from ``start`` until ``stop``; restored whenever it is lost.

    An answer may take ``timeout_s``. ``protocol_for`` makes a ``txredisapi.RedisProtocol``. ``files`` say
    whom it trusts over TLS, and what it shows; they are read for each connection, as they may be renewed.
    """

    def __init__(
        self,
        where: RatesStore,
        reactor: Connector,
        timeout_s: float,
        dice: Callable[[], float] = random.random,
        protocol_for: Callable[[RatesStore], Any] | None = None,
        files: TlsFiles = _NO_FILES,
    ) -> None:
        self.up = False
        self._where = where
        self._files = files
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._dice = dice
        self._protocol_for = protocol_for or _protocol_for
        self._protocol: Any = None  # of txredisapi, once it is connected and has taken the password
        self._connecting: Deferred[Any] | None = None
        self._failures = 0  # answers in a row
        self._attempts = 0  # to connect, since it was up
        self._timer: Timer | None = None
        self._told = False  # that it is lost
        self._stopped = True

    @property
    def label(self) -> str:
        """Its address, without a password."""
        return self._where.label

    def start(self) -> None:
        """Connect, and stay connected."""
        self._stopped = False
        # A process that starts has work of many seconds before its reactor sees anything of a connection.
        self._timer = self._reactor.callLater(0, self._connect)

    def stop(self) -> None:
        """Hang up."""
        self._stopped = True
        self.up = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._protocol is not None:
            self._protocol.transport.abortConnection()

    def take(self, buckets: Sequence[tuple[str, Bucket, float]]) -> Deferred[Verdict]:
        """
        Take so much from each of the buckets, by their keys, if all of them have room.

        Fails with StoreLost. Cancelling it does not give back what is taken.
        """
        answer: Deferred[Verdict] = Deferred(lambda _: None)
        if not self.up:
            answer.errback(StoreLost(f"{self.label} cannot be reached"))
        else:
            self._ask(buckets, answer)
        return answer

    # -- asking --------------------------------------------------------------------------------------

    def _ask(self, buckets: Sequence[tuple[str, Bucket, float]], answer: Deferred[Verdict]) -> None:
        protocol = self._protocol
        numbers: list[str] = []
        for _, bucket, amount in buckets:
            each_us = 1e6 * bucket.per_s / bucket.amount
            numbers += [f"{amount * each_us:.3f}", f"{bucket.size * each_us:.3f}"]
        timer: Timer

        def due() -> None:
            # A reactor that was busy has not read yet what has come in time: it does so before this is over.
            nonlocal timer
            timer = self._reactor.callLater(0, self._late, protocol, answer)

        timer = self._reactor.callLater(self._timeout_s, due)

        def answered(found: Any) -> None:
            # One that is late is no sign that the next will be in time.
            if timer.active():
                timer.cancel()
                self._failures = 0
                if not answer.called:
                    refusing, wait_us = found
                    answer.callback(Verdict(refusing - 1 if refusing else None, wait_us / 1e6))

        def failed(failure: Failure) -> None:
            if timer.active():
                timer.cancel()
                self._failed(protocol, str(failure.value), answer)

        asked = protocol.eval(SCRIPT, [key for key, _, _ in buckets], numbers)
        asked.addCallbacks(answered, failed)
        asked.addErrback(lambda failure: log.failure("asking the store of the rates", failure=failure))

    def _late(self, protocol: Any, answer: Deferred[Verdict]) -> None:
        self._failed(protocol, f"no answer within {1000 * self._timeout_s:g} ms", answer)

    def _failed(self, protocol: Any, why: str, answer: Deferred[Verdict]) -> None:
        self._failures += 1
        if self._failures >= MOST_FAILURES and protocol is self._protocol:
            self._give_up(why)
        if not answer.called:
            answer.errback(StoreLost(f"{self.label}: {why}"))

    # -- connecting ----------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._timer = None
        self._attempts += 1
        where = self._where
        protocol = self._protocol_for(where)
        factory = _Connection(protocol, where.host)
        protocol.whenConnected().addCallback(self._try)
        protocol.whenDisconnected().addCallback(lambda _: self._lost(protocol, factory.why))
        self._timer = self._reactor.callLater(CONNECT_S, self._took_too_long, protocol)
        endpoint: Any = HostnameEndpoint(
            self._reactor, where.host, where.port, CONNECT_S + 1.0, attemptDelay=0.1
        )
        if where.tls:
            try:
                tls = CallTls(None, load_credentials(self._files), protocols=()).connection_to(where.host)
            except UnusableTlsFile as error:  # it was usable when the Flow file was read
                self._lost(protocol, str(error))
                return
            except UnicodeError as error:
                self._lost(protocol, f"{where.host!r} cannot be the name of a certificate: {error}")
                return
            endpoint = wrapClientTLS(tls, endpoint)
        connecting = self._connecting = endpoint.connect(factory)
        connecting.addCallbacks(
            lambda _: None, lambda failure: self._lost(protocol, factory.why or failure.getErrorMessage())
        )
        connecting.addErrback(lambda failure: log.failure("connecting", failure=failure))

    def _took_too_long(self, protocol: Any) -> None:
        self._timer = None
        protocol.factory.why = f"no connection within {CONNECT_S:g} s"
        if protocol.transport is not None:
            protocol.transport.abortConnection()
        elif self._connecting is not None:
            self._connecting.cancel()

    def _try(self, protocol: Any) -> None:
        """It is up when it has run the script."""
        self._protocol, self._connecting = protocol, None
        tried = protocol.eval(SCRIPT, [], [])
        tried.addCallbacks(lambda _: self._is_up(protocol), lambda failure: self._refused(protocol, failure))
        tried.addErrback(lambda failure: log.failure("trying the store of the rates", failure=failure))

    def _is_up(self, protocol: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._attempts = self._failures = 0
        self.up = True
        self._told = False
        log.info("rates are counted in {store}", store=self.label)

    def _refused(self, protocol: Any, failure: Failure) -> None:
        """It answers, and runs no scripts; or the connection was lost, which ``_lost`` is told as well."""
        if protocol is self._protocol:
            self._give_up(failure.getErrorMessage())

    def _give_up(self, why: str) -> None:
        protocol = self._protocol
        self._lost(protocol, why)
        protocol.transport.abortConnection()

    def _lost(self, protocol: Any, why: str) -> None:
        """Once for each attempt to connect: later words of the same connection are nothing new."""
        if protocol.factory.over:
            return
        protocol.factory.over = True
        self.up = False
        self._protocol = self._connecting = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._stopped:
            return
        if not self._told:
            self._told = True
            log.warn(
                "{store}, in which rates are counted (gateway.rates_store), cannot be used: {why}. Until it "
                "can, gateway.rates_without_store decides",
                store=self.label,
                why=why.rstrip("."),
            )
        self._timer = self._reactor.callLater(_AGAIN.delay_s(self._attempts, self._dice()), self._connect)


def _protocol_for(where: RatesStore) -> Any:
    """Raises ImportError without txredisapi."""
    return _protocol_class()(password=where.password, username=where.username, dbid=where.database or None)


@functools.cache
def _protocol_class() -> Any:
    from txredisapi import RedisProtocol

    class SaysWhy(RedisProtocol):  # type: ignore[misc]
        """Tells its factory why the connection was lost."""

        def connectionLost(self, why: Failure) -> None:
            self.factory.connection_lost(why)
            RedisProtocol.connectionLost(self, why)

    return SaysWhy


class _Connection(Factory):
    """What txredisapi's protocol wants to tell of itself."""

    noisy = False
    isLazy = False  # its name there

    def __init__(self, protocol: Any, host: str) -> None:
        self.over = False
        self.why = ""
        self._host = host
        self._protocol = protocol
        protocol.factory = self

    def buildProtocol(self, address: object) -> Any:
        return self._protocol

    def connection_lost(self, reason: Failure) -> None:
        """If nobody has said yet why it is of no use, this is why."""
        if not self.why:
            error = reason.value
            self.why = reason.getErrorMessage()
            if isinstance(error, SSL.Error) and error.args and error.args[0]:
                self.why = f"TLS handshake failed: {_in_words(error.args[0][-1][-1])}"
            elif isinstance(error, VerificationError):
                self.why = f"TLS handshake failed: its certificate is for other names than {self._host}"

    def stopTrying(self) -> None:
        """It is for the store to try again."""

    def connectionError(self, why: str) -> None:
        """The password or the database was refused."""
        self.why = why


def _in_words(reason: str) -> str:
    if reason != _UNTRUSTED:
        return reason
    return (
        f"{reason}: no authority that is trusted has signed its certificate, or it has expired; "
        "gateway.rates_store_ca_certfile names the authorities to trust"
    )
