"""The keywords of ``post``: checked, and carried as one value."""

from __future__ import annotations

import inspect

import attrs
import pytest

from gatewayd import Client, Flow
from gatewayd.client.post import AllPostKeywords, CallKeywords, Post, PostOptions, post_of


@pytest.mark.parametrize(
    ("keywords", "value", "beside"),
    [
        (AllPostKeywords, Post, {"on", "inputs", "return_responses"}),
        (CallKeywords, PostOptions, set()),
    ],
)
def test_what_type_checkers_know_is_what_is_accepted(keywords, value, beside):
    typed = keywords.__required_keys__ | keywords.__optional_keys__

    assert typed | beside == {field.name for field in attrs.fields(value)}


@pytest.mark.parametrize("method", [Client(asyncio=True).post, Client().post, Flow().post])
def test_help_and_completion_see_every_keyword_of_post(method):
    parameters = inspect.signature(method).parameters

    assert parameters.keys() == {field.name for field in attrs.fields(Post)}
    assert list(parameters)[:3] == ["on", "inputs", "on_done"]
    assert (parameters["request_size"].default, parameters["headers"].default) == (100, None)


def test_keywords_up_to_request_size_may_be_given_by_position():
    post = post_of(("/", "x", None, None, print, {"k": 1}, "a", 7), {"timeout": 2.0})

    assert (post.on_always, post.parameters, post.target_executor, post.request_size) == (
        print,
        {"k": 1},
        "a",
        7,
    )


@pytest.mark.parametrize(
    ("positional", "keywords", "error", "message"),
    [
        (("/", "x"), {"inputs": "y"}, TypeError, "got inputs by position and by name"),
        (("/", *[None] * 8), {}, TypeError, "at most 8 positional arguments, not 9"),
        ((1,), {}, TypeError, "'on' must be"),
        (("/",), {"max_attempts": 0}, ValueError, "'max_attempts' must be >= 1"),
        (
            ("/",),
            {"compression": "brotli"},
            ValueError,
            "'brotli' is not one of NoCompression, Deflate, Gzip",
        ),
    ],
)
def test_what_post_does_not_accept_is_refused_at_the_call(positional, keywords, error, message):
    with pytest.raises(error, match=message):
        post_of(positional, keywords)


def test_metadata_asks_the_gateway_for_order_and_bounds():
    post = Post(on="/", metadata={"k": "v"}, results_in_order=True, prefetch=5)

    assert post.sent_metadata() == (("k", "v"), ("__results_in_order__", "true"), ("__prefetch__", "5"))


def test_headers_and_metadata_are_sent_over_every_protocol():
    post = Post(
        on="/",
        metadata=[("k", "v"), ("grpc-x", "own"), ("r-bin", b"\xff")],
        headers={"X-Tenant": "a", "Content-Type": "text/plain", "r-bin": "AQ=="},
    )

    assert post.sent_metadata() == (*post.metadata, ("x-tenant", "a"), ("r-bin", b"\x01"))
    assert post.sent_headers() == {"k": "v", "r-bin": "AQ==", "X-Tenant": "a", "Content-Type": "text/plain"}


@pytest.mark.parametrize("kind", [Client, Flow])
def test_a_keyword_that_post_does_not_know_is_passed_over_with_one_warning(kind):
    posted = []
    asker = kind()
    asker._run = posted.append

    with pytest.warns(UserWarning, match=r"post\(\)") as warned:
        asker.post("/", requestsize=3, zzz=1, timeout=2.0)

    (warning,) = warned
    assert "requestsize (did you mean request_size?), zzz" in str(warning.message)
    assert warning.filename == __file__
    assert (posted[0].request_size, posted[0].timeout) == (100, 2.0)


@pytest.mark.parametrize("keyword", ["headers", "metadata"])
def test_what_a_protocol_cannot_send_is_named_without_its_value(keyword):
    post = Post(on="/", **{keyword: {"x-secret": "privät"}})
    send = post.sent_metadata if keyword == "headers" else post.sent_headers

    with pytest.raises(ValueError, match=f"^{keyword}: the header 'x-secret' cannot be forwarded") as refused:
        send()

    assert "priv" not in str(refused.value)


def test_a_post_shows_no_secrets_and_no_documents():
    post = Post(
        on="/", inputs="private", metadata={"k": "private"}, headers={"k": "private"}, auth=("a", "private")
    )

    assert "private" not in repr(post)


def test_backoff_grows_up_to_its_maximum():
    backoff = Post(on="/", initial_backoff=0.5, max_backoff=2.0, backoff_multiplier=1.5).retries.backoff

    assert [backoff.delay_s(failures, dice=1.0) for failures in (1, 2, 3, 4, 5, 5000)] == [
        0.5,
        0.75,
        1.125,
        1.6875,
        2.0,
        2.0,
    ]
    assert backoff.delay_s(5, dice=0.0) == 0.0
