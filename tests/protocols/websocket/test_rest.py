"""What an open connection keeps while nothing is under way."""

from typing import Any

from autobahn.websocket.protocol import WebSocketServerProtocol

from gatewayd.protocols.websocket.rest import (
    AT_REST,
    OF_THE_HANDSHAKE,
    UNHEARD,
    kept_at_rest,
    with_options,
    with_rest,
)


class Options:
    """A factory with Autobahn's options, each its own name; one is a function."""

    def __getattr__(self, name: str) -> str:
        return name

    def perMessageCompressionAccept(self, offers: object) -> object:
        return offers


def test_what_differs_from_rest_is_kept():
    attributes = {"failedByMe": True, "closedByMe": False, "remoteCloseCode": 1000, "data": b"x", "state": 3}

    assert kept_at_rest(attributes) == {"failedByMe": True, "remoteCloseCode": 1000, "data": b"x", "state": 3}


def test_nothing_of_the_handshake_is_kept():
    assert kept_at_rest(dict.fromkeys(OF_THE_HANDSHAKE, "something")) == {}


def test_a_value_that_is_only_equal_to_the_one_at_rest_is_kept():
    assert kept_at_rest({"current_frame": 0, "failedByMe": 0}) == {"current_frame": 0, "failedByMe": 0}


def test_a_class_has_what_its_instances_let_go():
    class Session:
        pass

    session: Any = with_rest(Session)()

    assert {name: getattr(session, name) for name in AT_REST} == dict(AT_REST)


def test_sessions_share_the_options_of_their_factory():
    class Session:
        pass

    factory = Options()
    session: Any = with_options(Session, factory)()

    assert all(hasattr(session, name) for name in WebSocketServerProtocol.CONFIG_ATTRS)
    assert session.autoPingInterval == "autoPingInterval"
    assert session.perMessageCompressionAccept("offers") == "offers"
    assert vars(session) == {}


def test_nobody_hears_of_the_beginning_and_the_end():
    assert UNHEARD.callback(None) is None


def test_all_that_is_at_rest_is_made_by_autobahn():
    """A release of Autobahn that makes something else is noticed here."""
    made = {name for name in dir(WebSocketServerProtocol) if not name.startswith("__")}
    for cls in WebSocketServerProtocol.__mro__:
        for function in vars(cls).values():
            made |= set(getattr(getattr(function, "__code__", None), "co_names", ()))

    assert made >= AT_REST.keys()
    assert made >= OF_THE_HANDSHAKE
