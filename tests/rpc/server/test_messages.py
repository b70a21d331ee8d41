"""A call's messages, wherever what arrives of them was cut; long ones stay in pieces."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.buffers import Buffers
from gatewayd.messages.rope import LONG_BYTES, Rope
from gatewayd.rpc.server.call import ServerCall, Unary
from gatewayd.rpc.server.messages import MessageReader
from tests.rpc.server.clients import Client, Server, message

CONTENTS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.integers(LONG_BYTES - 2, 3 * LONG_BYTES).map(lambda size: bytes([size % 251]) * size),
    ),
    max_size=5,
)


@settings(deadline=None)
@given(CONTENTS, st.lists(st.integers(0, 1 << 30), max_size=9))
def test_messages_are_the_same_wherever_they_were_cut(contents: list[bytes], at: list[int]) -> None:
    sent = b"".join(map(message, contents))
    held = Buffers(1 << 30)
    reader = MessageReader(1 << 24, held)
    found: list[Any] = []
    begin = 0
    for number, end in enumerate([*sorted(position % (len(sent) + 1) for position in at), len(sent)]):
        if end > begin:
            reader.add(memoryview(sent)[begin:end] if number % 2 else sent[begin:end])
        while (following := reader.next()) is not None:
            found.append(following[0])
        begin = end
    assert found == contents
    assert [type(each) is Rope for each in found] == [len(each) > LONG_BYTES for each in contents]
    assert reader.empty
    assert held.held_bytes == 0


class Remembering(Server):
    """A server that remembers the messages of a method that takes ropes, and of one that does not."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.messages: list[Any] = []
        self.settings.methods["/ropes"] = Unary(self.remember, ropes=True)  # type: ignore[index]
        self.settings.methods["/bytes"] = Unary(self.remember)  # type: ignore[index]

    def remember(self, call: ServerCall, content: Any, compressed: bool) -> None:
        self.messages.append(content)
        call.respond(content)


def test_long_messages_are_joined_for_methods_that_do_not_take_ropes() -> None:
    server = Remembering()
    client = Client(server, INITIAL_WINDOW_SIZE=1 << 22)
    client.h2.increment_flow_control_window(1 << 22)
    content = bytes(range(256)) * 4096
    asked = [client.ask(path, content) for path in ("/ropes", "/bytes")]
    client.settle(200_000)

    rope, joined = sorted(server.messages, key=lambda each: type(each) is bytes)
    assert isinstance(rope, Rope)
    assert len(rope.pieces) > 1
    assert rope == joined == content
    assert [client.messages(stream_id) for stream_id in asked] == [[content]] * 2


def test_a_long_message_does_not_wait_for_windows_in_its_middle() -> None:
    server = Remembering()
    client = Client(server)
    client.ask("/ropes", bytes(1 << 21))
    client.turn(100_000)  # as much as the first window allows; its beginning tells how much is to come
    client.turn(0)
    client.turn(0)
    assert [len(each) for each in server.messages] == [1 << 21]


def test_a_client_may_be_ahead_of_a_method_by_no_more_than_its_message() -> None:
    server = Server()
    client = Client(server, INITIAL_WINDOW_SIZE=0)
    asked = client.ask("/stream", bytes(1 << 20), bytes(1 << 23))
    client.settle(100_000)
    # The echo of the first waits for the client, and what it has not read is bounded.
    assert len(client.unsent[asked]) > 1 << 22
    assert server.held.held_bytes < (1 << 20) + (1 << 22)
