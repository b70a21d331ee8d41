"""What becomes of a WebSocket connection, decided with values alone."""

from __future__ import annotations

import random

import pytest

from gatewayd.errors import (
    BadRequest,
    DeadlineExceeded,
    Draining,
    ExecutorNetworkError,
    GatewayError,
    InternalError,
    Overloaded,
    UnsupportedFrame,
    codes_of,
)
from gatewayd.protocols.failures import failure_status
from gatewayd.protocols.websocket.conversation import (
    CANCEL_REQUESTS,
    DRY_RUN,
    PAUSE_READING,
    RESUME_READING,
    Action,
    Actions,
    Close,
    Conversation,
    Dispatch,
    SendMessage,
)
from gatewayd.protocols.websocket.errors import NORMAL_CLOSURE, encode_dry_run_error, encode_error
from gatewayd.protocols.websocket.frames import BYTES_FRAMES, JSON_FRAMES

LATE = DeadlineExceeded("exec_a", [f"{name}.example.com:1" for name in ("one", "two", "three")])


def conversation(prefetch: int = 2) -> Conversation:
    return Conversation(BYTES_FRAMES, prefetch)


def receive(talk: Conversation, payload: bytes = b"request") -> Actions:
    return talk.message_received(payload, is_binary=True)


def ticket_of(actions: Actions) -> int:
    (dispatch,) = (action for action in actions if isinstance(action, Dispatch))
    return dispatch.ticket


def kinds(actions: Actions) -> list[type[Action] | Action]:
    """The actions, those with values by their types."""
    return [type(action) if isinstance(action, Dispatch | SendMessage) else action for action in actions]


def closing(error: GatewayError) -> list[Action]:
    return [Close(encode_error(error)), CANCEL_REQUESTS]


def test_a_message_is_dispatched_and_its_answer_is_sent() -> None:
    talk = conversation()
    (dispatch,) = receive(talk, b"request")
    assert isinstance(dispatch, Dispatch)
    assert dispatch.payload == b"request"
    (send,) = talk.answered(dispatch.ticket, b"answer", b"smaller")
    assert isinstance(send, SendMessage)
    assert (send.payload, send.compressed) == (b"answer", b"smaller")
    assert talk.sent() == ()


def test_answers_are_sent_in_the_order_of_completion() -> None:
    talk = conversation()
    first, second = (ticket_of(receive(talk)) for _ in range(2))
    for ticket, answer in ((second, b"second"), (first, b"first")):
        (send,) = talk.answered(ticket, answer)
        assert isinstance(send, SendMessage)
        assert send.payload == answer


def test_answers_are_held_for_earlier_ones_where_the_client_asks_for_order() -> None:
    talk = Conversation(BYTES_FRAMES, 2, ordered=True)
    first, second = (ticket_of(receive(talk)) for _ in range(2))
    assert talk.answered(second, b"second") == ()
    assert not talk.is_reading
    sends = talk.answered(first, b"first")
    assert [send.payload for send in sends if isinstance(send, SendMessage)] == [b"first", b"second"]
    assert (talk.sent(), talk.sent()) == ((RESUME_READING,), ())


def test_held_answers_are_sent_before_the_end_of_an_ordered_connection() -> None:
    talk = Conversation(BYTES_FRAMES, 3, ordered=True)
    first, second = (ticket_of(receive(talk)) for _ in range(2))
    assert receive(talk, b"\0") == ()
    assert talk.answered(second, b"second") == ()
    assert kinds(talk.answered(first, b"first")) == [SendMessage, SendMessage]
    assert talk.sent() == ()
    assert talk.sent() == (Close(NORMAL_CLOSURE), CANCEL_REQUESTS)


def test_a_full_window_pauses_reading_until_an_answer_is_written() -> None:
    talk = conversation(prefetch=1)
    actions = receive(talk)
    assert kinds(actions) == [PAUSE_READING, Dispatch]
    assert not talk.is_reading
    assert kinds(talk.answered(ticket_of(actions), b"answer")) == [SendMessage]
    assert not talk.is_reading
    assert talk.sent() == (RESUME_READING,)
    assert talk.is_reading


def test_without_a_limit_the_window_is_never_full() -> None:
    talk = conversation(prefetch=0)
    for _ in range(1000):
        assert kinds(receive(talk)) == [Dispatch]


