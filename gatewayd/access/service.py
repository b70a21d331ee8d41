"""Makes the access control and the guard of a gateway from its settings, and keeps the keys up to date."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from gatewayd.access.authenticator import Authenticator, Tokens
from gatewayd.access.control import AccessControl, Asked
from gatewayd.access.files import KeyFile, Rereading
from gatewayd.access.guard import Engine, Guard
from gatewayd.access.keys import BadKeyFile, KeyRing, ring_in
from gatewayd.access.proxies import Proxies
from gatewayd.access.rules import Rules
from gatewayd.clocks import Reactor
from gatewayd.config.auth import AuthConfig, JwtConfig
from gatewayd.messages.discovery import Endpoints
from gatewayd.offload import Offload


class AccessService:
    """What ``auth`` becomes. Reactor thread only."""

    def __init__(
        self, auth: AuthConfig, reactor: Reactor, offload: Offload, proxies: Proxies | None = None
    ) -> None:
        """Reads the files that it names; blocks. Raises ConfigError, which names the key and the file."""
        self._auth = auth
        self._named = KeyRing.of(auth.api_keys)
        self.access = AccessControl(
            Authenticator(auth, self._named), Rules(auth.rules), _hook_of(auth, reactor), proxies
        )
        files = _files_of(auth, self._take_keys, self._take_tokens)
        for file in files:
            file.load()
        self._rereading = Rereading(files, reactor, offload)

    def guarded(self, engine: Engine, endpoints: Callable[[], Endpoints] = Endpoints) -> Guard:
        """``engine`` for those who may; ``endpoints`` gives those that its executors bind."""
        return Guard(engine, self.access, self._auth.forward_identity, endpoints)

    def start(self) -> None:
        """Look for changes of the files from now on."""
        self._rereading.start()

    def stop(self) -> None:
        self._rereading.stop()

    def _take_keys(self, keys: KeyRing) -> None:
        self._replace(keys=self._named.with_keys(keys))

    def _take_tokens(self, tokens: Tokens) -> None:
        self._replace(tokens=tokens)

    def _replace(self, **changed: Any) -> None:
        assert self.access.authenticator is not None
        self.access.authenticator = attrs.evolve(self.access.authenticator, **changed)


def check_files(auth: AuthConfig) -> None:
    """Read the files that ``auth`` names; blocks. Raises ConfigError, which names the key and the file."""
    for file in _files_of(auth, lambda keys: None, lambda tokens: None):
        file.load()


def _files_of(
    auth: AuthConfig, take_keys: Callable[[KeyRing], None], take_tokens: Callable[[Tokens], None]
) -> list[KeyFile]:
    files = []
    if auth.api_keys_file is not None:
        key = "gateway.auth.api_keys_file"
        files.append(KeyFile(key, auth.api_keys_file, ring_in, take_keys, (BadKeyFile,)))
    if auth.jwt is not None:
        files.append(_token_file(auth.jwt, take_tokens))
    return files


def _token_file(config: JwtConfig, take: Any) -> KeyFile:
    # PyJWT takes a while to import, and most gateways have no tokens.
    from gatewayd.access.tokens import BadTokenKeys, TokenVerifier, key_in, keys_in

    def parse(content: bytes) -> TokenVerifier:
        read = keys_in if config.jwks_file is not None else key_in
        return TokenVerifier(config, read(content, config.algorithms))

    name = "key_file" if config.jwks_file is None else "jwks_file"
    path = config.jwks_file or config.key_file
    assert path is not None, "the loader refuses jwt without a file"
    return KeyFile(f"gateway.auth.jwt.{name}", path, parse, take, (BadTokenKeys,))


def _hook_of(auth: AuthConfig, reactor: Reactor) -> Asked | None:
    if auth.hook is None:
        return None
    from gatewayd.access.hook import Hook, agent_for

    return Hook(auth.hook, agent_for(reactor, auth.hook.timeout_s), reactor)
