"""Where a Client connects: what its keywords and its address say together."""

import pytest

from gatewayd.client.client import Client


@pytest.mark.parametrize(
    ("keywords", "found"),
    [
        ({}, ("0.0.0.0", 80, "grpc", False)),
        ({"port": 12345}, ("0.0.0.0", 12345, "grpc", False)),
        ({"port": "12345"}, ("0.0.0.0", 12345, "grpc", False)),
        ({"tls": True}, ("0.0.0.0", 443, "grpc", True)),
        ({"protocol": "HTTP"}, ("0.0.0.0", 80, "http", False)),
        ({"protocol": "WebSocket"}, ("0.0.0.0", 80, "websocket", False)),
        ({"host": "example.org:81"}, ("example.org", 81, "grpc", False)),
        ({"host": "example.org/"}, ("example.org", 80, "grpc", False)),
        ({"host": "grpc://example.org"}, ("example.org", 80, "grpc", False)),
        ({"host": "grpcs://example.org"}, ("example.org", 443, "grpc", True)),
        ({"host": "http://example.org:8080/"}, ("example.org", 8080, "http", False)),
        ({"host": "https://example.org"}, ("example.org", 443, "http", True)),
        ({"host": "ws://example.org"}, ("example.org", 80, "websocket", False)),
        ({"host": "wss://example.org:444"}, ("example.org", 444, "websocket", True)),
        ({"host": "http://example.org", "tls": False}, ("example.org", 80, "http", False)),
        ({"host": "::1", "port": 5}, ("::1", 5, "grpc", False)),
        ({"host": "http://[::1]:5"}, ("::1", 5, "http", False)),
        ({"tls_ca_certfile": "ca.pem", "port": 5}, ("0.0.0.0", 5, "grpc", True)),
    ],
)
def test_what_is_said_is_understood(keywords, found):
    client = Client(**keywords)

    assert (client.host, client.port, client.protocol, client.tls) == found


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"host": "http://x:1", "port": 1}, "You can't have two definitions of port: 1 in host, port=1"),
        ({"host": "http://x", "protocol": "grpc"}, "You can't have two definitions of protocol"),
        ({"host": "https://x", "tls": True}, "You can't have two definitions of tls"),
        ({"host": "http://x", "tls": True}, "You can't have two definitions of tls"),
        ({"host": "ftp://x"}, "'ftp' is not one of grpc"),
        ({"protocol": "graphql"}, "protocol: 'graphql' is not one of grpc, http, websocket"),
        ({"port": "eighty"}, "port: 'eighty' is no port number"),
        ({"port": 70000}, "port: 70000 is not between"),
        ({"host": "x:99999"}, "is no address"),
        ({"host": "http://x/path"}, "has a path"),
        ({"tls_ca_certfile": "ca.pem", "tls": False}, "certificates are given, but"),
        ({"tls_keyfile": "key.pem"}, "a key needs its certificate"),
    ],
)
def test_what_contradicts_itself_is_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Client(**keywords)


def test_keywords_for_logs_and_telemetry_have_no_effect():
    assert Client(log_config="x", suppress_root_logging=True, tracing=False, metrics=False).port == 80


def test_a_misspelt_keyword_is_refused():
    with pytest.raises(TypeError, match="no keyword prot"):
        Client(prot=5)


def test_a_client_says_where_it_connects():
    assert repr(Client(host="wss://x:1", asyncio=True)) == "<AsyncClient of x:1 over websocket with TLS>"