def test_a_client_that_does_not_read_is_not_read_from_though_there_is_room() -> None:
    talk = conversation(prefetch=10)
    assert talk.client_fell_behind() == (PAUSE_READING,)
    assert talk.client_fell_behind() == ()
    assert talk.client_caught_up() == (RESUME_READING,)


def test_answers_that_are_not_written_keep_their_places() -> None:
    talk = conversation(prefetch=1)
    ticket = ticket_of(receive(talk))
    talk.answered(ticket, b"answer")
    assert talk.client_fell_behind() == ()
    assert talk.sent() == ()
    assert not talk.is_reading
    assert talk.client_caught_up() == (RESUME_READING,)


def test_after_the_end_of_input_the_connection_closes_once_all_is_answered() -> None:
    talk = conversation()
    ticket = ticket_of(receive(talk))
    assert receive(talk, b"\0") == ()
    assert receive(talk) == (), "what comes after the end of input is dropped"
    talk.answered(ticket, b"answer")
    assert talk.sent() == (Close(NORMAL_CLOSURE), CANCEL_REQUESTS)


def test_an_end_of_input_with_nothing_under_way_closes_at_once() -> None:
    talk = Conversation(JSON_FRAMES, 2)
    actions = talk.message_received(b" {} ", is_binary=False)
    assert actions == (Close(NORMAL_CLOSURE), CANCEL_REQUESTS)


@pytest.mark.parametrize(("frames", "is_binary"), [(BYTES_FRAMES, False), (JSON_FRAMES, True)])
def test_a_message_of_the_other_kind_closes(frames: object, is_binary: bool) -> None:
    talk = Conversation(BYTES_FRAMES if frames is BYTES_FRAMES else JSON_FRAMES, 2)
    (close, _) = talk.message_received(b"{}", is_binary=is_binary)
    assert isinstance(close, Close)
    assert close.frame.code == codes_of(UnsupportedFrame).websocket
    assert talk.frames.name.encode() in close.frame.reason


@pytest.mark.parametrize(
    "error", [BadRequest("no such target"), Overloaded("full"), LATE, InternalError(), Draining()]
)
def test_an_error_closes_with_its_code_and_cancels_what_is_under_way(error: GatewayError) -> None:
    talk = conversation()
    ticket = ticket_of(receive(talk))
    assert list(talk.failed(error)) == closing(error)
    assert talk.answered(ticket, b"too late") == ()


def test_closing_resumes_reading_or_the_close_frame_of_the_client_would_not_be_seen() -> None:
    talk = conversation(prefetch=1)
    receive(talk)
    error = BadRequest("no such target")
    assert list(talk.failed(error)) == [*closing(error), RESUME_READING]
    assert talk.is_reading


def test_draining_waits_for_what_is_under_way() -> None:
    talk = conversation()
    ticket = ticket_of(receive(talk))
    assert talk.drain() == ()
    assert receive(talk) == ()
    talk.answered(ticket, b"answer")
    assert list(talk.sent()) == closing(Draining())


def test_draining_an_idle_connection_closes_it() -> None:
    assert list(conversation().drain()) == closing(Draining())


def test_draining_after_the_end_of_input_still_closes_normally() -> None:
    talk = conversation()
    ticket = ticket_of(receive(talk))
    receive(talk, b"\0")
    talk.drain()
    talk.answered(ticket, b"answer")
    assert talk.sent() == (Close(NORMAL_CLOSURE), CANCEL_REQUESTS)


def test_close_now_waits_for_nothing() -> None:
    talk = conversation()
    receive(talk)
    assert list(talk.close_now()) == closing(Draining())


def test_after_the_end_nothing_happens_any_more() -> None:
    talk = conversation()
    ticket = ticket_of(receive(talk))
    assert talk.ended() == (CANCEL_REQUESTS,)
    for actions in (
        talk.ended(),
        receive(talk),
        talk.answered(ticket, b""),
        talk.sent(),
        talk.failed(Draining()),
        talk.client_fell_behind(),
        talk.client_caught_up(),
        talk.drain(),
        talk.close_now(),
        talk.dry_run_ended(None),
    ):
        assert actions == ()


# -- dry runs -----------------------------------------------------------------------------------------


def dry_run() -> Conversation:
    return Conversation(BYTES_FRAMES, 2, is_dry_run=True)


def test_an_ordinary_connection_waits_for_its_client() -> None:
    assert conversation().opened() == ()


def test_a_dry_run_starts_at_once_and_reads_no_requests() -> None:
    talk = dry_run()
    assert talk.opened() == (DRY_RUN,)
    assert receive(talk) == ()
    assert talk.drain() == (), "its report comes first"


