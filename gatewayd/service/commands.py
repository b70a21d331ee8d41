# mypy: disable-error-code="no-untyped-call"
"""
The socket at which the service takes the commands of its own user and of root (``gatewayd.control``).

Signals can ask for the same, but bring no answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from twisted.python.log import callWithContext

from gatewayd.control import EXISTS, LONGEST_BYTES, Answered, address_of, command_in, may_command, peer_of

log = Logger()

_MOST_CONNECTIONS: Final = 16
# How long a connection may take to say what it wants.
_PATIENCE_S: Final = 10.0
# An event without a format has no text, and observers write nothing.
_QUIET: Final = {"log_format": None}

# Each does something, and fires with a text; it may fail with ``refusals``.
Commands = Mapping[str, Callable[[], Deferred[str]]]


class CommandSocket:
    """Listens for commands from ``start`` to ``stop``. Reactor thread only."""

    def __init__(self, reactor: Any, commands: Commands, refusals: tuple[type[Exception], ...]) -> None:
        """``refusals`` are failures of commands whose text is the answer; all others are bugs."""
        self._reactor = reactor
        self._factory = _Factory(commands, refusals)
        self._port: Any = None

    def start(self) -> None:
        """Where there is no such socket, or another process has the name, the log says what is missing."""
        if not EXISTS:
            return
        address = address_of(os.getpid())
        try:
            self._port = callWithContext(_QUIET, self._reactor.listenUNIX, address, self._factory)
        except CannotListenError as error:
            log.warn(
                "gatewayd reload cannot reach this process ({error}); SIGHUP can", error=error.socketError
            )
            return
        self._port._logConnectionLostMsg = lambda: None

    def stop(self) -> Deferred[None]:
        """Take no more commands, and end the connections. Fires when nothing listens any more."""
        port, self._port = self._port, None
        for connection in tuple(self._factory.open):
            connection.transport.loseConnection()
        return succeed(None) if port is None else maybeDeferred(port.stopListening)


class _Factory(ServerFactory):
    noisy = False

    def __init__(self, commands: Commands, refusals: tuple[type[Exception], ...]) -> None:
        self.commands = commands
        self.refusals = refusals
        self.open: set[_Connection] = set()

    def buildProtocol(self, addr: Any) -> _Connection | None:
        return _Connection(self) if len(self.open) < _MOST_CONNECTIONS else None


class _Connection(LineOnlyReceiver, TimeoutMixin):
    """One question and its answer."""

    delimiter = b"\n"
    MAX_LENGTH = LONGEST_BYTES
    transport: Any

    def __init__(self, factory: _Factory) -> None:
        self._factory = factory
        self._was_asked = False

    def connectionMade(self) -> None:
        self._factory.open.add(self)
        if not may_command(peer_of(self.transport.socket)[1]):
            self.transport.loseConnection()
            return
        self.setTimeout(_PATIENCE_S)

    def lineReceived(self, line: bytes) -> None:
        if self._was_asked:
            return
        self._was_asked = True
        self.setTimeout(None)
        try:
            command = self._factory.commands[command_in(line)]
        except ValueError:
            self.transport.loseConnection()
        except KeyError as unknown:
            self._answer(Answered(False, f"there is no command {unknown}"))
        else:
            command().addCallbacks(self._done, self._failed)

    def connectionLost(self, reason: object = None) -> None:
        self.setTimeout(None)
        self._factory.open.discard(self)

    def _done(self, text: str) -> None:
        self._answer(Answered(True, text))

    def _failed(self, failure: Failure) -> None:
        if not failure.check(*self._factory.refusals):
            log.failure("a command failed", failure=failure)
        self._answer(Answered(False, str(failure.value)))

    def _answer(self, answered: Answered) -> None:
        self.transport.write(answered.to_line())
        self.transport.loseConnection()