@pytest.mark.parametrize("error", [None, Overloaded("full")])
def test_a_dry_run_is_reported_and_then_closed(error: GatewayError | None) -> None:
    talk = dry_run()
    send, *rest = talk.dry_run_ended(error)
    assert isinstance(send, SendMessage)
    assert send.payload == (b"" if error is None else failure_status(error))
    assert rest == [Close(NORMAL_CLOSURE), CANCEL_REQUESTS]
    assert talk.sent() == ()


def test_a_dry_run_without_network_closes_with_an_error_that_knows_no_timeouts() -> None:
    error = ExecutorNetworkError("exec_a", LATE.addresses, LATE.details)
    late = dry_run().dry_run_ended(LATE)
    assert late == (Close(encode_dry_run_error(LATE)), CANCEL_REQUESTS)
    assert encode_dry_run_error(LATE).reason == encode_error(error).reason
    assert encode_dry_run_error(LATE).reason != encode_error(LATE).reason


# -- any order of events ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_reading_is_paused_exactly_while_there_is_no_room(seed: int) -> None:
    dice = random.Random(seed)
    talk = Simulation(prefetch=dice.randrange(1, 4))
    for _ in range(200):
        talk.step(dice)
        assert talk.reading == (not talk.behind and len(talk.under_way) + talk.unwritten < talk.prefetch)
        assert talk.reading == talk.conversation.is_reading
    talk.finish()
    assert talk.ends == [Close(NORMAL_CLOSURE)]
    assert talk.answers == talk.requests


class Simulation:
    """A client, a transport and a dispatcher around one conversation."""

    def __init__(self, prefetch: int) -> None:
        self.prefetch = prefetch
        self.conversation = Conversation(BYTES_FRAMES, prefetch)
        self.reading = True
        self.behind = False
        self.under_way: list[int] = []
        self.unwritten = self.requests = self.answers = 0
        self.ends: list[Close] = []

    def act(self, actions: Actions) -> None:
        for action in actions:
            if isinstance(action, Dispatch):
                self.requests += 1
                self.under_way.append(action.ticket)
            elif isinstance(action, SendMessage):
                self.answers += 1
                self.unwritten += self.behind
                self.act(self.conversation.sent())
            elif isinstance(action, Close):
                self.ends.append(action)
            elif action in (PAUSE_READING, RESUME_READING):
                assert self.reading == (action is PAUSE_READING), "paused or resumed twice"
                self.reading = action is RESUME_READING

    def step(self, dice: random.Random) -> None:
        event = dice.choice(("message", "answer", "message", "answer", "transport"))
        if event == "message" and self.reading:
            self.act(receive(self.conversation))
        elif event == "answer" and self.under_way:
            ticket = self.under_way.pop(dice.randrange(len(self.under_way)))
            self.act(self.conversation.answered(ticket, b"answer"))
        elif event == "transport" and not self.behind:
            self.behind = True
            self.act(self.conversation.client_fell_behind())
        elif event == "transport":
            self.catch_up()

    def catch_up(self) -> None:
        self.behind, self.unwritten = False, 0
        self.act(self.conversation.client_caught_up())

    def finish(self) -> None:
        self.catch_up()
        while self.under_way:
            self.act(self.conversation.answered(self.under_way.pop(), b"answer"))
        self.act(receive(self.conversation, b"\0"))


def test_an_answer_that_is_being_encoded_counts_as_unsent_and_pauses_reading():
    talk = Conversation(BYTES_FRAMES, 0, unsent_bytes=1000)
    ticket = ticket_of(receive(talk))
    assert talk.arrived(ticket, 900) == (PAUSE_READING,)
    assert talk.unsent_bytes == 900
    (send,) = talk.answered(ticket, b"answer")
    assert isinstance(send, SendMessage)
    assert talk.sent() == (RESUME_READING,)
    assert talk.unsent_bytes == 0


def test_too_many_answers_that_are_being_encoded_end_the_connection():
    talk = Conversation(BYTES_FRAMES, 0, unsent_bytes=1000)
    tickets = [ticket_of(receive(talk)) for _ in range(2)]
    talk.arrived(tickets[0], 3000)
    (close, *_) = talk.arrived(tickets[1], 3000)
    assert isinstance(close, Close)
    assert not talk.is_open
    assert talk.arrived(tickets[1], 3000) == ()
